"""Student's t-test: would chance alone show such a difference?"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def p_below_zero(x: Sequence[float]) -> float:
    """The one-sided t-test (Student, 1908) that the mean of x, (n,), is below 0: its p.

    If the true mean was 0, a mean that is as far below 0, compared with the spread of the values,
    would be found with this probability. NaN for fewer than two values.

    >>> round(p_below_zero([-1.0, -2.0, -3.0]), 4)
    0.0371
    """
    n = len(x)
    if n < 2:
        return math.nan
    mean, error = float(np.mean(x)), float(np.std(x, ddof=1)) / math.sqrt(n)
    if error == 0:
        return 0.5 if mean == 0 else float(mean > 0)
    return student(mean / error, n - 1)


def student(t: float, f: int) -> float:
    """The probability of a value below t in Student's distribution with f degrees of freedom.

    The finite sums for whole f of Abramowitz and Stegun (1964), 26.7.3 and 26.7.4.

    >>> round(student(2.92, 2), 3), round(student(-2.353, 3), 3)
    (0.95, 0.05)
    """
    angle = math.atan(t / math.sqrt(f))
    term, total = math.cos(angle) if f % 2 else 1.0, 0.0
    for k in range(f % 2, f - 1, 2):
        total += term
        term *= math.cos(angle) ** 2 * (k + 1) / (k + 2)
    inside = math.sin(angle) * total  # the probability between -|t| and |t|, with the sign of t
    if f % 2:
        inside = 2 / math.pi * (angle + inside)
    return (1 + inside) / 2


def p_text(p: float) -> str:
    """
    >>> p_text(0.00042), p_text(0.034), p_text(math.nan)
    ('< 0.001', '0.034', 'unknown')
    """
    if math.isnan(p):
        return "unknown"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
