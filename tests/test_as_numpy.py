"""Tensors do what NumPy does: arguments, 0-d and empty arrays, dtypes and indices."""

import array
import collections
import contextlib
import functools
import inspect
import math

import numpy as np
import pytest

import tensorlite as tl
from tensorlite.arraylike import NUMPY
from tensorlite.testing import check_grads

# ---- arguments: each is obeyed or refused by name ----

X = np.array([[1.0, -2.0, 3.0], [4.0, 5.0, -6.0]])
# Two operands, by position only: test_numpy_linalg.py.
PRODUCTS = {getattr(np.linalg, name) for name in "cross matmul outer tensordot vecdot".split()}
FUNCTIONS = [
    f
    for f, ours in NUMPY.items()
    if not isinstance(f, np.ufunc)
    and f is not np.einsum
    and not isinstance(ours, functools.partial)  # NumPy's function of the array in the tensor
    and f not in PRODUCTS
]
# What else the functions need, and for each name of an argument a value that is not its default.
NEEDED = {
    "reshape": dict(shape=(3, 2)),
    "swapaxes": dict(axis1=0, axis2=1),
    "expand_dims": dict(axis=1),
    "squeeze": dict(axis=1),
    "roll": dict(shift=1),
    "broadcast_to": dict(shape=(2, 2, 3)),
    "take": dict(indices=np.array([0, 1])),
    "take_along_axis": dict(indices=np.array([[0], [1]]), axis=1),
    "pad": dict(pad_width=1),
    "split": dict(indices_or_sections=1),
    "clip": dict(a_min=-1.0, a_max=2.0),
    "moveaxis": dict(source=0, destination=1),
    "rollaxis": dict(axis=1),
    "resize": dict(new_shape=(3,)),
    "append": dict(values=X),
    "array_split": dict(indices_or_sections=2),
    "repeat": dict(repeats=2),
    "tile": dict(reps=2),
    "full_like": dict(fill_value=7.0),
    "compress": dict(a=X),
    "extract": dict(arr=X),
    "linspace": dict(stop=2 * X + 1),
    "select": dict(choicelist=[X, X + 1]),
    "choose": dict(choices=[X, X + 1]),
    "insert": dict(obj=1, values=7.0),
    "delete": dict(obj=1),
    "interp": dict(xp=np.array([0.0, 2.0]), fp=np.array([1.0, 3.0])),
}
VALUES = dict(axis=1, axes=(1, 0), dtype=np.float32, keepdims=True, initial=7.0, ddof=1, k=1)
VALUES |= dict(correction=1, order="F", copy=True, subok=True, casting="unsafe", mode="wrap")
VALUES |= dict(optimize=True, kind="stable", stable=True, min=-1.0, max=2.0, a_min=-1.0, a_max=2.0)
VALUES |= dict(indices=np.array([1, 0]), constant_values=7.0, reflect_type="odd")
VALUES |= dict(indices_or_sections=[1], pad_width=2, shift=2, axis1=1, axis2=0, shape=(6,))
VALUES |= dict(nan=7.0, posinf=7.0, neginf=7.0, decimals=1, left=7.0, right=7.0, period=4.0)
VALUES |= dict(source=1, destination=0, start=1, new_shape=(7,), repeats=3, reps=(2, 2), obj=0)
VALUES |= dict(values=3.0, offset=1, fill_value=3.0, a=X + 2, arr=X + 2, default=7.0)
VALUES |= dict(stop=X + 9, num=4, endpoint=False)
VALUES |= dict(choicelist=[X + 2, X], choices=[X + 2, X], device="cpu")
VALUES |= dict(xp=np.array([0.5, 3.0]), fp=np.array([-1.0, 2.0]))
VALUES |= dict(
    out=np.empty((2, 3)), where=np.array([[True, False, True]] * 2), mean=np.ones((2, 1))
)
# Reductions, quantiles, statistics and products.
MATRIX = np.array([[2.0, -1.0, 0.5], [3.0, 1.0, 4.0], [-2.0, 0.0, 1.5]])
NEEDED |= dict.fromkeys(["cumulative_sum", "cumulative_prod"], dict(axis=1))
NEEDED |= dict.fromkeys(["partition", "argpartition"], dict(kth=1))
NEEDED |= dict.fromkeys(["quantile", "nanquantile"], dict(q=0.3))
NEEDED |= dict.fromkeys(["percentile", "nanpercentile"], dict(q=30))
NEEDED |= dict.fromkeys(["cross", "inner", "kron", "outer", "vdot"], dict(b=X + 1))
NEEDED |= dict.fromkeys(["convolve", "correlate"], dict(v=np.array([1.0, 2.0])))
NEEDED |= {"dot": dict(b=X.T), "tensordot": dict(b=X + 1), "cross": dict(b=MATRIX.T)}
VALUES |= dict(kth=0, q=[0.1, 1.0], method="hazen", overwrite_input=True, weights=X**2, n=2)
VALUES |= dict(prepend=7.0, append=X, to_end=7.0, to_begin=[7.0, 8.0], edge_order=2, dx=0.5)
VALUES |= dict(returned=True, include_initial=True, discont=5.0, rowvar=False, bias=True)
VALUES |= dict(fweights=np.array([1, 2, 1]), aweights=np.array([1.0, 0.5, 2.0]), b=X * 2, offset=1)
VALUES |= dict(axisa=0, axisb=0, axisc=0)
OF_ONE = {  # values for an argument of one function
    ("cross", "b"): MATRIX + 1,
    ("cross", "axis"): 0,
    ("dot", "b"): X.T + 1,
    ("tensordot", "axes"): ([0, 1], [0, 1]),
    ("convolve", "mode"): "same",
    ("correlate", "mode"): "same",
    ("convolve", "v"): np.array([3.0, 1.0, 2.0]),
    ("correlate", "v"): np.array([3.0, 1.0, 2.0]),
    ("cumulative_sum", "axis"): 0,
    ("cumulative_prod", "axis"): 0,
}


