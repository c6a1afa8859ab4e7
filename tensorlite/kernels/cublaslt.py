"""Matrix products by cuBLASLt, NVIDIA's library, through the bindings of nvmath-python.

CuPy's own products cannot be captured into a CUDA graph; these can, and they do more on the way: a
bias, GELU or its derivative, and the sum with an array that is there already.

The library stores matrices by columns. The rows of an array in C order are the columns of its
transpose in the same memory, so out = a @ b is computed as out.T = b.T @ a.T, and what the library
calls A is our b. See NVIDIA's cuBLAS documentation, "Using the cuBLASLt API".

For each problem the library offers several algorithms, of which its first is seldom the fastest.
After `choose(True)` they are timed when a problem first occurs. Which one is taken decides the last
bits of results, so it is a part of a run: `chosen` and `restore` save it and take it again.
"""

from __future__ import annotations

import functools
import threading
import warnings
from typing import NamedTuple

import numpy as np

from .layouts import Matrix, Problem

DTYPES = {"float32": 0, "float16": 2, "bfloat16": 14}  # cudaDataType_t
SUMS_IN_FLOAT32, TF32 = 68, 77  # cublasComputeType_t
NOT_SUPPORTED = 15  # cublasStatus_t
WORKSPACE = 32 << 20  # bytes that algorithms may use, for each stream
CANDIDATES = 8  # algorithms that are timed
REPEATS = 6  # runs that are timed together
MOST_PLANS = 4096  # problems that are kept; of more, the oldest is forgotten
_NUMBERS = np.array([0, 1], np.float32)  # alpha and beta, which the library reads from memory
ZERO, ONE = _NUMBERS.ctypes.data, _NUMBERS.ctypes.data + _NUMBERS.itemsize


class Plan(NamedTuple):
    """What the library knows of a problem, by its handles, and the algorithm, in 64 bytes."""

    operation: int
    a: int
    b: int
    add: int
    out: int
    algorithm: np.ndarray | None = None  # uint64 (8,); None where the library has none
    final: bool = True  # False for the library's first algorithm, until it is timed


class Operands(NamedTuple):
    """The arrays of one call."""

    a: object
    b: object
    out: object
    add: object
    bias: object
    aux: object


