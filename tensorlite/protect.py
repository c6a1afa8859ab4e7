"""Arrays that a pending backward needs are read-only.

A vjp captures arrays in the forward pass and uses them in the backward pass. If a user changed one
in between, the gradient would be wrong without a word. So the engine takes away NumPy's permission
to write to what the graph has captured, and gives it back when the last node that needs it is
gone: after its backward, or when it dies without one.

Holes remain: a view that the user took before the capture keeps its own permission, and memory
that NumPy could not make writeable again (from DLPack, `as_strided`) is left as it is. A view taken
while its memory is protected stays read-only.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from types import FunctionType

import numpy as np

# The owner of a memory (an array, by id) -> a list that is as long as the times it was captured,
# and the arrays over that memory that were made read-only. They become writeable again together,
# since NumPy refuses to make a view writeable while the array it looks into is not. Captures are
# counted by a list's length because `append` and `pop` cannot be interrupted halfway by the
# garbage collector freeing another node.
captures: dict[int, tuple[list, dict]] = {}
lock = threading.RLock()

_CONTAINERS = {FunctionType, list, tuple}


def captured(vjps) -> list[np.ndarray]:
    """The NumPy arrays that the closures of vjps hold (a CuPy array has no writeable flag)."""
    arrays = []
    for vjp in vjps if type(vjps) is list else [vjps]:
        if vjp is not None and vjp.__closure__:
            for cell in vjp.__closure__:
                content = cell.cell_contents
                if isinstance(content, np.ndarray):
                    arrays.append(content)
                elif type(content) in _CONTAINERS:
                    _collect(content, arrays)
    return arrays


def _collect(content, arrays: list) -> None:
    if isinstance(content, np.ndarray):
        arrays.append(content)
    elif isinstance(content, FunctionType):
        for cell in content.__closure__ or ():
            _collect(cell.cell_contents, arrays)
    elif type(content) in _CONTAINERS:
        for part in content:
            if isinstance(part, np.ndarray) or type(part) in _CONTAINERS:
                _collect(part, arrays)


def protect(arrays: list[np.ndarray], others: Sequence = ()) -> list[int]:
    """Make arrays and the memory below them read-only; returns what `release` takes.

    `others` are made read-only too where they look into the same memory: an operation's operands
    and value, which users reach as `tensor.data`.
    """
    owners = []
    if not arrays:
        return owners
    with lock:
        for array in arrays:
            owner = owner_of(array)
            entry = captures.get(id(owner))
            if entry is None:
                if not owner.flags.writeable or not _can_be_unlocked(owner):
                    continue
                entry = captures[id(owner)] = [], {}
            count, locked = entry
            count.append(None)
            owners.append(id(owner))
            _lock(owner, locked)
            if array is not owner:
                _lock(array, locked)
        for array in others:
            if isinstance(array, np.ndarray) and array.base is not None:
                owner = id(owner_of(array))
                if owner in owners:
                    _lock(array, captures[owner][1])
    return owners


def owner_of(array: np.ndarray) -> np.ndarray:
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def _lock(array: np.ndarray, locked: dict) -> None:
    if array.flags.writeable:
        array.flags.writeable = False
        locked[id(array)] = array


def _can_be_unlocked(owner: np.ndarray) -> bool:
    """Whether NumPy will make it writeable again: its own memory, or a buffer that allows it."""
    if owner.base is None:
        return True
    try:
        return not memoryview(owner.base).readonly
    except TypeError:
        return False


def release(owners: Sequence[int]) -> None:
    """Undo one `protect`."""
    if not owners:
        return
    with lock:
        for owner in owners:
            count, locked = captures[owner]
            count.pop()
            if not count and captures.pop(owner, None):
                for array in locked.values():  # the owner first
                    array.flags.writeable = True
