"""The derivative of a function of low precision, by polynomials fitted to many of its values.

A difference of two rounded values shows little where numbers have 24 bits or 8. A polynomial that
is fitted to many values averages their rounding errors, and what it leaves over shows how large
these are: nothing about the function's precision needs to be known.
"""

from __future__ import annotations

import numpy as np

from .probe import Line
from .report import Estimate

ROOT = 2**0.5  # of a step size to the next smaller one
DENSE = 24  # further steps on each side, in the range that shows most


@np.errstate(all="ignore")
def by_fits(line: Line) -> Estimate:
    """The derivative along `line`, by least squares.

    Values are taken at steps of both signs, in a geometric series. In each range of steps up to
    some size, polynomials of several degrees are fitted: small ranges suffer from rounding, large
    ones from the function's curvature. The range in which the error is smallest is then filled with
    further steps.
    """
    top = 0.5 * line.size
    bottom = 4 * max(line.eps_steps, line.eps / 4) * line.unit
    n = max(8, int(np.log(top / bottom) / np.log(ROOT)))
    samples = [(0.0, 0.0, _noise(line, None))]
    for t in top * ROOT ** -np.arange(n):
        samples += [_sample(line, t), _sample(line, -t)]
    ranges = top * ROOT ** -np.arange(n - 1.0, -1, -2)
    *_, best_range = _best(samples, ranges, "both")
    if not np.isfinite(best_range):
        best_range = top / 4
    for k in range(DENSE):
        t = best_range * (k + 0.6) / DENSE
        samples += [_sample(line, t), _sample(line, -t)]
    left, right, both = (_best(samples, ranges, side)[:2] for side in ("left", "right", "both"))
    return _combined(left, right, both)


def _combined(left, right, both) -> Estimate:
    gap, error = abs(left[0] - right[0]), left[1] + right[1]
    if gap > 3 * error:
        return Estimate(*sorted((left[0], right[0])), error)
    slope, error = both if np.isfinite(both[1]) else min(left, right, key=lambda s: s[1])
    return Estimate(slope, slope, error)


def _sample(line: Line, t: float) -> tuple[float, float, float]:
    """(the step that was taken, the change of the weighted sum, its rounding error)."""
    step, delta = line.change(t)
    return step, float(np.sum(delta)), _noise(line, delta)


def _noise(line: Line, delta) -> float:
    """The standard deviation of the rounding error of the sum, of the entries that change."""
    rounding = line.rounding
    if delta is not None and np.any(delta):
        rounding = np.where(delta != 0, rounding + line.eps * np.abs(delta), 0.0)
    return 0.3 * float(np.sqrt(np.sum(rounding**2)))


def _best(samples: list, ranges, side: str) -> tuple[float, float, float]:
    """(slope, error, range) of the fit with the smallest error, from the smallest range on.

    The search ends at the first fit that contradicts the best one before it.
    """
    d, s, noise = np.array(samples).T
    usable = np.isfinite(s)
    usable &= {"both": d == d, "left": d <= 0, "right": d >= 0}[side]
    d, s, noise = d[usable], s[usable], noise[usable]
    best = np.nan, np.inf, np.nan
    for h in ranges:
        inside = np.abs(d) <= h * 1.01
        if side == "both" and not (np.any(d[inside] > 0) and np.any(d[inside] < 0)):
            continue
        slope, error = _fit(d[inside] / h, s[inside], noise[inside], side)
        slope, error = slope / h, error / h
        if not np.isfinite(error):
            continue
        if np.isfinite(best[0]) and abs(slope - best[0]) > error + best[1]:
            break
        if error < best[1]:
            best = slope, error, h
    return best


def _fit(u, s, noise, side: str) -> tuple[float, float]:
    """The slope at 0 of the best polynomial through (u, s), and its error."""
    degrees = (1, 3, 5, 7) if side == "both" else (1, 2, 3, 4, 5)
    fits = []
    floor = float(np.sqrt(np.mean(noise**2))) if len(noise) else 0.0
    for degree in degrees:
        free = len(np.unique(u)) - degree - 1
        if free < 3:
            break
        powers = np.vander(u, degree + 1, increasing=True)
        inverse = np.linalg.pinv(powers)
        coefficients = inverse @ s
        left_over = s - powers @ coefficients
        sigma = max(float(np.sqrt(np.sum(left_over**2) / free)), floor)
        fits.append((coefficients[1], 2 * sigma * float(np.linalg.norm(inverse[1]))))
    best = np.nan, np.inf
    for (slope, error), (finer, _) in zip(fits, fits[1:]):
        error += abs(finer - slope)
        if error < best[1]:
            best = float(slope), float(error)
    return best
