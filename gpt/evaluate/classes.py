"""How well are texts classified? Accuracy, precision, recall, F1, calibration; numbers likewise.

Every figure has a standard error: its standard deviation over resamples of the texts (the
bootstrap, Efron, 1979). All figures are weighted means and what follows from them, so that the
texts themselves are a row of weights that are 1, and a resample is a row that says how often each
text was drawn.

N texts, n labels, R rows of weights, K bins of confidence.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tensorlite.device import random

from ..checkpoint import MULTI, REGRESSION, SINGLE

K = 15  # as in Guo et al., 2017
RESAMPLES = 1000
AT_A_TIME = 2**22  # weights in memory


@dataclass(frozen=True)
class ClassReport:
    """Figures by name, their standard errors by the same names, and what they are made of.

    A figure is one number, or one for each label (n,). `confusion` (n, n) counts the texts of a
    label (row) that were given another (column), in a single-label problem; `reliability` (K, 3)
    has the decisions of each bin: how many, their mean confidence, how many of them were right.
    """

    labels: tuple[str, ...]
    texts: int
    values: dict[str, np.ndarray]
    errors: dict[str, np.ndarray]
    confusion: np.ndarray | None = None
    reliability: np.ndarray | None = None

    def as_dict(self) -> dict:
        """All of it as JSON holds it; the standard error of a figure NAME is NAME_error."""
        said: dict = {"texts": self.texts}
        for name, value in self.values.items():
            if value.ndim == 0:
                said |= {name: float(value), f"{name}_error": float(self.errors[name])}
            else:
                said[name] = dict(zip(self.labels, value.tolist()))
                said[f"{name}_error"] = dict(zip(self.labels, self.errors[name].tolist()))
        if self.confusion is not None:
            said["confusion"] = self.confusion.tolist()
        return said

    def table(self) -> str:
        """The figures as lines of text, with the confusion matrix of up to 20 labels."""
        lines = [
            f"{name.replace('_', ' '):<26}{show(value, self.errors[name])}"
            for name, value in self.values.items()
            if value.ndim == 0
        ]
        each = [name for name, value in self.values.items() if value.ndim == 1]
        width = max(map(len, (*self.labels, "label"))) + 2
        if each:
            lines += ["", f"{'label':<{width}}" + "".join(f"{name:<18}" for name in each)]
            for i, label in enumerate(self.labels):
                figures = (show(self.values[name][i], self.errors[name][i]) for name in each)
                lines.append(f"{label:<{width}}" + "".join(f"{text:<18}" for text in figures))
        if self.confusion is not None and len(self.labels) <= 20:
            cell = max(*map(len, self.labels), len(str(self.confusion.max()))) + 2
            lines += ["", "texts of each label (row), and the label that they were given (column)"]
            lines.append(" " * width + "".join(f"{label:>{cell}}" for label in self.labels))
            for label, row in zip(self.labels, self.confusion):
                lines.append(f"{label:<{width}}" + "".join(f"{count:>{cell}}" for count in row))
        return "\n".join(line.rstrip() for line in lines)


def show(value: float, error: float) -> str:
    """
    >>> show(0.97321, 0.0093)
    '0.973 +- 0.009'
    """
    return f"{value:.3f} +- {error:.3f}"


# ---- figures -------------------------------------------------------------------------------------


def measure_classes(
    labels: tuple[str, ...],
    problem: str,
    probabilities: np.ndarray,
    targets: np.ndarray,
    seed: int = 1337,
    resamples: int = RESAMPLES,
) -> ClassReport:
    """What is to be said of these probabilities (N, n), where the targets are right.

    Targets are (N,) numbers of labels; (N, n) booleans where a text may have several labels; (N, n)
    numbers in a regression, whose predictions take the place of probabilities. A label is given to
    a text if it is the most probable, or, where there may be several, if its probability is above
    1/2. `seed` draws the resamples; without any, there are no errors. Raises ValueError without a
    text.
    """
    N, n = probabilities.shape
    if not N:
        raise ValueError("there is no text to measure on")
    if problem == REGRESSION:
        rows, figures, confusion = regression_rows(probabilities, targets), regression, None
    else:
        right = targets[:, None] == np.arange(n) if problem == SINGLE else targets  # (N, n)
        given = probabilities > 0.5
        if problem == SINGLE:
            given = probabilities.argmax(axis=1)[:, None] == np.arange(n)  # (N, n)
        rows, figures = decision_rows(probabilities, right, given, problem), classification
        confusion = right.astype(int).T @ given if problem == SINGLE else None
    values = {name: value[0] for name, value in figures(np.ones((1, N)), rows).items()}
    resampled: dict[str, list] = {name: [] for name in values}
    rng, step = random(seed, "bootstrap"), max(1, AT_A_TIME // N)
    for first in range(0, resamples, step):
        R = min(step, resamples - first)
        drawn = [np.bincount(rng.integers(0, N, N), minlength=N) for _ in range(R)]
        weights = np.array(drawn, float)  # (R, N): how often each text was drawn
        for name, value in figures(weights, rows).items():
            resampled[name].append(value)
    errors = {name: np.concatenate(p).std(axis=0) for name, p in resampled.items() if p}
    reliability = None if problem == REGRESSION else rows["bins"].sum(axis=0)  # (K, 3)
    return ClassReport(tuple(labels), N, values, errors, confusion, reliability)


def decision_rows(probabilities, right, given, problem: str) -> dict[str, np.ndarray]:
    """What each text adds to the counts, of booleans (N, n): what is right, what was given.

    `bins` (N, K, 3) has its decisions by their confidence: their number, their confidence, and how
    many were right. With a single label, a text is one decision, as confident as its label is
    probable; with several, each label is one: that the text has it.
    """
    confidence, hit = probabilities, right  # (N, n)
    if problem != MULTI:
        confidence = probabilities.max(axis=1, keepdims=True)  # (N, 1)
        hit = (right & given).any(axis=1, keepdims=True)  # (N, 1)
    place = np.minimum((confidence * K).astype(int), K - 1)  # (N, 1 or n)
    inside = place[..., None] == np.arange(K)  # (N, 1 or n, K)
    parts = np.stack([np.ones_like(confidence), confidence, hit], axis=-1)  # (N, 1 or n, 3)
    return {
        "correct": (right == given).all(axis=1),  # (N,)
        "hits": right & given,  # (N, n)
        "right": right,  # (N, n)
        "given": given,  # (N, n)
        "bins": np.einsum("njk,njc->nkc", inside, parts),  # (N, K, 3)
    }


def classification(weights: np.ndarray, rows: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The figures for each of R rows of weights (R, N): (R,) or (R, n).

    Precision and recall are 0 where nothing was given or nothing is right, as in scikit-learn. The
    expected calibration error (Naeini et al., 2015) is the mean distance between the confidence of
    a bin's decisions and how many of them are right.
    """
    N = weights.sum(axis=1)  # (R,)
    hits, right, given = (weights @ rows[name] for name in ("hits", "right", "given"))  # (R, n)
    f1 = 2 * hits / np.maximum(right + given, 1e-9)  # (R, n)
    count, confidence, correct = np.tensordot(weights, rows["bins"], 1).transpose(2, 0, 1)  # (R, K)
    return {
        "accuracy": weights @ rows["correct"] / N,
        "macro_f1": f1.mean(axis=1),
        "ece": np.abs(confidence - correct).sum(axis=1) / count.sum(axis=1),
        "precision": hits / np.maximum(given, 1e-9),
        "recall": hits / np.maximum(right, 1e-9),
        "f1": f1,
    }


def regression_rows(predicted: np.ndarray, targets: np.ndarray) -> dict[str, np.ndarray]:
    """What each text adds to the sums, (N, n) each: of targets, how far they are from their mean.

    The variance of numbers that are all large would be lost in the rounding of their squares.
    """
    targets = targets.astype(float)
    return {"error": predicted - targets, "target": targets - targets.mean(axis=0)}


def regression(weights: np.ndarray, rows: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The figures for each of R rows of weights (R, N), the mean over n numbers: (R,) each."""
    N = weights.sum(axis=1, keepdims=True)  # (R, 1)
    error, target = rows["error"], rows["target"]  # (N, n)
    squared = weights @ error**2 / N  # (R, n)
    variance = weights @ target**2 / N - (weights @ target / N) ** 2  # (R, n)
    return {
        "root_mean_squared_error": np.sqrt(squared).mean(axis=1),
        "mean_absolute_error": (weights @ np.abs(error) / N).mean(axis=1),
        "r2": (1 - squared / np.maximum(variance, 1e-12)).mean(axis=1),
    }
