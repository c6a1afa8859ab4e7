"""Functions that combine the elements along an axis: products, variances, running sums.

Those whose names begin with "nan" leave NaN out: no gradient flows to it.

Within this file `sum` is the operation of ops.py, so Python's built-in functions of such names are
called through `builtins`.
"""

from __future__ import annotations

import builtins
import functools
import math

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple

from ..arraylike import is_float
from ..op import op
from ..ops import (
    astype,
    axis_of,
    broadcast_to,
    concatenate,
    extreme,
    length_of,
    masked_fill,
    max,
    mean,
    min,
    mul,
    reshape,
    spread,
    sqrt,
    squeeze,
    sum,
    transpose,
    where,
)
from ..tensor import Tensor
from .operands import as_tensor, as_tensors, in_wide_floats
from .shapes import split

__all__ = """
    amax amin ptp var std average prod cumsum cumprod cumulative_sum cumulative_prod
    nanmax nanmin nansum nanmean nanvar nanstd nanprod nancumsum nancumprod
""".split()


def amax(x, axis=None, keepdims: bool = False) -> Tensor:
    """The largest element, as `max`."""
    return max(x, axis, keepdims)


def amin(x, axis=None, keepdims: bool = False) -> Tensor:
    """The smallest element, as `min`."""
    return min(x, axis, keepdims)


def ptp(x, axis=None, keepdims: bool = False) -> Tensor:
    """The range from the smallest to the largest element; ties share the gradient equally.

    >>> ptp([3.0, 1.0, 7.0])
    tensor(6.)
    """
    return max(x, axis, keepdims) - min(x, axis, keepdims)


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


def std(x, axis=None, ddof=0, keepdims: bool = False) -> Tensor:
    """The standard deviation, the square root of `var`.

    The gradient is 0 where all elements are equal: there the function has a kink, at its minimum.
    """
    return root(var(x, axis, ddof, keepdims))


def root(variance) -> Tensor:
    """The square root, with the gradient 0 at 0."""
    zero = variance.data == 0
    return where(zero, 0.0, sqrt(where(zero, 1.0, variance)))


def average(x, axis=None, weights=None, returned: bool = False, keepdims: bool = False):
    """The mean, weighted by `weights` if given; with `returned` also the sum of the weights.

    The weights have the shape of x, or that of its axes `axis`; the average is differentiable in
    them too. Raises TypeError or ValueError for weights of another shape, and ZeroDivisionError if
    their sum is 0.

    >>> average([1.0, 2.0], weights=[3.0, 1.0])
    tensor(1.25)
    """
    if weights is None:
        y = mean(as_tensor(x), axis=axis, keepdims=keepdims)
        total = np.full_like(y.data, length_of(np.shape(x), axis))
        return (y, Tensor(total)) if returned else y
    x, weights = as_tensors("average", x, weights)
    if weights.shape != x.shape:
        if axis is None:
            raise TypeError(
                f"weights of shape {weights.shape} are not those of an x of shape {x.shape}: "
                "say with axis= along which axes they are"
            )
        axes = normalize_axis_tuple(axis, x.ndim)
        if weights.shape != tuple(x.shape[a] for a in axes):
            raise ValueError(
                f"weights of shape {weights.shape} do not fit axis {axis} of an x of shape "
                f"{x.shape}"
            )
        order = sorted(range(len(axes)), key=axes.__getitem__)
        shape = [n if a in axes else 1 for a, n in enumerate(x.shape)]
        weights = broadcast_to(reshape(transpose(weights, order), shape), x.shape)
    total = sum(weights, axis=axis, keepdims=keepdims)
    if (total.data == 0).any():
        raise ZeroDivisionError("the weights have the sum 0: an average divides by it")
    y = sum(x * weights, axis=axis, keepdims=keepdims) / total
    return (y, astype(total, y.dtype)) if returned else y


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


@op
def cumprod(x, *, axis=None):
    """Running products along an axis, or over all elements in order if `axis` is None.

    The gradient is right also where some elements are 0.
    """
    axis = axis_of(axis, x)
    shape, dtype = x.shape, x.dtype
    if dtype == np.float16 and not isinstance(x, Tensor):
        x = x.astype(np.float32)

    def vjp(g):
        # Element i is a factor of the products i and on. With `before` the product of the elements
        # before it, its gradient is before[i] * s[i], where
        #     s[i] = g[i] + x[i + 1] * g[i + 1] + x[i + 1] * x[i + 2] * g[i + 2] + ...
        # Such sums over a window of n elements, from sums over windows of n / 2, are `s`; `factor`
        # is the product of a window. The axis is the last one here.
        rows = np.reshape(x, (-1,)) if axis is None else np.swapaxes(x, axis, -1)
        s = g if axis is None else np.swapaxes(g, axis, -1)
        before = np.cumprod(_padded(rows[..., :-1], (1, 0), 1), axis=-1)
        factor = _padded(rows[..., 1:], (0, 1))
        n, length = 1, rows.shape[-1]
        while n < length:
            s = s + factor * _padded(s[..., n:], (0, n))
            factor = factor * _padded(factor[..., n:], (0, n))
            n *= 2
        y = before * s
        return np.reshape(y, shape) if axis is None else np.swapaxes(y, axis, -1)

    y = np.cumprod(x, axis)
    return (y.astype(dtype) if dtype == np.float16 else y), vjp


