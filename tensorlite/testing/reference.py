"""Judges a gradient by an exact function of mpmath's numbers, in units in the last place."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from ..gradients import unbroadcast
from .judge import Findings, Tolerance
from .probe import precision
from .report import Entry, Estimate

DIGITS = 50


def judge_by_reference(
    reference: Callable,
    args: Sequence[np.ndarray],
    value: np.ndarray,
    weight: np.ndarray,
    got: dict[int, np.ndarray],
    tolerance: Tolerance,
) -> tuple[Findings, list[str]]:
    """The findings, and notes that count the errors of value and gradients.

    `reference` takes one number of mpmath for each argument and returns one: the exact value of an
    elementwise function, whose arguments may broadcast. Raises ValueError for a value of another
    shape.
    """
    import mpmath

    shape = np.broadcast_shapes(*(x.shape for x in args))
    if value.shape != shape:
        raise ValueError(
            f"reference= is for elementwise functions: the value has the shape {value.shape}, the "
            f"arguments broadcast to {shape}; leave it out to compare with differences"
        )
    spread = [np.broadcast_to(x, shape) for x in args]
    exact = np.empty(shape)
    slopes = {i: np.empty(shape, object) for i in got}
    with mpmath.workdps(DIGITS):
        for index in np.ndindex(shape):
            numbers = [mpmath.mpf(x[index].item()) for x in spread]
            exact[index] = float(mpmath.re(reference(*numbers)))
            for i, slope in slopes.items():
                order = tuple(int(i == k) for k in range(len(args)))
                derivative = mpmath.diff(reference, tuple(numbers), order)
                slope[index] = mpmath.re(derivative) * float(weight[index])
        expected = {i: unbroadcast(s, args[i].shape).astype(np.float64) for i, s in slopes.items()}
    notes = [f"The value is within {_ulps(value, exact):.3g} units in the last place."]
    found = Findings()
    for i, gradient in got.items():
        units = _ulps(gradient, expected[i])
        notes.append(f"The gradient for argument {i} is within {units:.3g} units.")
        _compare(i, gradient.astype(np.float64), expected[i], tolerance, found)
    found.wrong.sort(key=lambda e: -abs(e.got - e.expected.low))
    return found, notes


def _compare(i: int, got, expected, tolerance: Tolerance, found: Findings) -> None:
    largest = float(np.max(np.abs(expected), initial=0.0))
    tolerance = tolerance.for_sizes(largest)
    found.expected[i], found.error[i] = expected, np.zeros(got.shape)
    for index in np.ndindex(got.shape):
        a, b = float(got[index]), float(expected[index])
        allowed = found.error[i][index] = tolerance.of(a, b, b)
        if not abs(a - b) <= allowed:
            error = precision(np.dtype(np.float64)) * abs(b)
            found.wrong.append(Entry(i, index, a, Estimate(b, b, error)))
        elif largest:
            found.precision = max(found.precision, allowed / largest)
    found.counts[i] = sum(entry.argument == i for entry in found.wrong), got.size


def _ulps(x: np.ndarray, exact: np.ndarray) -> float:
    """The largest distance from `exact`, in units in the last place of the dtype of `x`."""
    smallest = float(np.finfo(x.dtype if x.dtype.kind == "f" else np.float32).smallest_normal)
    worst = 0.0
    for a, b in zip(x.astype(np.float64).flat, exact.flat):
        if a != b:
            unit = precision(x.dtype) * 2.0 ** math.floor(math.log2(max(abs(b), smallest)))
            worst = max(worst, abs(a - b) / unit)
    return worst
