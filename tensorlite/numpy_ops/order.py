"""Sorting, and what depends on the order of elements: medians and quantiles.

Each of these functions chooses elements, and the gradient flows to those that are chosen. Among
equal elements, the order that decides is that of a stable sort: the first counts as the smallest.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple

from ..arraylike import array_of
from ..ops import astype, mean, reshape, transpose, where
from ..tensor import Tensor
from .operands import as_tensor, in_wide_floats
from .shapes import take_along_axis

__all__ = """
    sort partition median quantile percentile nanmedian nanquantile nanpercentile
""".split()


def sort(x, axis: int | None = -1, kind: str | None = None) -> Tensor:
    """x in ascending order along an axis, NaN last (None: all elements, flattened).

    The gradient of an element goes back to where it came from. Without a `kind`, the sort is
    stable.

    >>> sort([3.0, 1.0, 2.0])
    tensor([1., 2., 3.])
    """
    x, axis = _flat_or_along(x, axis)
    return take_along_axis(x, np.argsort(x.data, axis=axis, kind=kind or "stable"), axis)


def partition(x, kth, axis: int | None = -1) -> Tensor:
    """x with the element of rank `kth` in its place, smaller ones before it and larger ones behind.

    `kth` may be several ranks. The gradient of an element goes back to where it came from.
    """
    x, axis = _flat_or_along(x, axis)
    return take_along_axis(x, np.argpartition(x.data, kth, axis=axis), axis)


def _flat_or_along(x, axis):
    x = as_tensor(x)
    return (reshape(x, (x.size,)), -1) if axis is None else (x, axis)


# =================================================================================================
# Medians and quantiles
# =================================================================================================


def median(x, axis=None, keepdims: bool = False) -> Tensor:
    """The middle element of those in order, or the mean of the two in the middle.

    NaN where an element is NaN; then the gradient flows to a NaN.

    >>> median([3.0, 1.0, 2.0, 7.0])
    tensor(2.5)
    """
    return _median(x, axis, keepdims, skip_nan=False)


def nanmedian(x, axis=None, keepdims: bool = False) -> Tensor:
    """The median of the elements that are not NaN; NaN where all are."""
    return _median(x, axis, keepdims, skip_nan=True)


def quantile(x, q, axis=None, method: str = "linear", keepdims: bool = False) -> Tensor:
    """The element of those in order below which there is the share `q` of them, between 0 and 1.

    `q` is a number or an array, whose shape comes first in the result's. Between two elements the
    value is interpolated; by which rule, `method` says. All methods of NumPy are there. NaN where
    an element is NaN. The gradient for `q` is the slope of the interpolation, and 0 where the
    value is an element. Raises ValueError for an x without elements, for another method, and for a
    `q` outside 0 to 1.

    Hyndman and Fan, "Sample Quantiles in Statistical Packages", 1996.

    >>> quantile([3.0, 1.0, 2.0], [0.0, 0.75])
    tensor([1. , 2.5])
    """
    return _quantile(x, q, axis, method, keepdims, skip_nan=False)


def nanquantile(x, q, axis=None, method: str = "linear", keepdims: bool = False) -> Tensor:
    """The `quantile` of the elements that are not NaN; NaN where all are."""
    return _quantile(x, q, axis, method, keepdims, skip_nan=True)


def percentile(x, q, axis=None, method: str = "linear", keepdims: bool = False) -> Tensor:
    """The `quantile`, with `q` between 0 and 100."""
    return _quantile(x, q, axis, method, keepdims, skip_nan=False, whole=100)


def nanpercentile(x, q, axis=None, method: str = "linear", keepdims: bool = False) -> Tensor:
    """The `nanquantile`, with `q` between 0 and 100."""
    return _quantile(x, q, axis, method, keepdims, skip_nan=True, whole=100)


def _median(x, axis, keepdims, skip_nan) -> Tensor:
    x, dtype = in_wide_floats(x)
    rows, shape = _rows(x, axis, keepdims)
    if not rows.shape[-1]:
        return astype(mean(x, axis=axis, keepdims=keepdims), dtype)  # NaN, with NumPy's warning
    low, high, _ = _neighbours(rows, lambda n: (n - 1) * 0.5, skip_nan)
    return astype(reshape(low * 0.5 + high * 0.5, shape), dtype)


def _quantile(x, q, axis, method, keepdims, skip_nan, whole=1) -> Tensor:
    x, dtype = in_wide_floats(x)
    if method not in _POSITIONS:
        raise ValueError(f"the method is one of {', '.join(_POSITIONS)}, not {method!r}")
    values = np.asarray(q) if isinstance(q, (int, float, list, tuple)) else array_of(q)
    if not ((values >= 0) & (values <= whole)).all():
        raise ValueError("quantiles are between 0 and 1, and percentiles between 0 and 100")
    rows, shape = _rows(x, axis, keepdims)
    if not rows.shape[-1]:
        raise ValueError(f"there is no quantile of no elements: x has shape {x.shape}")
    q = q if isinstance(q, Tensor) else Tensor(np.asarray(values, like=x.data))
    flat = reshape(astype(q, np.float64), (q.size,)) / whole
    low, high, weight = _neighbours(rows, lambda n: _POSITIONS[method](n, flat), skip_nan)
    exact = weight.data == 0  # nothing to add, and the difference of two infinities is NaN
    step = where(exact, 0.0, high) - where(exact, 0.0, low)
    y = low + step * astype(weight, x.dtype)  # (rows, of q)
    return astype(reshape(transpose(y), (*q.shape, *shape)), dtype)


def _rows(x, axis, keepdims):
    """x as a matrix (kept elements, reduced elements), and the shape of the result."""
    reduced = normalize_axis_tuple(range(x.ndim) if axis is None else axis, x.ndim)
    kept = [a for a in range(x.ndim) if a not in reduced]
    shape = [x.shape[a] for a in kept]
    n = math.prod(x.shape[a] for a in reduced)
    rows = reshape(transpose(x, [*kept, *reduced]), (math.prod(shape), n))
    if keepdims:
        shape = [1 if a in reduced else size for a, size in enumerate(x.shape)]
    return rows, tuple(shape)


def _neighbours(rows, positions, skip_nan):
    """The elements below and above positions in the order of each row, and the second one's weight.

    `positions(n)` gives positions in a row of n elements, one or several, counted from 0; those
    outside the row become its ends.
    """
    data, last = rows.data, rows.shape[-1] - 1
    missing = np.isnan(data)  # sorted to the end
    n = np.sum(~missing, axis=-1, keepdims=True)
    nothing = n == 0 if skip_nan else n <= last
    given = positions(n if skip_nan else np.full_like(n, last + 1))
    position = np.minimum(np.maximum(array_of(given), 0), n - 1)
    position = np.where(nothing, last, position)
    below = np.floor(position)
    order = np.argsort(data, axis=-1, kind="stable")

    def chosen(ranks):
        indices = np.take_along_axis(order, ranks.astype(np.int64), axis=-1)
        return take_along_axis(rows, indices, -1)

    weight = where(position == array_of(given), given - below, 0.0)
    return chosen(below), chosen(np.ceil(position)), weight


def _between(alpha, beta):
    """Positions of Hyndman and Fan's continuous methods."""
    return lambda n, q: n * q + (alpha + q * (1 - alpha - beta)) - 1


def _averaged(n, q):
    below = np.floor(n * q - 1)
    return np.where(n * q - 1 == below, below + 0.5, below + 1)


def _midpoint(n, q):
    return (np.floor((n - 1) * q) + np.ceil((n - 1) * q)) * 0.5


def _closest(n, q):
    below = np.floor(n * q - 1.5)
    return np.where((n * q - 1.5 == below) & (below % 2 == 1), below, below + 1)


# For each method, the position among n elements in order, counted from 0.
_POSITIONS = {
    "linear": lambda n, q: (n - 1) * q,
    "lower": lambda n, q: np.floor((n - 1) * q),
    "higher": lambda n, q: np.ceil((n - 1) * q),
    "midpoint": _midpoint,
    "nearest": lambda n, q: np.rint((n - 1) * q),
    "inverted_cdf": lambda n, q: np.ceil(n * q - 1),
    "averaged_inverted_cdf": _averaged,
    "closest_observation": _closest,
    "interpolated_inverted_cdf": _between(0, 1),
    "hazen": _between(0.5, 0.5),
    "weibull": _between(0, 0),
    "median_unbiased": _between(1 / 3, 1 / 3),
    "normal_unbiased": _between(3 / 8, 3 / 8),
}
