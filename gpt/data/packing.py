"""Texts of different lengths, packed into rows of one length: gpt/models/packed.py says why."""

from __future__ import annotations

import bisect
from collections.abc import Sequence

import numpy as np

from .examples import IGNORE, pad_rows


def pack(lengths: Sequence[int], size: int) -> list[list[int]]:
    """Which texts share a row of `size` tokens: the longest first, each where it fits best.

    Best-fit decreasing needs at most 11/9 of the fewest rows, and four more (Johnson et al., 1974).
    Raises ValueError for a text that is longer than a row.

    >>> pack([5, 3, 2, 6], 8)
    [[3, 2], [0, 1]]
    """
    rows: list[list[int]] = []
    rooms: list[tuple[int, int]] = []  # (the tokens that a row still has room for, its number)
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if lengths[i] > size:
            raise ValueError(f"text {i} has {lengths[i]} tokens, a row has room for {size}")
        best = bisect.bisect(rooms, (lengths[i], -1))
        if best == len(rooms):
            rows.append([])
            rooms.append((size, len(rows) - 1))
        room, row = rooms.pop(best)
        rows[row].append(i)
        bisect.insort(rooms, (room - lengths[i], row))
    return rows


def packed_inputs_and_targets(
    ids: Sequence[np.ndarray],
    counted: Sequence[np.ndarray],
    rows: Sequence[Sequence[int]],
    width: int = 0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`inputs_and_targets` with several texts in each row: x, y and segments, (B, T) each.

    `rows` says which texts, by their numbers in `ids` and `counted`, stand in each of B rows.
    `segments` numbers the texts of a row, as `Packed` takes them; -1 where a row is padded. T is
    `width` at least.

    >>> ids, counted = [np.array([5, 8, 2]), np.array([9, 4])], [[0, 0, 1], [0, 1]]
    >>> packed_inputs_and_targets(ids, counted, rows=[[0, 1]])
    (array([[5, 8, 9]]), array([[-100,    2,    4]]), array([[0, 0, 1]]))
    """
    xs, ys, segments = [], [], []
    for row in rows:
        xs.append(np.concatenate([ids[i][:-1] for i in row]))
        ys.append(np.concatenate([np.where(counted[i], ids[i], IGNORE)[1:] for i in row]))
        segments.append(np.repeat(np.arange(len(row)), [len(ids[i]) - 1 for i in row]))
    x, y = pad_rows(xs, 0, width), pad_rows(ys, IGNORE, width)
    return x, y, pad_rows(segments, -1, width)
