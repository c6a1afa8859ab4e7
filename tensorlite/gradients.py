"""What happens to a gradient on its way back: it is added up, and broadcasting is undone.

tensor.py, which comes before this file, calls `accumulate` for each gradient that a vjp returns.
"""

from __future__ import annotations

import numpy as np

from .arraylike import array_of, broadcasts, is_half, whole, wide_sum
from .graph import Deferred, Node, Part

_ARRAYS = np.ndarray, np.generic


def accumulate(before, new, parent, node: Node, i: int):
    """Add `new`, one more gradient of a value, to those added so far; returns (sum, owned).

    `before` is the earlier result, or None for the first gradient. The engine adds in place only to
    arrays that it owns; the head of tensor.py says which ones.
    """
    if isinstance(new, _ARRAYS):
        pass
    elif isinstance(new, Part):
        half = is_half(parent.dtype)  # how numbers are stored; sums are float32
        before = before and computed(*before)
        if before is None:
            total = np.zeros(parent.shape, np.float32 if half else parent.dtype, like=new.g)
        elif is_half(before[0].dtype):
            total = whole(before[0]).astype(np.float32)
        else:
            total = before[0] if before[1] else whole(before[0].copy())
        new.add_to(total)
        return total, True
    elif isinstance(new, Deferred):
        if new.shape == parent.shape and new.dtype == parent.dtype:
            if before is None:
                return new, True  # computed when it is asked for
            total, owned = computed(*before)
            return new.plus(total, out=total if owned else None), True
        new = new.array()
    else:
        new = array_of(new)
    try:
        fits = new.shape == parent.shape and new.dtype == parent.dtype
    except AttributeError:
        raise TypeError(
            f"the vjp of '{node.op}' gave input {i} an object of type {type(new).__name__}; "
            "a gradient is an array"
        ) from None
    if not fits:
        new = fit(new, parent, node, i)
    fresh = node.fresh and not isinstance(new, np.generic)
    if before is None:
        return new, fresh
    g, owned = before
    if isinstance(g, Deferred):
        return g.plus(new, out=new if fresh else None), True
    if is_half(g.dtype):
        return whole(whole(g).astype(np.float32) + new), True
    if owned:
        g += new
        return before
    if fresh:
        new += g
        return new, True
    total = g + new
    return total, not isinstance(total, np.generic)


def computed(g, owned: bool) -> tuple:
    """A gradient as an array, also where it was deferred: (gradient, owned)."""
    return (g.array(), True) if isinstance(g, Deferred) else (g, owned)


def stored(g, owned: bool, of) -> tuple:
    """A finished gradient, an array of the dtype of the value that it is for: (gradient, owned)."""
    g, owned = computed(g, owned)
    g = whole(g)
    return (g, owned) if g.dtype == of.dtype else (g.astype(of.dtype), True)


def fit(new, parent, node: Node, i: int):
    """Undo broadcasting: sum `new`, from the vjp for input `i`, to that input's shape and dtype."""
    if new.shape != parent.shape:
        if not broadcasts(parent.shape, new.shape):
            raise ValueError(
                f"the vjp of '{node.op}' gave input {i}, of shape {parent.shape}, "
                f"a gradient of shape {new.shape}"
            )
        new = unbroadcast(new, parent.shape)
    if new.dtype.kind == "c":
        raise TypeError(f"the vjp of '{node.op}' gave input {i} complex numbers, not real ones")
    return new if new.dtype == parent.dtype else new.astype(parent.dtype)


def unbroadcast(g, shape: tuple[int, ...]):
    """Sum `g` over the axes that broadcasting added to or stretched in an array of `shape`.

    Broadcasting copies values along an axis; the gradient of a copy is a sum.
    """
    added = g.ndim - len(shape)
    stretched = [added + i for i, n in enumerate(shape) if n == 1]
    return wide_sum(g, (*range(added), *stretched)).reshape(shape)
