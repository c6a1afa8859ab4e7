"""Launching draw.cu: the next token of each text, from the model's logits."""

from __future__ import annotations

import math

import numpy as np

from .launch import launch

MOST_IDS = 2**20


def draw(
    logits, state, bias=None, temperature=0.0, top_k=None, top_p=None, min_p=None, logprobs=None
) -> None:
    """Draw a token of each text, as `Sampling.draw` in gpt/generate/sampling.py.

    logits      (B, V) float32
    bias        float32 (n,), which is added; only the first n ids may be drawn; None: all
    state       where the texts stand, a `State`
    logprobs    (steps, B) float32, for the logarithms of the model's probabilities, or None

    The random number is `state.uniform` at `state.step`; token, tokens, step and slot are changed.
    """
    (B, V), n = logits.shape, len(bias) if bias is not None else logits.shape[1]
    filters = (
        float(temperature),
        min(top_k or n, n),
        np.float64(top_p or 1),
        float(min_p or 0),
    )
    s = state
    args = s.uniform, s.step, s.slot, s.size, s.token, s.tokens, logprobs
    launch("draw.cu", "draw", (B,), (1024,), (logits, bias, V, n, *filters, *args))


class State:
    """Where texts stand: all of it in the GPU's memory, where steps change it.

    begin, slot  int32 (B,), which positions of the cache a text has: from begin to before slot
    token        int32 (B,), the token at slot, which the model has not read
    step         int32 (B,), how many tokens were drawn
    uniform      uint64 (steps, B), random numbers, as fractions of 2^64
    tokens       int32 (steps, B), what was drawn; -1 where the logits were not finite
    size         how many positions the cache has
    """

    def __init__(self, empty, rows: int, steps: int, size: int):
        self.begin, self.slot, self.token, self.step = (empty((rows,), np.int32) for _ in range(4))
        self.uniform, self.tokens = empty((steps, rows), np.uint64), empty((steps, rows), np.int32)
        self.size = size


def fractions(uniform: list[float]) -> np.ndarray:
    """Numbers from 0 to below 1, as NumPy's generators draw them, as fractions of 2^64."""
    return np.array([int(math.ldexp(u, 64)) for u in uniform], np.uint64)
