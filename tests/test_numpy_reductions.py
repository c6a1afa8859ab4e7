"""NumPy's reductions and running products at awkward points: NaN, zeros, ties, nothing at all."""

import functools

import numpy as np
import pytest

import tensorlite as tl
from tensorlite.testing import check_grads

NAN, INF = np.nan, np.inf
AWKWARD = [
    np.array([[1.0, NAN, -2.0], [NAN, 0.0, NAN], [3.0, 3.0, -INF]]),
    np.array([[0.0, 2.0, 0.0], [0.0, 0.0, 5.0]]),
    np.array([[1, 2, 3], [4, 0, 6]]),
    np.array([[True, False], [True, True]]),
    np.array([[200, 100], [7, 9]], np.uint8),
    np.array([[1.5, -2.0], [0.25, NAN]], np.float16),
    np.array(3.0),
]
REDUCTIONS = "amax amin std nansum nanmean nanmax nanmin nanvar nanstd nanprod".split()
RUNNING = "cumprod nancumsum nancumprod".split()


def equal(ours, numpys):
    """The same numbers; float32 for integers, of which NumPy makes float64."""
    assert ours.shape == np.shape(numpys)
    dtype = np.asarray(numpys).dtype
    assert ours.dtype == (dtype if dtype.itemsize < 8 or ours.dtype == dtype else np.float32)
    tolerance = {2: 2e-3, 4: 1e-5}.get(ours.dtype.itemsize, 1e-12)
    np.testing.assert_allclose(ours.numpy(), numpys, rtol=tolerance, atol=tolerance)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("x", AWKWARD, ids=lambda x: f"{x.dtype}{x.size}")
@pytest.mark.parametrize("name", [*REDUCTIONS, *RUNNING])
def test_values_are_numpys(name, x):
    for axis in (None, -1) if x.ndim else (None,):
        equal(getattr(tl, name)(x, axis), getattr(np, name)(x, axis))
        equal(getattr(np, name)(tl.tensor(x), axis), getattr(np, name)(x, axis))
    if name in REDUCTIONS:
        equal(getattr(tl, name)(x, keepdims=True), getattr(np, name)(x, keepdims=True))


@pytest.mark.parametrize("name", [*REDUCTIONS, *RUNNING, "ptp", "average"])
def test_lists_and_numbers(name):
    values = [[1.0, 2.0], [0.5, -3.0]]
    equal(getattr(tl, name)(values), getattr(np, name)(np.array(values, np.float32)))
    equal(getattr(tl, name)(2.0), getattr(np, name)(np.array(2.0, np.float32)))


@pytest.mark.parametrize("name", "nansum nanmean nanmax nanmin nanvar nanstd nanprod".split())
def test_no_gradient_flows_to_nan(name):
    missing = np.array([[False, True, False], [True, False, False]])
    x = np.array([[0.3, 1.0, -0.7], [2.0, 0.9, 1.4]])

    def function(x, axis=None):
        return getattr(tl, name)(tl.where(missing, NAN, x), axis)

    for axis in (None, 0, 1) if name != "nanstd" else (None, 1):  # one element has no deviation
        check_grads(functools.partial(function, axis=axis), [x], order=2)


@pytest.mark.filterwarnings("ignore")
def test_rows_of_nan():
    x = tl.tensor([[NAN, NAN], [1.0, NAN]], requires_grad=True)
    for name in ("nanmean", "nanmax", "nanmin", "nanvar"):
        y = getattr(tl, name)(x, axis=1)
        np.testing.assert_array_equal(np.isnan(y.numpy()), [True, False])
        np.testing.assert_array_equal(tl.grad(y[1], x)[0].data[1, 1], 0)
    assert np.isnan(tl.nanvar([1.0, NAN], ddof=1).item())


def gradient_of(function, x):
    x = tl.tensor(np.array(x), requires_grad=True)
    return tl.grad(function(x).sum(), x)[0].numpy()


def test_ties_share_the_gradient():
    np.testing.assert_array_equal(gradient_of(tl.nanmax, [2.0, NAN, 2.0, 1.0]), [0.5, 0, 0.5, 0])
    np.testing.assert_array_equal(gradient_of(tl.nanmin, [2.0, NAN, 1.0, 1.0]), [0, 0, 0.5, 0.5])
    np.testing.assert_array_equal(gradient_of(tl.nanmax, [-INF, NAN]), [1, 0])
    np.testing.assert_array_equal(gradient_of(tl.ptp, [3.0, 1.0, 3.0]), [0.5, -1, 0.5])