FIRST = {
    np.squeeze: X[:, :1],
    np.compress: np.array([True, False]),
    np.extract: X > 0,
    np.select: [X > 0, X > -3],
    np.choose: (X > 0).astype(int),
}

# Functions of np.linalg are given a symmetric matrix, and these arguments.
SQUARE = np.array([[4.0, 1.0, 0.5], [1.0, 3.0, -1.0], [0.5, -1.0, 2.0]])
NEEDED |= {
    "linalg.solve": dict(b=np.array([1.0, 2.0, 3.0])),
    "linalg.lstsq": dict(b=np.array([1.0, 2.0, 3.0])),
    "linalg.tensorsolve": dict(b=np.array([1.0, 2.0, 3.0])),
    "linalg.matrix_power": dict(n=3),
    "linalg.tensorinv": dict(ind=1),
}
LINALG_VALUES = dict(b=np.eye(3), n=-2, axes=(0,), upper=True, UPLO="U", hermitian=True, mode="r")
LINALG_VALUES |= dict(full_matrices=False, compute_uv=False, rcond=0.3, rtol=0.4, tol=2.5, ind=1)
LINALG_VALUES |= dict(ord=1, p=-2, axis=(1, 0), offset=1)


def is_linalg(function):
    return function.__module__ == "numpy.linalg"


def first_argument(function):
    if is_linalg(function):
        return [SQUARE, SQUARE + 1] if function is np.linalg.multi_dot else SQUARE
    if function in FIRST:
        return FIRST[function]
    if function in (np.convolve, np.correlate):
        return X[0]
    if function in (np.cross, np.gradient):
        return MATRIX
    return [X, X + 1] if function in (np.concatenate, np.stack) else X


def tensors(value):
    return [tl.tensor(v) for v in value] if isinstance(value, list) else tl.tensor(value)


def as_arrays(value):
    values = value if isinstance(value, (list, tuple)) else [value]
    return [v.numpy() if isinstance(v, tl.Tensor) else np.asarray(v) for v in values]


