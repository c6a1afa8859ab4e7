"""Functions of each element, apart from trigonometric.py and exponentials.py."""

from __future__ import annotations

import numpy as np

from ..arraylike import array_of, whole
from ..op import op
from ..ops import power, sub, where
from ..tensor import Tensor
from .operands import as_tensors

__all__ = ["square", "reciprocal", "cbrt", "float_power", "hypot", "fabs", "copysign", "ldexp"]
__all__ += ["positive", "copy", "real", "conj", "real_if_close"]
__all__ += ["maximum", "minimum", "fmax", "fmin", "clip", "nan_to_num"]
__all__ += ["remainder", "mod", "fmod", "floor_divide", "divmod"]
__all__ += ["sign", "heaviside", "floor", "ceil", "trunc", "fix", "rint", "round", "around"]
__all__ += ["interp"]


# =================================================================================================
# Powers and absolute values
# =================================================================================================


@op
def square(x):
    return np.square(x), lambda g: g * (2 * x)


@op
def reciprocal(x):
    """1 / x; of integers it is rounded towards 0, as in NumPy."""
    y = np.reciprocal(x)
    return y, lambda g: -g * y * y


@op(floats=True)
def cbrt(x):
    """The cube root; the gradient is infinite at 0."""
    y = np.cbrt(x)
    return y, lambda g: g / (3 * y * y)


@op(floats=True)
def float_power(x, y):
    """`power` of floating-point numbers: integers are converted, so that y may be negative.

    The value has the dtype of the arguments, float32 for integers; NumPy's is float64.
    """
    return power.body(x, y)


@op(floats=True)
def hypot(x, y):
    """sqrt(x**2 + y**2) without overflow; the gradient is 0 where both are 0."""
    r = np.hypot(x, y)
    return (
        r,
        lambda g: g * (x / np.where(r == 0, 1, r)),
        lambda g: g * (y / np.where(r == 0, 1, r)),
    )


@op(floats=True)
def fabs(x):
    """The absolute value as a floating-point number."""
    return np.fabs(x), lambda g: g * np.sign(x)


@op(floats=True)
def copysign(x, y):
    """The absolute value of x with the sign of y; the gradient for y is 0."""
    z = np.copysign(x, y)
    return z, lambda g: g * (np.sign(x) * np.sign(z)), lambda g: None


@op(floats=True)
def ldexp(x, *, exponent):
    """x times 2 to the power `exponent`, an integer or an array of integers."""
    exponent = np.asarray(exponent, like=whole(array_of(x)))
    return np.ldexp(x, exponent), lambda g: np.ldexp(g, exponent)


@op(moves=True)
def positive(x):
    return np.positive(x), lambda g: g


@op(moves=True)
def copy(x):
    """A tensor of its own memory with the numbers of x."""
    return np.copy(x), lambda g: g


real = conj = real_if_close = copy  # tensors hold real numbers


# =================================================================================================
# The larger and the smaller
# =================================================================================================


@op
def maximum(x, y):
    """The larger of x and y, element by element; each gets half of the gradient where x == y."""
    return (
        np.maximum(x, y),
        lambda g: g * ((x > y) + (x == y) * 0.5).astype(g.dtype),
        lambda g: g * ((y > x) + (x == y) * 0.5).astype(g.dtype),
    )


@op
def minimum(x, y):
    """The smaller of x and y, element by element; each gets half of the gradient where x == y."""
    return (
        np.minimum(x, y),
        lambda g: g * ((x < y) + (x == y) * 0.5).astype(g.dtype),
        lambda g: g * ((y < x) + (x == y) * 0.5).astype(g.dtype),
    )


@op
def fmax(x, y):
    """`maximum`, but where one of x and y is NaN it is the other."""
    return (
        np.fmax(x, y),
        lambda g: g * (((x > y) | (y != y)) + (x == y) * 0.5).astype(g.dtype),
        lambda g: g * (((y > x) | ((x != x) & (y == y))) + (x == y) * 0.5).astype(g.dtype),
    )


@op
def fmin(x, y):
    """`minimum`, but where one of x and y is NaN it is the other."""
    return (
        np.fmin(x, y),
        lambda g: g * (((x < y) | (y != y)) + (x == y) * 0.5).astype(g.dtype),
        lambda g: g * (((y < x) | ((x != x) & (y == y))) + (x == y) * 0.5).astype(g.dtype),
    )


