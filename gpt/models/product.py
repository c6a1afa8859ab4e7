"""The product of vectors with a matrix that is kept in few bits, on all cores.

NumPy multiplies no integers fast. So blocks of the matrix are converted to float32 where the cache
holds them, and multiplied there: of the whole matrix, only the few bits come from memory, and
memory is what a product with a single vector waits for. Several threads take the blocks in turn
(NumPy lets them run at once while it converts and multiplies), each with BLAS on one thread.

docs/log.md has what was tried: sizes of blocks, layouts, ways to convert and to hand work over.
"""

from __future__ import annotations

import functools
import math
import os
import threading
from collections.abc import Callable
from queue import SimpleQueue

import numpy as np
from threadpoolctl import ThreadpoolController

BLOCK = 2**20  # weights that a thread converts at a time: 4 MB of float32
SMALL = 2**20  # weights; for fewer, another thread costs what it saves
ONE_AT_A_TIME = threading.Lock()  # products: each sets BLAS's threads, and uses all cores
scratch = threading.local()


def product(
    x: np.ndarray, shape: tuple[int, int], unpack: Callable[[slice, np.ndarray], None]
) -> np.ndarray:
    """x @ W.T for a W that `unpack` gives in blocks: x (R, n), W (m, n) -> (R, m), float32.

    `unpack(rows, out)` writes W[rows] into `out`, float32. As many threads work as BLAS would use.
    """
    m, n = shape
    y = np.empty((len(x), m), np.float32)
    with ONE_AT_A_TIME:
        before = [library.get_num_threads() for library in blas_libraries()]
        threads = min(max(before, default=1), max(1, m * n // SMALL))
        count = math.ceil(m * n / BLOCK / threads) * threads  # as many blocks for each thread
        step = math.ceil(m / count)
        blocks = iter([slice(i, min(i + step, m)) for i in range(0, m, step)])

        def work() -> None:
            for rows in blocks:  # an iterator of a list gives each block to one thread
                block = buffer((rows.stop - rows.start) * n).reshape(-1, n)
                unpack(rows, block)
                np.matmul(x, block.T, out=y[:, rows])

        try:
            for library in blas_libraries():
                library.set_num_threads(1)
            in_threads(work, threads)
        finally:
            for library, number in zip(blas_libraries(), before):
                library.set_num_threads(number)
    return y


def buffer(size: int) -> np.ndarray:
    """Memory of this thread for `size` numbers, the same at every call: new pages are slow."""
    if getattr(scratch, "array", np.empty(0)).size < size:
        scratch.array = np.empty(size, np.float32)
    return scratch.array[:size]


@functools.cache
def blas_libraries() -> list:
    libraries = ThreadpoolController().lib_controllers
    return [library for library in libraries if library.user_api == "blas"]


# ---- threads that wait for work: concurrent.futures takes three times as long to hand it over ----


def in_threads(work: Callable[[], None], threads: int) -> None:
    """Call `work` in this thread and in `threads - 1` others at once; raises what one raised."""
    todo, done = helpers(threads - 1)
    for _ in range(threads - 1):
        todo.put(work)
    try:
        work()
    finally:
        errors = [done.get() for _ in range(threads - 1)]
    for error in filter(None, errors):
        raise error


@functools.cache
def helpers(n: int) -> tuple[SimpleQueue, SimpleQueue]:
    """The queues of work to do and of errors (or None) of work done, with n threads at them."""
    todo, done = SimpleQueue(), SimpleQueue()
    for _ in range(n):
        threading.Thread(target=serve, args=(todo, done), daemon=True).start()
    return todo, done


os.register_at_fork(after_in_child=helpers.cache_clear)  # threads do not live on in a new process


def serve(todo: SimpleQueue, done: SimpleQueue) -> None:
    while True:
        work, error = todo.get(), None
        try:
            work()
        except BaseException as raised:
            error = raised
        work = None  # which holds arrays
        done.put(error)