def arguments_of(function):
    try:
        parameters = list(inspect.signature(function).parameters.values())[1:]
    except ValueError:  # NumPy 2.0 does not say what functions written in C take
        return []
    more = {np.clip: ["where", "dtype"], np.pad: ["constant_values", "reflect_type"]}
    names = [p.name for p in parameters if p.kind not in (p.POSITIONAL_ONLY, p.VAR_POSITIONAL)]
    return [n for n in names if n not in ("kwargs", "x", "y")] + more.get(function, [])


CALLS = [(f, name) for f in FUNCTIONS for name in arguments_of(f)]


@pytest.mark.parametrize(("function", "name"), CALLS, ids=[f"{f.__name__}-{n}" for f, n in CALLS])
def test_every_argument_of_numpys_functions_is_obeyed_or_refused(function, name):
    key = f"linalg.{function.__name__}" if is_linalg(function) else function.__name__
    x, needed = first_argument(function), dict(NEEDED.get(key, {}))
    if name in ("min", "max"):
        needed.clear()
    values = VALUES | LINALG_VALUES if is_linalg(function) else VALUES
    value = OF_ONE.get((function.__name__, name), values.get(name))
    if name == "out":  # of the right shape and dtype
        value = np.empty_like(function(x, **needed))
    if name == "indices" and function is np.take_along_axis:
        value = np.array([[1], [0]])
    if function is np.broadcast_to and name == "shape":
        value = (3, 2, 3)
    if function is np.squeeze:
        value = 1
    if name == "mode" and function is np.pad:
        value = "edge"
    call = needed | {name: value}
    try:
        expected = function(x, **call)
    except (TypeError, ValueError):  # not with these arguments: np.max takes where= with initial=
        expected = None
    try:
        result = function(tensors(x), **call)
    except TypeError as error:
        assert f"np.{function.__name__} " in str(error) and f"{name}=" in str(error)
        assert str(error).split(": ", 1)[1]  # the way out
        return
    except ValueError:
        assert expected is None
        return
    for ours, numpys in zip(as_arrays(result), as_arrays(expected), strict=True):
        assert ours.shape == numpys.shape
        np.testing.assert_allclose(ours, numpys)


def test_arguments_by_position_mean_what_they_mean_in_numpy():
    x = tl.tensor(X, requires_grad=True)
    for ours, numpys in [
        (np.sum(x, 0, None, None, True), np.sum(X, 0, None, None, True)),
        (np.max(x, 1, None, True), np.max(X, 1, None, True)),
        (np.var(x, 0, None, None, 1), np.var(X, 0, None, None, 1)),
        (np.clip(x, 0, 2), np.clip(X, 0, 2)),
        (np.where(x > 0, x, 0), np.where(X > 0, X, 0)),
        (np.argmax(a=x, axis=1), np.argmax(X, 1)),
        (np.pad(x, 1, "constant", constant_values=3), np.pad(X, 1, constant_values=3)),
    ]:
        assert ours.shape == numpys.shape
        np.testing.assert_allclose(ours.numpy(), numpys)
    for call, words in [
        (lambda: np.sum(x, 0, np.float64), "np.sum does not take dtype="),
        (lambda: np.max(x, 0, np.empty(3)), "np.max does not take out="),
        (lambda: np.pad(x, 1, "edge"), "np.pad does not take mode=.*np.pad.*indices"),
        (lambda: np.pad(x, 1, mode="reflect"), "np.pad does not take mode="),
        (lambda: np.where(x > 0), r"np.nonzero\(condition.numpy\(\)\)"),
        (lambda: np.clip(x, a_min=0, min=1), "np.clip does not take min="),
        (lambda: np.einsum("ij->i", x, dtype=float), "np.einsum does not take dtype="),
        (lambda: np.einsum(x, 0), "subscripts first, as a string"),
        (lambda: np.exp(x, where=True), r"np.exp\(..., where=\)"),
        (lambda: np.add.reduce(x), "np.add.reduce"),
        (lambda: x.sum(dtype=float), r"sum\(x, axis=None, keepdims=False\): .*'dtype'; .*astype"),
        (lambda: x.reshape((3, 2), order="F"), r"reshape\(x, shape\): .*'order'; only"),
        (lambda: tl.pad(x, 1, mode="edge"), r"pad\(.*'mode'; apply np.pad"),
    ]:
        with pytest.raises(TypeError, match=words):
            call()


