"""The checker is checked: a bug planted in any one vjp of any operation must be found."""

import itertools

import mpmath
import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import tensorlite as tl
from tensorlite.testing import CannotTell, WrongGradient, arrays, check_grads, shapes
from tensorlite.testing.differences import by_extrapolation
from tensorlite.testing.probe import Probe
from tensorlite.testing.suite import check_first_order
from tests.cases import function_of
from tests.op_cases import CASES

BUGS = {
    "scaled": lambda g: g * 1.01,
    "negated": lambda g: -g,
    "zeroed": lambda g: g * 0,
}


def with_bug(body, index, bug):
    """The body of an operation with one of its vjps changed."""

    def changed(g):
        if hasattr(g, "add_to"):  # a Part
            g.g = np.asarray(bug(g.g))
            return g
        return bug(g.data if isinstance(g, tl.Tensor) else g)

    def buggy(*args, **kwargs):
        value, *vjps = body(*args, **kwargs)
        if "needs" in kwargs:
            (joint,) = vjps

            def vjp(g):
                gs = list(joint(g))
                if gs[index] is not None:
                    gs[index] = changed(gs[index])
                return gs

            return value, vjp
        if index < len(vjps) and vjps[index] is not None:
            right = vjps[index]
            vjps[index] = lambda g: changed(right(g))
        return value, *vjps

    return buggy


def operation(body, **options):
    """An operation that is not in the registry."""
    try:
        return tl.op(**options)(body)
    finally:
        tl.OPS.pop(body.__name__, None)


NO_GRADIENT = {  # operation -> the inputs that it is piecewise constant in, or that are conditions
    "where": [0], "masked_fill": [1], "copysign": [1], "heaviside": [0, 1], "floor_divide": [0, 1],
    **dict.fromkeys(["ceil", "floor", "rint", "round", "sign", "trunc"], [0]),
}  # fmt: skip


def inputs_with_a_gradient():
    for name, op in sorted(tl.OPS.items()):
        for i in range(2 if op.variadic else len(op.arrays)):
            if name in CASES and i not in NO_GRADIENT.get(name, []):
                yield name, i


def planted_bugs():
    """The smallest bug in every operation, and the others in some."""
    for name, index in inputs_with_a_gradient():
        some = name in ("mul", "concatenate", "getitem", "layer_norm", "matmul", "sum")
        yield from ((name, index, bug) for bug in (BUGS if some else ["scaled"]))


@pytest.mark.parametrize(("name", "index", "bug"), list(planted_bugs()))
def test_a_planted_bug_is_found(name, index, bug, monkeypatch):
    op = tl.OPS[name]
    monkeypatch.setattr(op, "body", with_bug(op.body, index, BUGS[bug]))

    @settings(phases=[Phase.generate], database=None, report_multiple_bugs=False)
    @given(CASES[name])
    def walk(arguments):
        check_first_order(function_of(name), arguments)

    with pytest.raises(AssertionError, match=r"the gradient is .*, differences give"):
        walk()


def test_the_message_names_argument_and_index():
    @tl.op
    def wrong(x, y):
        return x * y, lambda g: g * y, lambda g: g * x * np.array([1, 1, 1.5])

    try:
        with pytest.raises(AssertionError, match=r"argument 1 at \(2,\): the gradient is"):
            check_grads(wrong, [np.ones(3), np.ones(3)])
    finally:
        del tl.OPS["wrong"]


def test_nan_is_no_gradient():
    with pytest.raises(AssertionError), np.errstate(all="ignore"):
        check_grads(lambda x: tl.sqrt((x * x).sum()), [np.zeros(2)])


def test_an_infinite_slope_cannot_be_told():
    with pytest.warns(CannotTell), np.errstate(all="ignore"):
        check_grads(lambda x: tl.sqrt(x), [np.array([0.0])])


def test_arguments_that_cannot_be_checked():
    with pytest.raises(ValueError, match="no argument"):
        check_grads(lambda x: x, [np.arange(3)])
    with pytest.raises(ValueError, match="order"):
        check_grads(lambda x: x, [np.ones(2)], order=0)
    with pytest.raises(AssertionError, match="not a Tensor"):
        check_grads(lambda x: 1.0, [np.ones(2)])


