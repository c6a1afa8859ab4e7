"""Rotary positions: what rope.cu computes."""

from __future__ import annotations

import numpy as np

from .launch import c_type, ceil_div, contiguous, empty, has_c_type, launch, vector


def rope(x, *, cos, sin, needs):
    """The body of `rope`: x (..., T, D) and angles for all of it, (T, D / 2), or (B, 1, T, D / 2).

    NotImplemented for angles of other shapes, or that are not float32.
    """
    half = x.shape[-1] // 2 if x.ndim > 1 else 0
    ours = has_c_type(x) and cos.dtype == sin.dtype == np.float32 and x.shape[-1] == 2 * half > 0
    if not ours or cos.shape != sin.shape or not _angles_fit(x.shape, cos.shape, half):
        return NotImplemented
    cos, sin = contiguous(cos), contiguous(sin)
    return _turn(x, cos, sin, 1.0), lambda g: (_turn(g, cos, sin, -1.0),)


def _angles_fit(shape: tuple, angles: tuple, half: int) -> bool:
    if angles == (shape[-2], half):
        return True
    return len(shape) == 4 and angles == (shape[0], 1, shape[2], half)


def _turn(x, cos, sin, direction: float):
    """Every pair of x, turned by its angle times `direction`: a new array in C order."""
    y = empty(x.shape, x.dtype)
    if x.ndim != 4:
        x = contiguous(x).reshape(1, -1, *x.shape[-2:])
    elif x.strides[-1] != x.itemsize:
        x = contiguous(x)
    _, heads, T, D = x.shape
    strides = [s // x.itemsize for s in x.strides[:3]]
    V = vector(D // 2, x, y, cos, sin)
    V = 1 if any(s % V for s in strides) else V
    count = x.size // (2 * V)
    args = x, cos, sin, y, np.int64(count), heads, T, D // 2
    args += (*map(np.int64, strides), np.int64(0 if cos.ndim == 2 else T * D // 2), direction)
    launch("rope.cu", f"rope<{c_type(x.dtype)}, {V}>", (ceil_div(count, 256),), (256,), args)
    return y
