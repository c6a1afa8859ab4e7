"""The primitive operations: the value and the gradients of each, side by side.

Read op.py before this file, and functional/ after it. The body of an operation is given arrays. It
returns its value and one vjp per array: a function that turns `g`, the gradient with respect to the
value, into the gradient with respect to that array. No vjp undoes broadcasting: where broadcasting
stretched `x`, the engine sums the gradient to the shape of `x` (`fit` in gradients.py). For second
derivatives the same body runs on tensors, hence `isinstance(x, Tensor)` in some of them.

Names, arguments and broadcasting are NumPy's. Where a function has a kink, its gradient lies
between the two one-sided slopes: at 0, abs and relu have the gradient 0; maximum, minimum, max and
min share the gradient equally among ties.

`abs`, `sum`, `max` and `min` are defined here, so within this file these names do not mean Python's
built-in functions. numpy_ops/ has more of NumPy's functions.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple

from .arraylike import array_of, is_array, number_dtype, type_name, wide_sum
from .device import add_at, place
from .graph import Part
from .op import op
from .tensor import Tensor

# =================================================================================================
# Arithmetic
# =================================================================================================


@op(gpu="elementwise")
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
    z = x / y
    return z, lambda g: g / y, lambda g: -g * z / y  # y * y would overflow


@op
def neg(x):
    return -x, lambda g: -g


@op
def power(x, y):
    """x to the power y; the gradient with respect to y is 0 where x <= 0."""
    if isinstance(y, (int, float)):
        return x**y, lambda g: g * (y * x ** (y - 1 if y else 0)), None
    z = x**y

    def vjp_x(g):
        constant = (y == 0) & ((x == 0) | (x != x))  # 0 ** 0 and NaN ** 0 are 1, with slope 0
        return g * (y * x ** np.where(constant, 0, y - 1))

    def vjp_y(g):
        log = np.log(np.where(x > 0, x, 1)).astype(z.dtype)  # of a number, np.where makes a float64
        return g * np.where(x > 0, z * log, 0)

    return z, vjp_x, vjp_y


# =================================================================================================
# Elementwise functions
# =================================================================================================


@op(floats=True)
def exp(x):
    y = np.exp(x)
    return y, lambda g: g * y


@op(floats=True)
def log(x):
    return np.log(x), lambda g: g / x


@op(floats=True)
def sqrt(x):
    y = np.sqrt(x)
    return y, lambda g: g / (2 * y)


@op(floats=True)
def rsqrt(x):
    """1 / sqrt(x)."""
    y = 1 / np.sqrt(x)
    return y, lambda g: g * (-0.5 * y / x)


@op(floats=True)
def tanh(x):
    # tanh(x) = 2 sigmoid(2 x) - 1
    return np.tanh(x), lambda g: g * (4 * _sigmoid_slope(2 * x))


@op(floats=True)
def sigmoid(x):
    """1 / (1 + exp(-x)), safe for large x of either sign."""
    return _sigmoid(x), lambda g: g * _sigmoid_slope(x)


def _sigmoid(x):
    if isinstance(x, Tensor):
        return sigmoid(x)
    # exp(x) / (1 + exp(x)) for x < 0 and 1 / (1 + exp(-x)) for others: neither loses digits there.
    return np.exp(np.minimum(x, 0)) / (1 + np.exp(-np.abs(x)))


def _sigmoid_slope(x):
    """sigmoid(x) sigmoid(-x), the derivative of sigmoid.

    The equivalent y (1 - y) would be inexact: where y is nearly 1, 1 - y is mostly rounding error.
    """
    if isinstance(x, Tensor):
        return sigmoid(x) * sigmoid(-x)
    e = np.exp(-np.abs(x))
    return e / ((1 + e) * (1 + e))


@op
def abs(x):
    return np.abs(x), lambda g: g * np.sign(x)


@op
def relu(x):
    return np.maximum(x, 0), lambda g: g * (x > 0)


@op
def where(condition, x, y):
    """x where the condition is true, y elsewhere; no gradient flows into the condition."""
    return (
        np.where(condition, x, y),
        None,
        lambda g: np.where(condition, g, 0),
        lambda g: np.where(condition, 0, g),
    )


@op
def masked_fill(x, mask, value):
    """x with `value` where the boolean mask, which is broadcast to x, is True."""
    return (
        np.where(mask, value, x),
        lambda g: np.where(mask, 0, g),
        None,
        lambda g: np.where(mask, g, 0),
    )


@op(moves=True)
def astype(x, *, dtype):
    """x converted to another dtype; the engine converts the gradient back."""
    return x.astype(number_dtype(dtype)), lambda g: g


@op(moves=True)
def transfer(x, *, device):
    """x on another device, "cpu" or "cuda"."""
    x = array_of(x)
    before = "cpu" if isinstance(x, np.ndarray) else "cuda"
    return place(x, device), lambda g: transfer(g, before)


# =================================================================================================
# Reductions: sums of float16 numbers are computed in float32
# =================================================================================================


def spread(g, shape, axis, keepdims):
    """Stretch `g` back over `axis`: in a sum, every summand gets a copy of the gradient."""
    if not keepdims and axis is not None:
        g = np.expand_dims(g, axis)
    return np.broadcast_to(g, shape)


def axis_of(axis, x):
    """The axis of a reduction, or None for a 0-d array, where NumPy accepts 0 and -1 too."""
    return None if x.ndim == 0 and isinstance(axis, int) and axis in (0, -1) else axis


def length_of(shape, axis) -> int:
    """How many elements a reduction over `axis` combines into one."""
    if axis is None:
        return math.prod(shape)
    return math.prod(shape[a] for a in normalize_axis_tuple(axis, len(shape)))


@op
def sum(x, *, axis=None, keepdims=False):
    shape, axis = x.shape, axis_of(axis, x)
    return wide_sum(x, axis, keepdims), lambda g: spread(g, shape, axis, keepdims)


@op
def mean(x, *, axis=None, keepdims=False):
    shape = x.shape
    n = length_of(shape, axis)
    y = np.mean(x, axis=axis, keepdims=keepdims)
    return y, lambda g: spread(g * (1 / n if n else 0), shape, axis, keepdims)


@op
def max(x, *, axis=None, keepdims=False):
    """The largest element; ties share the gradient equally."""
    return extreme(np.max, x, axis, keepdims)


@op
def min(x, *, axis=None, keepdims=False):
    """The smallest element; ties share the gradient equally."""
    return extreme(np.min, x, axis, keepdims)


def extreme(function, x, axis, keepdims):
    """The body of max and min, and of what chooses one element as they do."""
    axis = axis_of(axis, x)
    y = function(x, axis=axis, keepdims=keepdims)
    best = function(x, axis=axis, keepdims=True)

    def vjp(g):
        # Ties are counted in float32 at least, because float16 has no integers above 2048 exactly.
        ties = (x == best).astype(np.result_type(g.dtype, np.float32))
        return spread(g, x.shape, axis, keepdims) * (ties / np.sum(ties, axis=axis, keepdims=True))

    return y, vjp


def top_of(x, axis):
    """The largest elements along `axis` as a constant to subtract, or 0 if x has no elements."""
    return max(x, axis=axis, keepdims=True).detach() if x.size else 0.0


# =================================================================================================
# Matrix products
# =================================================================================================


def _t(x):
    return np.swapaxes(x, -1, -2)


@op(gpu="linear")
def matmul(x, y):
    """The matrix product over the last two axes, for operands of one or more dimensions."""
    shapes = [getattr(a, "shape", ()) for a in (x, y)]
    if () in shapes or shapes[0][-1] != shapes[1][-2 if len(shapes[1]) > 1 else 0]:
        raise ValueError(f"matmul: operands of shapes {shapes[0]} and {shapes[1]} do not fit")
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
    """(..., k) @ (k, m) as one product of (rows, k) and (k, m), the fastest form for BLAS."""
    shape, (k, m) = x.shape, y.shape
    rows = math.prod(shape[:-1])
    flat = np.reshape(x, (rows, k))
    return (
        np.reshape(flat @ y, (*shape[:-1], m)),
        lambda g: np.reshape(np.reshape(g, (rows, m)) @ _t(y), shape),
        lambda g: _t(flat) @ np.reshape(g, (rows, m)),
    )


# =================================================================================================
# Shape
# =================================================================================================


@op(moves=True)
def reshape(x, *, shape):
    before = x.shape
    return np.reshape(x, shape), lambda g: np.reshape(g, before)


@op(moves=True)
def transpose(x, *, axes=None):
    """Reorder the axes as `axes` says, or reverse them if it is None."""
    y = np.transpose(x, axes)  # first, since it checks the axes
    order = None if axes is None else [a % x.ndim for a in axes]
    back = order and sorted(range(x.ndim), key=order.__getitem__)
    return y, lambda g: np.transpose(g, back)


@op(moves=True)
def swapaxes(x, *, axis1, axis2):
    return np.swapaxes(x, axis1, axis2), lambda g: np.swapaxes(g, axis1, axis2)


@op(moves=True)
def expand_dims(x, *, axis):
    shape = x.shape
    return np.expand_dims(x, axis), lambda g: np.reshape(g, shape)


@op(moves=True)
def squeeze(x, *, axis=None):
    shape = x.shape
    return np.squeeze(x, axis), lambda g: np.reshape(g, shape)


@op(moves=True)
def broadcast_to(x, *, shape):
    return np.broadcast_to(x, shape), lambda g: g  # the engine sums what was stretched


@op(moves=True)
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


@op(moves=True)
def getitem(x, *, index):
    """x[index], for any index that NumPy takes; tensors in the index are used as arrays."""
    index = plain_index(index)
    repeated = any(hasattr(i, "dtype") and i.dtype.kind in "iu" for i in _parts(index))
    return x[index], lambda g: Part(g, index, repeated)


def _parts(index):
    return index if isinstance(index, tuple) else (index,)


def plain_index(index):
    """The index with its tensors and its sequences of integers or booleans converted to arrays."""
    return tuple(map(index_array, index)) if isinstance(index, tuple) else index_array(index)


def index_array(i):
    """One part of an index with tensors and sequences converted to arrays, the rest unchanged.

    Raises TypeError for an array of another library, such as PyTorch.
    """
    if isinstance(i, Tensor):
        return i.data
    if i is None or i is Ellipsis or isinstance(i, (int, slice, np.ndarray, np.generic)):
        return i
    if hasattr(i, "dtype") and not is_array(i):
        raise TypeError(f"an index is made of NumPy's arrays or tensors, not {type_name(i)}")
    if hasattr(i, "__array_function__") or hasattr(i, "__index__"):  # CuPy array, integer
        return i
    array = np.asarray(i)
    return array if array.size or hasattr(i, "dtype") else array.astype(np.int64)


@op
def scatter_add(g, *, shape, index):
    """Zeros of `shape` to which `g` is added at `index`: the gradient of getitem."""
    index = plain_index(index)
    total = np.zeros(shape, g.dtype, like=array_of(g))
    add_at(total, index, array_of(g))
    return total, lambda h: h[index]
