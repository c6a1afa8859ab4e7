"""The adapters: gradients of other frameworks, checked by `check_vjp` as those of plain NumPy are.

Right gradients pass in float64, float32 and bfloat16; wrong ones are found.
"""

import numpy as np
import pytest

import tensorlite as tl
from tensorlite.testing import WrongGradient, check_vjp, examine_vjp
from tensorlite.testing.adapters import of_cupy, of_jax, of_tensors, of_torch
from tests import strict

RNG = np.random.default_rng(0)
X, W = RNG.standard_normal((3, 4)), RNG.standard_normal((4, 2))


# ---- tensors ----


def test_functions_of_tensors():
    check_vjp(*of_tensors(lambda x, w: tl.gelu(x) @ w), [X, W])
    value, vjp = of_tensors(lambda x, i: tl.embedding(x, i))
    ids = np.array([0, 2, 2])
    check_vjp(value, vjp, [X, ids])
    assert vjp(value(X, ids), X, ids)[1] is None
    assert vjp(value(X, ids), X, ids, needs=(False, False)) == (None, None)


def test_a_wrong_operation():
    @tl.op
    def doubled_wrongly(x):
        return 2 * x, lambda g: 3 * g

    with pytest.raises(WrongGradient):
        check_vjp(*of_tensors(doubled_wrongly), [X])


def test_a_value_that_depends_on_nothing():
    value, vjp = of_tensors(lambda x: tl.tensor(np.ones(3)))
    np.testing.assert_array_equal(vjp(np.ones(3), X), [np.zeros(X.shape)])
    check_vjp(value, vjp, [X])


def test_a_function_that_gives_no_tensor():
    value, _ = of_tensors(lambda x: (x, x))
    with pytest.raises(TypeError, match="type tuple.* gives one tensor"):
        value(X)


# ---- PyTorch ----


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="PyTorch is what this adapter is for")


def scaled_product(torch, factor=1.0):
    """x * y * 3 as an autograd.Function; the gradient of y is `factor` times the right one."""

    class ScaledProduct(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, y):
            ctx.save_for_backward(x, y)
            return x * y * 3

        @staticmethod
        def backward(ctx, g):
            x, y = ctx.saved_tensors
            gx = g * y * 3 if ctx.needs_input_grad[0] else None
            gy = g * x * 3 * factor if ctx.needs_input_grad[1] else None
            return gx, gy

    return ScaledProduct.apply


def check_adapter(right, wrong, dtype):
    """The pairs (value, vjp) of a product and of one with a wrong gradient, in a dtype."""
    dtype = np.dtype(pytest.importorskip("ml_dtypes").bfloat16 if dtype == "bfloat16" else dtype)
    args = [X.astype(dtype), X[::-1].astype(dtype)]
    value, vjp = right
    assert value(*args).dtype == dtype
    assert [g.dtype for g in vjp(value(*args), *args)] == [dtype, dtype]
    assert vjp(value(*args), *args, needs=(False, True))[0] is None
    report = examine_vjp(value, vjp, args)
    assert report.verdict == "right" and not report.complaints, report
    with pytest.raises(WrongGradient):
        check_vjp(*wrong, args)


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
def test_torch(torch, dtype):
    right, wrong = (of_torch(scaled_product(torch, factor)) for factor in (1, 2))
    check_adapter(right, wrong, dtype)


def test_torch_with_an_integer_argument_and_an_unused_one(torch):
    value, vjp = of_torch(lambda x, i, unused: x[i])
    args = [X, np.array([0, 2, 2]), np.ones(2)]
    check_vjp(value, vjp, args)
    gradients = vjp(np.ones((3, 4)), *args)
    assert gradients[1] is None
    np.testing.assert_array_equal(gradients[2], np.zeros(2))


def test_torch_notices_writing_into_g(torch):
    class Careless(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        def backward(ctx, g):
            return g.mul_(2 * ctx.saved_tensors[0])

    report = examine_vjp(*of_torch(Careless.apply), [X])
    assert report.verdict == "right" and "writes into g" in report.complaints[0]


def test_torch_with_a_number_as_value(torch):
    assert check_vjp(*of_torch(lambda x, y: (x * y).sum()), [X, np.array(2.0)]).ok


def test_a_class_of_torch_in_place_of_its_function(torch):
    class Mine(torch.autograd.Function):
        pass

    with pytest.raises(TypeError, match=r"Mine is a class.*of_torch\(Mine.apply\)"):
        of_torch(Mine)


def test_torch_with_several_values(torch):
    value, _ = of_torch(lambda x: (x, x))
    with pytest.raises(TypeError, match="gives one tensor"):
        value(X)


# ---- JAX ----


@pytest.fixture
def jax():
    jax = pytest.importorskip("jax", reason="JAX is what this adapter is for")
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield jax
    jax.config.update("jax_enable_x64", before)


def jax_product(jax, factor=1.0):
    @jax.custom_vjp
    def product(x, y):
        return x * y * 3

    def forward(x, y):
        return product(x, y), (x, y)

    def backward(kept, g):
        x, y = kept
        return g * y * 3, g * x * 3 * factor

    product.defvjp(forward, backward)
    return product


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
def test_jax(jax, dtype):
    right, wrong = (of_jax(jax_product(jax, factor)) for factor in (1, 2))
    check_adapter(right, wrong, dtype)


def test_jax_with_an_integer_argument(jax):
    value, vjp = of_jax(lambda x, i: x[i])
    check_vjp(value, vjp, [X, np.array([0, 2, 2])])
    assert vjp(np.ones((3, 4)), X, np.array([0, 2, 2]))[1] is None


def test_jax_refuses_float64_where_it_would_be_float32(jax):
    value, vjp = of_jax(jax_product(jax))
    jax.config.update("jax_enable_x64", False)
    for call in (lambda: value(X, X), lambda: vjp(X, X, X)):
        with pytest.raises(ValueError, match="jax_enable_x64"):
            call()


# ---- CuPy: the strict device, where there is no GPU ----


@pytest.fixture
def gpu(monkeypatch):
    if not tl.cuda.is_available():
        strict.install(monkeypatch)


def test_cupy(gpu):
    def vjp(g, x, w):
        assert not isinstance(x, np.ndarray)
        return g @ w.T, x.T @ g

    args = [X, W]
    report = examine_vjp(*of_cupy(lambda x, w: x @ w, vjp), args)
    assert report.ok, report
    with pytest.raises(WrongGradient):
        check_vjp(*of_cupy(lambda x, w: x @ w, lambda g, x, w: (2 * (g @ w.T), x.T @ g)), args)


def test_cupy_keeps_the_memory_order(gpu):
    x = np.arange(12.0).reshape(3, 4)
    layouts = []

    def value(x):
        layouts.append(x.strides)
        return x * 1

    moved, _ = of_cupy(value, value)
    wide = np.zeros((3, 8))
    for given in (x, np.asfortranarray(x), x[::-1].copy()[::-1], wide[:, ::2]):
        np.testing.assert_array_equal(moved(given), given)
    assert layouts == [(32, 8), (8, 24), (-32, 8), (64, 16)]


def test_cupy_shows_what_is_written_into_arguments(gpu):
    def vjp(g, x, *, needs=(True,)):
        g *= 2 * x
        return g

    report = examine_vjp(*of_cupy(lambda x: x * x, vjp), [X])
    assert any("writes into g" in words for words in report.complaints)
