"""What calling an operation does beside computing: recording, keeping inputs, looking for faults.

Each thread, and each asynchronous task, has a mode of its own.
"""

from __future__ import annotations

import contextvars
import functools
import inspect
import os
import traceback
from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Mode(NamedTuple):
    """What calling an operation does beside computing; each thread has its own."""

    record: bool = True
    keep_inputs: bool = False
    check: bool = False
    recomputed: bool = False  # inside checkpoint


mode = contextvars.ContextVar("tensorlite_mode", default=Mode())  # noqa: B039 (it is a tuple)


class in_mode:
    """A block, or a decorated function, in which these fields of the mode are different."""

    def __init__(self, **changes):
        self.changes = changes
        self.tokens = []  # one for each time that the block was entered and not left

    def __enter__(self) -> None:
        self.tokens.append(mode.set(mode.get()._replace(**self.changes)))

    def __exit__(self, *exception) -> None:
        mode.reset(self.tokens.pop())

    def __call__(self, function: Callable) -> Callable:
        changes = self.changes  # every call has a block of its own
        if inspect.isasyncgenfunction(function):
            raise TypeError(
                f"a mode cannot decorate the asynchronous generator '{function.__name__}': "
                "put the `with` block inside it, without a yield in the block"
            )
        if inspect.iscoroutinefunction(function):

            async def inside(*args, **kwargs):
                with in_mode(**changes):
                    return await function(*args, **kwargs)

        elif inspect.isgeneratorfunction(function):

            def inside(*args, **kwargs):
                return _generate_in_mode(function(*args, **kwargs), changes)

        else:

            def inside(*args, **kwargs):
                with in_mode(**changes):
                    return function(*args, **kwargs)

        return functools.wraps(function)(inside)


def _generate_in_mode(generator, changes: dict):
    """What `generator` yields, where its own code runs in the mode, and its caller's does not."""
    resume, sent = generator.send, None
    while True:
        try:
            with in_mode(**changes):
                value = resume(sent)
        except StopIteration as stop:
            return stop.value
        try:
            resume, sent = generator.send, (yield value)
        except GeneratorExit:
            with in_mode(**changes):
                generator.close()
            raise
        except BaseException as error:
            resume, sent = generator.throw, error


def no_grad():
    """A block, or a function under `@no_grad()`, in which nothing is recorded.

    A generator function under it records nothing in its own code; its caller's code, which runs
    between the values, is as it was. The same holds for `higher_order` and `detect_anomaly`.
    """
    return in_mode(record=False)


def higher_order():
    """A block whose gradients can be differentiated again, by `grad(..., create_graph=True)`.

    Every node made in it also keeps its operation's inputs.
    """
    return in_mode(record=True, keep_inputs=True)


def detect_anomaly():
    """A block in which the first value or gradient that is infinite or no number raises.

    The FloatingPointError names the operation and the line that called it. A backward is checked
    if it runs in the block too. Slow: every array is looked at.
    """
    return in_mode(check=True)


def check_finite(value, name: str, what: str = "value", origin: str = "") -> str:
    """Raise for a value that is not finite; returns the line of the user that called."""
    if not origin:
        frames = traceback.extract_stack()
        here = os.path.dirname(__file__)
        user = [f for f in frames if not f.filename.startswith(here + os.sep)]
        origin = f"{user[-1].filename}:{user[-1].lineno}: {user[-1].line}" if user else "?"
    if value.dtype.kind == "f" and not np.all(np.isfinite(value)):
        raise FloatingPointError(f"the {what} of '{name}' is not finite, called at {origin}")
    return origin
