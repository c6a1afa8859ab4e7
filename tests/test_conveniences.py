"""Tensors as users of NumPy expect them: assignments, methods, DLPack, and clear errors."""

import operator

import numpy as np
import pytest

import tensorlite as tl
from tests import strict

X = np.array([[1.5, -2.0, 3.0], [0.5, 5.0, -6.0]])


def leaf(values=X):
    return tl.tensor(values, requires_grad=True)


# ---- assignments ----

IN_PLACE = [operator.iadd, operator.isub, operator.imul, operator.itruediv, operator.ipow]
IN_PLACE += [operator.ifloordiv, operator.imod]


@pytest.mark.parametrize("function", IN_PLACE, ids=lambda f: f.__name__)
def test_in_place_operators_write_to_the_array(function):
    x, expected = tl.tensor(X), X.copy()
    alias, array = x, x.data
    for y in (2, tl.tensor([1.0, 2.0, 3.0]), np.ones((2, 1)), [[1.0], [3.0]]):
        x = function(x, y)
        expected = function(expected, y.numpy() if isinstance(y, tl.Tensor) else y)
    assert x is alias and x.data is array
    np.testing.assert_array_equal(array, expected)


def test_masks_in_place():
    x = tl.tensor([True, False, True])
    x &= [True, True, False]
    x |= tl.tensor([False, True, False])
    assert x.tolist() == [True, True, False]
    alias = x
    x ^= [True, False, False]
    assert alias is x and x.tolist() == [False, True, False]


INDICES = [
    0,
    -1,
    (1, 2),
    slice(None, None, 2),
    (..., 1),
    [1, 0],
    np.array([[True, False, True]] * 2),
]
INDICES += [tl.tensor([0, 1]), (tl.tensor([0, 1]), [2, 0]), None, ...]


@pytest.mark.parametrize("index", INDICES, ids=str)
def test_assignment_to_an_index(index):
    x, expected = tl.tensor(X), X.copy()
    plain = tuple(index) if isinstance(index, tuple) else (index,)
    plain = tuple(i.data if isinstance(i, tl.Tensor) else i for i in plain)
    for value in (7, tl.tensor(8.0), expected[plain] * 0.5):
        x[index] = value
        expected[plain] = value.data if isinstance(value, tl.Tensor) else value
        np.testing.assert_array_equal(x.data, expected)


def test_views_share_memory_and_copies_do_not():
    x = tl.tensor(X)
    x.reshape(6)[0] = 9
    x.T[1, 0] = 8
    assert x.data[0, :2].tolist() == [9, 8]
    for copied in (x.copy(), x.flatten(), +x):
        copied[0] = 0
    assert x.data[0, :2].tolist() == [9, 8]


def test_what_needs_a_gradient_is_not_assigned_to():
    x, y = leaf(), tl.tensor(X)
    for call, words in (
        (lambda: operator.iadd(x, 1), "the tensor needs a gradient.* x = x [+] y .*no_grad"),
        (lambda: operator.imul(x * 2, 1), "the tensor needs a gradient.* x = x [*] y .*no_grad"),
        (lambda: operator.iadd(y, x), "the value needs a gradient.* x = x [+] y "),
        (lambda: operator.setitem(x, 0, 1.0), r"the tensor needs a gradient.* tl.where\("),
        (lambda: operator.setitem(y, 0, x[0]), r"the value needs a gradient.* tl.where\("),
    ):
        with pytest.raises(TypeError, match=words):
            call()
    np.testing.assert_array_equal(x.data, X)
    np.testing.assert_array_equal(y.data, X)


def test_parameters_are_updated_under_no_grad():
    w = leaf(np.array([3.0, 1.0]))
    for _ in range(60):
        ((w - 2.0) ** 2).sum().backward()
        with tl.no_grad():
            w -= 0.2 * w.grad
        w.grad = None
    assert w.requires_grad and w.node is None
    np.testing.assert_allclose(w.data, [2, 2])


def test_an_array_that_a_backward_needs_says_why_it_is_not_changed():
    x, y = leaf(), tl.tensor(X)
    z = (x * y).sum()
    for call in (lambda: operator.setitem(y, 0, 1.0), lambda: operator.iadd(y, 1.0)):
        with pytest.raises(ValueError, match=r"'mul' of a graph .*backward\(\).*no_grad"):
            call()
        with tl.no_grad(), pytest.raises(ValueError, match="'mul' of a graph"):
            call()
    z.backward()
    y[0] = 1.0
    fixed = tl.Tensor(np.broadcast_to(1.0, (2, 3)))
    with pytest.raises(ValueError, match="read-only array"):
        fixed[0] = 2


