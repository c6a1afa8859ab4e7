"""A report of figures, of one model or several side by side: a table, JSON, a picture."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from .estimate import Estimate, Sample, estimate
from .picture import new_figure, plain_text, save_figure
from .result import Result


def make_report(task: str, dataset: str, results: Mapping[str, Result], seed: int = 0) -> dict:
    """What is written as JSON: for each model its figures with their errors, and the items.

    `results` are by the names of the models. From the second model on, a figure has a "difference"
    to the first model's, estimated from the differences item by item, where both have measured the
    same items.
    """
    models, first = [], next(iter(results.values()))
    for name, result in results.items():
        figures = {}
        for figure, samples in result.figures.items():
            figures[figure] = dataclasses.asdict(estimate(samples, seed))
            off = None if result is first else differences(samples, first, figure, result)
            if off is not None:
                figures[figure]["difference"] = dataclasses.asdict(estimate(off, seed))
        models.append(
            {
                "model": name,
                "figures": figures,
                "settings": result.settings,
                "notes": result.notes,
                "left_out": result.left_out,
                "items": result.items,
            }
        )
    return {"task": task, "dataset": dataset, "interval": 0.95, "seed": seed, "models": models}


def differences(
    samples: list[Sample], first: Result, figure: str, result: Result
) -> list[Sample] | None:
    """The differences of a figure to that of the first model; None where the items are others."""
    if first.left_out != result.left_out or figure not in first.figures:
        return None
    off = [mine.minus(its) for mine, its in zip(samples, first.figures[figure])]
    return None if None in off else off


def table(report: dict) -> str:
    """The figures of a report as lines of text; settings and notes below them."""
    rows = [("model", "figure", "value", "error", "95 % interval", "items", "to the first model")]
    for model in report["models"]:
        for name, figure in model["figures"].items():
            value = Estimate(**{k: v for k, v in figure.items() if k != "difference"})
            off, shown = figure.get("difference"), ""
            if off and off["stderr"] is not None:
                shown = f"{off['value']:+.4f} ({off['low']:+.4f} to {off['high']:+.4f})"
            rows.append((model["model"], name, *_cells(value), shown))
    if len(report["models"]) == 1:
        rows = [row[:-1] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    said: dict[str, None] = {}  # each line once, in order
    for model in report["models"]:
        about = ", ".join(f"{k} {v!r}" for k, v in model["settings"].items() if v is not None)
        said |= dict.fromkeys(([about] if about else []) + model["notes"])
    return "\n".join([f"{report['task']} on {report['dataset']}", "", *lines, "", *said]).rstrip()


def _cells(e: Estimate) -> tuple[str, str, str, str]:
    if e.stderr is None:
        return f"{e.value:.4f}", "", "", str(e.n)
    return f"{e.value:.4f}", f"{e.stderr:.4f}", f"{e.low:.4f} to {e.high:.4f}", str(e.n)


def draw(report: dict, path: str) -> None:
    """A picture: each figure of each model as a point with its interval.

    Raises ValueError where matplotlib is missing.
    """
    models, names = report["models"], list(report["models"][0]["figures"])
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    picture = new_figure(4 * columns, (1.2 + 0.3 * len(models)) * rows)
    if picture is None:
        raise ValueError("a --picture needs matplotlib: pip install 'tensorlite[plot]'")
    picture.set_layout_engine("constrained")
    grid = list(picture.subplots(rows, columns, sharey=True, squeeze=False).flat)
    for axes, name in zip(grid, names):
        for y, model in enumerate(models):
            e = model["figures"][name]
            if e["stderr"] is not None:
                axes.plot([e["low"], e["high"]], [y, y], color="C0", alpha=0.5)
            axes.plot(e["value"], y, "o", color="C0")
        axes.set(title=plain_text(name), ylim=(len(models) - 0.5, -0.5))
        axes.set_yticks(range(len(models)), [plain_text(model["model"]) for model in models])
        axes.locator_params(axis="x", nbins=5)
        axes.grid(axis="x", alpha=0.3)
    for axes in grid[len(names) :]:  # places for which there is no figure
        axes.axis("off")
    where = plain_text(report["dataset"])
    picture.suptitle(f"{report['task']} on {where}, with 95 % intervals")
    save_figure(picture, path)