# ---- numbers without axes, and empty arrays ----


def test_0d_results_are_arrays_in_either_order_of_use():
    for use in (lambda x: x[None].sum() + x * 3, lambda x: x * 3 + x[None].sum()):
        x = tl.tensor(2.0, requires_grad=True)
        use(x).backward()
        assert x.grad.item() == 4 and isinstance(x.grad.data, np.ndarray)
    w = tl.tensor([1.0, 2.0], requires_grad=True)
    s = w.sum()
    (g,) = tl.grad(s[None].sum() + s * s + s[...] + s.reshape((1,))[0], w)
    np.testing.assert_array_equal(g.data, [9, 9])
    np.testing.assert_array_equal(tl.grad((w.max()[None] * 2).sum(), w)[0].data, [0, 2])


@pytest.mark.parametrize("axis", [None, 0, -1, 1, (0,), ()])
@pytest.mark.parametrize("name", ["sum", "prod", "max", "min", "mean", "var", "cumsum"])
def test_reductions_of_0d_arrays(name, axis):
    x = tl.tensor(3.0, requires_grad=True)
    try:
        expected = getattr(np, name)(np.float64(3.0), axis=axis)
    except (np.exceptions.AxisError, TypeError) as error:
        with pytest.raises(type(error)):
            getattr(tl, name)(x, axis=axis)
        return
    y = getattr(tl, name)(x, axis=axis)
    assert y.shape == np.shape(expected) and np.all(y.data == expected)
    (g,) = tl.grad(y.sum(), x)
    assert g.shape == () and g.item() == (0 if name == "var" else 1)


INDICES = [None, ..., (), True, False, (None, ...), (..., None), (None, None), np.array(True)]


@pytest.mark.parametrize("index", INDICES, ids=str)
def test_indices_of_0d_arrays(index):
    x = tl.tensor(3.0, requires_grad=True)
    y = x[index]
    expected = np.array(3.0)[index]
    assert y.shape == expected.shape
    (g,) = tl.grad((y * y).sum() + x, x)
    assert g.item() == (7 if expected.size else 1)


@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 3), (2, 0, 3)])
@pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp", "sum", "prod", "cumsum"])
def test_empty_arrays_have_empty_gradients_to_second_order(name, shape):
    x = tl.tensor(np.zeros(shape), requires_grad=True)
    for axis in range(-1, len(shape)):
        with np.errstate(all="ignore"), tl.higher_order():
            y = getattr(tl, name)(x, axis=axis)
            (g,) = tl.grad(y, x, np.ones(y.shape), create_graph=True)
            (second,) = tl.grad((g * x).sum(), x)
        assert g.shape == second.shape == shape


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_the_axis_of_a_0d_softmax_exists(name):
    assert getattr(tl, name)(tl.tensor(3.0), axis=0).item() == (1 if name == "softmax" else 0)
    with pytest.raises(np.exceptions.AxisError):
        getattr(tl, name)(tl.tensor(3.0), axis=1)


# ---- dtypes ----

INTEGERS = [np.bool_, np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.uint64]
REAL = ["exp", "log", "sqrt", "rsqrt", "sin", "cos", "tanh", "sigmoid", "erf", "gelu", "silu"]
REAL += ["softmax", "log_softmax", "logsumexp", "mean", "var"]


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("name", REAL)
def test_functions_of_integers_are_computed_in_32_bits_at_least(name, dtype):
    values = np.array([1, 5, 12, 40]).astype(dtype)
    y = getattr(tl, name)(tl.tensor(values))
    expected = getattr(tl, name)(tl.tensor(values.astype(np.float64)))
    assert y.dtype == np.float32
    np.testing.assert_allclose(y.data, expected.data, rtol=2e-6, atol=1e-12)


