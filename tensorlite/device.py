"""Where arrays live, how large a block of rows fits the cache, and random numbers.

There is no `xp` here: NumPy's functions follow the type of their arguments, so `np.exp` of a CuPy
array runs on the GPU. What is left is making arrays in a place, and asking whether there is a GPU.
"""

from __future__ import annotations

import ctypes
import functools
import zlib
from collections.abc import Iterator, Sequence

import numpy as np

# =================================================================================================
# CPU or GPU
# =================================================================================================


class cuda:
    """`tl.cuda.is_available()`: a namespace, as other libraries spell it."""

    @staticmethod
    def is_available() -> bool:
        """Whether CuPy, a GPU and the CUDA libraries are all there. Never raises."""
        return _cuda_fault() is None


@functools.cache
def _cuda_fault() -> str | None:
    """Which of the three things that a GPU needs is missing; None when all work."""
    try:
        import cupy
    except Exception as error:
        return f"CuPy cannot be imported ({error}): pip install 'tensorlite[cuda12]' or '[cuda13]'"
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except Exception as error:
        return f"the NVIDIA driver is missing or too old for this CuPy ({error})"
    if not count:
        return "the NVIDIA driver sees no GPU"
    try:
        x = cupy.ones((2, 2), dtype=np.float32)
        float((x @ x).sum() + cupy.random.default_rng(0).random())
    except Exception as error:
        return f"the CUDA libraries do not work ({error}): install CuPy with its extra [ctk]"
    return None


def place(array, device: str | None):
    """`array` on "cpu" or "cuda"; None leaves it where it is.

    Raises ValueError for another device, RuntimeError for "cuda" without a usable GPU.
    """
    if device not in (None, "cpu", "cuda"):
        raise ValueError(f"device is 'cpu' or 'cuda', not {device!r}")
    if device == "cuda":
        if fault := _cuda_fault():
            raise RuntimeError(f"device='cuda' is not usable: {fault}")
        import cupy

        return cupy.asarray(array)
    if device == "cpu" and not isinstance(array, np.ndarray):
        return array.get()
    return array


def add_at(total, index, g) -> None:
    """total[index] += g, where an element that the index names twice is added to twice."""
    if total.dtype == np.float16:  # stored in 16 bits, summed in 32
        wide = total.astype(np.float32)
        add_at(wide, index, g.astype(np.float32))
        total[...] = wide
    elif isinstance(total, np.ndarray):
        np.add.at(total, index, g)
    else:
        import cupy

        cupy.add.at(total, index, g)  # np.add.at raises for a CuPy array and a tuple of indices


def count_gpus() -> int:
    """How many GPUs CuPy can use; 0 without CuPy."""
    if not cuda.is_available():
        return 0
    import cupy

    return cupy.cuda.runtime.getDeviceCount()


def use_gpu(number: int) -> None:
    """Compute on this GPU, counted round. Raises RuntimeError when there is none to use."""
    place(np.zeros(1), "cuda")
    import cupy

    cupy.cuda.Device(number % count_gpus()).use()


# =================================================================================================
# Memory
# =================================================================================================

BLOCK_BYTES = 160 * 1024  # a block, with a few temporaries beside it, stays in a core's L2 cache


def row_blocks(x) -> Iterator[slice]:
    """Slices that cut the rows of a 2-d array into blocks that fit the cache.

    A chain of elementwise passes is bound by memory when each pass goes over the whole array, and
    three times faster when all passes go over one block before the next. A GPU has no such cache:
    there a block is the whole array.
    """
    rows = len(x)
    step = rows or 1
    if isinstance(x, np.ndarray):
        step = max(1, BLOCK_BYTES // max(1, x[:1].nbytes))
    return (slice(start, min(start + step, rows)) for start in range(0, rows, step))


def keep_freed_memory() -> None:
    """Tell glibc to reuse freed arrays instead of giving them back to the system.

    By default every large array is mapped anew and its pages are faulted in one by one, thousands
    of times a training step. Does nothing on systems without glibc.
    """
    try:
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD
        libc.mallopt(-1, (1 << 31) - 1)  # M_TRIM_THRESHOLD
    except (OSError, AttributeError):
        pass


# =================================================================================================
# Random numbers: every draw is a function of a key, so there is no generator state to save
# =================================================================================================


def _words(key: Sequence[int | str]) -> list[int]:
    words = [zlib.crc32(part.encode()) if isinstance(part, str) else part for part in key]
    return [len(words), *words]  # the length, for (1,) and (1, 0) would seed alike


def random(*key: int | str) -> np.random.Generator:
    """A generator that depends on `key` alone: `random(seed, "batch", step)`."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(_words(key))))


class RowRandom:
    """Random numbers for the rows of a batch, row by row, in the place of a Generator.

    What a row gets depends on the key, on how many draws were made before and on the row's number
    in the whole batch: not on which other rows are drawn with it. So a batch may be divided among
    workers, or computed in smaller pieces, and every row keeps its dropout mask.
    """

    def __init__(self, *key: int | str, rows: Sequence[int]):
        self.key = np.random.SeedSequence(_words(key)).generate_state(2, np.uint64)
        self.rows = rows
        self.draws = 0

    def random(self, size: tuple[int, ...], dtype=np.float32) -> np.ndarray:
        """Uniform numbers in [0, 1) of shape `size`, whose first axis is the rows."""
        out = np.empty(size, dtype)
        for row, numbers in zip(self.rows, out, strict=True):
            # Philox turns a 256-bit counter into random bits: each draw of a row has a range of
            # counters to itself.
            bits = np.random.Philox(key=self.key, counter=[0, 0, self.draws, row])
            np.random.Generator(bits).random(dtype=dtype, out=numbers)
        self.draws += 1
        return out
