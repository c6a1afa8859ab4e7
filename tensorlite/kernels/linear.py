"""The linear layer and the matrix product on a GPU.

The gradient of a layer's input is a product that is not computed at once: added to the gradient
that the residual stream has already, or multiplied by the slope of GELU, it costs no pass of its
own over the array.
"""

from __future__ import annotations

import math

import numpy as np

from ..graph import Deferred
from .elementwise import cast, column_sums
from .launch import contiguous, has_c_type
from .precision import low, lowered, tf32
from .products import matmul as product


class Product(Deferred):
    """The gradient of a linear layer's input: g @ weight.T, in the input's shape and dtype."""

    def __init__(self, g, weight, shape: tuple[int, ...], dtype: np.dtype, tf32: bool):
        self.g = g  # (rows, m), of the dtype of the weight (n, m)
        self.weight = weight
        self.shape = shape
        self.dtype = dtype
        self.tf32 = tf32

    def _computed(self, dtype, **rest):
        y = product(self.g, self.weight, tb=True, dtype=dtype, tf32=self.tf32, **rest)
        return np.reshape(y, self.shape)

    def array(self):
        return self._computed(self.dtype)

    def plus(self, total, out=None):
        in_place = out is not None and out.flags.c_contiguous
        rows = self._rows(total)
        target = self._rows(out) if in_place else None
        y = self._computed(total.dtype, add=rows, out=target)
        if out is None:
            return y
        if not in_place:
            out[...] = y
        return out

    def times_gelu_slope(self, x):
        """The gradient that GELU passes on, where this is the gradient of gelu(x): a new array."""
        return self._computed(x.dtype, epilogue="dgelu", aux=self._rows(x))

    def _rows(self, x):
        return np.reshape(contiguous(x), (len(self.g), len(self.weight)))


def linear(x, weight, bias=None, *, order="C", needs):
    """functional.linear: x (..., n), weight (n, m), bias (m,) or None -> (..., m) of low(x)."""
    if not has_c_type(x, weight, bias) or weight.ndim != 2 or x.shape[-1:] != weight.shape[:1]:
        return NotImplemented  # the ordinary body has the words for shapes that do not fit
    if bias is not None and bias.shape != weight.shape[1:]:
        return NotImplemented
    dtype, rounded = low(x), tf32()
    n, m = weight.shape
    shape, rows = x.shape, math.prod(x.shape[:-1])
    x2 = cast(np.reshape(contiguous(x), (rows, n)), dtype)
    w = _weight(weight, dtype)
    bias = bias if bias is None else _weight(bias, dtype)
    y = product(x2, w, bias=bias, tf32=rounded)  # (rows, m)
    of_x, of_weight = x.dtype, weight.dtype
    x2, w = x2 if needs[1] else None, w if needs[0] else None

    def vjp(g):
        g = cast(np.reshape(contiguous(g), (rows, m)), dtype)
        return (
            Product(g, w, shape, of_x, rounded) if needs[0] else None,
            product(x2, g, ta=True, dtype=of_weight, tf32=rounded) if needs[1] else None,
            column_sums(g) if needs[2] else None,
        )

    return np.reshape(y, (*shape[:-1], m)), vjp


def _weight(weight, dtype):
    """A weight in the dtype of the product: itself, its low copy, or a cast."""
    return lowered(weight) if low(weight) == dtype else cast(weight, dtype)


def matmul(x, y):
    """ops.matmul where the batch axes of the two are the same, or y (k, m) has none."""
    fits = x.ndim > 1 and y.ndim > 1 and x.shape[-1] == y.shape[-2]
    if not fits or not has_c_type(x, y) or (y.ndim > 2 and x.shape[:-2] != y.shape[:-2]):
        return NotImplemented
    dtype, rounded = low(x), tf32()
    if low(y) != dtype:
        return NotImplemented
    shape = (*x.shape[:-1], y.shape[-1])
    shapes, dtypes = (x.shape, y.shape), (x.dtype, y.dtype)
    batched = y.ndim > 2
    x, y = (_matrices(cast(a, dtype), batched) for a in (x, y))

    def vjp_x(g):
        g = _matrices(cast(g, dtype), batched)
        return np.reshape(product(g, y, tb=True, dtype=dtypes[0], tf32=rounded), shapes[0])

    def vjp_y(g):
        g = _matrices(cast(g, dtype), batched)
        return np.reshape(product(x, g, ta=True, dtype=dtypes[1], tf32=rounded), shapes[1])

    return np.reshape(product(x, y, tf32=rounded), shape), vjp_x, vjp_y


def _matrices(x, batched: bool):
    """x (..., rows, columns) with one axis for all its batch axes, or as a matrix of all rows."""
    *batch, rows, columns = x.shape
    count = math.prod(batch)
    return np.reshape(x, (count, rows, columns) if batched else (count * rows, columns))