def _padded(x, width, value=0):
    """x with a border on its last axis."""
    return np.pad(x, [(0, 0)] * (x.ndim - 1) + [width], constant_values=value)


def cumulative_sum(x, axis=None, include_initial: bool = False) -> Tensor:
    """`cumsum`, beginning with the sum 0 of no elements if `include_initial` is True.

    Raises ValueError if `axis` is not given for an x of two or more dimensions.
    """
    return _cumulative(cumsum, x, axis, include_initial, 0)


def cumulative_prod(x, axis=None, include_initial: bool = False) -> Tensor:
    """`cumprod`, beginning with the product 1 of no elements if `include_initial` is True.

    Raises ValueError if `axis` is not given for an x of two or more dimensions.
    """
    return _cumulative(cumprod, x, axis, include_initial, 1)


def _cumulative(function, x, axis, include_initial, first):
    x = as_tensor(x)
    x = x if x.ndim else reshape(x, (1,))
    if axis is None and x.ndim > 1:
        raise ValueError(f"an x of shape {x.shape} needs axis=, along which it is accumulated")
    axis = 0 if axis is None else axis
    y = function(x, axis)
    if not include_initial:
        return y
    shape = [1 if a == axis % x.ndim else n for a, n in enumerate(x.shape)]
    return concatenate([Tensor(np.full_like(y.data, first, shape=tuple(shape))), y], axis)


# =================================================================================================
# Without NaN
# =================================================================================================


@op
def nanmax(x, *, axis=None, keepdims=False):
    """The largest element that is not NaN; ties share the gradient equally.

    Where all elements are NaN, the value and its gradient are NaN.
    """
    return extreme(np.nanmax, x, axis, keepdims)


@op
def nanmin(x, *, axis=None, keepdims=False):
    """The smallest element that is not NaN; ties share the gradient equally.

    Where all elements are NaN, the value and its gradient are NaN.
    """
    return extreme(np.nanmin, x, axis, keepdims)


def _filled(x, value) -> Tensor:
    """x with `value` instead of NaN, which integers do not have."""
    x = as_tensor(x)
    return masked_fill(x, np.isnan(x.data), value) if is_float(x.dtype) else x


def nansum(x, axis=None, keepdims: bool = False) -> Tensor:
    """The sum, with 0 for NaN."""
    return sum(_filled(x, 0), axis, keepdims)


def nanprod(x, axis=None, keepdims: bool = False) -> Tensor:
    """The product, with 1 for NaN."""
    return prod(_filled(x, 1), axis, keepdims)


def nancumsum(x, axis=None) -> Tensor:
    """Running sums, with 0 for NaN."""
    return cumsum(_filled(x, 0), axis)


def nancumprod(x, axis=None) -> Tensor:
    """Running products, with 1 for NaN."""
    return cumprod(_filled(x, 1), axis)


def nanmean(x, axis=None, keepdims: bool = False) -> Tensor:
    """The mean of the elements that are not NaN; NaN where there are none.

    >>> nanmean([1.0, float("nan"), 3.0])
    tensor(2.)
    """
    x, dtype = in_wide_floats(x)
    n = np.sum(~np.isnan(x.data), axis=axis_of(axis, x), keepdims=keepdims)
    return astype(nansum(x, axis, keepdims) / _divisor(n, x.dtype), dtype)


def nanvar(x, axis=None, ddof=0, keepdims: bool = False) -> Tensor:
    """The variance of the elements that are not NaN; NaN where there are not more than ddof."""
    x, dtype = in_wide_floats(x)
    axis, missing = axis_of(axis, x), np.isnan(x.data)
    n = np.sum(~missing, axis=axis, keepdims=True)
    middle = nansum(x, axis, keepdims=True) / _divisor(n, x.dtype)
    # NaN is replaced before the square, in whose gradient it would be a factor of zeros.
    centred = masked_fill(x - middle, missing, 0)
    n = np.sum(~missing, axis=axis, keepdims=keepdims)
    squares = sum(centred * centred, axis, keepdims)
    return astype(squares / _divisor(n - ddof, x.dtype), dtype)


def nanstd(x, axis=None, ddof=0, keepdims: bool = False) -> Tensor:
    """The square root of `nanvar`; the gradient is 0 where all elements are equal."""
    return root(nanvar(x, axis, ddof, keepdims))


def _divisor(n, dtype):
    """Counts as floats to divide by, NaN for those that are not positive."""
    return np.where(n > 0, n, math.nan).astype(dtype)
