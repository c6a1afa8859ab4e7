"""Dropout. The random numbers are drawn outside the operation `drop`, which is deterministic."""

from __future__ import annotations

import numpy as np

from ..device import RowRandom
from ..op import op
from ..tensor import Tensor, tensor


def dropout(x, p: float, rng) -> Tensor:
    """Zero each element with probability p and scale the others by 1 / (1 - p).

    `rng` is a NumPy Generator, another object with its method `random(size, dtype)`, or None for a
    fresh Generator. The numbers are drawn here and not in the operation, so that the operation
    depends on its arguments alone. Raises ValueError unless 0 <= p < 1. Srivastava et al., 2014.
    """
    x = x if isinstance(x, Tensor) else tensor(x)
    return drop(x, keep=draw_keep(x.shape, p, rng, x.data), p=p) if p else x


def draw_keep(shape, p, rng, like):
    if not 0 <= p < 1:
        raise ValueError(f"dropout takes 0 <= p < 1, not {p}")
    if isinstance(rng, RowRandom):
        return rng.keep(shape, p, like)
    rng = np.random.default_rng() if rng is None else rng
    return np.asarray(rng.random(shape, dtype=np.float32) >= p, like=like)


def drop_composed(x, keep, p):
    return x * (keep / (1 - p)).astype(x.dtype)


@op(composed=drop_composed, gpu="elementwise")
def drop(x, *, keep, p):
    """x / (1 - p) where the boolean array `keep` is True, and x times 0 elsewhere."""

    def apply(x):
        y = x * (1 / (1 - p))
        y *= keep
        return y

    return apply(x), apply
