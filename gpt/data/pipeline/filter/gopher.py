"""Gopher's rules of quality and repetition: Rae et al., 2021 (arXiv 2112.11446), appendix A.1.1.

Each rule is a function that says whether a text breaks it. Where the paper leaves a detail open,
the rule is datatrove's.
"""

from __future__ import annotations

from .measures import LINE_END, PARAGRAPH_END, Measures, duplicates, first_broken
from .ngrams import duplicate_characters, suspects, top_characters

STOP_WORDS = frozenset(["the", "be", "to", "of", "and", "that", "have", "with"])
ELLIPSES = ("...", "…")
BULLETS = ("•", "-")

# ---- quality: "between 50 and 100,000 words", and what follows in the paper ----------------------


def too_few_words(m: Measures) -> bool:
    """Fewer than 50 words that are no mere symbols."""
    return m.counts.solid < 50


def too_many_words(m: Measures) -> bool:
    """More than 100,000 words that are no mere symbols."""
    return m.counts.solid > 100_000


def short_words(m: Measures) -> bool:
    """Words of fewer than 3 characters on average."""
    return m.counts.solid > 0 and m.counts.characters / m.counts.solid < 3


def long_words(m: Measures) -> bool:
    """Words of more than 10 characters on average."""
    return m.counts.solid > 0 and m.counts.characters / m.counts.solid > 10


def hashes(m: Measures) -> bool:
    """More than one hash sign to ten words."""
    return m.counts.words > 0 and m.text.count("#") / m.counts.words > 0.1


def ellipses(m: Measures) -> bool:
    """More than one ellipsis to ten words."""
    return m.counts.words > 0 and sum(map(m.text.count, ELLIPSES)) / m.counts.words > 0.1


def bullet_lines(m: Measures) -> bool:
    """More than 90% of the lines start with a bullet."""
    bullets = sum(line.lstrip().startswith(BULLETS) for line in m.lines)
    return bullets > 0 and bullets / len(m.lines) > 0.9


def ellipsis_lines(m: Measures) -> bool:
    """More than 30% of the lines end with an ellipsis."""
    ends = sum(line.rstrip().endswith(ELLIPSES) for line in m.lines)
    return ends > 0 and ends / len(m.lines) > 0.3


def few_letters(m: Measures) -> bool:
    """Fewer than 80% of the words have a letter."""
    return m.counts.words > 0 and m.counts.alphabetic / m.counts.words < 0.8


def few_stop_words(m: Measures) -> bool:
    """Fewer than two of eight words that every English text has."""
    return len(STOP_WORDS & m.distinct.keys()) < 2


LENGTH = {"gopher: too few words": too_few_words, "gopher: too many words": too_many_words}
QUALITY = {
    **LENGTH,
    "gopher: short words": short_words,
    "gopher: long words": long_words,
    "gopher: hash signs": hashes,
    "gopher: ellipses": ellipses,
    "gopher: lines with bullets": bullet_lines,
    "gopher: lines that end with an ellipsis": ellipsis_lines,
    "gopher: words without letters": few_letters,
}
STOP_WORDS_RULE = {"gopher: few stop words": few_stop_words}  # for English only

# ---- repetition: table A1 ------------------------------------------------------------------------

TOP = {2: 0.20, 3: 0.18, 4: 0.16}  # the most frequent n-gram: share of the characters
DUPLICATE = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}  # all that occurred before


def duplicate_paragraphs(m: Measures) -> bool:
    """More than 30% of the paragraphs are duplicates, or they have more than 20% of the text."""
    return _mostly_duplicates(PARAGRAPH_END.split(m.text.strip()), m)


def duplicate_lines(m: Measures) -> bool:
    """More than 30% of the lines are duplicates, or they have more than 20% of the text."""
    return _mostly_duplicates(LINE_END.split(m.text), m)


def _mostly_duplicates(parts: list[str], m: Measures) -> bool:
    times, characters = duplicates(parts)
    return times > 0 and (times / len(parts) > 0.3 or characters / len(m.text) > 0.2)


def repeated_ngram(m: Measures) -> str:
    """The name of the first limit of `TOP` and `DUPLICATE` that a text exceeds; "" for none."""
    length = len(m.text)
    top, duplicate = ({n: x * length for n, x in table.items()} for table in (TOP, DUPLICATE))
    for n in suspects(m.words, top, duplicate):
        if n in TOP and top_characters(m.words, n) / length > TOP[n]:
            return f"gopher: most frequent {n}-gram"
        if n in DUPLICATE and duplicate_characters(m.words, n) / length > DUPLICATE[n]:
            return f"gopher: repeated {n}-grams"
    return ""


REPETITION = {
    "gopher: repeated paragraphs": duplicate_paragraphs,
    "gopher: repeated lines": duplicate_lines,
}


def repetition(m: Measures) -> str:
    """The name of the first rule of repetition that a text breaks; "" if it breaks none."""
    return first_broken(REPETITION, m) or repeated_ngram(m)