@given(arrays())
def test_the_example_of_the_documentation(x):
    check_grads(lambda x: x * x, [x])


@given(arrays(shapes(min_dims=1), "distinct"))
def test_drawn_numbers_keep_their_distance(x):
    values = np.sort(x, axis=None)
    assert np.all(np.diff(values) > 0.04)


@given(arrays())
def test_drawn_numbers_keep_away_from_zero(x):
    assert np.all(np.abs(x) >= 0.2) and x.dtype == np.float64


# ---- right and wrong gradients at points of every size ----

ELEMENTWISE = {  # value, derivative, sign of the arguments
    "log": (np.log, lambda x: 1 / x, "+"),
    "1/x": (lambda x: 1 / x, lambda x: -1 / x**2, "+-"),
    "rsqrt": (lambda x: x**-0.5, lambda x: -0.5 * x**-1.5, "+"),
    "sqrt": (np.sqrt, lambda x: 0.5 / np.sqrt(x), "+"),
    "sin": (np.sin, np.cos, "+-"),
    "sin(1000 x)": (lambda x: np.sin(1000 * x), lambda x: 1000 * np.cos(1000 * x), "+-"),
    "x + 1e6": (lambda x: x + 1e6, lambda x: np.ones_like(x), "+-"),
    "(x + 1e6) - 1e6": (lambda x: (x + 1e6) - 1e6, lambda x: np.ones_like(x), "+-"),
    "cube": (lambda x: x**3, lambda x: 3 * x * x, "+-"),
    "1e-9 x": (lambda x: 1e-9 * x, lambda x: 0 * x + 1e-9, "+-"),
    "1e12 sin": (lambda x: 1e12 * np.sin(x), lambda x: 1e12 * np.cos(x), "+-"),
    "log(1 + x)": (lambda x: np.log(1 + x), lambda x: 1 / (1 + x), "+"),
    "x log x": (lambda x: x * np.log(x), lambda x: np.log(x) + 1, "+"),
    "bump": (lambda x: np.exp(-1e6 * x * x), lambda x: -2e6 * x * np.exp(-1e6 * x * x), "+-"),
    "exp(-|x|)": (lambda x: np.exp(-np.abs(x)), lambda x: -np.sign(x) * np.exp(-np.abs(x)), "+-"),
    "1 / (1 + x^2)": (lambda x: 1 / (1 + x * x), lambda x: -2 * x / (1 + x * x) ** 2, "+-"),
}  # fmt: skip

WRONG = {
    "negated": lambda g, d: -g * d,
    "doubled": lambda g, d: g * d * 2,
    "scaled": lambda g, d: g * d * 1.01,
    "zeroed": lambda g, d: g * 0 * d,
    "g left out": lambda g, d: d + g * 0,
    "size of g": lambda g, d: np.abs(g) * d,
}


def planted(name, wrong=None):
    """An elementwise function as an operation with its gradient, or with a wrong one."""
    f, derivative, _ = ELEMENTWISE[name]

    def body(x):
        d = derivative(x)
        return f(x), lambda g: g * d if wrong is None else WRONG[wrong](g, d)

    return operation(body)


def points(name, lowest, highest, n):
    """Drawn arguments, spread over that many powers of ten."""
    rng = np.random.default_rng(sum(map(ord, name)))
    for size in rng.integers(1, 4, n):
        x = 10 ** rng.uniform(lowest, highest, size)
        yield x if ELEMENTWISE[name][2] == "+" else x * rng.choice([-1, 1], size)


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_no_right_gradient_is_accused(name):
    for i, x in enumerate(points(name, -7, 4, 40)):
        check_grads(planted(name), [x.astype(np.float32) if i % 4 == 0 else x])


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_no_wrong_gradient_passes(name, wrong):
    highest = -2.5 if name == "bump" else 1  # beyond, there is nothing of it to see
    for x in points(name, -3, highest, 6):
        with pytest.raises(AssertionError, match=r"the gradient is .*, differences give"):
            check_grads(planted(name, wrong), [x])


