"""Learn to give texts their labels: one of several, any of several, or a number.

    python -m gpt.finetune classify --init_from out --dataset sms.tsv --columns label,text \\
        --out_dir out-sms
    python -m gpt.classify out-sms "You have won"

The labels are in one column of the dataset, the texts in another. A head on the last token is
trained, and the model under it, or as much of it as --train or --lora says (Radford et al., 2018).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

import tensorlite as tl
from tensorlite import Tensor
from tensorlite.device import random
from tensorlite.parallel import ALONE, Team
from tokenizer import with_special_tokens
from tokenizer.conventions import END_OF_TEXT
from tokenizer.normalizers import LOWERCASE, with_normalizer

from .. import models
from ..checkpoint import MULTI, SINGLE
from ..commandline import option
from ..data import column, pad_rows, split_records
from ..evaluate import draw_class_report, measure_classes
from ..models import Classifier
from ..training.output import harmless
from ..training.task import Batch
from .epochs import EpochTask
from .labels import (
    PROBLEMS,
    Labelled,
    balanced,
    check_examples,
    class_weights,
    read_labelled,
)
from .scores import scores, text_ids
from .settings import Tuning


@dataclass
class Settings(Tuning):
    """The settings of classification. Raises ValueError for values that cannot work."""

    method: ClassVar[str] = "classify"
    fixed: ClassVar[tuple[str, ...]] = (
        *Tuning.fixed,
        "text_column",
        "label_column",
        "problem",
        "labels",
        "label_separator",
        "group_column",
        "balance",
        "lowercase",
        "mask_digits",
        "max_length",
        "truncation_side",
    )

    # the examples
    text_column: str = option("text", "the column of the texts")
    label_column: str = option("label", "the column of their labels")
    problem: str = option(
        "single", "single: one label a text; multi: any number of them; regression: a number"
    )
    label_separator: str = option(",", "what stands between the labels of a text, for multi")
    labels: str | None = option(
        None, "the labels in their order, as in ham,spam (those that occur, by the alphabet)"
    )
    group_column: str | None = option(
        None, "texts with the same value in it are all for training, or all held out"
    )
    balance: bool = option(False, "drop texts until every label has as many as the rarest")
    class_weights: str | None = option(
        None, "balanced, or how much a text of a label counts, as in ham=1,spam=6"
    )
    # the texts: all of this is saved with the model, and holds for every text it reads
    lowercase: bool = option(False, "read all letters as small ones")
    mask_digits: bool = option(False, "read every digit as 0")
    max_length: int | None = option(None, "tokens that are read of a text (the model's context)")
    truncation_side: str = option("right", "where longer texts are cut off: right or left")
    token_dropout: float = option(0.0, "probability of replacing a token by padding in training")

    def __post_init__(self):
        super().__post_init__()
        self.check_at_least(1, "max_length")
        if self.problem not in PROBLEMS:
            raise ValueError(f"--problem is {', '.join(PROBLEMS)}, not {self.problem!r}")
        if self.truncation_side not in ("right", "left"):
            raise ValueError(f"--truncation_side is right or left, not {self.truncation_side!r}")
        if not 0 <= self.token_dropout < 1:
            raise ValueError(f"--token_dropout is from 0 to below 1, not {self.token_dropout}")
        if not self.label_separator:
            raise ValueError("--label_separator is what stands between labels, and not empty")
        for name in ("balance", "class_weights"):
            if getattr(self, name) and self.problem != "single":
                raise ValueError(f"--{name} is for --problem single, not {self.problem}")


# ---- before training -----------------------------------------------------------------------------


def prepare(run, records: list[dict], tokenizer, model):
    """(the task, the classifier, the tokenizer that belongs to it) of a run and its records."""
    s = run.settings
    given, parts = divide(s, records)
    model, tokenizer = prepare_reading(s, model, tokenizer)
    problem = PROBLEMS[s.problem]
    classifier = Classifier(model, given.labels, problem, s.truncation_side, s.seed)
    ids, n_cut = text_ids(classifier, tokenizer, given.texts)
    if n_cut:
        lost = {"right": "ends", "left": "beginnings"}[s.truncation_side]
        print(
            f"{n_cut:,} of {len(ids):,} texts are longer than {model.config.block_size} tokens: "
            f"their {lost} are not read"
        )
    return Classification(s, ids, given, parts, n_cut), classifier, tokenizer


def divide(s: Settings, records: list[dict]) -> tuple[Labelled, list[np.ndarray]]:
    """The texts and labels of some records, and the rows of those to train, validate and test."""
    names = s.labels.split(",") if s.labels else ()
    columns = s.text_column, s.label_column
    given = read_labelled(records, *columns, s.problem, names, s.label_separator)
    check_examples(given, s.problem)
    groups = [repr(value) for value in column(records, s.group_column)] if s.group_column else None
    if s.balance:
        chosen = balanced(given.targets, s.seed)
        given = given.pick(chosen)
        groups = groups and [groups[row] for row in chosen]
    parts = split_records(len(given.texts), s.fractions, s.seed, groups)
    check_examples(given.pick(parts[0]), s.problem, " to train on")
    if not len(parts[1]):
        raise ValueError(f"none of {len(given.texts)} texts is left to validate on: --val_fraction")
    return given, parts


def prepare_reading(s: Settings, model, tokenizer):
    """The model and the tokenizer, reading texts as the settings say, with an id for padding."""
    steps = [LOWERCASE] if s.lowercase else []
    steps += [("digits", "0")] if s.mask_digits else []
    if steps:
        tokenizer = with_normalizer(tokenizer, steps)
    pad = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    if pad is None:
        tokenizer = with_special_tokens(tokenizer, [END_OF_TEXT])
        pad = tokenizer.special_tokens[END_OF_TEXT]
    size = max(model.config.vocab_size, tokenizer.vocab_size)
    length = s.max_length or model.config.block_size
    if length > model.config.block_size:
        raise ValueError(
            f"--max_length {length} is beyond the model's context of {model.config.block_size}"
        )
    model = models.with_config(model, vocab_size=size, block_size=length)
    model.config = dataclasses.replace(model.config, pad_token_id=pad)
    return model, tokenizer


# ---- the task ------------------------------------------------------------------------------------


class Classification(EpochTask):
    """Texts (N,) of ids and what is right for them, in three parts: rows of each, (n,) int."""

    def __init__(
        self, settings: Settings, ids: list[np.ndarray], given: Labelled, parts, n_cut: int
    ):
        self.ids, self.targets, self.n_cut = ids, given.targets, n_cut
        self.training, self.validation, self.test = parts
        self.measured = None  # on the test part, at the end
        weights = None
        if settings.class_weights:
            targets = given.targets[self.training]
            weights = class_weights(settings.class_weights, given.labels, targets)[targets]
        super().__init__(settings, [len(ids[row]) for row in self.training], weights)

    def batch(self, step: int, model=None, team: Team = ALONE) -> Batch:
        """Rows of the training part, `width`, and the step, for what is dropped; (B,) each."""
        batch = super().batch(step, model, team)
        rows, width = batch.arrays
        return Batch(rows, width, np.full(len(rows), step), weights=batch.weights)

    def loss(self, model: Classifier, examples: Batch, rng=None) -> Tensor:
        rows, width, steps = examples.arrays
        texts = self.training[rows]
        ids = [self.drop_tokens(self.ids[t], t, step, model) for t, step in zip(texts, steps)]
        x = pad_rows(ids, width=width[0])  # (B, T)
        logits = model(x, [len(row) for row in ids], rng)  # (B, T) -> (B, n)
        each = losses(logits, self.targets[texts], model.problem)  # (B,)
        weights = np.asarray(examples.weights, np.float32, like=each.data)  # (B,)
        return (each * weights).sum() / float(examples.whole)

    def drop_tokens(self, ids: np.ndarray, text: int, step: int, model) -> np.ndarray:
        """The ids (N,) of a text, some replaced by padding: another draw for each text and step."""
        s = self.settings
        if not s.token_dropout:
            return ids
        draws = random(s.seed, "token_dropout", int(step), int(text)).random(len(ids))
        return np.where(draws < s.token_dropout, model.config.pad_token_id, ids)

    def measure(self, model: Classifier, rows: np.ndarray, team: Team, **how):
        """(the mean loss, all figures) of some texts."""
        logits = scores(model, [self.ids[row] for row in rows], team)  # (N, n)
        targets = self.targets[rows]
        loss = losses(tl.tensor(logits), targets, model.problem).mean().item()
        p = model.probabilities(logits)
        seed = self.settings.seed
        return loss, measure_classes(model.labels, model.problem, p, targets, seed, **how)

    def evaluate(self, model: Classifier, team: Team = ALONE) -> dict[str, float]:
        loss, made = self.measure(model, self.validation, team, resamples=0)
        first = next(iter(made.values))  # accuracy, or the error of a number
        return {"val_loss": loss, f"val_{first}": float(made.values[first])}

    def final(self, model: Classifier, team: Team = ALONE) -> dict:
        """`test` has all figures of the test part, if there is one."""
        if not len(self.test):
            return {"texts_cut": self.n_cut}
        loss, self.measured = self.measure(model, self.test, team)
        said = self.measured.as_dict()
        first = next(iter(self.measured.values))
        main = {f"test_{name}": said[name] for name in (first, f"{first}_error")}
        return {"test_loss": loss, **main, "test": said, "texts_cut": self.n_cut}

    def report(self, run, model, tokenizer) -> None:
        """The figures of the test part as a table, and its pictures."""
        if self.measured is None:
            return
        print(f"\n{len(self.test):,} test texts\n{self.measured.table()}")
        with harmless("confusion.png, reliability.png"):
            draw_class_report(self.measured, run.out)


def losses(logits: Tensor, targets: np.ndarray, problem: str) -> Tensor:
    """The loss of each text, (B,), of logits (B, n): those of transformers' classifiers.

    Cross-entropy in nats with one label a text; with several, the mean of each label's; the mean
    squared error in a regression. `targets` are those of `Labelled`.
    """
    if problem == SINGLE:
        return tl.cross_entropy(logits, targets, reduction="none")
    targets = np.asarray(targets, like=logits.data)  # (B, n)
    if problem == MULTI:  # -log sigmoid(x) = log(1 + e^-x) of what is right, without overflow
        x = tl.where(targets, logits, -logits)  # (B, n)
        return (tl.maximum(-x, 0) + tl.log(1 + tl.exp(-tl.abs(x)))).mean(axis=1)
    return ((logits - targets) ** 2).mean(axis=1)
