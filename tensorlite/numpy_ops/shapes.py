"""Functions that rearrange elements, and choose some of them by indices."""

from __future__ import annotations

import math

import numpy as np
from numpy.lib.array_utils import normalize_axis_index, normalize_axis_tuple

from ..arraylike import array_of
from ..graph import Part
from ..op import op, operand
from ..ops import (
    axis_of,
    concatenate,
    expand_dims,
    getitem,
    index_array,
    reshape,
    swapaxes,
    transpose,
)
from ..tensor import Tensor
from .operands import as_tensor

__all__ = ["flip", "flipud", "fliplr", "rot90", "roll", "fftshift", "ifftshift"]
__all__ += ["tril", "triu", "pad", "moveaxis", "rollaxis", "matrix_transpose", "permute_dims"]
__all__ += ["ravel", "resize", "atleast_1d", "atleast_2d", "atleast_3d", "split", "stack"]
__all__ += ["take", "take_along_axis"]


# =================================================================================================
# Elements in another order
# =================================================================================================


@op(moves=True)
def flip(x, *, axis=None):
    """x with the order of its elements reversed along an axis, a tuple of them, or all (None)."""
    return np.flip(x, axis), lambda g: np.flip(g, axis)


def flipud(x) -> Tensor:
    """x with the order of its rows reversed."""
    return flip(x, 0)


def fliplr(x) -> Tensor:
    """x with the order of its columns reversed."""
    return flip(x, 1)


def rot90(x, k: int = 1, axes=(0, 1)) -> Tensor:
    """x turned by k quarters of a circle, from the first of two axes towards the second."""
    x, (a, b) = as_tensor(x), axes
    a, b = normalize_axis_tuple((a, b), x.ndim)  # ValueError if they are the same
    if k % 2 == 0:
        return flip(x, (a, b) if k % 4 else ())
    return swapaxes(flip(x, b), a, b) if k % 4 == 1 else flip(swapaxes(x, a, b), b)


@op(moves=True)
def roll(x, *, shift, axis=None):
    """x shifted along an axis; elements pushed out at the end come in again at the start."""
    back = tuple(-s for s in shift) if isinstance(shift, (tuple, list)) else -shift
    return np.roll(x, shift, axis), lambda g: np.roll(g, back, axis)


def fftshift(x, axes=None) -> Tensor:
    """x rolled so that the frequency 0 of a Fourier transform comes to the middle of the axes."""
    x = as_tensor(x)
    axes = normalize_axis_tuple(range(x.ndim) if axes is None else axes, x.ndim)
    return roll(x, tuple(x.shape[a] // 2 for a in axes), axes)


def ifftshift(x, axes=None) -> Tensor:
    """The inverse of `fftshift`."""
    x = as_tensor(x)
    axes = normalize_axis_tuple(range(x.ndim) if axes is None else axes, x.ndim)
    return roll(x, tuple(-(x.shape[a] // 2) for a in axes), axes)


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


# =================================================================================================
# Axes in another order, and other shapes
# =================================================================================================


@op(moves=True)
def moveaxis(x, *, source, destination):
    """x with the axes `source`, an integer or several, at the places `destination`."""
    return np.moveaxis(x, source, destination), lambda g: np.moveaxis(g, destination, source)


def rollaxis(x, axis: int, start: int = 0) -> Tensor:
    """x with one axis moved before the axis `start`; `moveaxis` is easier to understand."""
    x = as_tensor(x)
    axis, start = normalize_axis_index(axis, x.ndim), start + x.ndim * (start < 0)
    start = normalize_axis_index(start, x.ndim + 1)
    return moveaxis(x, axis, start - (axis < start))


def matrix_transpose(x) -> Tensor:
    """x with its last two axes swapped."""
    return swapaxes(x, -1, -2)


permute_dims = transpose


def ravel(x) -> Tensor:
    """The elements of x in a row."""
    return reshape(x, -1)


def resize(x, new_shape) -> Tensor:
    """The elements of x in another shape, from the first one again when they are used up."""
    x, new_shape = ravel(x), np.broadcast_shapes(new_shape)
    n = math.prod(new_shape)
    if not x.size:
        return Tensor(np.zeros_like(x.data, shape=new_shape))
    return reshape(getitem(x, np.arange(n) % x.size), new_shape)


def atleast_1d(*arrays):
    """x with one axis at least; of several arrays, a tuple of such tensors."""
    return _each(arrays, lambda x: x if x.ndim else reshape(x, 1))


def atleast_2d(*arrays):
    """x with two axes at least, added in front; of several arrays, a tuple of such tensors."""
    return _each(arrays, lambda x: x if x.ndim > 1 else reshape(x, (1, x.size)))


def atleast_3d(*arrays):
    """x with three axes at least; of several arrays, a tuple of such tensors.

    A row of n elements gets the shape (1, n, 1), and a matrix an axis at its end.
    """

    def reshaped(x):
        if x.ndim > 2:
            return x
        return expand_dims(x, 2) if x.ndim == 2 else reshape(x, (1, x.size, 1))

    return _each(arrays, reshaped)


def _each(arrays, function):
    results = tuple(function(as_tensor(x)) for x in arrays)
    return results[0] if len(results) == 1 else results


# =================================================================================================
# Cutting and joining; joining.py has more
# =================================================================================================


def split(x, indices_or_sections, axis: int = 0) -> list[Tensor]:
    """Cut a tensor along an axis: into equal sections (int), or at the given indices (list).

    Raises ValueError if equal sections do not divide the axis.
    """
    x = as_tensor(x)
    axis = normalize_axis_index(axis, x.ndim)
    n = x.shape[axis]
    if isinstance(indices_or_sections, (int, np.integer)):
        if indices_or_sections < 1 or n % indices_or_sections:
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
    x = as_tensor(x)
    indices, axis = index_array(indices), axis_of(axis, x)
    if axis is None:
        return getitem(reshape(x, (x.size,)), indices)
    return getitem(x, (slice(None),) * normalize_axis_index(axis, x.ndim) + (indices,))


def take_along_axis(x, indices, axis: int | None = -1) -> Tensor:
    """The elements of x at `indices` along `axis`; in other axes both have the same size.

    None makes a row of x first, for one row of indices.
    """
    if axis is not None:
        return _take_along_axis(x, indices, axis)
    indices = index_array(indices)
    if indices.ndim != 1:
        raise ValueError(f"take_along_axis: for axis=None, indices is a row, not {indices.shape}")
    return take(x, indices)


@op
def _take_along_axis(x, *, indices, axis):
    axis, indices = normalize_axis_index(axis, x.ndim), index_array(indices)
    index = []
    for a, n in enumerate(x.shape):
        along = (-1,) + (1,) * (x.ndim - 1 - a)
        index.append(indices if a == axis else np.reshape(np.arange(n, like=array_of(x)), along))
    return np.take_along_axis(x, indices, axis), lambda g: Part(g, tuple(index), repeated=True)