AWKWARD = {
    "log": (tl.log, [1e-3, 2e-6, 1e-9]),
    "1/x": (lambda x: 1 / x, [1e-3, -1e-6]),
    "rsqrt": (tl.rsqrt, [1e-3, 3e-7]),
    "sqrt": (tl.sqrt, [1e-4, 1e-6, 1e-12]),
    "sin(1000 x)": (lambda x: tl.sin(x * 1000.0), [0.3, 1.1, 5.0]),
    "sin": (tl.sin, [5000.0, 5001.3, 1e6]),
    "x + 1e6": (lambda x: x + 1e6, [0.5, 1.0, 1e-8]),
    "constant": (lambda x: tl.tensor(3.0), [1.0, 2.0]),
    "times 0": (lambda x: x * 0.0 + 3.0, [1.0, 2.0]),
    "comparison": (lambda x: x > 1.5, [1.0, 2.0]),
    "sigmoid": (tl.sigmoid, [-36.5, -50.0, 16.0]),
    "exp": (tl.exp, [20.0, -30.0, 1e-8]),
    "power": (lambda x: x**1.5, [1e-7, 0.0]),
    "masked": (lambda x: tl.where(np.array([True, False]), x, -np.inf), [1.0, 2.0]),
    "float32 inside": (lambda x: tl.sin(x.astype(np.float32)) * np.float64(1), [0.7, 1.1]),
    "boolean index": (lambda x: x[x > 0] * 2.0, [1e-3, -1.0]),
}


@pytest.mark.parametrize("name", AWKWARD)
def test_awkward_points(name):
    function, x = AWKWARD[name]
    check_grads(function, [np.array(x)])


@pytest.mark.parametrize("name", ["log", "1/x", "sqrt", "sin(1000 x)", "x + 1e6", "constant"])
def test_awkward_points_second_derivatives(name):
    function, x = AWKWARD[name]
    check_grads(function, [np.array(x)], order=2)


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize(
    "function",
    [tl.softmax, tl.log_softmax, tl.layer_norm, tl.gelu, tl.var, tl.logsumexp, lambda x: x @ x.T],
)
def test_operations_at_every_scale(function, order):
    rng = np.random.default_rng(order)
    for scale in (1e-4, 0.03, 1.0, 20.0, 220.0):
        for offset in (0.0, 100.0 * scale):
            check_grads(function, [rng.standard_normal((2, 3)) * scale + offset], order)


@pytest.mark.parametrize("function", ["log", "sin", "sqrt", "exp", "atan", "gamma"])
def test_differences_are_as_sure_as_they_say(function):
    """Slope and error against 40 digits of mpmath."""
    exact = getattr(mpmath, function)
    for x in (1e-6, 1e-3, 0.7, 12.0, 150.0):
        with mpmath.workdps(40):
            expected = float(mpmath.diff(exact, mpmath.mpf(x), h=mpmath.mpf(x) * 1e-15))

        def at(moved, x=x):
            x = moved.get(0, x)
            return np.asarray(float(exact(float(x))) if x > 0 else np.nan)

        probe = Probe(at, {0: np.array(x)}, np.ones(()), at({}), np.finfo(float).eps, floor=0.0)
        found = by_extrapolation(probe.entry(0, ()))
        low, high, error = found.low, found.high, found.error
        assert low == high and abs(low - expected) <= 3 * error
        assert error <= 1e-6 * abs(expected)


def test_at_a_kink_every_number_between_the_slopes_is_right():
    for slope, right in ((0.0, True), (0.5, True), (1.0, True), (1.5, False), (-0.1, False)):

        def relu(x, slope=slope):
            return np.maximum(x, 0), lambda g: g * np.where(x == 0, slope, x > 0)

        body = operation(lambda x: relu(x))
        if right:
            check_grads(body, [np.array([0.0, 1.0])])
        else:
            with pytest.raises(AssertionError, match=r"at \(0,\).* from .* to "):
                check_grads(body, [np.array([0.0, 1.0])])


