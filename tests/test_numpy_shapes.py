"""NumPy's functions of shapes and positions: equal to NumPy's, also for awkward arguments."""

import itertools

import numpy as np
import pytest

import tensorlite as tl
from tensorlite.testing import check_grads

X = np.arange(1.0, 7.0).reshape(2, 3)
CUBE = np.arange(24.0).reshape(2, 3, 4)


def leaf(values):
    return tl.tensor(values, requires_grad=True)


def same(call, *arrays):
    """The call gives the same of tensors and of arrays; returns the tensors."""
    expected = call(*arrays)
    ours = call(*(leaf(a) for a in arrays))
    several = isinstance(expected, (tuple, list))
    for a, b in zip(*((ours, expected) if several else ([ours], [expected])), strict=True):
        assert isinstance(a, tl.Tensor) and a.shape == b.shape and a.dtype == b.dtype
        np.testing.assert_array_equal(a.data, b)
    return ours


@pytest.mark.parametrize("array", [np.array(2.0), np.arange(3.0), X, CUBE, np.ones((0, 2))])
def test_any_number_of_axes(array):
    for call in (np.ravel, np.atleast_1d, np.atleast_2d, np.atleast_3d, np.copy):
        same(call, array)
    same(np.atleast_2d, array, array)
    for reps in (0, 2, (), (2, 1), (1, 2, 1, 2), np.array([2, 3])):
        same(lambda x, reps=reps: np.tile(x, reps), array)
    if array.ndim:  # NumPy cannot shift a number
        same(np.fft.fftshift, array)
        same(np.fft.ifftshift, array)
    for shape in (5, (2, 2), (0,), ()):
        same(lambda x, shape=shape: np.resize(x, shape), array)
    same(lambda x: np.repeat(x, 2), array)
    same(lambda x: np.append(x, [1.0]), array)
    same(lambda x: np.broadcast_arrays(x, np.ones((2, 1, 1))), array.ravel()[:1])
    same(np.diagflat, array)
    same(lambda x: np.full_like(x, 3.0), array)
    same(np.unique, array)


@pytest.mark.parametrize("array", [X, CUBE])
def test_axes(array):
    ndim = array.ndim
    for k in range(-5, 6):
        for axes in itertools.permutations(range(-1, ndim - 1), 2):
            same(lambda x, k=k, axes=axes: np.rot90(x, k, axes), array)
    for axis, start in itertools.product(range(-ndim, ndim), range(-ndim, ndim + 1)):
        same(lambda x, axis=axis, start=start: np.rollaxis(x, axis, start), array)
        same(lambda x, axis=axis, start=start: np.moveaxis(x, axis, -1), array)
    for axis1, axis2 in itertools.permutations(range(ndim), 2):
        for k in range(-4, 5):
            same(lambda x, a=axis1, b=axis2, k=k: np.diagonal(x, k, a, b), array)
    for call in (np.flipud, np.fliplr, np.matrix_transpose):
        same(call, array)


@pytest.mark.parametrize("axes", [[], [0], [1, 0], [-1, 0], [2, 0, 1]])
def test_axes_in_an_array(axes):
    array = np.random.default_rng(0).random((4, 3, 2)[: len(axes)])
    same(lambda x: np.transpose(x, np.array(axes, int)), np.asarray(array))
    check_grads(lambda x: np.transpose(x, np.array(axes, int)) * 2.0, [array])


def test_joining():
    row, column = np.arange(3.0), np.ones((2, 1))
    for call in (np.hstack, np.vstack, np.dstack, np.column_stack):
        same(lambda *parts, call=call: call(parts), row, row + 1)
        same(lambda *parts, call=call: call(parts), X, X + 1)
    same(lambda *parts: np.hstack(parts), X, column)
    same(lambda *parts: np.vstack(parts), X, row)
    same(lambda *parts: np.column_stack(parts), X, column, np.ones(2))
    same(lambda *parts: np.hstack(parts), np.array(1.0), row)
    assert tl.hstack([leaf(row), 0.1, [0.1]]).data[-2:].tolist() == [0.1, 0.1]  # float64 throughout
    assert tl.vstack([[1.0], [2.0]]).dtype == np.float32
    same(lambda x, y: np.append(x, y, axis=1), X, column)
    with pytest.raises(ValueError):
        tl.hstack([])


