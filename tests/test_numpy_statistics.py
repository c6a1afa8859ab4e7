"""Differences, integrals, covariances, convolutions and polynomials, compared with NumPy's."""

import functools

import numpy as np
import pytest

import tensorlite as tl
from tensorlite.testing import check_grads

X = np.array([[0.3, -1.2, 0.9, 2.0], [1.1, 0.4, -0.6, 0.2], [2.0, 1.5, -0.1, 0.7]])
W = np.array([0.5, 2.0, 1.0, 0.25])


def same(name, *args, **options):
    """Values are NumPy's, called by either name."""
    expected = getattr(np, name)(*args, **options)
    first, *rest = args
    for ours in (
        getattr(tl, name)(*args, **options),
        getattr(np, name)(tl.tensor(first), *rest, **options),
    ):
        several = isinstance(expected, (tuple, list))
        pairs = [(ours, expected)] if not several else zip(ours, expected, strict=True)
        for a, b in pairs:
            assert a.shape == np.shape(b)
            np.testing.assert_allclose(a.numpy(), b, rtol=1e-12, atol=1e-12)


# ---- differences and integrals ----


@pytest.mark.parametrize("options", [
    {}, {"n": 0, "prepend": 1.0}, {"n": 2}, {"n": 9}, {"axis": 0}, {"prepend": 0},
    {"append": X, "prepend": 2.5}, {"append": X[:1], "axis": 0, "n": 2},
])  # fmt: skip
def test_diff(options):
    same("diff", X, **options)
    check_grads(functools.partial(tl.diff, **options), [X])


def test_diff_is_differentiable_in_its_ends():
    check_grads(lambda x, a, b: tl.diff(x, prepend=a, append=b), [X, X[:, :1], X[:, :2]])
    check_grads(lambda x, a, b: tl.ediff1d(x, a, b), [X, W, W[:1]])
    same("ediff1d", X, to_end=[1.0, 2.0], to_begin=0.5)
    with pytest.raises(ValueError, match="n >= 0 and an x with axes"):
        tl.diff(X, n=-1)
    with pytest.raises(ValueError, match="n >= 0 and an x with axes"):
        tl.diff(1.0)


COORDINATES = np.array([0.0, 0.1, 1.0]), np.array([0.0, 0.5, 0.6, 2.0])


@pytest.mark.parametrize("edge_order", [1, 2])
@pytest.mark.parametrize("spacings", [(), (0.5,), (0.5, 2), COORDINATES, (2.0, COORDINATES[1])])
def test_gradient(spacings, edge_order):
    same("gradient", X, *spacings, edge_order=edge_order)
    apart = [np.asarray(s, np.float64) for s in spacings]

    def joined(x, *spacings):
        return tl.stack(tl.gradient(x, *spacings, edge_order=edge_order))

    check_grads(joined, [X, *apart])


def test_gradient_of_one_axis_and_of_integers():
    same("gradient", X, axis=-1)
    same("gradient", X, 0.5, axis=0)
    same("gradient", X[:2], axis=0)
    same("gradient", X, 0.5, 2.0, axis=(1, 0))
    ours = tl.gradient(np.array([200, 100, 0, 250], np.uint8))
    np.testing.assert_array_equal(ours.numpy(), [-100, -100, 75, 250])
    assert ours.dtype == np.float32


def test_gradient_is_torchs():
    torch = pytest.importorskip("torch")
    leaf, theirs = tl.tensor(X, requires_grad=True), torch.tensor(X, requires_grad=True)
    spacing = [torch.tensor(c) for c in COORDINATES]
    for a, b in zip(
        tl.gradient(leaf, *COORDINATES, edge_order=2),
        torch.gradient(theirs, spacing=spacing, edge_order=2),
        strict=True,
    ):
        np.testing.assert_allclose(a.numpy(), b.detach().numpy(), rtol=1e-12)
        (g,) = torch.autograd.grad(b.sin().sum(), theirs, retain_graph=True)
        (ours,) = tl.grad(tl.sin(a).sum(), leaf, retain_graph=True)
        np.testing.assert_allclose(ours.numpy(), g.numpy(), rtol=1e-11)


def test_gradient_refuses():
    for call, words in [
        (lambda: tl.gradient(X, [1.0, 2.0], axis=1), r"4 samples, not coordinates of shape \(2,\)"),
        (lambda: tl.gradient(X[:1]), "axis 0 has 1 samples; gradient needs 2 or more"),
        (lambda: tl.gradient(X[:2], edge_order=2), "axis 0 has 2 samples; gradient needs 3"),
        (lambda: tl.gradient(X, edge_order=3), "edge_order is 1 or 2, not 3"),
    ]:
        with pytest.raises(ValueError, match=words):
            call()
    with pytest.raises(TypeError, match="no distances, 1 or 2, not 3"):
        tl.gradient(X, 1, 2, 3)


