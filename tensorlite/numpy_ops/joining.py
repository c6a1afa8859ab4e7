"""Joining tensors, cutting them, and repeating them."""

from __future__ import annotations

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

from ..arraylike import array_of, is_float, whole
from ..device import place
from ..ops import broadcast_to, concatenate, getitem, reshape, swapaxes, where
from ..tensor import Tensor
from .operands import as_tensor, as_tensors
from .shapes import atleast_1d, atleast_2d, atleast_3d, ravel, split, take

__all__ = ["hstack", "vstack", "dstack", "column_stack", "append"]
__all__ += ["array_split", "hsplit", "vsplit", "dsplit", "unstack"]
__all__ += ["repeat", "tile", "broadcast_arrays", "meshgrid", "linspace", "full_like"]


# =================================================================================================
# Joining
# =================================================================================================


def hstack(arrays) -> Tensor:
    """Join tensors along the second axis, or along the first if they have one only."""
    arrays = [atleast_1d(x) for x in as_tensors("hstack", *arrays)]
    return concatenate(arrays, 0 if arrays and arrays[0].ndim == 1 else 1)


def vstack(arrays) -> Tensor:
    """Join tensors along the first axis; those of one axis are rows."""
    return concatenate([atleast_2d(x) for x in as_tensors("vstack", *arrays)], 0)


def dstack(arrays) -> Tensor:
    """Join tensors along the third axis, after `atleast_3d`."""
    return concatenate([atleast_3d(x) for x in as_tensors("dstack", *arrays)], 2)


def column_stack(arrays) -> Tensor:
    """Join tensors along the second axis; those of one axis are columns."""
    arrays = as_tensors("column_stack", *arrays)
    return concatenate([x if x.ndim > 1 else reshape(x, (x.size, 1)) for x in arrays], 1)


def append(x, values, axis: int | None = None) -> Tensor:
    """`values` behind x along an axis; None makes a row of each first."""
    return concatenate(as_tensors("append", x, values), axis)


# =================================================================================================
# Cutting
# =================================================================================================


def array_split(x, indices_or_sections, axis: int = 0) -> list[Tensor]:
    """`split`, but where sections cannot be equal, the first ones are longer by one."""
    x, sections = as_tensor(x), indices_or_sections
    if isinstance(sections, (int, np.integer)):
        if sections < 1:
            raise ValueError(f"array_split cuts into 1 section at least, not {sections}")
        n, longer = divmod(x.shape[normalize_axis_index(axis, x.ndim)], sections)
        sections = [i * n + min(i, longer) for i in range(1, sections)]
    return split(x, sections, axis)


def hsplit(x, indices_or_sections) -> list[Tensor]:
    """`split` along the second axis, or along the first if there is one only."""
    x = as_tensor(x)
    return _split(x, indices_or_sections, 0 if x.ndim == 1 else 1, "hsplit", 1)


def vsplit(x, indices_or_sections) -> list[Tensor]:
    """`split` along the first of two axes or more."""
    return _split(as_tensor(x), indices_or_sections, 0, "vsplit", 2)


def dsplit(x, indices_or_sections) -> list[Tensor]:
    """`split` along the third axis."""
    return _split(as_tensor(x), indices_or_sections, 2, "dsplit", 3)


def _split(x, indices_or_sections, axis, name, least):
    if x.ndim < least:
        raise ValueError(f"{name} takes arrays of {least} or more axes, not of shape {x.shape}")
    return split(x, indices_or_sections, axis)


def unstack(x, axis: int = 0) -> tuple[Tensor, ...]:
    """The parts of x along an axis, each without that axis."""
    x = as_tensor(x)
    axis = normalize_axis_index(axis, x.ndim)
    return tuple(getitem(x, (slice(None),) * axis + (i,)) for i in range(x.shape[axis]))


# =================================================================================================
# Repeating
# =================================================================================================


def repeat(x, repeats, axis: int | None = None) -> Tensor:
    """Each element of an axis `repeats` times, a number or one for each; None: of all in a row."""
    x, repeats = as_tensor(x), whole(array_of(repeats))
    n = x.size if axis is None else x.shape[axis]
    repeats = place(repeats, "cpu") if hasattr(repeats, "dtype") else repeats
    return take(x, np.repeat(np.arange(n), repeats), axis)


def tile(x, reps) -> Tensor:
    """x repeated along each axis as often as `reps` says: a number for the last axis, or several.

    >>> tile([1.0, 2.0], (2, 2))
    tensor([[1., 2., 1., 2.],
            [1., 2., 1., 2.]])
    """
    x, reps = as_tensor(x), tuple(np.ravel(reps).tolist())
    ndim = max(x.ndim, len(reps))
    shape, reps = (1,) * (ndim - x.ndim) + x.shape, (1,) * (ndim - len(reps)) + reps
    apart = sum(((1, n) for n in shape), ())  # an axis of copies before each axis
    copies = sum(zip(reps, shape), ())
    tiled = tuple(r * n for r, n in zip(reps, shape))
    return reshape(broadcast_to(reshape(x, apart), copies), tiled)


def broadcast_arrays(*arrays) -> tuple[Tensor, ...]:
    """The tensors stretched to the shape to which all of them broadcast."""
    arrays = as_tensors("broadcast_arrays", *arrays)
    shape = np.broadcast_shapes(*(x.shape for x in arrays))
    return tuple(broadcast_to(x, shape) for x in arrays)


def meshgrid(*arrays, sparse: bool = False, indexing: str = "xy") -> tuple[Tensor, ...]:
    """The coordinates of a grid: one tensor for each row of coordinates, all of the grid's shape.

    The first row runs along the second axis ("xy") or along the first ("ij"). A `sparse` grid has
    axes of size 1 instead of copies. Raises ValueError for another `indexing`.
    """
    if indexing not in ("xy", "ij"):
        raise ValueError(f"meshgrid: indexing is 'xy' or 'ij', not {indexing!r}")
    rows = [ravel(x) for x in as_tensors("meshgrid", *arrays)]
    ones, grid = (1,) * len(rows), []
    for i, row in enumerate(rows):
        x = reshape(row, ones[:i] + (row.size,) + ones[i + 1 :])
        grid.append(swapaxes(x, 0, 1) if indexing == "xy" and len(rows) > 1 else x)
    return tuple(grid) if sparse else broadcast_arrays(*grid)


def linspace(start, stop, num: int = 50, endpoint: bool = True) -> Tensor:
    """`num` numbers with equal distances from `start` to `stop`, along a new first axis.

    `stop` is the last of them, or left out if not `endpoint`. Raises ValueError for a negative
    `num`.
    """
    if num < 0:
        raise ValueError(f"linspace gives 0 numbers or more, not {num}")
    start, stop = broadcast_arrays(start, stop)
    dtype = start.dtype if is_float(start.dtype) else np.float32
    t = np.arange(num, like=start.data) / max(num - bool(endpoint), 1)
    t = np.reshape(t.astype(dtype), (num,) + (1,) * start.ndim)
    return where(t == 1, stop, start + (stop - start) * t)


def full_like(x, fill_value) -> Tensor:
    """A tensor of the shape, dtype and device of x, filled with a number; differentiable in it."""
    x = as_tensor(x)
    value = as_tensor(fill_value).to(x.device)
    return broadcast_to(value, x.shape).astype(x.dtype)
