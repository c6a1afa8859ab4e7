"""What the rules count in a text: its words, lines and paragraphs, each counted once.

The rules are those of published pipelines, and their verdicts equal those of datatrove, the program
that made FineWeb, if it is given our words and sentences: tests/test_data_rules.py compares them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, NamedTuple

import regex

# A word may hold apostrophes, points and commas (don't, 3.14, example.org); signs that follow one
# another are one word too. In `regex`, unlike `re`, marks belong to the letters of their words, as
# in Hindi; `re` says the same of ASCII alone, and faster.
WORD = regex.compile(r"\w[\w'’.,]*(?<=\w)|[^\w\s]++")
ASCII_WORD = re.compile(r"\w[\w'.,]*(?<=\w)|[^\w\s]++", re.ASCII)
# The lookbehind enters a run of signs at its start alone, so that no text is tried twice.
SENTENCE_END = re.compile(r"[.!?…。！？](?<![.!?…。！？]{2})[.!?…。！？]*+[\"'”’»)\]]*+(?=\s|$)")
PARAGRAPH_END = re.compile(r"\n{2,}")
LINE_END = re.compile(r"\n+")

# Where a sentence may end, in all scripts: Unicode's property Sentence_Terminal as datatrove has
# it, as ranges of code points.
TERMINAL_RANGES = """
    21 2e 3f 589 61d-61f 6d4 700-702 7f9 837 839 83d-83e 964-965 104a-104b 1362 1367-1368 166e
    1735-1736 17d4-17d6 17d9-17da 1803 1809 1944-1945 1aa8-1aab 1b5a-1b5b 1b5e-1b5f 1b7d-1b7e
    1c3b-1c3c 1c7e-1c7f 203c-203d 2047-2049 2e2e 2e3c 2e53-2e54 3002 a4ff a60e-a60f a6f3 a6f7
    a876-a877 a8ce-a8cf a92f a9c8-a9c9 aa5d-aa5f aaf0-aaf1 abeb fe52 fe56-fe57 ff01 ff0e ff1f ff61
    10a56-10a57 10f55-10f59 10f86-10f89 11047-11048 110be-110c1 11141-11143 111c5-111c6 111cd
    111de-111df 11238-11239 1123b-1123c 112a9 1144b-1144c 115c2-115c3 115c9-115d7 11641-11642
    1173c-1173e 11944 11946 11a42-11a43 11a9b-11a9c 11c41-11c42 11ef7-11ef8 11f43-11f44 16a6e-16a6f
    16af5 16b37-16b38 16b44 16e98 1bc9f 1da88
"""


def characters(ranges: str) -> frozenset[str]:
    """The characters of ranges of code points, which are written in hexadecimal."""
    pairs = [part.partition("-") for part in ranges.split()]
    return frozenset(
        chr(code) for a, _, b in pairs for code in range(int(a, 16), int(b or a, 16) + 1)
    )


TERMINAL = characters(TERMINAL_RANGES)
# The punctuation of CCNet (Wenzek et al., 2020), which datatrove counts as symbols, with the
# control characters (0-8, b-1f, 7f-9f) and the ends of sentences.
SYMBOLS = (
    frozenset(
        "!/—”:％１〈&(、━\\【#%「」，】；+^]~“《„';’{|∶´[=-`*．（–？！：$～«〉,><》)?）。…@_.\"}►»"
    )
    | characters("0-8 b-1f 7f-9f")
    | TERMINAL
)


class WordCounts(NamedTuple):
    """Of a text's words: all, those that are no mere symbols, their characters, and those with a
    letter."""

    words: int
    solid: int
    characters: int
    alphabetic: int


class Measures:
    """A text, and what several rules count in it: computed when a rule asks first, and kept."""

    def __init__(self, text: str):
        self.text = text

    @cached_property
    def words(self) -> list[str]:
        return words_of(self.text)

    @cached_property
    def distinct(self) -> Counter[str]:
        """How often each word occurs, in the order of their first occurrence."""
        return Counter(self.words)

    @cached_property
    def counts(self) -> WordCounts:
        solid = characters = alphabetic = 0
        for word, times in self.distinct.items():
            letters = word.isalpha()  # most words have letters only: the rest is not asked then
            if letters or not SYMBOLS.issuperset(word):
                solid += times
                characters += times * len(word)
            if letters or any(map(str.isalpha, word)):
                alphabetic += times
        return WordCounts(len(self.words), solid, characters, alphabetic)

    @cached_property
    def lines(self) -> list[str]:
        """The lines, by every sign that Unicode knows as the end of one."""
        return self.text.splitlines()

    @cached_property
    def full_lines(self) -> list[str]:
        """The lines, by line feeds alone, that hold more than white space."""
        return [line for line in self.text.split("\n") if line and not line.isspace()]


def words_of(text: str) -> list[str]:
    """The words of a text, signs among them.

    >>> words_of("Isn't it (about) 3.14?")
    ["Isn't", 'it', '(', 'about', ')', '3.14', '?']
    """
    if text.isascii():
        return ASCII_WORD.findall(text)
    lines = text.split("\n")
    return [w for line in lines for w in (ASCII_WORD if line.isascii() else WORD).findall(line)]


def sentences(text: str) -> int:
    """How many sentences a line has, at least one: ends of sentences with white space behind them.

    What follows the last end is a sentence too.

    >>> sentences("Is it 3.14? It is. More")
    3
    """
    ends = [match.end() for match in SENTENCE_END.finditer(text)]
    tail = text[ends[-1] :] if ends else text
    return max(1, len(ends) + bool(tail.strip()))


def duplicates(parts: list[str]) -> tuple[int, int]:
    """How many parts are equal to an earlier one, and how many characters these have.

    >>> duplicates(["one", "two", "one"])
    (1, 3)
    """
    distinct = set(parts)
    repeated = len(parts) - len(distinct)
    return repeated, sum(map(len, parts)) - sum(map(len, distinct)) if repeated else 0


def first_broken(rules: Mapping[str, Callable[[Any], bool]], measured: Any) -> str:
    """The name of the first rule that a text, or a line, breaks; "" if it breaks none."""
    for name, broken in rules.items():
        if broken(measured):
            return name
    return ""