@pytest.mark.skipif(not hasattr(np, "trapezoid"), reason="this NumPy does not have it")
@pytest.mark.parametrize("options", [
    {}, {"axis": 0}, {"dx": 0.5}, {"x": W}, {"x": W[:3], "axis": 0}, {"x": X, "axis": 0},
])  # fmt: skip
def test_trapezoid(options):
    same("trapezoid", X, **options)
    check_grads(functools.partial(tl.trapezoid, **options), [X])
    check_grads(lambda y, x: tl.trapezoid(y, x), [X, W], order=2)


def test_unwrap():
    angles = np.array([[0.0, 3.0, -3.0, 2.5], [1.0, 9.0, -20.0, 0.0]])
    same("unwrap", angles)
    same("unwrap", angles, axis=0, discont=4.0)
    same("unwrap", angles, period=5.0)
    check_grads(lambda x: tl.unwrap(x) * x, [angles], order=2)


# ---- statistics ----

COUNTS = np.array([1, 2, 0, 3])


@pytest.mark.parametrize("options", [
    {}, {"rowvar": False}, {"bias": True}, {"ddof": 2}, {"fweights": COUNTS}, {"aweights": W},
    {"aweights": W, "fweights": COUNTS}, {"aweights": W, "bias": True}, {"y": X[:2]}, {"y": W},
    {"y": X[:, :2], "rowvar": False}, {"y": X[:, :1].T, "rowvar": True, "m": X[:, :3]},
])  # fmt: skip
def test_cov(options):
    options = dict(options)
    m = options.pop("m", X)
    same("cov", m, **options)
    check_grads(functools.partial(tl.cov, **options), [m])
    if {"rowvar", "y"} & options.keys():
        same("corrcoef", m, **options)


def test_cov_of_single_variables():
    same("cov", W)
    same("cov", W, X[0])
    same("cov", W, X[0], rowvar=False)
    same("corrcoef", W)
    check_grads(lambda x, w: tl.cov(x, aweights=w), [X, W], order=2)
    check_grads(tl.corrcoef, [X])
    assert tl.cov(np.array([1, 2, 4])).dtype == np.float32
    assert tl.cov(X.astype(np.float16)).dtype == np.float16


@pytest.mark.filterwarnings("ignore")
def test_too_few_observations():
    for m, options in ((X[:, :1], {}), (W, {"ddof": 4}), (W, {"ddof": 7}), (np.ones((2, 3)), {})):
        np.testing.assert_equal(tl.cov(m, **options).numpy(), np.cov(m, **options))
        np.testing.assert_equal(tl.corrcoef(m).numpy(), np.corrcoef(m))


def test_cov_refuses():
    for options, words in [
        ({"fweights": [1, 2]}, r"each of 4 observations, not weights of shape \(2,\)"),
        ({"aweights": X}, r"each of 4 observations, not weights of shape \(3, 4\)"),
        ({"y": X[None]}, r"rows of a matrix, not in a shape \(1, 3, 4\)"),
    ]:
        with pytest.raises(ValueError, match=words):
            tl.cov(X, **options)
    with pytest.raises(TypeError, match="fweights count observations"):
        tl.cov(X, fweights=W)


# ---- convolutions and polynomials ----


@pytest.mark.parametrize("mode", ["full", "same", "valid"])
@pytest.mark.parametrize("name", ["convolve", "correlate"])
def test_convolutions(name, mode):
    rng = np.random.default_rng(0)
    for n, m in [(1, 1), (1, 4), (4, 1), (4, 2), (2, 4), (3, 4), (5, 3), (3, 5), (4, 4)]:
        a, v = rng.standard_normal(n), rng.standard_normal(m)
        same(name, a, v, mode=mode)
        check_grads(functools.partial(getattr(tl, name), mode=mode), [a, v])
    check_grads(functools.partial(getattr(tl, name), mode=mode), [W, W[:3]], order=2)


def test_convolutions_refuse():
    for bad in ([], [[1.0]], 2.0):
        with pytest.raises(ValueError, match="two rows of numbers"):
            tl.convolve(W, bad)
    with pytest.raises(ValueError):
        tl.convolve(W, W, mode="other")


def test_polyval():
    same("polyval", W, X)
    same("polyval", W[:0], X)
    same("polyval", np.array([1, 2]), 3)
    check_grads(tl.polyval, [W, X], order=2)
    with pytest.raises(ValueError, match="one row of coefficients"):
        tl.polyval(X, X)
