"""How sure a figure is: its standard error, and an interval that holds the truth 95 times in 100.

A figure is a mean over items: questions, or blocks of a text. Another set of items would have given
another figure. How far it would be off is judged from how much the items differ: by a formula, and
by the bootstrap (Efron, 1979), which draws the items again, with replacement, many times.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tensorlite.device import random

Z = 1.959964  # of a normal distribution, 95 % lies between -Z and Z
RESAMPLES = 1000


@dataclass(frozen=True)
class Sample:
    """The items behind a figure, which is sum(values) / sum(weights), or the exponential of that.

    `values` (n,) and `weights` (n,) are float64; without weights, each item counts the same.
    `difference` says that the values are those of one model less those of another.
    """

    values: np.ndarray
    weights: np.ndarray | None = None
    exp: bool = False
    difference: bool = False

    @property
    def n(self) -> int:
        return len(self.values)

    @property
    def mean(self) -> float:
        return float(self.values.sum() / self.counts.sum())

    @property
    def counts(self) -> np.ndarray:
        return np.ones(self.n) if self.weights is None else self.weights

    @property
    def stderr(self) -> float:
        """The standard error of the mean; of a ratio of sums, to first order.

        Without weights this is the standard deviation (with n - 1) over the root of n.
        """
        off = self.values - self.mean * self.counts  # (n,), their sum is 0
        return float(math.sqrt(self.n / (self.n - 1) * (off @ off)) / self.counts.sum())

    def resampled_deviations(self, *key: int | str) -> np.ndarray:
        """How far the means of drawn sets of items are from `mean`: (RESAMPLES,), by a random key.

        Plain bootstrap intervals are too narrow for few items. The deviations are widened by what
        turns them into those of Student's distribution ("expanded percentile interval", Hesterberg,
        2015; the quantile is the expansion of Cornish and Fisher).
        """
        rng, n, counts = random(*key), self.n, self.counts
        means = np.empty(RESAMPLES)
        step = max(1, 2**20 // n)
        for i in range(0, RESAMPLES, step):
            drawn = rng.integers(0, n, (min(step, RESAMPLES - i), n))  # (sets, n)
            means[i : i + step] = self.values[drawn].sum(1) / counts[drawn].sum(1)
        f, z2 = n - 1, Z**2
        student = 1 + (z2 + 1) / (4 * f) + (5 * z2**2 + 16 * z2 + 3) / (96 * f**2)  # over Z
        return (means - self.mean) * student * math.sqrt(n / f)

    def minus(self, other: Sample) -> Sample | None:
        """The differences item by item, which vary less than either does.

        None where the items are not the same, and for exponentials, whose difference is no mean.
        """
        same = self.n == other.n and np.array_equal(self.counts, other.counts)
        if self.exp or not same:
            return None
        return Sample(self.values - other.values, self.weights, difference=True)


@dataclass(frozen=True)
class Estimate:
    """A figure, its standard error, and the ends of its 95 % interval: None for fewer than 2 items.

    `n` is the number of items.
    """

    value: float
    stderr: float | None
    low: float | None
    high: float | None
    n: int


def estimate(samples: Sequence[Sample], seed: int = 0) -> Estimate:
    """The mean of the means of one or more independent samples.

    >>> estimate([Sample(np.array([1.0, 0.0, 1.0, 1.0]))])
    Estimate(value=0.75, stderr=0.25, low=0.30064..., high=0.95441..., n=4)

    The interval is the bootstrap's. Where the items of a single sample are right or wrong, it is
    given by a formula instead: of ten right answers out of ten, resampling would find no doubt at
    all. Raises ValueError for a sample without items.
    """
    n = sum(s.n for s in samples)
    if not all(s.n for s in samples) or not samples:
        raise ValueError("a figure is a mean over items, and there are none")
    value = float(np.mean([s.mean for s in samples]))
    if min(s.n for s in samples) < 2:
        exp = samples[0].exp
        return Estimate(math.exp(value) if exp else value, None, None, None, n)
    stderr = math.sqrt(sum(s.stderr**2 for s in samples)) / len(samples)
    exact = interval(samples[0]) if len(samples) == 1 else None
    if exact is None:
        drawn = [s.resampled_deviations(seed, "bootstrap", i) for i, s in enumerate(samples)]
        exact = value + np.quantile(np.mean(drawn, axis=0), [0.025, 0.975])
    low, high = map(float, exact)
    if samples[0].exp:
        value, low, high = (math.exp(x) for x in (value, low, high))
        stderr *= value
    return Estimate(value, stderr, low, high, n)


def interval(sample: Sample) -> tuple[float, float] | None:
    """The interval of a share of items, or of the difference of two shares; None for others.

    Shares: Wilson (1927), the shares from which the one found is not too far off. Differences of
    the same items: Bonett and Price (2012), as if each model alone were right on one item more;
    where the models differ on a few items only, it is wider than it need be.
    """
    values, n, p = sample.values, sample.n, sample.mean
    possible = (-1, 0, 1) if sample.difference else (0, 1)
    if sample.weights is not None or not np.isin(values, possible).all():
        return None
    if sample.difference:
        p, n = p * n / (n + 2), n + 2
        half = Z * math.sqrt(((np.abs(values).sum() + 2) / n - p**2) / n)
        return max(-1.0, p - half), min(1.0, p + half)
    center = (p + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z * math.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2)) / (1 + Z**2 / n)
    return max(0.0, center - half), min(1.0, center + half)
