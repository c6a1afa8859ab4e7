"""Memory of the strict device: poisoned, counted, and limited."""

from __future__ import annotations

import contextlib
import ctypes
import weakref

import numpy as np

from tests.strict_streams import (
    CUDARuntimeError,
    Stream,
    enqueue,
    get_current_stream,
    is_capturing,
    refuse_while_capturing,
)

TOTAL = 80 << 30
limit = [TOTAL]  # bytes that the device has; a test may give it less


class OutOfMemoryError(MemoryError):
    """Raised by CuPy where the GPU has no memory of that size left."""

    def __init__(self, size, total, limit=0):
        super().__init__(
            f"Out of memory allocating {size:,} bytes (allocated so far: {total:,} bytes)."
        )


class MemoryPool:
    """cupy.cuda.MemoryPool, of which only the number of bytes is kept."""

    def __init__(self):
        self._alive = self._most = 0
        _all_pools.add(self)

    def malloc(self, size: int) -> MemoryPointer:
        with using_allocator(self.malloc):
            return alloc(size)

    def used_bytes(self) -> int:
        return self._alive

    def total_bytes(self) -> int:
        return self._most

    def free_all_blocks(self, stream=None) -> None:
        self._most = self._alive


_all_pools: weakref.WeakSet[MemoryPool] = weakref.WeakSet()
default_pool = MemoryPool()
_pools = [default_pool]
# The memory that is alive: id of the NumPy array that owns it -> (address, bytes, the array).
_known: dict[int, tuple[int, int, weakref.ref]] = {}


@contextlib.contextmanager
def using_allocator(allocator=None):
    """Take memory from another pool: using_allocator(pool.malloc)."""
    _pools.append(allocator.__self__ if allocator else default_pool)
    try:
        yield
    finally:
        _pools.pop()


def alive() -> int:
    """Bytes of the device that arrays hold."""
    return sum(pool._alive for pool in _all_pools)


def allocate(shape, dtype) -> np.ndarray:
    """New memory at an address that is a multiple of 256, filled with poison."""
    dtype = np.dtype(dtype)
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    raw = np.empty(size + 256, np.uint8)
    start = -raw.ctypes.data % 256
    hold(raw, size, raw.ctypes.data + start)
    return poison(raw[start : start + size].view(dtype).reshape(shape))


def poison(array: np.ndarray) -> np.ndarray:
    """Fill memory with what nobody takes for a result."""
    kind = array.dtype.kind
    array[...] = np.nan if kind in "fcV" else True if kind == "b" else np.iinfo(array.dtype).max
    return array


def hold(array: np.ndarray, size: int | None = None, address: int | None = None) -> None:
    """Count the memory of an array until it is freed."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    if id(array) in _known:
        return
    size = array.nbytes if size is None else size
    pool = _pools[-1]
    if is_capturing() and pool is default_pool:
        raise RuntimeError(
            "memory that is allocated during a capture must come from a pool of the graph's own: "
            "everybody else would be given it too"
        )
    if alive() + size > limit[0]:
        raise OutOfMemoryError(size, alive())
    address = array.ctypes.data if address is None else address
    _known[id(array)] = address, size, weakref.ref(array)
    pool._alive += size
    pool._most = max(pool._most, pool._alive)
    weakref.finalize(array, _release, id(array), pool)


def _release(number: int, pool: MemoryPool) -> None:
    pool._alive -= _known.pop(number)[1]


def regions() -> tuple[np.ndarray, np.ndarray]:
    """Where the memory of each array begins and ends: addresses, uint64, two arrays."""
    starts, sizes = np.array([(s, n) for s, n, _ in _known.values()], np.uint64).reshape(-1, 2).T
    return starts, starts + sizes


def memory(address: int, size: int) -> np.ndarray:
    """The bytes of the device at an address, as an array that keeps them from being freed.

    Raises CUDARuntimeError for bytes that are not all of one array, which a GPU does not always.
    """
    for start, length, array in _known.values():
        if start <= address and address + size <= start + length:
            region = (ctypes.c_char * size).from_address(address)
            region.owner = array()
            return np.frombuffer(region, np.uint8)
    raise CUDARuntimeError("cudaErrorIllegalAddress: an illegal memory access was encountered")


class MemoryPointer:
    """cupy.cuda.MemoryPointer: where the memory of an array begins."""

    def __init__(self, array: np.ndarray):
        self._array = array  # keeps it alive
        self.ptr = array.ctypes.data

    def copy_from_host_async(self, mem, size: int, stream=None) -> None:
        copy(self.ptr, _address(mem), size, stream)

    def copy_to_host_async(self, mem, size: int, stream=None) -> None:
        copy(_address(mem), self.ptr, size, stream)

    def copy_from_device_async(self, src: MemoryPointer, size: int, stream=None) -> None:
        copy(self.ptr, src.ptr, size, stream)


def _address(value) -> int:
    return value.value if isinstance(value, ctypes.c_void_p) else value


def copy(to: int, source: int, size: int, stream: Stream | None) -> None:
    with get_current_stream() if stream is None else stream:
        enqueue(lambda: ctypes.memmove(to, source, size), "copy")


def alloc(size: int) -> MemoryPointer:
    return MemoryPointer(allocate(size, np.uint8))


class PinnedMemory(bytearray):
    """What cupy.cuda.alloc_pinned_memory gives: host memory, for np.frombuffer."""

    @property
    def ptr(self) -> int:
        return np.frombuffer(self, np.uint8).ctypes.data

    def size(self) -> int:
        return len(self)


_pinned = [PinnedMemory]  # what gives pinned memory


def alloc_pinned_memory(size: int) -> PinnedMemory:
    return _pinned[0](size)


def set_pinned_memory_allocator(allocator=None) -> None:
    _pinned[0] = allocator or PinnedMemory


def upload(size: int) -> None:
    """What CuPy does with memory of the host before it copies it to the device.

    It goes through pinned memory, which is used for other things afterwards: a graph would copy
    those. CuPy says nothing.
    """
    alloc_pinned_memory(size)
    refuse_while_capturing()
