"""How a function and its vjp behave, apart from the numbers: `complaints`.

A gradient can be right where it is checked and still be wrong in use: because the vjp writes into
an array that is not its own, keeps something between calls, draws random numbers, or is right for
contiguous arrays only. Each of these is looked for by calling the function and its vjp again in a
way that must change nothing, and is reported as what it is.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from .comparing import (
    ADDED,
    EXACTLY,
    REARRANGED,
    REPEATED,
    copies,
    differ,
    is_real,
    largest,
    minus,
    wide,
)
from .subject import Subject
from .ways import FACTORS, NAMES, arranged, subsets


@np.errstate(all="ignore")
def complaints(value: Callable, vjp: Callable, args: Sequence, g: np.ndarray) -> list[str]:
    """What `value(*args)` and `vjp(g, *args)` do that no function and no vjp should.

    Each complaint is a sentence or two; the list is empty for a function without fault. `value`
    returns an array; `vjp` returns one gradient for each argument (None where there is none), or an
    array alone if there is one argument. Looked for are: results of a wrong number or type, random
    numbers, results that depend on earlier calls, results that a later call overwrites, writing
    into arguments or into `g`, a vjp that is not linear in `g`, results that depend on how the
    arguments or `g` lie in memory and, if `vjp` has a parameter `needs` (a tuple of bools, one for
    each argument), on which gradients are asked for. Whether the numbers are right is not judged.

    >>> def vjp(g, x):
    ...     g *= 2 * x
    ...     return g
    >>> complaints(lambda x: x * x, vjp, [np.ones(2)], np.ones(2))
    ['The vjp writes into g: entry (0,) was 1 before the call and 2 after it. Copy it first.']
    """
    subject = Subject(value, vjp, args, g)
    subject.value()  # some functions keep what their vjp uses
    gradients = subject.vjp()
    wrong = list(malformed(gradients, subject.args))
    if wrong:
        return wrong
    found = list(_unsteady(subject, gradients))
    if not found:  # otherwise the results of other calls differ for this reason alone
        subject.keep()
        checks = _not_linear, _orders_of_arguments, _orders_of_g, _unneeded, _restored
        found = [words for check in checks for words in check(subject)]
    return [*subject.writes.values(), *found]


def wider(args: Sequence, value: np.ndarray, gradients: dict[int, np.ndarray]) -> list[str]:
    """Notes on a value and on gradients (argument -> array) of a wider dtype than the arguments.

    NumPy makes float64 of float32 when a constant is a float64 scalar. The numbers are right, but
    all that is computed from them takes twice the memory and time.
    """
    widest = max((x.dtype for x in args if is_real(x)), key=lambda dtype: dtype.itemsize)
    found = []
    if value.dtype.itemsize > widest.itemsize:
        found.append(f"The value is of dtype {value.dtype}, no argument is wider than {widest}.")
    for i, gradient in gradients.items():
        if gradient.dtype.itemsize > max(args[i].dtype.itemsize, value.dtype.itemsize):
            found.append(
                f"The gradient for argument {i} is of dtype {gradient.dtype}, the argument of "
                f"{args[i].dtype}."
            )
    return found


# =================================================================================================
# What is looked for
# =================================================================================================


def malformed(gradients: list, args: Sequence) -> Iterator[str]:
    """Results that are not one array of floating-point numbers for each argument that has some."""
    if len(gradients) != len(args):
        n, are = len(gradients), "is 1 argument" if len(args) == 1 else f"are {len(args)} arguments"
        yield f"The vjp returns {n} gradient{'s' * (n != 1)}, but there {are}."
        return
    for i, (gradient, x) in enumerate(zip(gradients, args)):
        if gradient is None or is_real(gradient) or not is_real(x):
            continue
        dtype = getattr(gradient, "dtype", None)
        kind = f"type {type(gradient).__name__}" if dtype is None else f"dtype {dtype}"
        yield f"The gradient of argument {i} is of {kind}, not an array of real numbers."


def _unsteady(subject: Subject, gradients: list) -> Iterator[str]:
    """Results that a call with the same arguments does not give again."""
    at_first, value = copies(gradients), subject.value()
    value_at_first = copies(value)
    words = differ(subject.value(), value_at_first, REPEATED, names=["the value"])
    if words:
        yield (
            f"Computed again with the same arguments, {words}: does the function draw random "
            "numbers, or keep something between its calls?"
        )
        return
    second, third = copies(subject.vjp()), copies(subject.vjp())
    words = differ(second, at_first, REPEATED)
    if words:
        grows = not differ(minus(third, second), minus(second, at_first), REARRANGED)
        yield f"Computed again with the same arguments, {words}: " + (
            "it grows by the same amount with each call, as if it were added to what the call "
            "before left behind."
            if grows
            else "does the vjp draw random numbers, or keep something between its calls?"
        )
        return
    other_g, *other_args = subject.nearby(0.1)
    subject.vjp(-other_g)
    words = differ(gradients, at_first, EXACTLY)
    if words:
        yield (
            f"After the vjp was called again with another g, {words}: it was returned in a buffer "
            "that the later call has overwritten. Return a new array."
        )
        return
    try:
        subject.value(other_args)
    except Exception:  # the other arguments may be outside the domain of the function
        return
    words = differ(value, value_at_first, EXACTLY, names=["the value"])
    if words:
        yield (
            f"After the function was called with other arguments, {words}: it was returned in a "
            "buffer that the later call has overwritten. Return a new array."
        )
    words = differ(subject.vjp(), at_first, REPEATED)
    if words:
        yield (
            f"After the function was called with other arguments, {words}: the vjp uses what the "
            "last call of the function left behind, and not the arguments that it is given."
        )


def _not_linear(subject: Subject) -> Iterator[str]:
    factor = -2 if subject.g.dtype == np.float16 else -64  # float16 ends at 65,504
    scaled = subject.vjp((subject.g * factor).astype(subject.g.dtype))
    scaled = [None if a is None else wide(a) / factor for a in scaled]
    words = differ(_finite(scaled, subject.kept), subject.kept, REARRANGED, subject.noise)
    if words:
        yield f"The vjp is not linear in g: of {factor} g, and divided by {factor}, {words}."
        return
    rng = np.random.default_rng(1)
    h = np.asarray(largest(subject.g) * rng.uniform(-1, 1, subject.g.shape))
    h = h.astype(subject.g.dtype)
    of_h = copies(subject.vjp(h.copy()))
    of_sum = _finite(minus(subject.vjp(subject.g + h), of_h), subject.kept)

    def allowed(i: int) -> float:
        return ADDED[0] * largest(of_h[i]) + subject.noise(i)

    words = differ(of_sum, subject.kept, ADDED, allowed)
    if words:
        yield f"The vjp is not linear in g: as vjp(g + h) - vjp(h), {words}."


def _finite(found: list, expected: list) -> list:
    """`found` with what is expected where one of both is infinite: there another g may overflow."""
    return [
        a if a is None or b is None else np.where(np.isfinite(a - wide(b)), a, wide(b))
        for a, b in zip(found, expected)
    ]


def _orders_of_arguments(subject: Subject) -> Iterator[str]:
    arrays = [i for i, a in enumerate(subject.args) if isinstance(a, np.ndarray)]

    def changed(which: list, order: str) -> str:
        orders = [order if i in which else "given" for i in range(len(subject.args))]

        def laid() -> list:
            return [
                arranged(a, o) if isinstance(a, np.ndarray) else a
                for a, o in zip(subject.args, orders)
            ]

        if all(a.strides == b.strides for a, b in zip(_arrays(laid()), _arrays(subject.args))):
            return ""  # nothing changes
        return _outcome(
            lambda: subject.value(laid()),
            subject.kept_value,
            lambda _: subject.noise(None),
            names=["the value"],
        ) or _outcome(lambda: subject.vjp(None, laid()), subject.kept, subject.noise)

    for order in FACTORS:
        words = changed(arrays, order)
        if words:
            alone = [i for i in arrays if changed([i], order)]
            where = f"argument {alone[0]} lies" if alone else "the arguments lie"
            yield f"When {where} in {NAMES[order]}, {words}."
            return


def _orders_of_g(subject: Subject) -> Iterator[str]:
    for order in FACTORS:
        g = arranged(subject.g, order)
        words = _outcome(lambda g=g: subject.vjp(g), subject.kept, subject.noise)
        if words:
            yield f"When g lies in {NAMES[order]}, {words}."
            return


def _unneeded(subject: Subject) -> Iterator[str]:
    """What changes where a vjp that has a parameter `needs` is asked for some gradients only."""
    try:
        takes_needs = "needs" in inspect.signature(subject.functions["vjp"]).parameters
    except (TypeError, ValueError):  # a function that is written in C does not say
        return
    useful = [i for i, a in enumerate(subject.kept) if a is not None]
    for which in subsets(useful) if takes_needs else ():
        needs = tuple(i in which for i in range(len(subject.args)))
        expected = [a if i in which else None for i, a in enumerate(subject.kept)]
        words = _outcome(lambda needs=needs: subject.vjp(needs=needs), expected, subject.noise)
        if words:
            yield f"When gradients are needed for {_listed(which)} alone, {words}."
            return


def _restored(subject: Subject) -> Iterator[str]:
    """Writing that leaves no trace, because it is undone or changes nothing for these arrays."""
    for what, call in {"value": subject.value, "vjp": subject.vjp}.items():
        if any(function == what for function, _ in subject.writes):
            continue
        args, g = copies(subject.args), subject.g.copy()
        for a in _arrays([g, *args]):
            a.flags.writeable = False
        try:
            call(args=args) if what == "value" else call(g, args)
        except ValueError as error:
            if "read-only" in str(error) and "array is" in str(error):
                yield (
                    f"The {what} writes into an array that it is given, although it restores it: "
                    f"it fails where the arrays are read-only ({error})."
                )


def _outcome(call: Callable, expected: list, noise: Callable, names: list | None = None) -> str:
    """How the results of a call differ from `expected`, or "" if they do not."""
    try:
        found = call()
    except Exception as error:
        return f"it raises {type(error).__name__}: {error}"
    return differ(found, expected, REARRANGED, noise, names)


def _arrays(values: Sequence) -> list[np.ndarray]:
    return [a for a in values if isinstance(a, np.ndarray)]


def _listed(arguments: Sequence[int]) -> str:
    words = ", ".join(map(str, arguments))
    return f"argument {words}" if len(arguments) == 1 else f"arguments {words}"
