"""Sums of two arrays, conversions, dropout, and sums over columns: what elementwise.cu computes."""

from __future__ import annotations

import numpy as np

from .launch import c_type, ceil_div, contiguous, empty, has_c_type, launch, multiprocessors, vector

FILE = "elementwise.cu"


def flat(*arrays) -> tuple[int, tuple, tuple]:
    """How kernels that use `map` of flat.cuh take arrays of one size: (V, grid, block)."""
    V = vector(8, *arrays)  # the kernels see to what is left at the end
    return V, (ceil_div(arrays[0].size, 2 * 256 * V),), (256,)


def add(x, y):
    """The body of `add`: x + y, where the shape of one may be the last axes of the other's.

    The result is float32 if one of them is. NotImplemented for numbers, for arrays of other dtypes
    and for other ways of broadcasting.
    """
    if not (_is_ours(x) and _is_ours(y)) or not _repeats(x, y) and not _repeats(y, x):
        return NotImplemented
    shape_x, type_x, shape_y, type_y = x.shape, x.dtype, y.shape, y.dtype
    return (
        plus(x, y),
        lambda g: _gradient(g, shape_x, type_x),
        lambda g: _gradient(g, shape_y, type_y),
    )


def _is_ours(x) -> bool:
    return hasattr(x, "dtype") and hasattr(x, "shape") and not np.isscalar(x) and has_c_type(x)


def _repeats(x, y) -> bool:
    """Whether y is repeated along the first axes of x, or has x's shape."""
    beyond = x.ndim - y.ndim
    return x.shape == y.shape or y.size > 0 and beyond >= 0 and x.shape[beyond:] == y.shape


def _gradient(g, shape: tuple, dtype):
    """The gradient of a term of a sum: g, summed over the axes along which the term repeats."""
    if g.shape != shape:
        n = int(np.prod(shape))
        g = column_sums(contiguous(g).reshape(-1, n)).reshape(shape)
    return cast(g, dtype)


def plus(x, y, out=None):
    """x + y, float32 if one of them is; `out` may be x or y.

    Shapes are equal, or that of one is the last axes of the other's.
    """
    if x.ndim < y.ndim:
        x, y = y, x
    x, y = contiguous(x), contiguous(y)
    if out is not None and not out.flags.c_contiguous:
        out[...] = plus(x, y)
        return out
    if out is None:
        out = empty(x.shape, x.dtype if x.dtype == y.dtype else np.float32)
    types = f"{c_type(x.dtype)}, {c_type(y.dtype)}, {c_type(out.dtype)}"
    if x.shape == y.shape:
        V, grid, block = flat(x, y, out)
        launch(FILE, f"add<{types}, {V}>", grid, block, (x, y, out, np.int64(x.size)))
    else:
        V = vector(y.size, x, y, out)
        grid = (ceil_div(x.size, 2 * 256 * V),)
        sizes = np.int64(x.size), np.int64(y.size)
        launch(FILE, f"add_repeated<{types}, {V}>", grid, (256,), (x, y, out, *sizes))
    return out


def cast(x, dtype):
    """x in another dtype: a new array, or x itself if that is its dtype."""
    if x.dtype == dtype:
        return x
    x = contiguous(x)
    out = empty(x.shape, dtype)
    V, grid, block = flat(x, out)
    kernel = f"cast<{c_type(x.dtype)}, {c_type(dtype)}, {V}>"
    launch(FILE, kernel, grid, block, (x, out, np.int64(x.size)))
    return out


def drop(x, *, keep, p):
    """The body of `drop`: x / (1 - p) where the boolean array `keep` is True, and 0 elsewhere."""
    if not has_c_type(x) or x.shape != keep.shape or keep.dtype != np.bool_:
        return NotImplemented
    keep = contiguous(keep)
    if keep.data.ptr % 8:
        keep = keep.copy()  # at an address from which the kernel can read eight at once

    def apply(x):
        x = contiguous(x)
        out = empty(x.shape, x.dtype)
        V, grid, block = flat(x, out)
        args = x, keep, out, 1 / (1 - p), np.int64(x.size)
        launch(FILE, f"drop<{c_type(x.dtype)}, {V}>", grid, block, args)
        return out

    return apply(x), apply


def column_sums(g):
    """The sums over the rows of g (rows, n), float32 (n,): the gradient of a bias, for example."""
    rows, n = g.shape
    if g.size == 0:
        return np.zeros_like(g, shape=(n,), dtype=np.float32)
    g = contiguous(g)
    V = vector(n, g)
    across = ceil_div(n, 32 * V)
    count = max(1, min(ceil_div(rows, 8), 8 * multiprocessors() // across))
    part = empty((1, count, n), np.float32)
    args = g, part, np.int64(rows), n
    launch(FILE, f"column_parts<{c_type(g.dtype)}, {V}>", (across, count), (32, 8), args)
    return column_total(part)[0]


def column_total(part):
    """part (several, count, n) float32 -> (several, n): sums over `count`, in a fixed order."""
    several, count, n = part.shape
    total = empty((several, n), np.float32)
    grid = ceil_div(n, 32), several
    launch(FILE, "column_total", grid, (32, 32), (part, total, count, n))
    return total
