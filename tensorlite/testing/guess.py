"""A gradient beside the one that differences give: whether a guess fits, and where it is wrong."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from ..arraylike import is_float
from .probe import precision


class Guess(NamedTuple):
    """A kind of mistake, and words that go on from "the gradient is"."""

    kind: str
    words: str


class Factor(NamedTuple):
    """A number, its name, and words about where it comes from: ", where 8 is the size of ..."."""

    number: float
    name: str
    meaning: str


class Gradient:
    """The gradient `got` for one argument, the `expected` one, and the `slack` of each entry.

    All arrays are of float64 and of the argument's shape; `g` and `value` have the value's shape. A
    guess fits if no entry is further from it than its slack: one and a half times the error of the
    differences, and rounding in the dtypes of the arguments and of the value. The slack of an entry
    of which nothing is known is infinite, and its numbers are replaced by 0.
    """

    def __init__(self, number: int, got, expected, error, g, args, value):
        self.number = number
        self.dtype_eps = max(map(_eps, [args[number], value]))
        self.args = [_float64(x) for x in args]
        self.integers = [np.asarray(x) for x in args if np.asarray(x).dtype.kind in "iu"]
        self.x, self.g, self.value = self.args[number], _float64(g), _float64(value)
        self.missing = got is None
        expected = np.array(expected, np.float64)
        slack = self.slack_of(expected, np.asarray(error, np.float64))
        self.raw = np.zeros(expected.shape) if got is None else np.array(got, np.float64)
        self.shape_is_wrong = self.raw.shape != expected.shape
        if not self.shape_is_wrong:  # what is NaN is wrong, whatever the error
            slack = np.where(np.isfinite(self.raw), slack, 0.0)
        known = np.isfinite(slack) & np.isfinite(expected)
        self.expected = np.where(known, expected, 0.0)
        self.slack = np.where(known, slack, np.inf)
        self.got = self.expected if self.shape_is_wrong else np.where(known, self.raw, 0.0)
        self.known = known

    def slack_of(self, expected, error):
        """What entries with this error may differ by, with rounding."""
        largest = np.max(np.abs(expected), initial=0.0, where=np.isfinite(expected))
        rounding = 2 * self.dtype_eps
        return 1.5 * error + (1e-7 + rounding) * np.abs(expected) + rounding / 2 * largest

    @property
    def size(self) -> int:
        return self.got.size

    @property
    def wrong(self) -> np.ndarray:
        """Which entries differ from the expected ones; NaN does."""
        return ~(np.abs(self.got - self.expected) <= self.slack)

    @property
    def is_wrong(self) -> bool:
        return self.shape_is_wrong or bool(self.wrong.any())

    @property
    def evidence(self) -> float:
        """How much the wrong entries say, in bits: by how many halvings each exceeds its slack.

        An explanation from a list of 1000, or with an unknown number, fits by chance what has few.
        """
        apart = np.abs(self.got - self.expected) / np.maximum(self.slack, 1e-300)
        return float(np.sum(np.log2(np.clip(np.where(np.isnan(apart), 1, apart), 1, 256))))

    @property
    def broadcast_size(self) -> int:
        """How many entries of the value each entry of the argument is broadcast to; 1 if none."""
        try:
            full = np.broadcast_shapes(self.got.shape, self.value.shape)
        except ValueError:
            return 1
        fits = full == self.value.shape and self.size
        return self.value.size // self.size if fits else 1

    def agrees(self, guess, expected) -> bool:
        """Whether `guess`, in place of `got`, would be right."""
        return bool(np.all(~self.known | (np.abs(guess - expected) <= self.slack)))

    def fits(self, guess, slack=None, part=...) -> bool:
        """Whether `got` is what `guess` says, in all entries or in a part of them."""
        slack = self.slack if slack is None else slack
        near = np.isinf(slack) | (np.abs(self.got - guess) <= slack)
        return bool(np.all(near[part]))

    def factor(self, guess, slack, part) -> Factor | None:
        """The number c for which got is c * guess in `part`.

        A number with a name is preferred. One without needs three entries that agree on it.
        """
        got, guess, slack = self.got[part], guess[part], slack[part]
        use = np.isfinite(slack) & np.isfinite(got) & (np.abs(guess) > 3 * slack)
        if not use.any():
            return None
        w = 1 / np.maximum(slack[use], 1e-300) ** 2
        w = w / w.max()
        c = float(np.sum(w * got[use] * guess[use]) / np.sum(w * guess[use] ** 2))
        if not math.isfinite(c) or c == 0:
            return None

        def fits(k: float) -> bool:
            return bool(np.all(np.abs(got - k * guess) <= max(1.0, abs(k)) * slack))

        for k, name, meaning in _constants(self):
            if abs(c - k) <= 0.1 * abs(k) and fits(k):
                return Factor(k, name, meaning)
        return Factor(c, f"{c:.6g}", "") if use.sum() >= 3 and fits(c) else None

    def along(self, axis: int, index) -> tuple:
        """The index of the entries that have `index` along one axis."""
        return (slice(None),) * axis + (index,)

    # ---- where ----

    def is_edge(self, mask) -> bool:
        """Whether the entries of `mask` are those at the first or the last index of one axis.

        Entries that are expected to be 0, and are, may be there or not.
        """
        return self._slab(mask) in ("first", "last")

    def where(self, mask) -> str:
        """Which entries `mask` has, in words, from its place or from the numbers that are there.

        Empty if there is no simple description of exactly these.
        """
        matters = mask | (np.abs(self.expected) > self.slack)  # 0 is right whatever happens
        if mask.sum() == 1 and self.size > 1:
            return f"at index {tuple(map(int, np.argwhere(mask)[0]))} alone"
        if (condition := self._condition(mask, matters)) and condition[1] in (0.0, 1.0, -1.0):
            return condition[0]
        for axis in range(mask.ndim):
            others = tuple(i for i in range(mask.ndim) if i != axis)
            has = np.any(mask, axis=others)
            if 0 < has.sum() < has.size and not np.any(matters & ~mask & _spread(has, axis, mask)):
                if indices := _indices(has):
                    return f"at {indices} of axis {axis}"
        if mask.ndim >= 2:
            rows, columns = (np.arange(n) for n in mask.shape[-2:])
            apart = columns - rows[:, None]
            places = {"on": apart == 0, "off": apart != 0, "above": apart > 0, "below": apart < 0}
            places |= {"on and above": apart >= 0, "on and below": apart <= 0}
            for words, place in places.items():
                if np.array_equal(mask & matters, np.broadcast_to(place, mask.shape) & matters):
                    return f"{words} the diagonal"
        return condition[0] if condition else ""

    def _slab(self, mask) -> str:
        matters = mask | (np.abs(self.expected) > self.slack)
        for axis in range(mask.ndim):
            if mask.shape[axis] < 3:
                continue
            for name, index in (("first", 0), ("last", -1)):
                edge = np.zeros(mask.shape, bool)
                edge[self.along(axis, index)] = True
                if np.array_equal(mask & matters, edge & matters):
                    return name
        return ""

    def _condition(self, mask, matters) -> tuple[str, float] | None:
        """A condition on an argument, the value or g that holds for the entries of `mask` alone.

        In words, and the number that is compared with.
        """
        # The error must jump where the condition begins to hold, not grow until it is seen.
        off = np.abs(self.got - self.expected)[mask] / np.abs(self.expected[mask])
        if not np.min(off, initial=np.inf) > 0.2 * np.median(off):
            return None
        named = [(f"argument {i}", x) for i, x in enumerate(self.args)]
        named += [("the value", self.value), ("g", self.g)]
        for name, x in named:
            if x is None or x.shape != mask.shape:
                continue
            for words, y in ((name, x), (f"the size of {name}", np.abs(x))):
                inside, outside = y[mask], y[matters & ~mask]
                if len(inside) < 2 or len(outside) < 2:
                    continue
                by_chance = math.comb(len(inside) + len(outside), len(inside))
                for low, high, word in ((outside, inside, "above"), (inside, outside, "below")):
                    if low.max() < high.min():
                        t = _round_number(low.max(), high.min())
                        # One of this many ways to choose the entries has such a condition.
                        if by_chance > 500 or (t == 0 and x is self.x):
                            return f"where {words} is {word} {t:.3g}", t
        return None


def _float64(x) -> np.ndarray | None:
    x = np.asarray(x)
    try:
        return x.astype(np.float64)
    except (TypeError, ValueError):
        return None


def _eps(x) -> float:
    """The distance from 1 to the next number of the array's dtype, bfloat16 included."""
    dtype = np.asarray(x).dtype
    return precision(dtype if is_float(dtype) else np.dtype(np.float64))


