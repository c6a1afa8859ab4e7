"""The embedding on a GPU: rows of a table by their ids, and the gradient of the table."""

from __future__ import annotations

import numpy as np

from ..arraylike import is_array
from ..graph import Deferred
from .launch import c_type, ceil_div, contiguous, empty, has_c_type, launch, vector


def embedding(weight, *, ids):
    """weight (V, C), integer ids (...) -> (..., C), of the dtype of weight.

    An id on the GPU that is outside 0 <= id < V has a row of NaN and no gradient.
    """
    ids = np.asarray(ids) if isinstance(ids, (int, np.generic)) else ids
    if not is_array(ids) or ids.dtype.kind not in "iu" or weight.ndim != 2:
        return NotImplemented
    if not has_c_type(weight) or ids.size >= 2**31 - 4096:
        return NotImplemented
    if isinstance(ids, np.ndarray):
        if ids.size and not 0 <= ids.min() <= ids.max() < len(weight):
            return NotImplemented  # the ordinary body says which id is wrong
    ids = contiguous(np.asarray(ids, dtype=np.int64, like=weight))
    weight = contiguous(weight)
    rows, n = weight.shape
    out = empty((*ids.shape, n), weight.dtype)
    V = vector(n, weight, out)
    across = min(128, max(1, ceil_div(n, V)))
    side = max(1, 256 // across)
    launch(
        "embedding.cu",
        f"gather<{c_type(weight.dtype)}, {V}>",
        (ceil_div(ids.size, side),),
        (across, side),
        (weight, ids, out, np.int64(ids.size), np.int64(rows), n),
    )
    shape, dtype = weight.shape, weight.dtype
    return out, lambda g: EmbeddingGradient(g, ids, shape, dtype)


class EmbeddingGradient(Deferred):
    """The gradient of a table (V, C): at each id, the sum of the rows of g (..., C) that had it.

    It adds itself to a gradient that the table has already, such as that of a tied output layer.
    """

    def __init__(self, g, ids, shape: tuple[int, int], dtype):
        self.g, self.ids, self.shape, self.dtype = g, ids, shape, dtype

    def array(self):
        return self._add_to(np.zeros(self.shape, self.dtype, like=self.g))

    def plus(self, total, out=None):
        if out is None:
            out = total.copy()
        elif out is not total:
            out[...] = total
        return self._add_to(out)

    def _add_to(self, out):
        count, n = self.ids.size, self.shape[1]
        g2 = contiguous(self.g).reshape(count, n)
        sorted_ids, order = empty((count,), np.uint32), empty((count,), np.int32)
        launch(
            "embedding.cu",
            "sort_ids",
            (ceil_div(count, 32),),
            (32, 8),
            (self.ids, count, np.int64(self.shape[0]), sorted_ids, order),
        )
        V = vector(n, g2, out)
        across = min(128, max(1, ceil_div(n, V)))
        side = 4 if count > 32 * len(out) else 2  # more for long runs of equal ids
        launch(
            "embedding.cu",
            f"embedding_gradient<{c_type(g2.dtype)}, {c_type(out.dtype)}, {V}>",
            (count,),
            (across, side),
            (g2, sorted_ids, order, count, out, n),
            shared=4 * across * side * V,
        )
        return out
