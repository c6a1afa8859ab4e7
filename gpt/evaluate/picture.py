"""Pictures by matplotlib, where it is installed, without its global state."""

from __future__ import annotations

import importlib.util
import io
import os
from pathlib import Path

from tokenizer.base import write_atomic


def new_figure(width: float, height: float):
    """An empty matplotlib Figure of that size in inches; None without matplotlib."""
    if importlib.util.find_spec("matplotlib") is None:
        return None
    # No pyplot: the backend is the caller's, and one that MPLBACKEND names (a notebook's) may be
    # missing here, which matplotlib would not even be imported with.
    backend = os.environ.pop("MPLBACKEND", None)
    try:
        from matplotlib.figure import Figure
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
    return Figure(figsize=(width, height))


def save_figure(figure, path: str | Path) -> None:
    """Write a figure as a PNG file, which appears whole or not at all."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    write_atomic(path, picture.getvalue())
