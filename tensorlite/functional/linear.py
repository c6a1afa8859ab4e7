"""The linear layer: a matrix product and a bias."""

from __future__ import annotations

import numpy as np

from ..op import op
from ..ops import matmul
from .rows import as_rows, column_sums


def linear_composed(x, weight, bias=None):
    y = matmul(x, weight)
    return y if bias is None else y + bias


@op(composed=linear_composed, fresh=True)
def linear(x, weight, bias=None, *, needs):
    """x @ weight + bias: x (..., n), weight (n, m), bias (m,) or None -> (..., m).

    Raises ValueError for shapes that do not fit.
    """
    if weight.ndim != 2 or (bias is not None and bias.shape != weight.shape[1:]):
        raise ValueError(
            f"linear: weight is (n, m) and bias (m,), not {weight.shape} and "
            f"{None if bias is None else bias.shape}"
        )
    x2, m = as_rows(x), weight.shape[1]
    if x2.shape[1] != weight.shape[0]:
        raise ValueError(f"linear: x {x.shape} and weight {weight.shape} differ in the inner size")
    y = x2 @ weight
    if bias is not None:
        y += bias
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
