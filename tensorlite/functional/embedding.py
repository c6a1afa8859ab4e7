"""The embedding, which looks up rows of a table."""

from __future__ import annotations

import numpy as np

from ..graph import Part
from ..op import op
from ..ops import getitem, index_array


def embedding_composed(weight, ids):
    return getitem(weight, ids if hasattr(ids, "dtype") else np.asarray(ids))


@op(composed=embedding_composed, gpu="embedding")
def embedding(weight, *, ids):
    """The row of `weight` for each id: weight (V, C), integer ids (...) -> (..., C).

    Raises TypeError if the ids are not integers, and IndexError for an id outside 0 <= id < V. Ids
    on a GPU are not checked.
    """
    ids, shape = index_array(ids), weight.shape
    ids = np.asarray(ids) if isinstance(ids, (int, np.generic)) else ids
    if ids.dtype.kind not in "iu":
        raise TypeError(f"embedding takes integer ids, not {ids.dtype}")
    if isinstance(ids, np.ndarray) and ids.size and not 0 <= ids.min() <= ids.max() < shape[0]:
        wrong = ids.min() if ids.min() < 0 else ids.max()
        raise IndexError(f"id {wrong} is outside the vocabulary of {shape[0]}")

    def vjp(g):
        # Sorting brings equal ids together, so that the gradient of each row of the table is the
        # sum of a run of rows. This is ten times faster than np.add.at, which adds element by
        # element. The rows of the table without an id have no gradient.
        order = np.argsort(ids, axis=None, kind="stable")
        ordered = ids.reshape(-1)[order]
        starts = np.flatnonzero(np.diff(ordered, prepend=-1))
        rows = np.reshape(g, (ids.size, *shape[1:]))
        if starts.size:
            cuts = np.asarray(starts, like=g)  # ids may be on the CPU and g on a GPU
            rows = np.add.reduceat(
                rows[order], cuts, axis=0, dtype=np.result_type(g.dtype, np.float32)
            )
        return Part(rows, ordered[starts], repeated=False)

    return weight[ids], vjp
