"""The error function and related functions, which NumPy does not have."""

from __future__ import annotations

import builtins
import math

import numpy as np

from .op import op
from .ops import exp
from .tensor import Tensor


@op(floats=True)
def erf(x):
    """The error function, accurate to 1e-15 in float64."""
    return _erf(x), lambda g: g * (exp_minus_square(x) * (2 / math.sqrt(math.pi)))


def _erf(x):
    """The power series for |x| < 0.5, and 1 - exp(-x^2) erfcx(|x|), with the sign of x, above."""
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

    The relative error of exp is the absolute error of its argument, so rounding x * x = 700 would
    cost nine bits of the result. To avoid that, x^2 is split into h^2 + (x - h) (x + h), where h is
    x rounded to so few bits that h^2 is exact.
    """
    if isinstance(x, Tensor):
        return exp(x * x * -factor)
    x = np.clip(x, -50, 50)  # the result is 0 outside this range
    h = np.rint(x * 16) / 16
    return np.exp((x - h) * (x + h) * -factor) * np.exp(h * h * -factor)


def erfcx(x):
    """exp(x^2) (1 - erf(x)) for x from 0 to 50: it falls from 1, and for large x like 1 / x.

    (1 + 2 x) erfcx(x) is nearly constant. It is computed by a short Chebyshev series in
    u = (x - 4) / (x + 4), which goes from -1 to 1 (Shepherd and Laframboise, 1981).
    """
    x = np.minimum(x, 50)  # larger x do not matter: exp(-x^2), the other factor, is 0 there
    u = (x - 4) / (x + 4)
    later, last = np.zeros_like(x), np.zeros_like(x)
    first, *others = (c for c in ERFCX if builtins.abs(c) > np.finfo(x.dtype).eps / 8)
    for c in reversed(others):  # Clenshaw's recurrence
        later, last = last, 2 * u * last - later + c
    return (u * last - later + first) / (1 + 2 * x)


# The coefficients of the series, computed with 40 digits; tests/test_accuracy.py recomputes them.
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
