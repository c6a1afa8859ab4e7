"""NumPy's functions of each element at awkward points: kinks, jumps, infinities, small dtypes."""

import math

import numpy as np
import pytest

import tensorlite as tl
from tensorlite.testing import check_grads

ONE = (
    "sin cos tan arcsin arccos arctan sinh cosh arcsinh arccosh arctanh sinc exp2 expm1 log2 log10 "
    "log1p square reciprocal cbrt fabs positive copy real conj nan_to_num sign floor ceil trunc "
    "fix rint round around deg2rad rad2deg radians degrees"
).split()
TWO = (
    "arctan2 logaddexp logaddexp2 float_power hypot copysign maximum minimum fmax fmin remainder "
    "mod fmod floor_divide heaviside"
).split()
AWKWARD = np.array([math.nan, math.inf, -math.inf, 0.0, -0.0, 1, -1, 0.5, 2, -2, 300, 1e-4, 3e38])
TOLERANCE = {np.float16: 2e-3, np.float32: 1e-6, np.float64: 1e-14}

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


def leaf(values, dtype=np.float64):
    return tl.tensor(values, dtype=dtype, requires_grad=True)


def gradient(y, *leaves):
    found = tl.grad(y.sum(), leaves)
    return [g.data.tolist() for g in found] if len(leaves) > 1 else found[0].data.tolist()


# ---- values ----


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", ONE + TWO)
def test_values_are_numpys(name, dtype):
    numpys = getattr(np, name)
    values = [AWKWARD.astype(dtype)]
    if name in TWO:
        values = [v.ravel() for v in np.meshgrid(values[0], values[0])]
    for args in (values, [v[3] for v in values], [v[:0].reshape(0, 2) for v in values]):
        expected = numpys(*args)
        for y in (getattr(tl, name)(*map(tl.tensor, args)), numpys(*map(tl.tensor, args))):
            assert y.shape == expected.shape and y.dtype == dtype
            tolerance = TOLERANCE[dtype]
            np.testing.assert_allclose(y.data, expected.astype(dtype), tolerance, atol=0)


@pytest.mark.parametrize("name", [*TWO, "power", "divide"])
def test_no_gradient_is_float64_beside_a_number(name):
    function = getattr(np, name)
    x = leaf([0.5, 2.0], np.float32)
    for i, y in enumerate((function(x, 1.5), function(1.5, x))):
        g = y.node.vjps[i](np.ones(2, np.float32))
        assert g is None or g.dtype == np.float32


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int64])
@pytest.mark.parametrize("name", ONE + TWO)
def test_integers_are_computed_in_32_bits_at_least(name, dtype):
    values = np.array([1, 2, 3]).astype(dtype)
    args = [values, values[::-1]] if name in TWO else [values]
    expected = getattr(np, name)(*args)
    y = getattr(tl, name)(*map(tl.tensor, args))
    if expected.dtype.kind == "f":
        assert y.dtype == np.float32
        wide = getattr(np, name)(*(a.astype(np.float64) for a in args))
        np.testing.assert_allclose(y.data, wide, rtol=2e-6, atol=1e-7)
    else:
        np.testing.assert_array_equal(y.data, expected)
        assert y.dtype == expected.dtype


@pytest.mark.parametrize("name", ONE + TWO)
def test_numbers_and_lists(name):
    args = (0.25, [0.5, 0.75]) if name in TWO else ([0.25, 0.5],)
    y = getattr(tl, name)(*args)
    assert y.dtype == np.float32 and y.shape == (2,)
    np.testing.assert_allclose(y.data, getattr(np, name)(*args), rtol=1e-6)
    numbers = [0.25] * (1 + (name in TWO))
    expected = pytest.approx(getattr(np, name)(*numbers), 1e-6, nan_ok=True)
    assert getattr(tl, name)(*numbers).item() == expected


