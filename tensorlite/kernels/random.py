"""Masks of dropout on the GPU: what random.cu computes."""

from __future__ import annotations

import numpy as np

from .launch import ceil_div, empty, launch


def keep_mask(shape: tuple[int, ...], p: float, key, rows, draw: int):
    """Where dropout with probability p keeps: a boolean array of `shape`, on the GPU.

    It is `RowRandom.random(shape) >= p` of device.py, bit for bit, for the generator with this
    `key` (2,) uint64, these numbers of `rows` (shape[0],), 64-bit integers, and `draw` draws before
    this one. `key` and `rows` are arrays on the GPU, so that a captured step can be given others.
    """
    if key.shape != (2,) or rows.shape != tuple(shape[:1]):
        raise ValueError(f"a mask {shape} needs a key (2,) and {shape[:1]} rows, not {rows.shape}")
    if key.dtype.itemsize != 8 or rows.dtype.itemsize != 8:
        raise TypeError(f"key and rows are 64-bit integers, not {key.dtype} and {rows.dtype}")
    keep = empty(shape, np.bool_)
    if keep.size == 0:
        return keep
    n = keep.size // shape[0]
    blocks = ceil_div(n, 8)
    count = shape[0] * blocks
    sizes = np.int64(count), np.int64(blocks), np.int64(n), np.uint64(draw)
    args = key, rows, keep, *sizes, float(p)
    launch("random.cu", "keep_mask", (ceil_div(count, 256),), (256,), args)
    return keep
