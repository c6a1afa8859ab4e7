"""Diagonals, and elements chosen by conditions and positions."""

from __future__ import annotations

import numpy as np

from ..arraylike import array_of, is_float
from ..ops import astype, concatenate, getitem, power, reshape, scatter_add, where
from ..tensor import Tensor
from .joining import broadcast_arrays
from .operands import as_tensor, as_tensors
from .shapes import moveaxis, ravel, take

__all__ = ["diag", "diagonal", "diagflat", "vander"]
__all__ += ["compress", "extract", "select", "choose", "insert", "delete", "unique"]


# =================================================================================================
# Matrices
# =================================================================================================


def diag(x, k: int = 0) -> Tensor:
    """The k-th diagonal of a matrix, or a matrix of zeros with the row x on that diagonal.

    Raises ValueError for an array that is neither a row nor a matrix.
    """
    x = as_tensor(x)
    if x.ndim == 2:
        return diagonal(x, k)
    if x.ndim != 1:
        raise ValueError(f"diag takes a row or a matrix, not an array of shape {x.shape}")
    n, rows = x.size + abs(k), np.arange(x.size) + max(-k, 0)
    return scatter_add(x, (n, n), (rows, rows + k))


def diagonal(x, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Tensor:
    """The elements of two axes whose indices differ by `offset`, along a new last axis.

    Raises ValueError for an array of fewer than two axes.
    """
    x = as_tensor(x)
    if x.ndim < 2:
        raise ValueError(f"diagonal takes arrays of two or more axes, not of shape {x.shape}")
    x = moveaxis(x, (axis1, axis2), (-2, -1))
    first, (n, m) = max(-offset, 0), x.shape[-2:]
    rows = np.arange(first, max(min(n, m - offset), first))
    return getitem(x, (..., rows, rows + offset))


def diagflat(x, k: int = 0) -> Tensor:
    """A matrix with the elements of x on its k-th diagonal."""
    return diag(ravel(x), k)


def vander(x, N: int | None = None, increasing: bool = False) -> Tensor:
    """The Vandermonde matrix: column j has the power N - 1 - j of x, or j if `increasing`."""
    x = as_tensor(x)
    if x.ndim != 1:
        raise ValueError(f"vander takes a row of numbers, not an array of shape {x.shape}")
    powers = np.arange(x.size if N is None else N, like=x.data)
    powers = powers.astype(x.dtype) if is_float(x.dtype) else powers
    return power(reshape(x, (x.size, 1)), powers if increasing else powers[::-1])


# =================================================================================================
# Conditions
# =================================================================================================


def compress(condition, x, axis: int | None = None) -> Tensor:
    """The parts of x along an axis for which the row `condition` is true; None: of all in a row."""
    condition = as_tensor(condition).data
    if condition.ndim != 1:
        raise ValueError(f"compress takes a row of conditions, not the shape {condition.shape}")
    return take(x, np.flatnonzero(condition), axis)


def extract(condition, x) -> Tensor:
    """The elements of x for which the condition is true, in a row."""
    return take(x, np.flatnonzero(as_tensor(condition).data))


def select(condlist, choicelist, default=0) -> Tensor:
    """From the first of the choices whose condition is true, else `default`, element by element.

    Raises ValueError unless there is one choice for each condition, and TypeError for conditions
    that are not booleans.
    """
    conditions = [as_tensor(condition).detach() for condition in condlist]
    if len(conditions) != len(choicelist) or not conditions:
        raise ValueError(
            f"select takes as many choices as conditions, one at least: there are "
            f"{len(conditions)} conditions and {len(choicelist)} choices"
        )
    for condition in conditions:
        if condition.dtype != bool:
            raise TypeError(f"select takes conditions that are booleans, not {condition.dtype}")
    chosen = default
    for condition, choice in zip(conditions[::-1], choicelist[::-1]):
        chosen = where(condition, choice, chosen)
    return chosen


def choose(indices, choices) -> Tensor:
    """From the choice with the number in `indices`, element by element; all are broadcast.

    Raises IndexError for a number that no choice has.
    """
    indices, *choices = broadcast_arrays(as_tensor(indices).detach(), *choices)
    if indices.dtype.kind not in "iu":
        raise TypeError(f"choose takes integers as indices, not {indices.dtype}")
    flat = concatenate([ravel(x) for x in choices])
    n, numbers = indices.size, ravel(indices).data
    if n and not 0 <= int(numbers.min()) <= int(numbers.max()) < len(choices):
        raise IndexError(f"choose: the indices must be from 0 to {len(choices) - 1}")
    return reshape(getitem(flat, numbers * n + np.arange(n, like=numbers)), indices.shape)


# =================================================================================================
# Positions
# =================================================================================================


def insert(x, obj, values, axis: int | None = None) -> Tensor:
    """x with `values` before the positions `obj` of an axis; None makes a row of x first."""
    x, values = as_tensors("insert", x, values)
    numbers = np.arange(x.size + values.size)  # NumPy inserts numbers of elements
    of_x, of_values = numbers[: x.size].reshape(x.shape), numbers[x.size :].reshape(values.shape)
    chosen = np.insert(of_x, array_of(obj), of_values, axis)
    return getitem(concatenate([x, astype(values, x.dtype)], axis=None), chosen)


def delete(x, obj, axis: int | None = None) -> Tensor:
    """x without the positions `obj` of an axis: a number, several, a slice or a mask."""
    x = as_tensor(x)
    n = x.size if axis is None else x.shape[axis]
    return take(x, np.delete(np.arange(n), array_of(obj)), axis)


def unique(x, axis: int | None = None) -> Tensor:
    """The different elements of x in order, or its different parts along an axis.

    The gradient flows into the first of several equal elements.
    """
    x = as_tensor(x)
    return take(x, np.unique(x.data, return_index=True, axis=axis)[1], axis)