def _spread(has, axis: int, like) -> np.ndarray:
    return has.reshape([-1 if i == axis else 1 for i in range(like.ndim)])


def _indices(has) -> str:
    """Which indices are True, in words; empty if they have no order."""
    at = np.flatnonzero(has)
    if len(at) == 1:
        last = ", the last index" if at[0] == has.size - 1 else ""
        return f"index {at[0]}{last}"
    if np.ptp(at) == len(at) - 1:
        return f"indices {at[0]} to {at[-1]}"
    steps = np.unique(np.diff(at))
    if len(steps) == 1 and len(at) > 2:
        return f"indices {at[0]}, {at[1]}, ... {at[-1]}"
    return ""


def _round_number(low: float, high: float) -> float:
    """0 or 1 or -1 if between the two, otherwise their mean."""
    return next((t for t in (0.0, 1.0, -1.0) if low <= t <= high), (low + high) / 2)


def _constants(a: Gradient):
    """Numbers that gradients are wrongly multiplied by, and what they are, the simplest first."""
    simple = ((-1.0, "-1"), (2.0, "2"), (0.5, "1/2"), (-2.0, "-2"), (-0.5, "-1/2"))
    yield from ((k, name, "") for k, name in simple)
    sizes = {}
    for name, x in (("argument", a.x), ("value", a.value)):
        for axis, n in enumerate(x.shape):
            sizes.setdefault(n, f"the size of axis {axis} of the {name}")
        sizes.setdefault(x.size, f"the number of entries of the {name}")
    sizes.setdefault(a.broadcast_size, "the number of entries that one is broadcast to")
    for n, words in sizes.items():
        if n < 2:
            continue
        says = f", where {n} is {words}"
        yield from ((float(n), f"{n}", says), (1 / n, f"1/{n}", says))
        yield from ((n**0.5, f"sqrt({n})", says), (n**-0.5, f"1/sqrt({n})", says))
        yield from ((n / (n - 1), f"{n}/{n - 1}", says), ((n - 1) / n, f"{n - 1}/{n}", says))
    yield from ((3.0, "3", ""), (4.0, "4", ""), (1 / 3, "1/3", ""), (0.25, "1/4", ""))
    if a.dtype_eps > 1e-4:  # in low precision, almost every number is near one of those that follow
        return
    pi = math.pi
    for k, name in (
        (pi, "pi"), (1 / pi, "1/pi"), (2 * pi, "2 pi"), (0.5 / pi, "1/(2 pi)"), (pi / 2, "pi/2"),
        (2 / pi, "2/pi"), (180 / pi, "180/pi"), (pi / 180, "pi/180"), (2**0.5, "sqrt(2)"),
        (0.5**0.5, "1/sqrt(2)"), ((2 / pi) ** 0.5, "sqrt(2/pi)"), ((pi / 2) ** 0.5, "sqrt(pi/2)"),
        (pi**0.5, "sqrt(pi)"), (pi**-0.5, "1/sqrt(pi)"), ((2 * pi) ** 0.5, "sqrt(2 pi)"),
        ((2 * pi) ** -0.5, "1/sqrt(2 pi)"), (math.log(2), "log(2)"), (1 / math.log(2), "1/log(2)"),
        (math.log(10), "log(10)"), (1 / math.log(10), "1/log(10)"),
    ):  # fmt: skip
        yield k, name, ""
    numbers = [(f"args[{i}]", x) for i, x in enumerate(a.args)] + [("value", a.value), ("g", a.g)]
    for name, x in numbers:
        if x is not None and x.size == 1 and np.isfinite(x).all() and x.all():
            k = float(x.ravel()[0])
            yield from ((k, name, f", where {name} is {k:.6g}"),)
            yield from ((1 / k, f"1/{name}", f", where {name} is {k:.6g}"),)
