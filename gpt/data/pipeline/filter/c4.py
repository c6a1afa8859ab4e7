"""C4's rules: Raffel et al., 2020 (arXiv 1910.10683), section 2.2, and its published code.

Lines that break a rule are cut, pages that break one are left out. The order is that of datatrove;
two of the rules (very long words, policies) are in the published code only. The list of bad words
is not ours to choose: see blocklist.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from .measures import first_broken, sentences

CITATION = re.compile(r"\[\d*]|\[edit]|\[citation needed]")
ENDS = (".", "?", "!", '"', "'")
POLICIES = (
    *("terms of use", "privacy policy", "cookie policy"),
    *("uses cookies", "use of cookies", "use cookies"),
)
MIN_SENTENCES = 5


class Line(NamedTuple):
    """A line without the white space around it and without citations; its words; in small
    letters."""

    text: str
    words: list[str]
    lower: str


def long_word(words: list[str]) -> bool:
    """A word of more than 1,000 characters, before citations are taken out."""
    return max(map(len, words), default=0) > 1000


def no_end(line: Line) -> bool:
    """No sign that ends a sentence is at the line's end, or an ellipsis is."""
    return not line.text.endswith(ENDS) or line.text.endswith("...")


def few_words(line: Line) -> bool:
    """Fewer than 3 words."""
    return len(line.words) < 3


def lorem_ipsum(line: Line) -> bool:
    """Text that holds a place: "lorem ipsum"."""
    return "lorem ipsum" in line.lower


def javascript(line: Line) -> bool:
    """A line that asks for JavaScript, or any that names it."""
    return "javascript" in line.lower


def curly_bracket(line: Line) -> bool:
    """A curly bracket: the page is a program, or broken."""
    return "{" in line.text


def policy(line: Line) -> bool:
    """Words of the notices on cookies and privacy."""
    return any(map(line.lower.__contains__, POLICIES))


LINE_RULES: dict[str, Callable[[Line], bool]] = {  # in the order of datatrove
    "c4: line without an end": no_end,
    "c4: line of few words": few_words,
    "c4: lorem ipsum": lorem_ipsum,
    "c4: line on JavaScript": javascript,
    "c4: curly bracket": curly_bracket,
    "c4: line on policies": policy,
}
PAGE_RULES = {"c4: lorem ipsum", "c4: curly bracket"}  # the page is left out


class Verdict(NamedTuple):
    """The rule that leaves a page out ("" for none), its text after the cuts, the cut lines."""

    rule: str
    text: str
    cut: dict[str, list[str]]  # rule -> lines


def judge(text: str, terminal: bool = True) -> Verdict:
    """Cut lines and judge the page. Without `terminal`, lines need no sign at their end.

    FineWeb uses C4's rules without that one, which takes a third of all text (section 3.4 of
    arXiv 2406.17557).
    """
    rules = {name: rule for name, rule in LINE_RULES.items() if terminal or rule is not no_end}
    kept, found, cut = [], 0, {}
    for raw in text.splitlines():
        stripped = raw.strip()
        words = stripped.split()
        if len(stripped) > 1000 and long_word(words):
            cut.setdefault("c4: line with a very long word", []).append(raw)
            continue
        if "[" in stripped:
            stripped = CITATION.sub("", stripped)
        line = Line(stripped, words, stripped.lower())
        rule = first_broken(rules, line)
        if rule in PAGE_RULES:
            return Verdict(rule, text, {})
        if rule:
            cut.setdefault(rule, []).append(raw)
            continue
        found += sentences(stripped)
        kept.append(stripped)
    if found < MIN_SENTENCES:
        return Verdict("c4: few sentences", text, {})
    return Verdict("", "\n".join(kept).strip(), cut)
