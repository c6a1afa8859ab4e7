"""Devices, blocks of rows that fit the cache, and random numbers.

The code has no `xp` that stands for NumPy or CuPy: NumPy's functions dispatch on the type of their
arguments, so `np.exp` of a CuPy array runs on the GPU. This file has what dispatching does not
cover: placing arrays on a device, and finding out whether there is a GPU.
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


def is_available() -> bool:
    """Whether CuPy, a GPU and the CUDA libraries are all usable. Never raises."""
    return _cuda_fault() is None


@functools.cache
def _cuda_fault() -> str | None:
    """Why no GPU can be used: what is missing of CuPy, the GPU and the CUDA libraries; or None."""
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
    """`array` on the device "cpu" or "cuda"; None leaves it where it is.

    Raises ValueError for another device, and RuntimeError for "cuda" without a usable GPU.
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
    """total[index] += g, except that elements which the index names twice are added to twice."""
    if total.dtype == np.float16:  # sums are computed in float32
        wide = total.astype(np.float32)
        add_at(wide, index, g.astype(np.float32))
        total[...] = wide
    elif isinstance(total, np.ndarray):
        np.add.at(total, index, g)
    else:
        import cupy

        cupy.add.at(total, index, g)  # np.add.at raises for a CuPy array with a tuple as index


def is_capturing(array) -> bool:
    """Whether what is done to the array now is recorded for a CUDA graph (cuda.py)."""
    if isinstance(array, np.ndarray):
        return False
    import cupy

    return cupy.cuda.get_current_stream().is_capturing()


def count_gpus() -> int:
    """How many GPUs CuPy can use; 0 without CuPy."""
    if not is_available():
        return 0
    import cupy

    return cupy.cuda.runtime.getDeviceCount()


def use_gpu(number: int) -> None:
    """Compute on GPU `number` modulo the number of GPUs. Raises RuntimeError if there is none."""
    place(np.zeros(1), "cuda")
    import cupy

    cupy.cuda.Device(number % count_gpus()).use()


# =================================================================================================
# Memory
# =================================================================================================

BLOCK_BYTES = 160 * 1024  # a block and a few temporary arrays fit into a core's L2 cache


def row_blocks(x) -> Iterator[slice]:
    """Slices that cut the rows of a 2-d array into blocks that fit the cache.

    If each pass of a chain of elementwise passes goes over the whole array, the chain is bound by
    memory. It is three times faster to make all passes over one block before the next block. On a
    GPU the whole array is one block.
    """
    rows = len(x)
    step = rows or 1
    if isinstance(x, np.ndarray):
        step = max(1, BLOCK_BYTES // max(1, x[:1].nbytes))
    return (slice(start, min(start + step, rows)) for start in range(0, rows, step))


def keep_freed_memory() -> None:
    """Tell glibc to reuse the memory of freed arrays instead of returning it to the system.

    By default glibc maps new memory for every large array, and the system faults its pages in one
    by one, thousands of times in a training step. Does nothing on systems without glibc.
    """
    try:
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD
        libc.mallopt(-1, (1 << 31) - 1)  # M_TRIM_THRESHOLD
    except (OSError, AttributeError):
        pass


# =================================================================================================
# Random numbers: every draw depends on a key only, so there is no generator state to save
# =================================================================================================


def _words(key: Sequence[int | str]) -> list[int]:
    words = [zlib.crc32(part.encode()) if isinstance(part, str) else part for part in key]
    return [len(words), *words]  # without the length, (1,) and (1, 0) would give the same seed


def random(*key: int | str) -> np.random.Generator:
    """A NumPy Generator that depends on `key` alone, for example `random(seed, "batch", step)`."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(_words(key))))


class RowRandom:
    """Random numbers for the rows of a batch, to be used in place of a Generator.

    The numbers for a row depend on the key, on how many draws were made before, and on the row's
    number in the whole batch, but not on which other rows are drawn together with it. So if a batch
    is divided among workers, or computed in smaller pieces, every row keeps its dropout mask.

    `rows` has the numbers of the rows in the whole batch.
    """

    def __init__(self, *key: int | str, rows: Sequence[int]):
        self.key = np.random.SeedSequence(_words(key)).generate_state(2, np.uint64)
        self.rows = rows
        self.draws = 0

    @classmethod
    def keyed(cls, key, rows) -> RowRandom:
        """One that draws by `key` (2,) of uint64, the key of another; both may be on a GPU."""
        made = cls.__new__(cls)
        made.key, made.rows, made.draws = key, rows, 0
        return made

    def __deepcopy__(self, memo) -> RowRandom:
        made = RowRandom.keyed(self.key, self.rows)
        made.draws = self.draws
        return made

    def keep(self, size: tuple[int, ...], p: float, like):
        """`random(size) >= p`, beside the array `like`: on a GPU, a kernel draws the numbers."""
        if isinstance(like, np.ndarray):
            return self.random(size) >= p
        from .kernels.random import keep_mask

        self.draws += 1
        rows = self.rows if hasattr(self.rows, "dtype") else np.array(self.rows, np.int64)
        key, rows = (np.asarray(a, like=like) for a in (self.key, rows))
        return keep_mask(size, p, key, rows, self.draws - 1)

    def random(self, size: tuple[int, ...], dtype=np.float32) -> np.ndarray:
        """Uniform numbers in [0, 1) of shape `size`, whose first axis is that of the rows."""
        out = np.empty(size, dtype)
        for row, numbers in zip(self.rows, out, strict=True):
            # Philox turns a 256-bit counter into random bits. Each draw of each row uses a range of
            # counters of its own.
            bits = np.random.Philox(key=self.key, counter=[0, 0, self.draws, row])
            np.random.Generator(bits).random(dtype=dtype, out=numbers)
        self.draws += 1
        return out
