"""What kind of mistake a wrong gradient looks like, fitted to its numbers.

`likely_mistake` compares a whole gradient with the one that differences give. It tries explanations
from the simplest to the least simple, and claims one only if every entry then agrees, to within the
error of the differences. This file has the explanations that use the gradient alone;
explanations.py has those that need the arguments, the value and `g`.

Each explanation is a function of a `Gradient`, which returns the kind of mistake and words that go
on from "the gradient is", or None.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from .explanations import EXPLANATIONS
from .guess import Gradient, Guess
from .report import Mistake

# The kinds of mistakes, the simplest first.
KINDS = (
    "not finite",
    "shape",
    "arguments swapped",
    "detached path",
    "sign",
    "factor",
    "transpose",
    "sum over a broadcast axis left out",
    "sum over repeated indices left out",
    "index off by one",
    "term left out",
    "wrong in a part",
)


def likely_mistake(
    got: Sequence,
    expected: Sequence,
    error: Sequence,
    *,
    g,
    args: Sequence,
    value,
) -> Mistake | None:
    """What kind of mistake turns the gradients `expected` into `got`; None if nothing fits.

    All three have one array for each argument: `got` of any shape, or None where the vjp gives
    none; `expected` and its `error` of the argument's shape, or None where there is no gradient. An
    entry whose error is infinite or NaN is left out. `g` is the array of the value's shape that the
    vjp was given. The error must include everything by which a right gradient may differ, except
    for rounding in the dtypes of `args` and `value`, which is added here.

    >>> x = np.array([1.0, 2.0, 3.0])
    >>> error = [np.full(3, 1e-9)]
    >>> print(likely_mistake([x], [2 * x], error, g=np.ones(3), args=[x], value=x * x).words)
    the gradient is 1/2 times what it should be
    """
    gradients = [
        Gradient(i, got[i], expected[i], error[i], g, args, value)
        for i in range(len(args))
        if expected[i] is not None
    ]
    wrong = [gradient for gradient in gradients if gradient.is_wrong]
    if not wrong:
        return None
    with np.errstate(all="ignore"):
        if guess := _swapped(wrong):
            return Mistake(guess.kind, f"the gradients {guess.words}")
        guesses = {gradient.number: _explain(gradient) for gradient in wrong}
    for kind in KINDS:  # one mistake is reported: the simplest, with all arguments that it explains
        for guess in guesses.values():
            if guess is not None and guess.kind == kind:
                same = [i for i, other in guesses.items() if other == guess]
                return Mistake(kind, f"{_subject(same, len(args))} {guess.words}")
    return None


def _subject(numbers: list[int], n_args: int) -> str:
    if n_args == 1:
        return "the gradient"
    if len(numbers) == 1:
        return f"the gradient for argument {numbers[0]}"
    return f"each of the gradients for arguments {_listed(numbers)}"


def _listed(numbers) -> str:
    *most, last = map(str, numbers)
    return f"{', '.join(most)} and {last}" if most else last


def _explain(a: Gradient) -> Guess | None:
    if a.shape_is_wrong:
        return _shape(a)
    evidence = a.evidence
    rules = (rule for rule, needed in RULES if evidence >= needed)
    return next((guess for rule in rules if (guess := rule(a))), None)


# =================================================================================================
# Shape and place
# =================================================================================================


def _shape(a: Gradient) -> Guess:
    """A gradient of another shape: not summed over broadcast axes, transposed, or just that."""
    got, shape = a.raw, a.expected.shape
    head = f"has the shape {got.shape} where {shape} is expected"
    if got.size == a.expected.size and a.agrees(got.reshape(shape), a.expected):
        return Guess("shape", f"{head}: its numbers are right in their order")
    for n in range(1, got.ndim + 1):
        for axes in itertools.combinations(range(got.ndim), n):
            total = got.sum(axes)
            if total.size == a.expected.size and a.agrees(total.reshape(shape), a.expected):
                axes = ", ".join(map(str, axes))
                words = f"{head}: it is right once it is summed over axis {axes}"
                return Guess("sum over a broadcast axis left out", words)
    if got.size == a.expected.size:
        for axes in itertools.permutations(range(got.ndim)):
            turned = got.transpose(axes)
            if turned.shape == shape and a.agrees(turned, a.expected):
                return Guess("transpose", f"{head}: it is right with its axes in the order {axes}")
    return Guess("shape", head)


def _swapped(wrong: list[Gradient]) -> Guess | None:
    """The gradients of several arguments given in another order."""
    if not 2 <= len(wrong) <= 4:
        return None
    for order in itertools.permutations(wrong):
        if all(
            a is not b and a.raw.shape == b.expected.shape and b.agrees(a.raw, b.expected)
            for a, b in zip(wrong, order)
        ):
            numbers, others = (_listed([a.number for a in some]) for some in (wrong, order))
            return Guess("arguments swapped", f"for arguments {numbers} are those for {others}")
    return None


def _not_finite(a: Gradient) -> Guess | None:
    bad = ~np.isfinite(a.got)
    if not bad.any():
        return None
    where = a.where(bad) or f"in {bad.sum()} of {bad.size} entries"
    return Guess("not finite", f"is NaN or infinite {where}, where differences give finite numbers")


def _transposed(a: Gradient) -> Guess | None:
    """The axes in another order, or the numbers of the right array read in another order."""
    e, slack, shape = a.expected, a.slack, a.got.shape
    if a.value.size == e.size and a.value.shape != shape:
        again, again_slack = (
            x.reshape(a.value.shape).reshape(shape, order="F") for x in (e, slack)
        )
        if a.fits(again, again_slack + slack):
            words = f"reshaped from {a.value.shape} in Fortran order"
            return Guess("transpose", f"has the right numbers in a wrong order: {words}")
    for axes in itertools.permutations(range(e.ndim)):
        turned, turned_slack = e.transpose(axes), slack.transpose(axes)
        if a.fits(turned.reshape(shape), turned_slack.reshape(shape) + slack):
            if turned.shape == shape:
                last_two = axes == (*range(e.ndim - 2), e.ndim - 1, e.ndim - 2)
                order = "its last two axes exchanged" if last_two else f"its axes in order {axes}"
                return Guess("transpose", f"is the right one with {order}")
            order = f"reshaped with its axes in the order {axes}"
            return Guess("transpose", f"has the right numbers in a wrong order: {order}")
        # The other way: turned first into another shape, then read as if it were of this one.
        inverse = np.argsort(axes)
        shuffled = tuple(np.array(shape)[list(inverse)])
        again = e.reshape(shuffled).transpose(axes)
        again_slack = slack.reshape(shuffled).transpose(axes)
        if a.fits(again, again_slack + slack):
            words = f"reshaped to {shuffled} and then turned to the axes {axes}"
            return Guess("transpose", f"has the right numbers in a wrong order: {words}")
    return None


def _moved(a: Gradient) -> Guess | None:
    """Shifted by one along an axis, with or without the entry that goes around; or reversed."""
    for axis in range(a.got.ndim):
        n = a.got.shape[axis]
        if n < 3 or not np.ptp(a.expected, axis=axis).any():
            continue
        for step, way in ((1, "later"), (-1, "earlier")):
            moved, slack = (np.roll(x, step, axis) for x in (a.expected, a.slack))
            inner = a.along(axis, slice(1, None) if step == 1 else slice(0, -1))
            edge = a.along(axis, 0 if step == 1 else -1)
            if not a.fits(moved, slack + a.slack, inner):
                continue
            if a.fits(moved, slack + a.slack):
                end = "and the entry at the end goes around"
            elif not a.got[edge].any():
                end = "and 0 comes in at the end"
            elif n > 3:
                end = f"except at index {0 if step == 1 else n - 1}"
            else:
                continue
            words = f"stands one index too far {way} along axis {axis}, {end}"
            return Guess("index off by one", words)
        if a.fits(np.flip(a.expected, axis), np.flip(a.slack, axis) + a.slack):
            return Guess("index off by one", f"is in reverse order along axis {axis}")
        if _one_a_line(a, axis):
            words = f"has one number in each line along axis {axis} at an index one too far"
            return Guess("index off by one", words)
    return None


def _one_a_line(a: Gradient, axis: int) -> bool:
    """Whether got - expected is, in each line, a number taken from one index and put to the next.

    The running sum of the difference then has one entry in each line that is not 0, or all but one
    where the number went around from the end to the start.
    """
    n = a.got.shape[axis]
    running, slack = np.cumsum(a.got - a.expected, axis), np.cumsum(a.slack, axis)
    seen = np.abs(running) > slack
    many = np.count_nonzero(seen, axis)
    most, least = (np.where(seen, running, x) for x in (-np.inf, np.inf))
    even = np.max(most, axis) - np.min(least, axis) <= slack.take(-1, axis)
    around = (many == n - 1) & ~seen.take(-1, axis) & even
    straight = (many <= 1) & ~seen.take(-1, axis)
    clear = np.all(np.abs(running)[seen] > 5 * slack[seen])
    return bool(clear and np.all(straight | around))


# =================================================================================================
# Factors, signs and zeros: of the whole gradient, or of a part
# =================================================================================================


def _zero(a: Gradient) -> Guess | None:
    if a.missing:
        return Guess("detached path", "is None, where differences are not 0")
    if not a.got.any():
        return Guess("detached path", "is 0 everywhere, where differences are not")
    return None


def _factor(a: Gradient) -> Guess | None:
    """One factor for all entries. A number without a name needs three entries that agree."""
    found = a.factor(a.expected, a.slack, np.ones(a.got.shape, bool))
    if found is None:
        return None
    c, name, meaning = found
    if c == -1:
        return Guess("sign", "has the wrong sign")
    if (n := a.broadcast_size) > 1 and np.isclose(c * n, 1, rtol=1e-3):
        words = f"is 1/{n} of what it should be: a mean over broadcast axes, where the sum belongs"
        return Guess("sum over a broadcast axis left out", words)
    return Guess("factor", f"is {name} times what it should be{meaning}")


def _part(a: Gradient) -> Guess | None:
    """Zeros, signs and one factor in a part of the gradient; the rest is right."""
    wrong = a.wrong
    if wrong.all():
        return None
    where = a.where(wrong)
    place = where or f"in {wrong.sum()} of {wrong.size} entries"
    if a.is_edge(wrong):
        what = "is 0" if not a.got[wrong].any() else "is wrong"
        return Guess("index off by one", f"{what} {where} and right elsewhere")
    if wrong.sum() > 1 and not a.got[wrong].any():
        words = f"is 0 {place}, where differences are not, and right elsewhere"
        return Guess("detached path", words)
    found = a.factor(a.expected, a.slack, wrong)
    if found is not None and wrong.sum() > 1:
        if found.number == -1:
            return Guess("sign", f"has the wrong sign {place} and is right elsewhere")
        words = f"is {found.name} times what it should be {place} and right elsewhere"
        return Guess("factor", words + found.meaning)
    return None


def _place(a: Gradient) -> Guess | None:
    """Nothing is known but where the gradient is wrong."""
    if a.wrong.all() or not (where := a.where(a.wrong)):
        return None
    what = "is wrong" if a.got[a.wrong].any() else "is 0"
    return Guess("wrong in a part", f"{what} {where} and right elsewhere")


# Each with the evidence that it needs, in bits: the more an explanation could fit, the more of it.
RULES = (
    (_not_finite, 0),
    (_zero, 0),
    (_factor, 3),
    (_part, 6),
    (_transposed, 6),
    (_moved, 8),
    *((rule, 16) for rule in EXPLANATIONS),
    (_place, 3),
)
