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

    An n that is not returned does not exceed its limit: equal n-grams have equal hashes, and each
    occurrence is taken to be as long as the longest n-gram. The hash of an n-gram is that of its
    characters as a polynomial modulo 2**64 (Karp and Rabin, 1987): with the prefix sums P of
    c[i] * BASE**i, it is (P[end] - P[start]) * BASE**-start.
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
        longest = int((bounds[n:] - bounds[:-n]).max()) + (n - 1 if n in top else 0)
        hashes = np.sort((sums[n:] - sums[:-n]) * inverses[:-n])  # (words - n + 1,)
        if n in top:
            times = max(1, int(limit / longest))  # fewer occurrences of one n-gram are too few
            exceeds = bool((hashes[times - 1 :] == hashes[: len(hashes) - times + 1]).any())
        else:
            exceeds = np.count_nonzero(hashes[1:] == hashes[:-1]) * longest >= limit
        if exceeds:
            found.append(n)
    return found
