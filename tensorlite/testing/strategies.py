"""Hypothesis strategies that draw arrays and shapes; hypothesis is imported when one is called."""

from __future__ import annotations

import numpy as np

from ..arraylike import is_float
from .ways import FACTORS, arranged

KINDS = "nonzero", "positive", "distinct"


def arrays(shape=None, kind: str = "nonzero", dtype=np.float64):
    """A hypothesis strategy for arrays of `shape` (a tuple, a strategy, or None: any small one).

    The kind "nonzero" draws numbers of both signs, at least 0.2 from 0; "positive" draws their
    absolute values; "distinct" draws numbers of which no two are closer than 0.05. So a function
    that has a kink at 0, or where two entries are equal, is still smooth at the numbers drawn.
    Integers are at least 1 in size, or merely different for the kind "distinct"; for an unsigned
    dtype none is negative. Axes may have size 0 or 1, and the memory may be in C order, in Fortran
    order, strided or reversed.

    The dtype may be bfloat16 of the package ml_dtypes. Raises ValueError for another kind, and
    TypeError for a dtype that is not of integers or floats.
    """
    from hypothesis import strategies as st

    if kind not in KINDS:
        raise ValueError(f"kind is one of {', '.join(map(repr, KINDS))}, not {kind!r}")
    dtype = np.dtype(dtype)
    if dtype.kind not in "iu" and not is_float(dtype):
        raise TypeError(f"arrays of integers or floats are drawn, not of {dtype}")
    shape = shapes() if shape is None else shape
    shape = shape if hasattr(shape, "flatmap") else st.just(tuple(shape))
    layouts = st.sampled_from(list(FACTORS))
    seeds = st.integers(0, 2**32 - 1)
    return st.builds(array_of, shape, st.just(kind), st.just(dtype), layouts, seeds)


def shapes(min_dims: int = 0, max_dims: int = 3, min_side: int = 0, max_side: int = 4):
    """A strategy for shapes: `min_dims` to `max_dims` sizes from `min_side` to `max_side`."""
    from hypothesis import strategies as st

    sides = st.integers(min_side, max_side)
    return st.lists(sides, min_size=min_dims, max_size=max_dims).map(tuple)


def broadcastable(n: int, **limits):
    """A strategy for `n` shapes that broadcast with each other."""
    from hypothesis.extra.numpy import mutually_broadcastable_shapes

    limits = {"min_side": 0, "max_side": 3, "max_dims": 3} | limits
    return mutually_broadcastable_shapes(num_shapes=n, **limits).map(lambda r: r.input_shapes)


def array_of(shape, kind, dtype, layout, seed):
    rng = np.random.default_rng(seed)
    if kind == "distinct":
        n = int(np.prod(shape))
        values = rng.permutation(n).reshape(shape)
        if is_float(dtype):
            values = values * 0.1 - 0.05 * n + rng.uniform(-0.025, 0.025, shape)
        elif dtype.kind == "i":
            values = values - n // 2
        if not is_float(dtype) and n > np.iinfo(dtype).max:
            raise ValueError(f"{dtype} has no {n} distinct numbers: draw fewer, or a wider dtype")
    else:
        values = rng.uniform(0.2, 2.0, shape) if is_float(dtype) else rng.integers(1, 10, shape)
        if kind == "nonzero" and dtype.kind != "u":
            values = values * rng.choice([-1, 1], shape)
    return arranged(np.asarray(values).astype(dtype), layout)
