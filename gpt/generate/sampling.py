"""One token: from the model's logits to an id that is drawn.

The filters are small pure functions on the logits of one position, (V,). `Sampling` says which of
them apply, in the usual order: bias and penalties, temperature, top-k, top-p, min-p. What it does
is done in float64, so that the probabilities of many thousand ids add up.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Sampling:
    """How a token is chosen. Raises ValueError for numbers out of range.

    temperature          below 1 makes likely tokens likelier; 0 always takes the likeliest
    top_k, top_p         draw from the k likeliest tokens, from those that together reach
                         probability p (Holtzman et al., 2019)
    min_p                draw from tokens that are at least min_p times as likely as the likeliest
    repetition_penalty   above 1 makes tokens less likely that the text holds (Keskar et al., 2019)
    presence_penalty     what is subtracted from the logits of tokens that were generated before
    frequency_penalty    the same for each time that they were generated
    logit_bias           id -> what is added to its logit
    """

    temperature: float = 0.8
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)

    def __post_init__(self):
        k, p, m = self.top_k, self.top_p, self.min_p
        for name, fine, expected in (
            ("temperature", 0 <= self.temperature < math.inf, "a number, 0 or more"),
            ("top_k", k is None or k >= 1, "at least 1"),
            ("top_p", p is None or 0 < p <= 1, "above 0 and at most 1"),
            ("min_p", m is None or 0 < m <= 1, "above 0 and at most 1"),
            ("repetition_penalty", 0 < self.repetition_penalty < math.inf, "above 0"),
            ("presence_penalty", math.isfinite(self.presence_penalty), "a number"),
            ("frequency_penalty", math.isfinite(self.frequency_penalty), "a number"),
            ("logit_bias", not any(map(math.isnan, self.logit_bias.values())), "numbers"),
        ):
            if not fine:
                raise ValueError(f"{name} is {expected}, not {getattr(self, name)}")

    def logits(self, logits: np.ndarray, text: Sequence[int] = (), begin: int = 0) -> np.ndarray:
        """Logits (V,) in float64, with bias and penalties for `text`, generated from `begin` on."""
        logits = logits.astype(np.float64)
        for i, bias in self.logit_bias.items():
            if not 0 <= i < len(logits):
                raise ValueError(f"logit_bias has id {i}; the model knows 0 to {len(logits) - 1}")
            logits[i] += bias
        if self.repetition_penalty != 1.0:
            logits = penalise(logits, text, self.repetition_penalty)
        if self.presence_penalty or self.frequency_penalty:
            ids, counts = np.unique(np.asarray(text[begin:], np.int64), return_counts=True)
            logits[ids] -= self.presence_penalty + self.frequency_penalty * counts
        return logits

    def choices(self, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The ids that may be drawn, ascending, and their probabilities, from float64 logits (V,).

        Every filter keeps the likeliest id.
        """
        largest = logits.max()
        if not math.isfinite(largest):
            raise FloatingPointError(f"the largest logit is {largest}: no token can be drawn")
        if self.temperature == 0:
            return np.array([np.argmax(logits)]), np.ones(1)
        ids = np.arange(len(logits))
        if self.top_k is not None:
            ids = top_k_ids(logits, self.top_k)
            logits = logits[ids]
        p = np.exp((logits - largest) / self.temperature)
        if self.top_p is not None:
            kept = top_p_ids(p, self.top_p)
            ids, p = ids[kept], p[kept]
        if self.min_p is not None:
            kept = p >= self.min_p * p.max()
            ids, p = ids[kept], p[kept]
        return ids, p / p.sum()

    def draw(self, logits: np.ndarray, u: float) -> int:
        """The id at place u, 0 <= u < 1, of the probabilities that `choices` gives."""
        ids, p = self.choices(logits)
        cumulative = np.cumsum(p)
        return int(ids[np.searchsorted(cumulative, u * cumulative[-1], side="right")])


def penalise(logits, seen, penalty):
    """Make ids that were seen less likely (Keskar et al., 2019)."""
    ids = np.unique(np.asarray(seen, dtype=np.int64))
    logits = logits.copy()
    logits[ids] = np.where(logits[ids] > 0, logits[ids] / penalty, logits[ids] * penalty)
    return logits


def top_k_ids(logits, k):
    """The k likeliest ids, ascending; of equally likely ones, the first."""
    if k >= len(logits):
        return np.arange(len(logits))
    least = np.partition(logits, -k)[-k]  # the k-th largest
    above = np.flatnonzero(logits > least)
    equal = np.flatnonzero(logits == least)[: k - len(above)]
    return np.union1d(above, equal)


def top_p_ids(p, top_p):
    """The places, ascending, of the likeliest that together reach top_p of all of p."""
    total, n = p.sum(), 1024
    while True:  # what the likeliest thousand do not reach, the likeliest of all do
        order = top_k_ids(p, n)
        order = order[np.argsort(-p[order], kind="stable")]
        before = np.cumsum(p[order]) - p[order]
        if n >= len(p) or before[-1] >= top_p * total:
            return np.sort(order[before < top_p * total])
        n = len(p)
