"""The primitive operations: value and gradient of each, side by side.

How to read one: the body is given arrays and returns its value and, for each array, the function
that turns `g`, the gradient with respect to the value, into the gradient with respect to that
array. Broadcasting is the engine's business: where `x` was stretched, it sums what comes back.

Names, arguments and broadcasting are NumPy's. Where a function has a kink the gradient is one of
the values between its one-sided slopes: abs and relu have 0 at 0; maximum and minimum, max and min
share the gradient equally among ties.

Functions here have NumPy's names: within this file `abs`, `sum`, `max` and `min` are these.
"""

from __future__ import annotations

import math
import operator

import numpy as np

from .tensor import NUMPY, Part, Tensor, op

# =================================================================================================
# Arithmetic
# =================================================================================================


@op
def add(x, y):
    return x + y, lambda g: g, lambda g: g


@op
def sub(x, y):
    return x - y, lambda g: g, lambda g: -g


@op
def mul(x, y):
    return x * y, lambda g: g * y, lambda g: g * x


@op
def div(x, y):
    return x / y, lambda g: g / y, lambda g: -g * x / (y * y)


@op
def neg(x):
    return -x, lambda g: -g


@op
def power(x, y):
    """x to the power y; the gradient with respect to y is 0 where x is not above 0."""
    if isinstance(y, (int, float)):
        return x**y, lambda g: g * (y * x ** (y - 1 if y else 1)), None
    z = x**y
    return (
        z,
        lambda g: g * (y * x ** np.where(y == 0, 1, y - 1)),  # 0 ** 0 is constant, not 0 * inf
        lambda g: g * np.where(x > 0, z * np.log(np.where(x > 0, x, 1)), 0),
    )


# =================================================================================================
# Elementwise functions
# =================================================================================================


@op
def exp(x):
    y = np.exp(x)
    return y, lambda g: g * y


@op
def log(x):
    return np.log(x), lambda g: g / x


@op
def sqrt(x):
    y = np.sqrt(x)
    return y, lambda g: g / (2 * y)


@op
def tanh(x):
    y = np.tanh(x)
    return y, lambda g: g * (1 - y * y)


@op
def abs(x):
    return np.abs(x), lambda g: g * np.sign(x)


@op
def relu(x):
    return np.maximum(x, 0), lambda g: g * (x > 0)


@op
def maximum(x, y):
    return (
        np.maximum(x, y),
        lambda g: g * ((x > y) + (x == y) * 0.5).astype(g.dtype),
        lambda g: g * ((y > x) + (x == y) * 0.5).astype(g.dtype),
    )


@op
def minimum(x, y):
    return (
        np.minimum(x, y),
        lambda g: g * ((x < y) + (x == y) * 0.5).astype(g.dtype),
        lambda g: g * ((y < x) + (x == y) * 0.5).astype(g.dtype),
    )


@op
def where(condition, x, y):
    """x where the condition holds, y elsewhere; no gradient flows into the condition."""
    return (
        np.where(condition, x, y),
        None,
        lambda g: np.where(condition, g, 0),
        lambda g: np.where(condition, 0, g),
    )


@op
def masked_fill(x, *, mask, value):
    """x, with the number `value` where the boolean mask (broadcast to x) holds."""
    return np.where(mask, value, x), lambda g: np.where(mask, 0, g)


@op
def astype(x, *, dtype):
    """x converted to another dtype; the engine converts the gradient back."""
    return x.astype(dtype), lambda g: g


# =================================================================================================
# Reductions
# =================================================================================================


def _spread(g, shape, axis, keepdims):
    """The gradient of a sum is a copy for every summand: stretch `g` back over `axis`."""
    if not keepdims and axis is not None:
        g = np.expand_dims(g, axis)
    return np.broadcast_to(g, shape)


def _length(shape, axis) -> int:
    """How many elements a reduction over `axis` takes together."""
    if axis is None:
        return math.prod(shape)
    return math.prod(shape[a] for a in (axis if isinstance(axis, tuple) else (axis,)))


@op
def sum(x, *, axis=None, keepdims=False):
    shape = x.shape
    return np.sum(x, axis=axis, keepdims=keepdims), lambda g: _spread(g, shape, axis, keepdims)


@op
def mean(x, *, axis=None, keepdims=False):
    shape = x.shape
    y = np.mean(x, axis=axis, keepdims=keepdims)
    return y, lambda g: _spread(g / _length(shape, axis), shape, axis, keepdims)


@op
def var(x, *, axis=None, ddof=0, keepdims=False):
    """The variance: the mean squared distance from the mean, divided by n - ddof instead of n."""
    n = _length(x.shape, axis) - ddof
    centred = x - np.mean(x, axis=axis, keepdims=True)
    y = np.sum(centred * centred, axis=axis, keepdims=keepdims) / n
    return y, lambda g: _spread(g * 2 / n, centred.shape, axis, keepdims) * centred


@op
def max(x, *, axis=None, keepdims=False):
    """The largest element; ties share the gradient equally."""
    return _extreme(np.max, x, axis, keepdims)


