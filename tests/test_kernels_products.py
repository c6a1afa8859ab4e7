"""Products on a GPU against NumPy's: on the strict device, or on a real one where there is one."""

import functools
import importlib
import inspect
import json
import re
import sys
import warnings

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tensorlite as tl
from tensorlite.kernels import cublaslt
from tensorlite.kernels.products import matmul
from tests import emulator_blas, strict

HAS_GPU = tl.cuda.is_available()
DTYPES = {"float32": np.float32, "bfloat16": ml_dtypes.bfloat16, "float16": np.float16}
TOLERANCE = {"float32": 3e-6, "bfloat16": 6e-3, "float16": 1e-3}  # of the largest number
no_gpu = pytest.mark.skipif(HAS_GPU, reason="about the stand-in for cuBLASLt")


@pytest.fixture(autouse=True)
def cuda(monkeypatch):
    """device="cuda" is the strict device with a stand-in for cuBLASLt, unless there is a GPU."""
    if not HAS_GPU:
        strict.install(monkeypatch)
    monkeypatch.setattr(cublaslt, "load", functools.cache(cublaslt.load.__wrapped__))


def on_device(x):
    """A copy of an array on the device, as far from others as memory of its own is."""
    import cupy

    y = cupy.empty(x.shape, x.dtype)
    y[...] = cupy.asarray(x)
    return y


