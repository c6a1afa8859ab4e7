"""Shuffling by key: where one place of a long list goes, without a list of all of them.

A Feistel network turns numbers of 2k bits into one another, each into another, whatever its round
function is (Luby and Rackoff, 1988). Applied again to a number that falls outside range(n), until
it falls inside, it is a permutation of range(n): cycle walking (Black and Rogaway, "Ciphers with
Arbitrary Finite Domains", 2002). It shuffles; it keeps nothing secret.
"""

from __future__ import annotations

import numpy as np

from tensorlite.device import random

ROUNDS = 8


def permute(places: np.ndarray, n: int, *key: int | str) -> np.ndarray:
    """Where the shuffle of range(n) that `key` names puts some places: (N,) int64 -> (N,) int64.

    The time is that of about 8 to 32 operations for each place, whatever n is, which is at most
    2**62. Raises ValueError for places outside range(n).

    >>> permute(np.arange(5), 5, 1337, "epoch", 0)
    array([2, 4, 3, 0, 1])
    """
    places = np.asarray(places, np.int64)
    if not 0 < n <= 2**62 or (places.size and not 0 <= places.min() <= places.max() < n):
        raise ValueError(f"places to shuffle are in range({n}), and n is from 1 to 2**62")
    keys = random(*key).integers(0, 2**64, size=ROUNDS, dtype=np.uint64)
    half = max(1, ((n - 1).bit_length() + 1) // 2)  # bits: 2**(2 half) is at least n, at most 4 n
    found = _feistel(places.astype(np.uint64), half, keys)
    while len(outside := np.flatnonzero(found >= n)):
        found[outside] = _feistel(found[outside], half, keys)
    return found.astype(np.int64)


def _feistel(x: np.ndarray, half: int, keys: np.ndarray) -> np.ndarray:
    """Numbers of 2 `half` bits, (N,) uint64, each turned into another."""
    mask = np.uint64(2**half - 1)
    left, right = x >> np.uint64(half), x & mask
    for key in keys:
        left, right = right, left ^ (_mix(right + key) & mask)
    return left << np.uint64(half) | right


def _mix(x: np.ndarray) -> np.ndarray:
    """The bits of each number stirred: the last steps of SplitMix64 (Steele et al., 2014)."""
    x = (x ^ x >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ x >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return x ^ x >> np.uint64(31)
