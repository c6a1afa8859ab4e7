"""Long texts that occur again within other texts are cut out: the first occurrence stays.

Lee et al. (2022), "Deduplicating training data makes language models better", find all substrings
of at least 50 tokens that occur twice in a suffix array of the corpus. So do we, with characters in
place of tokens. The suffixes are sorted by prefix doubling (Manber and Myers, 1990): from the ranks
of all substrings of h characters, those of 2h characters are the ranks of pairs. It ends when the
length is reached that counts, and a substring that occurs only once takes no further part.
"""

from __future__ import annotations

import numpy as np

MOST = 2**24  # characters of all texts: sorting them takes about 55 bytes for each
END = 0x110000  # stands behind each text: no code point


def check_size(characters: int) -> None:
    """Raise ValueError if the texts have more characters than can be sorted."""
    if characters > MOST:
        raise ValueError(
            f"the texts have more than {MOST:,} characters, within which repeated substrings can "
            "be found: give --substrings for parts of the corpus, or --paragraphs for all of it"
        )


def code_points(text: str) -> np.ndarray:
    """uint32 (characters,)"""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")


def repeated_within(text: np.ndarray, length: int) -> np.ndarray:
    """Which characters belong to a substring of `length` that occurs further ahead too: bool (n,).

    `text` has code points, with END behind each of the texts, so that no substring spans two.
    """
    names = substring_names(text, length)
    at = np.flatnonzero(names)
    _, first = np.unique(names[at], return_index=True)
    later = np.delete(at, first)
    covers = np.zeros(len(text) + 1, np.int32)
    covers[later] += 1
    covers[later + length] -= 1
    return np.cumsum(covers[:-1]) > 0


def substring_names(text: np.ndarray, length: int) -> np.ndarray:
    """A number for the `length` characters from each place on: int32 (n,).

    Equal substrings have equal numbers, which are in the order of the substrings; those that occur
    once and those that contain END have 0.
    """
    n, h = len(text), 1
    inside = np.flatnonzero(text != END)
    names = np.zeros(n, np.int32)
    names[inside] = ranks_of_repeated(text[inside])
    while h < length:
        step = min(h, length - h)
        at = np.flatnonzero(names[: max(n - step, 0)])
        at = at[names[at + step] != 0]
        pairs = names[at].astype(np.int64) << 32 | names[at + step]
        names = np.zeros(n, np.int32)
        names[at] = ranks_of_repeated(pairs)
        h += step
    return names


def ranks_of_repeated(values: np.ndarray) -> np.ndarray:
    """int32 ranks, from 1, of the values; 0 for those that occur once.

    >>> ranks_of_repeated(np.array([30, 10, 30, 20, 10])).tolist()
    [3, 1, 3, 0, 1]
    """
    order = np.argsort(values)
    ordered = values[order]
    fresh = np.ones(len(values) + 1, bool)  # and one behind the last
    np.not_equal(ordered[1:], ordered[:-1], out=fresh[1:-1])
    ranks = np.cumsum(fresh[:-1], dtype=np.int32)
    ranks[fresh[:-1] & fresh[1:]] = 0
    result = np.empty(len(values), np.int32)
    result[order] = ranks
    return result


def cut_characters(text: str, cut: np.ndarray) -> tuple[str, list[str]]:
    """The text without the characters where `cut` (characters,) is True, and what was cut out."""
    if not cut.any():
        return text, []
    edges = np.flatnonzero(np.diff(cut, prepend=False, append=False))
    spans = edges.reshape(-1, 2).tolist()
    begins = [0, *(end for _, end in spans)]
    ends = [*(start for start, _ in spans), len(text)]
    kept = "".join(text[i:j] for i, j in zip(begins, ends))
    return kept, [text[i:j] for i, j in spans]
