"""Values and derivatives against mpmath, in units in the last place, over the whole range.

The points, the exact results and the unit are benchmarks/ulps.py's; docs/accuracy.md explains the
bounds that are not 4.
"""

import math
import warnings

import mpmath
import numpy as np
import pytest
from mpmath import mp

import tensorlite as tl
from benchmarks import ulps
from tensorlite.erf import ERFCX
from tensorlite.testing import check_grads

DTYPES = pytest.mark.parametrize("dtype", ulps.DTYPES)
POINTS = 120


def gelu_argument(x):
    x = x.astype(np.float64)
    return 2 * math.sqrt(2 / math.pi) * (np.abs(x) + 0.044715 * np.abs(x) ** 3)


@DTYPES
@pytest.mark.parametrize("name", [n for n in ulps.FUNCTIONS if n not in ("silu", "gelu tanh")])
def test_elementwise_functions(name, dtype):
    bound = 8 if name in ("erf", "gelu none") else 4
    with np.errstate(all="ignore"):
        x, values, slopes = ulps.measure(name, dtype, POINTS)
    if name == "gelu none":  # subnormal results
        inside = np.abs(x) < math.sqrt(-2 * math.log(np.finfo(dtype).tiny))
        assert max(np.array(slopes)[~inside], default=0) < 40
        slopes = np.array(slopes)[inside]
    assert max(values) <= bound and max(slopes) <= bound


@DTYPES
@pytest.mark.parametrize("name", ["silu", "gelu tanh"])
def test_fused_activations(name, dtype):
    with np.errstate(all="ignore"):
        x, *errors = ulps.measure(name, dtype, POINTS)
    argument = gelu_argument(x) if name == "gelu tanh" else np.abs(x)
    subnormal = argument > -math.log(np.finfo(dtype).tiny)
    room = 1.5 * argument if name == "gelu tanh" else np.where(subnormal, argument, 0)
    for error in errors:
        right = x > 0
        assert np.all(np.array(error)[right] <= 8)
        assert np.all(np.array(error)[~right] <= 4 + room[~right])


@DTYPES
@pytest.mark.parametrize("kind", ulps.ROWS)
@pytest.mark.parametrize("name", ulps.NORMALISERS)
def test_functions_of_a_row(name, kind, dtype):
    with np.errstate(all="ignore"):
        below, values, slopes = ulps.measure_rows(name, kind, dtype, 25)
    if "any" in kind:  # as many units as the numbers of the row are below its largest
        room = np.max(below, axis=1)[:, None]
        assert np.all(np.array(values) <= 4 + room) and np.all(np.array(slopes) <= 8 + 2 * room)
        return
    assert np.max(values) <= 4
    assert np.max(slopes) <= (8 if name.endswith("softmax") else 5)


def test_derivatives_where_functions_are_flat():
    """What is left of a slope far out, as mpmath has it."""

    def slope(function, x, dtype=np.float64):
        x = tl.tensor(np.array(x, dtype), requires_grad=True)
        return tl.grad(function(x), x)[0].item()

    def derivative(function, x):
        return float(mp.diff(function, x))

    exact = float(ulps.logistic(40) * ulps.logistic(-40))
    assert slope(tl.sigmoid, 40.0) == pytest.approx(exact, rel=1e-15)
    assert slope(tl.sigmoid, -40.0) == pytest.approx(exact, rel=1e-15)
    exact = float(ulps.logistic(16.5) * ulps.logistic(-16.5))
    assert slope(tl.sigmoid, 16.5, np.float32) == pytest.approx(exact, rel=3e-7)
    assert slope(tl.tanh, 20.0) == pytest.approx(float(mp.sech(20) ** 2), rel=1e-15)
    assert slope(tl.tanh, -9.5, np.float32) == pytest.approx(float(mp.sech(9.5) ** 2), rel=3e-7)
    assert slope(tl.erf, 25.0) == pytest.approx(derivative(mp.erf, 25), rel=1e-15)
    assert slope(tl.silu, -60.0) == pytest.approx(
        float(mp.diff(lambda x: x / (1 + mp.exp(-x)), -60)), rel=1e-15
    )

    def exact_gelu(x):
        return x * mp.ncdf(x)

    def gelu(x):
        return tl.gelu(x, approximate="none")

    for x in (-5.0, -9.0, -30.0):
        assert gelu(tl.tensor(np.array(x))).item() == pytest.approx(float(exact_gelu(x)), rel=1e-15)
        assert slope(gelu, x) == pytest.approx(derivative(exact_gelu, x), rel=2e-15)
    value = tl.gelu(tl.tensor(np.array(-9.0))).item()
    assert value == pytest.approx(float(-9 * ulps.gelu_tanh(mp.mpf(-9))[0]), rel=1e-14)


