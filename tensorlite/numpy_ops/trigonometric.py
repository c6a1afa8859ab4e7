"""Trigonometric and hyperbolic functions, their inverses, and degrees."""

from __future__ import annotations

import math

import numpy as np

from ..op import op
from ..ops import mul
from ..tensor import Tensor

__all__ = ["sin", "cos", "tan", "arcsin", "arccos", "arctan", "arctan2"]
__all__ += ["sinh", "cosh", "arcsinh", "arccosh", "arctanh", "sinc"]
__all__ += ["deg2rad", "radians", "rad2deg", "degrees"]


@op(floats=True)
def sin(x):
    return np.sin(x), lambda g: g * np.cos(x)


@op(floats=True)
def cos(x):
    return np.cos(x), lambda g: -g * np.sin(x)


@op(floats=True)
def tan(x):
    y = np.tan(x)
    return y, lambda g: g * (1 + y * y)


@op(floats=True)
def arcsin(x):
    """The inverse of sin; the gradient is infinite at -1 and 1."""
    return np.arcsin(x), lambda g: g / np.sqrt((1 - x) * (1 + x))  # 1 - x * x would lose digits


@op(floats=True)
def arccos(x):
    """The inverse of cos; the gradient is infinite at -1 and 1."""
    return np.arccos(x), lambda g: -g / np.sqrt((1 - x) * (1 + x))


@op(floats=True)
def arctan(x):
    return np.arctan(x), lambda g: g / (1 + x * x)


@op(floats=True)
def arctan2(y, x):
    """The angle of the point (x, y), from -pi to pi; the gradient at the origin is 0."""
    r = np.hypot(x, y)  # x * x + y * y would overflow
    r = np.where(r == 0, 1, r)
    return np.arctan2(y, x), lambda g: g * (x / r / r), lambda g: -g * (y / r / r)


@op(floats=True)
def sinh(x):
    return np.sinh(x), lambda g: g * np.cosh(x)


@op(floats=True)
def cosh(x):
    return np.cosh(x), lambda g: g * np.sinh(x)


@op(floats=True)
def arcsinh(x):
    return np.arcsinh(x), lambda g: g / np.hypot(1.0, x)


@op(floats=True)
def arccosh(x):
    """The inverse of cosh, for x >= 1; the gradient is infinite at 1."""
    return np.arccosh(x), lambda g: g / (np.sqrt(x - 1) * np.sqrt(x + 1))


@op(floats=True)
def arctanh(x):
    """The inverse of tanh; the value and the gradient are infinite at -1 and 1."""
    return np.arctanh(x), lambda g: g / ((1 - x) * (1 + x))


@op(floats=True)
def sinc(x):
    """sin(pi x) / (pi x), and 1 at 0."""
    t = math.pi * x
    other = np.where(t == 0, 1, t)
    return np.where(t == 0, 1, np.sin(other) / other), lambda g: g * _sinc_slope(t)


def _sinc_slope(t):
    """The derivative of sinc, pi (cos(t) - sin(t) / t) / t with t = pi x.

    Where |t| < 1, the difference would lose its digits, so there its Taylor series is used:
    -t / 3 (1 - t^2 / (2 * 5) (1 - t^2 / (4 * 7) (1 - t^2 / (6 * 9) (1 - ...)))).
    """
    small = np.abs(t) < 1
    near, far = np.where(small, t, 0), np.where(small, 1, t)
    series = 1.0
    for k in range(16, 0, -2):  # so many terms that float64 has no digits beyond them
        series = 1 - series * near * near / (k * (k + 3))
    slope = np.where(small, -near / 3 * series, (np.cos(far) - np.sin(far) / far) / far)
    return math.pi * slope


# =================================================================================================
# Degrees
# =================================================================================================


def deg2rad(x) -> Tensor:
    """Angles in degrees as radians."""
    return mul(x, math.pi / 180)


def rad2deg(x) -> Tensor:
    """Angles in radians as degrees."""
    return mul(x, 180 / math.pi)


radians, degrees = deg2rad, rad2deg
