"""Work that several threads share: NumPy lets them run at once while it computes.

BLAS divides large products among the cores by itself. What else there is to do, such as the many
small products and exponentials of attention, one core would do alone. `in_threads` gives the pieces
of such work to as many threads as BLAS would use, while BLAS uses one in each. Where the ranks of a
team divide the cores, BLAS has one thread, and there is nothing to share.
"""

from __future__ import annotations

import contextvars
import functools
import os
import threading
from collections.abc import Callable, Iterable
from queue import SimpleQueue

import numpy as np

MANY = 2**20  # elements that are worth a second thread: to hand it work takes 20 microseconds
ONE_AT_A_TIME = threading.Lock()  # the number of BLAS's threads is the process's


def in_threads(work: Callable, pieces: Iterable, like, size: int | None = None) -> None:
    """Call `work` with each piece, where it is worth it in several threads at once, in any order.

    `like` is the array that the work is about, and `size` how many elements are computed, by
    default those of the array. Pieces are done one by one where that is few, on a GPU, where BLAS
    uses a single thread, and while another thread of the program does the same. What `work` calls
    must be safe to run in several threads: pieces write to different places.
    """
    large = (like.size if size is None else size) >= MANY and isinstance(like, np.ndarray)
    pieces = list(pieces) if large else pieces
    n = min(blas_threads(), len(pieces)) if large else 1
    if n < 2 or not ONE_AT_A_TIME.acquire(blocking=False):
        for piece in pieces:
            work(piece)
        return
    before = [library.get_num_threads() for library in blas_libraries()]
    rest = iter(pieces)  # an iterator of a list gives each piece to one thread

    def some() -> None:
        for piece in rest:
            work(piece)

    try:
        for library in blas_libraries():
            library.set_num_threads(1)
        together(some, n)
    finally:
        for library, number in zip(blas_libraries(), before):
            library.set_num_threads(number)
        ONE_AT_A_TIME.release()


@functools.cache
def blas_libraries() -> list:
    from threadpoolctl import ThreadpoolController

    libraries = ThreadpoolController().lib_controllers
    return [library for library in libraries if library.user_api == "blas"]


def blas_threads() -> int:
    """How many threads BLAS uses for a large product."""
    return max((library.get_num_threads() for library in blas_libraries()), default=1)


# ---- threads that wait for work: concurrent.futures takes three times as long to hand it over ----


def together(work: Callable[[], None], n: int) -> None:
    """Call `work` in this thread and in n - 1 others at once; raises what one of them raised."""
    todo = helpers(n - 1)
    done = SimpleQueue()  # of this call: after Ctrl-C, what is put into it late is lost with it
    for _ in range(n - 1):
        todo.put((functools.partial(contextvars.copy_context().run, work), done))
    try:
        work()
    finally:
        errors = [done.get() for _ in range(n - 1)]
    for error in filter(None, errors):
        raise error


@functools.cache
def helpers(n: int) -> SimpleQueue:
    """The queue of (work to do, the queue for its error or None), with n threads at it."""
    todo = SimpleQueue()
    for _ in range(n):
        threading.Thread(target=serve, args=(todo,), daemon=True).start()
    return todo


if hasattr(os, "register_at_fork"):  # threads do not live on in a new process
    os.register_at_fork(after_in_child=helpers.cache_clear)


def serve(todo: SimpleQueue) -> None:
    while True:
        (work, done), error = todo.get(), None
        try:
            work()
        except BaseException as raised:
            error = raised
        work = None  # which holds arrays
        done.put(error)
