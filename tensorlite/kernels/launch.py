"""Compiling CUDA kernels from the .cu files beside this one, and launching them.

NVRTC compiles a kernel when it is first asked for, and CuPy keeps the result on disk. A kernel is
a C++ template; its arguments in angle brackets, such as the types of the arrays, are part of its
name.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent
C_TYPES = {"float32": "float", "bfloat16": "bf16", "float16": "f16"}
# Bytes of dynamic shared memory that a block may use without asking: of the 48 KB that it has with
# its static shared memory, of which no kernel that also has dynamic memory takes more than 16 KB.
UNASKED = 32 * 1024

# (device, file, kernel) -> the function, or why there is none, for all that this process asked for
compiled = {}


class CannotCompile(RuntimeError):
    """A kernel does not compile on this machine: the operation goes another way."""


def launch(file: str, kernel: str, grid: tuple, block: tuple, args: tuple, shared: int = 0) -> None:
    """Run `kernel` of `file` on the current stream.

    `grid` and `block` have the numbers of blocks and of threads in each; `shared` is the dynamic
    shared memory in bytes. `args` are arrays, which are passed as pointers, None for a null
    pointer, numbers of NumPy as they are, ints as int32 and floats as float32. Raises
    CannotCompile, and RuntimeError for a kernel that is launched for the first time in a capture.
    """
    if 0 in grid:
        return
    function = _function(file, kernel)
    if shared > UNASKED:  # never less than before, which a graph may need
        most = function.max_dynamic_shared_size_bytes
        function.max_dynamic_shared_size_bytes = max(shared, most)
    function(grid, block, tuple(map(_argument, args)), shared_mem=shared)


def _argument(value):
    if value is None:
        return np.uint64(0)
    if isinstance(value, np.generic):  # among them float64, which is a float too
        return value
    if isinstance(value, (bool, int)):
        return np.int32(value)
    return np.float32(value) if isinstance(value, float) else value


def _function(file: str, kernel: str):
    import cupy

    key = cupy.cuda.runtime.getDevice(), file, kernel
    if key not in compiled:
        if cupy.cuda.get_current_stream().is_capturing():
            raise RuntimeError(
                f"a kernel that has not run before cannot be captured ({kernel} of {file}): run it "
                "once with these dtypes and widths before"
            )
        try:
            module = cupy.RawModule(
                code=source(file),
                backend="nvrtc",
                options=("--std=c++17",),
                name_expressions=(kernel,),
            )
            compiled[key] = module.get_function(kernel)
        except Exception as error:
            compiled[key] = f"{kernel} of {file} does not compile: {error}"
    if isinstance(compiled[key], str):
        raise CannotCompile(compiled[key])
    return compiled[key]


@functools.cache
def source(file: str) -> str:
    """The text of a file of this folder, with each file that it includes in its place, once."""
    seen = set()

    def inline(match) -> str:
        name = match[1]
        if name in seen:
            return ""
        seen.add(name)
        return f"// ---- {name}\n{expand(name)}// ---- end of {name}\n"

    def expand(name: str) -> str:
        return _INCLUDE.sub(inline, (FOLDER / name).read_text())

    return expand(file)


_INCLUDE = re.compile(r'^#include "(\w+\.cuh)"\n', re.MULTILINE)


# =================================================================================================
# Arrays and the device, for those who launch
# =================================================================================================


def empty(shape, dtype):
    """A new array on the GPU, of any contents."""
    import cupy

    return cupy.empty(shape, dtype)


def c_type(dtype) -> str:
    """The type of a dtype's elements in the .cu files. Raises KeyError for one that has none."""
    return C_TYPES[np.dtype(dtype).name]


def has_c_type(*arrays) -> bool:
    """Whether kernels take the dtypes of all arrays that are not None."""
    return all(a is None or a.dtype.name in C_TYPES for a in arrays)


def vector(n: int, *arrays) -> int:
    """How many neighbours of a row of `n` a thread reads at once: 16 bytes of the narrowest dtype.

    1 where the rows of an array do not begin at addresses that are multiples of 16 bytes. Arrays
    are contiguous; None counts for nothing.
    """
    arrays = [a for a in arrays if a is not None]
    width = max((16 // a.dtype.itemsize for a in arrays), default=1)
    aligned = all(a.data.ptr % 16 == 0 for a in arrays)
    return width if aligned and n % width == 0 else 1


def contiguous(x):
    """`x`, or a copy of it in C order."""
    return x if x.flags.c_contiguous else x.copy()


def multiprocessors() -> int:
    return _attribute("MultiProcessorCount")


def shared_limit() -> int:
    """The most shared memory that a block may ask for, in bytes."""
    return _attribute("MaxSharedMemoryPerBlockOptin")


@functools.cache
def _attribute(name: str) -> int:
    import cupy

    return cupy.cuda.Device().attributes[name]


def ceil_div(a: int, b: int) -> int:
    return -(-a // b)
