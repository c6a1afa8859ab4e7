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
    `weights` (n,) is what each counts in the mean loss of a step, 1 by default; `widths` (n,) how
    long the longest text of each is, `lengths` by default.
    """

    def __init__(self, settings: Tuning, lengths: Sequence[int], weights=None, widths=None):
        if not len(lengths):
            raise ValueError("there is no example to train on")
        self.settings, self.lengths = settings, np.asarray(lengths)
        self.weights = np.ones(len(lengths), int) if weights is None else np.asarray(weights)
        self.widths = self.lengths if widths is None else np.asarray(widths)
        self.examples_per_step = settings.batch_size * settings.gradient_accumulation_steps
        self.steps_per_epoch = -(-len(lengths) // self.examples_per_step)
        self.tokens_per_example = max(1, round(float(self.lengths.mean())))

    def batch(self, step: int, model=None, team: Team = ALONE) -> Batch:
        """The rows of this step's training examples, the shortest first, and a width, (B,) each.

        The width is that of the longest text. The masks of dropout depend on the length that texts
        are padded to, which is therefore the same for all parts of a step.
        """
        epoch, i = divmod(step, self.steps_per_epoch)
        rows = self.batches_of(epoch)[i]
        rows = rows[np.argsort(self.lengths[rows], kind="stable")]
        width = np.full(len(rows), self.widths[rows].max())
        return Batch(rows, width, weights=self.weights[rows])

    @functools.lru_cache(maxsize=2)  # noqa: B019 - a run has one task
    def batches_of(self, epoch: int) -> list[np.ndarray]:
        return epoch_batches(self.lengths, self.examples_per_step, self.settings.seed, epoch)

    def final(self, model, team: Team = ALONE) -> dict:
        """What is measured once, at the end of the run, on the test examples."""
        return {}

    def report(self, run, model, tokenizer) -> None:
        """What rank 0 prints and draws at the end, beside the figures of `final`."""


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
