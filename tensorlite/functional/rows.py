"""Reshaping arrays to rows and back, for the fused functions, which work on blocks of rows.

In their bodies, a name such as `x2` stands for an array reshaped to (rows, columns), and
`row_blocks` in device.py cuts its rows into blocks that fit the cache.
"""

from __future__ import annotations

import builtins
import math

import numpy as np
from numpy.lib.array_utils import normalize_axis_index


def as_rows(x):
    """x reshaped to (rows, columns): the last axis is kept, the others become one."""
    columns = x.shape[-1] if x.ndim else 1
    return np.reshape(x, (math.prod(x.shape[:-1]), columns))


def rows_along(x, axis):
    """(x as (rows, columns) with `axis` along the columns, the shape of x with `axis` last)."""
    normalize_axis_index(axis, builtins.max(x.ndim, 1))  # a 0-d array counts as a row of one
    moved = np.moveaxis(x, axis, -1) if x.ndim else x
    return as_rows(moved), moved.shape


def from_rows(x2, shape, axis):
    """Undo `rows_along`, which returned `shape`."""
    x = np.reshape(x2, shape)
    return np.moveaxis(x, -1, axis) if x.ndim else x


def row_dots(x, y):
    """The product of each row of x (..., n) with that of y: (...)."""
    if isinstance(x, np.ndarray):
        return np.einsum("...i,...i->...", x, y)
    return np.sum(x * y, axis=-1)  # CuPy computes einsum by a library that no graph records


def column_sums(x2):
    """The sum over rows, as a vector-matrix product: twice as fast as np.sum(x2, axis=0)."""
    # CuPy has no `np.ones(like=)`, and its `ones_like` takes the shape (0,) but not 0.
    return np.ones_like(x2, shape=(len(x2),)) @ x2
