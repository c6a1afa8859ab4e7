"""Large gradients along random directions: the cost, what is found, and the worst entry."""

import numpy as np
import pytest

import tensorlite as tl
from tensorlite.testing import WrongGradient, check_grads, check_vjp, examine_vjp
from tensorlite.testing.directions import along, chance_of_missing
from tensorlite.testing.probe import Probe

W = np.random.default_rng(0).standard_normal((100, 200))


class Counted:
    """A function of many parameters, and the number of its evaluations."""

    def __init__(self):
        self.n = 0

    def __call__(self, w):
        self.n += 1
        y = np.tanh(w)
        return (y * y).sum()


def vjp(g, w):
    y = np.tanh(w)
    return g * 2 * y * (1 - y * y)


@pytest.mark.parametrize("k", [1, 4])
def test_three_evaluations_a_direction(k):
    f = Counted()
    check_grads(f, [np.random.default_rng(k).standard_normal(1_000_000)], directions=k)
    assert f.n == 2 + 3 * k  # one with the gradient, and one to see that the values are the same


@pytest.mark.parametrize("index", [(0, 0), (12, 145), (99, 199)])
def test_bisection_finds_the_one_wrong_entry(index):
    f = Counted()

    def wrong(g, w):
        gradient = vjp(g, w)
        gradient[index] *= 3
        return gradient

    report = examine_vjp(f, wrong, [W])
    assert report.verdict == "wrong"
    entry = report.entries[0]
    assert (entry.argument, entry.index) == (0, index)
    assert abs(entry.got - 3 * entry.expected.low) < 1e-6
    # Of these 15 * 3 for bisection, the others for many steps along the line and in the entry.
    assert f.n <= 15 * 3 + 200


def test_bisection_among_several_arguments():
    x, y, z = (W[k].copy() for k in range(3))

    def wrong(g, x, y, z):
        gradients = [g * y * z, g * x * z, g * x * y]
        gradients[1][77] *= 1.5
        return tuple(gradients)

    report = examine_vjp(lambda x, y, z: x * y * z, wrong, [x, y, z])
    assert report.verdict == "wrong"
    assert (report.entries[0].argument, report.entries[0].index) == (1, (77,))


def test_a_gradient_that_is_wrong_everywhere_by_little():
    report = examine_vjp(Counted(), lambda g, w: vjp(g, w) * 1.001, [W])
    assert report.verdict == "wrong"
    assert "found along a random direction" in str(report)


def test_a_gradient_that_is_not_finite():
    def wrong(g, w):
        gradient = vjp(g, w)
        gradient[3, 4] = np.nan
        return gradient

    with pytest.raises(WrongGradient, match=r"argument 0 at \(3, 4\)"):
        check_vjp(Counted(), wrong, [W])


@pytest.mark.parametrize("directions", [0, 3])
def test_entries_at_infinity_are_left_out(directions):
    x = np.array([1.0, -np.inf, 2.0])
    report = check_vjp(np.exp, lambda g, x: g * np.exp(x), [x], directions=directions)
    assert report.ok


def test_tensors_along_directions():
    @tl.op
    def wrong(x):
        return x * x, lambda g: 2 * g * x * (1 + 10 * (x == W.max()))

    try:
        where = tuple(map(int, np.unravel_index(W.argmax(), W.shape)))
        with pytest.raises(WrongGradient) as error:
            check_grads(lambda w: wrong(w).sum(), [W], directions=3)
        assert error.value.report.entries[0].index == where
    finally:
        del tl.OPS["wrong"]
    with pytest.raises(ValueError, match="directions is at least 1"):
        check_grads(lambda w: w * 2.0, [W], directions=0)


def test_float32_along_directions():
    w = W.astype(np.float32)
    assert check_vjp(Counted(), vjp, [w]).verdict == "right"
    report = examine_vjp(Counted(), lambda g, w: vjp(g, w) * np.float32(1.1), [w])
    assert report.verdict == "wrong"


def test_the_size_of_the_argument_decides_between_entries_and_directions():
    few, many = np.ones(500), np.ones(501)
    report = check_vjp(np.sin, lambda g, x: g * np.cos(x), [few])
    assert report.counts == {0: (0, 500)} and "random direction" not in str(report)
    report = check_vjp(np.sin, lambda g, x: g * np.cos(x), [many])
    assert "along 8 random directions" in str(report)
    report = check_vjp(np.sin, lambda g, x: g * np.cos(x), [many], directions=0)
    assert report.counts == {0: (0, 501)}


def test_the_error_along_a_direction_is_as_large_as_it_says():
    rng = np.random.default_rng(1)
    for _ in range(50):
        x, v = rng.standard_normal((2, 20))
        probe = Probe(
            lambda moved: np.exp(np.sin(moved[0])), {0: x}, np.ones(20), np.exp(np.sin(x)), 2**-52
        )
        exact = np.exp(np.sin(x)) * np.cos(x)
        found = along(probe.direction({0: v}, {0: exact}))
        assert abs(found.low - exact @ v) <= 3 * found.error <= 1e-5


def test_the_stated_probability_bounds_the_drawn_one():
    """An error of length e along Gaussian directions, below a precision of t in all of them."""
    v = np.random.default_rng(2).standard_normal((20_000, 2, 5))
    e = np.array([0.3, -0.1, 0.2, 0.5, 0.1])
    for t in (0.05, 0.2, 0.4):
        missed = np.mean(np.all(np.abs(v @ e) < t, axis=1))
        assert missed <= 1.1 * chance_of_missing(t, 2, np.linalg.norm(e))


def test_kinks_everywhere_in_low_precision():
    """The slope along a direction is that of a mean over many kinks; entries decide."""
    relu = lambda x: np.maximum(x, 0)  # noqa: E731
    x = np.random.default_rng(0).standard_normal((40, 40)).astype(np.float16)
    assert examine_vjp(relu, lambda g, x: g * (x > 0), [x]).verdict != "wrong"
    leaky = lambda g, x: g * np.where(x > 0, 1, 0.2).astype(x.dtype)  # noqa: E731
    assert examine_vjp(relu, leaky, [x]).verdict == "wrong"
