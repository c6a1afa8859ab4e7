"""Distillation: a model learns from the probabilities of a larger one (Hinton et al., 2015).

    python -m gpt.finetune distill --teacher BIG --init_from SMALL --dataset FILE --out_dir DIR

The dataset is a text (.txt), records with a column `text`, or conversations, whose answers count
alone. At each token the teacher says how likely every other token would have been, which tells the
student more than the one that came. Both models' probabilities are softened by a temperature T, so
that small ones count too. The loss of a token is

    label_weight * cross-entropy  +  (1 - label_weight) * T^2 * KL(teacher || student)

T^2 keeps the gradient of the second part as large as it is without a temperature. Both models have
the same tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

import tensorlite as tl
import tokenizer as tokenizers
from tensorlite.parallel import ALONE, Team

from .. import checkpoint, models
from ..commandline import option
from ..data import IGNORE, inputs_and_targets, split_records, texts_in
from ..generate import evaluating
from .conversations import ChatTuning, Text, chat_with, read_conversations, split_by_question
from .epochs import EpochTask, portions


@dataclass
class Settings(ChatTuning):
    """Distillation from a larger model."""

    method: ClassVar[str] = "distill"
    fixed: ClassVar[tuple[str, ...]] = (*ChatTuning.fixed, "temperature", "label_weight")

    dataset: str = option("", "a text (.txt), records with a column text, or conversations")
    teacher: str = option("", "the folder of the model to learn from, or hf:OWNER/NAME")
    temperature: float = option(2.0, "softens the probabilities of both models")
    label_weight: float = option(0.5, "the part of the tokens that came, from 0 to 1, in the loss")

    def __post_init__(self):
        super().__post_init__()
        if not self.temperature > 0:
            raise ValueError(f"--temperature is above 0, not {self.temperature}")
        if not 0 <= self.label_weight <= 1:
            raise ValueError(f"--label_weight is from 0 to 1, not {self.label_weight}")


def prepare(run, records, tokenizer, model):
    """The task, the model and its tokenizer. Raises ValueError where the two models do not fit."""
    s = run.settings
    if not s.teacher:
        raise ValueError("--teacher is missing: the folder of the model to learn from")
    folder = checkpoint.local_folder(s.teacher)
    teacher = models.load(folder).to(s.device)
    size = min(model.config.block_size, teacher.config.block_size)
    if "text" in records[0]:
        given = texts_in(records, "text")
        pieces = [windows([tokenizer.encode_ordinary(text)], size) for text in given]
        texts = [(ids, np.ones(len(ids), bool)) for of_text in pieces for ids in of_text]
        # The pieces of a text stay together, unless all are of one text.
        whole = [text for text, of_text in zip(given, pieces) for _ in of_text]
        groups = whole if len({*whole}) > 1 else None
        parts = split_records(len(texts), s.fractions, s.seed, groups)
    else:
        chat, model = chat_with(s, tokenizer, model)
        texts, conversations = read_conversations(records, chat, size + 1)
        parts, tokenizer = split_by_question(s, conversations), chat.tokenizer
    its = tokenizers.load(folder)
    sizes = model.config.vocab_size, teacher.config.vocab_size
    if its.vocabulary != tokenizer.vocabulary or sizes[0] != sizes[1]:
        raise ValueError(
            f"the teacher in {s.teacher} has other tokens ({sizes[1]:,} ids) than the model "
            f"({sizes[0]:,} ids): it can only teach a model with the same tokenizer"
        )
    return Distillation(s, texts, parts, teacher), model, tokenizer


def windows(texts: Sequence[Sequence[int]], size: int) -> list[np.ndarray]:
    """The ids of texts in pieces, of which a model reads at most `size`: (2 .. size + 1,) each.

    >>> [w.tolist() for w in windows([[5, 8, 2, 9, 4], [7, 1]], 3)]
    [[5, 8, 2, 9], [9, 4], [7, 1]]
    """
    return [np.array(ids[i : i + size + 1]) for ids in texts for i in range(0, len(ids) - 1, size)]


class Distillation(EpochTask):
    """Texts of which some ids count, their rows to train, to validate and to test; the teacher."""

    def __init__(self, settings: Settings, texts: Sequence[Text], parts: Sequence, teacher):
        self.train_rows, self.val_rows, self.test_rows = parts
        if not (len(self.train_rows) and len(self.val_rows)):
            raise ValueError(f"{len(texts)} pieces of text leave none to train or to validate on")
        self.ids, self.counted, self.teacher = [t[0] for t in texts], [t[1] for t in texts], teacher
        lengths = np.array([len(i) - 1 for i in self.ids])
        self.all_lengths = lengths
        self.tokens = np.array([c[1:].sum() for c in self.counted])
        super().__init__(settings, lengths[self.train_rows], self.tokens[self.train_rows])

    def loss(self, model, examples, rng=None):
        rows, width = examples.arrays
        s = self.settings
        labels, divergence = self.sums(model, self.train_rows[rows], rng, width[0])
        loss = s.label_weight * labels + (1 - s.label_weight) * s.temperature**2 * divergence
        return loss / examples.whole

    def sums(self, model, rows, rng=None, width: int = 0):
        """Sums over the tokens that count: cross-entropy, KL(teacher || student) at T, in nats."""
        x, y = inputs_and_targets(
            [self.ids[i] for i in rows], [self.counted[i] for i in rows], width
        )  # (B, T), (B, T)
        places = np.nonzero(y != IGNORE)  # 2 x (n,)
        logits = logits_at(model, x, places, rng)  # (n, V)
        with tl.no_grad():
            theirs = logits_at(self.teacher, x, places)  # (n, V)
        labels = tl.cross_entropy(logits, y[places], reduction="sum")
        return labels, divergence(theirs.data, logits, self.settings.temperature)

    def measure(self, model, rows, team: Team) -> tuple[float, float]:
        """Both sums of these examples, for each token that counts."""
        with evaluating(model), tl.no_grad():
            parts = portions(self.all_lengths[rows], team)
            found = [[x.item() for x in self.sums(model, rows[part])] for part in parts]
        total = team.sum(np.sum(found, axis=0) if found else np.zeros(2))
        return tuple((total / self.tokens[rows].sum()).tolist())

    def evaluate(self, model, team: Team = ALONE) -> dict[str, float]:
        labels, divergence = self.measure(model, self.val_rows, team)
        return {"val_loss": labels, "val_divergence": divergence}

    def final(self, model, team: Team = ALONE) -> dict[str, float]:
        if not len(self.test_rows):
            return {}
        labels, divergence = self.measure(model, self.test_rows, team)
        own, _ = self.measure(self.teacher, self.test_rows, team)
        return {"test_loss": labels, "test_divergence": divergence, "test_loss_of_teacher": own}


def logits_at(model, x: np.ndarray, places: tuple, rng=None):
    """The logits (n, V) after the ids x (B, T) up to n places (rows, columns)."""
    return model.logits(model.hidden(x, rng)[places])  # (B, T, C) -> (n, C) -> (n, V)


def divergence(teacher: np.ndarray, student, temperature: float):
    """The sum of KL(p || q), p = softmax(teacher / T), q = softmax(student / T); logits (n, V)."""
    log_p = tl.log_softmax(tl.tensor(teacher / temperature)).data  # (n, V)
    log_q = tl.log_softmax(student * (1 / temperature))  # (n, V)
    return (np.exp(log_p) * (log_p - log_q)).sum()
