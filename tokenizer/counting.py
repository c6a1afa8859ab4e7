"""How often each piece occurs in texts, which is all that BPE is trained on.

Only the counts of the distinct pieces are kept, so the texts may be larger than the memory.
"""

import os
from collections import Counter
from collections.abc import Iterable
from itertools import chain

import numpy as np

from .pieces import BLOCK, PATTERNS, SHORT_TEXT, blocks, next_cut, splitter
from .processes import in_processes
from .table import PieceTable
from .texts import groups, texts_of

GROUP = 2**24  # characters that a process counts before it reports


def count_pieces(
    texts: str | os.PathLike | Iterable[str | os.PathLike],
    pattern: str | None,
    workers: int | None = None,
    encoding: str = "utf-8",
) -> dict[bytes, int]:
    """How often each piece occurs in the texts; files and folders may be given as Paths.

    >>> count_pieces(["to be", " or not to be"], "gpt2")
    {b'to': 1, b' be': 2, b' or': 1, b' not': 1, b' to': 1}
    """
    from tqdm import tqdm

    splitter(pattern)  # raises an error for a wrong pattern before any work is done
    texts = texts_of(texts, lambda block, at: next_cut(block, at, pattern), encoding)
    with tqdm(texts, desc="counting pieces", unit="text", disable=None) as texts:
        if workers in (None, 1):
            return _count(texts, pattern)
        total: Counter[bytes] = Counter()
        for counts in in_processes(_count, groups(texts, GROUP), workers, pattern):
            total.update(counts)
        return dict(total)


def _count(texts: Iterable[str], pattern: str | None) -> dict[bytes, int]:
    """The counts; a PieceTable gives each distinct piece a number, and the numbers are counted."""
    split, plain, number = splitter(pattern), Counter(), {}
    table, waiting, n_waiting, total = None, [], 0, np.zeros(0, np.int64)
    if pattern in PATTERNS:
        table = PieceTable(pattern, lambda p: (number.setdefault(p, len(number)),), np.uint32)

    def counted():
        numbers = np.concatenate([np.zeros(0, np.uint32), *waiting])
        new = np.bincount(numbers, minlength=len(number))
        new[: len(total)] += total
        waiting.clear()
        return new

    for group in groups(texts, BLOCK):
        short = [text for text in group if 0 < len(text) <= BLOCK]
        long = (blocks(text, BLOCK, pattern) for text in group if len(text) > BLOCK)
        for together in chain([short], ([block] for block in chain.from_iterable(long))):
            numbers = None
            if table and sum(map(len, together)) > SHORT_TEXT:
                numbers = table.ids(together)
            if numbers is None:
                for text in together:
                    plain.update(split(text))
                continue
            waiting += numbers
            n_waiting += sum(map(len, numbers))
            if n_waiting > 2**20 + len(number):
                total, n_waiting = counted(), 0
    for piece, count in zip(number, counted().tolist()):
        plain[piece] += count
    return {piece.encode(): count for piece, count in plain.items() if count}
