"""The product of vectors with a matrix that is kept in few bits, on all cores.

NumPy multiplies no integers fast. So blocks of the matrix are converted to float32 where the cache
holds them, and multiplied there: of the whole matrix, only the few bits come from memory, and
memory is what a product with a single vector waits for. Several threads take the blocks in turn.

docs/log.md has what was tried: sizes of blocks, layouts, ways to convert and to hand work over.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable

import numpy as np

from tensorlite.functional.linear import FEW, one_by_one
from tensorlite.threads import blas_threads, in_threads

BLOCK = 2**19  # weights that a thread converts at a time: 2 MB of float32
scratch = threading.local()


def product(
    x: np.ndarray, shape: tuple[int, int], unpack: Callable[[slice, np.ndarray], None]
) -> np.ndarray:
    """x @ W.T for a W that `unpack` gives in blocks: x (R, n), W (m, n) -> (R, m), float32.

    `unpack(rows, out)` writes W[rows] into `out`, float32. As many threads work as BLAS would use.
    """
    m, n = shape
    y = np.empty((len(x), m), np.float32)
    threads = blas_threads()
    count = math.ceil(m * n / BLOCK / threads) * threads  # as many blocks for each thread
    step = max(1, math.ceil(m / max(1, count)))

    def work(rows: slice) -> None:
        rows = slice(rows.start, min(rows.stop, m))
        block = buffer((rows.stop - rows.start) * n).reshape(-1, n)
        unpack(rows, block)
        y[:, rows] = one_by_one(x, block.T) if len(x) <= FEW else x @ block.T

    in_threads(work, [slice(i, i + step) for i in range(0, m, step)], y, m * n)
    return y


def buffer(size: int) -> np.ndarray:
    """Memory of this thread for `size` numbers, the same at every call: new pages are slow."""
    if getattr(scratch, "array", np.empty(0)).size < size:
        scratch.array = np.empty(size, np.float32)
    return scratch.array[:size]