def test_cutting():
    for n in range(1, 6):
        same(lambda x, n=n: np.array_split(x, n, axis=1), X)
    same(lambda x: np.array_split(x, [1, 5, 2]), CUBE)
    same(lambda x: np.hsplit(x, 2), np.arange(4.0))
    same(lambda x: np.hsplit(x, [1]), X)
    same(lambda x: np.vsplit(x, 2), X)
    same(lambda x: np.dsplit(x, [1, 3]), CUBE)
    for axis in (0, 1, -1):
        for a, b in zip(tl.unstack(leaf(CUBE), axis), np.moveaxis(CUBE, axis, 0), strict=True):
            np.testing.assert_array_equal(a.data, b)
    for call, words in (
        (lambda: tl.split(X, 0), "cannot split 2 into 0"),
        (lambda: tl.split(X, -1), "cannot split 2 into -1"),
        (lambda: tl.array_split(X, 0), "1 section at least, not 0"),
        (lambda: tl.vsplit(np.ones(3), 1), "vsplit takes arrays of 2 or more axes"),
        (lambda: tl.dsplit(X, 1), "dsplit takes arrays of 3 or more axes"),
        (lambda: tl.hsplit(1.0, 1), "hsplit takes arrays of 1 or more axes"),
        (lambda: tl.unstack(1.0), "axis 0 is out of bounds"),
    ):
        with pytest.raises(ValueError, match=words):
            call()


def test_grids():
    rows = np.arange(2.0), np.arange(3.0) + 5, np.array(7.0)
    for indexing, sparse in itertools.product(("xy", "ij"), (True, False)):
        for n in range(4):
            same(lambda *a, i=indexing, s=sparse: np.meshgrid(*a, indexing=i, sparse=s), *rows[:n])
    with pytest.raises(ValueError, match="indexing is 'xy' or 'ij', not 'yx'"):
        tl.meshgrid(rows[0], indexing="yx")


def test_linspace():
    for ends in ((0.1, 0.7), (0.1, 0.1), (X, -X), (X[0], 2.0)):
        for num, endpoint in itertools.product((0, 1, 2, 5), (True, False)):
            y = tl.linspace(leaf(np.array(ends[0])), ends[1], num, endpoint)
            expected = np.linspace(*ends, num, endpoint)
            assert y.shape == expected.shape and y.dtype == np.float64
            np.testing.assert_allclose(y.data, expected, rtol=1e-15, atol=1e-15)
    assert np.linspace(leaf(np.array(0.1)), 0.7, 4)[-1].item() == 0.7
    assert tl.linspace(0, 1, 3).dtype == np.float32
    with pytest.raises(ValueError, match="not -1"):
        tl.linspace(0.0, 1.0, -1)


def test_repeat_and_take_along_axis_without_axis():
    same(lambda x: np.repeat(x, [1, 0, 2], axis=1), X)
    same(lambda x: np.repeat(x, np.array([2]), axis=-1), X)
    same(lambda x: np.repeat(x, np.int64(2)), X)
    assert tl.repeat(X, tl.tensor([2, 1]), 0).shape == (3, 3)
    indices = np.array([5, 0, 0])
    same(lambda x: np.take_along_axis(x, indices, None), X)
    x = leaf(X)
    assert tl.grad(tl.take_along_axis(x, indices, None).sum(), x)[0].data[0, 0] == 2
    with pytest.raises(ValueError, match="indices is a row"):
        tl.take_along_axis(x, np.array([[0]]), None)


