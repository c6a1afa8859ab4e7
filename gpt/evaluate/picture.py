"""Pictures as PNG files, where matplotlib is installed (pip install 'tensorlite[plot]')."""

from __future__ import annotations

import importlib.util
import io
import os
from pathlib import Path

from tokenizer.base import write_atomic


def new_figure(width: float, height: float):
    """An empty figure of matplotlib, its size in inches; None without matplotlib.

    No pyplot: the backend is the caller's, and one that MPLBACKEND names (a notebook's) may be
    missing here, which matplotlib would not even be imported with.
    """
    if importlib.util.find_spec("matplotlib") is None:
        return None
    backend = os.environ.pop("MPLBACKEND", None)
    try:
        from matplotlib.figure import Figure
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
    return Figure(figsize=(width, height))


def plain_text(text: str) -> str:
    """A text as a label: to matplotlib, $ begins a formula."""
    return text.replace("$", r"\$")


def save_figure(figure, path: str | Path) -> None:
    """Write a figure as a PNG file, which appears whole or not at all."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    write_atomic(Path(path), picture.getvalue())