def test_functions_of_small_integers_by_hand():
    np.testing.assert_allclose(
        tl.sigmoid(tl.tensor(np.array([1, 5], np.uint8))).data, [0.7310586, 0.9933072], rtol=1e-6
    )
    np.testing.assert_allclose(
        tl.exp(tl.tensor(np.array([5, 12], np.uint8))).data, [148.41316, 162754.8], rtol=1e-6
    )
    # Large integers keep the digits that float32 lacks until the result is rounded.
    assert tl.sin(tl.tensor([123456789])).item() == pytest.approx(math.sin(123456789), rel=1e-6)
    np.testing.assert_allclose(tl.softmax(tl.tensor([2**24, 2**24 + 1])).data[1], 0.7310586)
    halves = tl.tensor(np.ones(2, np.float16)) / tl.tensor(np.array([4, 8], np.uint8))
    np.testing.assert_array_equal(halves.data, [0.25, 0.125])


def test_the_variance_of_integers_is_no_integer():
    assert tl.tensor([1, 2, 4]).var().item() == pytest.approx(14 / 9)
    assert tl.tensor([True, False]).var().item() == 0.25
    assert tl.tensor(np.array([200, 100], np.uint8)).var().item() == 2500
    assert tl.tensor([1, 2, 4]).mean().item() == pytest.approx(7 / 3)


@pytest.mark.filterwarnings("ignore")
def test_a_variance_with_no_degrees_of_freedom_is_numpys():
    for values, ddof in (([1.0, 2.0], 3), ([1.0, 2.0], 2), ([1.0, 1.0], 3), ([1.0], 1), ([], 0)):
        ours = tl.tensor(np.array(values)).var(ddof=ddof)
        np.testing.assert_equal(ours.item(), np.var(np.array(values), ddof=ddof))


def test_float16_counts_and_sums_in_float32():
    n = 70_000
    x = tl.tensor(np.ones(n, np.float16), requires_grad=True)
    for y in (x.max(), x.min()):
        (g,) = tl.grad(y, x)
        assert g.dtype == np.float16
        np.testing.assert_allclose(g.data.astype(float), 1 / n, rtol=5e-3)
    weight = tl.tensor(np.zeros((1, 1), np.float16), requires_grad=True)
    assert tl.grad(tl.embedding(weight, np.zeros(5000, int)).sum(), weight)[0].item() == 5000
    assert tl.scatter_add(np.ones(5000, np.float16), (1,), np.zeros(5000, int)).item() == 5000
    third = tl.tensor(np.full(4096, 1.001, np.float16))
    assert third.prod().item() == pytest.approx(float(np.float16(1.001)) ** 4096, rel=1e-3)


def test_a_list_beside_float64_is_float64():
    x, y = tl.tensor(np.ones(2)), [0.1, 0.2]
    for result in (
        x * y,
        y + x - 1.0,
        tl.einsum("i,i->i", x, y),
        tl.stack([x, y])[1],
        tl.stack([y, x])[0],
        tl.concatenate([x, y])[2:],
        tl.where([False, False], x, y),
        tl.maximum(x * 0.0, y),
    ):
        assert result.dtype == np.float64
        np.testing.assert_allclose(result.data, y, rtol=1e-15)
    assert (tl.tensor([1.0, 1.0]) * y).dtype == np.float32


# ---- indices ----

SEQUENCES = [
    collections.deque([0, 0, 1]),
    array.array("q", [0, 0, 1]),
    memoryview(array.array("i", [0, 0, 1])),
    [0, 0, 1],
    np.array([0, 0, 1], np.uint8),
    tl.tensor([0, 0, 1]),
]


class HasArray:
    def __array__(self, dtype=None, copy=None):
        return np.array([0, 0, 1])


@pytest.mark.parametrize("index", [*SEQUENCES, HasArray()], ids=lambda i: type(i).__name__)
def test_an_element_that_any_sequence_names_twice_is_counted_twice(index):
    x = tl.tensor([1.0, 2.0], requires_grad=True)
    columns = tl.tensor([[1.0, 2.0]], requires_grad=True)
    table = tl.tensor([[1.0], [2.0]], requires_grad=True)
    for y, leaf in (
        (x[index], x),
        (x[(index,)], x),
        (columns[:, index], columns),
        (tl.take(x, index), x),
        (tl.take(columns, index, axis=1), columns),
        (tl.take_along_axis(x, index, axis=0), x),
        (tl.embedding(table, index), table),
        (tl.scatter_add(tl.tensor([1.0, 1.0, 1.0]), (2,), index), None),
    ):
        g = y if leaf is None else tl.grad(y.sum(), leaf)[0]
        np.testing.assert_array_equal(np.ravel(g.data), [2, 1])


