"""The ids of pieces, looked up with NumPy for all pieces of a block of text at once.

A loop over pieces and a dictionary of their ids spends a tenth of a microsecond on each piece, and
cutting the text into strings spends more. Here the pieces of a block are rows of an array, and so
is the table that holds their ids. Only pieces that are not in it are encoded one by one in Python.
"""

import threading
from collections.abc import Callable, Sequence
from itertools import chain

import numpy as np

from .pieces import piece_starts

WIDTH = 16  # bytes of a piece that a row holds; longer pieces are rare and not kept
MASKS = np.tril(np.full((WIDTH + 1, WIDTH), 255, np.uint8), -1).view("<u8")  # by size (17, 2)
MIX = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F], np.uint64)  # arbitrary odd numbers


class PieceTable:
    """The ids of texts: those that `encode` gives for each piece, one after the other.

    This is a direct-mapped cache of fixed size. The hash of a piece decides in which row it is
    kept, where it replaces the piece that was there before. A row holds the piece itself, so that
    no other piece with the same hash is mistaken for it.

    Args:
        pattern: a name in PATTERNS.
        encode: a piece -> its ids.
        dtype: of the ids.
        bits: there are 2**bits rows, of 32 bytes.
        room: the number of ids that all rows together may hold; when half of it is in use, the
            table is emptied.
    """

    def __init__(
        self,
        pattern: str,
        encode: Callable[[str], Sequence[int]],
        dtype,
        bits: int = 18,
        room: int = 2**20,
    ):
        self.pattern, self.encode, self.dtype = pattern, encode, dtype
        self.bits, self.room = bits, room
        self.rows = np.zeros((2**bits, 4), np.uint64)  # piece, piece, its size, place << 8 | count
        self.pool, self.used = np.zeros(room, dtype), 0
        self.lock = threading.Lock()

    def ids(self, texts: list[str]) -> list[np.ndarray] | None:
        """The ids of the pieces of each text (tokens,); no text is empty or holds surrogates.

        Returns None if `piece_starts` does, and while another thread uses the table.
        """
        text = "\0".join(texts)
        walls = np.cumsum([len(one) + 1 for one in texts])[:-1] - 1  # where the joints are
        start = piece_starts(text, self.pattern, walls)
        if start is None:
            return None
        joints = np.searchsorted(start, walls)  # which pieces they are
        data = text.encode()
        n = len(data)
        padded = np.frombuffer(data + bytes(WIDTH), np.uint8)
        if n > len(text):  # places of characters -> places of bytes
            start = np.flatnonzero((padded[:n] & 0xC0) != 0x80)[start]
        size = np.diff(start, append=n)

        # The WIDTH bytes from every place on, as scalars, which NumPy gathers faster than rows.
        from_here = np.ndarray(n, f"V{WIDTH}", padded, strides=(1,))
        words = from_here[start].view("<u8").reshape(-1, 2)
        words &= np.take(MASKS, size, axis=0, mode="clip")
        mixed = words[:, 0] * MIX[0]
        mixed ^= words[:, 1] * MIX[1]
        mixed ^= mixed >> np.uint64(32)
        mixed *= MIX[0]
        row = (mixed >> np.uint64(64 - self.bits)).view(np.int64)

        if not self.lock.acquire(blocking=False):
            return None
        try:
            ids, ends, count = self._look_up(data, start, size, words, row)
        finally:
            self.lock.release()
        past = ends[joints]
        bounds = zip([0, *past.tolist()], [*(past - count[joints]).tolist(), len(ids)])
        return [ids[first:end] for first, end in bounds]

    def _look_up(self, data, start, size, words, row):
        """The ids of all pieces; and for each piece, where its ids end and how many they are."""
        if self.used > self.room // 2:
            self.rows[:], self.pool, self.used = 0, np.zeros(self.room, self.dtype), 0
        found = np.take(self.rows, row, axis=0, mode="clip")
        same = (found[:, 0] == words[:, 0]) & (found[:, 1] == words[:, 1])
        same &= found[:, 2] == size.view(np.uint64)
        count = (found[:, 3] & np.uint64(255)).view(np.int64)
        place = (found[:, 3] >> np.uint64(8)).view(np.int64)

        missed = np.flatnonzero(~same)
        if len(missed):
            pieces = zip(start[missed].tolist(), size[missed].tolist())
            answers = [self.encode(data[i : i + k].decode()) for i, k in pieces]
            count[missed] = counts = np.fromiter(map(len, answers), np.int64, len(answers))
            place[missed] = places = self._put(answers) + np.cumsum(counts) - counts
            short = size[missed] <= WIDTH
            kept, ids = missed[short], (places << 8 | counts)[short]
            known = words[kept], size[kept].view(np.uint64), ids.view(np.uint64)
            self.rows[row[kept]] = np.column_stack(known)  # of two for the same row, the last stays

        ends = np.cumsum(count)
        index = np.arange(ends[-1])
        index += np.repeat(place - ends + count, count)
        return np.take(self.pool, index, mode="clip"), ends, count

    def _put(self, answers) -> int:
        """Add ids to the pool; returns where they begin."""
        ids = np.array(list(chain.from_iterable(answers)), self.dtype)
        first, self.used = self.used, self.used + len(ids)
        if self.used > len(self.pool):  # for a long piece; the next block empties the table
            self.pool = np.append(self.pool[:first], ids)
        self.pool[first : self.used] = ids
        return first