def test_the_message_says_how_sure_it_is():
    with pytest.raises(AssertionError, match=r"differences give -?\d\S* \+/- \de-\d\d$"):
        check_grads(planted("log", "scaled"), [np.array([1e-3])])


def test_a_gradient_that_is_cut_off_is_wrong():
    with pytest.raises(AssertionError, match="the gradient is 0, differences give"):
        check_grads(lambda x: x.detach() * 2.0, [np.ones(2)])


def test_the_likely_mistake_ends_the_message():
    with pytest.raises(WrongGradient, match=r"; the gradient is 2 times what it should be$") as e:
        check_grads(planted("sin", "doubled"), [np.linspace(0.3, 1.2, 12)])
    assert e.value.report.mistake.kind == "factor"
    assert e.value.report.counts == {0: (12, 12)}


def test_a_function_whose_values_show_nothing():
    alone = lambda x: tl.where(x.data == 1.5, x * 2.0, np.nan)  # noqa: E731
    with pytest.warns(CannotTell, match="differences give nan at every step"):
        check_grads(alone, [np.array([1.5])])


def test_a_function_that_changes_its_arguments_is_named_as_one():
    def f(x):
        x.data[0] += 1
        return x * 1.0

    with pytest.raises(WrongGradient, match="the function changes argument 0"):
        check_grads(f, [np.ones(2)])


def test_a_random_function_is_named_as_one():
    rng = np.random.default_rng(0)
    with pytest.raises(AssertionError, match="does it draw random numbers"):
        check_grads(lambda x: tl.dropout(x, 0.5, rng), [np.ones(20)])


# ---- vjps that are wrong in use alone ----

X = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.5]])


def in_place(g):
    g += 1
    return g


def masked(g):
    g[g > 9] = 0  # nothing, at these numbers
    return g


@pytest.mark.parametrize(
    "write",
    [
        lambda g: np.multiply(g, 2, out=g),
        in_place,
        masked,
        lambda g: np.ndarray.sort(g) or g,
        lambda g: g.reshape(-1).__imul__(2).reshape(g.shape),
    ],
)
def test_a_vjp_that_writes_into_what_it_is_given(write):
    wrong = operation(lambda x: (x * 1.0, write))
    for function in (wrong, lambda x: tl.sin(wrong(x * 2.0)) + x):
        with pytest.raises(AssertionError, match="writes into an array that is not its own"):
            check_grads(function, [X])


def product(changed, n):
    """A product of `n` arrays, whose vjp gives the double where `changed(needs)`."""

    def body(*xs, needs):
        def vjp(g):
            factor = 2.0 if changed(needs) else 1.0
            others = [np.prod([y for j, y in enumerate(xs) if j != i], axis=0) for i in range(n)]
            return [g * y * factor if need else None for y, need in zip(others, needs)]

        return np.prod(xs, axis=0), vjp

    return operation(body)


@pytest.mark.parametrize(
    "wrong_for", [n for n in itertools.product([False, True], repeat=3) if any(n)]
)
def test_every_choice_of_gradients_is_tried(wrong_for):
    op = product(lambda needs: needs == wrong_for, 3)
    x = np.array([1.5, -2.0])
    with pytest.raises(AssertionError, match="the gradient is .*, differences give") as error:
        check_grads(lambda *xs: op(xs), [x, x + 1, x - 1])
    alone = ", ".join(str(i) for i in range(3) if wrong_for[i])
    assert all(wrong_for) or f"with gradients for argument {alone} alone" in str(error.value)


@pytest.mark.parametrize("n_needed", [1, 5, 6])
def test_choices_among_many_arguments(n_needed):
    op = product(lambda needs: sum(needs) == n_needed, 6)
    xs = [np.array([1.0 + i]) for i in range(6)]
    with pytest.raises(AssertionError, match="the gradient is .*, differences give"):
        check_grads(lambda *xs: op(xs), xs)
    check_grads(lambda *xs: product(lambda needs: False, 6)(xs), xs)


