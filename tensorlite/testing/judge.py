"""Judges every entry of a gradient by differences of the function's values."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from .differences import LOW, estimate, remainder_slope
from .probe import Line, Probe
from .report import Entry, Estimate

TELLING = 0.1  # of the largest entry: a larger error of an estimate says too little
# A Taylor remainder of order 2 speaks for the gradient, of order 1 against it, and of order 0 for a
# jump nearby. Between these two numbers it speaks against the gradient.
JUMP, QUARTERS = 0.5, 1.6


@dataclass
class Tolerance:
    """How far a gradient may be from the differences, beside the error of these.

    `relative` is a part of the entry, `absolute` a size, and `rounding` the precision in which the
    gradient was computed.
    """

    relative: float
    absolute: float
    rounding: float

    def __post_init__(self):
        if self.rounding > LOW:  # a gradient takes a few operations, and each of them rounds
            self.relative = max(self.relative, 8 * self.rounding)

    def of(self, got: float, low: float, high: float) -> float:
        return self.absolute + self.relative * max(abs(got), abs(low), abs(high))

    def for_sizes(self, largest: float) -> Tolerance:
        """The same, for gradients of which the largest entry has this size.

        If large terms cancel, their rounding errors remain in a gradient that is 0.
        """
        terms = 64 if self.rounding < LOW else 4
        absolute = self.absolute + terms * self.rounding * largest
        return Tolerance(self.relative, absolute, self.rounding)


@dataclass
class Findings:
    """The entries of a gradient that are wrong, and those that cannot be told.

    `expected` and `error` have for each argument what differences give for every entry, and by how
    much a right gradient may differ from that.
    """

    wrong: list[Entry] = field(default_factory=list)
    unknown: list[Entry] = field(default_factory=list)
    counts: dict[int, tuple[int, int]] = field(default_factory=dict)
    expected: dict[int, np.ndarray] = field(default_factory=dict)
    error: dict[int, np.ndarray] = field(default_factory=dict)
    precision: float = 0.0
    slope: float | None = None
    n_kinks: int = 0
    n_skipped: int = 0


def judge(probe: Probe, gradients: dict[int, np.ndarray], tolerance: Tolerance) -> Findings:
    """What differences say about every entry of `gradients` (argument -> array of float64).

    For most entries one central difference shows that they are right. The others are compared with
    differences of many step sizes.
    """
    found = Findings()
    sizes = {i: float(np.max(np.abs(g[np.isfinite(g)]), initial=0.0)) for i, g in gradients.items()}
    tolerance = tolerance.for_sizes(max(sizes.values(), default=0.0))
    suspects = []
    for i, gradient in gradients.items():
        found.counts[i] = 0, gradient.size
        found.expected[i] = np.full(gradient.shape, np.nan)
        found.error[i] = np.full(gradient.shape, np.inf)
        for index in np.ndindex(gradient.shape):
            if not np.isfinite(float(probe.points[i][index])):
                found.n_skipped += 1  # there are no points near infinity for differences
                continue
            got = float(gradient[index])
            slope, allowed = _quick(probe, i, index, got, tolerance)
            if not np.isfinite(allowed):
                suspects.append((i, index, got))
                continue
            found.expected[i][index], found.error[i][index] = slope, allowed
            if sizes[i] > tolerance.absolute:
                found.precision = max(found.precision, allowed / sizes[i])
    for i, index, got in suspects:
        _examine(probe, i, index, got, tolerance, sizes[i], found)
    found.wrong.sort(key=lambda entry: -_badness(entry, tolerance))
    found.unknown.sort(key=lambda entry: -entry.expected.error)
    if found.wrong and _is_low(probe, tolerance):
        worst = found.wrong[0]
        line = probe.entry(worst.argument, worst.index)
        slope = remainder_slope(line, worst.got) if np.isfinite(worst.got) else None
        found.slope = slope if slope is not None and JUMP < slope < QUARTERS else None
    return found


def _badness(entry: Entry, tolerance: Tolerance) -> float:
    """How far an entry is from what is expected, in units of what is allowed."""
    got, expected = entry.got, entry.expected
    distance = max(expected.low - got, got - expected.high)
    allowed = allowed_for(tolerance, got, expected)
    return float(np.nan_to_num(distance / allowed, nan=np.inf)) if allowed else np.inf


def allowed_for(tolerance: Tolerance, got: float, expected: Estimate) -> float:
    """How far `got` may be from an estimate."""
    times = 3 if tolerance.rounding < LOW else 2  # fits allow for more by themselves
    return tolerance.of(got, expected.low, expected.high) + times * expected.error


def is_in_doubt(line: Line, got: float, expected: Estimate, allowed: float) -> bool:
    """Whether a gradient of low precision is just beyond what is allowed, and the Taylor remainder
    does not speak for a mistake.
    """
    if max(line.eps, line.eps_steps) < LOW:
        return False
    if not expected.low - 1.5 * allowed <= got <= expected.high + 1.5 * allowed:
        return False
    slope = remainder_slope(line, got)
    return slope is not None and not JUMP < slope < QUARTERS


def says_nothing(got: float, expected: Estimate) -> bool:
    """Whether differences are NaN at every step, or grow without limit where `got` is infinite."""
    size = max(abs(expected.low), abs(expected.high))
    return bool(np.isnan(size) or (np.isinf(got) and expected.error >= size))


def _is_low(probe: Probe, tolerance: Tolerance) -> bool:
    return max(probe.eps, tolerance.rounding) > LOW


def _quick(
    probe: Probe, i: int, index: tuple, got: float, tolerance: Tolerance
) -> tuple[float, float]:
    """(slope, how far `got` may be from it) if central differences show that `got` is right.

    Otherwise the distance is infinite: more steps are needed to judge.
    """
    line = probe.entry(i, index)
    low = _is_low(probe, tolerance)
    # The step size balances the errors of truncation (step^2) and of rounding (1 / step).
    steps = [6e-6 * line.unit]
    if low:
        power = max(line.eps, line.eps_steps) ** (1 / 3)
        steps = [power * line.unit] + [power * line.size] * (line.unit < line.size)
    for step in steps:
        slope, noise = _central(line, step)
        allowed = tolerance.of(got, slope, slope)
        clear = abs(got - slope) <= allowed  # False for NaN
        if low:
            half, _ = _central(line, step / 2)  # which has a quarter of the error of truncation
            if clear and noise <= 0.3 * allowed and abs(slope - half) <= 0.5 * allowed:
                return slope, allowed + noise
            continue
        if abs(got) <= probe.lost / line.size:  # where the effect of a small step may be lost
            coarse = 1e-3 * line.size
            clear = abs(slope) <= 4 * probe.lost / step and (
                abs(_central(line, coarse)[0]) <= 4 * probe.lost / coarse
            )
        if clear:
            return slope, allowed
    return slope, np.inf


def _central(line, step: float) -> tuple[float, float]:
    """A central difference, and its error by rounding."""
    (above, up), (below, down) = line.change(step), line.change(-step)
    if above == below:
        return np.nan, np.inf
    changed = np.where((up != 0) | (down != 0), line.rounding, 0.0)
    noise = 2 * float(np.sqrt(np.sum(changed**2))) / (above - below)
    return float(np.sum(up - down) / (above - below)), noise


def _examine(probe, i, index, got, tolerance, largest, found: Findings) -> None:
    """Judge one entry by differences of many step sizes, and write it into `found`."""
    line = probe.entry(i, index)
    expected = estimate(line)
    low, high, error = expected.low, expected.high, expected.error
    allowed = allowed_for(tolerance, got, expected)
    found.expected[i][index] = (low + high) / 2
    found.error[i][index] = allowed + (high - low) / 2
    entry = Entry(i, index, got, expected)
    if np.isfinite(got) and low - allowed <= got <= high + allowed:
        found.n_kinks += low < high
        size = max(largest, abs(low), abs(high))
        if size > tolerance.absolute and np.isfinite(error):
            found.precision = max(found.precision, allowed / size)
        if error > TELLING * size and abs(got) > tolerance.absolute:
            found.unknown.append(entry)
        return
    if says_nothing(got, expected) or is_in_doubt(line, got, expected, allowed):
        found.unknown.append(entry)
        return
    found.wrong.append(entry)
    wrong, n = found.counts[i]
    found.counts[i] = wrong + 1, n
