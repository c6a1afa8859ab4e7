"""Which keys have been seen before, among the keys of all shards: the work divided between ranks.

Rows of keys, such as the bands of all documents, are looked at one by one, and long rows in parts
by the value of their keys, so that no task sorts many more than MOST keys. What was seen before is
told by the place in the row, thus it does not depend on who does which task.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from ..arrays import open_array, save
from ..steps import Unit, Work

MOST = 2**23  # keys in a task, which takes about 40 bytes for each


def repeats(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The places whose key stands further ahead too, and the first place of that key.

    >>> later, first = repeats(np.array([7, 5, 7, 5, 6, 7]))
    >>> later.tolist(), first.tolist()
    ([3, 2, 5], [1, 0, 0])
    """
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    fresh = np.ones(len(keys), bool)  # in `ordered`: the first of its key
    np.not_equal(ordered[1:], ordered[:-1], out=fresh[1:])
    firsts = order[fresh]
    later = ~fresh
    return order[later], firsts[np.cumsum(fresh)[later] - 1]


def find_repeats(phase: str, paths: list[Path], units: list[Unit], work: Work) -> list[Path]:
    """Files of int64 (2, repeats): places of keys seen before in a row, and their first places.

    `paths` has a file of uint64 keys (rows, n) for each unit. A place counts from the start of the
    first unit's keys. The places of a file ascend. Raises as `Work.map`.
    """
    rows = open_array(paths[0]).shape[0]
    counts = [open_array(path).shape[1] for path in paths]
    parts = max(1, -(-sum(counts) // MOST))
    tasks = [
        Unit(f"{row}-{part}", "", 1, (row, part)) for row in range(rows) for part in range(parts)
    ]

    def find(task: Unit, path: Path) -> None:
        row, part = task.source
        keys, places, start = [], [], 0
        for file, count in zip(paths, counts):
            some = open_array(file)[row]
            at = np.flatnonzero(part_of_keys(some, parts) == part)
            keys.append(some[at])
            places.append(at + start)
            start += count
        places = np.concatenate(places)
        later, first = repeats(np.concatenate(keys))
        order = np.argsort(later)
        save(path, places[np.stack([later[order], first[order]])])

    # The tasks go round the units, and each is done by the rank that has the unit.
    names = {unit.name for unit in work.mine}
    mine = [task for k, task in enumerate(tasks) if units[k % len(units)].name in names]
    return replace(work, mine=mine).map(phase, tasks, find)


def part_of_keys(keys: np.ndarray, parts: int) -> np.ndarray:
    """Which of so many equal parts of all possible keys each one is in."""
    return (keys >> np.uint64(32)) * np.uint64(parts) >> np.uint64(32)


def seen_before(found: list[Path], part: range) -> np.ndarray:
    """For one row of keys, whether each place in `part` was seen before: bool (len(part),)."""
    seen = np.zeros(len(part), bool)
    for path in found:
        later = open_array(path)[0]
        begin, end = np.searchsorted(later, [part.start, part.stop])
        seen[later[begin:end] - part.start] = True
    return seen
