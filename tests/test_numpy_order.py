"""Sorts, medians and quantiles at awkward points, and which elements get their gradient."""

import inspect

import numpy as np
import pytest

import tensorlite as tl
from tensorlite.testing import check_grads
from tests.cases.order import METHODS

NAN, INF = np.nan, np.inf
SAMPLES = [
    np.array([[3.0, -1.0, 2.0, 2.0], [0.5, 7.0, -4.0, 1.0]]),
    np.array([[3.0, NAN, 2.0, 1.0], [0.5, 7.0, -4.0, 1.0], [NAN, NAN, NAN, NAN]]),
    np.array([[-INF, 1.0, INF, 2.0], [INF, INF, 1.0, INF]]),
    np.array([[5, 2, 2, 9]]),
    np.array([[True, False, True]]),
    np.array([[1.5, 0.25, -2.0]], np.float16),
    np.array(4.0),
]


def gradient_of(function, x):
    x = tl.tensor(np.array(x), requires_grad=True)
    return tl.grad(function(x).sum(), x)[0].numpy()


@pytest.mark.parametrize("x", SAMPLES, ids=lambda x: f"{x.dtype}{x.size}")
def test_sorted_values_are_numpys(x):
    for axis in (None, 0, -1) if x.ndim else (None,):
        np.testing.assert_array_equal(tl.sort(x, axis).numpy(), np.sort(x, axis))
        np.testing.assert_array_equal(np.sort(tl.tensor(x), axis).numpy(), np.sort(x, axis))
        kth = 0 if axis == 0 or not x.ndim else 1
        ours, numpys = tl.partition(x, kth, axis).numpy(), np.partition(x, kth, axis)
        along = 0 if axis is None else axis
        np.testing.assert_array_equal(np.take(ours, kth, along), np.take(numpys, kth, along))
        np.testing.assert_array_equal(np.sort(ours, along), np.sort(numpys, along))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("x", SAMPLES, ids=lambda x: f"{x.dtype}{x.size}")
@pytest.mark.parametrize("name", ["median", "nanmedian"])
def test_medians_are_numpys(name, x):
    for axis in (None, 0, 1, (0, 1)) if x.ndim else (None,):
        for function in (getattr(np, name), getattr(tl, name)):
            ours, numpys = function(tl.tensor(x), axis=axis), getattr(np, name)(x, axis=axis)
            assert ours.shape == np.shape(numpys)
            assert ours.dtype == (x.dtype if x.dtype.kind == "f" else np.float32)
            np.testing.assert_allclose(ours.numpy(), numpys)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["quantile", "nanquantile"])
def test_quantiles_are_numpys(name, method):
    rng = np.random.default_rng(0)
    q = np.array([0, 0.1, 0.25, 1 / 3, 0.5, 0.7, 0.75, 0.9, 1])
    for n in range(1, 8):
        x = rng.standard_normal((n, 3))
        x[0, 1] = NAN
        for axis in (0, None):
            ours = getattr(tl, name)(x, q, axis=axis, method=method)
            numpys = getattr(np, name)(x, q, axis=axis, method=method)
            np.testing.assert_allclose(ours.numpy(), numpys, rtol=1e-12)
    numpys = getattr(np, name)(x, 0.3, axis=1, method=method, keepdims=True)
    ours = getattr(np, name)(tl.tensor(x), 0.3, axis=1, method=method, keepdims=True)
    np.testing.assert_allclose(ours.numpy(), numpys, rtol=1e-12)


def test_all_methods_of_numpy_are_there():
    words = inspect.getdoc(np.quantile)
    assert all(f"'{method}'" in words for method in METHODS)
    for method in METHODS:
        tl.quantile([1.0, 2.0], 0.3, method=method)
    with pytest.raises(ValueError, match="linear, lower, .*, not 'cubic'"):
        tl.quantile([1.0, 2.0], 0.3, method="cubic")


