"""`check_vjp`: no right gradient is accused, and wrong ones are found, in every dtype."""

import itertools

import mpmath
import numpy as np
import pytest

from tensorlite.testing import CannotTell, WrongGradient, check_vjp, examine_vjp
from tensorlite.testing.differences import estimate, remainder_slope
from tensorlite.testing.fits import by_fits
from tensorlite.testing.probe import Probe

ml_dtypes = pytest.importorskip("ml_dtypes")
DTYPES = [np.float64, np.float32, np.float16, ml_dtypes.bfloat16]


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def softmax_vjp(g, x):
    s = softmax(x)
    return s * (g - (g * s).sum(-1, keepdims=True))


def standardized(x):
    return (x - x.mean(-1, keepdims=True)) / x.std(-1, keepdims=True)


def standardized_vjp(g, x):
    y = standardized(x)
    inner = g - g.mean(-1, keepdims=True) - y * (g * y).mean(-1, keepdims=True)
    return inner / x.std(-1, keepdims=True)


def total(g, shape):
    """Undo broadcasting to the shape of g."""
    g = g.sum(tuple(range(g.ndim - len(shape))))
    return g.sum(tuple(i for i, n in enumerate(shape) if n == 1), keepdims=True)


FUNCTIONS = {  # value, vjp, kinds of the arguments
    "exp": (np.exp, lambda g, x: g * np.exp(x), "-"),
    "log": (np.log, lambda g, x: g / x, "+"),
    "sqrt": (np.sqrt, lambda g, x: 0.5 * g / np.sqrt(x), "+"),
    "sin": (np.sin, lambda g, x: g * np.cos(x), "-"),
    "tanh": (np.tanh, lambda g, x: g * (1 - np.tanh(x) ** 2), "-"),
    "sigmoid": (sigmoid, lambda g, x: g * sigmoid(x) * (1 - sigmoid(x)), "-"),
    "1/x": (lambda x: 1 / x, lambda g, x: -g / x**2, "+"),
    "abs": (np.abs, lambda g, x: g * np.sign(x), "kink"),
    "relu": (lambda x: np.maximum(x, 0), lambda g, x: g * (x > 0), "kink"),
    "arcsin": (np.arcsin, lambda g, x: g / np.sqrt(1 - x * x), "edge"),
    "mean of squares": (lambda x: np.mean(x * x), lambda g, x: g * 2 * x / x.size, "-"),
    "sum": (lambda x: x.sum(-1), lambda g, x: np.repeat(g[..., None], x.shape[-1], -1), "-"),
    "softmax": (softmax, softmax_vjp, "-"),
    "standardized": (standardized, standardized_vjp, "-"),
    "mul": (lambda x, y: x * y, lambda g, x, y: (g * y, total(g * x, y.shape)), "-b"),
    "div": (lambda x, y: x / y, lambda g, x, y: (g / y, total(-g * x / y**2, y.shape)), "-B"),
    "matmul": (lambda x, y: x @ y.T, lambda g, x, y: (g @ y, g.T @ x), "--"),
}  # fmt: skip

BUGS = {
    "doubled": lambda x: x * 2,
    "negated": lambda x: -x,
    "zeroed": lambda x: x * 0,
    "scaled": lambda x: x * 1.3,
    "one entry": lambda x: x + (np.abs(x) == np.abs(x).max()) * x,
    "shifted": lambda x: np.roll(x, 1) + np.abs(x).max() / 2,
}


def draw(name, dtype, seed):
    """Arguments of one function, of any scale that suits the dtype."""
    rng = np.random.default_rng([seed, *map(ord, name)])
    scale = 10 ** rng.uniform(-3 if np.dtype(dtype).itemsize > 2 else -1, 0.5)
    kinds = FUNCTIONS[name][2]
    for kind in [kinds] if kinds in ("kink", "edge") else kinds:
        shape = (3,) if kind in ("b", "B") or kinds in ("kink", "edge", "+") else (2, 3)
        x = rng.standard_normal(shape) * scale
        if kind in ("+", "B"):
            x = np.abs(x) + 0.1 * scale
        if kind == "edge":
            x = np.clip(x / scale, -0.95, 0.95)
        if kind == "kink":
            x[:2] = 0, 2 * scale
        yield x.astype(dtype)