@op
def min(x, *, axis=None, keepdims=False):
    """The smallest element; ties share the gradient equally."""
    return _extreme(np.min, x, axis, keepdims)


def _extreme(function, x, axis, keepdims):
    y = function(x, axis=axis, keepdims=keepdims)
    best = function(x, axis=axis, keepdims=True)

    def vjp(g):
        ties = (x == best).astype(g.dtype)
        return _spread(g, x.shape, axis, keepdims) * (ties / np.sum(ties, axis=axis, keepdims=True))

    return y, vjp


# =================================================================================================
# Matrix products
# =================================================================================================


def _t(x):
    return np.swapaxes(x, -1, -2)


@op
def matmul(x, y):
    """The matrix product over the last two axes, for operands of one or more dimensions."""
    if x.ndim > 2 and y.ndim == 2:
        return _tall_matmul(x, y)
    x_is_row, y_is_column = x.ndim == 1, y.ndim == 1
    rows = x[None, :] if x_is_row else x  # (..., n, k)
    columns = y[:, None] if y_is_column else y  # (..., k, m)

    def matrix(g):  # the gradient with the axes that 1-d operands lost: (..., n, m)
        g = np.expand_dims(g, -1) if y_is_column else g
        return np.expand_dims(g, -2) if x_is_row else g

    def vjp_x(g):
        gx = np.matmul(matrix(g), _t(columns))  # (..., n, k)
        return gx[..., 0, :] if x_is_row else gx

    def vjp_y(g):
        gy = np.matmul(_t(rows), matrix(g))  # (..., k, m)
        return gy[..., 0] if y_is_column else gy

    return np.matmul(x, y), vjp_x, vjp_y


def _tall_matmul(x, y):
    """(..., k) @ (k, m) as one product of (rows, k) and (k, m), which BLAS does fastest."""
    shape, (k, m) = x.shape, y.shape
    rows = math.prod(shape[:-1])
    if shape[-1] != k:
        raise ValueError(f"matmul: shapes {shape} and {y.shape} differ in the inner dimension")
    flat = np.reshape(x, (rows, k))
    return (
        np.reshape(flat @ y, (*shape[:-1], m)),
        lambda g: np.reshape(np.reshape(g, (rows, m)) @ _t(y), shape),
        lambda g: _t(flat) @ np.reshape(g, (rows, m)),
    )


# =================================================================================================
# Shape
# =================================================================================================


@op
def reshape(x, *, shape):
    before = x.shape
    return np.reshape(x, shape), lambda g: np.reshape(g, before)


@op
def transpose(x, *, axes=None):
    """Reorder the axes: reverse them, or as `axes` says."""
    back = None if axes is None else tuple(int(i) for i in np.argsort([a % x.ndim for a in axes]))
    return np.transpose(x, axes), lambda g: np.transpose(g, back)


@op
def swapaxes(x, *, axis1, axis2):
    return np.swapaxes(x, axis1, axis2), lambda g: np.swapaxes(g, axis1, axis2)


@op
def expand_dims(x, *, axis):
    shape = x.shape
    return np.expand_dims(x, axis), lambda g: np.reshape(g, shape)


@op
def squeeze(x, *, axis=None):
    shape = x.shape
    return np.squeeze(x, axis), lambda g: np.reshape(g, shape)


@op
def broadcast_to(x, *, shape):
    return np.broadcast_to(x, shape), lambda g: g  # the engine sums what was stretched


@op
def concatenate(*arrays, axis=0):
    """Join a sequence of arrays along an axis (None: flatten them first)."""
    y = np.concatenate(arrays, axis)
    shapes = [x.shape for x in arrays]
    stops = np.cumsum([math.prod(s) if axis is None else s[axis] for s in shapes]).tolist()
    before = (slice(None),) * (0 if axis is None else axis % y.ndim)

    def vjp(start, stop, shape):
        return lambda g: np.reshape(g[(*before, slice(start, stop))], shape)

    return y, *map(vjp, [0, *stops], stops, shapes)


# =================================================================================================
# Indexing
# =================================================================================================


@op
def getitem(x, *, index):
    """x[index], for any index that NumPy takes; tensors in the index stand for their arrays."""
    index = _plain(index)
    repeated = any(hasattr(i, "dtype") and i.dtype.kind in "iu" for i in _parts(index))
    return x[index], lambda g: Part(g, index, repeated)


def _parts(index):
    return index if isinstance(index, tuple) else (index,)


def _plain(index):
    """The index with tensors, lists and tuples of integers or booleans made arrays."""

    def part(i):
        if isinstance(i, Tensor):
            return i.data
        if isinstance(i, (list, tuple)):
            return np.asarray(i) if len(i) else np.zeros(0, np.int64)
        return i

    return tuple(map(part, index)) if isinstance(index, tuple) else part(index)


@op
def take_along_axis(x, *, indices, axis):
    """One element of x for each of the indices, which match x in every other axis."""
    axis = axis % x.ndim
    index = []
    for a, n in enumerate(x.shape):
        along = (-1,) + (1,) * (x.ndim - 1 - a)
        index.append(indices if a == axis else np.reshape(np.arange(n, like=x), along))
    return np.take_along_axis(x, indices, axis), lambda g: Part(g, tuple(index), repeated=True)


