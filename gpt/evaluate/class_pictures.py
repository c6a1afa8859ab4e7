"""Pictures of how well texts are classified: the confusion matrix, and a reliability diagram."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .classes import ClassReport
from .picture import new_figure, plain_text, save_figure


def draw_class_report(made: ClassReport, directory: str | Path) -> bool:
    """Draw `confusion.png` and `reliability.png`, where there is such; False without matplotlib."""
    if new_figure(1, 1) is None:
        return False
    if made.confusion is not None:
        save_figure(confusion_figure(made), Path(directory) / "confusion.png")
    if made.reliability is not None:
        save_figure(reliability_figure(made), Path(directory) / "reliability.png")
    return True


def confusion_figure(made: ClassReport):
    """The confusion matrix, each row in shares of its label's texts, with the counts."""
    n = len(made.labels)
    size = min(4 + 0.5 * n, 20)
    figure = new_figure(size, size)
    axes = figure.subplots()
    shares = made.confusion / np.maximum(made.confusion.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (i, j), count in np.ndenumerate(made.confusion):
        axes.text(j, i, count, ha="center", va="center", color="w" if shares[i, j] > 0.5 else "k")
    names = [plain_text(label) for label in made.labels]
    axes.set_xticks(range(n), names, rotation=90 if n > 4 else 0)
    axes.set_yticks(range(n), names)
    axes.set(xlabel="given", ylabel="right", title=f"accuracy {made.values['accuracy']:.3f}")
    figure.tight_layout()
    return figure


def reliability_figure(made: ClassReport):
    """How many decisions are right, by their confidence: on the diagonal if well calibrated."""
    figure = new_figure(5, 5)
    axes = figure.subplots()
    count, confidence, correct = made.reliability.T  # (K,) each
    some = count > 0
    count, confidence, correct = count[some], confidence[some], correct[some]
    accuracy = correct / count
    error = np.sqrt(accuracy * (1 - accuracy) / count)
    axes.plot([0, 1], [0, 1], linestyle=":", color="gray")
    axes.errorbar(confidence / count, accuracy, error, marker="o", capsize=3)
    for x, y, number in zip(confidence / count, accuracy, count):
        axes.annotate(f"{number:.0f}", (x, y), xytext=(4, -10), textcoords="offset points")
    title = f"expected calibration error {made.values['ece']:.3f}"
    axes.set(xlabel="confidence", ylabel="right", title=title, xlim=(0, 1), ylim=(0, 1.02))
    axes.grid(alpha=0.3)
    figure.tight_layout()
    return figure
