"""KTO, which learns from single answers that are desirable or not: `dpo --loss kto`.

A record has a conversation as instruct.py takes it, which ends with the answer, and in `desirable`
(or `label`, as TRL calls it) true or false. Pairs do as well: they are two answers each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

import tensorlite as tl
from tensorlite import Tensor
from tensorlite.parallel import ALONE, Team

from ..data.chat import Chat, Message, messages_of
from ..training.task import Batch
from .conversations import Text, split_by_question
from .pair_task import beside
from .pairs import TOO_LONG, encode_answer, read_pairs, say_left_out
from .reference import ReferenceTask


def kto_loss(ratios: Tensor, desirable: np.ndarray, z: float | np.ndarray, beta: float) -> Tensor:
    """The losses (B,) of Ethayarajh et al., 2024, before they are weighted.

    `ratios` (B,) is log(pi / ref) of answers, and `desirable` (B,) bool says which are desirable.
    `z` estimates the Kullback-Leibler divergence of the model from the reference, and gets no
    gradient: the reward of a desirable answer shall be above it, that of another one below.
    """
    sign = beside(ratios, np.where(desirable, beta, -beta))
    return 1 - tl.sigmoid(sign * (ratios - beside(ratios, z)))


# =================================================================================================
# Records
# =================================================================================================

LABELS = {True: True, False: False, "true": True, "false": False, "1": True, "0": False}


def read_answers(
    records: Sequence[Mapping], chat: Chat, longest: int
) -> tuple[list[Text], np.ndarray, list[list[Message]]]:
    """The texts of n answers, whether each is desirable (n,) bool, and all of it as messages (n).

    Answers with more than `longest` ids are left out; a line is printed that counts them. Raises
    ValueError, with the record's number, for what is no answer with a label.
    """
    texts, desirable, conversations, left_out = [], [], [], Counter()
    for number, record in enumerate(records, 1):
        try:
            messages = messages_of(record)
            text = encode_answer(chat, messages)
            label = record.get("desirable", record.get("label"))
            label = label.lower() if isinstance(label, str) else label
            if not isinstance(label, (str, int, float)) or label not in LABELS:
                raise ValueError(f"`desirable` (or `label`) is true or false, not {label!r:.50}")
        except ValueError as error:
            raise ValueError(f"record {number}: {error}") from None
        if len(text[0]) > longest:
            left_out[TOO_LONG.format(longest)] += 1
        else:
            texts.append(text)
            desirable.append(LABELS[label])
            conversations.append(messages)
    say_left_out(left_out, len(records))
    return texts, np.array(desirable), conversations


def with_mismatched(texts: Sequence[Text], parts: Sequence[np.ndarray], longest: int) -> list[Text]:
    """Each text, followed by its prompt with the answer to another one: (2 n) from (n).

    From the second ones z is estimated, as in the paper. The other prompt is one of the same part,
    half of the part away; what does not fit `longest` ids is cut.
    """
    mixed = [text for text in texts for _ in range(2)]
    for part in parts:
        for i, j in zip(part, np.roll(part, len(part) // 2)):
            (own_ids, own_counted), (other_ids, other_counted) = texts[i], texts[j]
            own, other = np.argmax(own_counted), np.argmax(other_counted)  # where answers begin
            ids = np.concatenate([own_ids[:own], other_ids[other:]])
            counted = np.concatenate([own_counted[:own], other_counted[other:]])
            mixed[2 * i + 1] = ids[:longest], counted[:longest]
    return mixed


# =================================================================================================
# The task
# =================================================================================================


class Answers(ReferenceTask):
    """Desirable answers gain, others lose, compared with z.

    `texts` (2 n) are those of `with_mismatched`; `desirable` (n,) is of the first ones, and `parts`
    are their numbers, 0 to n - 1.
    """

    def __init__(self, settings, texts: Sequence[Text], desirable: np.ndarray, parts):
        super().__init__(settings, texts, parts)
        self.desirable = desirable
        for name, part in (("train", self.train), ("validate", self.val), ("test", self.test)):
            if len(part) and len({*desirable[part].tolist()}) < 2:
                raise ValueError(
                    f"the {len(part)} answers to {name} are all alike: KTO needs desirable ones "
                    "and others"
                )

    @staticmethod
    def of_records(settings, records: Sequence[Mapping], chat: Chat, longest: int) -> Answers:
        """The task of these records: single answers, or pairs, whose parts are those of dpo.py.

        Raises as `read_answers`, `read_pairs` and `split_by_question` do.
        """
        if "rejected" in records[0]:
            texts, conversations = read_pairs(records, chat, longest)
            desirable = np.arange(len(texts)) % 2 == 0
            pairs = split_by_question(settings, conversations)
            parts = [np.stack([2 * part, 2 * part + 1], axis=1).ravel() for part in pairs]
        else:
            texts, desirable, conversations = read_answers(records, chat, longest)
            parts = split_by_question(settings, conversations)
        return Answers(settings, with_mismatched(texts, parts, longest), desirable, parts)

    def divergence(self, answers: np.ndarray, mismatched: np.ndarray) -> float:
        """z, at least 0, from the log-probabilities of the mismatched texts of answers, (B,)."""
        return max(0.0, float(np.mean(mismatched - self.reference[2 * answers + 1])))

    def batch(self, step: int, model=None, team: Team = ALONE) -> Batch:
        """Rows of training examples, `width`, and z, which the whole step has in common, (B,)."""
        examples = super().batch(step, model, team)
        rows, width = examples.arrays
        answers = self.train[rows]
        z = self.divergence(answers, self.measure(model, 2 * answers + 1, team))
        z = np.full(len(rows), z, np.float32)
        return Batch(rows, width, z, weights=examples.weights)

    def loss(self, model, examples: Batch, rng=None) -> Tensor:
        rows, width, z = examples.arrays
        answers = self.train[rows]
        logprobs = self.outputs(model, 2 * answers, rng, width[0])  # (B,)
        return tl.mean(self.weighted_losses(answers, logprobs, z)) * examples.share

    def weighted_losses(self, answers: np.ndarray, logprobs: Tensor, z) -> Tensor:
        s, texts, desirable = self.settings, 2 * answers, self.desirable[answers]
        weights = beside(logprobs, np.where(desirable, s.desirable_weight, 1))
        losses = weights * kto_loss(self.ratios(texts, logprobs), desirable, z, s.beta)  # (B,)
        if s.sft_weight:
            own = beside(logprobs, s.sft_weight * desirable / self.tokens[texts])
            losses = losses - own * logprobs
        return losses

    def figures(self, answers: np.ndarray, logprobs: Tensor, mismatched: Tensor) -> dict:
        """What is measured of all of these answers together.

        `accuracy` is how often the reward of a desirable answer is above that of another one, each
        compared with all others, and equal ones counted as half. `margin` is by how much the mean
        reward of the desirable ones is higher, and `chosen_loss` their loss for each token.
        """
        beta, texts, desirable = self.settings.beta, 2 * answers, self.desirable[answers]
        z = self.divergence(answers, mismatched.numpy())
        rewards = beta * self.ratios(texts, logprobs).numpy()
        wanted, others = rewards[desirable], np.sort(rewards[~desirable])
        below = [np.searchsorted(others, wanted, side).mean() for side in ("left", "right")]
        return {
            "loss": tl.mean(self.weighted_losses(answers, logprobs, z)).item(),
            "accuracy": np.mean(below) / len(others),
            "margin": wanted.mean() - others.mean(),
            "divergence": z,
            **self.loss_of(texts[desirable], logprobs[desirable]),
        }
