"""The softmax of causal attention's scores on a GPU, for attention by products in float32."""

from __future__ import annotations

import math

import numpy as np

from .launch import ceil_div, empty, launch


def causal_softmax(scores, scale: float, keep=None, dropout_p: float = 0.0):
    """The weights of the values: softmax(scale * scores) over the keys that each query sees.

    scores (..., T, S) are contiguous and float32; query q sees the first q + 1 + S - T keys, and
    S >= T. The scores become the probabilities, in place; the keys that are not seen have 0. With
    `keep`, booleans of the shape of scores, the probabilities stay as they are, and a new array has
    those that are kept, divided by 1 - dropout_p.
    """
    weights = scores if keep is None else empty(scores.shape, np.float32)
    dropped = None if keep is None else weights
    _launch("causal_softmax", (scores, dropped), keep, scale, dropout_p)
    return weights


def causal_softmax_backward(p, g, scale: float, keep=None, dropout_p: float = 0.0):
    """`g`, the gradient of the weights, becomes that of the scores, in place; it is returned.

    p (..., T, S) are the probabilities that `causal_softmax` left in its scores; `scale`, `keep`
    and `dropout_p` are those that it was given.
    """
    _launch("causal_softmax_backward", (p, g), keep, scale, dropout_p)
    return g


def _launch(kernel: str, arrays: tuple, keep, scale: float, dropout_p: float) -> None:
    *before, T, S = arrays[0].shape
    rows = math.prod(before) * T
    keep_scale = np.float32(1 / (1 - dropout_p))
    args = *arrays, keep, float(scale), keep_scale, np.int64(rows), T, S
    launch("softmax.cu", kernel, (ceil_div(rows, 8),), (32, 8), args)
