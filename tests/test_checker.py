"""The checker is checked: a bug planted in any one vjp of any operation must be found."""

import numpy as np
import pytest
from hypothesis import Phase, given, settings

import tensorlite as tl
from tensorlite.testing import arrays, check_grads, shapes
from tests.op_cases import CASES
from tests.test_ops import check_case

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


def inputs_with_a_gradient():
    for name, op in sorted(tl.OPS.items()):
        for i in range(2 if op.variadic else len(op.arrays)):
            if (name, i) != ("where", 0):
                yield name, i


@pytest.mark.parametrize("bug", BUGS)
@pytest.mark.parametrize(("name", "index"), list(inputs_with_a_gradient()))
def test_a_planted_bug_is_found(name, index, bug, monkeypatch):
    op = tl.OPS[name]
    monkeypatch.setattr(op, "body", with_bug(op.body, index, BUGS[bug]))

    @settings(phases=[Phase.generate], database=None, report_multiple_bugs=False)
    @given(CASES[name])
    def walk(arguments):
        check_case(op, *arguments)

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
