"""The functions of shapes.py, joining.py and indexing.py in PyTorch."""

import torch

SAME_NAME = (
    "flipud fliplr ravel atleast_1d atleast_2d atleast_3d hstack vstack dstack column_stack tile"
)


def rollaxis(x, axis, start=0):
    axis = axis % x.ndim
    return torch.movedim(x, axis, start - (axis < start))


def append(x, values, axis=None):
    if axis is None:
        return torch.cat([x.reshape(-1), values.reshape(-1)])
    return torch.cat([x, values], axis)


def repeat(x, repeats, axis=None):
    return torch.repeat_interleave(x, repeats, dim=axis)


def compress(condition, x, axis=None):
    x, axis = (x.reshape(-1), 0) if axis is None else (x, axis)
    return torch.index_select(x, axis, torch.nonzero(condition).reshape(-1))


def unique(x, axis=None):  # of different elements; torch's own has no gradient
    if axis is None:
        return torch.sort(x.reshape(-1)).values
    return torch.index_select(x, axis, torch.argsort(x.reshape(len(x), -1)[:, 0]))


def vander(x, N=None, increasing=False):
    n = len(x) if N is None else N
    powers = torch.arange(n) if increasing else torch.arange(n - 1, -1, -1)
    return x[:, None] ** powers  # torch.vander refuses a width of 0


def select(x, y, default, condlist):
    return torch.where(condlist[0], x, torch.where(condlist[1], y, default))


THEIRS = {name: getattr(torch, name) for name in SAME_NAME.split()} | {
    "rot90": lambda x, k, axes: torch.rot90(x, k, axes),
    "fftshift": lambda x, axes: torch.fft.fftshift(x, axes),
    "ifftshift": lambda x, axes: torch.fft.ifftshift(x, axes),
    "moveaxis": lambda x, source, destination: torch.movedim(x, source, destination),
    "rollaxis": rollaxis,
    "matrix_transpose": lambda x: x.mT,
    "permute_dims": lambda x, axes: torch.permute(x, axes),
    "append": append,
    "meshgrid": lambda *rows, indexing: torch.meshgrid(
        *(row.reshape(-1) for row in rows), indexing=indexing
    ),
    "broadcast_arrays": torch.broadcast_tensors,
    "array_split": lambda x, indices_or_sections, axis: torch.tensor_split(
        x, indices_or_sections, dim=axis
    ),
    "hsplit": lambda x, indices_or_sections: torch.hsplit(x, indices_or_sections),
    "vsplit": lambda x, indices_or_sections: torch.vsplit(x, indices_or_sections),
    "dsplit": lambda x, indices_or_sections: torch.dsplit(x, indices_or_sections),
    "unstack": lambda x, axis: torch.unbind(x, axis),
    "repeat": repeat,
    "tile": lambda x, reps: torch.tile(x, reps if isinstance(reps, tuple) else (reps,)),
    "full_like": lambda x, shape: torch.broadcast_to(x, shape),
    "diag": lambda x, k: torch.diag(x, k),
    "diagflat": lambda x, k: torch.diagflat(x, k),
    "diagonal": lambda x, offset, axis1, axis2: torch.diagonal(x, offset, axis1, axis2),
    "vander": vander,
    "compress": compress,
    "extract": lambda condition, x: torch.masked_select(x, condition),
    "select": select,
    "choose": lambda x, y, indices: torch.where(indices == 0, x, y),
    "unique": unique,
}
EXCEPTIONS = {
    "linspace": "torch.linspace takes one number for each end; test_numpy_shapes.py has NumPy's",
    "resize": "torch's resize_ changes a tensor in place",
    "insert": "torch has no insertion; test_numpy_shapes.py compares with NumPy",
    "delete": "torch has no deletion; test_numpy_shapes.py compares with NumPy",
}
DIFFERENCES = {}
