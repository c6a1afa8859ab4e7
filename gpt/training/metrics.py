"""What a run measures: `metrics.jsonl`, the time of its steps, and `loss.png`, a picture."""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

from tokenizer.base import write_atomic

from ..evaluate.picture import new_figure, save_figure


class Metrics:
    """`metrics.jsonl`: one JSON object a line. Opening it cuts off the lines after step `upto`.

    With `path` None nothing is kept: for the ranks that do not write.
    """

    def __init__(self, path: Path | None, upto: int):
        self.lines = []
        if path is None:
            self.file = open(os.devnull, "a")
            return
        if upto > 0:
            lines = [line for line in read_metrics(path) if line["step"] <= upto]
            self.lines = [line for line in lines if "event" not in line]
        write_atomic(path, "".join(json.dumps(line) + "\n" for line in self.lines).encode())
        self.file = open(path, "a")  # held for the whole run

    def write(self, line: dict) -> None:
        self.lines.append(line)
        self.file.write(json.dumps(line) + "\n")
        self.file.flush()

    def sync(self) -> None:
        """Bring the lines to the disk before the checkpoint that they belong to."""
        os.fsync(self.file.fileno())


class Clock:
    """How long a run and its steps have taken. Evaluating and saving are no part of a step."""

    def __init__(self, tokens_per_step: int):
        self.tokens_per_step = tokens_per_step
        self.began, self.steps = time.perf_counter(), []  # seconds

    @contextlib.contextmanager
    def step(self) -> Iterator[None]:
        """In the block, one step is made."""
        began = time.perf_counter()
        yield
        self.steps.append(time.perf_counter() - began)

    def speed(self, last: int = 0) -> float:
        """Tokens per second: the median of the last steps, or of all (0)."""
        return self.tokens_per_step / statistics.median(self.steps[-last:])

    def left(self, steps: int) -> float:
        """About how many seconds so many steps will take."""
        return steps * statistics.median(self.steps)

    def seconds(self) -> float:
        """How long the run has taken by now."""
        return time.perf_counter() - self.began


def read_metrics(path: str | Path) -> list[dict]:
    """The lines of a metrics.jsonl, without those that are cut off or damaged; [] for no file."""
    lines = []
    if Path(path).exists():
        for text in Path(path).read_bytes().splitlines():
            with contextlib.suppress(ValueError, RecursionError):
                line = json.loads(text)
                if isinstance(line, dict) and isinstance(line.get("step"), int):
                    lines.append(line)
    return lines


def sources_in_words(measured: dict, name: str) -> str:
    """What a figure is for each source of a mixture, in words; nothing without a mixture.

    >>> sources_in_words({"val_loss": 3.21, "val_loss/web": 3.3, "val_loss/code": 2.9}, "val_loss")
    ' (web 3.3000, code 2.9000)'
    """
    begin = f"{name}/"
    each = {key.removeprefix(begin): x for key, x in measured.items() if key.startswith(begin)}
    parts = ", ".join(f"{source} {x:.4f}" for source, x in each.items())
    return f" ({parts})" if parts else ""


def finished(directory: str | Path) -> bool:
    """Whether the run in a folder has got to its end."""
    lines = read_metrics(Path(directory) / "metrics.jsonl")
    return bool(lines) and lines[-1].get("event") == "final"


def plot_losses(directory: str | Path) -> bool:
    """Draw the losses in metrics.jsonl as `loss.png`; False without matplotlib."""
    figure = new_figure(8, 5)
    if figure is None:
        return False
    lines = read_metrics(Path(directory) / "metrics.jsonl")
    axes = figure.subplots()
    for key, label in (("train_loss", "training batch"), ("val_loss", "validation (estimate)")):
        points = [(line["step"], line[key]) for line in lines if key in line]
        if points:
            style = dict(alpha=0.5) if key == "train_loss" else dict(marker="o", markersize=4)
            axes.plot(*zip(*points), label=label, **style)
    full = [line for line in lines if line.get("val_loss_full") is not None]
    if full:
        label = f"validation, whole split: {full[-1]['val_loss_full']:.3f}"
        axes.axhline(full[-1]["val_loss_full"], linestyle=":", color="gray", label=label)
    axes.set(xlabel="step", ylabel="loss (nats)")
    axes.grid(alpha=0.3)
    axes.legend()
    save_figure(figure, Path(directory) / "loss.png")
    return True
