"""What a check of a gradient finds: the verdict, the entries that decide it, and how sure that is.

`str(report)` is the page that is printed. Every number on it comes from the check: what the
gradient is, what differences of the values give, and the error of these differences.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field


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
        return f"from {self.low:.10g} to {self.high:.10g} +/- {self.error:.1g} (a kink)"


@dataclass(frozen=True)
class Entry:
    """One entry of a gradient: of which argument, at which index, and what was expected there."""

    argument: int
    index: tuple
    got: float
    expected: Estimate

    def __str__(self) -> str:
        return (
            f"argument {self.argument} at {tuple(map(int, self.index))}: the gradient is "
            f"{self.got:.10g}, differences give {self.expected}"
        )


@dataclass(frozen=True)
class Mistake:
    """What a wrong gradient looks like: a kind in mistakes.py, and a sentence."""

    kind: str
    words: str


@dataclass
class Report:
    """What a check found.

    `verdict` is "right", "wrong" or "cannot tell". `entries` are those that are wrong, or that
    cannot be told, the worst first. `complaints` say what is wrong with the conduct of the function
    or its vjp, apart from wrong numbers. `counts` has for each argument how many entries are wrong,
    and of how many. `precision` is the relative error up to which the gradient was found right,
    measured by the largest entry of each argument.
    """

    verdict: str
    entries: list[Entry] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    mistake: Mistake | None = None
    notes: list[str] = field(default_factory=list)
    counts: dict[int, tuple[int, int]] = field(default_factory=dict)
    precision: float = 0.0

    def __post_init__(self):
        SUMMARY.verdicts[self.verdict] += 1
        if self.verdict == "right":
            SUMMARY.precision = max(SUMMARY.precision, self.precision)

    @property
    def ok(self) -> bool:
        """Whether the gradient is right and nothing else is wrong."""
        return self.verdict == "right" and not self.complaints

    def __str__(self) -> str:
        lines = [f"the gradient is {self.verdict}"]
        if self.verdict == "cannot tell":
            lines = ["whether the gradient is right cannot be told at this precision"]
        lines += map(str, self.entries[:1])
        for i, (wrong, n) in self.counts.items():
            if wrong:
                lines.append(f"argument {i}: {wrong} of {n} entries are wrong")
        if self.mistake:
            lines.append(f"it looks like this: {self.mistake.words}")
        return "\n".join(lines + self.complaints + self.notes)


@dataclass
class Summary:
    """How often each verdict was given, and the worst precision of a gradient found right."""

    verdicts: Counter = field(default_factory=Counter)
    precision: float = 0.0


SUMMARY = Summary()  # of all reports made by this process; plugin.py prints it


class WrongGradient(AssertionError):
    """A gradient is wrong, or its function behaves badly; `report` says how."""

    def __init__(self, report: Report, message: str | None = None):
        super().__init__(str(report) if message is None else message)
        self.report = report


class CannotTell(UserWarning):
    """The differences are too inaccurate to say whether a gradient is right."""
