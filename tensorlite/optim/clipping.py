"""Gradient clipping."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ..tensor import Tensor
from ..writing import check_writeable


def clip_grad_norm(params: Iterable[Tensor], max_norm: float):
    """Scale all gradients in place so that their norm, taken together, is at most `max_norm`.

    A tensor that is given twice counts once. Returns the norm before scaling, a scalar on the
    device of the gradients. Raises TypeError for what is not a tensor, and ValueError if no
    parameter has a gradient, if `max_norm` is negative, or if a graph that is still alive needs a
    gradient; then nothing is changed. Pascanu et al., 2013.
    """
    params = list(dict.fromkeys(params))
    if wrong := [p for p in params if not isinstance(p, Tensor)]:
        raise TypeError(
            f"clip_grad_norm takes tensors, not an object of type {type(wrong[0]).__name__}"
        )
    norm = np.sqrt(sum_of_squares(params))
    scale = np.minimum(limit(max_norm) / (norm + 1e-6), 1)
    grads = {p.grad: p for p in params if p.grad is not None}  # two parameters may share a gradient
    for g in grads:
        check_writeable("a gradient", g.data)
    for g in grads:
        g.data *= scale
    return norm


def limit(max_norm: float) -> float:
    if not max_norm >= 0:
        raise ValueError(f"max_norm is {max_norm!r}; it must be at least 0")
    return max_norm


def sum_of_squares(params: Iterable[Tensor]):
    """The sum of squares of all gradients, a 0-d array; float16 is summed in float32."""
    grads = [p.grad.data for p in params if p.grad is not None]
    if not grads:
        raise ValueError("no parameter has a gradient: call backward first")
    wide = [g.astype(np.float32) if g.dtype == np.float16 else g for g in grads]
    return np.asarray(np.sum(np.stack([np.vdot(g, g) for g in wide])), like=grads[0])
