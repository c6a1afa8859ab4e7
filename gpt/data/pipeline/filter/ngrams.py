"""How much of a text is n-grams that repeat: n words in a row that occur more than once.

`top_characters` and `duplicate_characters` say it exactly, a string an n-gram. Few texts repeat
themselves that much, so `suspects` first finds, by a hash of each n-gram in NumPy, the n for which
a limit can be exceeded at all; only these are counted exactly.
"""

from __future__ import annotations

from collections import Counter
from operator import itemgetter

import numpy as np

BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2**64
INVERSE = pow(BASE, -1, 2**64)


def top_characters(words: list[str], n: int) -> int:
    """The characters of all occurrences of the most frequent n-gram, written with spaces.

    Of several n-grams that are as frequent, the first counts.

    >>> top_characters("the cat and the cat".split(), 2)
    14
    """
    grams = (" ".join(words[i : i + n]) for i in range(len(words) - n + 1))
    gram, times = max(Counter(grams).items(), key=itemgetter(1), default=("", 0))
    return len(gram) * times


def duplicate_characters(words: list[str], n: int) -> int:
    """The characters in n-grams that occurred before, none counted twice, written without spaces.

    >>> duplicate_characters("a bc a bc a bc".split(), 2)
    6
    """
    seen, characters, i = set(), 0, 0
    while i < len(words) - n + 1:
        gram = "".join(words[i : i + n])
        if gram in seen:
            characters += len(gram)
            i += n
        else:
            seen.add(gram)
            i += 1
    return characters


def suspects(words: list[str], top: dict[int, float], duplicate: dict[int, float]) -> list[int]:
    """The n for which the text may exceed a limit, in characters, of n in `top` or `duplicate`.

    An n that is not returned does not exceed its limit: equal n-grams have equal hashes. The hash
    of an n-gram is that of its characters as a polynomial modulo 2**64 (Karp and Rabin, 1987): with
    the prefix sums P of c[i] * BASE**i, it is (P[end] - P[start]) * BASE**-start.
    """
    text = "".join(words)
    if not text:
        return []
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)  # (characters,)
    bounds = np.zeros(len(words) + 1, np.int64)  # where each word starts in `text`, and its end
    np.cumsum(np.fromiter(map(len, words), np.int64, len(words)), out=bounds[1:])
    sums = np.zeros(len(codes) + 1, np.uint64)
    np.cumsum(codes * np.cumprod(np.full(len(codes), BASE, np.uint64)), out=sums[1:])
    inverses = np.ones(len(codes) + 1, np.uint64)
    np.cumprod(np.full(len(codes), INVERSE, np.uint64), out=inverses[1:])
    sums, inverses = sums[bounds], inverses[bounds]  # (words + 1,)
    found = []
    for n, limit in [*top.items(), *duplicate.items()]:
        if n > len(words):
            continue
        hashes = (sums[n:] - sums[:-n]) * inverses[:-n]  # (words - n + 1,)
        lengths = bounds[n:] - bounds[:-n] + (n - 1 if n in top else 0)  # the same shape
        ordered = np.sort(hashes)
        if n in top:
            times = max(1, int(limit / lengths.max()))  # fewer than that of one n-gram are too few
            quick = bool((ordered[times - 1 :] == ordered[: len(ordered) - times + 1]).any())
            exceeds = quick and top_bound(hashes, lengths) >= limit
        else:
            repeats = np.count_nonzero(ordered[1:] == ordered[:-1])
            quick = repeats * lengths.max() >= limit
            exceeds = quick and duplicate_bound(hashes, n, bounds) >= limit
        if exceeds:
            found.append(n)
    return found


def top_bound(hashes: np.ndarray, lengths: np.ndarray) -> int:
    """The most characters that all occurrences of one n-gram have."""
    order = np.argsort(hashes, kind="stable")
    differs = hashes[order[1:]] != hashes[order[:-1]]
    first = np.concatenate([[0], np.flatnonzero(differs) + 1])  # of each n-gram, in `order`
    times = np.diff(first, append=len(hashes))
    return int((times * lengths[order[first]]).max())


def duplicate_bound(hashes: np.ndarray, n: int, bounds: np.ndarray) -> int:
    """The characters of all words that are in an n-gram which occurred before.

    `duplicate_characters` counts some of these n-grams, none of which overlap.
    """
    order = np.argsort(hashes, kind="stable")
    again = order[1:][hashes[order[1:]] == hashes[order[:-1]]]  # where they start
    steps = np.zeros(len(bounds), np.int64)
    steps[again] += 1
    steps[again + n] -= 1
    inside = np.cumsum(steps[:-1]) > 0  # (words,)
    return int((bounds[1:] - bounds[:-1])[inside].sum())
