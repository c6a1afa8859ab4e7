"""Records with a text and its label: what classify.py learns from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tensorlite.device import random

from ..checkpoint import MULTI, REGRESSION, SINGLE
from ..data import column, texts_in

PROBLEMS = {"single": SINGLE, "multi": MULTI, "regression": REGRESSION}


class Labelled(NamedTuple):
    """N texts, the names of n labels, and what is right for each text.

    `targets` are (N,) numbers of labels; (N, n) booleans where a text may have several labels; (N,
    1) float32 in a regression, whose only label has the name of its column.
    """

    texts: list[str]
    labels: tuple[str, ...]
    targets: np.ndarray

    def pick(self, rows: np.ndarray) -> Labelled:
        """The texts with these numbers."""
        return Labelled([self.texts[row] for row in rows], self.labels, self.targets[rows])


def read_labelled(
    records: Sequence[dict],
    text_column: str,
    label_column: str,
    problem: str,
    labels: Sequence[str] = (),
    separator: str = ",",
) -> Labelled:
    """The texts in one column of some records, and the labels in another.

    `problem` is "single", "multi" (several labels, in one text with `separator` between them or as
    a list) or "regression". Without `labels`, they are all that occur, in alphabetical order.

    Raises ValueError for a missing column, for a text or a label that is none, by the number of its
    record, and for a label that is not among `labels`.
    """
    texts, values = texts_in(records, text_column), column(records, label_column)
    if problem == "regression":
        numbers = [number_of(value, i, label_column) for i, value in enumerate(values, 1)]
        return Labelled(texts, (label_column,), np.array(numbers, np.float32)[:, None])
    if problem == "multi":
        found = [labels_of(value, i, label_column, separator) for i, value in enumerate(values, 1)]
    else:
        found = [[label_of(value, i, label_column)] for i, value in enumerate(values, 1)]
    names = tuple(labels) or tuple(sorted({name for some in found for name in some}))
    place = {name: i for i, name in enumerate(names)}
    for number, some in enumerate(found, 1):
        if unknown := [name for name in some if name not in place]:
            raise ValueError(
                f"record {number} has the label {unknown[0]!r}, and the labels are "
                f"{', '.join(names)}"
            )
    if problem == "single":
        return Labelled(texts, names, np.array([place[name] for (name,) in found]))
    targets = np.zeros((len(texts), len(names)), bool)
    for target, some in zip(targets, found):
        target[[place[name] for name in some]] = True
    return Labelled(texts, names, targets)


def label_of(value: object, number: int, label_column: str) -> str:
    """The name of a label: a text without the spaces around it, a number or a truth value."""
    name = str(value).strip() if isinstance(value, (str, int)) else ""
    if not name:
        raise ValueError(f"record {number} has no label in {label_column!r}, but {value!r:.50}")
    return name


def labels_of(value: object, number: int, label_column: str, separator: str) -> list[str]:
    """The labels in a value: a list of them, or a text with a separator between them."""
    parts = value
    if isinstance(value, str):
        parts = value.split(separator) if value.strip() else []
    if not isinstance(parts, list):
        raise ValueError(
            f"record {number} has no labels in {label_column!r}, but {value!r:.50}: they are a "
            f"list, or a text with {separator!r} between them"
        )
    return [label_of(part, number, label_column) for part in parts]


def number_of(value: object, number: int, label_column: str) -> float:
    try:
        found = float(value) if isinstance(value, (str, int, float)) else math.nan
    except (ValueError, OverflowError):
        found = math.nan
    if not abs(found) <= float(np.finfo(np.float32).max):
        raise ValueError(f"record {number} has no number in {label_column!r}, but {value!r:.50}")
    return found


def balanced(targets: np.ndarray, seed: int) -> np.ndarray:
    """Rows of as many texts of each label as the rarest one has, drawn by `seed`, in their order.

    `targets` (N,) are the numbers of labels.
    """
    rows_of = [np.flatnonzero(targets == number) for number in range(targets.max() + 1)]
    least = min(map(len, rows_of))
    drawn = [random(seed, "balance", i).permutation(rows)[:least] for i, rows in enumerate(rows_of)]
    return np.sort(np.concatenate(drawn))


def check_examples(given: Labelled, problem: str, part: str = "") -> None:
    """Raise ValueError where a label has no example, or where there is nothing to choose."""
    if problem == "regression":
        return
    single = problem == "single"
    if single and len(given.labels) < 2:
        raise ValueError(
            f"all texts have the label {given.labels[0]!r}: there is nothing to choose"
        )
    if not given.labels:
        raise ValueError("no text has a label")
    hit = (
        np.bincount(given.targets, minlength=len(given.labels)) if single else given.targets.sum(0)
    )
    if lost := [name for name, n in zip(given.labels, hit) if not n]:
        counts = dict(zip(given.labels, hit.tolist()))
        raise ValueError(f"the label {lost[0]!r} has no example{part}: the counts are {counts}")


def class_weights(given: str, labels: Sequence[str], targets: np.ndarray) -> np.ndarray:
    """How much a text of each label counts, (n,): "balanced", or as in "ham=1,spam=6".

    Balanced, all labels count the same together, and a text 1 on average, as in scikit-learn. What
    is not named counts 1. Raises ValueError for other text and for a label that is not there.
    """
    if given == "balanced":
        return len(targets) / (len(labels) * np.bincount(targets, minlength=len(labels)))
    weights = dict.fromkeys(labels, 1.0)
    for part in given.split(","):
        name, _, number = part.rpartition("=")
        try:
            weight = float(number)
        except ValueError:
            weight = math.nan
        if name not in weights or not 0 <= weight < math.inf:
            raise ValueError(
                f"--class_weights is balanced, or a number for labels, as in "
                f"{labels[0]}=1,{labels[-1]}=2, not {part!r}; the labels are {', '.join(labels)}"
            )
        weights[name] = weight
    return np.array([weights[name] for name in labels])