def test_values_that_cannot_be_assigned():
    x, i = tl.tensor(X), tl.tensor([1, 2, 3])
    for value, kind in ((1j, "complex"), ("a", "str"), (np.ones(3, complex), "complex128")):
        for call in (lambda: operator.setitem(x, 0, value), lambda: operator.iadd(x, value)):  # noqa: B023
            with pytest.raises(TypeError, match=f"real numbers, not {kind}"):
                call()
    with pytest.raises(TypeError, match="None is no number"):
        x[0] = None
    with pytest.raises(TypeError, match="float64.*int64"):
        i += 1.5
    with pytest.raises(ValueError, match="broadcast"):
        x += [1.0, 2.0]
    with pytest.raises(IndexError, match="out of bounds"):
        x[5] = 1
    np.testing.assert_array_equal(x.data, X)
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match="torch.Tensor"):
        x += torch.ones(3)


def test_assignments_on_the_strict_device(monkeypatch):
    if not tl.cuda.is_available():
        strict.install(monkeypatch)
    x, w = tl.tensor(X, device="cuda"), tl.tensor(X, device="cuda", requires_grad=True)
    x += 1
    x *= tl.tensor([1.0, 2.0, 3.0], device="cuda")
    x[0, 1] = 5
    x[tl.tensor([1], device="cuda")] = x[0]
    np.testing.assert_array_equal(x.numpy(), [[2.5, 5, 12]] * 2)
    assert x.copy().tolist() == x.numpy().tolist() and x.flatten().shape == (6,)
    row = [1, 2, 3]
    for y in (x + row, np.add(row, x), x @ row, np.concatenate([x, [row]]), np.polyval(row, x)):
        assert y.device == "cuda"
    assert (x > 2).all() and x.argmax(axis=1).tolist() == [2, 2]
    with pytest.raises(TypeError, match="the tensor needs a gradient"):
        w += 1
    with tl.no_grad():
        w -= w * 0.5
    np.testing.assert_array_equal(w.numpy(), X / 2)


# ---- methods ----

# What is called with each name: arguments by position, or by name.
CALLS = {
    "all": [(), dict(axis=0)],
    "any": [(), dict(axis=1, keepdims=True)],
    "argmax": [(), dict(axis=1), (0,)],
    "argmin": [(), dict(axis=1)],
    "argpartition": [(1,)],
    "argsort": [(), dict(axis=0)],
    "clip": [(0, 2), dict(max=1)],
    "copy": [()],
    "cumprod": [(), (1,)],
    "cumsum": [(), dict(axis=0)],
    "diagonal": [(), (1,)],
    "flatten": [()],
    "max": [(), (0,)],
    "mean": [(), dict(axis=1)],
    "min": [()],
    "nonzero": [()],
    "prod": [(), (1,)],
    "ravel": [()],
    "repeat": [(2,), dict(repeats=2, axis=1)],
    "reshape": [(-1,), (3, 2)],
    "round": [(), (1,), dict(decimals=-1)],
    "squeeze": [()],
    "std": [(), (0,), dict(axis=1, ddof=1, keepdims=True)],
    "sum": [(), (0,)],
    "swapaxes": [(0, 1)],
    "take": [([1, 0],), ([1], 1)],
    "tolist": [()],
    "trace": [(), (1,)],
    "transpose": [(), (1, 0)],
    "var": [(), dict(ddof=1)],
}
ARRAYS = {"floats": X, "masks": X > 0, "integers": np.array([[3, 1, 2]]), "0-d": np.array(2.0)}


@pytest.mark.filterwarnings("ignore")  # of a variance with no degrees of freedom
@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("array", ARRAYS.values(), ids=ARRAYS)
def test_methods_are_numpys(name, array):
    for call in CALLS[name]:
        args, named = (call, {}) if isinstance(call, tuple) else ((), call)
        try:
            expected = getattr(array, name)(*args, **named)
        except (ValueError, TypeError, IndexError):  # of a 0-d array, of booleans
            with pytest.raises((ValueError, TypeError, IndexError)):
                getattr(tl.tensor(array), name)(*args, **named)
            continue
        result = getattr(tl.tensor(array), name)(*args, **named)
        if name == "tolist":
            assert result == expected and type(result) is type(expected)
            continue
        several = isinstance(expected, tuple)
        for ours, theirs in zip(result, expected) if several else [(result, expected)]:
            assert isinstance(ours, tl.Tensor) and ours.shape == np.shape(theirs)
            np.testing.assert_allclose(ours.data, theirs, rtol=1e-6)


