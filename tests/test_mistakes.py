"""What kind of mistake a wrong gradient looks like; and planted bugs, found and named."""

import warnings

import numpy as np
import pytest

from benchmarks.gradients.bugs import BUGS
from benchmarks.gradients.conduct import KEPT
from benchmarks.gradients.draws import Case, arguments, drawn, in_numpy
from benchmarks.gradients.table import FUNCTIONS
from tensorlite.testing import examine_vjp
from tensorlite.testing.mistakes import KINDS, likely_mistake

SHAPES = [(5,), (4, 4), (3, 5), (2, 3, 4)]


def draw(*shape, seed=0):
    rng = np.random.default_rng([seed, *shape])
    return rng.uniform(0.3, 2, shape) * rng.choice([-1.0, 1.0], shape)


def mistake(got, expected, *, g=None, args=None, value=None, error=1e-7):
    """The likely mistake in one or several gradients, whose expected entries have this error."""
    got = got if isinstance(got, list) else [got]
    expected = expected if isinstance(expected, list) else [expected]
    args = expected if args is None else args
    value = draw(*np.shape(args[0]), seed=2) if value is None else value
    g = draw(*np.shape(value), seed=3) if g is None else g
    errors = [None if e is None else np.full(e.shape, error) for e in expected]
    found = likely_mistake(got, expected, errors, g=g, args=args, value=value)
    assert found is None or found.kind in KINDS
    return found


def kind(*args, **kwargs):
    found = mistake(*args, **kwargs)
    return found and found.kind


# ---- what needs the gradient alone ----


@pytest.mark.parametrize("shape", SHAPES)
def test_right_and_unexplained_gradients_give_none(shape):
    e = draw(*shape)
    assert mistake(e, e) is None
    assert mistake(e + 2e-7, e) is None
    assert mistake(draw(*shape, seed=1), e) is None
    assert mistake(e * draw(*shape, seed=1), e) is None
    assert mistake(e * 2, e, error=np.inf) is None


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    "factor, name",
    [
        (2, "2 times"),
        (0.5, "1/2"),
        (-2, "-2"),
        (np.pi, "pi"),
        (1 / np.pi, "1/pi"),
        (1.7, "1.7"),
    ],
)
def test_a_factor(shape, factor, name):
    found = mistake(factor * draw(*shape), draw(*shape))
    assert found.kind == "factor" and f"is {name}" in found.words


def test_a_factor_from_the_size_of_an_axis():
    e = draw(3, 7)
    assert "is 7 times what it should be, where 7 is the size of axis 1" in mistake(7 * e, e).words
    assert "is 1/sqrt(7) times" in mistake(e / 7**0.5, e).words
    assert "is 6/7 times" in mistake(e * 6 / 7, e).words


def test_a_factor_without_a_name_needs_three_entries():
    assert mistake(1.7 * draw(2), draw(2)) is None
    assert kind(2 * draw(1), draw(1)) == "factor"


def test_a_factor_in_a_part():
    e = draw(4, 4)
    doubled = np.where(np.eye(4) > 0, 2 * e, e)
    assert "2 times what it should be on the diagonal" in mistake(doubled, e).words


@pytest.mark.parametrize("shape", SHAPES)
def test_a_sign(shape):
    e = draw(*shape)
    assert mistake(-e, e).words == "the gradient has the wrong sign"
    found = mistake(np.abs(e), e, args=[e])
    assert found.kind == "sign" and "where argument 0 is below 0" in found.words


@pytest.mark.parametrize("shape", [(4, 4), (3, 5), (2, 3, 4), (2, 3, 3)])
def test_a_transpose(shape):
    e = draw(*shape)
    turned = np.swapaxes(e, -1, -2)
    assert kind(turned, e) == "transpose"  # of the right shape, or of a wrong one
    assert kind(turned.reshape(shape), e) == "transpose"
    assert kind(e.reshape(turned.shape).swapaxes(-1, -2), e) == "transpose"


@pytest.mark.parametrize("shape", SHAPES)
def test_an_index_off_by_one(shape):
    e = draw(*shape)
    for axis in range(len(shape)):
        if shape[axis] < 3:
            continue
        for step in (1, -1):
            moved = np.roll(e, step, axis)
            assert f"along axis {axis}" in mistake(moved, e).words
            edge = (slice(None),) * axis + (0 if step == 1 else -1,)
            moved[edge] = 0
            assert kind(moved, e) == "index off by one"
            missing = e.copy()
            missing[edge] = 0
            assert kind(missing, e) == "index off by one"


def test_one_number_in_each_line_at_the_next_index():
    e = draw(4, 6)
    labels = np.array([0, 3, 5, 2])
    wrong = e.copy()
    wrong[np.arange(4), labels] += 1
    wrong[np.arange(4), (labels + 1) % 6] -= 1
    assert "one number in each line along axis 1" in mistake(wrong, e).words


