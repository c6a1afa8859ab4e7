"""Checks that run before parameters are written to: are they writeable, and do the values fit?

An update or a load that fails in the middle would leave a mixture of old and new numbers. So
optimizers and modules first check everything with these functions, and write only after that.
"""

from __future__ import annotations

import gc

import numpy as np

from .graph import Node
from .protect import captures, owner_of
from .tensor import Tensor


def check_writeable(name: str, array) -> None:
    """Raise ValueError if the array is read-only; the message says why and what to do."""
    if not isinstance(array, np.ndarray) or array.flags.writeable:
        return
    owner = id(owner_of(array))
    if owner not in captures:
        raise ValueError(f"{name} is a read-only array: give it a copy, which can be written to")
    # Nodes are not listed anywhere. This search is slow, but it only runs before an error.
    nodes = (x for x in gc.get_objects() if type(x) is Node and owner in x.protected)
    holders = ", ".join(sorted({f"'{node.op}'" for node in nodes})) or "an operation"
    raise ValueError(
        f"{name} cannot be changed: {holders} of a graph that is still alive needs it for its "
        "backward. Call backward() on what was computed from it, delete that, or compute it under "
        "`with tl.no_grad():` if it needs no gradient. Nothing was changed."
    )


def fitting(name: str, own, given):
    """Convert `given` (a tensor, an array, a list) to an array that can be copied into `own`.

    Raises ValueError if the shapes differ or the array `own` is read-only, and TypeError if the
    dtype of `given` cannot be converted to that of `own`, such as complex to float.
    """
    given = given.data if isinstance(given, Tensor) else given
    array = given if type(given) is type(own) else np.asarray(given)
    if array.shape != own.shape:
        raise ValueError(f"{name} has shape {array.shape}, this model's has {own.shape}")
    if not np.can_cast(array.dtype, own.dtype, "same_kind"):
        raise TypeError(f"{name} is of dtype {array.dtype}, which cannot become {own.dtype}")
    check_writeable(name, own)
    return array
