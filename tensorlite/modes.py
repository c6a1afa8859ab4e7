"""The modes that decide what an operation does besides computing its value.

An operation may record a node, keep its inputs for higher derivatives, and check its value for
infinities and NaN. Each thread, and each asynchronous task, has its own mode.
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

from .arraylike import is_float


class Mode(NamedTuple):
    """What an operation does besides computing its value."""

    record: bool = True  # a node for each operation that needs one; off under `no_grad`
    keep_inputs: bool = False  # in the node; on under `higher_order`
    check: bool = False  # that values and gradients are finite; on under `detect_anomaly`
    recomputed: bool = False  # whether this is a function that `checkpoint` will run again
    products: str | None = None  # the precision of products on a GPU, under `autocast`


mode = contextvars.ContextVar("tensorlite_mode", default=Mode())  # noqa: B039 (it is a tuple)


class in_mode:
    """A context manager or decorator under which fields of the mode have other values."""

    def __init__(self, **changes):
        self.changes = changes
        self.tokens = []  # one for each time that the block was entered and not yet left

    def __enter__(self) -> None:
        self.tokens.append(mode.set(mode.get()._replace(**self.changes)))

    def __exit__(self, *exception) -> None:
        mode.reset(self.tokens.pop())

    def __call__(self, function: Callable) -> Callable:
        if isinstance(function, type):
            raise TypeError(
                f"a mode cannot decorate the class '{function.__name__}': decorate its methods"
            )
        changes = self.changes  # every call enters a block of its own
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
    """Yield what `generator` yields; only its own code, not the caller's, runs in the mode."""
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


def no_grad(function: Callable | None = None):
    """A `with no_grad():` block, or a function decorated with `@no_grad`, that records nothing.

    In a decorated generator function the mode applies to the generator's own code only, and not to
    the caller's code that runs between the values. The same holds for `higher_order` and
    `detect_anomaly`.
    """
    return in_mode(record=False) if function is None else in_mode(record=False)(function)


def higher_order():
    """A block whose gradients can be differentiated again, by `grad(..., create_graph=True)`.

    Every node that is made in the block also keeps the inputs of its operation.
    """
    return in_mode(record=True, keep_inputs=True)


def detect_anomaly():
    """A block in which the first value or gradient that is infinite or NaN raises.

    The FloatingPointError names the operation and the user's line that called it. To check
    gradients, run backward inside the block too. This is slow, because every array is inspected.
    """
    return in_mode(check=True)


def autocast(precision: str | None):
    """A block in which a GPU computes products and attention of float32 tensors in `precision`.

    "bfloat16" and "float16" round what is multiplied to 16 bits, and the results are tensors of
    that dtype; "tf32" rounds within the product only. Sums are in float32, and so are the residual
    stream, norms' statistics, losses and the gradients of parameters. "float32" or None: no
    rounding. The CPU computes in float32 everywhere. Raises ValueError for another precision.
    As `torch.autocast`; Micikevicius et al., 2017.
    """
    if precision not in (None, *PRECISIONS):
        raise ValueError(f"the precision is one of {', '.join(PRECISIONS)}, not {precision!r}")
    return in_mode(products=None if precision == "float32" else precision)


PRECISIONS = ("float32", "tf32", "bfloat16", "float16")


def check_finite(value, name: str, what: str = "value", origin: str = "") -> str:
    """Raise FloatingPointError if `value` is not finite; return the user's line that led here."""
    if not origin:
        frames = traceback.extract_stack()
        here = os.path.dirname(__file__)
        user = [f for f in frames if not f.filename.startswith(here + os.sep)]
        origin = f"{user[-1].filename}:{user[-1].lineno}: {user[-1].line}" if user else "?"
    if is_float(value.dtype) and not np.all(np.isfinite(value)):
        raise FloatingPointError(f"the {what} of '{name}' is not finite, called at {origin}")
    return origin