def test_methods_that_are_not_as_numpys():
    x = tl.tensor([3.0, 1.0, 2.0])
    assert x.sort().tolist() == [1, 2, 3] and x.tolist() == [3, 1, 2]  # a new tensor
    assert x.norm().item() == pytest.approx(14**0.5) and x.dot(x).item() == 14
    assert tl.tensor(X).mT.shape == (3, 2) and tl.tensor([[X, X]]).mT.shape == (1, 2, 3, 2)
    assert x.nbytes == 12


def test_rounding_is_numpys_and_gives_a_tensor():
    x = tl.tensor([0.5, 1.5, -2.675, 123.456])
    assert round(x).tolist() == [0, 2, -3, 123] and round(x).dtype == np.float32
    np.testing.assert_allclose(round(x, 1).data, [0.5, 1.5, -2.7, 123.5], rtol=1e-6)
    assert isinstance(round(x[3], -2), tl.Tensor) and round(x[3], -2).item() == 100
    assert f"{leaf().sum():.3f}" == "2.000" and f"{x[3]:6.1f}" == " 123.5"


def test_masks_of_numpy_on_either_side():
    x, mask, number = tl.tensor(X) > 0, X < 3, np.array([6, 3])
    for ours, theirs in (
        (mask & x, mask & (X > 0)),
        (x | mask, mask | (X > 0)),
        (mask ^ x, mask ^ (X > 0)),
        (~x, X <= 0),
        (True & x, X > 0),
        (tl.tensor(number) ^ 5, number ^ 5),
        (4 | tl.tensor(number), number | 4),
    ):
        assert isinstance(ours, tl.Tensor)
        np.testing.assert_array_equal(ours.data, theirs)


def test_gradients_flow_through_copies():
    for function in (lambda x: x.copy(), lambda x: +x, lambda x: x.flatten().reshape(2, 3)):
        x = leaf()
        (function(x) ** 2).sum().backward()
        np.testing.assert_array_equal(x.grad.data, 2 * X)
    assert not leaf().argmax().requires_grad and not leaf().any().requires_grad


def test_an_array_is_not_added_to_in_place():
    array = np.zeros(3)
    with pytest.raises(TypeError, match=r"np.add\(..., out=\).* write a = a \+ x"):
        array += leaf()[0]


# ---- numbers that are not real ----


def test_complex_numbers_and_objects_are_named():
    for values, kind in (
        ([1j], "complex128"),
        (np.ones(2, np.complex64), "complex64"),
        ([object()], "object"),
        (np.array(["a"]), "<U1"),
    ):
        with pytest.raises(TypeError, match=f"real numbers; this is of dtype {kind}"):
            tl.tensor(values)
        with pytest.raises(TypeError, match=f"real numbers, not ({kind}|object)"):
            leaf() + np.asarray(values)
        with pytest.raises(TypeError, match="real numbers, not"):
            leaf() + values[0]
    with pytest.raises(TypeError, match="real numbers, not complex128"):
        leaf().astype(complex)


def test_what_is_no_tensor_is_named():
    x = leaf()
    for call, message in (
        (lambda: x * None, "mul: 'y' is None"),
        (lambda: tl.sin(None), "sin: 'x' is None"),
        (lambda: tl.grad(2.0, x), "tensors, not 2.0"),
        (lambda: tl.grad(x.sum(), [1.5]), "tensors, not 1.5"),
        (lambda: tl.tensor([x, x]), r"tl\.stack\(list\)"),
    ):
        with pytest.raises(TypeError, match=message):
            call()


def test_integers_need_no_gradient():
    for make in (
        lambda: tl.tensor([1, 2], requires_grad=True),
        lambda: setattr(tl.tensor([1, 2]), "requires_grad", True),
    ):
        with pytest.raises(TypeError, match=r"not int64: convert it with .astype\(np.float32\)"):
            make()


# ---- DLPack ----


