"""A plugin for pytest, which says after the tests how many gradients were checked.

pytest finds it where tensorlite is installed; `-p no:tensorlite` leaves it out. It prints nothing
where nothing was checked.
"""

from __future__ import annotations

from .report import SUMMARY


def pytest_terminal_summary(terminalreporter) -> None:
    words = summary()
    if words:
        terminalreporter.write_line(words)


def summary() -> str:
    """One line on all gradients that were checked by this process, "" if there were none."""
    n = SUMMARY.verdicts.total()
    if not n:
        return ""
    right, wrong, unknown = (SUMMARY.verdicts[v] for v in ("right", "wrong", "cannot tell"))
    precision = f" (to a relative error of {SUMMARY.precision:.1g} at worst)" if right else ""
    return (
        f"tensorlite: {n:,} {'gradients were' if n > 1 else 'gradient was'} checked, {right:,} "
        f"right{precision}, {wrong:,} wrong, {unknown:,} cannot be told"
    )
