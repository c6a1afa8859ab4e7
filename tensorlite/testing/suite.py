"""`gradient_tests`: the whole property suite of an operation in one line; hypothesis draws for it.

test_my_op = gradient_tests(my_op, arrays())
"""

from __future__ import annotations

import functools
import warnings
from collections import Counter
from collections.abc import Callable

import numpy as np

from .adapters import of_tensors
from .check import check_grads
from .comparing import differ
from .report import CannotTell, WrongGradient
from .subject import Subject
from .vjp import check_vjp

SINGLE = 2e-3, 0.0  # how far float32 may be from float64, relative to the largest entry
TWIN = 1e-11, 1e3  # how far two ways to compute the same may be apart, relative and in units


def gradient_tests(
    op: Callable | tuple[Callable, Callable],
    arguments,
    *,
    order: int = 2,
    composed: Callable | tuple[Callable, Callable] | None = None,
    device: str | None = None,
) -> Callable[[], None]:
    """A test function, for pytest to find, which checks everything about the gradients of `op`.

    `op` is an operation or a function of tensors, or a pair (value, vjp) as `check_vjp` takes it
    and as the adapters give it. `arguments` is a hypothesis strategy that draws an array, a list or
    tuple of arrays, or a pair of such a list and a dict of keyword arguments. A list within the
    list stands for an argument that is a sequence of arrays, as that of `concatenate`. What the
    arguments are, the tests are: with `arrays()` and `broadcastable` they have axes of size 0 and
    1, broadcast, and lie in memory in several orders.

    For each example drawn, the test checks
    - the gradients in float64, with all memory orders of the arguments and of g, and in every
      subset of the inputs that may need a gradient, as `check_grads` and `check_vjp` do;
    - that float32 arguments give float32 values and gradients, equal to those of float64;
    - that values and gradients equal those of `composed`, another way to compute the same (by
      default the definition that a fused operation has), in float64 and float32;
    - for a function of tensors, that they are the same on `device`, where one is given.

    The derivatives of order 2 up to `order` of a function of tensors are then checked for half as
    many examples. (A pair has no second derivatives.) How many are drawn is hypothesis's setting
    `max_examples`, and there is no deadline. Failures are AssertionErrors, and hypothesis shows the
    smallest arguments that it finds for them. Where the differences are too inaccurate to tell, one
    CannotTell is warned for all examples together.

    >>> from tensorlite.testing import arrays
    >>> test_square = gradient_tests(lambda x: x * x, arrays(shape=(2,)))
    >>> test_square()
    """
    if composed is None:
        composed = getattr(op, "composed", None)

    def all_properties(drawn):
        check_first_order(op, drawn)
        check_single(op, drawn)
        if composed is not None:
            for dtype in (np.float64, np.float32):
                check_same(op, composed, drawn, dtype)
        if device is not None:
            check_same(op, op, drawn, device=device)

    def higher_order(drawn):
        f, values = bind(op, drawn)
        check_grads(f, values, order=order)

    def test():
        from hypothesis import Phase, settings

        # Explained would be which lines of the checker itself the failing examples run.
        phases = [phase for phase in settings().phases if phase is not Phase.explain]
        usual = settings(deadline=None, report_multiple_bugs=False, phases=phases)
        check_drawn(all_properties, arguments, usual)
        if order > 1 and not isinstance(op, tuple):
            fewer = settings(usual, max_examples=max(1, usual.max_examples // 2))
            check_drawn(higher_order, arguments, fewer)

    return test


def check_drawn(check: Callable, arguments, settings) -> None:
    """Call `check` with arguments that hypothesis draws; one CannotTell is warned for all of them.

    Hypothesis ends with the smallest arguments that fail, often of one entry, which shows nothing
    about the kind of mistake. So what other arguments show is added to the exception.
    """
    from hypothesis import given

    unknown = []

    def watched(drawn):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", CannotTell)
            check(drawn)
        for w in caught:
            if w.category is CannotTell:
                unknown.append(w.message)
            else:
                warnings.warn_explicit(w.message, w.category, w.filename, w.lineno)

    try:
        given(arguments)(settings(watched))()
    except WrongGradient as error:
        if error.report.verdict == "wrong" and not error.report.mistake:
            words = likely_mistake_among(check, arguments, settings)
            if words:
                error.add_note(f"The likely mistake, as other arguments show: {words}.")
        raise
    if unknown:
        words = f"for {len(unknown)} of the arguments drawn; of the first of these:\n{unknown[0]}"
        warnings.warn(CannotTell(words), stacklevel=3)


def likely_mistake_among(check: Callable, arguments, settings) -> str:
    """What most of 20 drawn arguments with which `check` fails show of the mistake, or ""."""
    from hypothesis import Phase, given
    from hypothesis import settings as others

    mistakes = Counter()

    def look(drawn):
        try:
            check(drawn)
        except WrongGradient as error:
            mistakes.update([error.report.mistake.words] if error.report.mistake else [])
        except Exception:  # this is not the failure that is explained here
            pass

    few = others(settings, max_examples=20, phases=[Phase.generate], database=None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        given(arguments)(few(look))()
    return mistakes.most_common(1)[0][0] if mistakes else ""


def check_first_order(op, drawn) -> None:
    """Check the gradients of `op` at the drawn arguments, as `check_grads` or `check_vjp` does."""
    if isinstance(op, tuple):
        check_vjp(*pair(op, drawn))
    else:
        check_grads(*bind(op, drawn))


def check_single(op, drawn) -> None:
    """Check that float32 arguments give float32 results, and that these equal those of float64."""
    single, double = (computed(op, drawn, dtype) for dtype in (np.float32, np.float64))
    if not any(a.dtype == np.float64 for a in double.args if isinstance(a, np.ndarray)):
        return
    for i, found in enumerate([*single.kept_value, *single.kept]):
        if found is not None and found.dtype != np.float32:
            name = f"the gradient of argument {i - 1}" if i else "the value"
            raise AssertionError(f"with float32 arguments, {name} is of dtype {found.dtype}")
    words = differ_from(double, single, SINGLE)
    if words:
        raise AssertionError(f"with float32 arguments, {words}, which float64 arguments give")


def check_same(op, composed, drawn, dtype=np.float64, device: str | None = None) -> None:
    """Check that `op` on `device` and `composed` give the same value and the same gradients."""
    found = computed(op, drawn, dtype, device)
    words = differ_from(computed(composed, drawn, dtype), found, TWIN)
    if words:
        other = f"the cpu, compared with {device}" if device else "the composed definition"
        raise AssertionError(f"in {np.dtype(dtype)}, {words}, which is that of {other}")


def bind(function: Callable, drawn, dtype=np.float64, n_before: int = 0) -> tuple[Callable, list]:
    """`function` as one of arrays alone, and these arrays, of what a strategy has drawn.

    The arrays come after the first `n_before` arguments of the function. A keyword argument that is
    the type float64 becomes `dtype`.
    """
    arrays, static = drawn, {}
    if isinstance(drawn, tuple) and len(drawn) == 2 and isinstance(drawn[1], dict):
        arrays, static = drawn
    if hasattr(arrays, "dtype"):
        arrays = [arrays]
    static = {name: dtype if value is np.float64 else value for name, value in static.items()}
    if isinstance(arrays[0], list):  # the function takes one sequence
        return lambda *a: function(*a[:n_before], list(a[n_before:]), **static), list(arrays[0])
    return functools.partial(function, **static), list(arrays)


def pair(op, drawn, dtype=np.float64, device: str | None = None) -> tuple[Callable, Callable, list]:
    """`op` as functions (value, vjp) of NumPy arrays alone, and these arrays."""
    if isinstance(op, tuple):
        value, args = bind(op[0], drawn, dtype)
        return value, bind(op[1], drawn, dtype, n_before=1)[0], args
    f, args = bind(op, drawn, dtype)
    return *of_tensors(f, device), args


def computed(op, drawn, dtype, device: str | None = None) -> Subject:
    """The value and the gradients of `op`, with float64 arguments converted to `dtype`.

    The arguments are first rounded to float32, so that they are the same numbers in both dtypes.
    """
    value, vjp, args = pair(op, drawn, dtype, device)
    for i, a in enumerate(args):
        if getattr(a, "dtype", None) == np.float64:
            args[i] = a.astype(np.float32).astype(dtype)
    y = np.asarray(value(*args))
    weight = np.random.default_rng(0).uniform(0.5, 1.5, y.shape)
    g = np.asarray(weight.astype(np.float32), dtype=y.dtype)
    subject = Subject(value, vjp, args, g, unit=float(np.finfo(dtype).eps))
    subject.keep()
    return subject


def differ_from(expected: Subject, found: Subject, tolerance: tuple[float, float]) -> str:
    """How value or gradients of `found` differ from those expected, or "" if they do not."""
    return differ(
        found.kept_value,
        expected.kept_value,
        tolerance,
        lambda _: found.noise(None),
        names=["the value"],
    ) or differ(found.kept, expected.kept, tolerance, found.noise)
