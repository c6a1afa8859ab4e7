"""What a check of a gradient finds: the verdict, the entries that decide it, and how sure that is.

`str(report)` is the page that is printed. Every number on it comes from the check: what the
gradient is, what differences of the values give, and the error of these differences.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from .summary import SUMMARY


@dataclass(frozen=True)
class Estimate:
    """What differences of the values say about a derivative.

    It is between `low` and `high`, to within `error`. At a kink the two are the slopes on both
    sides, elsewhere they are equal. An infinite error says that the differences show nothing.
    """

    low: float
    high: float
    error: float

    def __str__(self) -> str:
        if not math.isfinite(self.error):
            return f"{self.low:.10g} at every step"
        if self.low == self.high:
            return f"{self.low:.10g} +/- {self.error:.1g}"
        return f"from {self.low:.10g} to {self.high:.10g} +/- {self.error:.1g}"


@dataclass(frozen=True)
class Entry:
    """One entry of a gradient: of which argument, at which index, and what was expected there.

    An entry without an argument is the derivative along a random direction.
    """

    argument: int | None
    index: tuple
    got: float
    expected: Estimate

    @property
    def place(self) -> str:
        if self.argument is None:
            return "along a random direction"
        return f"argument {self.argument} at {tuple(map(int, self.index))}"

    def __str__(self) -> str:
        return f"{self.place}: the gradient is {self.got:.10g}, differences give {self.expected}"


@dataclass(frozen=True)
class Mistake:
    """What a wrong gradient looks like: a kind in mistakes.py, and a sentence about it."""

    kind: str
    words: str


@dataclass
class Report:
    """What a check found.

    `verdict` is "right", "wrong" or "cannot tell". `entries` are those that are wrong, or that
    cannot be told, the worst first. `complaints` say what is wrong with the conduct of the function
    or its vjp, apart from wrong numbers. `mistake` is what a wrong gradient looks like, or None.
    `counts` has for each argument how many entries are wrong, and of how many. `precision` is the
    relative error up to which the gradient was found right: the largest distance from the
    differences that would have passed, in relation to the largest entry of the argument.
    """

    verdict: str
    entries: list[Entry] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    mistake: Mistake | None = None
    notes: list[str] = field(default_factory=list)
    counts: dict[int, tuple[int, int]] = field(default_factory=dict)
    precision: float = 0.0

    def __post_init__(self):
        SUMMARY.add(self.verdict, self.precision)

    @property
    def ok(self) -> bool:
        """Whether the gradient is right and nothing else is wrong."""
        return self.verdict == "right" and not self.complaints

    def __str__(self) -> str:
        lines = [self._headline()]
        if self.entries:
            worst = self.entries[0]
            which = "worst" if self.verdict == "wrong" else "least certain"
            if worst.argument is None:
                lines[0] += " The derivative along a random direction:"
            else:
                lines[0] += f" The {which} entry is {worst.place}:"
            lines += [f"    got       {worst.got:.10g}", f"    expected  {worst.expected}"]
            if worst.expected.low < worst.expected.high:
                lines.append("    The function has a kink there, with these slopes on both sides.")
        if self.verdict != "cannot tell":
            lines += [_count(i, *count) for i, count in self.counts.items()]
        if self.mistake:
            words = self.mistake.words
            lines.append(f"The likely mistake: {words}{'' if words.endswith('.') else '.'}")
        if self.complaints:
            lines.append("Apart from the numbers:")
            lines += [f"  - {complaint}" for complaint in self.complaints]
        return "\n".join(lines + self.notes)

    def _headline(self) -> str:
        if self.verdict == "wrong":
            return "The gradient is wrong."
        if self.verdict == "right" and self.precision:
            return f"The gradient is right, to a relative precision of {self.precision:.1g}."
        if self.verdict == "right":
            return "The gradient is right."
        return "Whether the gradient is right cannot be told at this precision."


def _count(argument: int, wrong: int, n: int) -> str:
    if not n:
        return f"Argument {argument} has no entries."
    if wrong in (0, n):
        all_of_them = "The only entry" if n == 1 else f"All {n} entries"
        verb = "is" if n == 1 else "are"
        return f"{all_of_them} of argument {argument} {verb} {'wrong' if wrong else 'right'}."
    verb = "is" if wrong == 1 else "are"
    return f"{wrong} of the {n} entries of argument {argument} {verb} wrong."


class WrongGradient(AssertionError):
    """A gradient is wrong, or its function behaves badly; `report` says how."""

    def __init__(self, report: Report, message: str | None = None):
        super().__init__(str(report) if message is None else message)
        self.report = report


def misconduct(words: str) -> WrongGradient:
    """The exception for a function that breaks a rule, whatever its numbers are."""
    return WrongGradient(Report("cannot tell", complaints=[words]), words)


class CannotTell(UserWarning):
    """The differences are too inaccurate to say whether a gradient is right."""
