"""How many examples of each step come from each source, when their weights change with the step.

Examples are whole, and shares of them are not: what is left of a share is carried to the next step,
so that after any number of steps each source has had what its weights say, to within one or two
examples. Everything is computed in whole numbers, block after block of steps, with a state of a few
numbers: the same on every machine, and a run that is resumed finds its place in milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

BLOCK = 4096  # steps that are computed together
ONE = 2**24  # a share of 1: shares are whole multiples of its inverse
MOST = 2**24  # examples of a step: ONE * MOST * BLOCK fits into an int64


class Apportionment:
    """The counts of S sources in steps of `examples` examples each.

    `weights(steps)` gives the weights (n, S) of n steps (n,), which need not add up to 1. `limits`
    has the examples that each source can give, None for no limit: a source that lacks some for a
    step gives nothing from that step on, and the others divide its share.

    >>> plan = Apportionment(lambda steps: np.full((len(steps), 2), [0.75, 0.25]), [None, 2], 2)
    >>> [plan.counts(step).tolist() for step in range(8)]
    [[1, 1], [2, 0], [1, 1], [2, 0], [2, 0], [2, 0], [2, 0], [2, 0]]
    """

    def __init__(
        self,
        weights: Callable[[np.ndarray], np.ndarray],
        limits: Sequence[int | None],
        examples: int,
    ):
        if not 0 < examples <= MOST:
            raise ValueError(f"a step has 1 to {MOST:,} examples, not {examples:,}")
        self.weights, self.examples = weights, examples
        self.limits = np.array([np.iinfo(np.int64).max if n is None else n for n in limits])
        self._begin()

    def _begin(self) -> None:
        """Go to an empty block before step 0."""
        S = len(self.limits)
        self.first = 0  # step of the block
        self.block = np.zeros((0, S), np.int64)  # counts of its steps
        self.before = np.zeros((1, S), np.int64)  # examples before each of its steps, and after all
        self.carried = np.zeros(S, np.int64)  # parts of an example, of ONE, that are left over
        self.open = np.ones(S, bool)

    def _go_on(self) -> None:
        """Compute the next block, which ends early where a source has not enough for a step."""
        self.first += len(self.block)
        steps = self.first + np.arange(BLOCK)
        weights = self.weights(steps) * self.open  # (n, S)
        rest = np.cumsum(weights[:, ::-1], axis=1)[:, ::-1]  # of a source and those after it
        if not rest[0, 0] > 0:
            raise ValueError(
                f"at step {self.first:,}, no source of the mixture has both a weight above 0 and "
                "passes left: give more epochs, or a smaller --max_iters"
            )
        has = rest[:, 0] > 0
        n = BLOCK if has.all() else int(np.argmin(has))
        # Of what the sources before it leave, a source takes its share; the last takes it all.
        shares = np.divide(weights, rest, out=np.zeros_like(weights), where=rest > 0)
        shares = np.rint(shares[:n] * ONE).astype(np.int64)
        block, left = np.zeros((n, len(self.limits)), np.int64), np.full(n, self.examples)
        parts = np.zeros((n + 1, len(self.limits)), np.int64)  # of ONE, taken before each step
        for s in range(len(self.limits)):
            parts[:, s] = np.cumsum(np.append(self.carried[s], shares[:, s] * left))
            block[:, s] = np.diff(parts[:, s] // ONE)
            left = left - block[:, s]
        before = self.before[-1] + np.cumsum(np.pad(block, ((1, 0), (0, 0))), axis=0)
        lacking = before[1:] > self.limits  # (n, S)
        if lacking.any():
            n = int(np.argmax(lacking.any(axis=1)))
            self.open = self.open & ~lacking[n]
        self.block, self.before, self.carried = block[:n], before[: n + 1], parts[n] % ONE

    def _find(self, step: int) -> int:
        """The row of a step in the block, which is made the one that has it."""
        if step < self.first:
            self._begin()
        while step >= self.first + len(self.block):
            self._go_on()
        return step - self.first

    def counts(self, step: int) -> np.ndarray:
        """The examples of a step from each source, (S,), `examples` together.

        Raises ValueError where no source has a weight and something left.
        """
        row = self._find(step)
        return self.block[row]

    def taken(self, step: int) -> np.ndarray:
        """The examples from each source in all steps before this one, (S,)."""
        row = self._find(step - 1) + 1 if step else self._find(0)
        return self.before[row]