def test_a_number_that_dominates_its_row():
    """softmax is 1 there, and what it lacks of 1 is neither lost in values nor in gradients."""
    x = tl.tensor(np.array([0.0, -37.42]), requires_grad=True)
    rest = float(ulps.logistic(mpmath.mpf(-37.42)))
    first = np.array([1.0, 0.0])
    assert tl.log_softmax(x).data[0] == pytest.approx(-rest, rel=1e-15)
    for function in (tl.softmax, tl.log_softmax):
        np.testing.assert_allclose(
            tl.grad(function(x), x, gradient=first)[0].data, [rest, -rest], rtol=1e-14
        )
    assert tl.logsumexp(x).item() == pytest.approx(rest, rel=1e-15)
    loss = tl.cross_entropy(x, np.array(0))
    assert loss.item() == pytest.approx(rest, rel=1e-15)
    np.testing.assert_allclose(tl.grad(loss, x)[0].data, [-rest, rest], rtol=1e-15)
    hidden = tl.tensor(np.array([[1.0]]), requires_grad=True)
    weight = tl.tensor(np.array([[0.0], [-37.42]]), requires_grad=True)
    loss = tl.linear_cross_entropy(hidden, weight, np.array([0]))
    assert loss.item() == pytest.approx(rest, rel=1e-15)
    np.testing.assert_allclose(tl.grad(loss, weight)[0].data, [[-rest], [rest]], rtol=1e-15)


@pytest.mark.parametrize("x", [math.inf, -math.inf, math.nan, 0.0, 2.0])
def test_the_power_zero_is_constant(x):
    base = tl.tensor(np.array(x), requires_grad=True)
    for zero in (0, 0.0, np.zeros(()), tl.tensor(np.zeros(()))):
        assert tl.grad(base**zero, base)[0].item() == 0
    base, exponent = tl.tensor(np.array([2.0]), requires_grad=True), np.array([0.0])
    exponent = tl.tensor(exponent, requires_grad=True)
    with tl.higher_order():  # d/dy (y x^(y-1)) is 1 / x at y = 0
        (g,) = tl.grad((base**exponent).sum(), base, create_graph=True)
        assert tl.grad(g.sum(), exponent)[0].data == [0.5]


def test_no_overflow_on_the_way():
    x = tl.tensor(np.array([1e25], np.float32), requires_grad=True)
    g = tl.grad(np.array([1e30], np.float32) / x, x)[0].data  # x * x would be infinite
    assert g[0] == pytest.approx(-1e-20, rel=1e-6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for function in (tl.gelu, tl.silu, tl.sigmoid, tl.tanh, tl.erf):
            x = tl.tensor(np.array([-1e15, -1e4, 1e4, 1e15], np.float32), requires_grad=True)
            y = function(x)
            g = tl.grad(y.sum(), x)[0].data
            gate = function in (tl.gelu, tl.silu)
            limits = x.data * [0, 0, 1, 1] if gate else np.sign(x.data)
            limits = np.maximum(limits, 0) if function is tl.sigmoid else limits
            np.testing.assert_allclose(y.data, limits, rtol=2e-7)
            np.testing.assert_allclose(g, [0, 0, gate, gate], rtol=2e-7)


def test_derivatives_of_every_order_at_zero():
    """Where a formula for either side would have a kink."""
    for function in (tl.sigmoid, tl.tanh, tl.silu, tl.gelu):
        check_grads(function, [np.array([0.0, 0.3])], order=3, rtol=1e-4)


def test_the_series_of_the_scaled_complementary_error_function():
    """Chebyshev's coefficients of (1 + 2 x) erfcx(x) in u = (x - 4) / (x + 4)."""
    n = 32

    def cos(k, j):
        return mp.cos(mp.pi * (2 * k + 1) * j / (2 * n))

    def value(u):
        x = 4 * (1 + u) / (1 - u)
        return (1 + 2 * x) * mp.erfc(x) * mp.exp(x * x)

    values = [value(cos(k, 1)) for k in range(n)]
    for j, c in enumerate(ERFCX):
        exact = 2 * mp.fsum(v * cos(k, j) for k, v in enumerate(values)) / n
        assert abs(c - (exact / 2 if j == 0 else exact)) < 1e-17 + 1e-16 * abs(exact)