@op
def clip(x, min=None, max=None):
    """x with elements below `min` or above `max` replaced by it (None: no bound).

    The gradient flows into x where it lies between the bounds or is equal to one, and elsewhere
    into the bound that replaced it. Where min > max, the result is max, as in NumPy.
    """
    y, inside = x, x == x  # False for NaN
    if min is not None:
        y, inside = np.maximum(y, min), inside & (x >= min)
    raised = y
    if max is not None:
        y, inside = np.minimum(y, max), inside & (x <= max)
    return (
        y,
        lambda g: np.where(inside, g, 0),
        lambda g: np.where((x < min) & (raised == y), g, 0),
        lambda g: np.where(raised > max, g, 0),
    )


@op
def nan_to_num(x, *, nan=0.0, posinf=None, neginf=None):
    """x with NaN and the infinities replaced by numbers; the gradient there is 0.

    By default the infinities become the largest and the smallest number of the dtype.
    """
    y = np.nan_to_num(x, nan=nan, posinf=posinf, neginf=neginf)
    return y, lambda g: np.where(np.isfinite(x), g, 0)


# =================================================================================================
# Remainders: the quotient is a whole number, which is constant between its jumps
# =================================================================================================


@op
def remainder(x, y):
    """x - y * floor(x / y), which has the sign of y; Python's x % y."""
    return np.remainder(x, y), lambda g: g, lambda g: -g * np.floor_divide(x, y)


mod = remainder


@op
def fmod(x, y):
    """x - y * trunc(x / y), which has the sign of x; C's fmod."""
    z = np.fmod(x, y)
    return z, lambda g: g, lambda g: -g * np.rint((x - z) / y)


@op
def floor_divide(x, y):
    """floor(x / y), whose gradient is 0; Python's x // y."""
    return np.floor_divide(x, y), lambda g: None, lambda g: None


def divmod(x, y) -> tuple[Tensor, Tensor]:
    """`floor_divide` and `remainder`."""
    return floor_divide(x, y), remainder(x, y)


# =================================================================================================
# Steps: the gradient is 0 everywhere, also at the jumps
# =================================================================================================


@op
def sign(x):
    """-1, 0 or 1."""
    return np.sign(x), lambda g: None


@op(floats=True)
def heaviside(x, y):
    """0 where x < 0, 1 where x > 0, and y where x is 0."""
    return np.heaviside(x, y), lambda g: None, lambda g: np.where(x == 0, g, 0)


@op
def floor(x):
    return np.floor(x), lambda g: None


@op
def ceil(x):
    return np.ceil(x), lambda g: None


@op
def trunc(x):
    """x rounded towards 0."""
    return np.trunc(x), lambda g: None


fix = trunc


@op(floats=True)
def rint(x):
    """x rounded to the nearest whole number, and to the even one of two."""
    return np.rint(x), lambda g: None


@op
def round(x, *, decimals=0):
    """x rounded to the nearest number of so many decimals, and to the even one of two."""
    return np.round(x, decimals), lambda g: None


around = round


# =================================================================================================
# Interpolation
# =================================================================================================


def interp(x, xp, fp, left=None, right=None) -> Tensor:
    """At each x, the value of the polyline through the points (xp, fp), where xp increases.

    Beyond the points the value is `left` or `right`, by default the first or the last of fp.
    The gradient flows into x, xp and fp; at a point it is that of the piece to the right.
    Raises ValueError unless xp and fp are two rows of one length, of two points at least.

    >>> interp(2.5, [1.0, 2.0, 3.0], [3.0, 2.0, 0.0])
    tensor(1.)
    """
    x, xp, fp = as_tensors("interp", x, xp, fp)
    if xp.ndim != 1 or xp.shape != fp.shape or len(xp) < 2:
        raise ValueError(
            "interp takes xp and fp of one dimension, of the same length and of two points at "
            f"least, not of shapes {xp.shape} and {fp.shape}"
        )
    stop = np.clip(np.searchsorted(xp.data, x.data, side="right"), 1, len(xp) - 1)
    start = stop - 1
    slope = sub(fp[stop], fp[start]) / sub(xp[stop], xp[start])
    line = fp[start] + sub(clip(x, xp[0], xp[-1]), xp[start]) * slope
    line = where(x > xp[-1], fp[-1] if right is None else right, line)
    return where(x < xp[0], fp[0] if left is None else left, line)
