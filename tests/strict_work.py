"""NumPy's functions as work for a stream of the strict device."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from tests.strict_memory import allocate
from tests.strict_streams import at_once, enqueue, launches


def execute(name: str, function: Callable, *args, into: np.ndarray | None = None, **kwargs):
    """function(*args, **kwargs), of NumPy arrays, on the current stream; the result.

    `into` is that array among the arguments to which the function writes. What is done later gives
    its results in memory that is allocated now; to know their shapes, the function is tried on what
    the arrays hold, if only poison. Views of an argument are no work.
    """
    if at_once():
        result = _compute(function, args, kwargs)
        if into is not None or any(not _is_view(r, args, kwargs) for r in _leaves(result)):
            launches[name] += 1
        return result
    if into is not None:
        if not into.flags.writeable:
            raise ValueError(f"{name} would write to a view that cannot be written to")
        _try(function, *_with_copy(into, args, kwargs))
        enqueue(lambda: _compute(function, args, kwargs), name)
        return into
    result = _map(lambda r: r, _try(function, args, kwargs))
    targets = _map(lambda r: r if _is_view(r, args, kwargs) else allocate(r.shape, r.dtype), result)
    if all(t is r for t, r in zip(_leaves(targets), _leaves(result), strict=True)):
        return targets

    def work():
        for target, value in zip(_leaves(targets), _leaves(_compute(function, args, kwargs))):
            if not _is_view(target, args, kwargs):
                target[...] = value

    enqueue(work, name)
    return targets


def _compute(function, args, kwargs):
    with np.errstate(all="ignore"):  # a GPU does not warn
        return function(*args, **kwargs)


def _try(function, args, kwargs):
    try:
        return _compute(function, args, kwargs)
    except IndexError:  # index arrays that are not computed yet hold poison
        return _compute(function, _map(_without_poison, args), _map(_without_poison, kwargs))


def _without_poison(array: np.ndarray) -> np.ndarray:
    return np.zeros_like(array) if array.dtype.kind in "iu" else array


def _with_copy(into: np.ndarray, args, kwargs):
    copy = into.copy()
    return _map(lambda a: copy if a is into else a, (args, kwargs))


def _is_view(result: np.ndarray, *args) -> bool:
    return any(np.may_share_memory(result, a) for a in _leaves(args))


def _map(change: Callable, value):
    """`value` with every array in it changed; NumPy's scalars are arrays too."""
    if isinstance(value, np.ndarray):
        return change(value)
    if isinstance(value, np.generic):
        return change(np.asarray(value))
    if isinstance(value, dict):
        return {key: _map(change, v) for key, v in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_make"):
        return value._make(_map(change, v) for v in value)
    if isinstance(value, (list, tuple)):
        return type(value)(_map(change, v) for v in value)
    return value


def _leaves(value) -> Iterator[np.ndarray]:
    found: list[np.ndarray] = []
    _map(found.append, value)
    return iter(found)
