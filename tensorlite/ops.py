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

import builtins
import functools
import inspect
import math
import operator
import string

import numpy as np
from numpy.lib.array_utils import normalize_axis_index, normalize_axis_tuple

from .device import add_at, place
from .tensor import (
    NUMPY,
    Part,
    Tensor,
    _array,
    _number_dtype,
    _operand,
    is_array,
    op,
    tensor,
    type_name,
    whole,
    wide_sum,
)

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
    z = x / y
    return z, lambda g: g / y, lambda g: -g * z / y  # y * y would overflow


@op
def neg(x):
    return -x, lambda g: -g


@op
def power(x, y):
    """x to the power y; the gradient with respect to y is 0 where x is not above 0."""
    if isinstance(y, (int, float)):
        return x**y, lambda g: g * (y * x ** (y - 1 if y else 0)), None
    z = x**y
    constant = (y == 0) & ((x == 0) | (x != x))  # x ** 0 is 1, also of 0 and NaN: the slope is 0
    return (
        z,
        lambda g: g * (y * x ** np.where(constant, 0, y - 1)),
        lambda g: g * np.where(x > 0, z * np.log(np.where(x > 0, x, 1)), 0),
    )


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
def sin(x):
    return np.sin(x), lambda g: g * np.cos(x)


@op(floats=True)
def cos(x):
    return np.cos(x), lambda g: -g * np.sin(x)


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
    # exp(x) / (1 + exp(x)) below 0 and 1 / (1 + exp(-x)) above: each keeps all its digits there.
    return np.exp(np.minimum(x, 0)) / (1 + np.exp(-np.abs(x)))


def _sigmoid_slope(x):
    """sigmoid(x) sigmoid(-x), the derivative of sigmoid.

    Not y (1 - y): subtracted from 1, a number that is nearly 1 leaves nothing but its own rounding.
    """
    if isinstance(x, Tensor):
        return sigmoid(x) * sigmoid(-x)
    e = np.exp(-np.abs(x))
    return e / ((1 + e) * (1 + e))


@op(floats=True)
def erf(x):
    """The error function, to 1e-15 in float64 (NumPy has none)."""
    return _erf(x), lambda g: g * (exp_minus_square(x) * (2 / math.sqrt(math.pi)))


def _erf(x):
    """Near 0 the power series; beyond, 1 - exp(-x^2) erfcx(x)."""
    if isinstance(x, Tensor):
        return erf(x)
    size = np.abs(x)
    series = np.zeros_like(x)
    square = np.minimum(x * x, 0.25)
    for n in reversed(range(14)):
        series *= square
        series += (-1) ** n / (math.factorial(n) * (2 * n + 1))
    tail = 1 - exp_minus_square(size) * erfcx(size)
    near = size < 0.5
    return np.where(near, 2 / math.sqrt(math.pi) * x * series, np.sign(x) * tail).astype(x.dtype)


def exp_minus_square(x, factor=1):
    """exp(-factor x^2), for a factor of 1 or 0.5.

    exp makes of a rounding of its argument as many times that relative error as the argument is
    large: x * x = 700 would cost nine bits. So x^2 = h^2 + (x - h) (x + h) with h so short that h^2
    is exact.
    """
    if isinstance(x, Tensor):
        return exp(x * x * -factor)
    x = np.clip(x, -50, 50)  # the result is 0 beyond
    h = np.rint(x * 16) / 16
    return np.exp((x - h) * (x + h) * -factor) * np.exp(h * h * -factor)


def erfcx(x):
    """exp(x^2) (1 - erf(x)) for x from 0 to 50, which falls from 1 as slowly as 1 / x.

    (1 + 2 x) erfcx(x) is nearly constant, and a short Chebyshev series in u = (x - 4) / (x + 4),
    which goes from -1 to 1 (Shepherd and Laframboise, 1981).
    """
    x = np.minimum(x, 50)  # exp(-x^2) is 0 beyond
    u = (x - 4) / (x + 4)
    later, last = np.zeros_like(x), np.zeros_like(x)
    first, *others = (c for c in ERFCX if builtins.abs(c) > np.finfo(x.dtype).eps / 8)
    for c in reversed(others):  # Clenshaw's recurrence
        later, last = last, 2 * u * last - later + c
    return (u * last - later + first) / (1 + 2 * x)


