"""From texts of different lengths to batches: padding that changes nothing, and little of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tensorlite.device import random

IGNORE = -100  # a target that no loss counts, as in PyTorch
POOL = 50  # batches whose texts are sorted by length together


def pad_rows(rows: Sequence[Sequence[int]], fill: int = 0, width: int = 0) -> np.ndarray:
    """Rows of different lengths as one array (B, T), filled up on the right; T is `width` at least.

    >>> pad_rows([[1, 2, 3], [4]])
    array([[1, 2, 3],
           [4, 0, 0]])
    """
    padded = np.full((len(rows), max([width, *map(len, rows)])), fill, np.int64)
    for place, row in zip(padded, rows):
        place[: len(row)] = row
    return padded


def inputs_and_targets(
    ids: Sequence[np.ndarray], counted: Sequence[np.ndarray], width: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """What the model reads, x (B, T), and what it should say next at each place, y (B, T).

    `ids` are B texts (N,), `counted` (N,) says of each id whether the loss counts it; elsewhere,
    and after the end of a text, y is IGNORE. A causal model never sees what comes after a place, so
    padding on the right changes no result. T is `width` at least.

    >>> inputs_and_targets([np.array([5, 8, 2]), np.array([9, 4])], [[0, 0, 1], [0, 1]])
    (array([[5, 8],
           [9, 0]]), array([[-100,    2],
           [   4, -100]]))
    """
    targets = [np.where(mask, row, IGNORE)[1:] for row, mask in zip(ids, counted)]
    return pad_rows([row[:-1] for row in ids], 0, width), pad_rows(targets, IGNORE, width)


def epoch_batches(
    lengths: Sequence[int] | np.ndarray, batch_size: int, seed: int, epoch: int
) -> list[np.ndarray]:
    """The rows of all batches of an epoch, (batch_size,) each, the last one possibly smaller.

    Texts of similar length come together: those of POOL batches, drawn at random, are sorted by
    length and cut into batches, whose order is random again. All of it is a function of the
    arguments.
    """
    rng, lengths = random(seed, "epoch", epoch), np.asarray(lengths)
    order, batches = rng.permutation(len(lengths)), []
    for first in range(0, len(order), POOL * batch_size):
        pool = order[first : first + POOL * batch_size]
        pool = pool[np.argsort(lengths[pool], kind="stable")]
        batches += [pool[i : i + batch_size] for i in range(0, len(pool), batch_size)]
    return [batches[i] for i in rng.permutation(len(batches))]
