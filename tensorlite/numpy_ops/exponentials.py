"""Exponentials and logarithms beside exp and log of ops.py: other bases, and small arguments."""

from __future__ import annotations

import math

import numpy as np

from ..op import op
from ..ops import sigmoid

__all__ = ["exp2", "expm1", "log2", "log10", "log1p", "logaddexp", "logaddexp2"]

LN2, LN10 = math.log(2), math.log(10)


@op(floats=True)
def exp2(x):
    y = np.exp2(x)
    return y, lambda g: g * (y * LN2)


@op(floats=True)
def expm1(x):
    """exp(x) - 1, exact also where x is nearly 0."""
    return np.expm1(x), lambda g: g * np.exp(x)


@op(floats=True)
def log2(x):
    return np.log2(x), lambda g: g / x / LN2


@op(floats=True)
def log10(x):
    return np.log10(x), lambda g: g / x / LN10


@op(floats=True)
def log1p(x):
    """log(1 + x), exact also where x is nearly 0."""
    return np.log1p(x), lambda g: g / (1 + x)


@op(floats=True)
def logaddexp(x, y):
    """log(exp(x) + exp(y)) without overflow; equal infinities share the gradient equally."""
    z = np.logaddexp(x, y)
    dtype = z.dtype
    return (
        z,
        lambda g: g * sigmoid.body(_difference(x, y, dtype))[0],
        lambda g: g * sigmoid.body(_difference(y, x, dtype))[0],
    )


@op(floats=True)
def logaddexp2(x, y):
    """log2(2**x + 2**y) without overflow; equal infinities share the gradient equally."""
    z = np.logaddexp2(x, y)
    dtype = z.dtype
    return (
        z,
        lambda g: g * sigmoid.body(_difference(x, y, dtype) * LN2)[0],
        lambda g: g * sigmoid.body(_difference(y, x, dtype) * LN2)[0],
    )


def _difference(x, y, dtype):
    """x - y, and 0 where both are the same infinity."""
    same = (x == y) & np.isinf(x)
    return (np.where(same, 0, x) - np.where(same, 0, y)).astype(dtype)
