"""Contamination: which items of an evaluation stand, at least in part, in the training text?

A model that has read the questions is not measured by them. As in GPT-3 (Brown et al., 2020), an
item counts as seen when n words of it in a row, 13 by default, occur in the training text. Words
are compared in lower case, without what stands between them.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence

import numpy as np
from tqdm import tqdm

from .estimate import Sample
from .result import Result

WORD = re.compile(r"\w+")
N = 13


def texts_of_items(records: Sequence[dict]) -> list[list[str]]:
    """The texts of each record: its question with each of its choices or answers, or its `text`.

    The columns are those of the other tasks (ctx, question; endings, choices, answer). Raises
    ValueError for a record without a question or text, with the columns found.
    """
    items = []
    for number, record in enumerate(records, 1):
        stem = next((record[n] for n in ("ctx", "question", "text") if n in record), None)
        if not isinstance(stem, str):
            raise ValueError(
                f"record {number} has no text in a column ctx, question or text; the columns found "
                f"are {', '.join(map(str, record))}"
            )
        ends = next((record[n] for n in ("endings", "choices", "answer") if n in record), None)
        ends = ends.get("text") if isinstance(ends, dict) else ends
        ends = [end for end in (ends if isinstance(ends, list) else [ends]) if isinstance(end, str)]
        items.append([f"{stem} {end}" for end in ends] or [stem])
    return items


def contamination(items: Sequence[Sequence[str]], texts: Sequence[str], n: int = N) -> Result:
    """The figure "contaminated": the share of items with n words in a row that are in the texts.

    Items with fewer words cannot be judged, and are left out. Raises ValueError where all are.
    """
    if n < 1:
        raise ValueError(f"--ngram is at least 1, not {n}")
    of: dict[str, list[int]] = {}  # n words -> the items that they are in
    left_out = []
    for number, parts in enumerate(items, 1):
        grams = {gram for part in parts for gram in ngrams(part, n)}
        for gram in grams:
            of.setdefault(gram, []).append(number)
        if not grams:
            left_out.append(number)
    if not of:
        raise ValueError(f"no item has {n} words: a smaller --ngram looks for fewer in a row")
    hits: dict[int, str] = {}  # item -> the first of its n words that were found
    firsts = {gram.partition(" ")[0] for gram in of}
    size = sum(map(len, texts))
    bar = tqdm(
        total=size, desc="words", unit="B", unit_scale=True, leave=False, disable=None, delay=2
    )
    with bar:
        for text in texts:
            window: deque[str] = deque(maxlen=n)
            for match in WORD.finditer(text):
                window.append(match[0].lower())
                if len(window) == n and window[0] in firsts and (gram := " ".join(window)) in of:
                    for number in of[gram]:
                        hits.setdefault(number, gram)
            bar.update(len(text))
    judged = [number for number in range(1, len(items) + 1) if number not in set(left_out)]
    seen = np.array([number in hits for number in judged], np.float64)
    found = [{"item": number, "words": hits[number]} for number in sorted(hits)]
    notes = (
        [f"{len(left_out)} items have fewer than {n} words and are left out"] if left_out else []
    )
    settings = {"ngram": n, "characters": size}
    return Result({"contaminated": [Sample(seen)]}, settings, found, left_out, notes)


def ngrams(text: str, n: int) -> list[str]:
    """All n words in a row of a text.

    >>> ngrams("To be, or not", 3)
    ['to be or', 'be or not']
    """
    words = WORD.findall(text.lower())
    return [" ".join(words[i : i + n]) for i in range(len(words) - n + 1)]