class Library:
    """cuBLASLt on one device."""

    def __init__(self, lt, device: int):
        import cupy

        self.lt = lt
        self.handle = lt.create()
        name = cupy.cuda.runtime.getDeviceProperties(device)["name"]
        self.card = name.decode() if isinstance(name, bytes) else name
        self.version = int(lt.get_version())
        self.timing = False
        self.plans: dict[Problem, Plan] = {}
        self.algorithms: dict[str, str] = {}  # str(problem) -> what was chosen by timing, in hex
        self.workspaces = {}  # address of a stream -> memory, which calls in a stream use in turn
        self.lock = threading.RLock()  # a plan has the addresses of one call only

    def product(self, problem: Problem, operands: Operands) -> bool:
        """Compute `problem`; False, and nothing is computed, where no algorithm can.

        Raises RuntimeError for a problem that occurs for the first time during a capture.
        """
        import cupy

        stream = cupy.cuda.get_current_stream()
        with self.lock:
            plan = self.plans.get(problem)
            if plan and self.timing and not plan.final and not stream.is_capturing():
                self._forget(problem)
                plan = None
            if plan is None or stream.ptr not in self.workspaces:
                if stream.is_capturing():
                    raise RuntimeError(
                        f"a product that has not run before cannot be captured ({problem}): run "
                        "the function once, with the same shapes and in the same stream"
                    )
                if stream.ptr not in self.workspaces:
                    self.workspaces[stream.ptr] = cupy.cuda.alloc(WORKSPACE)
            if plan is None:
                plan = self._plan(problem, operands, stream)
                if len(self.plans) >= MOST_PLANS:
                    self._forget(next(iter(self.plans)))
                self.plans[problem] = plan
            if plan.algorithm is None:
                return False
            self._point(plan, operands)
            self._run(plan, plan.algorithm, operands, operands.out.data.ptr, stream)
        return True

    def _run(self, plan: Plan, algorithm, operands: Operands, out: int, stream) -> None:
        a, b, add = operands.a, operands.b, operands.add
        workspace = self.workspaces[stream.ptr].ptr
        self.lt.matmul(
            self.handle, plan.operation, ONE,
            b.data.ptr, plan.b, a.data.ptr, plan.a,
            ZERO if add is None else ONE, out if add is None else add.data.ptr, plan.add,
            out, plan.out,
            algorithm.ctypes.data, workspace, WORKSPACE, stream.ptr,
        )  # fmt: skip

    # ---- planning ----

    def _plan(self, problem: Problem, operands: Operands, stream) -> Plan:
        p = problem
        sizes = p.rows, p.columns
        plan = Plan(
            self._operation(p),
            self._layout(p.a, (p.inner, p.rows) if p.ta else (p.rows, p.inner), p.batch),
            self._layout(p.b, (p.columns, p.inner) if p.tb else (p.inner, p.columns), p.batch),
            self._layout(p.out if p.add is None else p.add, sizes, p.batch),
            self._layout(p.out, sizes, p.batch),
        )
        self._point(plan, operands)
        candidates = self._candidates(plan, problem)
        if not len(candidates):
            return plan
        known = self._known(problem, candidates)
        if known is None and not self.timing:
            return plan._replace(algorithm=candidates[0].copy(), final=False)
        if known is None:
            known = self._fastest(plan, candidates, problem, operands, stream)
        return plan._replace(algorithm=known.copy())

    def _operation(self, problem: Problem) -> int:
        lt, attribute = self.lt, self.lt.MatmulDescAttribute
        operation = lt.matmul_desc_create(TF32 if problem.tf32 else SUMS_IN_FLOAT32, 0)
        name = {"": "DEFAULT", "gelu": "GELU_AUX", "dgelu": "DGELU"}[problem.epilogue]
        if problem.bias is not None:
            name = f"{name}_BIAS" if problem.epilogue else "BIAS"
        settings = [
            (attribute.TRANSA, problem.tb, np.int32),
            (attribute.TRANSB, problem.ta, np.int32),
            (attribute.EPILOGUE, lt.Epilogue[name], np.uint32),
        ]
        if problem.bias is not None:
            settings += [(attribute.BIAS_DATA_TYPE, DTYPES[problem.bias.dtype], np.int32)]
        if problem.aux is not None:
            settings += [(attribute.EPILOGUE_AUX_LD, problem.aux.row, np.int64)]
        for setting in settings:
            _set(lt.matmul_desc_set_attribute, operation, *setting)
        return operation

    def _layout(self, matrix: Matrix, shape: tuple[int, int], batch: int) -> int:
        lt, attribute = self.lt, self.lt.MatrixLayoutAttribute
        rows, columns = shape
        layout = lt.matrix_layout_create(DTYPES[matrix.dtype], columns, rows, matrix.row)
        if batch > 1:
            change = lt.matrix_layout_set_attribute
            _set(change, layout, attribute.BATCH_COUNT, batch, np.int32)
            _set(change, layout, attribute.STRIDED_BATCH_OFFSET, matrix.stride, np.int64)
        return layout

    def _point(self, plan: Plan, operands: Operands) -> None:
        """Write the addresses that belong to the operation rather than to the call."""
        attribute = self.lt.MatmulDescAttribute
        change = self.lt.matmul_desc_set_attribute
        if operands.bias is not None:
            address = operands.bias.data.ptr
            _set(change, plan.operation, attribute.BIAS_POINTER, address, np.int64)
        if operands.aux is not None:
            address = operands.aux.data.ptr
            _set(change, plan.operation, attribute.EPILOGUE_AUX_POINTER, address, np.int64)

    def _candidates(self, plan: Plan, problem: Problem) -> np.ndarray:
        """The algorithms that the library offers, best guess first: uint64 (n, 8), or none."""
        none = np.zeros((0, 8), np.uint64)
        if problem.aux is not None and problem.aux.row % 8:
            return none  # as the documentation of EPILOGUE_AUX_LD says
        lt, attribute = self.lt, self.lt.MatmulPreferenceAttribute
        preference = lt.matmul_preference_create()
        change = lt.matmul_preference_set_attribute
        _set(change, preference, attribute.MAX_WORKSPACE_BYTES, WORKSPACE, np.uint64)
        added = problem.out if problem.add is None else problem.add
        for side, matrix in dict(A=problem.b, B=problem.a, C=added, D=problem.out).items():
            side = attribute[f"MIN_ALIGNMENT_{side}_BYTES"]
            _set(change, preference, side, matrix.alignment, np.uint32)
        found, count = np.zeros(CANDIDATES, lt.matmul_heuristic_result_dtype), np.zeros(1, np.int32)
        try:
            lt.matmul_algo_get_heuristic(
                self.handle, plan.operation, plan.b, plan.a, plan.add, plan.out,
                preference, CANDIDATES, found.ctypes.data, count.ctypes.data,
            )  # fmt: skip
        except lt.cuBLASLtError as error:
            if error.status != NOT_SUPPORTED:
                raise
            return none
        finally:
            lt.matmul_preference_destroy(preference)
        found = found[: count[0]]
        return found["algo"]["data_"][found["state"] == 0]  # the others cannot be used

    def _forget(self, problem: Problem) -> None:
        plan = self.plans.pop(problem)
        self.lt.matmul_desc_destroy(plan.operation)
        for layout in (plan.a, plan.b, plan.add, plan.out):
            self.lt.matrix_layout_destroy(layout)

    # ---- the choice among the candidates ----

    def _known(self, problem: Problem, candidates) -> np.ndarray | None:
        """The algorithm that was chosen for a problem before, if the library offers it."""
        known = self.algorithms.get(str(problem))
        for candidate in candidates:
            if candidate.tobytes().hex() == known:
                return candidate
        if known is not None:
            warnings.warn(
                "the library does not offer the algorithm by which the run computed a product "
                f"({problem}): the last bits of its results may differ",
                stacklevel=2,
            )
        return None

    def _fastest(self, plan: Plan, candidates, problem, operands, stream) -> np.ndarray:
        times = [self._time(plan, c, operands, stream) for c in candidates]
        if min(times) == np.inf:
            raise RuntimeError(f"none of the algorithms that cuBLASLt offers works: {problem}")
        best = candidates[int(np.argmin(times))]
        self.algorithms[str(problem)] = best.tobytes().hex()
        return best

    def _time(self, plan, algorithm, operands: Operands, stream) -> float:
        """Milliseconds of some runs of an algorithm; infinity where it does not work."""
        import cupy

        out = operands.out.data.ptr
        if operands.add is not None and operands.add.data.ptr == out:
            scratch = cupy.cuda.alloc(_span(operands.out))  # in place, each run would add once more
            out = scratch.ptr
        marks = [cupy.cuda.Event() for _ in range(2)]
        try:
            self._run(plan, algorithm, operands, out, stream)  # the first run loads the kernel
            marks[0].record(stream)
            for _ in range(REPEATS):
                self._run(plan, algorithm, operands, out, stream)
            marks[1].record(stream)
            marks[1].synchronize()
        except self.lt.cuBLASLtError:
            return np.inf
        return cupy.cuda.get_elapsed_time(*marks)


