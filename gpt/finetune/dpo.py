"""To prefer the better of two answers, without a reward model: DPO, IPO, SimPO and KTO.

    python -m gpt.finetune dpo --init_from DIR --dataset pairs.json --out_dir DIR

A record has a prompt (or instruction and input), chosen and rejected; for --loss kto, it may have a
single answer, and whether that is desirable. An answer's reward is what its log-probability has
gained since the start, times beta: training raises that of the chosen answer above that of the
rejected one. The log-probabilities of the model to start from, the reference, are computed once,
before the training. It should have learned to answer first (instruct).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

import tensorlite as tl
from tensorlite import Tensor

from ..commandline import option
from .conversations import ChatTuning, chat_with, split_by_question
from .kto import Answers
from .pair_task import beside, compare, log_sigmoid
from .pairs import read_pairs
from .reference import ReferenceTask

# =================================================================================================
# The losses
# =================================================================================================

# `chosen` and `rejected` (B,) are scores of the two answers of each pair. DPO: log(pi / ref), the
# log-probability of the answer less that which the starting model gave. IPO: the same for each
# token of the answer, on average, as in TRL. SimPO: log(pi) for each token.


def dpo_loss(chosen: Tensor, rejected: Tensor, beta: float, label_smoothing: float = 0.0) -> Tensor:
    """The losses (B,) of Rafailov et al., 2023, equation 7.

    `label_smoothing` is the part of the pairs that may be the wrong way round (Mitchell, 2023).
    """
    margin = beta * (chosen - rejected)
    return (label_smoothing - 1) * log_sigmoid(margin) - label_smoothing * log_sigmoid(-margin)


def ipo_loss(chosen: Tensor, rejected: Tensor, beta: float) -> Tensor:
    """The losses (B,) of Azar et al., 2023, equation 17: a margin of 1 / (2 beta) is enough."""
    return (chosen - rejected - 1 / (2 * beta)) ** 2


def simpo_loss(chosen: Tensor, rejected: Tensor, beta: float, gamma: float) -> Tensor:
    """The losses (B,) of Meng et al., 2024, equation 6; `gamma` is the margin that is aimed at."""
    return -log_sigmoid(beta * (chosen - rejected) - gamma)


# =================================================================================================
# The task
# =================================================================================================


@dataclass
class Settings(ChatTuning):
    """Settings of DPO and its relatives."""

    method: ClassVar[str] = "dpo"
    fixed: ClassVar[tuple[str, ...]] = (*ChatTuning.fixed, "loss")

    learning_rate: float = option(1e-4, "the highest learning rate; large models take 1e-7 to 1e-5")
    epochs: float = option(1.0, "how often each example is learned from")
    loss: str = option("dpo", "dpo, ipo, simpo or kto")
    beta: float | None = option(None, "how much of the reference is kept (0.1; simpo: 2)")
    label_smoothing: float = option(0.0, "dpo: the part of the pairs that may be mistaken")
    gamma: float = option(1.0, "simpo: the margin that is aimed at, in rewards")
    sft_weight: float = option(
        0.0, "weight of the chosen answer's own loss, which keeps it likely (Pang et al., 2024)"
    )
    desirable_weight: float = option(1.0, "kto: what a desirable answer counts, to another's 1")

    def __post_init__(self):
        if self.beta is None:
            self.beta = 2.0 if self.loss == "simpo" else 0.1
        super().__post_init__()
        self.check_at_least(0, "gamma", "sft_weight")
        if self.loss not in ("dpo", "ipo", "simpo", "kto"):
            raise ValueError(f"--loss is dpo, ipo, simpo or kto, not {self.loss!r}")
        if not 0 <= self.label_smoothing < 0.5:
            raise ValueError(
                f"--label_smoothing is at least 0 and below 0.5, not {self.label_smoothing}"
            )
        for name in ("beta", "desirable_weight"):
            if not getattr(self, name) > 0:
                raise ValueError(f"--{name} is above 0, not {getattr(self, name)}")


class Preferences(ReferenceTask):
    """The chosen answer of a pair gains, and the rejected one loses."""

    def scores(self, texts: np.ndarray, logprobs: Tensor) -> Tensor:
        """What the loss compares, (B,), of texts with these log-probabilities (B,)."""
        loss, tokens = self.settings.loss, beside(logprobs, self.tokens[texts])
        scores = logprobs if loss == "simpo" else self.ratios(texts, logprobs)
        return scores / tokens if loss in ("ipo", "simpo") else scores

    def losses(self, pairs: np.ndarray, chosen: Tensor, rejected: Tensor) -> Tensor:
        s = self.settings
        c, r = self.scores(2 * pairs, chosen), self.scores(2 * pairs + 1, rejected)  # (B,) each
        if s.loss == "ipo":
            losses = ipo_loss(c, r, s.beta)
        elif s.loss == "simpo":
            losses = simpo_loss(c, r, s.beta, s.gamma)
        else:
            losses = dpo_loss(c, r, s.beta, s.label_smoothing)
        if s.sft_weight:
            losses = losses - s.sft_weight * chosen / beside(chosen, self.tokens[2 * pairs])
        return losses

    def figures(self, pairs: np.ndarray, chosen: Tensor, rejected: Tensor) -> dict[str, float]:
        """`accuracy` and `margin` are those of rewards: scores times beta.

        `likelier` is how often the chosen answer has the higher log-probability. `chosen_loss` is
        the loss for each token of the chosen answers, which has risen by the part `chosen_rise`
        since the start.
        """
        beta, loss = self.settings.beta, tl.mean(self.losses(pairs, chosen, rejected)).item()
        c, r = self.scores(2 * pairs, chosen), self.scores(2 * pairs + 1, rejected)
        return {
            "loss": loss,
            **compare(beta * c, beta * r),
            "likelier": compare(chosen, rejected)["accuracy"],
            **self.loss_of(2 * pairs, chosen),
        }


def prepare(run, records, tokenizer, model):
    """(the task, the model, its tokenizer), of the records, and of those that the run begins with.

    Raises ValueError for records that are no pairs, or leave none to train or to validate.
    """
    s = run.settings
    chat, model = chat_with(s, tokenizer, model)
    longest = model.config.block_size + 1  # the last id is only predicted
    if s.loss == "kto":
        task = Answers.of_records(s, records, chat, longest)
    else:
        texts, conversations = read_pairs(records, chat, longest)
        task = Preferences(s, texts, split_by_question(s, conversations))
    task.refer_to(model.to(s.device), run.team)
    return task, model, chat.tokenizer
