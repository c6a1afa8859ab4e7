"""PyTorch's operations that rearrange, cut, join and index, said with NumPy's functions."""

import itertools
import math

import numpy as np

from .compare import CannotSay


def sizes(args) -> tuple:
    """The sizes in x.view(2, 3) and in x.view((2, 3))."""
    return tuple(args[0]) if len(args) == 1 and not isinstance(args[0], int) else args


def expand(x, *shape):
    shape = sizes(shape)
    own = (1,) * (len(shape) - x.ndim) + x.shape
    return np.broadcast_to(x, tuple(a if n == -1 else n for n, a in zip(shape, own)))


def diag_embed(x, offset=0, dim1=-2, dim2=-1):
    n = x.shape[-1] + abs(offset)
    mask = np.eye(n, n, offset)
    rows = np.arange(x.shape[-1]) + max(-offset, 0)
    spread = np.zeros(n, int)
    spread[rows] = np.arange(x.shape[-1])
    full = np.take(x, spread, axis=-1)[..., :, None] * mask  # (..., n, n)
    return np.moveaxis(full, (-2, -1), (dim1, dim2))


def diagonal(x, offset=0, dim1=0, dim2=1):
    return np.diagonal(x, offset, dim1, dim2)


def narrow(x, dim, start, length):
    return x[(*(slice(None),) * (dim % x.ndim), slice(start, start + length))]


def select(x, dim, index):
    return np.take(x, index, axis=dim)


def slices(x, dim=0, start=None, end=None, step=1):
    return x[(*(slice(None),) * (dim % x.ndim), slice(start, end, step))]


def unbind(x, dim=0):
    return [select(x, dim, i) for i in range(x.shape[dim])]


