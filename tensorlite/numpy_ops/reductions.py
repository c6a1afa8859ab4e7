"""Functions that combine the elements along an axis: products, variances, running sums.

Within this file `sum` is the operation of ops.py, so Python's built-in functions of such names are
called through `builtins`.
"""

from __future__ import annotations

import builtins
import functools

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple

from ..op import op
from ..ops import axis_of, length_of, mul, reshape, spread, squeeze, sum
from ..tensor import Tensor
from .shapes import split

__all__ = ["var", "prod", "cumsum"]


@op(floats=True)
def var(x, *, axis=None, ddof=0, keepdims=False):
    """The variance: the sum of squared distances from the mean, divided by n - ddof."""
    n, dtype = length_of(x.shape, axis), x.dtype
    n = builtins.max(n - ddof, 0)  # division by 0 gives infinity or NaN, as in NumPy
    if dtype == np.float16 and not isinstance(x, Tensor):
        x = x.astype(np.float32)
    centred = x - np.mean(x, axis=axis, keepdims=True)
    y = sum.body(centred * centred, axis=axis, keepdims=keepdims)[0] / n
    shape = x.shape
    return y.astype(dtype), lambda g: spread(g * 2, shape, axis, keepdims) * centred / n


def prod_composed(x, axis=None, keepdims=False):
    axis = axis_of(axis, x)
    if axis is None:
        y = prod_composed(reshape(x, (x.size,)), axis=0)
        return reshape(y, (1,) * x.ndim) if keepdims else y
    axes = sorted(normalize_axis_tuple(axis, x.ndim))
    for a in axes:
        one = sum(x, axis=a, keepdims=True) * 0 + 1  # ones, the product of no factors
        x = functools.reduce(mul, split(x, range(1, x.shape[a]), a) if x.shape[a] else (), one)
    return x if keepdims else squeeze(x, tuple(axes))


@op(composed=prod_composed, floats=False)
def prod(x, *, axis=None, keepdims=False):
    """The product of elements; the gradient is right also where some of them are 0."""
    axis = axis_of(axis, x)
    shape, n = x.shape, length_of(x.shape, axis)
    reduced = list(range(x.ndim) if axis is None else normalize_axis_tuple(axis, x.ndim))
    order = [a for a in range(x.ndim) if a not in reduced] + reduced
    moved = np.transpose(x, order)  # the reduced axes last

    def vjp(g):
        # The gradient for an element is the product of the others: of those before it, times those
        # behind it. Dividing the whole product by the element would fail where it is 0.
        rows = np.reshape(moved, (x.size // n if n else 0, n))
        ones = np.ones_like(rows[:, :1])
        before = np.cumprod(np.concatenate([ones, rows[:, :-1]], axis=1), axis=1)
        behind = np.cumprod(np.concatenate([ones, rows[:, :0:-1]], axis=1), axis=1)[:, ::-1]
        others = np.transpose(np.reshape(before * behind, moved.shape), np.argsort(order).tolist())
        return spread(g, shape, axis, keepdims) * others

    return np.prod(x, axis=axis, keepdims=keepdims), vjp


@op
def cumsum(x, *, axis=None):
    """Running sums along an axis, or over all elements in order if `axis` is None."""
    axis = axis_of(axis, x)
    shape, along = x.shape, 0 if axis is None else axis

    def sums(x, axis):
        if x.dtype == np.float16 and not isinstance(x, Tensor):
            return np.cumsum(x, axis, dtype=np.float32).astype(x.dtype)
        return np.cumsum(x, axis)

    def vjp(g):
        return np.reshape(np.flip(sums(np.flip(g, along), along), along), shape)

    return sums(x, axis), vjp
