"""What a model reads of texts that grow: the logits for their next tokens, with a cache or without.

`Context.read` gives what the model would say if it read every text from the start. That it has
read most of it before, and keeps the keys and values, only makes it faster.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

import tensorlite as tl
from tensorlite.arraylike import on_gpu

from .cache import Cache

LEAST = 256  # positions for which there is room on a GPU
CHUNK = 2048  # positions, of all texts together, that are read in one pass


def window_start(n: int, block_size: int) -> int:
    """Where the part of a text of n tokens begins that a model with this context sees.

    When the context is full, its older half is dropped, and the rest is read again: the positions
    of what is left change, so that what was computed for them cannot be kept. To drop one token at
    a time would mean to read everything again for each token.

    >>> [window_start(n, 8) for n in (7, 8, 9, 12, 13)]
    [0, 0, 4, 4, 8]
    """
    half = max(1, block_size // 2)
    return -(-max(0, n - block_size) // half) * half


class Context:
    """Reads texts, and keeps what it needs to read them further.

    length     the longest that a text is going to be, in tokens: so much room is allocated
    use_cache  False reads every text from the start each time: the definition
    chunk      how many positions, of all texts together, are read in one pass
    """

    def __init__(self, model, length: int, use_cache: bool = True, chunk: int = CHUNK):
        self.model, self.use_cache, self.chunk = model, use_cache, chunk
        self.on_gpu = on_gpu([p.data for p in getattr(model, "parameters", list)()[:1]])
        if self.on_gpu:  # few different sizes, so that what was recorded for one fits again
            length = max(LEAST, 2 ** (length - 1).bit_length())
        self.size = min(model.config.cache_size, length)
        self.cache, self.rows = None, []  # what the cache holds: the windows of the texts

    def read(self, texts: Sequence[Sequence[int]], last: int = 1) -> np.ndarray:
        """The logits for the tokens that follow the `last` positions of B texts: (B, last, V).

        They are float32, in the CPU's memory. Raises ValueError for a text without tokens.
        """
        block_size = self.model.config.block_size
        if not all(texts):
            raise ValueError("a text has at least one token: give the one that begins texts")
        rows = [list(text[window_start(len(text), block_size) :]) for text in texts]
        with tl.no_grad():
            if not self.use_cache or max(map(len, rows)) > self.size:
                self.cache = None
                one_by_one = [self._next_logits([row], None, last) for row in rows]
                return np.concatenate(one_by_one)
            return self._read(rows, last)

    def _read(self, rows: list[list[int]], last: int) -> np.ndarray:
        length = max(map(len, rows))
        pads = np.array([length - len(row) for row in rows])
        start = self._known(rows, pads, length, last)
        if self.cache is None or len(self.cache.pads) != len(rows):
            self.cache = Cache(self.model, len(rows), self.size, pads)
        elif start == 0:
            self.cache.set_pads(pads)
        cache = self.cache
        cache.length = start
        new = np.array([[0] * (length - len(row)) + row for row in rows])[:, start:]  # (B, T)
        self.rows = rows
        step = max(1, self.chunk // len(rows))
        end = max(0, new.shape[1] - last) // step * step  # where the last pass begins
        for i in range(0, end, step):
            self.model.hidden(new[:, i : i + step], cache=cache)
            cache.length += step
        logits = self._next_logits(new[:, end:], cache, last)  # (B, last, V)
        cache.length = length
        return logits

    def _next_logits(self, ids, cache, last: int) -> np.ndarray:
        if not self.on_gpu:
            return self.model.next_logits(ids, cache, last).numpy()  # (B, last, V)
        x = self.model.hidden(self.model.array(ids), cache=cache)[:, -last:]  # (B, last, C)
        with tl.autocast("float32"):  # rounded to 16 bits, many logits would be equal
            return self.model.logits(x.astype(np.float32)).numpy()  # (B, last, V)

    def _known(self, rows, pads, length: int, last: int) -> int:
        """How many positions of the cache hold what is to be read; at most all before the last."""
        old, cache = self.rows, self.cache
        if cache is None or len(old) != len(rows):
            return 0
        if not np.array_equal(cache.pads, pads):
            return 0
        known = min(p + common(row, read) for p, row, read in zip(pads, rows, old))
        return int(min(known, length - last)) if known > pads.max() else 0

    def keep(self, rows: list[int]) -> None:
        """Of the texts that were read last, the next reading is about these, in this order."""
        if self.cache is not None and rows:
            if rows != list(range(len(self.rows))):
                self.cache.keep(rows)
            self.rows = [self.rows[i] for i in rows]


def common(a: list[int], b: list[int]) -> int:
    """How many tokens two texts begin with in common."""
    n = min(len(a), len(b))
    if a[:n] == b[:n]:
        return n
    return next(i for i in range(n) if a[i] != b[i])