@op
def embedding(weight, *, ids):
    """The row of `weight` (V, C) for each integer in `ids` (...): (..., C).

    Raises TypeError for ids that are no integers, IndexError for one outside 0 <= id < V.
    """
    ids = np.asarray(ids) if isinstance(ids, (int, np.generic, list, tuple)) else ids
    shape, dtype = weight.shape, weight.dtype
    if ids.dtype.kind not in "iu":
        raise TypeError(f"embedding takes integer ids, not {ids.dtype}")
    if isinstance(ids, np.ndarray) and ids.size and not 0 <= ids.min() <= ids.max() < shape[0]:
        wrong = ids.min() if ids.min() < 0 else ids.max()
        raise IndexError(f"id {wrong} is outside the vocabulary of {shape[0]}")

    def vjp(g):
        # Sorted, equal ids stand together, and each run of rows is one sum: ten times faster than
        # np.add.at, which adds element by element.
        total = np.zeros(shape, dtype, like=g)
        order = np.argsort(ids, axis=None, kind="stable")
        ordered = ids.reshape(-1)[order]
        starts = np.flatnonzero(np.diff(ordered, prepend=-1))
        if starts.size:
            rows = np.reshape(g, (ids.size, *shape[1:]))
            total[ordered[starts]] = np.add.reduceat(rows[order], starts, axis=0)
        return total

    return weight[ids], vjp


# =================================================================================================
# What is no operation of its own
# =================================================================================================


def split(x, indices_or_sections, axis: int = -1) -> list[Tensor]:
    """Cut a tensor along an axis: into equal sections (int), or at the given indices (list)."""
    n = x.shape[axis]
    if isinstance(indices_or_sections, (int, np.integer)):
        if n % indices_or_sections:
            raise ValueError(f"cannot split {n} into {indices_or_sections} equal sections")
        size = n // indices_or_sections
        cuts = list(range(size, n, size))
    else:
        cuts = list(indices_or_sections)
    before = (slice(None),) * (axis % x.ndim)
    return [
        getitem(x, before + (slice(start, stop),)) for start, stop in zip([0, *cuts], [*cuts, None])
    ]


def _comparison(function):
    def compare(x, y) -> Tensor:
        return Tensor(function(*(a.data if isinstance(a, Tensor) else a for a in (x, y))))

    compare.__doc__ = f"np.{function.__name__}, a tensor of booleans: no gradient flows through it."
    return compare


# =================================================================================================
# The same by operator, by method and by NumPy's name: x * y, x.sum(axis=0), np.exp(x)
# =================================================================================================

Tensor.__add__, Tensor.__radd__ = add, lambda x, y: add(y, x)
Tensor.__sub__, Tensor.__rsub__ = sub, lambda x, y: sub(y, x)
Tensor.__mul__, Tensor.__rmul__ = mul, lambda x, y: mul(y, x)
Tensor.__truediv__, Tensor.__rtruediv__ = div, lambda x, y: div(y, x)
Tensor.__pow__, Tensor.__rpow__ = power, lambda x, y: power(y, x)
Tensor.__matmul__, Tensor.__rmatmul__ = matmul, lambda x, y: matmul(y, x)
Tensor.__neg__, Tensor.__abs__ = neg, abs
Tensor.__getitem__ = lambda x, index: getitem(x, index)
for _name in ("eq", "ne", "lt", "le", "gt", "ge"):
    setattr(Tensor, f"__{_name}__", _comparison(getattr(operator, _name)))
Tensor.__hash__ = object.__hash__  # a tensor is a key by what it is, not by its values

for _op in (exp, log, sqrt, tanh, abs, sum, mean, var, max, min, masked_fill):
    setattr(Tensor, _op.name, _op)
for _op in (swapaxes, expand_dims, squeeze, broadcast_to, astype):
    setattr(Tensor, _op.name, _op)


def _one_tuple(values):
    """x.reshape(2, 3) is x.reshape((2, 3))."""
    return values[0] if len(values) == 1 and not isinstance(values[0], int) else values


Tensor.reshape = lambda x, *shape: reshape(x, _one_tuple(shape))
Tensor.transpose = lambda x, *axes: transpose(x, _one_tuple(axes) if axes else None)
Tensor.T = property(transpose)

for _op in (add, exp, log, sqrt, tanh, abs, power, maximum, minimum, matmul, where, sum, mean, var):
    NUMPY[getattr(np, _op.name)] = _op
for _op in (reshape, transpose, swapaxes, expand_dims, squeeze, broadcast_to, concatenate):
    NUMPY[getattr(np, _op.name)] = _op
for _op in (max, min, take_along_axis):
    NUMPY[getattr(np, _op.name)] = _op
NUMPY[np.split] = lambda x, indices_or_sections, axis=0: split(x, indices_or_sections, axis)
NUMPY |= {np.subtract: sub, np.multiply: mul, np.divide: div, np.negative: neg}
for _name in ("equal", "not_equal", "less", "less_equal", "greater", "greater_equal"):
    NUMPY[getattr(np, _name)] = _comparison(getattr(np, _name))
