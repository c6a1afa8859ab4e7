"""Rules for source code, which find what programs wrote: Chen et al., 2021 (arXiv 2107.03374), 3.1.

Codex left out files whose lines have more than 100 characters on average, or one of them more than
1,000: minified scripts, indexes for a search, data. It also left out those with few letters and
digits. The paper does not say how few: fewer than 25% is the limit of The Stack (Kocetkov et al.,
2022, arXiv 2211.15533).
"""

from __future__ import annotations


def average_line(text: str) -> bool:
    """More than 100 characters in a line, on average."""
    return len(text) / (text.count("\n") + 1) > 100


def longest_line(text: str) -> bool:
    """A line of more than 1,000 characters."""
    return max(map(len, text.split("\n"))) > 1000


def few_alphanumerics(text: str) -> bool:
    """Fewer than 25% of the characters are letters or digits."""
    return sum(map(str.isalnum, text)) / max(1, len(text)) < 0.25


RULES = {
    "codex: lines long on average": average_line,
    "codex: long line": longest_line,
    "codex: few letters and digits": few_alphanumerics,
}