def test_numpy_takes_and_gives_memory():
    x = tl.tensor([1.0, 2.0])
    array = np.from_dlpack(x)
    array[0] = 5
    assert x.tolist() == [5, 2] and x.__dlpack_device__() == (1, 0)
    y = tl.from_dlpack(array)
    y[1] = 7
    assert x.tolist() == [5, 7] and y.dtype == np.float32 and not y.requires_grad
    y = tl.from_dlpack(x)
    assert np.shares_memory(y.data, x.data)
    del x, array
    assert y.tolist() == [5, 7]


@pytest.mark.parametrize("shape", [(), (3,), (0, 2), (2, 3)])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int32", "uint8", "bool"])
def test_torch_takes_and_gives_memory(shape, dtype):
    torch = pytest.importorskip("torch")
    x = tl.tensor(np.ones(shape), dtype=dtype)
    theirs = torch.from_dlpack(x)
    assert str(theirs.dtype) == f"torch.{dtype}" and tuple(theirs.shape) == shape
    theirs[...] = 0
    assert not x.numpy().any()
    y = tl.from_dlpack(theirs)
    assert y.dtype == x.dtype and y.shape == shape
    y[...] = 1
    assert bool(theirs.all())
    for other in (theirs.T if len(shape) == 2 else theirs, torch.ones(2, 3, 4)[:, ::2, 1]):
        np.testing.assert_array_equal(tl.from_dlpack(other).data, other.numpy())


def test_jax_takes_and_gives_memory():
    jnp = pytest.importorskip("jax.numpy")
    np.testing.assert_array_equal(np.asarray(jnp.from_dlpack(tl.tensor([1.0, 2.0]))), [1, 2])
    y = tl.from_dlpack(jnp.arange(3.0))
    assert y.tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="read-only"):  # JAX's arrays do not change
        y[0] = 1


def test_gradients_of_memory_of_another_library():
    torch = pytest.importorskip("torch")
    for theirs in (torch.ones(3), torch.ones(2, 3).T, torch.ones(4, 2, 3).permute(1, 2, 0)):
        y = tl.from_dlpack(theirs)
        y.requires_grad = True
        z = (y * y).sum()
        with pytest.raises(ValueError, match="'mul' of a graph"), tl.no_grad():
            y[0] = 5
        z.backward()
        with tl.no_grad():
            y[0] = 5
        assert (theirs[0] == 5).all() and y.data.strides[0] == 4 * theirs.stride(0)
    for theirs in (torch.ones(3), torch.ones(6)[::2]):
        w, y = leaf(np.ones(3, np.float32)), tl.from_dlpack(theirs)
        y.requires_grad = True
        z = (w * y).sum()
        if theirs.is_contiguous():
            with pytest.raises(ValueError, match="'mul' of a graph"), tl.no_grad():
                y[0] = 5
        z.backward()
        with tl.no_grad():
            y[0] = 5
        assert theirs[0] == 5 and w.grad.tolist() == y.grad.tolist() == [1, 1, 1]


def test_what_is_not_given_away_and_not_taken():
    torch = pytest.importorskip("torch")
    x = leaf()
    for take in (np.from_dlpack, torch.from_dlpack, tl.from_dlpack):
        with pytest.raises(TypeError, match=r"needs a gradient.*\.detach\(\)"):
            take(x)
    y = tl.tensor(X)
    z = (x * y).sum()
    for take in (np.from_dlpack, torch.from_dlpack):
        with pytest.raises(BufferError, match=r"read-only.*\.copy\(\)"):
            take(y)
    assert np.from_dlpack(y.copy())[0, 0] == 1.5
    z.backward()
    assert torch.from_dlpack(y)[0, 0] == 1.5
    with pytest.raises(TypeError, match="real numbers, not complex64"):
        tl.from_dlpack(torch.ones(2, dtype=torch.complex64))
    with pytest.raises(TypeError, match="__dlpack__, not list"):
        tl.from_dlpack([1.0])
    with pytest.raises((RuntimeError, BufferError), match="gradient"):
        tl.from_dlpack(torch.ones(2, requires_grad=True))


def test_an_array_of_a_gpu_without_cupy(monkeypatch):
    class OnGPU:
        def __dlpack_device__(self):
            return 2, 0

    monkeypatch.setattr("tensorlite.device._cuda_fault", lambda: "there is no GPU")
    with pytest.raises(RuntimeError, match="there is no GPU"):
        tl.from_dlpack(OnGPU())
