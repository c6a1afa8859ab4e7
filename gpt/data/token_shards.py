"""Ids in several files, read as if they were one flat array (N,), and the documents in them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


class ShardedTokens:
    """The ids of `shards`, arrays (N,), one after the other.

    It can be asked for its length, a slice, and the ids at an array of places, as an array can;
    shards that are mapped files stay on the disk. `offsets` says where the documents of each shard
    begin and the last one ends, (documents + 1,) each: see `documents`.

    >>> tokens = ShardedTokens([np.array([5, 8, 2]), np.array([9, 4])])
    >>> len(tokens), tokens[1:4], tokens[np.array([[0, 3]])]
    (5, array([8, 2, 9]), array([[5, 9]]))
    """

    def __init__(self, shards: Sequence[np.ndarray], offsets: Sequence[np.ndarray] | None = None):
        self.shards, self.offsets = list(shards), offsets and list(offsets)
        self.ends = np.cumsum([len(shard) for shard in self.shards])  # (shards,)
        self.dtype = np.result_type(*{shard.dtype for shard in self.shards})
        if offsets:
            self.numbers = np.cumsum([0, *(len(o) - 1 for o in offsets)])  # of their documents

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, places: slice | np.ndarray) -> np.ndarray:
        """The ids at these places: a slice without a step, or an array of any shape."""
        if isinstance(places, slice):
            start, stop, step = places.indices(len(self))
            if step != 1:
                raise ValueError(f"a slice of ids goes on by 1, not {step}")
            return self._slice(start, stop)
        found = np.empty(places.shape, self.dtype)
        for shard, _, inside, here in self._by_shard(places):
            found[here] = shard[inside]
        return found

    def _slice(self, start: int, stop: int) -> np.ndarray:
        parts, first = [np.zeros(0, self.dtype)], 0
        for shard in self.shards:
            parts.append(shard[max(0, start - first) : max(0, stop - first)])
            first += len(shard)
        return np.concatenate([part for part in parts if len(part)] or parts)

    def _by_shard(self, places: np.ndarray):
        """(ids of a shard, its number, places in it, which of `places` these are) for each."""
        if places.size and not 0 <= places.min() <= places.max() < len(self):
            raise IndexError(f"places from {places.min()} to {places.max()} of {len(self)} ids")
        numbers = np.searchsorted(self.ends, places, side="right")
        for number in np.unique(numbers).tolist():
            here, shard = numbers == number, self.shards[number]
            yield shard, number, places[here] - (self.ends[number] - len(shard)), here

    def documents(self, places: np.ndarray) -> np.ndarray:
        """The number of the document that each place belongs to: an array of the same shape.

        >>> tokens = ShardedTokens([np.array([5, 8, 2, 9])], [np.array([0, 3, 4])])
        >>> tokens.documents(np.array([0, 2, 3]))
        array([0, 0, 1])
        """
        found = np.empty(places.shape, np.int64)
        for _, number, inside, here in self._by_shard(places):
            document = np.searchsorted(self.offsets[number], inside.astype(np.uint64), "right")
            found[here] = self.numbers[number] + document - 1
        return found

    def max(self) -> int:
        """The largest id."""
        return max(int(shard.max()) for shard in self.shards)


def joined(parts: Sequence[ShardedTokens]) -> ShardedTokens:
    """All of them, one after the other, as one."""
    shards = [shard for part in parts for shard in part.shards]
    known = all(part.offsets for part in parts)
    return ShardedTokens(shards, [o for part in parts for o in part.offsets] if known else None)
