"""The same function of many items, in several processes, with the results in order."""

import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice


def in_processes(function: Callable, items: Iterable, workers: int | None, *args) -> Iterator:
    """`function(item, *args)` of each item, in order, computed by `workers` processes.

    With 1 or None, and for fewer items than workers, this process does the work itself. Items are
    taken from the iterable a few at a time, as they are needed.
    """
    workers = 1 if workers is None else workers
    if workers < 1:
        raise ValueError(f"workers must be at least 1, or None, not {workers}")
    items = iter(items)
    first = list(islice(items, workers))
    items = chain(first, items)
    if workers == 1 or len(first) < workers:
        yield from (function(item, *args) for item in items)
        return

    from concurrent.futures import ProcessPoolExecutor

    # The function, and the tokenizer with it, is sent to each process once, when it starts.
    pool = ProcessPoolExecutor(workers, initializer=_start_worker, initargs=(function, args))
    try:
        pending = deque()
        for item in items:
            pending.append(pool.submit(_work, item))
            if len(pending) > 2 * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker(*function_and_arguments) -> None:
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that waits for us handles Ctrl-C
    _worker = function_and_arguments


def _work(item):
    function, arguments = _worker
    return function(item, *arguments)
