"""What a folder says of a model that classifies texts: its labels, and how many a text has.

The layout is that of transformers' GPT2ForSequenceClassification, LlamaForSequenceClassification
and their sisters: a language model's body, without its output projection, and `score.weight` (n, C)
for n labels. config.json names the labels and the problem.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .files import CONFIG, read_json
from .layout import OURS
from .llama import CLASSES

NAMES = CLASSES | {"gpt2": "GPT2ForCausalLM", OURS: "Modern"}
SCORE = "score.weight"
ARCHITECTURE = "ForSequenceClassification"
SINGLE, MULTI, REGRESSION = PROBLEMS = (
    "single_label_classification",
    "multi_label_classification",
    "regression",
)


def is_classifier(directory: str | Path) -> bool:
    """Whether the config.json of a folder says that its model classifies. Raises as `read_json`."""
    said = read_json(Path(directory) / CONFIG).get("architectures")
    return isinstance(said, list) and bool(said) and str(said[0]).endswith(ARCHITECTURE)


def describe_labels(family: str, labels: Sequence[str], problem: str, side: str) -> dict:
    """What config.json says of a classifier whose body has this model_type."""
    name = NAMES[family].removesuffix("ForCausalLM")
    return {
        "architectures": [name + ARCHITECTURE],
        "num_labels": len(labels),
        "id2label": {str(i): label for i, label in enumerate(labels)},
        "label2id": {label: i for i, label in enumerate(labels)},
        "problem_type": problem,
        "truncation_side": side,
    }


def read_labels(directory: str | Path, n: int | None = None) -> tuple[tuple[str, ...], str, str]:
    """The names of the n labels, which of PROBLEMS it is, and where long texts are cut.

    Without n, there are as many labels as have names.

    As in transformers, labels without names are LABEL_0, LABEL_1, ... Where no problem is named, a
    single label is a number to predict, and of several one is right. Raises ValueError for anything
    else than n different names, for a problem that is not known, and for a side that is none.
    """
    path = Path(directory) / CONFIG
    raw = read_json(path)
    said, number = raw.get("id2label"), raw.get("num_labels")
    if n is None:
        n = len(said) if isinstance(said, dict) else 0
    if said is None:
        said = {str(i): f"LABEL_{i}" for i in range(n)}
    labels = ()
    if isinstance(said, dict) and said.keys() == {str(i) for i in range(n)}:
        labels = tuple(said[str(i)] for i in range(n))
    if not all(isinstance(label, str) for label in labels) or len(set(labels)) != n:
        raise ValueError(
            f"{path}: id2label has another name for each of 0 to {n - 1}, the {n} rows of {SCORE}, "
            f"not {str(said)[:200]}"
        )
    if number not in (None, n):
        raise ValueError(f"{path}: num_labels is {number!r}, and {SCORE} has {n} rows")
    problem = raw.get("problem_type")
    if problem is None:
        problem = REGRESSION if n == 1 else SINGLE
    if problem not in PROBLEMS:
        raise ValueError(f"{path}: problem_type is one of {', '.join(PROBLEMS)}, not {problem!r}")
    side = raw.get("truncation_side", "right")
    if side not in ("right", "left"):
        raise ValueError(f"{path}: truncation_side is right or left, not {side!r}")
    return labels, problem, side
