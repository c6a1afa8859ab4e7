"""How matrices lie in memory, and which product of them is asked for.

A product takes matrices whose rows are contiguous, at any distance from each other, and transposed
ones; so most views of arrays need no copy. The choice of an algorithm depends on all that is
written down here.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


def with_rows(x, transposed: bool):
    """`x` with contiguous rows, as a view or as a copy, and whether it is transposed then."""
    if has_rows(x):
        return x, transposed
    flipped = np.swapaxes(x, -1, -2)
    if has_rows(flipped):
        return flipped, not transposed
    return x.copy(), transposed


def has_rows(x) -> bool:
    """Whether the elements of each row are neighbours, and the rows do not overlap."""
    size, (rows, columns) = x.dtype.itemsize, x.shape[-2:]
    steps = x.strides[:-1] if rows > 1 else x.strides[:-2]
    return (
        (columns == 1 or x.strides[-1] == size)
        and (rows == 1 or x.strides[-2] >= columns * size)
        and all(step >= 0 and step % size == 0 for step in steps)
    )


class Matrix(NamedTuple):
    """How a matrix, or a batch of matrices, lies in memory."""

    dtype: str
    row: int  # elements from one row to the next
    stride: int  # elements from one matrix of the batch to the next
    alignment: int  # a number of bytes by which the address is divisible

    def __str__(self) -> str:
        return f"{self.dtype}/{self.row}/{self.stride}/{self.alignment}"


def matrix(x) -> Matrix:
    """The description of an array whose rows are contiguous: (..., rows, columns) or a vector."""
    size, address = x.dtype.itemsize, x.data.ptr
    row = x.shape[-1]
    if x.ndim > 1 and x.shape[-2] > 1:
        row = x.strides[-2] // size
    stride = x.strides[0] // size if x.ndim == 3 and len(x) > 1 else 0
    alignment = 256 if address % 256 == 0 else min(16, address & -address)
    return Matrix(x.dtype.name, row, stride, alignment)


class Problem(NamedTuple):
    """All that the choice of an algorithm depends on: out = op(a) @ op(b) and what follows it."""

    rows: int
    columns: int
    inner: int
    batch: int
    ta: bool
    tb: bool
    a: Matrix
    b: Matrix
    out: Matrix
    add: Matrix | None
    bias: Matrix | None
    epilogue: str  # "", "gelu" or "dgelu"
    aux: Matrix | None
    tf32: bool

    def __str__(self) -> str:
        sizes = "x".join(map(str, self[:4]))
        sides = f"{self.a}{'T' if self.ta else ''} {self.b}{'T' if self.tb else ''}"
        rest = f"add {self.add} bias {self.bias} {self.epilogue or '-'} {self.aux}"
        return f"{sizes} {sides} {self.out} {rest}{' tf32' if self.tf32 else ''}"