def chunk(x, chunks, dim=0):
    size = -(-x.shape[dim] // chunks)
    return np.split(x, range(size, x.shape[dim], size), axis=dim)


def split(x, size, dim=0):
    """Pieces of one size, or of the sizes in a list."""
    if isinstance(size, int):
        return np.split(x, range(size, x.shape[dim], size), axis=dim)
    return np.split(x, np.cumsum(size)[:-1].tolist(), axis=dim)


def tensor_split(x, sections, dim=0):
    sections = sections.tolist() if isinstance(sections, np.ndarray) else sections
    return np.array_split(x, sections, axis=dim)


def flatten(x, start_dim=0, end_dim=-1):
    if x.ndim == 0:
        return x.reshape(1)
    start, end = start_dim % x.ndim, end_dim % x.ndim
    return x.reshape((*x.shape[:start], math.prod(x.shape[start : end + 1]), *x.shape[end + 1 :]))


def unflatten(x, dim, shape):
    dim = dim % x.ndim
    return x.reshape((*x.shape[:dim], *shape, *x.shape[dim + 1 :]))


def sum_to_size(x, *shape):
    shape = sizes(shape)
    lead = x.ndim - len(shape)
    kept = tuple(i + lead for i, n in enumerate(shape) if n == 1 and x.shape[i + lead] != 1)
    return np.sum(x, axis=(*range(lead), *kept), keepdims=True).reshape(shape)


def flip(x, dims):
    return np.flip(x, tuple(dims) if isinstance(dims, list) else dims)


def roll(x, shifts, dims=None):
    return np.roll(x, shifts, None if dims == () else dims)


def repeat(x, *counts):
    return np.tile(x, sizes(counts))


def repeat_interleave(x, repeats, dim=None, output_size=None):
    return np.repeat(x, repeats, axis=dim)


def unfold(x, dimension, size, step):
    if x.ndim == 0:
        return x.reshape(1)[:size]
    starts = np.arange(0, x.shape[dimension] - size + 1, step)
    windows = np.take(x, starts[:, None] + np.arange(size), axis=dimension)
    return np.moveaxis(windows, dimension % x.ndim + 1, -1)


def strided(size, stride, storage_offset=0):
    """The flat positions of torch's as_strided, which strides over contiguous memory."""
    axes = [(-1,) + (1,) * (len(size) - 1 - i) for i in range(len(size))]
    steps = [np.reshape(np.arange(n) * s, a) for n, s, a in zip(size, stride, axes)]
    return sum(steps, np.array(storage_offset))


def as_strided(x, size, stride, storage_offset=0):
    return np.take(x, strided(size, stride, storage_offset))


def combinations(x, r=2, with_replacement=False):
    draw = itertools.combinations_with_replacement if with_replacement else itertools.combinations
    rows = np.array(list(draw(range(x.size), r)), int)
    return x[rows.reshape(-1, r)]


def squeeze(x, dim=None):
    dims = dim if isinstance(dim, tuple) else range(x.ndim) if dim is None else (dim,)
    dims = tuple(d for d in dims if x.ndim and x.shape[d] == 1)
    return np.squeeze(x, dims)


def index(x, dim, at):
    """x indexed along an axis, where a 0-d array has one too."""
    return x if x.ndim == 0 else np.take(x, at, axis=dim)


def gather(x, dim, at):
    if at.size == 0:
        return np.reshape(x, -1)[at.reshape(-1).astype(int)].reshape(at.shape)
    x, rows = np.atleast_1d(x), np.atleast_1d(at).astype(int)
    cut = tuple(slice(n if a != dim % x.ndim else None) for a, n in enumerate(rows.shape))
    return np.take_along_axis(x[cut], rows, dim).reshape(at.shape)


def take_along_dim(x, at, dim=None):
    return np.take_along_axis(x, at.ravel() if dim is None else at, dim)


def pad(x, widths, mode="constant", value=0.0):
    """torch names the last axis first, and cuts where a width is negative."""
    modes = {"replicate": "edge", "circular": "wrap", "reflect": "reflect"}
    for axis, (before, after) in enumerate(zip(widths[::2], widths[1::2])):
        axis, added = -1 - axis, (max(before, 0), max(after, 0))
        kept = slice(max(-before, 0), None if after >= 0 else after)
        if mode == "circular" and min(before, after) < 0:
            raise CannotSay("cuts and wraps around")
        if mode == "constant":
            edges = [(0, 0)] * x.ndim
            edges[axis] = added
            x = np.pad(x, edges, constant_values=value or 0)
            x = np.moveaxis(np.moveaxis(x, axis, 0)[kept], 0, axis)
        elif before or after:
            x = np.take(x, np.pad(np.arange(x.shape[axis]), added, modes[mode])[kept], axis=axis)
    return x


def pixel_shuffle(x, upscale_factor):
    *lead, c, h, w = x.shape
    r = upscale_factor
    y = x.reshape((*lead, c // (r * r), r, r, h, w))
    return np.moveaxis(y, (-4, -3), (-3, -1)).reshape((*lead, c // (r * r), h * r, w * r))


def pixel_unshuffle(x, downscale_factor):
    *lead, c, h, w = x.shape
    r = downscale_factor
    y = x.reshape((*lead, c, h // r, r, w // r, r))
    return np.moveaxis(y, (-3, -1), (-4, -3)).reshape((*lead, c * r * r, h // r, w // r))


def channel_shuffle(x, groups):
    n, c, *rest = x.shape
    return np.swapaxes(x.reshape((n, groups, c // groups, *rest)), 1, 2).reshape(x.shape)


def stacked(name: str):
    return lambda parts: getattr(np, name)(parts)


def atleast(name: str):
    return lambda x: getattr(np, name)(*(x if isinstance(x, (tuple, list)) else (x,)))


def meshgrid(*arrays, indexing):
    arrays = arrays[0] if isinstance(arrays[0], (list, tuple)) else arrays
    return np.meshgrid(*map(np.atleast_1d, arrays), indexing=indexing)


def cartesian_prod(*arrays):
    if len(arrays) == 1:
        return arrays[0]
    return np.stack([a.reshape(-1) for a in np.meshgrid(*arrays, indexing="ij")], axis=-1)


def block_diag(*blocks):
    blocks = [np.atleast_2d(b) for b in blocks]
    columns = np.cumsum([0, *(b.shape[1] for b in blocks)]).tolist()
    widths = [((0, 0), (start, columns[-1] - stop)) for start, stop in zip(columns, columns[1:])]
    return np.concatenate([np.pad(b, w) for b, w in zip(blocks, widths)])


def cat(parts, dim=0):
    if (0,) in [x.shape for x in parts] and any(x.ndim > 1 for x in parts):
        raise CannotSay("joins an empty vector to a matrix")
    return np.concatenate(parts, dim)


def vander(x, N=None):
    if x.ndim > 1:
        raise CannotSay("a stack of vectors")
    return np.vander(np.ravel(x), N, increasing=True)


def same(x, *_, **__):
    return x * 1


NAMES = {
    "T": lambda x: x.T,
    "H": lambda x: x.T,
    "mT": lambda x: np.matrix_transpose(x),
    "mH": lambda x: np.matrix_transpose(x),
    "__getitem__": lambda x, *index: x[index[0]],
    "alias_copy": same,
    "as_strided": as_strided,
    "as_strided_copy": as_strided,
    "atleast_1d": atleast("atleast_1d"),
    "atleast_2d": atleast("atleast_2d"),
    "atleast_3d": atleast("atleast_3d"),
    "block_diag": block_diag,
    "broadcast_tensors": lambda *arrays: np.broadcast_arrays(*arrays),
    "broadcast_to": lambda x, shape: np.broadcast_to(x, shape),
    "cartesian_prod": cartesian_prod,
    "cat": cat,
    "chunk": chunk,
    "clone": same,
    "column_stack": stacked("column_stack"),
    "combinations": combinations,
    "constant_pad_nd": lambda x, widths, value=0: pad(x, widths, "constant", value),
    "contiguous": same,
    "diag": lambda x, diagonal=0: np.diag(x, diagonal),
    "diag_embed": diag_embed,
    "diagflat": lambda x, offset=0: np.diag(x.reshape(-1), offset),
    "diagonal": diagonal,
    "diagonal_copy": diagonal,
    "double": same,
    "dsplit": lambda x, at: np.dsplit(x, at),
    "dstack": stacked("dstack"),
    "expand": expand,
    "expand_as": lambda x, y: np.broadcast_to(x, y.shape),
    "expand_copy": expand,
    "fft.fftshift": lambda x, dim=None: np.fft.fftshift(x, dim),
    "fft.ifftshift": lambda x, dim=None: np.fft.ifftshift(x, dim),
    "flatten": flatten,
    "flip": flip,
    "fliplr": lambda x: np.fliplr(x),
    "flipud": lambda x: np.flipud(x),
    "float": lambda x, **_: x.astype(np.float32),
    "gather": gather,
    "half": lambda x, **_: x.astype(np.float16),
    "hsplit": lambda x, at: np.hsplit(x, at),
    "hstack": stacked("hstack"),
    "index_select": index,
    "linalg.diagonal": lambda x, offset=0, dim1=-2, dim2=-1: np.diagonal(x, offset, dim1, dim2),
    "linalg.vander": vander,
    "masked_select": lambda x, mask: np.broadcast_to(x, np.broadcast_shapes(x.shape, mask.shape))[
        np.broadcast_to(mask, np.broadcast_shapes(x.shape, mask.shape))
    ],
    "meshgrid": meshgrid,
    "movedim": lambda x, source, target: np.moveaxis(x, source, target),
    "narrow": lambda x, dim, start, length: narrow(x, dim, int(start), length),
    "narrow_copy": narrow,
    "nn.functional.channel_shuffle": channel_shuffle,
    "nn.functional.pad": pad,
    "nn.functional.pixel_shuffle": pixel_shuffle,
    "nn.functional.pixel_unshuffle": pixel_unshuffle,
    "permute": lambda x, dims: np.transpose(x, dims),
    "permute_copy": lambda x, dims: np.transpose(x, dims),
    "ravel": lambda x: np.ravel(x),
    "repeat": repeat,
    "repeat_interleave": repeat_interleave,
    "reshape": lambda x, *shape: np.reshape(x, sizes(shape)),
    "reshape_as": lambda x, y: np.reshape(x, y.shape),
    "roll": roll,
    "rot90": lambda x, k=1, dims=(0, 1): np.rot90(x, k, dims),
    "select": select,
    "slice": slices,
    "split": split,
    "split_with_sizes": split,
    "split_with_sizes_copy": split,
    "squeeze": squeeze,
    "squeeze_copy": squeeze,
    "stack": lambda parts, dim=0: np.stack(parts, dim),
    "sum_to_size": sum_to_size,
    "t": lambda x: x.T,
    "t_copy": lambda x: x.T,
    "take": lambda x, at: np.take(x, at),
    "take_along_dim": take_along_dim,
    "tensor_split": tensor_split,
    "tile": lambda x, dims: np.tile(x, dims),
    "to": same,
    "transpose": lambda x, a, b: np.swapaxes(x, a, b) if x.ndim else x,
    "transpose_copy": lambda x, a, b: np.swapaxes(x, a, b) if x.ndim else x,
    "tril": lambda x, k=0: np.tril(x, k),
    "triu": lambda x, k=0: np.triu(x, k),
    "unbind": unbind,
    "unbind_copy": unbind,
    "unflatten": unflatten,
    "unfold": unfold,
    "unfold_copy": unfold,
    "unsafe_chunk": chunk,
    "unsafe_split": split,
    "unsqueeze": lambda x, dim: np.expand_dims(x, dim),
    "unsqueeze_copy": lambda x, dim: np.expand_dims(x, dim),
    "view": lambda x, *shape: np.reshape(x, sizes(shape)),
    "view_as": lambda x, y: np.reshape(x, y.shape),
    "view_copy": lambda x, *shape: np.reshape(x, sizes(shape)),
    "vsplit": lambda x, at: np.vsplit(x, at),
    "vstack": stacked("vstack"),
}
