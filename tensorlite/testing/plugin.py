"""A plugin for pytest, which says after the tests how many gradients were checked.

pytest finds it where tensorlite is installed; `-p no:tensorlite` leaves it out. It prints nothing
where nothing was checked.
"""

from __future__ import annotations

from .summary import SUMMARY


def pytest_terminal_summary(terminalreporter) -> None:
    if str(SUMMARY):
        terminalreporter.write_line(f"tensorlite: {SUMMARY}")
