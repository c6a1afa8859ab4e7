"""Arrays that a pending backward pass needs are read-only.

A vjp captures arrays in the forward pass and uses them in the backward pass. If a user changed one
in between, the gradient would be wrong and no error would be raised. So the engine makes the
captured arrays read-only, and writeable again when the last node that needs them has been used by
the backward pass or is deleted without one.

Two cases are not covered: a view that the user took before the capture stays writeable, and so does
memory that NumPy could not make writeable again (from DLPack, `as_strided`). A view that is taken
while its memory is protected stays read-only afterwards.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from types import FunctionType

import numpy as np

# The id of the array that owns a piece of memory -> (a list whose length is the number of captures,
# the arrays over that memory that were made read-only, by id). These become writeable again
# together, because NumPy refuses to make a view writeable while its base array is read-only.
# Captures are counted by the length of a list because the garbage collector, which may free another
# node at any time, cannot interrupt `append` and `pop` halfway.
captures: dict[int, tuple[list, dict]] = {}
lock = threading.RLock()

_CONTAINERS = {FunctionType, list, tuple}


def captured(vjps) -> list[np.ndarray]:
    """The NumPy arrays in the closures of vjps. CuPy's arrays have no writeable flag."""
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
    """Make arrays, and the arrays that own their memory, read-only; returns owners for `release`.

    `others` are an operation's operands and value, which users reach as `tensor.data`. Those that
    are views of the same memory are made read-only too.
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
    """Whether NumPy can make the array writeable again later.

    It can if the array has memory of its own, or memory of an object with a writeable buffer.
    """
    if owner.base is None:
        return True
    try:
        return not memoryview(owner.base).readonly
    except TypeError:
        return False


def release(owners: Sequence[int]) -> None:
    """Undo one call of `protect`, which returned `owners`."""
    if not owners:
        return
    with lock:
        for owner in owners:
            count, locked = captures[owner]
            count.pop()
            if not count and captures.pop(owner, None):
                for array in locked.values():  # in the order of locking: the owner comes first
                    array.flags.writeable = True