def test_the_deviation_of_equal_elements_has_the_gradient_zero():
    for function in (tl.std, tl.nanstd):
        np.testing.assert_array_equal(gradient_of(function, [2.0, 2.0, 2.0]), [0, 0, 0])
        both = gradient_of(functools.partial(function, axis=1), [[2.0, 2.0], [1.0, 3.0]])
        np.testing.assert_allclose(both, [[0, 0], [-0.5, 0.5]])
    assert tl.hessian(tl.std, np.ones(2)).numpy().tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize("zeros", [[], [0], [1], [3], [0, 1], [1, 3], [0, 1, 2, 3]])
def test_running_products_through_zeros(zeros):
    x = np.array([1.5, -0.7, 2.0, 0.4])
    x[zeros] = 0
    check_grads(tl.cumprod, [x], order=2)
    check_grads(lambda x: tl.cumprod(tl.reshape(x, (2, 2)), axis=0), [x])


def test_long_running_products():
    """Longer than a power of two, and shorter: windows of sums are doubled."""
    rng = np.random.default_rng(0)
    for n in (5, 8, 17):
        x = rng.uniform(0.5, 1.5, n)
        jacobian = np.tril(np.cumprod(x)[:, None] / x)
        g = rng.standard_normal(n)
        leaf = tl.tensor(x, requires_grad=True)
        (ours,) = tl.grad(tl.cumprod(leaf), leaf, gradient=g)
        np.testing.assert_allclose(ours.numpy(), g @ jacobian, rtol=1e-12)


@pytest.mark.skipif(not hasattr(np, "cumulative_sum"), reason="this NumPy does not have them")
def test_cumulative_functions():
    x = np.array([[1.0, 2.0, 4.0], [3.0, 5.0, 0.0]])
    for name in ("cumulative_sum", "cumulative_prod"):
        ours, numpys = getattr(tl, name), getattr(np, name)
        for options in ({}, {"include_initial": True}):
            equal(ours(x, axis=1, **options), numpys(x, axis=1, **options))
            equal(numpys(tl.tensor(x), axis=0, **options), numpys(x, axis=0, **options))
            equal(ours(x[0], **options), numpys(x[0], **options))
            equal(ours(x[0, 1], **options), numpys(x[0, 1], **options))
        with pytest.raises(ValueError, match=r"\(2, 3\) needs axis="):
            ours(x)


def test_averages():
    x = np.array([[1.0, 2.0, 4.0], [3.0, 5.0, 0.0]])
    weights = np.array([0.5, 0.0, 2.0])
    for options in (
        {},
        {"weights": x + 1},
        {"weights": weights, "axis": 1},
        {"weights": weights, "axis": -1, "keepdims": True},
        {"weights": x.T + 1, "axis": (1, 0)},
        {"weights": [1, 2], "axis": 0},
        {"axis": 0},
    ):
        equal(tl.average(x, **options), np.average(x, **options))
        for ours, numpys in zip(
            np.average(tl.tensor(x), returned=True, **options),
            np.average(x, returned=True, **options),
            strict=True,
        ):
            equal(ours, numpys)
    check_grads(lambda x, w: tl.average(x, axis=1, weights=w), [x, weights], order=2)
    with pytest.raises(TypeError, match="say with axis="):
        tl.average(x, weights=weights)
    with pytest.raises(ValueError, match=r"weights of shape \(3,\) do not fit axis 0"):
        tl.average(x, axis=0, weights=weights)
    with pytest.raises(ZeroDivisionError, match="the sum 0"):
        tl.average(x, axis=1, weights=[1, -1, 0])


def test_correction_is_ddof():
    x = np.array([1.0, 2.0, 4.0, 7.0])
    for name in ("std", "nanstd", "nanvar"):
        expected = getattr(np, name)(x, ddof=1)
        equal(getattr(np, name)(tl.tensor(x), correction=1), expected)
        equal(getattr(tl, name)(x, ddof=1), expected)
