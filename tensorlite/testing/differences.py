"""The derivative of a function along a line, from differences of its values, and its error."""

from __future__ import annotations

import numpy as np

from .fits import by_fits
from .probe import Line
from .report import Estimate

RATIO = 2.6  # of a step size to the next smaller one; with an integer, periods of f could go unseen
LOW = 1e-12  # a function with less precision than this is of low precision


def estimate(line: Line) -> Estimate:
    """What differences say about the derivative along `line`.

    In float64, differences with many step sizes are extrapolated to step size 0. Where numbers are
    less precise, and where the extrapolation shows little, polynomials are fitted to the values
    (fits.py). In float64 a complex step is tried as well: it needs no subtraction, so it is as
    exact as the function. But a function may take complex numbers and be another one for them, so a
    complex step is believed only where it agrees with the differences.
    """
    exact = max(line.eps, line.eps_steps) < LOW
    if exact:
        found = by_extrapolation(line)
        if not found.error <= 1e-4 * max(abs(found.low), abs(found.high)):
            fitted = by_fits(line)
            if fitted.error < found.error and _agree(fitted, found):
                found = fitted
    else:
        found = by_fits(line)
    if exact and found.low == found.high and found.error < 0.01 * abs(found.low):
        slope = line.complex_slope()
        if slope is not None and abs(slope - found.low) <= 3 * found.error:
            error = 16 * line.eps * abs(slope)
            if error < found.error:
                return Estimate(slope, slope, error)
    return found if found.low == found.high else _with_all_kinks(line, found)


def _with_all_kinks(line: Line, found: Estimate) -> Estimate:
    """An estimate at a kink, made wide enough for any choice in each entry of the value.

    If several entries have a kink, of which some bend up and some down, a gradient may take the
    slope on the left for one and on the right for another.
    """
    step = 64 * max(line.eps, line.eps_steps) ** 0.5 * line.unit
    (above, up), (below, down) = line.change(step), line.change(-step)
    if not (above and below and np.isfinite(up).all() and np.isfinite(down).all()):
        return found
    left, right = down / below, up / above
    low, high = float(np.sum(np.minimum(left, right))), float(np.sum(np.maximum(left, right)))
    return Estimate(min(low, found.low), max(high, found.high), found.error)


def _agree(a: Estimate, b: Estimate) -> bool:
    if not np.isfinite(b.error):
        return True
    slack = 3 * (a.error + b.error)
    return a.low <= b.high + slack and b.low <= a.high + slack


@np.errstate(all="ignore")
def by_extrapolation(line: Line) -> Estimate:
    """The derivative by Richardson extrapolation.

    The step sizes go from some units in the last place of the starting point up to its size. If
    the function is defined on one side only, the slope on that side is returned.
    """
    # Beside a large number, smaller steps than 1e-10 of it: functions need not change with its size.
    least = max(1e-10 * min(line.unit, 1.0), 16 * line.eps * line.unit) if line.start else 1e-12
    n = int(np.log(0.3 * line.size / least) / np.log(RATIO))
    steps = least * RATIO ** np.arange(n)
    left, right, central = [], [], []
    last_up = last_down = visible = np.zeros(line.rounding.shape)
    for step in steps:
        (above, up), (below, down) = line.change(step), line.change(-step)
        right.append(np.sum(up) / above)
        left.append(np.sum(down) / below)
        central.append(np.sum(up - down) / (above - below))
        # A small change may be lost in the rounding of f's intermediate results. The first change
        # that is not proportional to the step shows how large that rounding is.
        if step > steps[0]:
            jump = np.maximum(np.abs(up - RATIO * last_up), np.abs(down - RATIO * last_down))
            near = step < 1e-5 * line.size  # with a larger step the cause may be a kink
            visible = np.where((visible == 0) & near, np.nan_to_num(jump, posinf=0.0), visible)
        last_up, last_down = up, down
    rounding = float(np.sum(np.maximum(line.rounding, visible)))
    from_left, from_right, both = (
        _limit(steps, np.array(slopes), rounding, power)
        for slopes, power in ((left, 1), (right, 1), (central, 2))
    )
    return combined(from_left, from_right, both)


def combined(from_left, from_right, both) -> Estimate:
    """One estimate from those on the left, on the right and on both sides: (slope, error) each."""
    gap, error = abs(from_left[0] - from_right[0]), from_left[1] + from_right[1]
    if gap > 4 * error:
        return Estimate(*sorted((from_left[0], from_right[0])), error)
    one_sided = min(from_left, from_right, key=lambda limit: limit[1])
    slope, error = both if np.isfinite(both[1]) else one_sided
    return Estimate(slope, slope, error)


def _limit(steps, slopes, rounding: float, power: int) -> tuple[float, float]:
    """The limit of the slopes as the step size goes to 0, and its error; steps are ascending.

    Uses Richardson extrapolation of three neighbouring steps, where the leading error of a slope is
    proportional to step**power. Small steps suffer from rounding, and large ones leave the range in
    which f is like a polynomial. So the steps are tried from the smallest on, the limit with the
    smallest error is kept, and the search ends at the first limit that contradicts it.
    """
    smallest = np.abs(np.diff(slopes[:5])) * steps[:4]
    rounding = max(rounding, np.max(np.nan_to_num(smallest, posinf=0.0), initial=0.0))
    best, best_error = np.nan, np.inf
    for step, a, b, c in zip(steps, slopes, slopes[1:], slopes[2:]):
        r = RATIO**power
        ab, bc = a + (a - b) / (r - 1), b + (b - c) / (r - 1)
        limit = ab + (ab - bc) / (r * r - 1)
        error = 2 * rounding / step + max(abs(limit - ab), abs(limit - bc))
        if not np.isfinite(error):
            break
        if np.isfinite(best) and abs(limit - best) > 3 * (error + best_error):
            break
        if error < best_error:
            best, best_error = limit, error
    return float(best), float(best_error)


def remainder_slope(line: Line, got: float) -> float | None:
    """The slope of the Taylor remainder in a doubly logarithmic plot, or None where it is unseen.

    The remainder |f(x + h) - f(x) - h * got| is of order h^2 if `got` is the derivative, so that
    halving the step quarters it; otherwise it is of order h, and halving the step halves it. Only
    remainders that are clearly above the rounding errors are used, and of these the smallest.
    """
    steps, remainders = [], []
    step = 0.5 * line.size
    noise = float(np.sqrt(np.sum(line.rounding**2)))
    while step > line.eps_steps * line.unit and len(steps) < 60:
        values = []
        for t in (step, -step):
            actual, delta = line.change(t)
            values.append(abs(np.sum(delta) - actual * got))
        if np.isfinite(values).all():
            if max(values) <= 8 * noise:
                break
            steps.append(step)
            remainders.append(max(values))
        step /= 1.5
    if len(steps) < 4:
        return None
    return float(np.polyfit(np.log(steps[-6:]), np.log(remainders[-6:]), 1)[0])
