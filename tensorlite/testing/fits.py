"""The derivative of a function of low precision, by polynomials fitted to many of its values.

A difference of two rounded values shows little where numbers have 24 bits or 8. A polynomial that
is fitted to many values averages their rounding errors, and what it leaves over shows how large
these are: nothing about the function's precision needs to be known.
"""

from __future__ import annotations

import numpy as np

from .probe import Line
from .report import Estimate

DENSE = 24  # further steps on each side, in the range that shows most
TURNS = 0.1  # of the values: a polynomial that leaves more over does not follow the function


@np.errstate(all="ignore")
def by_fits(line: Line) -> Estimate:
    """The derivative along `line`, by least squares.

    Values are taken at steps of both signs, in a geometric series. In each range of steps up to
    some size, polynomials of several degrees are fitted: small ranges suffer from rounding, large
    ones from the function's curvature. The range in which the error is smallest is then filled with
    further steps.
    """
    top = 0.5 * max(line.size, line.typical)
    bottom = 4 * max(line.eps_steps, line.eps / 4) * line.unit
    ratio = 2.0 if max(line.eps, line.eps_steps) < 1e-5 else 2**0.5
    n = max(8, int(np.log(top / bottom) / np.log(ratio)))
    ranges = top * ratio ** -np.arange(n - 1.0, -1, -1)
    samples, moving = [(0.0, 0.0, 0.0)], np.zeros(line.rounding.shape, bool)
    for t in (*ranges, *-ranges):
        step, delta = line.change(t)
        samples.append(_sample(line, step, delta))
        moving |= delta != 0
    # The rounding errors that count are those of the entries that change anywhere.
    rounding = float(np.sqrt(np.sum(line.rounding**2, where=moving if moving.any() else True)))
    fits = (_best(samples, ranges, rounding, side) for side in ("both", "left", "right"))
    range_ = next((h for _, _, h in fits if np.isfinite(h)), top / 4)
    for t in range_ * (np.arange(DENSE) + 0.6) / DENSE:
        samples += [_sample(line, *line.change(t)), _sample(line, *line.change(-t))]
    ranges = ranges[ranges > range_ / 100]  # rounding hides everything in smaller ones
    left, right, both = (
        _best(samples, ranges, rounding, side)[:2] for side in ("left", "right", "both")
    )
    gap, error = abs(left[0] - right[0]), left[1] + right[1]
    if gap > 3 * error:
        return Estimate(*sorted((left[0], right[0])), error)
    slope, error = both
    if not np.isfinite(error):  # at the edge of the domain itself
        slope, error = min(left, right, key=lambda s: s[1])
        error *= 4
    elif np.isfinite(gap):  # a kink that is not clear enough to be called one
        error = max(error, gap - left[1] - right[1])
    return Estimate(slope, slope, float(error))


def _sample(line: Line, step: float, delta) -> tuple[float, float, float]:
    """(the step, the change of the weighted sum, the rounding error of this change itself)."""
    return step, float(np.sum(delta)), line.eps * float(np.linalg.norm(delta))


def _best(samples: list, ranges, rounding: float, side: str) -> tuple[float, float, float]:
    """(slope, error, range) of the fit with the smallest error, from the smallest range on.

    The search ends at the first fit that contradicts one before it, and halfway to the edge of the
    domain.
    """
    d, s, noise = np.array(sorted(samples)).T
    noise = np.hypot(rounding, noise)
    usable = {"both": d == d, "left": d <= 0, "right": d >= 0}[side]
    outside = np.abs(d[usable & ~np.isfinite(s)])
    usable &= np.isfinite(s)
    d, s, noise = d[usable], s[usable], noise[usable]
    # Functions are often steep at the edge of their domain, and no polynomials there.
    ranges = ranges[ranges < 0.5 * np.min(outside, initial=np.inf)]
    best, low, high = (np.nan, np.inf, np.nan), -np.inf, np.inf
    for h in ranges:
        inside = (np.abs(d) <= h * 1.01) & ((np.abs(d) > h / 40) | (d == 0))
        if side == "both" and not (np.any(d[inside] > 0) and np.any(d[inside] < 0)):
            continue
        slope, error = _fit(d[inside] / h, s[inside], noise[inside], side)
        slope, error = slope / h, error / h
        if not np.isfinite(error):
            continue
        low, high = max(low, slope - 1.5 * error), min(high, slope + 1.5 * error)
        if low > high:
            break
        if error < best[1]:
            best = float(slope), float(error), float(h)
    return best


def _fit(u, s, noise, side: str) -> tuple[float, float]:
    """The slope at 0 of the best polynomial through (u, s), with ascending u, and its error.

    The error is that of 95 in 100 fits, as what is left over shows it, plus the difference to a
    polynomial of higher degree.
    """
    degrees = (1, 3, 5, 7) if side == "both" else (1, 2, 3, 4, 5)
    n_points, n_values = 1 + np.count_nonzero(np.diff(u)), len(np.unique(s))
    degrees = [degree for degree in degrees if n_points - degree - 1 >= 3]
    if not degrees:
        return np.nan, np.inf
    unit = float(np.sqrt(np.mean(noise**2)))  # in the last place; the deviation is 0.3 of it
    # If rounding leaves few different values, all may be off to the same side by half a step.
    stairs = np.ptp(s) / n_values if n_values > 1 else unit
    flat = stairs if n_values < 8 and unit > 0 else 0.0
    q, r = np.linalg.qr(np.vander(u, degrees[-1] + 1, increasing=True))
    inverse = np.linalg.inv(r)  # and its corners are the inverses for lower degrees
    part, fits = q.T @ s, []
    for degree in degrees:
        m = degree + 1
        row = inverse[1, :m]
        left_over = s - q[:, :m] @ part[:m]
        sigma = float(np.sqrt(np.sum(left_over**2) / (n_points - m)))
        # More than rounding is left over where the function turns faster than the points follow.
        unseen = sigma > max(TURNS * np.ptp(s), 32 * unit)
        # Rounding errors of neighbours are often alike, and then their average is not as small.
        alike = np.vdot(left_over[1:], left_over[:-1]) / (np.vdot(left_over, left_over) or 1.0)
        alike = min(max(alike, 0.0), 0.9)
        sigma = max(sigma * np.sqrt((1 + alike) / (1 - alike)), 0.3 * unit)
        free = n_points - m
        sure = 1.96 + 2.4 / free + 4 / free**2  # Student's t: 95 of 100 are nearer than so many
        error = sure * sigma * float(np.linalg.norm(row)) + flat + unit / 2
        fits.append((row @ part[:m], np.inf if unseen else error))
    best = np.nan, np.inf
    for (slope, error), (finer, _) in zip(fits, fits[1:]):
        error += abs(finer - slope)
        if error < best[1]:
            best = float(slope), float(error)
    return best
