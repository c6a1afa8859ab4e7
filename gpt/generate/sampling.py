"""One token: from the model's logits to an id that is drawn.

The filters are small pure functions on the logits of one position, (V,); `next_token` applies them
in the usual order: repetition penalty, temperature, top-k, top-p, min-p.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def next_token(
    logits: np.ndarray,
    rng: np.random.Generator,
    temperature: float = 0.8,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    repetition_penalty: float = 1.0,
    seen: Sequence[int] = (),
) -> int:
    """Draw an id from logits (V,). Temperature 0 takes the likeliest and draws nothing.

    Every filter keeps the likeliest id. `seen` are the ids that the penalty makes less likely.
    """
    logits = logits.astype(np.float64)
    if repetition_penalty != 1.0:
        logits = penalise(logits, seen, repetition_penalty)
    if temperature == 0:
        return int(np.argmax(logits))
    logits = (logits - logits.max()) / temperature
    if top_k is not None:
        logits = keep_top_k(logits, top_k)
    if top_p is not None:
        logits = keep_top_p(logits, top_p)
    if min_p is not None:
        logits = np.where(logits >= logits.max() + math.log(min_p), logits, -np.inf)
    cumulative = np.cumsum(np.exp(logits))
    return int(np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right"))


def penalise(logits, seen, penalty):
    """Make ids that were seen less likely (Keskar et al., 2019)."""
    ids = np.unique(np.asarray(seen, dtype=np.int64))
    logits = logits.copy()
    logits[ids] = np.where(logits[ids] > 0, logits[ids] / penalty, logits[ids] * penalty)
    return logits


def keep_top_k(logits, k):
    """Only the k likeliest ids."""
    if k >= len(logits):
        return logits
    kept = np.full_like(logits, -np.inf)
    best = np.argsort(-logits, kind="stable")[:k]
    kept[best] = logits[best]
    return kept


def keep_top_p(logits, p):
    """Only the likeliest ids that together reach probability p (Holtzman et al., 2019)."""
    order = np.argsort(-logits, kind="stable")
    probabilities = np.exp(logits[order])
    before = np.cumsum(probabilities) - probabilities
    best = order[before < p * probabilities.sum()]
    kept = np.full_like(logits, -np.inf)
    kept[best] = logits[best]
    return kept