def numbers(shape, dtype, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(DTYPES[dtype])


def agree(result, expected, dtype=None):
    result = result.get()
    dtype = result.dtype.name if dtype is None else dtype
    assert result.shape == expected.shape
    bound = TOLERANCE[dtype] * max(1, np.abs(expected).max(initial=0))
    np.testing.assert_allclose(result.astype(np.float64), expected, atol=bound, rtol=0)


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


# ---- the choice of algorithms ----


def prefer(monkeypatch, number: int):
    """Make the algorithm of this number the fastest; returns a list of the times taken."""
    times = []

    def elapsed(start, end):
        usable = [i for i in range(emulator_blas.OFFERED) if i != emulator_blas.UNUSABLE]
        times.append(1.0 if usable[len(times) % len(usable)] == number else 5.0)
        return times[-1]

    monkeypatch.setattr(sys.modules["cupy"].cuda, "get_elapsed_time", elapsed)
    return times


def pair():
    return on_device(numbers((5, 8), "bfloat16")), on_device(numbers((8, 16), "bfloat16"))


@no_gpu
def test_the_fastest_algorithm_is_chosen_once_and_taken_again(monkeypatch):
    cublaslt.choose(True)
    times = prefer(monkeypatch, 2)
    a, b = pair()
    expected = a.get().astype(np.float64) @ b.get().astype(np.float64)
    total = on_device(np.ones((5, 16), np.float32))
    for n in (1, 2):
        matmul(a, b, add=total, out=total)
        agree(total, 1 + n * expected, "float32")  # though timing ran it more often
    assert len(times) == emulator_blas.OFFERED - 1
    saved = json.loads(json.dumps(cublaslt.chosen()))
    (algorithm,) = saved["algorithms"].values()
    assert int(algorithm[:2], 16) == 66 + 2

    cublaslt.load.cache_clear()  # as in a new process, where another algorithm would be faster
    cublaslt.choose(True)
    times = prefer(monkeypatch, 0)
    assert cublaslt.restore(saved)
    matmul(a, b, add=total, out=total)
    assert not times and cublaslt.chosen() == saved
    assert not cublaslt.restore(saved | {"card": "another"})
    assert not cublaslt.restore(saved | {"version": 1})
    assert not cublaslt.restore({})


@no_gpu
def test_without_a_choice_the_first_algorithm_is_taken_and_nothing_waits():
    strict.waits.clear()
    matmul(*pair())
    assert not strict.waits
    assert cublaslt.chosen()["algorithms"] == {}


@no_gpu
def test_restoring_forgets_what_was_planned_before(monkeypatch):
    cublaslt.choose(True)
    prefer(monkeypatch, 2)
    a, b = pair()
    matmul(a, b)
    saved = cublaslt.chosen()
    cublaslt.load.cache_clear()
    matmul(a, b)  # by the first algorithm
    cublaslt.restore(saved)
    matmul(a, b)
    (plan,) = cublaslt.library().plans.values()
    assert plan.algorithm[0] == 66 + 2


@no_gpu
def test_an_algorithm_of_a_file_that_the_library_does_not_offer_is_not_run():
    a, b = pair()
    matmul(a, b)
    found = cublaslt.library()
    (problem,) = found.plans
    choices = dict(card=found.card, version=found.version)
    assert cublaslt.restore(choices | {"algorithms": {str(problem): "ff" * 64}})
    with pytest.warns(UserWarning, match="does not offer"):
        matmul(a, b)
    for wrong in (None, [], {"algorithms": []}, {"algorithms": {"x": 1}}):
        with pytest.raises(ValueError, match="chosen"):
            cublaslt.restore(wrong)


@no_gpu
def test_problems_that_are_forgotten_leave_nothing_behind(monkeypatch):
    monkeypatch.setattr(cublaslt, "MOST_PLANS", 3)
    a = on_device(numbers((9, 8), "float32"))
    before = emulator_blas.alive()
    for n in range(1, 9):
        matmul(a[:n], a, tb=True)
    assert emulator_blas.alive() - before == 3 * 5
    assert len(cublaslt.library().plans) == 3


# ---- capture ----


def test_a_captured_product_is_computed_again_from_what_its_arrays_hold():
    import cupy

    stream = cupy.cuda.Stream(non_blocking=True)
    pool = cupy.cuda.MemoryPool()
    a, b, bias = (
        on_device(numbers(s, "float32", i)) for i, s in enumerate([(5, 8), (8, 16), (16,)])
    )
    with stream, cupy.cuda.using_allocator(pool.malloc):
        matmul(a, b, bias=bias)
        stream.begin_capture()
        y = matmul(a, b, bias=bias)
        graph = stream.end_capture()
        for _ in range(2):
            a *= 2
            graph.launch(stream)
            stream.synchronize()
            agree(y, a.get().astype(np.float64) @ b.get() + bias.get())


def test_a_product_that_has_not_run_before_is_not_captured():
    import cupy

    a, b = pair()
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream, cupy.cuda.using_allocator(cupy.cuda.MemoryPool().malloc):
        matmul(a, b)
        stream.begin_capture()
        with pytest.raises(RuntimeError, match="has not run before.*run the function once"):
            matmul(a[:3], b)
        stream.end_capture()


# ---- without the library, and the library itself ----


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


@no_gpu
def test_the_stand_in_refuses_what_the_library_or_a_gpu_would(monkeypatch):
    a, b = pair()

    def refused(words, error=emulator_blas.cuBLASLtError, **change):
        cublaslt.load.cache_clear()
        original = cublaslt.Library.__dict__[name := next(iter(change))]
        with monkeypatch.context() as patch:
            patch.setattr(cublaslt.Library, name, functools.partialmethod(change[name], original))
            with pytest.raises(error, match=words):
                matmul(a, b)

    def longer(self, original, matrix, shape, batch):
        return original(self, matrix, (shape[0] + 1, shape[1]), batch)

    def narrower(self, original, matrix, shape, batch):
        return original(self, matrix._replace(row=4), shape, batch)

    def further(self, original, matrix, shape, batch):
        return original(self, matrix._replace(row=matrix.row + 8), shape, batch)

    def shifted(self, original, plan, algorithm, operands, out, stream):
        return original(self, plan, algorithm, operands, out + 2, stream)

    def unknown(self, original, plan, algorithm, operands, out, stream):
        return original(self, plan, algorithm + 100, operands, out, stream)

    def freed(self, original, plan, *rest):
        self.lt.matrix_layout_destroy(plan.a)
        return original(self, plan, *rest)

    refused("shapes", _layout=longer)
    refused("leading dimension", _layout=narrower)
    refused("illegal memory", RuntimeError, _layout=further)
    refused("more aligned address", _run=shifted)
    refused("no algorithm", _run=unknown)
    refused("no handle", _run=freed)


def test_the_stand_in_has_the_names_and_numbers_of_the_real_package():
    name = "nvmath.bindings.cublasLt"
    for part in ("nvmath", "nvmath.bindings", name):
        sys.modules.pop(part, None)  # the stand-in
    real = pytest.importorskip(name, reason="nvmath-python is not installed")
    for kind, types in emulator_blas.TYPES.items():
        ask = getattr(real, f"get_{snake(kind.__name__)}_dtype")
        for member in kind:
            assert getattr(real, kind.__name__)[member.name] == member
            assert ask(member).__name__ == np.dtype(types[member.name]).name
    for member in emulator_blas.Epilogue:
        assert real.Epilogue[member.name] == member
    ours = emulator_blas.matmul_heuristic_result_dtype
    assert real.matmul_heuristic_result_dtype == ours and ours.itemsize == 96
    called = set(re.findall(r"\blt\.([a-z]\w+)\(", inspect.getsource(cublaslt))) - {"matmul"}
    for function in called | {"matmul"}:
        names = list(inspect.signature(getattr(emulator_blas, function)).parameters)
        text = getattr(real, function).__doc__.split("\n")[0]
        real_names = [p.split()[-1] for p in re.search(r"\((.*)\)", text)[1].split(", ") if p]
        assert len(names) == len(real_names), function
        assert importlib.util.find_spec("nvmath") and function in text


def snake(name: str) -> str:
    return re.sub(r"(?<!^)([A-Z])", r"_\1", name).lower()
