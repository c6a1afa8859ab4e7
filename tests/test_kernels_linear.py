"""The linear layer and the matrix product on a GPU, as operations with gradients."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tensorlite as tl
from tensorlite.kernels import precision
from tensorlite.kernels.linear import Product
from tensorlite.kernels.products import matmul as product
from tests import strict
from tests.gpu import HAS_GPU, agree, cuda, no_gpu, numbers, on_device  # noqa: F401 - cuda is a fixture
from tests.test_kernels_products import gelu_and_slope

LOW = {None: "float32", "tf32": "float32", "bfloat16": "bfloat16", "float16": "float16"}


def leaf(array):
    return tl.Tensor(on_device(array), True)


def rounded(x, dtype: str):
    return x.astype(numbers((1,), dtype).dtype).astype(np.float64)


@given(
    st.sampled_from([(5,), (1,), (2, 3), (), (0,)]),
    st.integers(1, 20),
    st.integers(1, 20),
    st.booleans(),
    st.sampled_from([None, "bfloat16", "float16"]),
)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_linear_and_its_gradients(front, n, m, biased, precision):
    low = LOW[precision]
    x, w, b, g = (
        numbers(s, "float32", i) for i, s in enumerate([(*front, n), (n, m), (m,), (*front, m)])
    )
    leaves = [leaf(a) for a in ((x, w, b) if biased else (x, w))]
    with tl.autocast(precision):
        y = tl.linear(*leaves)
    assert y.data.dtype.name == low
    y.backward(tl.Tensor(on_device(g.astype(y.data.dtype))))
    x64, w64, g64 = (rounded(a, low) for a in (x, w, g))
    rows, g_rows = x64.reshape(-1, n), g64.reshape(-1, m)
    agree(y.data, x64 @ w64 + (rounded(b, low) if biased else 0))
    expected = [g64 @ w64.T, rows.T @ g_rows, g_rows.sum(axis=0)]
    for given_to, gradient in zip(leaves, expected):
        assert given_to.grad.data.dtype == np.float32
        agree(given_to.grad.data, gradient)


def test_only_the_gradients_that_are_needed_are_computed():
    x, w = numbers((4, 8), "float32"), numbers((8, 8), "float32", 1)
    for wanted in range(2):
        tensors = [
            leaf(a) if i == wanted else tl.Tensor(on_device(a)) for i, a in enumerate((x, w))
        ]
        y = tl.linear(*tensors)
        before = strict.launches["cublasLt"]
        y.backward(tl.Tensor(on_device(x)))
        assert HAS_GPU or strict.launches["cublasLt"] - before == 1
        agree(tensors[wanted].grad.data, x.astype(np.float64) @ w.T if wanted == 0 else x.T @ x)


@pytest.mark.parametrize("shape", [(3, 4), (5, 4)])
def test_shapes_that_do_not_fit_are_named(shape):
    with pytest.raises(ValueError, match="linear"):
        tl.linear(leaf(numbers((2, 3), "float32")), leaf(numbers((5, 4), "float32")))
    with pytest.raises(ValueError, match="bias"):
        weight, bias = leaf(numbers((3, 4), "float32")), leaf(numbers((3,), "float32"))
        tl.linear(leaf(numbers((2, 3), "float32")), weight, bias)


def test_operands_that_are_numbers_or_on_the_cpu_are_refused_in_words():
    a, host = leaf(numbers((3, 4), "float32")), numbers((4, 4), "float32")
    for function in (tl.matmul, tl.linear):
        with pytest.raises(TypeError, match="on the cpu and on cuda"):
            function(a, host)
    with pytest.raises(ValueError, match="do not fit"):
        tl.matmul(a, 2.0)


def test_float64_is_computed_by_the_ordinary_operation():
    x, w = np.ones((2, 3)), np.ones((3, 4))
    assert tl.linear(leaf(x), leaf(w)).data.dtype == np.float64


def test_a_backward_pass_is_as_precise_as_its_forward_pass():
    x, w = numbers((9, 40), "float32"), numbers((40, 8), "float32")
    a, b = leaf(x), leaf(w)
    with tl.autocast("tf32"):
        y = tl.linear(a, b)
    y.backward(tl.Tensor(on_device(x[:, :8])))
    g, x, w = (on_device(v) for v in (x[:, :8], x, w))
    assert np.array_equal(y.numpy(), product(x, w, tf32=True).get())
    assert np.array_equal(a.grad.numpy(), product(g, w, tb=True, tf32=True).get())
    assert np.array_equal(b.grad.numpy(), product(x, g, ta=True, tf32=True).get())


@no_gpu
def test_the_low_copies_of_weights_that_a_step_has_made_are_used():
    x, w, b = (leaf(numbers(s, "float32")) for s in [(4, 8), (8, 16), (16,)])
    copies = [(t.data, on_device(t.data.get().astype(np.float16))) for t in (w, b)]
    before = strict.launches.copy()
    with tl.autocast("float16"), precision.copies(copies):
        tl.linear(x, w, b)
    launches = strict.launches - before
    assert launches["cublasLt"] == 1 and launches.total() == 2  # and the cast of x


# ---- the gradient that is a product still to be computed ----


def waiting_product(dtype="float32", shape=(2, 3, 8)):
    g, w = numbers((6, 5), dtype), numbers((8, 5), dtype, 1)
    product = Product(on_device(g), on_device(w), shape, np.dtype(np.float32), False)
    return product, (g.astype(np.float64) @ w.T.astype(np.float64)).reshape(shape)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_product_is_added_to_what_is_there(dtype):
    waiting, expected = waiting_product(dtype)
    total = numbers((2, 3, 8), "float32", 2)
    agree(waiting.array(), expected)
    given_total = on_device(total)
    new = waiting.plus(given_total)
    agree(new, total + expected)
    assert np.array_equal(given_total.get(), total)
    assert waiting.plus(given_total, out=given_total) is given_total
    assert np.array_equal(given_total.get(), new.get())


def test_a_total_that_is_not_in_order_is_added_to_as_well():
    waiting, expected = waiting_product()
    total = on_device(numbers((8, 3, 2), "float32", 2)).transpose(2, 1, 0)
    before = total.get().copy()
    assert waiting.plus(total, out=total) is total
    agree(total, before + expected)


@no_gpu
@pytest.mark.parametrize("precision", [None, "bfloat16"])
def test_gelus_gradient_is_computed_with_the_product_before_it(precision):
    x, w, v, g = (
        numbers(s, "float32", i) for i, s in enumerate([(4, 8), (8, 16), (16, 8), (4, 8)])
    )
    low = LOW[precision]
    leaves = [leaf(a) for a in (x, w, v)]
    with tl.autocast(precision):
        y = tl.linear(tl.gelu(tl.linear(*leaves[:2])), leaves[2])
    before = strict.launches.copy()
    y.backward(tl.Tensor(on_device(g.astype(y.data.dtype))))
    launches = strict.launches - before
    assert launches["cublasLt"] == 4
    assert not any("activation" in name for name in launches)
    x, w, v, g = (rounded(a, low) for a in (x, w, v, g))
    h = rounded(x @ w, low)
    expected = x.T @ rounded(g @ v.T * gelu_and_slope(h)[1], low)
    agree(leaves[1].grad.data, expected, low)


@no_gpu
def test_a_residual_stream_takes_the_product_in():
    x, w, g = (numbers(s, "float32", i) for i, s in enumerate([(4, 8), (8, 8), (4, 8)]))
    stream, weight = leaf(x), leaf(w)
    y = stream + tl.linear(stream, weight)
    before = strict.launches.copy()
    y.backward(tl.Tensor(on_device(g)))
    launches = strict.launches - before
    assert launches["cublasLt"] == 2 and not any("add" in name for name in launches)
    agree(stream.grad.data, g + g.astype(np.float64) @ w.T)


# ---- matmul ----

PAIRS = [
    ((4, 3), (3, 5)),
    ((2, 4, 3), (3, 5)),
    ((2, 1, 4, 3), (3, 5)),
    ((2, 4, 3), (2, 3, 5)),
    ((2, 3, 4, 3), (2, 3, 3, 5)),
    ((0, 4, 3), (0, 3, 5)),
    ((2, 4, 3), (4, 3, 5)),
    ((3,), (3, 5)),
    ((4, 3), (3,)),
]


@pytest.mark.parametrize("precision", [None, "bfloat16"])
@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("shapes", PAIRS)
def test_matmul_and_its_gradients(shapes, swapped, precision):
    if shapes[1] == (4, 3, 5):
        shapes = ((2, 1, 4, 3), (4, 3, 5))  # batch axes that broadcast: by the ordinary operation
        precision = None
    x, y = (numbers(s, "float32", i) for i, s in enumerate(shapes))
    precision = precision if x.ndim > 1 and y.ndim > 1 else None
    low = LOW[precision]
    a, b = leaf(x), leaf(np.ascontiguousarray(y.swapaxes(-1, -2)) if swapped and y.ndim > 1 else y)
    with tl.autocast(precision):
        z = tl.matmul(a, tl.swapaxes(b, -1, -2) if swapped and y.ndim > 1 else b)
    assert z.data.dtype.name == low
    agree(z.data, rounded(x, low) @ rounded(y, low))
    g = numbers(z.shape, "float32", 2)
    z.backward(tl.Tensor(on_device(g.astype(z.data.dtype))))
    on_cpu = [tl.Tensor(rounded(v, low), True) for v in (x, y)]
    tl.matmul(*on_cpu).backward(tl.Tensor(rounded(g, low)))
    agree(a.grad.data, on_cpu[0].grad.data)
    of_b = on_cpu[1].grad.data
    agree(b.grad.data, of_b.swapaxes(-1, -2) if swapped and y.ndim > 1 else of_b)


def test_matmul_of_two_dtypes_has_the_wider_one():
    x, y = numbers((4, 8), "bfloat16"), numbers((8, 4), "float32")
    for pair in ((x, y), (y.T.copy(), x.T.copy())):
        z = tl.matmul(*map(leaf, pair))
        assert z.data.dtype == np.float32
        agree(z.data, pair[0].astype(np.float64) @ pair[1].astype(np.float64))


@no_gpu
def test_a_batch_of_heads_is_one_launch():
    q, k = (numbers((2, 3, 4, 5), "float32", i) for i in range(2))
    before = strict.launches["cublasLt"]
    z = tl.matmul(leaf(q), tl.swapaxes(leaf(k), -1, -2))
    assert strict.launches["cublasLt"] - before == 1
    agree(z.data, q.astype(np.float64) @ k.swapaxes(-1, -2))