def test_quantiles_keep_float32_and_have_the_shape_of_q_first():
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    y = tl.quantile(x, [[0.5, 1.0]], axis=0)
    assert y.shape == (1, 2, 3) and y.dtype == np.float32
    np.testing.assert_array_equal(tl.percentile(x, [50, 100]).numpy(), [2.5, 5])
    np.testing.assert_array_equal(tl.nanpercentile([1.0, NAN, 3.0], 50).numpy(), 2)
    np.testing.assert_array_equal(tl.quantile(x, tl.tensor([0.5]), axis=1).numpy(), [[1, 4]])


def test_infinities_beside_a_quantile_do_not_count():
    assert tl.quantile([1.0, 2.0, INF], 0.5).item() == 2
    assert tl.quantile([1.0, 2.0, INF], 1.0).item() == INF
    assert tl.median([1.0, INF, INF, INF]).item() == INF


def test_the_gradient_goes_to_the_elements_that_are_chosen():
    np.testing.assert_array_equal(gradient_of(tl.median, [3.0, 1.0, 2.0]), [0, 0, 1])
    np.testing.assert_array_equal(gradient_of(tl.median, [3.0, 1.0, 2.0, 9.0]), [0.5, 0, 0.5, 0])
    quarter = gradient_of(lambda x: tl.quantile(x, 0.25), [3.0, 1.0, 9.0])
    np.testing.assert_array_equal(quarter, [0.5, 0.5, 0])
    np.testing.assert_array_equal(gradient_of(tl.nanmedian, [NAN, 1.0, 2.0]), [0, 0.5, 0.5])


def test_among_ties_the_first_counts_as_the_smallest():
    np.testing.assert_array_equal(gradient_of(tl.median, [2.0, 1.0, 2.0]), [1, 0, 0])
    np.testing.assert_array_equal(gradient_of(tl.median, [2.0, 2.0, 2.0, 2.0]), [0, 0.5, 0.5, 0])
    last = gradient_of(lambda x: tl.sort(x)[-1], [2.0, 1.0, 2.0])
    np.testing.assert_array_equal(last, [0, 0, 1])


@pytest.mark.parametrize("method", METHODS)
def test_the_gradient_for_q_is_the_slope_between_two_elements(method):
    x = np.array([[0.3, -1.2, 0.9, 0.1], [2.0, 0.7, -0.4, 1.1]])
    q = np.array([0.02, 0.3, 0.52, 0.71, 0.99])  # on no element
    check_grads(lambda x, q: tl.quantile(x, q, axis=1, method=method), [x, q])
    check_grads(lambda x, q: tl.percentile(x, q, method=method), [x, 100 * q])
    check_grads(lambda q: tl.nanquantile([[1.0, NAN, 3.0], [2.0, 5.0, 9.0]], q, axis=1), [q])


def test_second_derivatives():
    x = np.array([[0.3, -1.2, 0.9, 0.1], [2.0, 0.7, -0.4, 1.1]])
    check_grads(lambda x: tl.median(x * x, axis=1), [x], order=2)
    check_grads(lambda x: tl.quantile(x * x, [0.2, 0.6], axis=0), [x], order=2)
    check_grads(lambda x: tl.sort(x * x, axis=0) ** 2, [x], order=2)


@pytest.mark.filterwarnings("ignore")
def test_nothing_to_choose_from():
    assert np.isnan(tl.median(np.empty(0)).item())
    assert tl.median(np.empty((0, 3)), axis=1).shape == (0,)
    assert tl.sort(np.empty((2, 0))).shape == (2, 0)
    with pytest.raises(ValueError, match=r"no quantile of no elements: x has shape \(0,\)"):
        tl.quantile(np.empty(0), 0.5)


def test_errors():
    x = tl.tensor([1.0, 2.0])
    for q in (-0.1, [0.5, 1.1], NAN):
        with pytest.raises(ValueError, match="between 0 and 1"):
            tl.quantile(x, q)
    with pytest.raises(np.exceptions.AxisError):
        tl.sort(3.0)
    with pytest.raises(TypeError, match="np.quantile does not take weights="):
        np.quantile(x, 0.5, method="inverted_cdf", weights=[1, 2])
    with pytest.raises(TypeError):
        tl.median(np.array([1j]))
    with pytest.raises(TypeError):
        tl.sort(np.array([object()]))
