"""Sums of short arrays in double precision, always in the same order (total.cu)."""

from __future__ import annotations

import numpy as np

from .launch import empty, launch


def total(x, divisor=None):
    """The sum of a contiguous float32 array, a 0-d array; divided by `divisor` (1,) if given."""
    out = empty((), np.float32)
    launch("total.cu", "total", (1,), (1024,), (x, np.int64(x.size), divisor, out))
    return out


def count_targets(targets, ignored: int, classes: int):
    """(the number of targets that count, 1 / that number), a float32 array (2,).

    `targets` (rows,) int64. Those that are `ignored`, or outside 0 <= target < `classes`, do not
    count. If none counts, the second number is 1.
    """
    counts = empty((2,), np.float32)
    args = targets, np.int64(targets.size), np.int64(ignored), np.int64(classes), counts
    launch("total.cu", "count_targets", (1,), (1024,), args)
    return counts
