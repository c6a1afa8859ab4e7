"""NumPy's products: shapes of all kinds, numbers, integers, and what does not fit."""

import functools

import numpy as np
import pytest

import tensorlite as tl
from tensorlite.testing import check_grads


def drawn(*shapes):
    rng = np.random.default_rng(0)
    return [rng.standard_normal(shape) for shape in shapes]


def same(name, a, b, **options):
    """Value and shape are NumPy's, called by either name; the gradients are right."""
    expected = getattr(np, name)(a, b, **options)
    for ours in (getattr(tl, name)(a, b, **options), getattr(np, name)(tl.tensor(a), b, **options)):
        assert ours.shape == np.shape(expected)
        np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-12, atol=1e-12)
    check_grads(lambda a, b: getattr(tl, name)(a, b, **options), [a, b])


@pytest.mark.parametrize("shapes", [
    ((3,), (3,)), ((2, 3), (3,)), ((2, 3), (3, 2)), ((2, 3), (4, 3, 2)), ((3,), (2, 3, 2)),
    ((), (3, 2)), ((2,), ()), ((), ()), ((0, 3), (3, 0)), ((2, 0), (0, 3)),
])  # fmt: skip
def test_dot(shapes):
    same("dot", *drawn(*shapes))


@pytest.mark.parametrize("name, shapes", [
    ("inner", ((3,), (2, 3))), ("inner", ((2, 3), (4, 2, 3))), ("inner", ((), (2,))),
    ("inner", ((2, 0), (3, 0))), ("outer", ((2, 2), (3,))), ("outer", ((), (0,))),
    ("vdot", ((2, 3), (3, 2))), ("vdot", ((), ())), ("vdot", ((0,), (0, 2))),
    ("kron", ((2,), (3,))), ("kron", ((2, 3), (2,))), ("kron", ((2,), (2, 1, 3))),
    ("kron", ((), (2, 2))), ("kron", ((0, 2), (2, 2))),
])  # fmt: skip
def test_products(name, shapes):
    same(name, *drawn(*shapes))


@pytest.mark.parametrize(
    "axes", [0, 1, 2, (1, 1), (-2, -1), ([0, 1], [2, 1]), ((1, 0), (1, 2)), ([], [])], ids=str
)
def test_tensordot(axes):
    a, b = drawn((2, 3), (4, 3, 2)) if axes not in (1, 2) else drawn((4, 2, 3), (2, 3, 2))
    a, b = (a[0].T, b) if axes == 1 else (a, b)
    same("tensordot", a, b, axes=axes)


@pytest.mark.parametrize("shapes, options", [
    (((3,), (3,)), {}), (((4, 3), (3,)), {}), (((3, 4), (3, 4)), {"axis": 0}),
    (((2, 3, 4), (3, 4)), {"axisa": 1, "axisb": 0, "axisc": 0}), (((2, 1, 3), (4, 3)), {}),
    (((0, 3), (3,)), {}),
    (((2,), (3,)), {}), (((3,), (4, 2)), {}), (((4, 2), (2,)), {}),
])  # fmt: skip
@pytest.mark.filterwarnings("ignore:.*2-dimensional vectors:DeprecationWarning")
def test_cross(shapes, options):
    same("cross", *drawn(*shapes), **options)


def test_trace():
    (x,) = drawn((2, 3, 4))
    for options in (
        {},
        {"offset": 1},
        {"offset": -1, "axis1": 1, "axis2": 2},
        {"offset": 9},
        {"offset": -9},
        {"offset": 1, "axis1": -1, "axis2": 0},
    ):
        expected = np.trace(x, **options)
        np.testing.assert_allclose(np.trace(tl.tensor(x), **options).numpy(), expected)
        check_grads(functools.partial(tl.trace, **options), [x])


@pytest.mark.parametrize("name, shapes", [
    ("vecdot", ((2, 3), (3,))), ("vecdot", ((2, 1, 3), (4, 3))), ("vecdot", ((2, 0), (0,))),
    ("matvec", ((2, 3, 4), (4,))), ("matvec", ((3, 4), (2, 4))),
    ("vecmat", ((3,), (2, 3, 4))), ("vecmat", ((2, 3), (3, 4))),
])  # fmt: skip
def test_products_of_vectors(name, shapes):
    if not hasattr(np, name):
        pytest.skip("this NumPy does not have it")
    same(name, *drawn(*shapes))


