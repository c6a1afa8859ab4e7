"""Functions of each element."""

from __future__ import annotations

import numpy as np

from ..op import op

__all__ = ["sin", "cos", "maximum", "minimum", "clip"]


@op(floats=True)
def sin(x):
    return np.sin(x), lambda g: g * np.cos(x)


@op(floats=True)
def cos(x):
    return np.cos(x), lambda g: -g * np.sin(x)


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
def clip(x, *, min=None, max=None):
    """x with elements below the number `min` or above `max` replaced by it (None: no bound).

    The gradient is 1 for elements between the bounds or equal to one, and 0 for others.
    """
    y, inside = x, x == x  # False for NaN
    if min is not None:
        y, inside = np.maximum(y, min), inside & (x >= min)
    if max is not None:
        y, inside = np.minimum(y, max), inside & (x <= max)
    return y, lambda g: np.where(inside, g, 0)
