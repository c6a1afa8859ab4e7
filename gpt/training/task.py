"""What a task is: all that one objective needs beyond the loop, which is the same for every one.

Objectives differ in three things: which examples a step has, what the loss of some of them is, and
what is measured. `pretrain.py` is the first task. A new one is a class with these three methods,
in a file of its own; the loop in `loop.py` calls them, and resuming, workers, metrics, checkpoints
and signals come with it.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from tensorlite import Tensor
from tensorlite.device import RowRandom
from tensorlite.parallel import Team


class Batch:
    """Examples of one step: arrays with a row for each example.

    `weights` (n,) is how much each example counts in the mean loss of the step, such as the number
    of its tokens that the loss counts; 1 by default. A slice of a batch holds some of its rows, and
    still knows `whole`, the weight of the whole step.

    >>> batch = Batch(np.arange(8), np.zeros((8, 3)))
    >>> part = batch[6:]
    >>> part.arrays[0], len(part), part.whole, part.share
    (array([6, 7]), 2, 8, 0.25)
    """

    def __init__(self, *arrays: np.ndarray, weights=None, whole: float | None = None):
        self.arrays = arrays
        self.weights = np.ones(len(arrays[0]), int) if weights is None else np.asarray(weights)
        self.whole = self.weights.sum().item() if whole is None else whole

    def __len__(self) -> int:
        return len(self.arrays[0])

    def __getitem__(self, rows: slice | np.ndarray) -> Batch:
        arrays = (array[rows] for array in self.arrays)
        return Batch(*arrays, weights=self.weights[rows], whole=self.whole)

    @property
    def share(self) -> float:
        """How much of the whole step these examples are: the weight of their mean loss."""
        return self.weights.sum().item() / self.whole


class Task(Protocol):
    """One objective. `model` may be any module that has `save_pretrained` and `from_pretrained`."""

    tokens_per_example: int  # for the speed that is shown, and for how many are computed together

    def batch(self, step: int, model: Any, team: Team) -> Batch:
        """The examples of step number `step`.

        They depend on `step` and the settings (a key for `device.random`), so that all ranks get
        the same ones, and a resumed run gets those of the uninterrupted one. Examples of weight 0
        are left out of the step; one in which nothing counts is skipped, and changes nothing.
        """

    def loss(self, model: Any, examples: Batch, rng: RowRandom | None) -> Tensor:
        """The part of some examples in the mean loss of the whole step, a 0-d tensor.

        The parts of all examples add up to the loss of the step. `rng` gives the random numbers of
        dropout, None without dropout.
        """

    def evaluate(self, model: Any, team: Team) -> dict[str, float]:
        """What is measured on held-out examples: `val_loss`, then whatever else there is.

        The model with the lowest `val_loss` is kept in best/. All ranks of the team call this, may
        divide the work, and return the same numbers.
        """


class FixedTask(Task, Protocol):
    """A task whose batches all have arrays of one shape, so that a GPU can replay its step."""

    def arrays(self, examples: Batch) -> tuple[np.ndarray, np.ndarray]:
        """What the model reads of some examples, and what it is to predict: NumPy arrays."""

    def loss_of(self, model: Any, x, y, rng: RowRandom | None) -> Tensor:
        """The mean loss of the examples with these arrays, a 0-d tensor."""
