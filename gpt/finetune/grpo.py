"""GRPO: the model learns from rewards for its own answers.

To each prompt of a step it gives a group of answers, and a Python function of yours scores them
(rewards.py says how it is written). Answers that earn more than their group's mean become likelier,
others less likely, while the model is held near the one that it began as. Records have a column
`prompt`, a text to continue; or conversations, for a model that was tuned on those.

    python -m gpt.finetune grpo --init_from out --dataset prompts.jsonl \\
        --reward gpt.finetune.rewards:sorted_letters --out_dir out-grpo

Shao et al., 2024 (DeepSeekMath, arXiv:2402.03300). --loss_type has two variants: dapo (Yu et al.,
2025, arXiv:2503.14476) and dr_grpo (Liu et al., 2025, arXiv:2503.20783).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

import tensorlite as tl
from tensorlite import Tensor
from tensorlite.device import random
from tensorlite.parallel import ALONE, Team

from .. import models
from ..commandline import option
from ..data import IGNORE, split_records
from ..evaluate import token_logprobs
from ..generate import evaluating
from ..training.metrics import read_metrics
from ..training.task import Batch
from .answers import (
    Answer,
    Answering,
    Prompt,
    answers_file,
    as_arrays,
    forget_answers,
    prompts_of,
    read_answers,
    save_answers,
)
from .distill import divergence, logits_at
from .epochs import EpochTask, portions, with_error
from .policy_gradient import clipped_objective, group_advantages, kl_estimate, token_weights
from .rewards import RIGHT, Reward
from .settings import Tuning

# =================================================================================================
# The settings
# =================================================================================================


@dataclass
class Settings(Tuning):
    """The settings of GRPO. Raises ValueError for values that cannot work."""

    method: ClassVar[str] = "grpo"
    # A resumed run goes on with answers that were drawn before.
    fixed: ClassVar[tuple[str, ...]] = (*Tuning.fixed, "group", "updates", "batch_size")
    fixed += ("gradient_accumulation_steps",)
    # No file decides which code runs.
    unsaved: ClassVar[tuple[str, ...]] = ("reward",)

    reward: str = option("", "the function that scores answers: FILE.py:NAME or MODULE:NAME")
    group: int = option(8, "answers to each prompt of a step")
    batch_size: int = option(64, "answers in a batch, --group of them to each prompt")
    max_new_tokens: int = option(64, "the longest answer, in tokens")
    stop: str | None = option(None, "a text that ends an answer, as an end token does")
    beta: float = option(0.04, "weight of the KL divergence from the model at the start")
    clip: float = option(0.2, "how far a token's probability moves on one batch of answers")
    clip_high: float | None = option(None, "the same upwards, where it differs (clip)")
    updates: int = option(1, "steps on each batch of answers")
    loss_type: str = option("grpo", "grpo, dapo or dr_grpo: what each token counts in the loss")
    epochs: float = option(1.0, "how often each prompt is asked")
    learning_rate: float = option(3e-4, "the highest learning rate; large models take 1e-6 to 1e-5")
    weight_decay: float = option(0.0, "on matrices and embeddings")

    def __post_init__(self):
        super().__post_init__()
        self.check_at_least(1, "max_new_tokens", "updates")
        self.check_at_least(2, "group")
        self.check_at_least(0, "beta")
        if self.batch_size % self.group:
            raise ValueError(
                f"--batch_size {self.batch_size} is no multiple of --group {self.group}: it counts "
                "answers, and the answers of a group are in one step"
            )
        if not 0 < self.clip < 1:
            raise ValueError(f"--clip is above 0 and below 1, not {self.clip}")
        if self.clip_high is not None and not self.clip_high > 0:
            raise ValueError(f"--clip_high is above 0, not {self.clip_high}")
        if self.dropout:
            raise ValueError(
                "--dropout is 0 in GRPO: answers are compared by the probabilities that they were "
                "drawn with, and drawn without dropout"
            )
        if self.loss_type not in ("grpo", "dapo", "dr_grpo"):
            raise ValueError(f"--loss_type is grpo, dapo or dr_grpo, not {self.loss_type!r}")

    def multiplications(self) -> float:
        return 2 * self.group * super().multiplications()  # many answers, read several times


# =================================================================================================
# The task
# =================================================================================================


def prepare(run, records: list[dict], tokenizer, model):
    """The task, the model and the tokenizer, unchanged. Raises ValueError for unusable prompts."""
    s = run.settings
    if not s.reward:
        raise ValueError(
            "--reward names the function that scores answers, FILE.py:NAME or MODULE:NAME; it is "
            "given again where a run is resumed, as no file decides which code runs"
        )
    answering = Answering(tokenizer, Reward(s.reward), s.max_new_tokens, s.stop)
    prompts = prompts_of(records, tokenizer, model)
    for number, prompt in enumerate(prompts, 1):
        if len(prompt.ids) + s.max_new_tokens > model.config.block_size:
            raise ValueError(
                f"the prompt of record {number} and --max_new_tokens {s.max_new_tokens} are longer "
                f"than the model's context of {model.config.block_size} tokens: leave it out, or "
                "lower --max_new_tokens"
            )
    asked = [tuple(p.ids) for p in prompts]  # no prompt that is measured is trained on elsewhere
    parts = split_records(len(prompts), s.fractions, s.seed, asked)
    train, val, test = ([prompts[i] for i in rows] for rows in parts)
    if not val:
        raise ValueError(f"--val_fraction {s.val_fraction} of {len(prompts)} prompts is none")
    reference = models.with_config(model, dropout=0.0).eval()
    reference.to(s.device)
    return GRPO(run, answering, reference, train, val, test), model, tokenizer


class GRPO(EpochTask):
    """Answers to training prompts; the held-out prompts are measured on.

    `reference` is the model as it was at the start. A step has the answers of `updates` steps, the
    first of which draws them; `answers` holds them, and `advantages` (B,) and `weights_of_tokens`
    (B,) say what they count.
    """

    def __init__(
        self,
        run,
        answering: Answering,
        reference,
        train: Sequence[Prompt],
        val: Sequence[Prompt],
        test: Sequence[Prompt],
    ):
        s = run.settings
        super().__init__(s, [len(p.ids) for p in train])
        self.tokens_per_example += s.max_new_tokens
        self.examples_per_step //= s.group  # examples of an epoch are prompts
        self.steps_per_epoch = -(-len(train) // self.examples_per_step) * s.updates
        self.run, self.answering, self.reference = run, answering, reference
        self.train, self.val, self.test = train, val, test
        self.drawn_at, self.answers, self.clipped = -1, [], np.zeros(2)

    # ---- a step ----------------------------------------------------------------------------------

    def batch(self, step: int, model, team: Team = ALONE) -> Batch:
        """The numbers of this step's answers, (B,).

        They are drawn from the model at the first of `updates` steps, with seeds that are a
        function of the step. Without a KL divergence in the loss, answers no better or worse than
        their group count nothing.
        """
        s, self.clipped = self.settings, np.zeros(2)
        first = step - step % s.updates
        if self.drawn_at != first:
            self.collect(first, step, model, team)
        counted = (self.advantages != 0) | (s.beta > 0)
        return Batch(np.arange(len(self.answers)), weights=counted.astype(int))

    def collect(self, first: int, step: int, model, team: Team) -> None:
        """Have the answers that the steps from `first` on learn from.

        Answers that several steps learn from are in a file too, for a run that is resumed at a
        later one of these steps: the model that gave them is no longer there then.
        """
        s, out = self.settings, self.run.out
        epoch, i = divmod(first, self.steps_per_epoch)
        rows = np.repeat(self.batches_of(epoch)[i // s.updates], s.group)  # (B,)
        self.prompts, path = [self.train[row] for row in rows], answers_file(out, first)
        if step > first and path.exists():
            self.answers = read_answers(path, model, len(rows))
        else:
            seeds = seeds_of(len(rows), s.seed, "answers", first)
            self.answers = self.answering.draw(model, self.prompts, seeds, team=team)
            if s.updates > 1 and team.rank == 0:
                save_answers(path, self.answers)
                # The last checkpoint needs those of its step, and no earlier ones.
                forget_answers(out, self.run.saved - self.run.saved % s.updates)
        rewards = np.array([a.reward for a in self.answers]).reshape(-1, s.group)  # (P, G)
        lengths = np.array([len(a.ids) for a in self.answers])  # (B,)
        by_spread = s.loss_type != "dr_grpo"
        self.advantages = group_advantages(rewards, by_spread).ravel().astype(np.float32)  # (B,)
        self.weights_of_tokens = token_weights(lengths, s.loss_type, s.max_new_tokens)  # (B,)
        self.drawn_at = first

    def loss(self, model, examples: Batch, rng=None) -> Tensor:
        s, (rows,) = self.settings, examples.arrays
        x, y, old = as_arrays(*self.of(rows))  # (B, T) each
        logprobs = token_logprobs(model, x, y, rng)  # (B, T)
        old, advantages, weights = (
            np.asarray(array, np.float32, like=logprobs.data)
            for array in (
                old,  # (B, T)
                self.advantages[rows, None],  # (B, 1)
                self.weights_of_tokens[rows, None] * (y != IGNORE),  # (B, T)
            )
        )
        objective, clipped = clipped_objective(
            logprobs, old, advantages, s.clip, s.clip if s.clip_high is None else s.clip_high
        )  # (B, T)
        self.clipped += float((clipped & (weights > 0)).sum()), (y != IGNORE).sum()
        if s.beta:
            with tl.no_grad():
                reference = token_logprobs(self.reference, x, y)  # (B, T)
            objective = objective - s.beta * kl_estimate(logprobs, reference)  # (B, T)
        return -(objective * weights).sum()

    def of(self, rows: np.ndarray) -> tuple[list[Prompt], list[Answer]]:
        return [self.prompts[i] for i in rows], [self.answers[i] for i in rows]

    # ---- what is measured ------------------------------------------------------------------------

    def evaluate(self, model, team: Team = ALONE) -> dict[str, float]:
        """On held-out prompts, `measure`; and of the last step, its reward and what was clipped."""
        measured = self.measure(model, self.val, team)
        named = {"val_loss": -measured["reward"]}
        named |= {f"val_{name}": value for name, value in measured.items()}
        if self.answers:
            clipped, tokens = team.sum(self.clipped)
            named["train_reward"] = float(np.mean([a.reward for a in self.answers]))
            named["clipped"] = float(clipped / max(1, tokens))
        return named

    def measure(self, model, prompts: Sequence[Prompt], team: Team = ALONE) -> dict[str, float]:
        """How good the answers to some prompts are.

        reward            the mean reward of an answer drawn to each
        greedy_accuracy   the part of the prompts whose likeliest answer is right: its reward is 1
        kl                the KL divergence from the model at the start, in nats a token: its mean
                          over the places of the drawn tokens
        length            the mean length of an answer, in tokens
        """
        seeds = seeds_of(len(prompts), self.settings.seed, "measured")
        drawn = self.answering.draw(model, prompts, seeds, team=team)
        greedy = self.answering.draw(model, prompts, seeds, temperature=0.0, team=team)
        kl, lengths = 0.0, [len(a.ids) for a in drawn]
        with evaluating(model), tl.no_grad():
            for rows in portions([len(p.ids) + n for p, n in zip(prompts, lengths)], team):
                x, y, _ = as_arrays([prompts[i] for i in rows], [drawn[i] for i in rows])
                places = np.nonzero(y != IGNORE)  # 2 x (n,)
                now = logits_at(model, x, places).data  # (n, V)
                kl += divergence(now, logits_at(self.reference, x, places), 1.0).item()
        return {
            **with_error("reward", [a.reward for a in drawn]),
            **with_error("greedy_accuracy", [a.reward >= RIGHT for a in greedy]),
            "kl": team.sum(kl) / sum(lengths),
            "length": float(np.mean(lengths)),
        }

    def final(self, model, team: Team = ALONE) -> dict[str, float]:
        if not self.test:
            return {}
        return {f"test_{name}": x for name, x in self.measure(model, self.test, team).items()}

    def report(self, run, model, tokenizer) -> None:
        """The mean reward before and after, and some answers."""
        lines = read_metrics(run.out / "metrics.jsonl")
        before, *_, after = [line["val_reward"] for line in lines if "val_reward" in line]
        print(f"mean reward on validation prompts {before:.3f} before, {after:.3f} after; answers:")
        prompts = self.val[:3]
        for prompt, answer in zip(prompts, self.answering.draw(model, prompts, [0, 1, 2], 0.0)):
            print(f"  {answer.text!r} to {prompt.shown!r:.200}: reward {answer.reward:g}")


def seeds_of(n: int, *key: int | str) -> list[int]:
    """A seed for each of n answers."""
    return [int(random(*key, i).integers(2**62)) for i in range(n)]
