"""The hash of a text, which is the same for copies that differ in spaces and capitals only."""

from __future__ import annotations

from hashlib import blake2b


def normalised(text: str) -> str:
    """The text in lower case, with one space for each run of white space.

    >>> normalised("  Two\\n WORDS ")
    'two words'
    """
    return " ".join(text.lower().split())


def text_hash(text: str) -> int:
    """64 bits of BLAKE2b of the normalised text.

    Among n different texts, the expected number of pairs with equal hashes is n^2 / 2^65: 0.03 for
    a billion.
    """
    encoded = normalised(text).encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(encoded, digest_size=8).digest(), "little")