# The coefficients of the series, computed with 40 digits: tests/test_accuracy.py does it again.
ERFCX = (
    1.1774832005374487, -0.007260796620301901, -0.081265123236185,
    0.06009212804122225, -0.02875393558027666, 0.01059566336347286,
    -0.003136927294554264, 0.0007456494372536184, -0.0001369696503010054,
    1.7183861600300937e-05, -7.158364623450346e-07, -2.4261399442449534e-07,
    5.5765709395703566e-08, -2.1057869513809494e-09, -1.1717889351884957e-09,
    1.9098355172456688e-10, 1.408871764208813e-11, -6.901108320480815e-12,
    9.167958364111294e-14, 2.1454508286554553e-13, -1.4716575027010623e-14,
    -6.668675118770408e-15, 7.504598509880083e-16,
)  # fmt: skip


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
def clip(x, *, min=None, max=None):
    """x with what is below the number `min` or above `max` replaced by it (None: no bound).

    The gradient is 1 between the bounds and on them, 0 outside.
    """
    y, inside = x, x == x  # all but NaN
    if min is not None:
        y, inside = np.maximum(y, min), inside & (x >= min)
    if max is not None:
        y, inside = np.minimum(y, max), inside & (x <= max)
    return y, lambda g: np.where(inside, g, 0)


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
    return x.astype(_number_dtype(dtype)), lambda g: g


@op
def transfer(x, *, device):
    """x on another device, "cpu" or "cuda"."""
    x = _array(x)
    before = "cpu" if isinstance(x, np.ndarray) else "cuda"
    return place(x, device), lambda g: transfer(g, before)


# =================================================================================================
# Reductions: float16 is summed in float32
# =================================================================================================


def _spread(g, shape, axis, keepdims):
    """The gradient of a sum is a copy for every summand: stretch `g` back over `axis`."""
    if not keepdims and axis is not None:
        g = np.expand_dims(g, axis)
    return np.broadcast_to(g, shape)


def _axis(axis, x):
    """The axis of a sum, product or extreme: NumPy takes 0 and -1 for a 0-d array too."""
    return None if x.ndim == 0 and isinstance(axis, int) and axis in (0, -1) else axis


def _length(shape, axis) -> int:
    """How many elements a reduction over `axis` takes together."""
    if axis is None:
        return math.prod(shape)
    return math.prod(shape[a] for a in normalize_axis_tuple(axis, len(shape)))


@op
def sum(x, *, axis=None, keepdims=False):
    shape, axis = x.shape, _axis(axis, x)
    return wide_sum(x, axis, keepdims), lambda g: _spread(g, shape, axis, keepdims)


@op
def mean(x, *, axis=None, keepdims=False):
    shape = x.shape
    n = _length(shape, axis)
    y = np.mean(x, axis=axis, keepdims=keepdims)
    return y, lambda g: _spread(g * (1 / n if n else 0), shape, axis, keepdims)


@op(floats=True)
def var(x, *, axis=None, ddof=0, keepdims=False):
    """The variance: the mean squared distance from the mean, divided by n - ddof instead of n."""
    n, dtype = _length(x.shape, axis), x.dtype
    n = builtins.max(n - ddof, 0)  # as in NumPy: what is divided by 0 is infinite or no number
    if dtype == np.float16 and not isinstance(x, Tensor):
        x = x.astype(np.float32)
    centred = x - np.mean(x, axis=axis, keepdims=True)
    y = sum.body(centred * centred, axis=axis, keepdims=keepdims)[0] / n
    shape = x.shape
    return y.astype(dtype), lambda g: _spread(g * 2, shape, axis, keepdims) * centred / n


@op
def max(x, *, axis=None, keepdims=False):
    """The largest element; ties share the gradient equally."""
    return _extreme(np.max, x, axis, keepdims)


@op
def min(x, *, axis=None, keepdims=False):
    """The smallest element; ties share the gradient equally."""
    return _extreme(np.min, x, axis, keepdims)


def logsumexp_composed(x, axis=None, keepdims=False):
    axis = _axis(axis, x)
    top = top_of(x, axis)
    top = where(abs(top) == math.inf, 0.0, top)
    y = log(sum(exp(x - top), axis=axis, keepdims=True)) + top
    return y if keepdims else squeeze(y, axis)


