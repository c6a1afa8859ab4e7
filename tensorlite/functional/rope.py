"""Rotary positions: each pair of numbers in a query or key is turned by an angle of its place.

The product of a query and a key then depends on how far apart they stand, and not on where
(Su et al., 2021). The pairs are an element of the first half and the element of the second half at
the same place, as in Llama's published weights.
"""

from __future__ import annotations

import numpy as np

from ..op import op
from ..ops import concatenate


def rope_composed(x, cos, sin):
    half = x.shape[-1] // 2
    a, b = x[..., :half], x[..., half:]
    cos, sin = cos.astype(x.dtype), sin.astype(x.dtype)
    return concatenate([a * cos - b * sin, a * sin + b * cos], axis=-1)


@op(composed=rope_composed, fresh=True, gpu="rope")
def rope(x, *, cos, sin, needs):
    """Turn the pairs of x (..., T, D) by angles with these cosines and sines, (..., T, D / 2).

    `cos` and `sin` broadcast to half of x. Raises ValueError if D is odd or they do not fit.
    """
    half = x.shape[-1] // 2
    cos, sin = cos.astype(x.dtype), sin.astype(x.dtype)
    if x.shape[-1] % 2 or cos.shape != sin.shape or cos.shape[-1] != half:
        raise ValueError(
            f"rope: x is (..., T, D) with an even D, cos and sin (..., T, D / 2), not {x.shape}, "
            f"{cos.shape} and {sin.shape}"
        )

    def turn(x, sin):
        y = np.empty_like(x)
        a, b = x[..., :half], x[..., half:]
        np.multiply(a, cos, out=y[..., :half])
        np.multiply(a, sin, out=y[..., half:])
        y[..., :half] -= b * sin
        y[..., half:] += b * cos
        return y

    return turn(x, sin), lambda g: (turn(g, -sin),)
