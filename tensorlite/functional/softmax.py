"""Softmax and its logarithm, and the logarithm of a sum of exponentials."""

from __future__ import annotations

import math

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple

from ..device import row_blocks
from ..op import op
from ..ops import abs, axis_of, exp, log, squeeze, sum, top_of, where
from .rows import from_rows, rows_along


def softmax_composed(x, axis=-1):
    e = exp(x - top_of(x, axis))  # the shift prevents overflow and cancels in the quotient
    return e / sum(e, axis=axis, keepdims=True)


@op(composed=softmax_composed, fresh=True)
def softmax(x, *, axis=-1, needs):
    """exp(x) / sum(exp(x)) along one axis, safe for large x."""
    x2, shape = rows_along(x, axis)
    y2, rest = np.empty_like(x2), np.empty_like(x2, shape=(len(x2), 1))
    largest = np.argmax(x2, axis=1) if x2.size else None
    for block in row_blocks(x2) if x2.size else ():
        at = np.arange(len(x2[block]), like=x2), largest[block]
        yb, others, total, _ = exp_rows(x2[block], x2[block][at][:, None], at, out=y2[block])
        yb /= total
        rest[block] = others / total

    def vjp(g):
        # gx = (g - sum(g y)) y. For the largest y, which may be nearly 1, this subtracts two nearly
        # equal numbers. To avoid that, its own term is taken out of the sum: g - g y = g rest.
        g2, _ = rows_along(g, axis)
        gx = np.empty_like(g2)
        for block in row_blocks(g2) if g2.size else ():
            gb, yb, rows = g2[block], y2[block], gx[block]
            at = np.arange(len(gb), like=gb), largest[block]
            g_top, y_top = gb[at][:, None], yb[at][:, None]
            np.multiply(gb, yb, out=rows)
            rows[at] = 0
            others = np.sum(rows, axis=1, keepdims=True)
            np.subtract(gb, others + g_top * y_top, out=rows)
            rows *= yb
            rows[at] = ((g_top * rest[block] - others) * y_top)[:, 0]
        return (from_rows(gx, shape, axis),)

    return from_rows(y2, shape, axis), vjp


def log_softmax_composed(x, axis=-1):
    shifted = x - top_of(x, axis)
    return shifted - log(sum(exp(shifted), axis=axis, keepdims=True))


@op(composed=log_softmax_composed, fresh=True)
def log_softmax(x, *, axis=-1, needs):
    """log(softmax(x)) along one axis, without overflow and the rounding error of two steps."""
    x2, shape = rows_along(x, axis)
    y2, rest = np.empty_like(x2), np.empty_like(x2, shape=(len(x2), 1))
    largest = np.argmax(x2, axis=1) if x2.size else None
    for block in row_blocks(x2) if x2.size else ():
        at = np.arange(len(x2[block]), like=x2), largest[block]
        top = x2[block][at][:, None]
        _, others, total, scale = exp_rows(x2[block], top, at, out=y2[block])
        rest[block] = others / total
        yb = np.subtract(x2[block], top, out=y2[block])
        yb -= np.log1p(others * scale)  # the log of the sum of exp(x - top)

    def vjp(g):
        # gx = g - softmax(x) sum(g). The largest element's own term is g - g p = g rest, as in
        # softmax.
        g2, _ = rows_along(g, axis)
        gx = np.empty_like(g2)
        for block in row_blocks(g2) if g2.size else ():
            gb = g2[block]
            at = np.arange(len(gb), like=gb), largest[block]
            total, g_top = np.sum(gb, axis=1, keepdims=True), gb[at][:, None]
            p = np.exp(y2[block], out=gx[block])
            p_top = p[at][:, None]
            p *= total
            np.subtract(gb, p, out=p)
            p[at] = (g_top * rest[block] - p_top * (total - g_top))[:, 0]
        return (from_rows(gx, shape, axis),)

    return from_rows(y2, shape, axis), vjp


def logsumexp_composed(x, axis=None, keepdims=False):
    axis = axis_of(axis, x)
    top = top_of(x, axis)
    top = where(abs(top) == math.inf, 0.0, top)
    y = log(sum(exp(x - top), axis=axis, keepdims=True)) + top
    return y if keepdims else squeeze(y, axis)


@op(composed=logsumexp_composed)
def logsumexp(x, *, axis=None, keepdims=False):
    """log(sum(exp(x))) over `axis` (None: all elements), safe for large x."""
    axis = axis_of(axis, x)
    if not x.size:  # there is no largest element, and the sums are 0
        y = np.log(np.sum(x, axis=axis, keepdims=keepdims))
        return y, lambda g: x
    rows, shape, back = _reduced_rows(x, axis, keepdims)
    at = np.arange(len(rows), like=rows), np.argmax(rows, axis=1)
    largest = rows[at][:, None]
    top = np.where(np.isinf(largest), 0, largest)
    e, others, total, scale = exp_rows(rows, top, at)
    y = largest + np.log1p(others * scale)

    def vjp(g):
        return back(np.reshape(g, (-1, 1)) / total * e)

    return np.reshape(y, shape), vjp


def _reduced_rows(x, axis, keepdims):
    """(rows, shape, back) for a reduction of x over `axis`.

    `rows` (rows, columns) is x with the reduced axes along the columns. `shape` is the shape of the
    result, one number for each row. `back` is a function that reshapes rows to the shape of x.
    """
    reduced = normalize_axis_tuple(range(x.ndim) if axis is None else axis, x.ndim)
    left = [a for a in range(x.ndim) if a not in reduced]
    order = [*left, *reduced]
    moved, back = tuple(x.shape[a] for a in order), np.argsort(order).tolist()
    rows = np.reshape(np.transpose(x, order), (-1, math.prod(x.shape[a] for a in reduced)))
    shape = tuple(n if a in left else 1 for a, n in enumerate(x.shape) if keepdims or a in left)
    return rows, shape, lambda rows: np.transpose(np.reshape(rows, moved), back)


_UNSHIFTED = 30  # exp(30) is 1e13: sums and gradients of such numbers do not overflow in float32


def exp_rows(x, top, at, out=None):
    """The exponentials of rows x (r, n) and their sums, for softmax and the functions like it.

    `top` (r, 1) has the largest element of each row, and `at` is an index of one element per row.
    Returns four arrays: exp(x - shift) (r, n), written to `out` if given; its sums without the
    element `at` (r, 1); its sums with that element (r, 1); and exp(shift - top) (r, 1), the factor
    that turns the exponentials into those of x - top.

    `shift` is 0 where exp cannot overflow, and `top` elsewhere. It is 0 where possible because
    x - top is rounded, and the relative error of exp is the absolute error of its argument. The sum
    without one element serves for a probability near 1: 1 minus it is exactly that sum / total.
    """
    shift = np.where((top >= 0) & (top <= _UNSHIFTED), 0, top)
    e = np.subtract(x, shift, out=out)
    np.exp(e, out=e)
    one = e[at]
    e[at] = 0
    others = np.sum(e, axis=1, keepdims=True)
    e[at] = one
    return e, others, others + one[:, None], np.exp(shift - top)
