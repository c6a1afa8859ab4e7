"""Judges a large gradient along random directions, at a cost that does not grow with its size.

Along a direction v the derivative is g.v, whatever the number of entries. If v is Gaussian and the
error of the gradient is a vector of length e, then the error of g.v is drawn from a normal
distribution with the standard deviation e: it is smaller than t with a probability of at most
0.8 t / e, and in k directions with that to the power of k.
"""

from __future__ import annotations

import numpy as np

from .differences import LOW, estimate
from .judge import TELLING, Findings, Tolerance, allowed_for, says_nothing
from .probe import Line, Probe, precision
from .report import Entry, Estimate

DRAWN = 16  # entries that are judged in low precision, where the bisection ends at a right one


def judge_along(
    probe: Probe, gradients: dict, tolerance: Tolerance, n_directions: int, seed: int
) -> Findings:
    """What differences say about `gradients` (argument -> array) along random directions.

    The function is called three times for each direction; where something looks wrong, more often.
    Then the worst entry is found by bisection, and judged by itself.
    """
    found, missed = Findings(), 0.0
    finite = {i: np.isfinite(probe.points[i].astype(np.float64)) for i in gradients}
    for i, gradient in gradients.items():
        bad = np.argwhere(~np.isfinite(gradient) & finite[i])
        if len(bad):
            index = tuple(map(int, bad[0]))
            expected = estimate(probe.entry(i, index))
            entry = Entry(i, index, float(gradient[index]), expected)
            if says_nothing(entry.got, expected):
                found.unknown.append(entry)
                continue
            found.wrong.append(entry)
            found.counts[i] = len(bad), gradient.size
    if found.wrong or found.unknown or not gradients:
        return found
    # There are no points near infinity to take differences from. A step is measured in units of
    # each argument's own size.
    gradients = {i: np.where(finite[i], g, 0.0) for i, g in gradients.items()}
    units = {i: probe.sizes[i] or 1.0 for i in gradients}
    length = np.sqrt(sum(units[i] ** 2 * np.sum(g**2) for i, g in gradients.items()))
    for k in range(n_directions):
        rng = np.random.default_rng([seed, k])
        vectors = {
            i: rng.standard_normal(g.shape) * np.where(finite[i], units[i], 0.0)
            for i, g in gradients.items()
        }
        line = probe.direction(vectors, gradients)
        got = sum(float(np.vdot(g, vectors[i])) for i, g in gradients.items())
        expected = along(line)
        allowed = tolerance.absolute + tolerance.relative * length
        if not abs(got - expected.low) <= allowed + 2 * expected.error or (
            expected.error > TELLING * max(length, abs(expected.low))
        ):
            expected = estimate(line)
        low, high, error = expected.low, expected.high, expected.error
        allowed = allowed_for(tolerance, got, expected) + tolerance.relative * length
        size = max(length, abs(low), abs(high))
        missed = max(missed, allowed / size if size else 0.0)
        here = Entry(None, (), got, expected)
        if np.isfinite(error) and not low - allowed <= got <= high + allowed:
            worst = _worst_entry(probe, gradients, vectors, tolerance)
            # Kinks of many entries may bend to both sides, so what is between them is not known. In
            # low precision they are farther apart than the steps, and the slope is that of a mean.
            low_precision = max(line.eps, line.eps_steps) > LOW
            if worst is None and (low < high or low_precision):
                found.unknown.append(here)
                continue
            found.wrong.append(worst or here)
            break
        if not np.isfinite(error) or error > TELLING * size:
            if size > tolerance.absolute:
                found.unknown.append(here)
    found.precision = missed
    return found


def along(line: Line) -> Estimate:
    """The derivative from three values, at the steps h, -h and 2 h.

    Together with the value at 0 they give the slope of a cubic polynomial, and the first two a
    central difference. The difference of the two slopes is the error of the less exact one.
    """
    # The step size balances the errors of truncation (step^3) and of rounding (1 / step).
    h = max(line.eps, line.eps_steps) ** 0.25
    up, down, far = (float(np.sum(line.change(t)[1])) for t in (h, -h, 2 * h))
    central = (up - down) / (2 * h)
    cubic = (6 * up - 2 * down - far) / (6 * h)
    noise = 2 * float(np.sqrt(np.sum(line.rounding**2))) / h
    error = abs(cubic - central) + noise
    return Estimate(cubic, cubic, error if np.isfinite(error) else np.inf)


def chance_of_missing(precision: float, n_directions: int, error: float) -> float:
    """The probability that no direction shows a gradient that is wrong by a relative `error`."""
    return min(1.0, 0.8 * precision / error) ** n_directions


def _worst_entry(probe: Probe, gradients: dict, vectors: dict, tolerance: Tolerance):
    """The entry that is found by always going on with the half that is more wrong.

    Each halving takes two values: what one half does not explain is in the other. In low precision
    some entries that are drawn are judged too. Returns None if none is wrong by itself.
    """
    numbers = list(gradients)  # the entries of all arguments are numbered through
    ends = np.cumsum([gradients[i].size for i in numbers])
    starts = np.concatenate([[0], ends[:-1]])
    first_step = max(probe.eps, *(precision(probe.points[i].dtype) for i in numbers)) ** 0.25
    n = int(ends[-1])

    def missing(first: int, last: int) -> float:
        """How far the derivative is from the gradient, along the entries from first to last."""
        some, got = {}, 0.0
        for i, start, end in zip(numbers, starts, ends):
            a, b = max(first, start) - start, min(last, end) - start
            if a < b:
                v = np.zeros(gradients[i].size)
                v[a:b] = vectors[i].reshape(-1)[a:b]
                some[i] = v.reshape(gradients[i].shape)
                got += float(np.vdot(gradients[i], some[i]))
        line = probe.direction(some, gradients)
        h = min(10 * first_step, first_step * (n / (last - first)) ** 0.5)
        up, down = (float(np.sum(line.change(t)[1])) for t in (h, -h))
        return (up - down) / (2 * h) - got

    first, last = 0, n
    rest = missing(first, last)
    while last - first > 1:
        middle = (first + last) // 2
        in_first = missing(first, middle)
        if abs(in_first) >= abs(rest - in_first) or not np.isfinite(in_first):
            last, rest = middle, in_first
        else:
            first, rest = middle, rest - in_first
    tried = [first]
    if first_step > LOW**0.25:  # rounding may have led the bisection astray
        tried += list(np.random.default_rng(0).integers(n, size=DRAWN))
    for number in tried:
        which = int(np.searchsorted(ends, number, side="right"))
        i = numbers[which]
        index = tuple(map(int, np.unravel_index(number - starts[which], gradients[i].shape)))
        got, expected = float(gradients[i][index]), estimate(probe.entry(i, index))
        allowed = allowed_for(tolerance, got, expected)
        if not np.isnan(expected.low) and not (
            expected.low - allowed <= got <= expected.high + allowed
        ):
            return Entry(i, index, got, expected)
    return None
