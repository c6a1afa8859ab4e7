"""The linear layer: a matrix product and a bias."""

from __future__ import annotations

import math

import numpy as np

from ..op import op
from ..ops import matmul
from ..threads import MANY, blas_threads, in_threads
from .rows import as_rows, column_sums


def linear_composed(x, weight, bias=None, order="C"):
    y = matmul(x, weight)
    return y if bias is None else y + bias


@op(composed=linear_composed, fresh=True, gpu="linear")
def linear(x, weight, bias=None, *, order="C", needs):
    """x @ weight + bias: x (..., n), weight (n, m), bias (m,) or None -> (..., m).

    With the `order` "F" the memory of the result has a column after the other, if there are many
    rows; a GPU ignores it. Raises ValueError for shapes that do not fit and for another order.
    """
    if weight.ndim != 2 or (bias is not None and bias.shape != weight.shape[1:]):
        raise ValueError(
            f"linear: weight is (n, m) and bias (m,), not {weight.shape} and "
            f"{None if bias is None else bias.shape}"
        )
    if order not in ("C", "F"):
        raise ValueError(f"linear: order is 'C' or 'F', not {order!r}")
    x2, m = as_rows(x), weight.shape[1]
    if x2.shape[1] != weight.shape[0]:
        raise ValueError(f"linear: x {x.shape} and weight {weight.shape} differ in the inner size")
    if order == "F" and len(x2) > FEW:
        y = (weight.T @ x2.T).T
        if bias is not None:
            y += bias
    elif any(needs):
        y = x2 @ weight
        if bias is not None:
            y += bias
    else:
        y = product(x2, weight, bias)
    shape, rows = x.shape, len(x2)
    x2 = x2 if needs[1] else None
    weight = weight if needs[0] else None

    def vjp(g):
        g2 = np.reshape(g, (rows, m))
        return (
            np.reshape(g2 @ weight.T, shape) if needs[0] else None,
            x2.T @ g2 if needs[1] else None,
            column_sums(g2) if needs[2] else None,
        )

    return np.reshape(y, (*shape[:-1], m)), vjp


FEW = 8  # rows for which BLAS is slower than a product for each of them
BLOCK = 2**19  # weights that stay in the cache while each of a few rows is multiplied with them


def one_by_one(x, weight):
    """x @ weight by a product of each row with the weight, which BLAS does without copying it."""
    return np.matmul(x[:, None, :], weight)[:, 0]


def product(x, weight, bias=None):
    """x @ weight + bias: x (rows, n), weight (n, m), bias (m,) or None -> (rows, m).

    This is for reading texts; in training, BLAS alone is faster. Large products are divided among
    threads of ours rather than of BLAS: its threads would go on waiting for more, on a core that
    the next operation could use. A few rows are multiplied one by one, with one block of the weight
    after another: before BLAS multiplies a matrix with several rows it copies it, which takes
    longer.
    """
    (rows, n), m = x.shape, weight.shape[1]
    on_cpu = isinstance(x, np.ndarray)
    if on_cpu and 1 < rows <= FEW and n * m >= BLOCK and x.dtype == weight.dtype:
        y = np.empty((rows, m), x.dtype)
        step = max(1, BLOCK // n)
        for columns in (slice(i, i + step) for i in range(0, m, step)):
            y[:, columns] = one_by_one(x, weight[:, columns])
        return y if bias is None else y + bias
    size = rows * n * m // 256  # what takes as long as so many elements of other operations
    if not on_cpu or size < MANY or blas_threads() == 1 or x.dtype != weight.dtype:
        y = x @ weight
        if bias is not None:
            y += bias
        return y
    y = np.empty((rows, m), x.dtype)

    def fill(part):
        np.matmul(x[part], weight, out=y[part])
        if bias is not None:
            y[part] += bias

    step = math.ceil(rows / blas_threads())
    in_threads(fill, [slice(i, i + step) for i in range(0, rows, step)], y, size)
    return y
