"""Products on a GPU against NumPy's: on the strict device, or on a real one where there is one."""

import sys
import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tensorlite as tl
from tensorlite.kernels import cublaslt
from tensorlite.kernels.products import matmul
from tests import strict
from tests.gpu import DTYPES, HAS_GPU, agree, cuda, no_gpu, numbers, on_device  # noqa: F401 - cuda is a fixture


def lay(x, layout: str):
    """`x` on the device, in rows that are apart, by columns, or in neither way."""
    if layout in ("apart", "shifted"):
        wide = np.concatenate([x, np.full_like(x, np.nan)], axis=-1)
        shift = 1 if layout == "shifted" else 0  # from an address that few algorithms would take
        return on_device(np.roll(wide, shift, axis=-1))[..., shift : shift + x.shape[-1]]
    if layout == "columns":
        return on_device(np.ascontiguousarray(x.swapaxes(-1, -2))).swapaxes(-1, -2)
    if layout == "every other":
        return on_device(np.repeat(x, 2, axis=-1))[..., ::2]
    if layout == "repeated" and x.shape[-2] == 1:
        return np.broadcast_to(on_device(x), x.shape)
    return on_device(x)


layouts = st.sampled_from(["whole", "apart", "shifted", "columns", "every other", "repeated"])
sizes = st.integers(1, 20)


@given(
    st.tuples(sizes, sizes, sizes),
    st.sampled_from([None, 1, 3]),
    st.booleans(),
    st.booleans(),
    st.sampled_from(list(DTYPES)),
    st.booleans(),
    st.sampled_from(["", "other", "out"]),
    st.booleans(),
    layouts,
    layouts,
    st.sampled_from(["apart", "shifted"]),
)
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_product_equals_numpys(
    shape, batch, ta, tb, dtype, wide, added, biased, layout_a, layout_b, layout_c
):
    M, N, K = shape
    front = () if batch is None else (batch,)
    out_dtype = "float32" if wide else dtype
    a = numbers((*front, *((K, M) if ta else (M, K))), dtype)
    b = numbers((*front, *((N, K) if tb else (K, N))), dtype, 1)
    c = numbers((*front, M, N), out_dtype, 2)
    bias = numbers((N,), out_dtype, 3) if biased and batch is None else None
    expected = (a.swapaxes(-1, -2) if ta else a).astype(np.float64) @ (
        b.swapaxes(-1, -2) if tb else b
    ).astype(np.float64)
    arrays = {}
    if added:
        expected += c
        arrays["add"] = lay(c, layout_c)
    if added == "out":
        arrays["out"] = arrays["add"]
    if bias is not None:
        expected += bias
        arrays["bias"] = on_device(bias)
    y = matmul(lay(a, layout_a), lay(b, layout_b), ta, tb, dtype=DTYPES[out_dtype], **arrays)
    assert y.dtype == DTYPES[out_dtype] and (added != "out" or y is arrays["add"])
    agree(y, expected)


# ---- epilogues ----


def gelu_and_slope(x):
    C, A = np.sqrt(2 / np.pi), 0.044715
    t = np.tanh(C * (x + A * x**3))
    return x * (1 + t) / 2, (1 + t) / 2 + x * (1 - t * t) / 2 * C * (1 + 3 * A * x * x)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("added", [False, True])
def test_gelu_after_a_product_keeps_its_argument(dtype, biased, added):
    a, b, c = (numbers(s, dtype, i) for i, s in enumerate([(5, 7), (7, 16), (5, 16)]))
    bias = numbers((16,), dtype) if biased else None
    x = a.astype(np.float64) @ b.astype(np.float64)
    x = x + (c if added else 0) + (bias if biased else 0)
    aux = on_device(np.zeros_like(c))
    rest = dict(add=on_device(c) if added else None, bias=on_device(bias) if biased else None)
    y = matmul(on_device(a), on_device(b), epilogue="gelu", aux=aux, **rest)
    agree(aux, x)
    agree(y, gelu_and_slope(x)[0])


@pytest.mark.parametrize("dtype", DTYPES)
def test_dgelu_multiplies_by_the_slope(dtype):
    g, w, x = (numbers(s, dtype, i) for i, s in enumerate([(5, 7), (16, 7), (5, 16)]))
    y = matmul(on_device(g), on_device(w), tb=True, epilogue="dgelu", aux=on_device(x))
    product = g.astype(np.float64) @ w.T.astype(np.float64)
    agree(y, product * gelu_and_slope(x.astype(np.float64))[1])


@no_gpu
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_all_that_follows_a_product_is_in_its_launch(dtype):
    shapes = (5, 7), (7, 16), (5, 16), (5, 16)
    a, b, c, aux = (on_device(numbers(s, "bfloat16")) for s in shapes)
    bias = on_device(numbers((16,), dtype))
    before = strict.launches.copy()
    matmul(a, b, add=c, bias=bias, epilogue="gelu", aux=aux)
    launches = strict.launches - before
    assert launches.pop("cublasLt") == 1
    assert launches.total() == (dtype == "float32")  # the cast of the bias, nothing else


