"""Functions that rearrange elements, and choose some of them by indices."""

from __future__ import annotations

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

from ..arraylike import array_of
from ..graph import Part
from ..op import op, operand
from ..ops import axis_of, concatenate, expand_dims, getitem, index_array, reshape
from ..tensor import Tensor, tensor

__all__ = ["flip", "roll", "tril", "triu", "pad", "split", "stack", "take", "take_along_axis"]


@op(moves=True)
def flip(x, *, axis=None):
    """x with the order of its elements reversed along an axis, a tuple of them, or all (None)."""
    return np.flip(x, axis), lambda g: np.flip(g, axis)


@op(moves=True)
def roll(x, *, shift, axis=None):
    """x shifted along an axis; elements pushed out at the end come in again at the start."""
    back = tuple(-s for s in shift) if isinstance(shift, (tuple, list)) else -shift
    return np.roll(x, shift, axis), lambda g: np.roll(g, back, axis)


@op
def tril(x, *, k=0):
    """The elements of the last two axes on and below the k-th diagonal, zeros above."""
    return np.tril(x, k), lambda g: np.tril(g, k)


@op
def triu(x, *, k=0):
    """The elements of the last two axes on and above the k-th diagonal, zeros below."""
    return np.triu(x, k), lambda g: np.triu(g, k)


@op
def pad(x, *, pad_width, constant_values=0):
    """x with a border of one number; pad_width is n, (before, after), or one such pair per axis."""
    widths = np.broadcast_to(np.asarray(pad_width), (x.ndim, 2)).tolist()
    inside = tuple(slice(before, before + n) for (before, _), n in zip(widths, x.shape))
    y = np.pad(x, widths, constant_values=constant_values) if x.ndim else x
    return y, lambda g: g[inside]


def split(x, indices_or_sections, axis: int = 0) -> list[Tensor]:
    """Cut a tensor along an axis: into equal sections (int), or at the given indices (list).

    Raises ValueError if equal sections do not divide the axis.
    """
    x = x if isinstance(x, Tensor) else tensor(x)
    axis = normalize_axis_index(axis, x.ndim)
    n = x.shape[axis]
    if isinstance(indices_or_sections, (int, np.integer)):
        if n % indices_or_sections:
            raise ValueError(f"cannot split {n} into {indices_or_sections} equal sections")
        size = n // indices_or_sections
        cuts = [i * size for i in range(1, indices_or_sections)]
    else:
        cuts = list(indices_or_sections)
    before = (slice(None),) * axis
    return [
        getitem(x, before + (slice(start, stop),)) for start, stop in zip([0, *cuts], [*cuts, None])
    ]


def stack(arrays, axis: int = 0) -> Tensor:
    """Join tensors of one shape along a new axis."""
    arrays = [operand(x, "stack", arrays) if isinstance(x, list) else x for x in arrays]
    return concatenate([expand_dims(x, axis) for x in arrays], axis)


# =================================================================================================
# Indexing
# =================================================================================================


def take(x, indices, axis: int | None = None) -> Tensor:
    """The elements at integer `indices` along an axis, or among all elements in order (None)."""
    x = x if isinstance(x, Tensor) else tensor(x)
    indices, axis = index_array(indices), axis_of(axis, x)
    if axis is None:
        return getitem(reshape(x, (x.size,)), indices)
    return getitem(x, (slice(None),) * normalize_axis_index(axis, x.ndim) + (indices,))


@op
def take_along_axis(x, *, indices, axis):
    """The elements of x at `indices` along `axis`; in other axes both have the same size."""
    axis, indices = normalize_axis_index(axis, x.ndim), index_array(indices)
    index = []
    for a, n in enumerate(x.shape):
        along = (-1,) + (1,) * (x.ndim - 1 - a)
        index.append(indices if a == axis else np.reshape(np.arange(n, like=array_of(x)), along))
    return np.take_along_axis(x, indices, axis), lambda g: Part(g, tuple(index), repeated=True)