def test_diagonals_and_vander():
    for k in range(-4, 5):
        for array in (X, np.arange(3.0), np.ones((0,)), np.ones((0, 3))):
            same(lambda x, k=k: np.diag(x, k), array)
    x = leaf([np.nan, 1.0])
    assert np.isnan(tl.diag(x).data).tolist() == [[True, False], [False, False]]
    for bad in (lambda: tl.diag(CUBE), lambda: tl.diag(1.0), lambda: tl.diagonal([1.0])):
        with pytest.raises(ValueError, match="diag"):
            bad()
    for N, increasing in itertools.product((None, 0, 1, 5), (True, False)):
        same(lambda x, N=N, i=increasing: np.vander(x, N, i), np.array([0.0, -1.0, 2.0]))
    zero = leaf(np.array([0.0]))
    g = tl.grad(tl.vander(zero, 3, increasing=True)[0, 1], zero)[0]
    assert g.item() == 1
    with pytest.raises(ValueError, match="vander takes a row"):
        tl.vander(X)


# ---- choosing ----


def test_conditions():
    mask = X > 2
    same(lambda x: np.extract(mask, x), X)
    same(lambda x: np.compress([True, False], x, axis=0), X)
    same(lambda x: np.compress([False, True, True, True], x), X)
    same(lambda x, y: np.select([mask, X > 4], [x, y], -1.0), X, X + 10)
    same(lambda x: np.select([mask], [x]), X)
    same(lambda x, y: np.choose(mask.astype(int), [x, y]), X, X[0])
    with pytest.raises(ValueError, match="2 conditions and 1 choices"):
        tl.select([mask, mask], [X])
    with pytest.raises(TypeError, match="conditions that are booleans, not float64"):
        tl.select([X], [X])
    with pytest.raises(IndexError, match="the indices must be from 0 to 1"):
        tl.choose([0, 2], [X[0, :2], X[1, :2]])
    with pytest.raises(TypeError, match="choose takes integers"):
        tl.choose([0.0], [[1.0]])
    with pytest.raises(ValueError, match="compress takes a row"):
        tl.compress(mask, X)


def test_insert_and_delete():
    for obj in (0, 2, -1, [0, 2], [1, 1], slice(0, 2), []):
        same(lambda x, obj=obj: np.insert(x, obj, 9.0), X)
        same(lambda x, obj=obj: np.delete(x, obj), X)
        same(lambda x, obj=obj: np.delete(x, obj, axis=1), X)
    same(lambda x, v: np.insert(x, 1, v, axis=1), X, np.array([7.0, 8.0]))
    same(lambda x, v: np.insert(x, [1, 3], v, axis=1), X, np.array([[7.0], [8.0]]))
    same(lambda x: np.insert(x, [0, 1], [7.0, 8.0]), X)
    same(lambda x: np.delete(x, [True, False], axis=0), X)
    with pytest.raises(IndexError):
        tl.delete(X, 9, axis=0)
    check_grads(lambda x, v: tl.insert(x, [0, 2], v), [X, np.array([7.0, 8.0])])


def test_the_first_of_equal_elements_is_unique():
    x = leaf(np.array([3.0, 1.0, 3.0]))
    y = np.unique(x)
    assert y.data.tolist() == [1, 3]
    assert tl.grad((y * np.array([1.0, 2.0])).sum(), x)[0].data.tolist() == [2, 1, 0]
    same(lambda x: np.unique(x, axis=0), np.array([[2.0, 1.0], [2.0, 1.0], [0.0, 5.0]]))
    with pytest.raises(TypeError, match="np.unique does not take return_counts="):
        np.unique(x, return_counts=True)


def test_full_like_is_differentiable_in_its_number():
    value = leaf(np.array(3.0))
    y = np.full_like(tl.tensor(X, dtype=np.float32), value)
    assert y.dtype == np.float32 and tl.grad(y.sum(), value)[0].item() == 6


def test_integers_and_booleans_are_moved_as_they_are():
    for array in (np.array([[3, 1], [2, 0]], np.int8), np.array([[True, False], [False, True]])):
        x = tl.tensor(array)
        for call in (np.flipud, np.rot90, np.ravel, np.diag, np.diagflat, np.copy, np.unique):
            y = call(x)
            assert y.dtype == array.dtype
            np.testing.assert_array_equal(y.data, call(array))
