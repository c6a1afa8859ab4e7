"""A task that compares log-probabilities with those of the model that it begins with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tensorlite import Tensor
from tensorlite.parallel import ALONE, Team

from ..data import inputs_and_targets
from ..evaluate import sequence_logprobs
from .conversations import ChatTuning, Text
from .pair_task import PairTask, beside, both


class ReferenceTask(PairTask):
    """The number that a model gives to an answer is its log-probability.

    `reference` (2 n,) has that of the model before the training, and `tokens` (2 n,) how many there
    are in each answer.
    """

    def __init__(self, settings: ChatTuning, texts: Sequence[Text], parts: Sequence[np.ndarray]):
        super().__init__(settings, texts, parts)
        self.sizes = self.sizes - 1  # of what a model reads: the last id is only predicted
        self.tokens = np.array([counted.sum() for _, counted in texts], np.float32)
        self.reference = np.zeros(len(texts), np.float32)

    def refer_to(self, model, team: Team = ALONE) -> None:
        """Take this model for the reference.

        It is measured as `evaluate` and `final` do it, so that nothing but the training moves the
        model away from it: before the first step they are equal bit for bit.
        """
        for part in (self.train, self.val, self.test):
            texts = both(part)
            self.reference[texts] = self.measure(model, texts, team, "reference")

    def outputs(self, model, texts: np.ndarray, rng=None, width: int = 0) -> Tensor:
        x, y = inputs_and_targets(*zip(*(self.texts[i] for i in texts)), width)  # (B, T) each
        return sequence_logprobs(model, x, y, rng)  # (B,)

    def ratios(self, texts: np.ndarray, logprobs: Tensor) -> Tensor:
        """log(pi / ref) of texts with these log-probabilities, (B,)."""
        return logprobs - beside(logprobs, self.reference[texts])

    def loss_of(self, texts: np.ndarray, logprobs: Tensor) -> dict[str, float]:
        """`chosen_loss` for each token of these texts, and by which part it has risen."""
        n = self.tokens[texts].sum()
        now, before = -logprobs.numpy().sum() / n, -self.reference[texts].sum() / n
        return {"chosen_loss": now, "chosen_rise": now / before - 1}
