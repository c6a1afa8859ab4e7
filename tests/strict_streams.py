"""Streams, graphs and events of the strict device.

A GPU does not do at once what it is told. So here, what is launched on a non-blocking stream is put
in a queue, and is done when somebody waits for that stream; whoever reads an array without waiting
for the right stream finds the old contents, and whoever changes host memory that a copy has yet to
read changes what is copied. While a stream captures, the work is put in a graph instead, and is
done each time that the graph is launched. On every other stream, work is done at once.

Work is a function without parameters that writes into memory which exists already: strict_work.py
makes it from a function of NumPy, and the stand-ins for kernels and for cuBLASLt hand it to
`enqueue`.
"""

from __future__ import annotations

import itertools
import linecache
import sys
import weakref
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

launches: Counter[str] = Counter()  # by name: what was given to a stream, also while it captured


class CUDARuntimeError(RuntimeError):
    """Raised by CuPy for an error of the CUDA runtime."""


class Stream:
    """cupy.cuda.Stream: work in order. `Stream.null` is the one that is used by default."""

    null: Stream

    def __init__(self, null=False, non_blocking=False):
        self.ptr = 0 if null else next(_numbers)
        self.device_id = 0
        self.is_non_blocking = non_blocking
        self._queue: deque[Callable] = deque()
        self._given = 0  # how much work was ever put in the queue
        self._captured: list[Callable] | None = None
        self._broken = False  # whether something was asked for that ends a capture
        streams[self.ptr] = self

    def __enter__(self):
        _current.append(self)
        return self

    def __exit__(self, *error):
        _current.pop()

    def use(self):
        _current[-1] = self
        return self

    @property
    def done(self) -> bool:
        return not self._queue

    def synchronize(self) -> None:
        if self._captured is not None:
            self._refuse()
        if self._queue:
            note_wait("synchronize")
            self._run()

    def _run(self, until: int | None = None) -> None:
        """Do the work in the queue, all of it or what was given before number `until`."""
        until = self._given if until is None else until
        while self._given - len(self._queue) < until:
            self._queue.popleft()()

    def _put(self, work: Callable) -> None:
        if self._captured is not None:
            self._captured.append(work)
        elif self._at_once:
            work()
        else:
            self._later(work)

    @property
    def _at_once(self) -> bool:
        """Whether work is done when it is given: nothing is before it, and nobody captures."""
        return not (self.is_non_blocking or self._queue or self._captured is not None)

    def _later(self, work: Callable) -> None:
        self._queue.append(work)
        self._given += 1

    def record(self, event=None):
        event = event or Event()
        event.record(self)
        return event

    def wait_event(self, event) -> None:
        if self.is_capturing():
            self._refuse()
        if not event.done:
            self._later(event._run)

    # ---- capture ----

    def begin_capture(self, mode=None) -> None:
        if self.ptr == 0:
            raise RuntimeError("cannot capture on the default (legacy) stream")
        if self._captured is not None:
            self._refuse("cudaErrorIllegalState: the stream is capturing already")
        self._captured, self._broken = [], False

    def end_capture(self) -> Graph:
        captured, self._captured = self._captured, None
        if captured is None:
            raise CUDARuntimeError("cudaErrorIllegalState: the stream does not capture")
        if self._broken:
            raise CUDARuntimeError(
                "cudaErrorStreamCaptureInvalidated: operation failed due to a previous error "
                "during capture"
            )
        return Graph(captured)

    def is_capturing(self) -> bool:
        if self._broken and self._captured is not None:
            raise RuntimeError(
                "the stream was capturing, but an error has invalidated the capture sequence"
            )
        return self._captured is not None

    def _refuse(self, words: str | None = None):
        """Raise for what is not allowed while this stream captures; the capture is lost."""
        self._broken = True
        raise CUDARuntimeError(
            words
            or "cudaErrorStreamCaptureUnsupported: operation not permitted when stream is capturing"
        )


_numbers = itertools.count(1000)
streams: weakref.WeakValueDictionary[int, Stream] = weakref.WeakValueDictionary()
Stream.null = Stream(null=True)
_current = [Stream.null]


def get_current_stream(device_id=-1) -> Stream:
    return _current[-1]


def is_capturing() -> bool:
    return _current[-1]._captured is not None


def at_once() -> bool:
    """Whether work for the current stream is done when it is given."""
    return _current[-1]._at_once


def refuse_while_capturing() -> None:
    """Raise where CUDA does: for host memory that is read, and for reading a value back."""
    if is_capturing():
        _current[-1]._refuse()


def enqueue(work: Callable[[], object], name: str) -> None:
    """Give work to the current stream: do it at once, later, or whenever a graph is launched."""
    launches[name] += 1
    _current[-1]._put(work)


class Graph:
    """cupy.cuda.Graph: work that can be done again and again."""

    def __init__(self, work: list[Callable]):
        self._work = work
        self.graph = next(_numbers)

    def launch(self, stream: Stream | None = None) -> None:
        stream = _current[-1] if stream is None else stream
        if stream.is_capturing():
            stream._refuse()
        launches["graph"] += 1
        for work in self._work:
            stream._put(work)

    def upload(self, stream: Stream | None = None) -> None:
        """Prepares the graph for its launch; here there is nothing to prepare."""


class Event:
    """cupy.cuda.Event: a place in the work of a stream."""

    def __init__(self, block=False, disable_timing=False, interprocess=False):
        self._stream, self._until = Stream.null, 0

    def record(self, stream: Stream | None = None) -> None:
        stream = _current[-1] if stream is None else stream
        if stream.is_capturing():
            stream._refuse()
        self._stream, self._until = stream, stream._given

    @property
    def done(self) -> bool:
        return self._stream._given - len(self._stream._queue) >= self._until

    def _run(self) -> None:
        if not self.done:
            self._stream._run(self._until)

    def synchronize(self) -> None:
        if not self.done:
            note_wait("event")
            self._run()


def get_elapsed_time(start: Event, end: Event) -> float:
    """Milliseconds: always 1, so that a choice by timing is the same in every run."""
    return 1.0


# =================================================================================================
# Waits
# =================================================================================================


class Wait(NamedTuple):
    """What waited ("item"), the source line that asked for it, and where that is."""

    kind: str
    line: str
    where: str


waits: list[Wait] = []
# Who passes on what somebody else asked for: the strict device, NumPy, and ArrayLike's own `item`.
_BETWEEN = (
    str(Path(__file__).with_name("strict")),  # this file and those beside it
    str(Path(np.__file__).parent),
    str(Path("tensorlite", "arraylike.py")),
)


def note_wait(kind: str) -> None:
    frame = sys._getframe(1)
    while any(part in frame.f_code.co_filename for part in _BETWEEN):
        frame = frame.f_back
    file, number = frame.f_code.co_filename, frame.f_lineno
    waits.append(Wait(kind, linecache.getline(file, number).strip(), f"{file}:{number}"))


def wait(kind: str) -> None:
    """Wait for the current stream, as a value that the host must know makes the program do."""
    refuse_while_capturing()
    note_wait(kind)
    _current[-1]._run()
