"""MinHash signatures and their bands, which find texts that are nearly equal without comparing all.

A text is the set of its shingles, the sequences of n words (or characters) that occur in it. Two
texts are similar as their sets are: by the Jaccard similarity s, the shingles that both have over
those that either has. If all shingles are numbered by a random permutation, the smallest number in
two sets is the same with probability s (Broder, 1997). A signature has the smallest numbers for
`bands * rows` permutations. Two texts are candidates if all the numbers of some band of `rows` are
equal, which has the probability

    1 - (1 - s^rows)^bands

(locality-sensitive hashing; Leskovec, Rajaraman and Ullman, Mining of Massive Datasets, 3.4). As in
FineWeb (Penedo et al., 2024) candidates are near-duplicates without a further look at them, and the
defaults are FineWeb's: 5 words, 14 bands of 8 rows.

The permutations are multiply-shift hashes: h(x) is the upper 32 bits of (a x + b) mod 2^64, for x
of 32 bits. They are 2-independent (Dietzfelbinger, 1996). On inputs that are random themselves, as
hashes of shingles are, such functions do as well as random ones (Mitzenmacher and Vadhan, 2008).
"""

from __future__ import annotations

import re
from hashlib import blake2b

import numpy as np

WORD = re.compile(r"\w+")
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # of the polynomial: odd, its bits without a pattern
BLOCK = 128  # shingles at a time: (128, 112) numbers of 8 bytes stay in a core's cache
LARGEST = 256  # bands, rows, or words in a shingle
MOST_WORDS, LONGEST_WORD = 2**18, 32  # what is kept of the hashes of words


class MinHash:
    """Signatures of texts by the n-grams of their `shingle` ("words" or "characters").

    Raises ValueError for another `shingle`, and for numbers that are not from 1 to 256.
    """

    def __init__(self, bands: int = 14, rows: int = 8, n: int = 5, shingle: str = "words"):
        if shingle not in ("words", "characters"):
            raise ValueError(f"shingle is {shingle!r}; it can be 'words' or 'characters'")
        for name, value in (("bands", bands), ("rows", rows), ("n", n)):
            if not 1 <= value <= LARGEST:
                raise ValueError(f"{name} is {value}; it must be from 1 to {LARGEST}")
        self.bands, self.rows, self.n = bands, rows, n
        self.items = Words() if shingle == "words" else characters
        raw = np.random.PCG64(1).random_raw(2 * bands * rows)  # never changes between releases
        self.a, self.b = raw.reshape(2, -1)  # (bands * rows,) each

    def signature(self, text: str) -> np.ndarray | None:
        """The signature: uint32 (bands * rows,); None for a text without words or characters."""
        x = ngram_hashes(self.items(text), self.n)  # (shingles,)
        if not len(x):
            return None
        least = np.full(len(self.a), 2**64 - 1, np.uint64)
        for start in range(0, len(x), BLOCK):
            h = x[start : start + BLOCK, None] * self.a  # (block, bands * rows)
            h += self.b
            np.minimum(least, h.min(axis=0), out=least)
        return (least >> np.uint64(32)).astype(np.uint32)

    def keys(self, text: str) -> np.ndarray | None:
        """A hash of each band: uint64 (bands,). Texts are candidates if a band has the same."""
        signature = self.signature(text)
        if signature is None:
            return None
        bands = signature.astype("<u4").reshape(self.bands, self.rows)
        digests = b"".join(blake2b(band.tobytes(), digest_size=8).digest() for band in bands)
        return np.frombuffer(digests, "<u8").astype(np.uint64)


class Words(dict):
    """Hashes of the words of a text in lower case; those of words seen before are kept."""

    def __call__(self, text: str) -> np.ndarray:
        """uint64 (words,)"""
        return np.fromiter(map(self.__getitem__, WORD.findall(text.lower())), np.uint64)

    def __missing__(self, word: str) -> int:
        encoded = word.encode("utf-8", "surrogatepass")
        value = int.from_bytes(blake2b(encoded, digest_size=8).digest(), "little")
        if len(word) <= LONGEST_WORD:
            if len(self) >= MOST_WORDS:
                self.clear()
            self[word] = value
        return value


def characters(text: str) -> np.ndarray:
    """The code points of a text in lower case, one space for a run of white space: uint64 (m,)."""
    plain = " ".join(text.lower().split())
    return np.frombuffer(plain.encode("utf-32-le", "surrogatepass"), "<u4").astype(np.uint64)


def ngram_hashes(items: np.ndarray, n: int) -> np.ndarray:
    """32-bit hashes, as uint64, of all sequences of n items: (m,) -> (m - n + 1,).

    Fewer than n items are one sequence. The hash is a polynomial in MULTIPLIER whose bits are then
    mixed as in SplitMix64 (Steele, Lea and Flood, 2014), all modulo 2^64.
    """
    n = min(n, len(items))
    if not n:
        return items
    count = len(items) - n + 1
    z = items[:count].copy()
    for k in range(1, n):
        z *= MULTIPLIER
        z += items[k : k + count]
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        z ^= z >> np.uint64(shift)
        z *= np.uint64(factor)
    z ^= z >> np.uint64(31)
    return z >> np.uint64(32)


# ---- what to expect ------------------------------------------------------------------------------


def found_probability(s: float, bands: int = 14, rows: int = 8) -> float:
    """The probability that two texts of the similarity s are found to be near-duplicates.

    >>> [round(found_probability(s), 3) for s in (0.5, 0.7, 0.8, 0.9)]
    [0.053, 0.565, 0.924, 1.0]
    """
    return 1 - (1 - s**rows) ** bands


def threshold(bands: int = 14, rows: int = 8) -> float:
    """About the similarity where the probability rises most: (1 / bands)^(1 / rows).

    >>> round(threshold(), 3)
    0.719
    """
    return (1 / bands) ** (1 / rows)


def error_probabilities(bands: int = 14, rows: int = 8) -> tuple[float, float]:
    """How often a pair below the threshold is found, and one above it missed.

    Both are means over pairs whose similarity is uniform below, or above, the threshold.

    >>> [round(p, 3) for p in error_probabilities()]
    [0.088, 0.065]
    """
    t, middle = threshold(bands, rows), (np.arange(10_000) + 0.5) / 10_000
    below = found_probability(middle * t, bands, rows).mean()
    above = 1 - found_probability(t + middle * (1 - t), bands, rows).mean()
    return float(below), float(above)