@pytest.mark.parametrize("lists", [
    ([0, 1], [1, 2], [0, 2]), ([0, 1], [1, 2]), ([5, 1], [1, 0]), ([..., 0], [0, ...], [...]),
    ([0, 1], (1, 2), []), ([30, 1], [1, 2]),
], ids=str)  # fmt: skip
def test_einsum_of_lists_of_axes(lists):
    a, b = drawn((2, 3), (3, 4)) if ... not in lists[0] else drawn((2, 3), (3, 2))
    expected = np.einsum(a, lists[0], b, lists[1], *lists[2:])
    for function in (np.einsum, tl.einsum):
        y = function(tl.tensor(a), lists[0], b, lists[1], *lists[2:])
        np.testing.assert_allclose(y.numpy(), expected, rtol=1e-12)
    check_grads(lambda a, b: tl.einsum(a, lists[0], b, lists[1], *lists[2:]), [a, b])


def test_einsum_refuses():
    x = np.ones((2, 3))
    for arguments in [(x,), (x, 1), (x, [0, 1], x), (1, 2, 3)]:
        with pytest.raises(TypeError, match="subscripts first, as a string"):
            tl.einsum(*arguments)
    for axis in (-1, 52, 0.5):
        with pytest.raises(ValueError, match="from 0 to 51"):
            tl.einsum(x, [0, axis])
    with pytest.raises(ValueError, match="does not fit an operand"):
        tl.einsum(x, [0])


def test_the_axis_of_vecdot():
    a, b = drawn((3, 4), (3, 4))
    np.testing.assert_allclose(tl.vecdot(a, b, axis=0).numpy(), np.sum(a * b, 0))
    with pytest.raises(TypeError, match=r"np.vecdot\(..., axis=\)"):
        np.vecdot(tl.tensor(a), b, axis=0)


def test_lists_of_axes_that_are_no_axes():
    x = tl.tensor(np.ones((2, 3)))
    for axes in ([0, 52], [-1, 0], ["i", "j"]):
        with pytest.raises(ValueError, match="numbers axes from 0 to 51, not "):
            tl.einsum(x, axes)
    with pytest.raises(ValueError, match="does not fit an operand"):
        tl.einsum(x, [0])
    for arguments in ((x,), (x, x, [0, 1]), (2.0,)):
        with pytest.raises(TypeError, match="a list of axes behind each operand"):
            tl.einsum(*arguments)


def test_dtypes_are_those_of_the_arrays():
    x, wide = tl.tensor([1.5, 2.0]), np.array([0.1, 0.2])
    for function in (tl.dot, tl.inner, tl.outer, tl.kron, tl.vdot, tl.vecdot):
        assert function(x, x).dtype == np.float32
        assert function(x, [1, 2]).dtype == function([0.1, 0.2], x).dtype == np.float32
        assert function([0.1, 0.2], wide).dtype == np.float64
        np.testing.assert_allclose(function([0.1, 0.2], wide).data, function(wide, wide).data)
        assert function([1, 2], [3, 4]).dtype == np.int64
        assert function(x.astype(np.float16), x.astype(np.float16)).dtype == np.float16
    for function in (tl.dot, tl.inner, tl.outer, tl.kron):
        assert function(2.0, x.astype(np.float16)).dtype == np.float16
        assert function(x, 2).dtype == function(2.5, [1, 2]).dtype == np.float32
        assert function(0.1, wide).data.flat[0] == 0.1 * 0.1


def test_what_does_not_fit_is_refused():
    x = tl.tensor(np.ones((2, 3)))
    for call, words in [
        (lambda: tl.dot(x, x), r"\(2, 3\) and \(2, 3\) do not fit"),
        (lambda: tl.vdot(x, [1.0]), r"\(6,\) and \(1,\) do not fit"),
        (lambda: tl.inner(x, x.T), "axes of one size"),
        (lambda: tl.tensordot(x, x, 1), "axes of one size"),
        (lambda: tl.tensordot(x, x, ([0], [1, 0])), "axes of one size"),
        (lambda: tl.cross(x, [1.0]), "vectors of 2 or 3 elements"),
        (lambda: tl.cross(x, 1.0), "axis"),
        (lambda: tl.vecdot(x, [1.0]), "vectors of one length"),
        (lambda: tl.trace([1.0]), "two or more axes"),
        (lambda: tl.trace(x, axis1=0, axis2=-2), "repeated axis"),
    ]:
        with pytest.raises(ValueError, match=words):
            call()
    for bad in (np.array([1j, 2]), "text", np.array([object()])):
        for function in (tl.dot, tl.outer, tl.kron):
            with pytest.raises(TypeError):
                function(bad, x)


def test_numbers_of_numpy_beside_numbers():
    one = np.float32(1.5)
    for y in (tl.kron(one, 2), tl.append(one, 2), tl.outer(2, one), tl.ldexp(one, 1)):
        assert y.dtype == np.float32 and y.tolist() in (3.0, [3.0], [1.5, 2.0], [[3.0]])
