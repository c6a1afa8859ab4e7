"""Work that several threads share: NumPy lets them run at once while it computes.

BLAS divides large products among the cores by itself. What else there is to do, such as the many
small products and exponentials of attention, one core would do alone. `in_threads` gives the pieces
of such work to as many threads as BLAS would use, while BLAS uses one in each.
"""

from __future__ import annotations

import contextvars
import functools
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

ONE_AT_A_TIME = threading.Lock()  # the number of BLAS's threads is the process's


@functools.cache
def blas_libraries() -> list:
    from threadpoolctl import ThreadpoolController

    libraries = ThreadpoolController().lib_controllers
    return [library for library in libraries if library.user_api == "blas"]


@functools.cache
def pool(n: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(n, "tensorlite")


os.register_at_fork(after_in_child=pool.cache_clear)  # threads do not live on in a child process


def in_threads(work: Callable, pieces: Sequence) -> None:
    """Call `work` with each piece, in any order and in several threads at once.

    What `work` calls must be safe to run so: pieces write to different places. Where BLAS uses a
    single thread, or another thread of the program is doing the same, they are done one by one.
    """
    before = [library.get_num_threads() for library in blas_libraries()]
    n = min(max(before, default=1), len(pieces))
    if n < 2 or not ONE_AT_A_TIME.acquire(blocking=False):
        for piece in pieces:
            work(piece)
        return
    rest = iter(list(pieces))  # an iterator of a list gives each piece to one thread

    def some() -> None:
        for piece in rest:
            work(piece)

    try:
        for library in blas_libraries():
            library.set_num_threads(1)
        others = [pool(n - 1).submit(contextvars.copy_context().run, some) for _ in range(n - 1)]
        try:
            some()
        finally:
            for other in others:
                other.result()
    finally:
        for library, number in zip(blas_libraries(), before):
            library.set_num_threads(number)
        ONE_AT_A_TIME.release()