@pytest.mark.parametrize("shape", SHAPES)
def test_a_detached_path(shape):
    e = draw(*shape)
    assert mistake(None, e).words == "the gradient is None, where differences are not 0"
    assert kind(0 * e, e) == "detached path"
    found = mistake(np.where(e > 0, e, 0), e, args=[e])
    assert found.kind == "detached path" and "where argument 0 is below 0" in found.words


def test_one_of_several_arguments():
    a, b, c = draw(3, 4), draw(4), draw(5)
    found = mistake([a, 0 * b, c], [a, b, c])
    assert found.words.startswith("the gradient for argument 1 is 0 everywhere")
    found = mistake([2 * a, b, 2 * c], [a, b, c])
    assert found.words.startswith("each of the gradients for arguments 0 and 2 is 2 times")


def test_gradients_of_two_arguments_swapped():
    a, b, c = draw(3, 4), draw(3, 4, seed=5), draw(3, 4, seed=6)
    assert mistake([b, a], [a, b]).kind == "arguments swapped"
    assert mistake([a[0], b], [b, a[0]]).kind == "arguments swapped"  # with each other's shapes
    found = mistake([b, c, a], [a, b, c])
    assert found.words == "the gradients for arguments 0, 1 and 2 are those for 1, 2 and 0"


def test_not_finite():
    e = draw(3, 4)
    wrong = e.copy()
    wrong[1] = np.nan
    found = mistake(wrong, e)
    assert found.kind == "not finite" and "at index 1 of axis 0" in found.words


def test_a_nan_is_wrong_though_its_error_is_not_known():
    e, error = draw(3), np.array([np.nan, 1e-7, 1e-7])
    found = likely_mistake([np.array([np.nan, *e[1:]])], [e], [error], g=draw(3), args=[e], value=e)
    assert found.kind == "not finite"


def test_a_missing_number_is_not_one_that_moved():
    e = draw(3, 4)
    wrong = e.copy()
    wrong[2, 3] = 0
    assert mistake(wrong, e).words == "the gradient is 0 at index (2, 3) alone and right elsewhere"


def test_an_axis_of_size_1_too_many_is_a_shape():
    assert kind(draw(3)[:, None], draw(3)) == "shape"


def test_an_entry_of_which_nothing_is_known_is_left_out():
    e, error = draw(6), np.full(6, 1e-7)
    e[2], error[2] = np.nan, np.inf
    got = 2 * e
    got[2] = 123.0
    found = likely_mistake([got], [e], [error], g=draw(6), args=[draw(6)], value=draw(6))
    assert found.kind == "factor"


def test_a_wrong_part_is_named_if_nothing_else_is():
    e = draw(3, 4)
    wrong = e.copy()
    wrong[1, 2] += 1
    assert mistake(wrong, e).words == (
        "the gradient is wrong at index (1, 2) alone and right elsewhere"
    )


# ---- what needs g, the arguments and the value ----


@pytest.mark.parametrize("shape, full", [((4,), (3, 4)), ((3, 1), (3, 4)), ((4,), (2, 3, 4))])
def test_a_sum_over_a_broadcast_axis(shape, full):
    g, x, other = draw(*full), draw(*shape, seed=1), draw(*full, seed=2)
    each = g * other
    axes = tuple(range(len(full) - len(shape))) + ((1,) if shape == (3, 1) else ())
    e = each.sum(axes).reshape(shape)
    kwargs = {"g": g, "args": [x, other], "value": x * other}
    first = each[:, :1] if shape == (3, 1) else each[(0,) * (len(full) - 1)]
    for wrong in (each, first, each.mean(axes).reshape(shape), each.max(axes).reshape(shape)):
        found = mistake([wrong, g * x], [e, g * x], **kwargs)
        assert found.kind == "sum over a broadcast axis left out", found
        assert "argument 0" in found.words


def test_repeated_indices():
    w, ids, g = draw(5, 3), np.array([1, 4, 1, 0]), draw(4, 3)
    e, wrong = np.zeros((2, 5, 3))
    np.add.at(e, ids, g)
    wrong[ids] = g
    found = mistake([wrong, None], [e, None], g=g, args=[w, ids], value=w[ids])
    assert found.kind == "sum over repeated indices left out"


def test_terms_left_out():
    x, g = draw(3, 5), draw(3, 5, seed=1)
    y = np.exp(x) / np.exp(x).sum(-1, keepdims=True)
    e = y * (g - (g * y).sum(-1, keepdims=True))
    found = mistake(g * y, e, g=g, args=[x], value=y)
    assert found.words == "the gradient lacks the term -sum(g * value, axis=1) * value"
    e = g * x * (1 + y)
    found = mistake(g * x, e, g=g, args=[x], value=y)
    assert found.kind == "term left out" or "factor (1 + value)" in found.words
    found = mistake(g, g - y + 2 * x, g=g, args=[x], value=y)
    assert found.words == "the gradient lacks the terms -value and 2 * args[0]"
    found = mistake(g * y, g * y + draw(3, 1), g=g, args=[x], value=y)
    assert found.words == "the gradient lacks a term that is constant along axis 1"