def test_each_call_has_its_own_bias_and_aux():
    a, b = on_device(numbers((5, 8), "float32")), on_device(numbers((8, 16), "float32"))
    for seed in range(2):
        bias, aux = numbers((16,), "float32", seed), on_device(numbers((5, 16), "float32"))
        y = matmul(a, b, bias=on_device(bias), epilogue="gelu", aux=aux)
        x = a.get().astype(np.float64) @ b.get() + bias
        agree(aux, x)
        agree(y, gelu_and_slope(x)[0])


def test_rows_that_overlap_are_multiplied_too():
    row, b = numbers((1, 8), "float32"), numbers((8, 16), "float32")
    agree(matmul(np.broadcast_to(on_device(row), (5, 8)), on_device(b)), np.repeat(row, 5, 0) @ b)


@pytest.mark.parametrize("epilogue", ["gelu", "dgelu"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_an_epilogue_that_the_library_lacks_is_composed(dtype, epilogue):
    a, b, aux = (numbers(s, dtype, i) for i, s in enumerate([(5, 7), (7, 15), (5, 15)]))
    x, kept = a.astype(np.float64) @ b.astype(np.float64), on_device(aux)
    y = matmul(on_device(a), on_device(b), epilogue=epilogue, aux=kept)
    if epilogue == "gelu":
        agree(kept, x)
        agree(y, gelu_and_slope(x)[0])
    else:
        agree(y, x * gelu_and_slope(aux.astype(np.float64))[1])


def test_tf32_rounds_what_is_multiplied():
    a, b = numbers((9, 40), "float32"), numbers((40, 8), "float32")
    exact = a.astype(np.float64) @ b
    with tl.autocast("tf32"):
        by_mode = matmul(on_device(a), on_device(b)).get()
    by_name = matmul(on_device(a), on_device(b), tf32=True).get()
    assert np.array_equal(by_mode, by_name)
    assert 1e-5 < np.abs(by_name - exact).max() < 2e-2
    agree(matmul(on_device(a), on_device(b)), exact)
    low = on_device(numbers((9, 40), "bfloat16"))
    with tl.autocast("tf32"):  # which is about float32 alone
        agree(matmul(low, low, tb=True), low.get().astype(np.float64) @ low.get().T)


@pytest.mark.parametrize("shape", [(0, 3, 2), (3, 0, 2), (3, 2, 0), (0, 0, 0)])
@pytest.mark.parametrize("front", [(), (2,)])
def test_empty_products(shape, front):
    M, N, K = shape
    a, b = (
        on_device(numbers((*front, M, K), "float32")),
        on_device(numbers((*front, K, N), "float32")),
    )
    c = numbers((*front, M, N), "float32")
    agree(matmul(a, b), np.zeros((*front, M, N)))
    agree(matmul(a, b, add=on_device(c)), c)


@pytest.mark.parametrize(
    "error, words, change",
    [
        (TypeError, "float64", dict(a=np.ones((2, 3)), b=np.ones((3, 4)))),
        (TypeError, "float32 and float16", dict(b=np.ones((3, 4), np.float16))),
        (TypeError, "give float16", dict(dtype=np.float16)),
        (ValueError, "do not fit", dict(b=np.ones((2, 4), np.float32))),
        (ValueError, "do not fit", dict(a=np.ones((1, 2, 3), np.float32))),
        (ValueError, "do not fit", dict(a=np.ones((3,), np.float32))),
        (ValueError, "add is", dict(add=np.ones((4,), np.float32))),
        (ValueError, "out is", dict(out=np.ones((4, 2), np.float32).T)),
        (ValueError, "bias", dict(bias=np.ones((3,), np.float32))),
        (ValueError, "epilogue", dict(epilogue="relu")),
        (ValueError, "with aux", dict(epilogue="gelu")),
    ],
)
def test_what_does_not_fit_is_refused(error, words, change):
    given = dict(a=np.ones((2, 3), np.float32), b=np.ones((3, 4), np.float32)) | change
    given = {k: on_device(v) if isinstance(v, np.ndarray) else v for k, v in given.items()}
    if "out" in change:
        given["out"] = on_device(np.ones((4, 2), np.float32)).T
    with pytest.raises(error, match=words):
        matmul(**given)


# ---- without the library ----


@no_gpu
@pytest.mark.parametrize("dtype", DTYPES)
def test_without_nvmath_products_are_cupys_and_one_line_says_so(monkeypatch, dtype):
    monkeypatch.setitem(sys.modules, "nvmath.bindings", None)
    a, b, c = (numbers(s, dtype, i) for i, s in enumerate([(2, 5, 8), (2, 8, 16), (2, 5, 16)]))
    product = a.astype(np.float64) @ b.astype(np.float64)
    with pytest.warns(UserWarning, match=r"cannot be captured.*pip install 'tensorlite\[cuda12\]'"):
        y = matmul(on_device(a), on_device(b), add=on_device(c))
    agree(y, product + c)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        y = matmul(on_device(a[0].T.copy()), on_device(b[0]), ta=True, dtype=np.float32)
        agree(y, product[0], dtype)  # CuPy rounds it first
    assert cublaslt.chosen() == {} and not cublaslt.restore({})
    cublaslt.choose(True)