def test_empty_sequences_and_ranges_are_indices():
    x = tl.tensor([1.0, 2.0], requires_grad=True)
    assert x[collections.deque()].shape == tl.take(x, ()).shape == (0,)
    assert x[[[]]].shape == (1, 0)
    check_grads(lambda x: x[range(1, -1, -1)] * x[range(2)], [np.array([1.0, 2.0])])


def test_arrays_of_other_libraries_are_refused():
    class Foreign:  # as PyTorch's tensors are
        dtype, shape, ndim = "int64", (2,), 1

        def __array__(self, dtype=None, copy=None):
            return np.array([0, 1])

        def __index__(self):
            return 0

    x = tl.tensor([1.0, 2.0], requires_grad=True)
    for use in (
        lambda i: x[i],
        lambda i: x[(i,)],
        lambda i: tl.take(x, i),
        lambda i: tl.embedding(tl.tensor([[1.0]]), i),
        lambda i: x + i,
        lambda i: tl.tensor(i),
    ):
        with pytest.raises(TypeError, match="Foreign"):
            use(Foreign())


def test_pytorchs_tensors_are_refused():
    torch = pytest.importorskip("torch")
    x = tl.tensor([1.0, 2.0], requires_grad=True)
    for use in (lambda i: x[i], lambda i: tl.take(x, i), lambda i: x * i, tl.tensor):
        with pytest.raises(TypeError, match="torch.Tensor"):
            use(torch.tensor([0, 0, 1]))


# ---- losses of nothing ----


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("scope", [contextlib.nullcontext, tl.higher_order])
@pytest.mark.parametrize("composed", [False, True])
def test_all_targets_ignored_changes_no_weight(composed, scope, smoothing):
    """PyTorch: the loss is NaN and its gradient 0."""
    targets = np.array([-100, -100])
    x = tl.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    w = tl.tensor([[1.0, 2.0], [0.0, 1.0], [5.0, 6.0]], requires_grad=True)
    names = "cross_entropy", "linear_cross_entropy"
    with_logits, with_weight = (tl.OPS[n].composed if composed else tl.OPS[n] for n in names)
    second = scope is tl.higher_order
    with scope():
        for y, leaves in (
            (with_logits(x, targets, label_smoothing=smoothing), [x]),
            (with_weight(x, w, targets), [x, w]),
        ):
            assert np.isnan(y.item())
            for g, leaf in zip(tl.grad(y, leaves, create_graph=second), leaves):
                np.testing.assert_array_equal(g.data, np.zeros(leaf.shape))
        assert with_logits(x, targets, reduction="sum").item() == 0


def test_many_gradients_of_one_float16_value_are_added_in_float32():
    x = tl.tensor(np.ones(1, np.float16), requires_grad=True)
    for uses in (
        [x[0] for _ in range(3000)],
        [x * 1.0 for _ in range(3000)],
        [x[0] if i % 2 else (x * 1.0).sum() for i in range(3000)],
    ):
        total = tl.stack([u.reshape(()).astype(np.float32) for u in uses]).sum()
        (g,) = tl.grad(total, x)
        assert g.dtype == np.float16 and g.item() == 3000
    y = x * 1.0  # a result in between, of which the vjp gets the sum
    total = tl.stack([y[0].astype(np.float32) for _ in range(3000)]).sum()
    assert tl.grad(total, x)[0].item() == 3000


def test_targets_of_another_library_are_refused():
    class Foreign:
        dtype, shape, ndim = "int64", (2,), 1

    for loss in (
        lambda t: tl.cross_entropy(tl.tensor(np.zeros((2, 3))), t),
        lambda t: tl.linear_cross_entropy(tl.tensor(np.zeros((2, 3))), np.zeros((4, 3)), t),
    ):
        with pytest.raises(TypeError, match="targets are integers.*Foreign"):
            loss(Foreign())