def test_a_factor_that_is_an_array():
    x, g = draw(7), draw(7, seed=1)
    y = np.tanh(x)
    found = mistake(g, g * (1 - y * y), g=g, args=[x], value=y)
    assert found.words == "the gradient lacks the factor (1 - value**2)"
    found = mistake(g * y * y, g * y, g=g, args=[x], value=y)
    assert found.words == "the gradient has the factor value, which does not belong there"


def test_transposed_factors_of_a_product():
    a, b, g, m = (draw(4, 4, seed=i) for i in range(4))
    kwargs = {"g": g, "args": [a, b], "value": a @ b}
    found = mistake([g @ b, a.T @ g], [g @ b.T, a.T @ g], **kwargs)
    assert found.words == "the gradient for argument 0 has g @ args[1] where g @ args[1].T is right"
    found = mistake([m @ b, a.T @ g], [m.T @ b, a.T @ g], **kwargs)  # m is not among the arguments
    assert found.kind == "transpose" and "m.T @ z is right" in found.words


def test_a_factor_that_is_constant_along_an_axis():
    e = draw(3, 6)
    found = mistake(e * [[0.9], [1.6], [1.2]], e)
    assert (
        found.words == "the gradient has a factor between 0.9 and 1.6 that is constant along axis 1"
    )


def test_a_sum_over_another_axis():
    x, b, g = draw(4, 4), draw(4), draw(4, 4, seed=1)
    found = mistake([g, g.sum(1)], [g, g.sum(0)], g=g, args=[x, b], value=x + b)
    assert "is the sum over axis 1 of g, where the sum over broadcast axes" in found.words


def test_a_reshape_in_fortran_order():
    g = draw(5, 4)
    found = mistake(g.reshape((4, 5), order="F"), g.reshape(4, 5), g=g, value=g)
    assert found.words.endswith("in a wrong order: reshaped from (5, 4) in Fortran order")


def test_g_in_a_wrong_order():
    x = draw(2, 3, 4)
    g = draw(3, 8, seed=1)
    right = 3 * x * x * g.reshape(3, 2, 4).swapaxes(0, 1)
    assert kind(3 * x * x * g.reshape(x.shape), right, g=g, args=[x], value=g) == "transpose"


def test_low_precision_needs_more_evidence():
    """In bfloat16, explanations with unknown numbers would fit many wrong gradients by chance."""
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    named = 0
    for seed in range(15):
        e, x = draw(2, 3, seed=seed), draw(2, 3, seed=seed + 1000).astype(bfloat16)
        wrong = e + draw(2, 3, seed=seed + 2000)
        named += mistake(wrong, e, args=[x], value=x * x, error=0.01) is not None
        assert kind(-e, e, args=[x], value=x * x, error=0.01) == "sign"
        assert kind(2 * e, e, args=[x], value=x * x, error=0.01) == "factor"
    assert named == 0


# ---- planted bugs, and right gradients ----

# The kinds that name a planted bug, or words of a complaint.
NAMES = {kind: (kind,) for kind in BUGS}
NAMES["broadcast sum left out"] = (
    "sum over a broadcast axis left out", "sum over repeated indices left out"
)  # fmt: skip
WORDS = {
    "nondeterminism": "Computed again",
    "writing into g or an argument": "writes into",
    "depends on memory order or on needs": "When ",
}


@pytest.mark.parametrize("group", BUGS)
def test_planted_bugs_are_found_and_named(group):
    found = named = 0
    for n, bug in enumerate(BUGS[group]):
        KEPT.clear()
        right = FUNCTIONS[bug.function]
        args = right.draw(np.random.default_rng(100 * n))
        case = Case(group, bug.function, bug.value or right.value, bug.vjp, args)
        report = examine_vjp(*in_numpy(case), args)
        found += not report.ok
        if group in WORDS:
            named += any(WORDS[group] in complaint for complaint in report.complaints)
        else:
            named += report.mistake is not None and report.mistake.kind in NAMES[group]
    assert found == len(BUGS[group])
    assert named >= 0.8 * len(BUGS[group])


@pytest.mark.parametrize("group", ["kinks", "scales", "edges"])
def test_right_gradients_raise_no_false_alarm(group):
    for case in drawn(50, seed=1):
        if case.group == group:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)
                report = examine_vjp(*in_numpy(case), arguments(case))
            assert report.verdict != "wrong" and not report.complaints, f"{case.name}\n{report}"
