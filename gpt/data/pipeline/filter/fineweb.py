"""FineWeb's own rules: Penedo et al., 2024 (arXiv 2406.17557), section 3.5.

They were found by comparing the statistics of good and of bad crawls. The last one is in datatrove,
with these thresholds.
"""

from __future__ import annotations

from .measures import TERMINAL, Measures, duplicates


def blank(m: Measures) -> bool:
    """No line with more than white space."""
    return not m.full_lines


def few_ends(m: Measures) -> bool:
    """Fewer than 12% of the lines end with a sign that ends a sentence."""
    ends = sum(line[-1] in TERMINAL for line in m.full_lines)
    return ends / len(m.full_lines) < 0.12


def short_lines(m: Measures) -> bool:
    """More than 67% of the lines have at most 30 characters."""
    return sum(len(line) <= 30 for line in m.full_lines) / len(m.full_lines) > 0.67


def duplicate_characters(m: Measures) -> bool:
    """More than 1% of the characters are in lines that occurred before."""
    return duplicates(m.full_lines)[1] / (len(m.text) - m.text.count("\n")) > 0.01


def list_like(m: Measures) -> bool:
    """More than three line feeds to ten words."""
    return m.text.count("\n") / len(m.words) > 0.3


RULES = {
    "fineweb: blank": blank,
    "fineweb: lines without an end": few_ends,
    "fineweb: short lines": short_lines,
    "fineweb: repeated lines": duplicate_characters,
}
WORD_RULES = {"fineweb: more lines than words allow": list_like}