def in_float32(function, dtype):
    """The function for a narrower dtype: float32 inside, and each result rounded."""
    if dtype in (np.float64, np.float32):
        return function

    def narrow(*args):
        results = function(*(np.asarray(x).astype(np.float32) for x in args))
        if isinstance(results, tuple):
            return tuple(np.asarray(x).astype(dtype) for x in results)
        return np.asarray(results).astype(dtype)

    return narrow


def cases(n):
    """The n first of all functions in all dtypes, over and over."""
    pairs = list(itertools.product(FUNCTIONS, DTYPES))
    return [(*pairs[k % len(pairs)], k // len(pairs)) for k in range(n)]


def test_no_right_gradient_is_accused():
    verdicts = []
    for name, dtype, seed in cases(136):
        value, vjp = (in_float32(f, dtype) for f in FUNCTIONS[name][:2])
        report = examine_vjp(value, vjp, list(draw(name, dtype, seed)))
        assert report.verdict != "wrong" and not report.complaints, f"{name} {dtype}\n{report}"
        verdicts.append(report.verdict)
    assert verdicts.count("cannot tell") <= 0.05 * len(verdicts)


def test_wrong_gradients_are_found():
    missed = []
    for k, (name, dtype, seed) in enumerate(cases(68)):
        bug = list(BUGS)[k % len(BUGS)]

        def wrong(g, *args, bug=bug, vjp=FUNCTIONS[name][1]):
            gradients = vjp(g, *args)
            if isinstance(gradients, tuple):
                return gradients[0], BUGS[bug](gradients[1])
            return BUGS[bug](gradients)

        value = in_float32(FUNCTIONS[name][0], dtype)
        report = examine_vjp(value, in_float32(wrong, dtype), list(draw(name, dtype, seed + 7)))
        if report.verdict != "wrong":
            missed.append(f"{name} {np.dtype(dtype)} {bug}\n{report}")
    assert len(missed) <= 1, "\n".join(missed)


# ---- estimates and their errors ----


def probe_of(function, x, dtype=np.float64, **options):
    """A probe of an elementwise function at one number."""
    x = np.asarray(x, dtype)
    y = np.asarray(function(x)).astype(np.float64)
    eps = float(ml_dtypes.finfo(dtype).eps)
    call = lambda moved: np.asarray(function(moved[0])).astype(np.float64)  # noqa: E731
    return Probe(call, {0: x}, np.ones(()), y, eps, floor=0.0, **options)


@pytest.mark.parametrize("dtype", DTYPES[1:])
@pytest.mark.parametrize("name", ["sin", "exp", "tanh", "sqrt", "log"])
def test_fits_are_as_sure_as_they_say(name, dtype):
    """Against the exact derivative, at many points, for functions rounded to each dtype."""
    function, vjp, _ = FUNCTIONS[name]
    worst = 0.0
    for x in np.random.default_rng(3).uniform(0.3, 3, 12).astype(dtype):
        line = probe_of(in_float32(function, dtype), x, dtype).entry(0, ())
        found = by_fits(line)
        exact = vjp(1.0, np.float64(x))
        assert found.low - 2 * found.error <= exact <= found.high + 2 * found.error
        worst = max(worst, found.error / max(1, abs(exact)))
    assert worst < 100 * float(ml_dtypes.finfo(dtype).eps)


def test_the_taylor_remainder_of_a_right_and_a_wrong_gradient():
    line = probe_of(np.sin, 0.7, np.float32).entry(0, ())
    assert remainder_slope(line, np.cos(0.7)) == pytest.approx(2, abs=0.15)
    assert remainder_slope(line, 1.1 * np.cos(0.7)) == pytest.approx(1, abs=0.15)
    straight = probe_of(lambda x: x * np.float32(2), 0.7, np.float32).entry(0, ())
    assert remainder_slope(straight, 2.0) is None


def test_a_complex_step_is_believed_only_where_it_agrees():
    def noisy(x):  # 1e-9 of noise, which a complex step does not see
        return np.sin(x) + 1e-9 * np.sin(1e9 * x.real)

    found = estimate(probe_of(noisy, 0.7, call_complex=lambda m: noisy(m[0])).entry(0, ()))
    assert found.low == pytest.approx(np.cos(0.7), rel=1e-14) and found.error < 1e-14
    other = estimate(probe_of(noisy, 0.7, call_complex=lambda m: 2 * noisy(m[0])).entry(0, ()))
    assert other.error > 1e-12 and abs(other.low - np.cos(0.7)) <= 3 * other.error
    loses = estimate(probe_of(noisy, 0.7, call_complex=lambda m: noisy(m[0].real)).entry(0, ()))
    assert loses == estimate(probe_of(noisy, 0.7).entry(0, ()))


@pytest.mark.parametrize("dtype", DTYPES)
def test_at_a_kink_every_number_between_the_slopes_is_right(dtype):
    x = np.array([0.0, 1.0, -2.0]).astype(dtype)
    for slope, verdict in ((-1, "right"), (0.25, "right"), (1, "right"), (2, "wrong")):
        report = examine_vjp(np.abs, lambda g, x: g * np.where(x == 0, slope, np.sign(x)), [x])  # noqa: B023
        assert report.verdict == verdict
        assert "kink" in str(report)


def test_kinks_that_bend_to_both_sides():
    """Both entries of the value have a kink in x, and the gradient is right for each."""
    a = np.array([1.0, -2.0])
    value = lambda x: np.maximum(a * x, 0)  # noqa: E731
    for slope in (0.0, 1.0):
        vjp = lambda g, x, slope=slope: np.sum(g * a * slope, keepdims=True)  # noqa: E731
        assert examine_vjp(value, vjp, [np.zeros(1)], g=np.ones(2)).verdict == "right"
    report = examine_vjp(value, lambda g, x: 3 * np.ones(1), [np.zeros(1)], g=np.ones(2))
    assert report.verdict == "wrong"


@pytest.mark.parametrize("dtype", DTYPES[:2])
def test_stencils_stay_in_the_domain(dtype):
    def value(x):
        if np.any(x < 0):
            raise ValueError("no negative numbers")
        return x**1.5

    x = np.array([0.0, 1e-3, 2.0], dtype)
    assert check_vjp(value, lambda g, x: g * dtype(1.5) * np.sqrt(x), [x]).verdict == "right"
    report = examine_vjp(value, lambda g, x: g * dtype(1.6) * np.sqrt(x), [x])
    assert report.verdict == "wrong"


@pytest.mark.parametrize("scale", [1e-200, 1e-20, 1e-8, 1e10, 1e150])
def test_functions_of_every_scale(scale):
    x = np.linspace(0.3, 1.3, 4)
    for factor, verdict in ((1, "right"), (1.001, "wrong")):
        report = examine_vjp(
            lambda x: scale * np.sin(x),
            lambda g, x, factor=factor: g * factor * scale * np.cos(x),
            [x],
        )
        assert report.verdict == verdict


def test_what_cannot_be_told_is_not_called_right():
    x = np.ones(2, np.float32)
    with pytest.warns(CannotTell, match="cannot be told at this precision"):
        report = check_vjp(
            lambda x: np.float32(1e6) + np.float32(1e-3) * x, lambda g, x: g * np.float32(1e-3), [x]
        )
    assert report.verdict == "cannot tell" and not report.ok


# ---- the exact function ----


def test_errors_in_units_in_the_last_place():
    x = np.linspace(0.1, 3, 6).astype(np.float32)
    report = check_vjp(np.sin, lambda g, x: g * np.cos(x), [x], reference=mpmath.sin)
    assert "The value is within 0." in str(report) and "units in the last place" in str(report)
    y = np.linspace(1, 2, 3)[:, None]
    f, vjp = FUNCTIONS["mul"][0], lambda g, x, y: (g * y, total(g * x, y.shape))
    report = check_vjp(
        lambda x, y: f(x, y).astype(np.float64),
        lambda g, x, y: (total(g * y, x.shape).astype(np.float32), vjp(g, x, y)[1]),
        [x, y],
        reference=lambda x, y: x * y,
    )
    assert report.verdict == "right"


def test_a_reference_finds_what_differences_cannot():
    x = np.array([0.5, 1.0])
    slightly = lambda g, x: g * np.cos(x) * (1 + 1e-9)  # noqa: E731
    assert examine_vjp(np.sin, slightly, [x]).verdict == "right"
    report = examine_vjp(np.sin, slightly, [x], reference=mpmath.sin, rtol=1e-12)
    assert report.verdict == "wrong"
    with pytest.raises(ValueError, match="reference= is for elementwise functions"):
        check_vjp(np.sum, lambda g, x: g + 0 * x, [x], reference=mpmath.sin)


# ---- what is given and what is printed ----


def test_arguments_that_need_no_gradient():
    ids = np.array([0, 2, 2])

    def vjp(g, table, ids):
        gradient = np.zeros_like(table)
        np.add.at(gradient, ids, g)
        return gradient, None

    table = np.random.default_rng(0).standard_normal((3, 2))
    assert check_vjp(lambda table, ids: table[ids], vjp, [table, ids]).ok
    report = examine_vjp(lambda table, ids: table[ids], lambda g, *a: (None, None), [table, ids])
    assert report.verdict == "wrong" and report.mistake.kind == "detached path"


@pytest.mark.parametrize(
    ("args", "error", "words"),
    [
        ([np.ones(2, complex)], TypeError, "argument 0 is of dtype complex128"),
        ([np.array([1, None])], TypeError, "argument 0 is of dtype object"),
        ([np.arange(3)], ValueError, "no argument is of floating point"),
        (np.ones(3), TypeError, r"args is a list .* \[x\] for one, not an object of type ndarray"),
    ],
)
def test_arguments_that_cannot_be_checked(args, error, words):
    with pytest.raises(error, match=words):
        check_vjp(lambda x: x, lambda g, x: g, args)


def test_values_that_cannot_be_checked():
    x = np.ones(2)
    with pytest.raises(TypeError, match="the value is of dtype int64"):
        check_vjp(lambda x: x.astype(int), lambda g, x: g, [x])
    with pytest.raises(TypeError, match="the value is of dtype object"):
        check_vjp(lambda x: np.array([None]), lambda g, x: g, [x])
    for result in (None, (x, x), [1.0, 2.0], {"x": x}):
        with pytest.raises(TypeError, match=f"type {type(result).__name__};.* one array"):
            check_vjp(lambda x, result=result: result, lambda g, x: g, [x])
    with pytest.raises(ValueError, match="g has entries that are infinite or NaN"):
        check_vjp(np.sin, lambda g, x: g * np.cos(x), [x], g=np.array([1.0, np.nan]))
    with pytest.raises(ValueError, match=r"g has the shape \(3,\); the value has \(2,\)"):
        check_vjp(np.sin, lambda g, x: g * np.cos(x), [x], g=np.ones(3))


@pytest.mark.parametrize("option", ["rtol", "atol", "directions"])
def test_negative_options_are_refused(option):
    with pytest.raises(ValueError, match=f"{option} is at least 0, not -1"):
        check_vjp(np.sin, lambda g, x: g * np.cos(x), [np.ones(2)], **{option: -1})


def test_a_layer_that_is_left_in_another_state_is_right_with_a_complaint():
    kept = []

    def value(x):
        kept[:] = [x]
        return x * x

    report = examine_vjp(value, lambda g, x: 2 * g * kept[0], [np.array([1.0, 2.0])])
    assert report.verdict == "right" and "left behind" in report.complaints[0]


def test_values_that_are_not_finite_are_named():
    x = np.array([1.0, -1.0, 2.0])
    with np.errstate(all="ignore"):
        report = examine_vjp(lambda x: np.log(x).sum(), lambda g, x: g / x, [x])
    assert report.verdict == "cannot tell" and "The value is not finite." in report.notes
    with np.errstate(all="ignore"):
        report = examine_vjp(np.log, lambda g, x: g / x, [x])
    assert "1 of the 3 entries of the value is not finite, the first of them (1,)." in report.notes


def test_an_infinite_slope_is_not_called_wrong():
    for f, slope in ((np.sqrt, lambda x: 0.5 / np.sqrt(x)), (lambda x: 1 / x, lambda x: -1 / x**2)):
        with np.errstate(all="ignore"):
            vjp = lambda g, x, slope=slope: g * slope(x)  # noqa: E731
            assert examine_vjp(f, vjp, [np.array([0.0, 1.0])]).verdict == "cannot tell"


def test_a_large_number_beside_a_short_period():
    x = np.array([1.1e10, -2.3e10])
    assert check_vjp(np.sin, lambda g, x: g * np.cos(x), [x]).ok
    assert examine_vjp(np.sin, lambda g, x: -g * np.cos(x), [x]).verdict == "wrong"


def test_a_jump_nearby_in_low_precision_is_not_called_wrong():
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    x = np.array([0.02, 0.98, 1.02, 1.95]).astype(bfloat16)
    assert examine_vjp(np.floor, lambda g, x: 0 * g, [x]).verdict != "wrong"


def test_a_function_faster_than_its_numbers_is_not_called_wrong():
    def value(x):
        return np.sin(1e4 * x.astype(np.float32)).astype(np.float16)

    x = np.linspace(-1, 1, 5).astype(np.float16)
    vjp = lambda g, x: (g * 1e4 * np.cos(1e4 * x.astype(np.float32))).astype(x.dtype)  # noqa: E731
    assert examine_vjp(value, vjp, [x]).verdict == "cannot tell"


def test_empty_arguments():
    report = check_vjp(lambda x: x * 2, lambda g, x: g * 2, [np.ones((0, 3))])
    assert report.ok and "Argument 0 has no entries." in str(report)


def test_gradients_of_another_number_or_shape():
    x, y = np.ones((2, 3)), np.linspace(1, 2, 3)
    report = examine_vjp(lambda x, y: x * y, lambda g, x, y: (g * y, g * x), [x, y])
    assert report.verdict == "wrong"
    assert report.mistake.kind == "sum over a broadcast axis left out"
    assert "has the shape (2, 3), its argument (3,)" in str(report)
    report = examine_vjp(lambda x, y: x * y, lambda g, x, y: g * y, [x, y])
    words = "The vjp returns 1 gradient, but there are 2 arguments."
    assert str(report) == f"The gradient is wrong.\n{words}"


def test_a_random_function_is_not_judged():
    rng = np.random.default_rng(0)
    with pytest.raises(WrongGradient) as error:
        check_vjp(lambda x: x * rng.random(), lambda g, x: g, [np.ones(2)])
    assert error.value.report.verdict == "cannot tell" and error.value.report.complaints


def test_the_printed_page():
    def value(x, w):
        return np.tanh(x @ w)

    def vjp(g, x, w):
        g = g * (1 - np.tanh(x @ w) ** 2)
        return g @ w.T, 2 * x.T @ g

    rng = np.random.default_rng(0)
    report = examine_vjp(value, vjp, [rng.standard_normal((4, 3)), rng.standard_normal((3, 2))])
    first, got, expected, *lines = str(report).splitlines()
    worst = report.entries[0]
    assert first == f"The gradient is wrong. The worst entry is argument 1 at {worst.index}:"
    assert got == f"    got       {worst.got:.10g}"
    assert expected.startswith(f"    expected  {worst.got / 2:.6g}") and "+/-" in expected
    assert lines == [
        "All 12 entries of argument 0 are right.",
        "All 6 entries of argument 1 are wrong.",
        "The likely mistake: the gradient for argument 1 is 2 times what it should be.",
    ]


def test_entries_that_are_not_finite_are_not_judged():
    x = np.array([1.0, np.inf])
    report = examine_vjp(lambda x: 2 * x, lambda g, x: 2 * g, [x])
    assert report.verdict == "right"
    assert "1 entry was not judged, because the argument is not finite there." in report.notes
