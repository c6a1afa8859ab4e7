"""Intervals hold the truth 95 times in 100; standard errors are those of the books."""

import itertools
import math

import numpy as np
import pytest

from gpt.evaluate.answers import majority, pass_at_k
from gpt.evaluate.estimate import Sample, estimate

SIMULATIONS = 2000
# Of 2,000 intervals, 1,900 hold the truth, give or take three standard deviations of a binomial.
FEWEST, MOST = (0.95 + sign * 3 * math.sqrt(0.95 * 0.05 / SIMULATIONS) for sign in (-1, 1))


def share_that_holds(draw, simulations: int = SIMULATIONS) -> float:
    """How often the interval of drawn samples, (samples, truth), holds the truth."""
    hits = 0
    for i in range(simulations):
        samples, truth = draw(np.random.default_rng([7, i]))
        e = estimate(samples, seed=i)
        hits += e.low <= truth <= e.high
    return hits / simulations


def accuracies(rng):
    truth = rng.uniform(0.05, 0.95)
    return [Sample((rng.random(80) < truth).astype(float))], truth


def scores(rng):
    return [Sample(rng.normal(3, 1, 25))], 3.0


def differences(rng):
    """Two models that answer 150 questions alike three times in four."""
    a, b, alike = (rng.random(150) < share for share in (0.5, 0.7, 0.75))
    b = np.where(alike, a, b)
    return [Sample(b.astype(float)).minus(Sample(a.astype(float)))], 0.25 * 0.2


def suites(rng):
    shares = rng.uniform(0.3, 0.8, 2)
    return [Sample((rng.random(30) < p).astype(float)) for p in shares], shares.mean()


def perplexities(rng):
    """A text whose losses change slowly: 40 blocks of 50 tokens. In the mean they are 2."""
    noise = rng.normal(0, 0.5, 2004)
    slow = sum(noise[i : i + 2000] for i in range(5)) / 5
    nats = (2 + slow).reshape(40, 50).sum(1)
    return [Sample(nats, np.full(40, 50.0), exp=True)], math.exp(2)


@pytest.mark.parametrize("draw", [accuracies, scores, differences, suites, perplexities])
def test_intervals_hold_the_truth(draw):
    assert FEWEST <= share_that_holds(draw) <= MOST


def test_an_interval_that_is_too_narrow_is_noticed():
    def overconfident(rng):
        samples, truth = scores(rng)
        return [Sample(np.repeat(samples[0].values, 2))], truth  # each item counted twice

    assert share_that_holds(overconfident, 500) < 0.87


def test_standard_errors():
    x = np.random.default_rng(0).random(50)
    assert Sample(x).stderr == pytest.approx(np.std(x, ddof=1) / math.sqrt(50))
    # A ratio with equal weights is a mean; the exponential's error is to first order.
    assert Sample(3 * x, np.full(50, 3.0)).stderr == pytest.approx(Sample(x).stderr)
    e = estimate([Sample(x, exp=True)])
    assert e.value == pytest.approx(math.exp(x.mean()))
    assert e.stderr == pytest.approx(e.value * Sample(x).stderr)
    # Independent samples count alike, whatever their sizes.
    two = estimate([Sample(x), Sample(x[:10])])
    assert two.value == pytest.approx((x.mean() + x[:10].mean()) / 2)
    expected = math.hypot(Sample(x).stderr, Sample(x[:10]).stderr) / 2
    assert two.stderr == pytest.approx(expected)


def test_a_ratio_of_sums_has_the_error_that_repetition_shows():
    rng = np.random.default_rng(1)
    w = rng.uniform(1, 9, (4000, 60))
    v = w * rng.normal(2, 1, w.shape)
    spread = np.std(v.sum(1) / w.sum(1))
    assert np.mean([Sample(a, b).stderr for a, b in zip(v, w)]) == pytest.approx(spread, rel=0.05)


def test_estimates_depend_on_the_seed_alone():
    sample = Sample(np.random.default_rng(0).random(30))
    assert estimate([sample], seed=3) == estimate([sample], seed=3)
    assert estimate([sample], seed=3).low != estimate([sample], seed=4).low


def test_nothing_is_sure_after_a_few_right_answers():
    e = estimate([Sample(np.ones(10))])
    assert (e.value, e.stderr) == (1.0, 0.0) and 0.7 < e.low < 0.73
    e = estimate([Sample(np.ones(10)).minus(Sample(np.ones(10)))])
    assert (e.value, e.stderr) == (0.0, 0.0) and e.low < -0.1 and e.high > 0.1
    assert estimate([Sample(np.ones(1))]).low is None
    with pytest.raises(ValueError, match="there are none"):
        estimate([Sample(np.ones(0))])


def test_a_difference_needs_the_same_items():
    a, b = Sample(np.array([1.0, 0, 1])), Sample(np.array([0.0, 0, 1]))
    assert a.minus(b).values.tolist() == [1, 0, 0]
    assert a.minus(Sample(np.ones(2))) is None
    assert Sample(np.ones(3), np.ones(3), exp=True).minus(a) is None
    assert Sample(np.ones(3), np.array([1.0, 2, 3])).minus(a) is None


@pytest.mark.parametrize("n", [1, 2, 5, 7])
def test_pass_at_k_counts_the_sets_of_answers(n):
    for c, k in itertools.product(range(n + 1), range(1, n + 1)):
        sets = list(itertools.combinations(range(n), k))
        expected = sum(min(chosen) < c for chosen in sets) / len(sets)  # the first c are right
        assert pass_at_k(n, c, k) == pytest.approx(expected, abs=1e-12)


def test_majority():
    assert majority(["7", "8", None, "8", ""]) == "8"
    assert majority(["7", "8"]) == "7"  # the one that was drawn first
    assert majority([None, ""]) is None