KEPT = np.zeros(X.shape)


def kept(g):
    KEPT[...] = g
    return KEPT


@pytest.mark.parametrize(
    "vjp",
    [
        lambda x, g: (g, g * 1),
        lambda x, g: (g * 1, g[:]),
        lambda x, g: (h := g * 1, h),
        lambda x, g: (kept(g), g * 1),
        lambda x, g: (np.broadcast_to(g[:1] * 1, g.shape), g * 1),
        lambda x, g: (g * 1, x),
    ],
)
def test_a_broken_promise_of_fresh_arrays(vjp):
    def body(x, y, *, needs):
        return x + y, lambda g: vjp(x, g)

    with pytest.raises(AssertionError, match="declared fresh=True"):
        check_grads(operation(body, fresh=True), [X, X + 1])


def test_fresh_in_some_choices_only():
    def body(x, y, *, needs):
        return x + y, lambda g: (g * 1, g * 1) if all(needs) else (g, None)

    with pytest.raises(AssertionError, match="declared fresh=True"):
        check_grads(operation(body, fresh=True), [X, X + 1])


LAYOUTS = {
    "gradient, as it lies": lambda x, y, g: (g.ravel("K") * 2).reshape(g.shape) * x,
    "argument, as it lies": lambda x, y, g: g * (2 * x.ravel("K")).reshape(x.shape),
    "Fortran alone": lambda x, y, g: g * 2 * x * (1.5 if np.isfortran(x) else 1),
    "both Fortran": lambda x, y, g: g * 2 * x * (1.5 if np.isfortran(x) and np.isfortran(y) else 1),
    "not both alike": lambda x, y, g: g * 2 * x * (1 if x.strides == y.strides else 1.5),
    "negative strides": lambda x, y, g: g * 2 * x * (1.5 if min(x.strides) < 0 else 1),
    "gaps": lambda x, y, g: g * 2 * x * (1.5 if x.strides == (48, 16) else 1),
    "bytes": lambda x, y, g: np.frombuffer(memoryview(g), g.dtype).reshape(g.shape) * 2 * x,
}  # fmt: skip


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_vjp_right_for_one_memory_order_only(name):
    def body(x, y):
        return x * x + y, lambda g: LAYOUTS[name](x, y, g), lambda g: g

    with pytest.raises(AssertionError, match="^with .*(order|memory)"):
        check_grads(operation(body), [X, X + 1])


def test_a_function_of_the_memory_order_is_judged_by_its_own_values():
    def body(x):
        order = "F" if np.isfortran(x) else "C"
        shape = x.shape
        return x.ravel(order) ** 2, lambda g: g.reshape(shape, order=order) * 2 * x

    check_grads(operation(body), [X])


# ---- what is drawn ----


def test_arrays_refuses_what_it_does_not_know():
    with pytest.raises(ValueError, match="'nonzero', 'positive', 'distinct', not 'postive'"):
        arrays(kind="postive")
    for dtype in (bool, complex, "U3"):
        with pytest.raises(TypeError, match="integers or floats"):
            arrays(dtype=dtype)


@given(st.data(), st.sampled_from([np.int8, np.int64, np.uint8, np.uint32, np.float16, np.float32]))
def test_drawn_numbers_of_every_dtype(data, dtype):
    x = data.draw(arrays(kind="positive", dtype=dtype))
    assert x.dtype == dtype and np.all(x > 0)
    x = data.draw(arrays(kind="nonzero", dtype=dtype))
    assert x.dtype == dtype and np.all(x != 0)
    x = data.draw(arrays(kind="distinct", dtype=dtype))
    assert x.dtype == dtype and len(np.unique(x)) == x.size


def test_a_vjp_that_unlocks_what_it_is_given_is_found():
    def f(x):
        def vjp(g):
            g.flags.writeable = True
            g *= 2
            return g

        return x * 2.0, vjp

    with pytest.raises(AssertionError, match="changes the gradient that it is given"):
        check_grads(operation(f), [np.array([1.0, 2.0])])
