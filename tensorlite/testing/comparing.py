"""Whether two results are the same, up to the rounding errors that may be between them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ..arraylike import is_float
from .probe import precision

# By how much two results may differ: relative to the largest entry, and in units in the last place
# of their dtype; the larger of the two counts, but at most 0.1. Two calls with the same arguments
# differ by little. Another order of summation may cost digits, the more so in a function that
# computes in float32 or bfloat16 inside; what is looked for there differs by much more than that.
EXACTLY = 0.0, 0.0
REPEATED = 0.0, 1e4
REARRANGED = 1e-3, 10.0
ADDED = 0.05, 10.0


def differ(
    found: list,
    expected: list,
    tolerance: tuple[float, float],
    noise: Callable[[int], float] | None = None,
    names: list | None = None,
) -> str:
    """Words on the entry of `found` that differs most from `expected`, or "" if none differs.

    Where `expected` has None nothing is compared. `noise(i)` gives the rounding error that is
    allowed beside the tolerance; it is asked for only where the tolerance is exceeded.
    """
    for i, (a, b) in enumerate(zip(found, expected)):
        if b is None:
            continue
        name = names[i] if names else f"the gradient of argument {i}"
        if np.shape(a) != np.shape(b) or a is None:
            given = "None" if a is None else f"of shape {np.shape(a)}"
            return f"{name} is {given} instead of shape {np.shape(b)}"
        relative, units = tolerance
        allowed = max(relative, min(0.1, units * unit(b))) * largest(b)
        a, b = wide(a), wide(b)
        distance = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, np.abs(a - b))
        distance = np.where(np.isnan(distance), np.inf, distance)
        if distance.size and distance.max() > allowed:
            if noise and distance.max() <= allowed + noise(i):
                continue
            at = np.unravel_index(np.argmax(distance), distance.shape)
            found, expected = distinct(a[at], b[at])
            return f"{name} at {tuple(map(int, at))} is {found} instead of {expected}"
    return ""


def distinct(a: float, b: float) -> tuple[str, str]:
    """Two numbers in words, with all digits where fewer would show no difference.

    >>> distinct(1.0, 2.0), distinct(1.0, 1.0 + 2**-50)
    (('1', '2'), ('1', '1.0000000000000009'))
    """
    digits = 10 if f"{a:.10g}" != f"{b:.10g}" else 17
    return f"{a:.{digits}g}", f"{b:.{digits}g}"


def minus(a: list, b: list) -> list:
    """a - b in float64, None where one of both is None."""
    return [None if x is None or y is None else wide(x) - wide(y) for x, y in zip(a, b)]


def copies(arrays: Sequence) -> list:
    """The same with a copy of each array, in the same memory order."""
    return [np.array(a) if isinstance(a, (np.ndarray, np.generic)) else a for a in arrays]


def is_real(array) -> bool:
    return hasattr(array, "dtype") and is_float(array.dtype)


def wide(array) -> np.ndarray:
    return np.asarray(array).astype(np.float64)


def largest(array) -> float:
    """The size of the largest finite entry, 0 for None and for an array without entries."""
    size = np.zeros(0) if array is None else np.abs(wide(array))
    return float(np.max(size, initial=0.0, where=np.isfinite(size)))


def unit(array: np.ndarray) -> float:
    """One unit in the last place of 1, in the dtype of the array."""
    return precision(array.dtype) if is_float(array.dtype) else 0.0
