"""cuBLASLt on a GPU: the choice of algorithms, capture, and the stand-in where there is no GPU."""

import functools
import inspect
import json
import re
import sys

import numpy as np
import pytest

from tensorlite.kernels import cublaslt
from tensorlite.kernels.products import matmul
from tests import emulator_blas, strict
from tests.gpu import agree, cuda, no_gpu, numbers, on_device  # noqa: F401 - cuda is a fixture

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
def test_what_ran_before_there_was_a_choice_is_timed_later(monkeypatch):
    times = prefer(monkeypatch, 2)
    a, b = pair()
    matmul(a, b)
    cublaslt.choose(True)
    for _ in range(2):
        matmul(a, b)
    assert len(times) == emulator_blas.OFFERED - 1 and len(cublaslt.chosen()["algorithms"]) == 1
    assert cublaslt.choose(False) and not cublaslt.choose(False)


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


# ---- the stand-in ----


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
    used = set(re.findall(r"\blt\.([a-z]\w+)", inspect.getsource(cublaslt)))
    functions = [name for name in used if inspect.isfunction(getattr(emulator_blas, name))]
    assert len(functions) > 10
    for function in functions:
        names = list(inspect.signature(getattr(emulator_blas, function)).parameters)
        text = getattr(real, function).__doc__.split("\n")[0]
        real_names = [p.split()[-1] for p in re.search(r"\((.*)\)", text)[1].split(", ") if p]
        assert len(names) == len(real_names), function


def snake(name: str) -> str:
    return re.sub(r"(?<!^)([A-Z])", r"_\1", name).lower()