def _set(change, thing: int, attribute: int, value: int, dtype) -> None:
    value = np.array(value, dtype)
    change(thing, int(attribute), value.ctypes.data, value.nbytes)


def _span(x) -> int:
    """The bytes from the first element of an array to the end of the last."""
    return sum((n - 1) * s for n, s in zip(x.shape, x.strides)) + x.dtype.itemsize


# =================================================================================================
# The library of the current device
# =================================================================================================


def library() -> Library | None:
    """cuBLASLt on the current device; None, and one warning, where it cannot be used."""
    import cupy

    return load(cupy.cuda.runtime.getDevice())


@functools.cache
def load(device: int) -> Library | None:
    try:
        from nvmath.bindings import cublasLt

        return Library(cublasLt, device)
    except Exception as error:  # many kinds: a package, the driver or a CUDA library is missing
        warnings.warn(
            f"matrix products are CuPy's, which are slower and cannot be captured ({error}): "
            "pip install 'tensorlite[cuda12]' or '[cuda13]' brings nvmath-python",
            stacklevel=4,
        )
        return None


def choose(timing: bool) -> bool:
    """Whether the algorithms of a product are timed when it first occurs; returns what held before.

    Timing waits for the GPU, so it is for programs that compute the same products again and again.
    It is off at first, and is set for the current device.
    """
    found = library()
    if found is None:
        return False
    before, found.timing = found.timing, timing
    return before


def chosen() -> dict:
    """The algorithms that were chosen by timing on this device, for a file in JSON; {}: none.

    "card" and "version" name the card and the version of cuBLASLt, to which they belong, and
    "algorithms" has the 64 bytes of each in hexadecimal digits, by its problem.
    """
    found = library()
    if found is None:
        return {}
    return dict(card=found.card, version=found.version, algorithms=dict(found.algorithms))


def restore(choices: dict) -> bool:
    """Take what `chosen` gave again; False, and nothing changes, on another card or version.

    Only algorithms that the library offers by itself are taken. Raises ValueError for something
    else than what `chosen` gave.
    """
    algorithms = choices.get("algorithms", {}) if isinstance(choices, dict) else None
    if not isinstance(algorithms, dict) or not all(
        isinstance(text, str) for pair in algorithms.items() for text in pair
    ):
        raise ValueError(
            "the choice of product algorithms is a dictionary with 'card', 'version' and "
            f"'algorithms', as cublaslt.chosen() gives it, not {choices!r:.200}"
        )
    found = library()
    if found is None or (choices.get("card"), choices.get("version")) != (
        found.card,
        found.version,
    ):
        return False
    with found.lock:
        found.algorithms = dict(algorithms)
        for problem in list(found.plans):
            found._forget(problem)
    return True
