"""Arrays in files, which the passes of a step leave for those that follow."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np

from tokenizer.files import atomic_file


def save(path: Path, array: np.ndarray) -> None:
    """Write an array to a file, which appears whole or not at all."""
    with atomic_file(path) as file:
        # Of a real file, NumPy writes the data itself, and does not notice a disk that is full.
        np.save(SimpleNamespace(write=file.write), array, allow_pickle=False)


def open_array(path: Path) -> np.ndarray:
    """An array in a file, read as far as it is used."""
    return np.load(path, mmap_mode="r", allow_pickle=False)