def top_of(x, axis):
    """The largest elements along `axis`, as a constant to shift by; 0 where there are none."""
    return max(x, axis=axis, keepdims=True).detach() if x.size else 0.0


@op(composed=logsumexp_composed)
def logsumexp(x, *, axis=None, keepdims=False):
    """log(sum(exp(x))), safe for large x."""
    axis = _axis(axis, x)
    if not x.size:  # no largest element: the logarithm of nothing
        y = np.log(np.sum(x, axis=axis, keepdims=keepdims))
        return y, lambda g: x
    rows, shape, back = _reduced_rows(x, axis, keepdims)
    at = np.arange(len(rows), like=rows), np.argmax(rows, axis=1)
    largest = rows[at][:, None]
    top = np.where(np.isinf(largest), 0, largest)
    e, others, total, scale = exp_rows(rows, top, at)
    y = largest + np.log1p(others * scale)

    def vjp(g):
        return back(np.reshape(g, (-1, 1)) / total * e)

    return np.reshape(y, shape), vjp


def _reduced_rows(x, axis, keepdims):
    """x as (rows, columns) with the axes that are reduced along the columns.

    And the shape of what is left, one number for each row; and the way back, from rows to x.
    """
    if axis is None or not x.ndim:
        axis = range(x.ndim)
    reduced = normalize_axis_tuple(axis, x.ndim)
    left = [a for a in range(x.ndim) if a not in reduced]
    order = [*left, *reduced]
    moved, back = tuple(x.shape[a] for a in order), np.argsort(order).tolist()
    rows = np.reshape(np.transpose(x, order), (-1, math.prod(x.shape[a] for a in reduced)))
    shape = tuple(n if a in left else 1 for a, n in enumerate(x.shape) if keepdims or a in left)
    return rows, shape, lambda rows: np.transpose(np.reshape(rows, moved), back)


_UNSHIFTED = 30  # exp of it, 1e13, leaves room in float32 for sums and for gradients


def exp_rows(x, top, at, out=None):
    """The exponentials of rows (r, n) and their sums: what softmax and its relatives are made of.

    `top` (r, 1) is the largest of each row, `at` the index of one element of each. Returns
    exp(x - shift) (r, n), written to `out` if given; their sums without the element `at` and with
    it, (r, 1) both; and exp(shift - top) (r, 1), by which they become exponentials of x - top.

    `shift` is 0 where exp cannot overflow, else the largest. For x - top is rounded, and exp makes
    of a rounding as many times that relative error as its argument is large. The sum without
    one element is for a probability near 1: what it lacks is the sum of the others / total.
    """
    shift = np.where((top >= 0) & (top <= _UNSHIFTED), 0, top)
    e = np.subtract(x, shift, out=out)
    np.exp(e, out=e)
    one = e[at]
    e[at] = 0
    others = np.sum(e, axis=1, keepdims=True)
    e[at] = one
    return e, others, others + one[:, None], np.exp(shift - top)


def prod_composed(x, axis=None, keepdims=False):
    axis = _axis(axis, x)
    if axis is None:
        y = prod_composed(reshape(x, (x.size,)), axis=0)
        return reshape(y, (1,) * x.ndim) if keepdims else y
    axes = sorted(normalize_axis_tuple(axis, x.ndim))
    for a in axes:
        one = sum(x, axis=a, keepdims=True) * 0 + 1  # the product of no factors
        x = functools.reduce(mul, split(x, range(1, x.shape[a]), a) if x.shape[a] else (), one)
    return x if keepdims else squeeze(x, tuple(axes))