def test_operators():
    x = leaf([5.5, -5.5])
    for y, expected in (
        (x % 2, [1.5, 0.5]),
        (7 % x, [1.5, -4]),
        (x // 2, [2, -3]),
        (7 // x, [1, -2]),
        (divmod(x, 2.0)[0], [2, -3]),
        (divmod(7, x)[1], [1.5, -4]),
        (x % [2.0, 4.0], [1.5, 2.5]),
        (np.divmod(x, 2)[1], [1.5, 0.5]),
    ):
        assert y.data.tolist() == expected
    assert (tl.tensor([7, -7]) % 3).data.tolist() == [1, 2]
    assert (tl.tensor([7, -7]) // 3).dtype == np.int64


# ---- gradients ----


def test_gradients_at_kinks_and_jumps():
    zero, one = leaf([0.0]), leaf([1.0])
    for y, x, expected in (
        (tl.fabs(zero), zero, 0),
        (tl.copysign(zero, -1.0), zero, 0),
        (tl.hypot(zero, 0.0), zero, 0),
        (tl.arctan2(zero, 0.0), zero, 0),
        (tl.sinc(zero), zero, 0),
        (tl.cbrt(zero), zero, math.inf),
        (tl.arcsin(one), one, math.inf),
        (tl.arccos(one), one, -math.inf),
        (tl.arccosh(one), one, math.inf),
        (tl.arctanh(one), one, math.inf),
        (tl.sign(zero), zero, 0),
        (tl.floor(one), one, 0),
        (tl.round(one), one, 0),
        (one // 1.0, one, 0),
        (one % 1.0, one, 1),
        (tl.fmax(one, 1.0), one, 0.5),
        (tl.fmin(1.0, one), one, 0.5),
        (tl.heaviside(0.0, one), one, 1),
        (tl.heaviside(2.0, one), one, 0),
        (tl.heaviside(zero, 1.0), zero, 0),
    ):
        assert gradient(y, x) == [expected]


def test_where_one_is_nan_the_other_has_the_gradient():
    for function in (tl.fmax, tl.fmin):
        x, y = leaf([math.nan, 1.0, math.nan]), leaf([2.0, math.nan, math.nan])
        assert gradient(function(x, y), x, y) == [[0, 1, 1], [1, 0, 0]]


def test_infinities_that_are_replaced_have_no_gradient():
    x = leaf([math.nan, math.inf, -math.inf, 3.0])
    y = tl.nan_to_num(x, nan=1.0, posinf=2.0, neginf=-2.0)
    assert y.data.tolist() == [1, 2, -2, 3] and gradient(y, x) == [0, 0, 0, 1]


def test_logaddexp_of_infinities():
    for function in (tl.logaddexp, tl.logaddexp2):
        x, y = leaf([-math.inf, math.inf, -math.inf, 1e4]), leaf([-math.inf, math.inf, 1.0, -1e4])
        z = function(x, y)
        assert z.data.tolist() == [-math.inf, math.inf, 1, 1e4]
        assert gradient(z, x, y) == [[0.5, 0.5, 0, 1], [0.5, 0.5, 1, 0]]


@pytest.mark.parametrize("t", [1e-9, 1e-4, 0.01, 0.5, 0.999, 1.001, 3.0, 700.0])
def test_the_slope_of_sinc_keeps_its_digits(t):
    mpmath = pytest.importorskip("mpmath")
    x = leaf(t / math.pi)
    with tl.higher_order():
        (g,) = tl.grad(tl.sinc(x), x, create_graph=True)
    (second,) = tl.grad(g, x)
    with mpmath.workdps(60):  # the formula loses most digits where t is small
        z = mpmath.mpf(x.item()) * mpmath.pi
        sin, cos = mpmath.sin(z), mpmath.cos(z)
        first = mpmath.pi * (cos - sin / z) / z
        twice = mpmath.pi**2 * (-sin / z - 2 * cos / z**2 + 2 * sin / z**3)
    assert g.item() == pytest.approx(float(first), rel=2e-13)
    assert second.item() == pytest.approx(float(twice), rel=2e-12)


def test_no_overflow_on_the_way_to_a_gradient():
    x = leaf([1e30], np.float32)
    assert gradient(tl.arcsinh(x), x) == pytest.approx([1e-30])
    assert gradient(tl.arccosh(x), x) == pytest.approx([1e-30])
    assert gradient(tl.arctan2(1.0, x), x) == [0]
    assert gradient(tl.hypot(x, x), x) == pytest.approx([2**0.5])
    tiny = leaf([1e-30], np.float32)
    assert gradient(tl.arctan2(tiny, tiny * 0.0 + 1e-30), tiny) == pytest.approx([5e29])


def test_the_gradient_of_fmod_counts_whole_divisors():
    y = leaf([0.1, 0.1, -2.0])
    assert gradient(tl.fmod([0.95, -0.95, 7.0], y), y) == [-9, 9, 3]
    # 0.3 / 0.1 is 3 by rounding, but only 2 divisors fit
    z = leaf(0.1)
    assert tl.fmod(tl.tensor(0.3, dtype=np.float64), z).item() > 0.09
    assert gradient(tl.fmod(tl.tensor(0.3, dtype=np.float64), z), z) == -2


# ---- clip, masked_fill, interp ----


def test_clip_gives_its_bounds_a_gradient():
    x, low, high = leaf([-2.0, -1.0, 0.0, 1.0, 2.0]), leaf(-1.0), leaf(1.0)
    assert gradient(x.clip(low, high), x, low, high) == [[0, 1, 1, 1, 0], 1, 1]
    assert gradient(x.clip(low), x, low) == [[0, 1, 1, 1, 1], 1]
    assert gradient(np.clip(x, None, high), x, high) == [[1, 1, 1, 1, 0], 1]
    # min > max: all elements are max
    y = tl.clip(x, high, low)
    assert y.data.tolist() == np.clip(x.data, 1, -1).tolist()
    assert gradient(y, x, low, high) == [[0, 0, 0, 0, 0], 5, 0]
    rows = leaf([[-3.0], [1.0]])
    assert gradient(tl.clip(x, rows, 9.0), rows) == [[0], [3]]


def test_clip_of_nan():
    x, low = leaf([math.nan, -3.0]), leaf([0.0, math.nan])
    y = tl.clip(x, low, 1.0)
    assert np.isnan(y.data).all() and gradient(y, x, low) == [[0, 0], [0, 0]]


def test_masked_fill_gives_its_value_a_gradient():
    x, value = leaf([1.0, 2.0, 3.0]), leaf(-1.0)
    mask = np.array([True, False, True])
    assert gradient(x.masked_fill(mask, value), x, value) == [[0, 1, 0], 2]
    assert gradient(tl.masked_fill(x, mask=mask, value=0.0), x) == [0, 1, 0]


def test_interp_is_numpys():
    xp, fp = np.array([0.0, 1.0, 3.0]), np.array([1.0, 4.0, 2.0])
    x = np.array([[-1.0, 0.0, 0.5], [1.0, 3.0, 9.0]])
    for ends in ({}, {"left": -5.0}, {"left": 0.0, "right": 7.0}):
        y = np.interp(tl.tensor(x), xp, fp, **ends)
        np.testing.assert_allclose(y.data, np.interp(x, xp, fp, **ends), rtol=1e-15)
    far = np.array([-math.inf, math.inf, math.nan])
    points = leaf(far)
    y = tl.interp(points, xp, fp)
    np.testing.assert_array_equal(y.data, np.interp(far, xp, fp))
    assert gradient(y, points)[:2] == [0, 0]
    assert tl.interp(0.5, xp, leaf(fp)).dtype == np.float64
    for bad in ((xp, fp[:2]), (xp[:1], fp[:1]), (xp[None], fp[None])):
        with pytest.raises(ValueError, match="interp takes xp and fp of one dimension"):
            tl.interp(x, *bad)
    with pytest.raises(TypeError, match="np.interp does not take period="):
        np.interp(tl.tensor(x), xp, fp, period=3.0)
    inside = np.array([0.2, 2.5, 1.5])
    check_grads(tl.interp, [inside, xp, fp])


def test_ldexp():
    x = leaf([1.0, 3.0])
    y = np.ldexp(x, np.array([1, -2]))
    assert y.data.tolist() == [2, 0.75] and gradient(y, x) == [2, 0.25]
    assert tl.ldexp(1.0, 100).item() == 2.0**100


# ---- no gradient ----


def test_questions_about_tensors_are_answered_without_a_gradient():
    x = leaf([[1.0, -2.0], [math.inf, 0.0]])
    array = x.data
    for function in (
        np.isposinf, np.isneginf, np.signbit, np.logical_not, np.any, np.all, np.argwhere,
        np.flatnonzero, np.imag, np.angle, np.zeros_like, np.ones_like, np.isreal,
    ):  # fmt: skip
        y = function(x)
        assert isinstance(y, tl.Tensor) and not y.requires_grad
        np.testing.assert_array_equal(y.data, function(array))
    for function in (np.ndim, np.shape, np.size, np.iscomplexobj, np.isrealobj, np.result_type):
        assert function(x) == function(array)
        assert type(function(x)) is type(function(array))
    assert np.count_nonzero(x) == 3 and np.allclose(x, array) and not np.array_equal(x, -x)
    assert np.isclose(x, array).data.all() and np.logical_xor(x > 0, x < 0).dtype == bool
    rows, columns = np.nonzero(x)
    assert rows.data.tolist() == [0, 0, 1] and columns.data.tolist() == [0, 1, 0]
    assert np.empty_like(x, dtype=np.int8).shape == (2, 2)
    assert np.searchsorted(leaf([1.0, 3.0]), 2.0).item() == 1
    assert np.any(x, axis=0).data.tolist() == [True, True]


def test_complex_numbers_are_refused():
    for name in ("sin", "square", "sign", "clip", "copy"):
        with pytest.raises(TypeError, match="complex"):
            getattr(tl, name)(np.array([1j]))
