"""A stand-in for nvmath.bindings.cublasLt that computes, from addresses, on the strict device.

It has the functions, numbers and structures that tensorlite/kernels/cublaslt.py uses, under the
names and with the values of the real package (tests/test_kernels_products.py compares them where
that is installed). It follows NVIDIA's documentation of the library: matrices by columns, sums in
float32, the epilogues. And it raises where the library returns an error, or where a GPU would read
past an array or at an address that an algorithm does not take.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import math
import sys
from collections.abc import Callable
from enum import IntEnum
from types import ModuleType, SimpleNamespace

import ml_dtypes
import numpy as np

from tests import strict_memory, strict_streams

DTYPES = {0: np.dtype(np.float32), 2: np.dtype(np.float16), 14: np.dtype(ml_dtypes.bfloat16)}
COMPUTE_32F, COMPUTE_32F_FAST_TF32 = 68, 77
OFFERED = 4  # algorithms for each problem
UNUSABLE = 0  # the number among them of one that the library says cannot be used

# =================================================================================================
# Names and numbers of the real package
# =================================================================================================


class Epilogue(IntEnum):
    DEFAULT = 1
    BIAS = 4
    GELU_AUX = 160
    GELU_AUX_BIAS = 164
    DGELU = 192


class MatmulDescAttribute(IntEnum):
    TRANSA = 3
    TRANSB = 4
    EPILOGUE = 7
    BIAS_POINTER = 8
    EPILOGUE_AUX_POINTER = 11
    EPILOGUE_AUX_LD = 12
    BIAS_DATA_TYPE = 26


class MatrixLayoutAttribute(IntEnum):
    BATCH_COUNT = 5
    STRIDED_BATCH_OFFSET = 6


class MatmulPreferenceAttribute(IntEnum):
    MAX_WORKSPACE_BYTES = 1
    MIN_ALIGNMENT_A_BYTES = 5
    MIN_ALIGNMENT_B_BYTES = 6
    MIN_ALIGNMENT_C_BYTES = 7
    MIN_ALIGNMENT_D_BYTES = 8


# The types of the attributes: the library refuses a value of another size.
TYPES = {
    MatmulDescAttribute: dict(
        TRANSA=np.int32, TRANSB=np.int32, EPILOGUE=np.uint32, BIAS_POINTER=np.int64,
        EPILOGUE_AUX_POINTER=np.int64, EPILOGUE_AUX_LD=np.int64, BIAS_DATA_TYPE=np.int32,
    ),
    MatrixLayoutAttribute: dict(BATCH_COUNT=np.int32, STRIDED_BATCH_OFFSET=np.int64),
    MatmulPreferenceAttribute: dict(
        MAX_WORKSPACE_BYTES=np.uint64, MIN_ALIGNMENT_A_BYTES=np.uint32,
        MIN_ALIGNMENT_B_BYTES=np.uint32, MIN_ALIGNMENT_C_BYTES=np.uint32,
        MIN_ALIGNMENT_D_BYTES=np.uint32,
    ),
}  # fmt: skip

matmul_algo_dtype = np.dtype([("data_", "<u8", (8,))])
matmul_heuristic_result_dtype = np.dtype(
    [
        ("algo", matmul_algo_dtype),
        ("workspace_size", "<u8"),
        ("state", "<i4"),
        ("waves_count", "<f4"),
        ("reserved", "<i4", (4,)),
    ]
)


class cuBLASLtError(Exception):
    NAMES = {7: "CUBLAS_STATUS_INVALID_VALUE", 15: "CUBLAS_STATUS_NOT_SUPPORTED"}

    def __init__(self, status: int, words: str):
        self.status = status
        super().__init__(f"{self.NAMES[status]} ({status}): {words}")


def _host(address: int, size: int) -> ctypes.Array:
    """Memory of the host, from which the library reads what it is told."""
    return (ctypes.c_char * size).from_address(address)


def _require(true: bool, words: str) -> None:
    if not true:
        raise cuBLASLtError(7, words)


# =================================================================================================
# Handles, and what belongs to them
# =================================================================================================

_things: dict[int, SimpleNamespace] = {}
_numbers = itertools.count(0x1000)


def _new(kind: str, **values) -> int:
    number = next(_numbers)
    _things[number] = SimpleNamespace(kind=kind, **values)
    return number


def _get(number: int, kind: str) -> SimpleNamespace:
    thing = _things.get(number)
    _require(thing is not None and thing.kind == kind, f"{number} is no handle of a {kind}")
    return thing


def _destroyer(kind: str) -> Callable[[int], None]:
    def destroy(number: int) -> None:
        _get(number, kind)
        del _things[number]

    return destroy


def _setter(kind: str, attributes) -> Callable[[int, int, int, int], None]:
    def set_attribute(number: int, attr: int, buf: int, size_in_bytes: int) -> None:
        thing, name = _get(number, kind), attributes(attr).name
        dtype = np.dtype(TYPES[attributes][name])
        _require(size_in_bytes == dtype.itemsize, f"{name} has {dtype.itemsize} bytes")
        setattr(thing, name, int(np.frombuffer(_host(buf, size_in_bytes), dtype)[0]))

    return set_attribute


def alive() -> int:
    """How many descriptors and layouts exist."""
    return sum(thing.kind != "library" for thing in _things.values())


def create() -> int:
    strict_streams.refuse_while_capturing()  # it allocates memory
    return _new("library")


def get_version() -> int:
    return 130100


def matmul_desc_create(compute_type: int, scale_type: int) -> int:
    _require(compute_type in (COMPUTE_32F, COMPUTE_32F_FAST_TF32), "the type of the sums")
    _require(scale_type == 0, "alpha and beta are float32")
    return _new("operation", compute=compute_type, TRANSA=0, TRANSB=0, EPILOGUE=1)


def matrix_layout_create(type: int, rows: int, cols: int, ld: int) -> int:
    _require(type in DTYPES and rows > 0 and cols > 0, f"a matrix of {rows} x {cols}")
    return _new(
        "layout", type=type, rows=rows, cols=cols, ld=ld, BATCH_COUNT=1, STRIDED_BATCH_OFFSET=0
    )


def matmul_preference_create() -> int:
    alignments = {f"MIN_ALIGNMENT_{side}_BYTES": 256 for side in "ABCD"}
    return _new("preference", MAX_WORKSPACE_BYTES=0, **alignments)


matmul_desc_destroy = _destroyer("operation")
matrix_layout_destroy = _destroyer("layout")
matmul_preference_destroy = _destroyer("preference")
matmul_desc_set_attribute = _setter("operation", MatmulDescAttribute)
matrix_layout_set_attribute = _setter("layout", MatrixLayoutAttribute)
matmul_preference_set_attribute = _setter("preference", MatmulPreferenceAttribute)

# =================================================================================================
# Algorithms
# =================================================================================================


def matmul_algo_get_heuristic(
    light_handle, operation_desc, adesc, bdesc, cdesc, ddesc, preference,
    requested_algo_count, heuristic_results_array, return_algo_count,
) -> None:  # fmt: skip
    """Write some algorithms, all of one result; their bytes say the alignments that they need."""
    _get(light_handle, "library")
    operation = _get(operation_desc, "operation")
    layouts = [_get(number, "layout") for number in (adesc, bdesc, cdesc, ddesc)]
    _check(operation, *layouts)
    wishes = _get(preference, "preference")
    n = min(requested_algo_count, OFFERED)
    size = requested_algo_count * matmul_heuristic_result_dtype.itemsize
    memory = _host(heuristic_results_array, size)
    results = np.frombuffer(memory, matmul_heuristic_result_dtype)[:n]
    for i in range(n):
        needed = [min(16, getattr(wishes, f"MIN_ALIGNMENT_{side}_BYTES")) for side in "ABCD"]
        results[i]["algo"]["data_"][:] = [66 + i, *needed, wishes.MAX_WORKSPACE_BYTES, 0, i]
        results[i]["state"] = 15 if i == UNUSABLE else 0
    np.frombuffer(_host(return_algo_count, 4), np.int32)[0] = n


def _check(operation, a, b, c, d) -> None:
    """Raise for sizes and types that do not fit, or that the library does not support."""
    for matrix in (a, b, c, d):
        _require(matrix.ld >= matrix.rows, "a leading dimension is less than the rows")
        _require(matrix.BATCH_COUNT == d.BATCH_COUNT, "batches of several sizes")
    shape_a = (a.cols, a.rows) if operation.TRANSA else (a.rows, a.cols)
    shape_b = (b.cols, b.rows) if operation.TRANSB else (b.rows, b.cols)
    _require(
        (shape_a[0], shape_b[1]) == (d.rows, d.cols) == (c.rows, c.cols)
        and shape_a[1] == shape_b[0],
        f"shapes {shape_a} @ {shape_b} + {c.rows, c.cols} -> {d.rows, d.cols}",
    )
    tf32 = operation.compute == COMPUTE_32F_FAST_TF32
    supported = a.type == b.type and c.type == d.type and d.type in (a.type, 0)
    epilogue = Epilogue(operation.EPILOGUE).name
    if epilogue != "DEFAULT":
        supported = supported and d.BATCH_COUNT == 1  # what the product uses is more than it needs
    if "BIAS" in epilogue:
        supported = supported and operation.BIAS_DATA_TYPE == d.type
    if "GELU" in epilogue:
        supported = supported and operation.EPILOGUE_AUX_LD % 8 == 0
        _require(operation.EPILOGUE_AUX_LD >= d.rows, "EPILOGUE_AUX_LD")
    if not supported or (tf32 and a.type != 0):
        raise cuBLASLtError(15, "these types, or this epilogue, are not supported")


# =================================================================================================
# The product
# =================================================================================================


def _view(address: int, dtype: np.dtype, rows: int, cols: int, ld: int, batch=1, offset=0):
    """The matrices at an address, of columns that are `ld` elements apart: (batch, rows, cols)."""
    span = (batch - 1) * offset + (cols - 1) * ld + rows
    flat = strict_memory.memory(address, span * dtype.itemsize).view(dtype)
    strides = [n * dtype.itemsize for n in (offset, 1, ld)]
    return np.lib.stride_tricks.as_strided(flat, (batch, rows, cols), strides)


def _matrices(address: int, layout) -> np.ndarray:
    dtype = DTYPES[layout.type]
    sizes = layout.rows, layout.cols, layout.ld
    return _view(address, dtype, *sizes, layout.BATCH_COUNT, layout.STRIDED_BATCH_OFFSET)


def _float32(address: int) -> np.float32:
    return np.frombuffer(_host(address, 4), np.float32)[0].copy()


def _to_tf32(x: np.ndarray) -> np.ndarray:
    """float32 rounded to 10 bits after the point, halves away from zero."""
    return ((x.view(np.uint32) + np.uint32(1 << 12)) & np.uint32(0xFFFFE000)).view(np.float32)


def matmul(
    light_handle, compute_desc, alpha, a, adesc, b, bdesc, beta, c, cdesc, d, ddesc,
    algo, workspace, workspace_size_in_bytes, stream,
) -> None:  # fmt: skip
    """D = epilogue(alpha op(A) op(B) + beta C), as work for the stream."""
    _get(light_handle, "library")
    operation = SimpleNamespace(**vars(_get(compute_desc, "operation")))
    layouts = [
        SimpleNamespace(**vars(_get(number, "layout"))) for number in (adesc, bdesc, cdesc, ddesc)
    ]
    _check(operation, *layouts)
    algorithm = np.frombuffer(_host(algo, 64), np.uint64)
    number, *needed, most = map(int, algorithm[:6])
    _require(0 <= number - 66 < OFFERED, f"{number} is no algorithm")
    _require(number - 66 != UNUSABLE, f"algorithm {number} cannot be used")
    _require(workspace_size_in_bytes >= most, "the workspace is too small for the algorithm")
    strict_memory.memory(workspace, workspace_size_in_bytes)
    for address, alignment in zip((a, b, c, d), needed, strict=True):
        _require(address % alignment == 0, "the algorithm needs a more aligned address")
    alpha, beta = _float32(alpha), _float32(beta)
    left, right = _matrices(a, layouts[0]), _matrices(b, layouts[1])
    added = _matrices(c, layouts[2]) if beta else None
    result = _matrices(d, layouts[3])
    apply = _epilogue(operation, layouts[3])

    def work() -> None:
        x, y = left.astype(np.float32), right.astype(np.float32)
        if operation.compute == COMPUTE_32F_FAST_TF32:
            x, y = _to_tf32(x), _to_tf32(y)
        x = x.swapaxes(-1, -2) if operation.TRANSA else x
        y = y.swapaxes(-1, -2) if operation.TRANSB else y
        z = alpha * (x @ y)
        if beta:
            z += beta * added.astype(np.float32)
        result[...] = apply(z)

    _require(
        strict_streams.get_current_stream().ptr == stream, "another stream than the current one"
    )
    strict_streams.enqueue(work, "cublasLt")


def _epilogue(operation, d) -> Callable[[np.ndarray], np.ndarray]:
    """What is done with the product z (1, rows, cols) before it is stored."""
    name = Epilogue(operation.EPILOGUE).name
    dtype = DTYPES[d.type]
    bias = aux = None
    if "BIAS" in name:
        bias = _view(operation.BIAS_POINTER, dtype, d.rows, 1, d.rows)
    if "GELU" in name:
        address, ld = operation.EPILOGUE_AUX_POINTER, operation.EPILOGUE_AUX_LD
        _require(address % 16 == 0, "EPILOGUE_AUX_POINTER is not aligned to 16 bytes")
        aux = _view(address, dtype, d.rows, d.cols, ld)

    def apply(z):
        if bias is not None:
            z = z + bias.astype(np.float32)
        if name.startswith("GELU"):
            aux[...] = z
            return z * _gelu_share(z)
        if name == "DGELU":
            x = aux.astype(np.float32)
            share = _gelu_share(x)
            return z * (share + 2 * x * share * (1 - share) * _C * (1 + 3 * _A * x * x))
        return z

    return apply


_C, _A = math.sqrt(2 / math.pi), 0.044715


def _gelu_share(x):
    """GELU(x) / x, in the form with tanh, which is the library's."""
    return 0.5 * (1 + np.tanh(_C * (x + _A * x**3)))


def install(monkeypatch) -> None:
    """Put this module in the place of nvmath.bindings.cublasLt for a test."""
    from tensorlite.kernels import cublaslt

    package, bindings = ModuleType("nvmath"), ModuleType("nvmath.bindings")
    package.bindings, bindings.cublasLt = bindings, sys.modules[__name__]
    monkeypatch.setitem(sys.modules, "nvmath", package)
    monkeypatch.setitem(sys.modules, "nvmath.bindings", bindings)
    monkeypatch.setitem(sys.modules, "nvmath.bindings.cublasLt", bindings.cublasLt)
    monkeypatch.setattr(cublaslt, "load", functools.cache(cublaslt.load.__wrapped__))
