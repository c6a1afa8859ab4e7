"""The log-probabilities that a model gives to tokens, and to whole answers."""

from __future__ import annotations

import numpy as np

import tensorlite as tl
from tensorlite import Tensor

from ..data import IGNORE
from ..model import GPT


def token_logprobs(model: GPT, x: np.ndarray, y: np.ndarray, rng=None) -> Tensor:
    """log p of each target y (B, T), in nats, after the ids x (B, T) up to it; 0 where y is IGNORE.

    Logits are computed only where a target counts. Gradients reach the model. Raises as the model
    does for ids that it does not know and texts longer than its context.
    """
    rows, places = np.nonzero(y != IGNORE)  # (n,) each
    hidden = model.hidden(x, rng)[rows, places]  # (B, T, C) -> (n, C)
    logits = model.logits(hidden)  # (n, C) @ (C, V) -> (n, V)
    logprobs = -tl.cross_entropy(logits, y[rows, places], reduction="none")  # (n,)
    place = np.zeros(y.shape, np.int64)  # (B, T): which of the n it is, one more: 0 is none
    place[rows, places] = np.arange(1, len(rows) + 1)
    return tl.concatenate([Tensor(np.zeros_like(logprobs.data, shape=1)), logprobs])[place]


def sequence_logprobs(model: GPT, x: np.ndarray, y: np.ndarray, rng=None) -> Tensor:
    """log p of all targets of each row together, (B,); the arguments are those of token_logprobs.

    >>> sequence_logprobs(model, x, y).shape  # doctest: +SKIP
    (8,)
    """
    return token_logprobs(model, x, y, rng).sum(axis=1)  # (B, T) -> (B,)
