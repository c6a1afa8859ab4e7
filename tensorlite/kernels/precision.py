"""In which precision a GPU computes: what `tl.autocast` says, and low copies of the weights.

Products and attention are computed in the low precision, with sums in float32. The parameters, the
residual stream, the statistics of norms, the losses and the gradients of parameters stay float32.
"""

from __future__ import annotations

import contextlib
import contextvars

import numpy as np

from ..arraylike import bfloat16
from ..modes import mode
from .elementwise import cast

# The low copies of the float32 weights that are in use: address of the weight -> (weight, copy).
_copies = contextvars.ContextVar("low_copies", default={})  # noqa: B039 (never changed in place)


def low(x) -> np.dtype:
    """The dtype in which products of x are computed."""
    precision = mode.get().products
    if x.dtype != np.float32 or precision in (None, "tf32"):
        return x.dtype
    return low_dtype(precision)


def low_dtype(precision: str) -> np.dtype:
    return bfloat16() if precision == "bfloat16" else np.dtype(precision)


def tf32() -> bool:
    """Whether float32 products are computed from numbers rounded to 10 bits after the point."""
    return mode.get().products == "tf32"


def lowered(x):
    """`x` in the dtype of its products: the copy in use of a weight, or a cast."""
    dtype = low(x)
    if dtype == x.dtype:
        return x
    weight, copy = _copies.get().get(x.data.ptr, (None, None))
    return copy if weight is x and copy.dtype == dtype else cast(x, dtype)


@contextlib.contextmanager
def copies(pairs: list):
    """In the block, `lowered` takes for a weight its copy, from pairs (weight, copy).

    Neither may change in the block.
    """
    token = _copies.set({w.data.ptr: (w, copy) for w, copy in pairs})
    try:
        yield
    finally:
        _copies.reset(token)


def usable(precision: str | None = None) -> str:
    """`precision`, or where it is None the best that the GPU has: bfloat16, before it float16.

    Raises ValueError for bfloat16 or TF32 on a GPU without them (before compute capability 8.0).
    """
    import cupy

    capability = int(cupy.cuda.Device().compute_capability) / 10  # from "75", "90"
    if precision is None:
        return "bfloat16" if capability >= 8 else "float16"
    if capability < 8 and precision in ("bfloat16", "tf32"):
        raise ValueError(
            f"this GPU, of compute capability {capability}, has no {precision} products: take "
            "float16, or float32"
        )
    return precision