@op(composed=prod_composed, floats=False)
def prod(x, *, axis=None, keepdims=False):
    """The product of elements; the gradient is right where some of them are 0."""
    axis = _axis(axis, x)
    shape, n = x.shape, _length(x.shape, axis)
    reduced = list(range(x.ndim) if axis is None else normalize_axis_tuple(axis, x.ndim))
    order = [a for a in range(x.ndim) if a not in reduced] + reduced
    moved = np.transpose(x, order)  # the reduced axes last

    def vjp(g):
        # The product of all the others is that of those before, times that of those behind.
        rows = np.reshape(moved, (x.size // n if n else 0, n))
        ones = np.ones_like(rows[:, :1])
        before = np.cumprod(np.concatenate([ones, rows[:, :-1]], axis=1), axis=1)
        behind = np.cumprod(np.concatenate([ones, rows[:, :0:-1]], axis=1), axis=1)[:, ::-1]
        others = np.transpose(np.reshape(before * behind, moved.shape), np.argsort(order).tolist())
        return _spread(g, shape, axis, keepdims) * others

    return np.prod(x, axis=axis, keepdims=keepdims), vjp


@op
def cumsum(x, *, axis=None):
    """Running sums along an axis; None: over all elements in order."""
    axis = _axis(axis, x)
    shape, along = x.shape, 0 if axis is None else axis

    def sums(x, axis):
        if x.dtype == np.float16 and not isinstance(x, Tensor):
            return np.cumsum(x, axis, dtype=np.float32).astype(x.dtype)
        return np.cumsum(x, axis)

    def vjp(g):
        return np.reshape(np.flip(sums(np.flip(g, along), along), along), shape)

    return sums(x, axis), vjp


def _extreme(function, x, axis, keepdims):
    axis = _axis(axis, x)
    y = function(x, axis=axis, keepdims=keepdims)
    best = function(x, axis=axis, keepdims=True)

    def vjp(g):
        ties = (x == best).astype(np.result_type(g.dtype, np.float32))  # float16 counts to 2048
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
    """(..., k) @ (k, m) as one product of (rows, k) and (k, m), which BLAS does fastest."""
    shape, (k, m) = x.shape, y.shape
    rows = math.prod(shape[:-1])
    flat = np.reshape(x, (rows, k))
    return (
        np.reshape(flat @ y, (*shape[:-1], m)),
        lambda g: np.reshape(np.reshape(g, (rows, m)) @ _t(y), shape),
        lambda g: _t(flat) @ np.reshape(g, (rows, m)),
    )


@op
def _einsum(*operands, subscripts):
    """`einsum` below of a sequence of operands, with explicit subscripts of letters alone."""
    inputs, output = subscripts.split("->")
    inputs = inputs.split(",")
    sizes = {}
    for letters, x in zip(inputs, operands):
        for letter, n in zip(letters, x.shape):
            sizes[letter] = n if sizes.get(letter, 1) == 1 else sizes[letter]
    shapes = [x.shape for x in operands]
    y = np.einsum(subscripts, *operands, optimize=len(operands) > 1)

    def vjp(i):
        others = [x for j, x in enumerate(operands) if j != i]
        known = [output, *(letters for j, letters in enumerate(inputs) if j != i)]
        return lambda g: _einsum_gradient(inputs[i], known, [g, *others], sizes, shapes[i])

    return y, *map(vjp, range(len(operands)))


def _einsum_gradient(target, known, operands, sizes, shape):
    """The gradient of the operand with the letters `target`: an einsum of g and the others."""
    like = whole(_array(operands[0]))
    # A letter that none of them has was summed over in this operand alone: its gradient is the
    # same everywhere along it, as if they were multiplied by ones.
    long = {c for s, x in zip(known, operands) for c, n in zip(s, x.shape) if n == sizes[c]}
    lost = "".join(dict.fromkeys(c for c in target if c not in long))
    if lost:
        operands = [*operands, np.ones_like(like, shape=tuple(sizes[c] for c in lost))]
        known = [*known, lost]
    # A letter that it has twice took its diagonal: multiplied by an identity for each repetition,
    # under another letter, the gradient stands on the diagonal and is 0 elsewhere.
    unique = ""
    for letter in target:
        if letter in unique:
            spare = next(c for c in string.ascii_letters if c not in unique + "".join(known))
            eye = np.identity(sizes[letter], like.dtype, like=like)
            operands, known = [*operands, eye], [*known, letter + spare]
            letter = spare
        unique += letter
    g = np.einsum(f"{','.join(known)}->{unique}", *operands, optimize=True)
    return g.astype(operands[0].dtype)


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
    order = [a % x.ndim for a in axes or ()]
    back = None if axes is None else sorted(range(x.ndim), key=order.__getitem__)
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
def flip(x, *, axis=None):
    """x with the order of its elements reversed along an axis, a tuple of them, or all (None)."""
    return np.flip(x, axis), lambda g: np.flip(g, axis)


@op
def roll(x, *, shift, axis=None):
    """x shifted along an axis; what is pushed out at the end comes in at the start."""
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
    """x in a frame of one number; pad_width as in NumPy: n, (before, after), or one per axis."""
    widths = np.broadcast_to(np.asarray(pad_width), (x.ndim, 2)).tolist()
    inside = tuple(slice(before, before + n) for (before, _), n in zip(widths, x.shape))
    y = np.pad(x, widths, constant_values=constant_values) if x.ndim else x
    return y, lambda g: g[inside]


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
    """The index with tensors and sequences of integers or booleans made arrays."""
    return tuple(map(_index_array, index)) if isinstance(index, tuple) else _index_array(index)


def _index_array(i):
    """One part of an index: a number, a slice and their like, or an array.

    Raises TypeError for an array of another library, such as PyTorch's.
    """
    if isinstance(i, Tensor):
        return i.data
    if i is None or i is Ellipsis or isinstance(i, (int, slice, np.ndarray, np.generic)):
        return i
    if hasattr(i, "dtype") and not is_array(i):
        raise TypeError(f"an index is made of NumPy's arrays or tensors, not {type_name(i)}")
    if hasattr(i, "__array_function__") or hasattr(i, "__index__"):  # CuPy's arrays; integers
        return i
    array = np.asarray(i)
    return array if array.size or hasattr(i, "dtype") else array.astype(np.int64)


@op
def scatter_add(g, *, shape, index):
    """Zeros of `shape` to which `g` is added at `index`: the partner of getitem."""
    index = _plain(index)
    total = np.zeros(shape, g.dtype, like=_array(g))
    add_at(total, index, _array(g))
    return total, lambda h: h[index]


@op
def take_along_axis(x, *, indices, axis):
    """One element of x for each of the indices, which match x in every other axis."""
    axis, indices = normalize_axis_index(axis, x.ndim), _index_array(indices)
    index = []
    for a, n in enumerate(x.shape):
        along = (-1,) + (1,) * (x.ndim - 1 - a)
        index.append(indices if a == axis else np.reshape(np.arange(n, like=_array(x)), along))
    return np.take_along_axis(x, indices, axis), lambda g: Part(g, tuple(index), repeated=True)


def embedding_composed(weight, ids):
    return getitem(weight, ids if hasattr(ids, "dtype") else np.asarray(ids))


@op(composed=embedding_composed)
def embedding(weight, *, ids):
    """The row of `weight` (V, C) for each integer in `ids` (...): (..., C).

    Raises TypeError for ids that are no integers, IndexError for one outside 0 <= id < V.
    """
    ids, shape = _index_array(ids), weight.shape
    ids = np.asarray(ids) if isinstance(ids, (int, np.generic)) else ids
    if ids.dtype.kind not in "iu":
        raise TypeError(f"embedding takes integer ids, not {ids.dtype}")
    if isinstance(ids, np.ndarray) and ids.size and not 0 <= ids.min() <= ids.max() < shape[0]:
        wrong = ids.min() if ids.min() < 0 else ids.max()
        raise IndexError(f"id {wrong} is outside the vocabulary of {shape[0]}")

    def vjp(g):
        # Sorted, equal ids stand together, and each run of rows is one sum: ten times faster than
        # np.add.at, which adds element by element. Only these rows of the table have a gradient.
        order = np.argsort(ids, axis=None, kind="stable")
        ordered = ids.reshape(-1)[order]
        starts = np.flatnonzero(np.diff(ordered, prepend=-1))
        rows = np.reshape(g, (ids.size, *shape[1:]))
        if starts.size:
            cuts = np.asarray(starts, like=g)  # ids may be on the host, g on a GPU
            rows = np.add.reduceat(
                rows[order], cuts, axis=0, dtype=np.result_type(g.dtype, np.float32)
            )
        return Part(rows, ordered[starts], repeated=False)

    return weight[ids], vjp


# =================================================================================================
# What is no operation of its own
# =================================================================================================


def split(x, indices_or_sections, axis: int = 0) -> list[Tensor]:
    """Cut a tensor along an axis: into equal sections (int), or at the given indices (list)."""
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
    arrays = [_operand(x, "stack", arrays) if isinstance(x, list) else x for x in arrays]
    return concatenate([expand_dims(x, axis) for x in arrays], axis)


def take(x, indices, axis: int | None = None) -> Tensor:
    """The elements at integer `indices` along an axis (None: of all elements in order)."""
    x = x if isinstance(x, Tensor) else tensor(x)
    indices, axis = _index_array(indices), _axis(axis, x)
    if axis is None:
        return getitem(reshape(x, (x.size,)), indices)
    return getitem(x, (slice(None),) * normalize_axis_index(axis, x.ndim) + (indices,))


def einsum(subscripts: str, *operands) -> Tensor:
    """Einstein's summation, with NumPy's subscripts: "ij,jk->ik", "...ij", "ii", "i,j".

    >>> einsum("ij,j->i", tensor([[1.0, 2.0], [3.0, 4.0]]), tensor([1.0, 1.0]))
    tensor([3., 7.])
    """
    if not isinstance(subscripts, str):
        raise TypeError(
            "einsum takes its subscripts first, as a string such as 'ij,jk->ik', "
            f"not {type(subscripts).__name__}"
        )
    inputs, arrow, output = subscripts.replace(" ", "").partition("->")
    inputs = inputs.split(",")
    if len(inputs) != len(operands):
        raise ValueError(f"einsum {subscripts!r} names {len(inputs)} operands, not {len(operands)}")
    # The axes behind an ellipsis get letters of their own, counted from the last one.
    spare = [c for c in string.ascii_letters if c not in subscripts]
    operands = [float(x) if isinstance(x, np.floating) else x for x in operands]
    operands = [x if hasattr(x, "ndim") else _operand(x, "einsum", operands) for x in operands]
    operands = [x if hasattr(x, "ndim") else tensor(x) for x in operands]
    n_dots = [x.ndim - len(s.replace("...", "")) for s, x in zip(inputs, operands)]
    dots = "".join(
        spare[: builtins.max((n for n, s in zip(n_dots, inputs) if "..." in s), default=0)]
    )
    for s, x, n in zip(inputs, operands, n_dots):
        if n < 0 or (n and "..." not in s):
            raise ValueError(f"einsum: {s!r} does not fit an operand of shape {x.shape}")
    if not arrow:  # implicit: the letters that occur once, in the order of the alphabet
        letters = "".join(inputs).replace(".", "")
        output = "..." + "".join(sorted(c for c in set(letters) if letters.count(c) == 1))
    inputs = [s.replace("...", dots[len(dots) - n :]) for s, n in zip(inputs, n_dots)]
    return _einsum(operands, ",".join(inputs) + "->" + output.replace("...", dots))


def _without_gradient(function, *args, **kwargs) -> Tensor:
    y = function(*map(_array, args), **{name: _array(value) for name, value in kwargs.items()})
    return Tensor(whole(y))


def _comparison(function):
    def compare(x, y) -> Tensor:
        return _without_gradient(function, x, y)

    compare.__doc__ = f"np.{function.__name__}, a tensor of booleans: no gradient flows through it."
    return compare


# =================================================================================================
# The same by operator, by method and by NumPy's name: x * y, x.sum(axis=0), np.exp(x)
# =================================================================================================


def _operator(op):
    """x * y and y * x, for an operand that is a tensor and another that need not be."""
    call = op.__call__  # bound once: an operation on small numbers is all overhead
    return lambda x, y: call(x, y), lambda x, y: call(y, x)


Tensor.__add__, Tensor.__radd__ = _operator(add)
Tensor.__sub__, Tensor.__rsub__ = _operator(sub)
Tensor.__mul__, Tensor.__rmul__ = _operator(mul)
Tensor.__truediv__, Tensor.__rtruediv__ = _operator(div)
Tensor.__pow__, Tensor.__rpow__ = _operator(power)
Tensor.__matmul__, Tensor.__rmatmul__ = _operator(matmul)
Tensor.__neg__, Tensor.__abs__ = neg, abs
Tensor.__getitem__ = lambda x, index: getitem(x, index)
for _name in ("eq", "ne", "lt", "le", "gt", "ge"):
    setattr(Tensor, f"__{_name}__", _comparison(getattr(operator, _name)))
Tensor.__and__, Tensor.__or__ = _comparison(operator.and_), _comparison(operator.or_)
Tensor.__invert__ = lambda x: Tensor(~x.data)  # masks: (x > 0) & ~(x > 1)
Tensor.__hash__ = object.__hash__  # a tensor is a key by what it is, not by its values

_methods = (exp, log, sqrt, rsqrt, sin, cos, tanh, sigmoid, relu, abs, clip, masked_fill)
_methods += (sum, mean, var, max, min, prod, logsumexp, cumsum, astype)
_methods += (swapaxes, expand_dims, squeeze, broadcast_to, flip, roll, tril, triu, take, split)
for _op in _methods:
    setattr(Tensor, _op.__name__, _op)


def _one_tuple(values):
    """x.reshape(2, 3) is x.reshape((2, 3))."""
    return values[0] if len(values) == 1 and not isinstance(values[0], int) else values


Tensor.reshape = lambda x, *shape: reshape(x, _one_tuple(shape))
Tensor.transpose = lambda x, *axes: transpose(x, _one_tuple(axes) if axes else None)
Tensor.T = property(transpose)


def _by_numpys_signature(function, ours):
    """`ours` with the arguments of NumPy's `function`, each of them obeyed or refused by name."""
    name = f"np.{function.__name__}"
    try:
        signature = inspect.signature(function)
    except ValueError:  # written in C: NumPy 2.0 does not say what they take
        return ours
    first, *_ = signature.parameters
    known = inspect.signature(ours).parameters

    def call(*args, **kwargs):
        try:
            given = signature.bind(*args, **kwargs).arguments
        except TypeError as error:
            raise TypeError(f"{name}{signature}: {error}") from None
        x, more, obeyed = given.pop(first), given.pop("kwargs", {}), {}
        for key, value in [*given.items(), *more.items()]:
            parameter = signature.parameters.get(key)
            if parameter is None or not _is_default(value, parameter.default):
                key = _RENAMED.get(key, key)
                if key not in known or key in obeyed:
                    way = _WAY_OUT.get(key, "use .numpy() where no gradient is needed")
                    raise TypeError(f"{name} does not take {key}= for tensors: {way}")
                obeyed[key] = value
        return ours(x, **obeyed)

    return call


def _is_default(value, default) -> bool:
    return value is default or (isinstance(value, (bool, int, str)) and value == default)


_RENAMED = {"a_min": "min", "a_max": "max", "correction": "ddof"}
_WAY_OUT = {
    "dtype": "convert with .astype(dtype)",
    "out": "operations give new tensors",
    "where": "use tl.where(mask, x, number) first",
    "initial": "combine it with the result",
    "mode": "index with what np.pad or np.clip makes of the indices",
    "order": "elements are in the order 'C'",
}


def _numpys_where(condition, x=None, y=None) -> Tensor:
    if x is None or y is None:
        raise TypeError(
            "np.where takes a condition, x and y for tensors; "
            "np.nonzero(condition.numpy()) gives the indices where a condition holds"
        )
    return where(condition, x, y)


def _numpys_einsum(subscripts, *operands, optimize=None, **refused) -> Tensor:
    """`optimize` changes how the sum is computed and not what it is."""
    for key in refused:
        raise TypeError(f"np.einsum does not take {key}= for tensors: {_WAY_OUT.get(key, key)}")
    return einsum(subscripts, *operands)


_ufuncs = (add, power, exp, log, sqrt, sin, cos, tanh, abs, maximum, minimum, matmul)
for _op in _ufuncs:
    NUMPY[getattr(np, _op.__name__)] = _op
_functions = (clip, sum, mean, var, max, min, prod, cumsum, reshape, transpose, swapaxes)
_functions += (expand_dims, squeeze, flip, roll, tril, triu, broadcast_to, concatenate, stack)
_functions += (take, take_along_axis, pad, split)
for _op in _functions:
    _function = getattr(np, _op.__name__)
    NUMPY[_function] = _by_numpys_signature(_function, _op)
NUMPY[np.where] = _numpys_where
NUMPY[np.einsum] = _numpys_einsum
NUMPY |= {np.subtract: sub, np.multiply: mul, np.divide: div, np.negative: neg}
for _name in ("equal", "not_equal", "less", "less_equal", "greater", "greater_equal"):
    NUMPY[getattr(np, _name)] = _comparison(getattr(np, _name))
# Constant nearly everywhere: values without a gradient.
for _function in (np.sign, np.isinf, np.isnan, np.isfinite, np.argmax, np.argmin, np.argsort):
    NUMPY[_function] = functools.partial(_without_gradient, _function)
