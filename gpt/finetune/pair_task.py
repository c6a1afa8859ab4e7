"""The task of telling apart the two answers of a pair: what reward.py and dpo.py have in common."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
from tqdm import tqdm

import tensorlite as tl
from tensorlite import Tensor
from tensorlite.device import RowRandom
from tensorlite.parallel import ALONE, Team

from ..generate import evaluating
from ..training.task import Batch
from .conversations import ChatTuning, Text
from .epochs import EpochTask, portions, with_error


def log_sigmoid(x: Tensor) -> Tensor:
    """log(1 / (1 + exp(-x))), element by element, exact for large x of either sign."""
    return -tl.logsumexp(tl.stack([Tensor(np.zeros_like(x.data)), -x]), axis=0)


class PairTask(EpochTask, ABC):
    """To tell apart the two answers of a pair, by one number that the model gives to each.

    `texts` (2 n) are those of n pairs, the chosen one of pair i being number 2 i, and the rejected
    one 2 i + 1; `parts` are the numbers of the pairs to train, to validate and to test. A subclass
    has `outputs` and `figures`, and, unless its `loss` is its own, `losses(pairs, chosen,
    rejected)`: the loss of each pair (B,) from the outputs of both of its answers, (B,) each.
    """

    def __init__(self, settings: ChatTuning, texts: Sequence[Text], parts: Sequence[np.ndarray]):
        self.texts, (self.train, self.val, self.test) = texts, parts
        self.sizes = np.array([len(ids) for ids, _ in texts])  # (2 n,)
        super().__init__(settings, self.sizes.reshape(-1, 2).sum(axis=1)[self.train])

    def width(self, rows: np.ndarray) -> int:
        sizes = self.sizes[both(self.train[rows])]
        return int(sizes.max()) if self.settings.dropout else 0

    @abstractmethod
    def outputs(
        self, model, texts: np.ndarray, rng: RowRandom | None = None, width: int = 0
    ) -> Tensor:
        """What the model gives to the texts of these numbers (B,): one number each, (B,)."""

    @abstractmethod
    def figures(self, pairs: np.ndarray, chosen: Tensor, rejected: Tensor) -> dict[str, float]:
        """What is measured of all of these pairs together: `loss`, then others."""

    def loss(self, model, examples: Batch, rng: RowRandom | None = None) -> Tensor:
        rows, width = examples.arrays
        pairs, B = self.train[rows], len(rows)
        out = self.outputs(model, both(pairs), rng and of_both(rng), width[0])  # (2 B,)
        return tl.mean(self.losses(pairs, out[:B], out[B:])) * examples.share

    def evaluate(self, model, team: Team = ALONE) -> dict[str, float]:
        return self.measured_on("val", model, self.val, team)

    def final(self, model, team: Team = ALONE) -> dict[str, float]:
        return self.measured_on("test", model, self.test, team) if len(self.test) else {}

    def measured_on(self, name: str, model, pairs: np.ndarray, team: Team) -> dict[str, float]:
        out = tl.tensor(self.measure(model, both(pairs), team))  # (2 n,)
        figures = self.figures(pairs, out[: len(pairs)], out[len(pairs) :])
        return {f"{name}_{figure}": float(value) for figure, value in figures.items()}

    def measure(self, model, texts: np.ndarray, team: Team = ALONE, title: str = "") -> np.ndarray:
        """The outputs of texts (n,), without dropout: (n,) float32, on every rank.

        Each rank takes its share. What is computed together depends on the texts and the number of
        ranks alone, so that the same model gives the same numbers, bit for bit.
        """
        out = np.zeros(len(texts))
        hidden = None if title and team.rank == 0 else True  # None: shown in a terminal
        parts = tqdm(portions(self.sizes[texts], team), title, leave=False, disable=hidden, delay=2)
        with evaluating(model), tl.no_grad():
            for rows in parts:
                out[rows] = self.outputs(model, texts[rows]).numpy()
        return team.sum(out).astype(np.float32)


def both(pairs: np.ndarray) -> np.ndarray:
    """The numbers of the texts of pairs (B,): all chosen ones, then all rejected ones, (2 B,)."""
    return np.concatenate([2 * pairs, 2 * pairs + 1])


def of_both(rng: RowRandom) -> RowRandom:
    """The random numbers of both texts of each pair: every text is a row of its own."""
    rng = copy.copy(rng)
    rng.rows = both(np.asarray(rng.rows))
    return rng


def beside(x: Tensor, values) -> np.ndarray:
    """The values as an array of the type, and on the device, of x."""
    return np.asarray(values, x.dtype, like=x.data)


def compare(chosen: Tensor, rejected: Tensor) -> dict[str, float]:
    """How often the chosen one has more, equals counted as half, and how much more on average.

    Each with its standard error.
    """
    c, r = chosen.numpy(), rejected.numpy()
    return with_error("accuracy", (c > r) + 0.5 * (c == r)) | with_error("margin", c - r)
