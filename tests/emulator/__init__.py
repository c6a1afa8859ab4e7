"""CUDA kernels on a CPU: what stands in for `cupy.RawModule` where there is no GPU.

The source is compiled by g++ and executed with all that decides whether it is right on a GPU: the
threads of a block, barriers and shuffles (machine.cpp), the instructions of the tensor cores with
their layouts (together.cpp), shared memory that begins undefined, copies that arrive late, and no
memory but that of the arguments (memory.cpp). cuda.h is the language, device.cuh the twin of
tensorlite/kernels/device.cuh. Not emulated: time, registers, and threads of different blocks that
disturb one another; products of the tensor cores are summed in float32 in a fixed order.
"""

from __future__ import annotations

import ctypes
import gc
import math

import numpy as np

from . import build
from .build import CompileError, compiler

STATIC = 48 * 1024  # bytes of shared memory without asking for more
MOST_SHARED = 227 * 1024
MOST_THREADS = 1024
most_seconds = 30  # of the processor's time; a launch that takes more is taken for endless


class EmulatorError(RuntimeError):
    """The kernel did what no GPU would bear, or what would give other results from time to time."""


class RawModule:
    """As much of cupy.RawModule as tensorlite.kernels.launch asks for."""

    def __init__(self, *, code: str, backend: str, options: tuple, name_expressions: tuple):
        if backend != "nvrtc" or "--std=c++17" not in options:
            raise ValueError(f"expected NVRTC and C++17, got {backend} and {options}")
        self._code, self._names = code, name_expressions

    def get_function(self, name: str) -> Function:
        if name not in self._names:
            raise ValueError(f"{name} is not among the name expressions {self._names}")
        return Function(self._code, name)


class Function:
    """A kernel: called with the grid, the block and the arguments, it runs to its end.

    Raises EmulatorError for an error that the kernel makes, and TypeError or ValueError for
    arguments that its parameters do not take, which CUDA would not notice.
    """

    num_regs = local_size_bytes = 0

    def __init__(self, code: str, name: str):
        self.name = name
        self._library, self._path = build.kernel(code, name)
        self.max_dynamic_shared_size_bytes = STATIC - self._prepare(build.machine(), 0)
        parameters = self._library.emulator_kernel_parameters
        parameters.restype = ctypes.c_char_p
        self.parameters = parameters().decode().split()

    def __call__(self, grid: tuple, block: tuple, args: tuple, *, shared_mem: int = 0) -> None:
        grid, block = _three(grid), _three(block)
        if math.prod(block) > MOST_THREADS or max(grid[1:]) > 65535 or min(*grid, *block) < 1:
            raise ValueError(f"{self.name}: no GPU takes the grid {grid} of blocks {block}")
        if len(args) != len(self.parameters):
            raise TypeError(f"{self.name} takes {self.parameters}, got {len(args)} arguments")
        pairs = list(zip(self.parameters, args, strict=True))
        values = [_bytes(self.name, parameter, value) for parameter, value in pairs]
        machine = build.machine()
        self._shared(machine, shared_mem)
        begins, ends, writable = zip(*_arrays(pairs)) if _arrays(pairs) else ((), (), ())
        n = len(begins)
        machine.emulator_arrays(
            (ctypes.c_uint64 * n)(*begins), (ctypes.c_uint64 * n)(*ends), bytes(writable), n
        )
        pointers = (ctypes.c_void_p * len(values))(*(v.ctypes.data for v in values))
        sizes = (ctypes.c_uint32 * 3)(*grid), (ctypes.c_uint32 * 3)(*block)
        if machine.emulator_launch(self._library.emulator_kernel, pointers, *sizes, most_seconds):
            self._raise(machine)

    def _shared(self, machine, dynamic: int) -> None:
        static = self._prepare(machine, dynamic)
        if static > STATIC or dynamic > self.max_dynamic_shared_size_bytes:
            raise ValueError(f"{self.name}: {static} + {dynamic} bytes of shared memory")
        if static + dynamic > MOST_SHARED:
            raise ValueError(f"{self.name}: {static} + {dynamic} bytes of shared memory, too much")

    def _prepare(self, machine, dynamic: int) -> int:
        """Make the shared memory ready; returns the bytes of its static part."""
        kernel, touch = self._library.emulator_kernel, self._library.emulator_touch
        return machine.emulator_shared(kernel, touch, dynamic)

    def _raise(self, machine):
        machine.emulator_message.restype = ctypes.c_char_p
        machine.emulator_message_offset.restype = ctypes.c_uint64
        place = build.line_of(self._path, machine.emulator_message_offset())
        message = machine.emulator_message().decode()
        raise EmulatorError(f"{self.name}: {message}" + (f" ({place})" if place else ""))


def _three(numbers) -> tuple:
    return (*map(int, numbers), 1, 1)[:3]


def _is_array(value) -> bool:
    return hasattr(value, "_array")  # a StrictArray


def _bytes(name: str, parameter: str, value) -> np.ndarray:
    """The argument as the kernel reads it. Raises TypeError unless the parameter takes it."""
    if _is_array(value):
        dtype = value.dtype.name.replace("bool", "uint8")
        wanted = parameter.replace("bool", "uint8").removesuffix("*")
        same = wanted in (dtype, dtype.removeprefix("u"), f"u{dtype}", "struct")
        if not parameter.endswith("*") or not same:
            raise TypeError(f"{name}: an array of {dtype} for a parameter {parameter}")
        return np.array(value._array.ctypes.data, np.uint64)
    if not isinstance(value, (np.generic, np.ndarray)):
        raise TypeError(f"{name}: {value!r}, where an array or a number of NumPy is expected")
    wanted = "uint64" if parameter.endswith("*") else parameter
    if wanted not in (value.dtype.name, "struct"):
        raise TypeError(f"{name}: {value.dtype} for a parameter {parameter}")
    return np.array(value)


def _arrays(pairs) -> list[tuple[int, int, bool]]:
    """(begin, end, whether it may be written) of the memory that the kernel may touch."""
    found, addresses = [], []
    for parameter, value in pairs:
        if _is_array(value):
            begin, end = np.lib.array_utils.byte_bounds(value._array)
            found.append((begin, end, value._array.flags.writeable))
            if value.dtype.name in ("int64", "uint64"):
                addresses += value._array[value._array > 1 << 32].ravel().tolist()
        elif parameter.endswith("*") and value:
            addresses.append(int(value))
    return found + _arrays_at(addresses)


def _arrays_at(addresses: list[int]) -> list[tuple[int, int, bool]]:
    """The arrays of the device whose memory has one of the addresses: a kernel reads them there."""
    if not addresses:
        return []
    found, addresses = [], np.unique(np.array(addresses, np.uint64))
    for value in gc.get_objects():
        if type(value).__name__ == "StrictArray" and value._array.size:
            begin, end = np.lib.array_utils.byte_bounds(value._array)
            first = np.searchsorted(addresses, np.uint64(begin))
            if first < len(addresses) and addresses[first] < end:
                found.append((begin, end, value._array.flags.writeable))
    return found
