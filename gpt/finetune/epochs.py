"""The batches of a task that goes over a fixed set of examples, epoch after epoch."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

from tensorlite.parallel import ALONE, Team

from ..data import epoch_batches
from ..evaluate import AT_A_TIME
from ..training.task import Batch
from .settings import Tuning


class EpochTask:
    """A task over n training examples: a subclass adds `loss`, `evaluate`, `final` and `report`.

    `lengths` (n,) are the tokens of each example; examples of similar length come together.
    `weights` (n,) is what each counts in the mean loss of a step, 1 by default.
    """

    def __init__(self, settings: Tuning, lengths: Sequence[int], weights=None):
        if not len(lengths):
            raise ValueError("there is no example to train on")
        self.settings, self.lengths = settings, np.asarray(lengths)
        self.weights = np.ones(len(lengths), int) if weights is None else np.asarray(weights)
        self.examples_per_step = settings.batch_size * settings.gradient_accumulation_steps
        self.steps_per_epoch = -(-len(lengths) // self.examples_per_step)
        self.tokens_per_example = max(1, round(float(self.lengths.mean())))

    def batch(self, step: int, model=None, team: Team = ALONE) -> Batch:
        """Rows of training examples, (B,), the shortest first, and their `width`, (B,)."""
        epoch, i = divmod(step, self.steps_per_epoch)
        rows = self.batches_of(epoch)[i]
        rows = rows[np.argsort(self.lengths[rows], kind="stable")]
        return Batch(rows, np.full(len(rows), self.width(rows)), weights=self.weights[rows])

    def width(self, rows: np.ndarray) -> int:
        """The length that the texts of a step are padded to, at least.

        Masks of dropout depend on it. So that they are the same however a step is divided, all
        texts of the step are then as long as its longest.
        """
        return int(self.lengths[rows].max()) if self.settings.dropout else 0

    @functools.lru_cache(maxsize=2)  # noqa: B019 - a run has one task
    def batches_of(self, epoch: int) -> list[np.ndarray]:
        return epoch_batches(self.lengths, self.examples_per_step, self.settings.seed, epoch)

    def final(self, model, team: Team = ALONE) -> dict:
        """What is measured once, at the end of the run, on the test examples."""
        return {}

    def report(self, run, model, tokenizer) -> None:
        """What rank 0 prints and draws at the end, beside the figures of `final`."""


def with_error(name: str, values: Sequence[float] | np.ndarray) -> dict[str, float]:
    """The mean of n values, by this name, and its standard error.

    >>> with_error("accuracy", [1, 0, 1, 1])
    {'accuracy': 0.75, 'accuracy_error': 0.216...}
    """
    values = np.asarray(values, np.float64)
    error = np.std(values) / np.sqrt(len(values))
    return {name: float(np.mean(values)), f"{name}_error": float(error)}


def portions(lengths: Sequence[int], team: Team = ALONE) -> list[np.ndarray]:
    """Rows of examples that this rank measures, some at a time: arrays of rows, (n,) each.

    The rows are sorted by length, and those that are measured together have about AT_A_TIME tokens.
    """
    lengths = np.asarray(lengths)
    order, parts, first = np.argsort(lengths, kind="stable"), [], 0
    while first < len(order):
        n = max(1, AT_A_TIME // max(1, int(lengths[order[first]])))
        while n > 1 and n * lengths[order[min(first + n, len(order)) - 1]] > 2 * AT_A_TIME:
            n //= 2
        parts.append(order[first : first + n])
        first += n
    return parts[team.rank :: team.size]
