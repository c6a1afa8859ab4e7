"""What all checks of this process found together; the pytest plugin prints it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Summary:
    """How often each verdict was given, and the worst precision of a gradient found right."""

    verdicts: Counter = field(default_factory=Counter)
    precision: float = 0.0

    def add(self, verdict: str, precision: float) -> None:
        self.verdicts[verdict] += 1
        if verdict == "right":
            self.precision = max(self.precision, precision)

    def __str__(self) -> str:
        """One line, "" if nothing was checked."""
        n = self.verdicts.total()
        if not n:
            return ""
        right, wrong, unknown = (self.verdicts[v] for v in ("right", "wrong", "cannot tell"))
        precision = f" (to a relative precision of {self.precision:.1g} or better)" if right else ""
        return (
            f"{n:,} {'gradients were' if n > 1 else 'gradient was'} checked: {right:,} "
            f"right{precision}, {wrong:,} wrong, {unknown:,} cannot be told"
        )


SUMMARY = Summary()
