"""The functions of neural networks: each composed from primitives first, then fused.

The composed definition is what to read: a few lines whose gradient the engine derives. The fused
operation below it computes the same in one pass over the data, with a gradient worked out by hand;
one test walks all of them and holds value and gradients equal.

Fused bodies go over blocks of rows that fit the cache (`row_blocks`) and write with `out=` into
arrays of their own. Inside them, variables named `x2` are views of shape (rows, columns).
"""

from __future__ import annotations

import builtins
import math

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

from .device import row_blocks
from .ops import (
    broadcast_to,
    erf,
    erfcx,
    exp,
    exp_minus_square,
    exp_rows,
    log,
    masked_fill,
    matmul,
    mean,
    rsqrt,
    sigmoid,
    sum,
    swapaxes,
    take_along_axis,
    top_of,
)
from .tensor import Tensor, _array, op, tensor


def _rows(x):
    """x as (rows, columns): its last axis kept, the others made one."""
    columns = x.shape[-1] if x.ndim else 1
    return np.reshape(x, (math.prod(x.shape[:-1]), columns))


# =================================================================================================
# Softmax
# =================================================================================================


def softmax_composed(x, axis=-1):
    e = exp(x - top_of(x, axis))  # no overflow; the shift cancels
    return e / sum(e, axis=axis, keepdims=True)


@op(composed=softmax_composed, fresh=True)
def softmax(x, *, axis=-1, needs):
    """exp(x) / sum(exp(x)) along one axis, safe for large x."""
    x2, shape = _rows_along(x, axis)
    y2, rest = np.empty_like(x2), np.empty_like(x2, shape=(len(x2), 1))
    largest = np.argmax(x2, axis=1) if x2.size else None
    for block in row_blocks(x2) if x2.size else ():
        at = np.arange(len(x2[block]), like=x2), largest[block]
        yb, others, total, _ = exp_rows(x2[block], x2[block][at][:, None], at, out=y2[block])
        yb /= total
        rest[block] = others / total

    def vjp(g):
        # gx = (g - sum(g y)) y. For the largest y, which may be nearly 1, that is the difference of
        # two nearly equal numbers, unless its own part of the sum is taken out: g - g y = g rest.
        g2, _ = _rows_along(g, axis)
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
        return (_from_rows(gx, shape, axis),)

    return _from_rows(y2, shape, axis), vjp


def _rows_along(x, axis):
    """x as (rows, columns), its `axis` along the columns, and its shape with that axis last."""
    normalize_axis_index(axis, builtins.max(x.ndim, 1))  # a number is a row of one
    moved = np.moveaxis(x, axis, -1) if x.ndim else x
    return _rows(moved), moved.shape


def _from_rows(x2, shape, axis):
    """Back from `_rows_along`, which gave this shape."""
    x = np.reshape(x2, shape)
    return np.moveaxis(x, -1, axis) if x.ndim else x


def log_softmax_composed(x, axis=-1):
    shifted = x - top_of(x, axis)
    return shifted - log(sum(exp(shifted), axis=axis, keepdims=True))


@op(composed=log_softmax_composed, fresh=True)
def log_softmax(x, *, axis=-1, needs):
    """log(softmax(x)) along one axis, without the overflow and the rounding of doing just that."""
    x2, shape = _rows_along(x, axis)
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
        # gx = g - softmax(x) sum(g); at the largest, g - g p = g rest, as in softmax.
        g2, _ = _rows_along(g, axis)
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
        return (_from_rows(gx, shape, axis),)

    return _from_rows(y2, shape, axis), vjp


# =================================================================================================
# GELU
# =================================================================================================

_C = math.sqrt(2 / math.pi)  # Python floats: a NumPy scalar would turn float32 into float64
_A = 0.044715


def gelu_composed(x, approximate="tanh"):
    if approximate == "none":
        return x * (1 + erf(x * math.sqrt(0.5))) * 0.5
    # The paper has (1 + tanh(u)) / 2, which is sigmoid(2 u).
    return x * sigmoid(2 * _C * (x + _A * x * x * x))


@op(composed=gelu_composed, fresh=True)
def gelu(x, *, approximate="tanh", needs):
    """The Gaussian error linear unit, x times the normal distribution function of x.

    approximate "tanh" is GPT-2's form, "none" the exact one. Hendrycks and Gimpel, 2016. The
    derivative is computed along with the value, while its parts are at hand, and kept instead of x.
    """
    if approximate not in ("tanh", "none"):
        raise ValueError(f"approximate is 'tanh' or 'none', not {approximate!r}")
    x2 = _rows(x)
    y = np.empty_like(x2)
    slope = np.empty_like(x2) if needs[0] else None
    for block in row_blocks(x2):
        xb, yb, sb = x2[block], y[block], slope[block] if needs[0] else None
        if approximate == "none":
            _gelu_exact(xb, yb, sb)
            continue
        # y = x p with p = sigmoid(w) and w = 2 C (x + A x^3): y' = p + x p (1 - p) w'
        inner = np.clip(xb, -40, 9)  # p is 0 or 1 beyond, and exp must not overflow
        square = np.multiply(inner, inner, out=sb)
        p = square * (2 * _A * _C)
        p += 2 * _C
        p *= inner  # w
        np.exp(p, out=p)
        rest = np.add(1, p, out=yb)
        np.divide(1, rest, out=rest)  # 1 - p, which would be lost where p is rounded to 1
        p *= rest
        if needs[0]:
            sb *= 6 * _A * _C
            sb += 2 * _C  # w'
            sb *= rest
            sb *= p
            sb *= inner
            sb += p
        np.multiply(xb, p, out=yb)

    return np.reshape(y, x.shape), lambda g: (np.reshape(_rows(g) * slope, g.shape),)


def _gelu_exact(x, y, slope):
    """x times the normal distribution function of x into y; into slope its derivative.

    With the distribution function of -|x| as half * bell, bell = exp(-x^2 / 2), multiplied by x
    before it becomes too small to have all its digits.
    """
    inner = np.clip(x, -50, 50)  # bell is 0 beyond
    bell = exp_minus_square(inner, 0.5)
    half = 0.5 * erfcx(np.abs(inner) * math.sqrt(0.5))
    half = np.where(x < 0, half, -half)  # above 0 the function is 1 - half * bell
    np.multiply(inner * half, bell, out=y)
    y += np.maximum(x, 0)
    if slope is not None:  # the distribution function, and x times the density
        np.multiply(half + inner * (1 / math.sqrt(2 * math.pi)), bell, out=slope)
        slope += x >= 0


def silu_composed(x):
    return x * sigmoid(x)


@op(composed=silu_composed, fresh=True)
def silu(x, *, needs):
    """x * sigmoid(x), also called swish (Elfwing et al., 2017)."""
    x2 = _rows(x)
    y = np.empty_like(x2)
    slope = np.empty_like(x2) if needs[0] else None
    for block in row_blocks(x2):
        xb = x2[block]
        e = np.exp(-np.abs(xb))
        high = 1 / (1 + e)  # sigmoid(|x|)
        e *= high  # sigmoid(-|x|), which is 1 minus it
        # p = np.where(x < 0, e, high), several times as fast; where |x| < 1e-16 they are equal.
        p = xb * 1e16
        p = np.minimum(np.maximum(p, e, out=p), high, out=p)
        np.multiply(xb, p, out=y[block])
        if needs[0]:  # y' = p + x p (1 - p)
            e *= high
            np.multiply(xb, e, out=slope[block])
            slope[block] += p

    return np.reshape(y, x.shape), lambda g: (np.reshape(_rows(g) * slope, g.shape),)


# =================================================================================================
# Linear
# =================================================================================================


def linear_composed(x, weight, bias=None):
    y = matmul(x, weight)
    return y if bias is None else y + bias


@op(composed=linear_composed, fresh=True)
def linear(x, weight, bias=None, *, needs):
    """x @ weight + bias: x (..., n), weight (n, m), bias (m,) or None -> (..., m)."""
    if weight.ndim != 2 or (bias is not None and bias.shape != weight.shape[1:]):
        raise ValueError(
            f"linear: weight is (n, m) and bias (m,), not {weight.shape} and "
            f"{None if bias is None else bias.shape}"
        )
    x2, m = _rows(x), weight.shape[1]
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
            _column_sums(g2) if needs[2] else None,
        )

    return np.reshape(y, (*shape[:-1], m)), vjp


def _column_sums(x2):
    """The sum over rows, as a vector-matrix product: twice as fast as np.sum(x2, axis=0)."""
    # `np.ones(like=)` is not CuPy's, and its `ones_like` takes no shape of 0, only one of (0,).
    return np.ones_like(x2, shape=(len(x2),)) @ x2


# =================================================================================================
# Layer norm
# =================================================================================================


def layer_norm_composed(x, weight=None, bias=None, eps=1e-5):
    centred = x - mean(x, axis=-1, keepdims=True)
    y = centred / (mean(centred * centred, axis=-1, keepdims=True) + eps) ** 0.5
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


@op(composed=layer_norm_composed, fresh=True)
def layer_norm(x, weight=None, bias=None, *, eps=1e-5, needs):
    """Each vector of the last axis to mean 0 and variance 1, then times weight plus bias.

    x (..., n), weight (n,) or None, bias (n,) or None -> (..., n). Ba et al., 2016.
    """
    _check_last_axis("layer_norm", x, weight, bias)
    x2 = _rows(x)
    rows, n = x2.shape
    average = np.full_like(x2, 1 / n if n else 0, shape=(n,))
    normed, scale = np.empty_like(x2), np.empty_like(x2, shape=(rows, 1))  # y = normed
    y = normed if weight is None and bias is None else np.empty_like(x2)
    for block in row_blocks(x2):
        nb = np.subtract(x2[block], (x2[block] @ average)[:, None], out=normed[block])
        left = nb @ average  # the rounding of a mean that is large beside the deviation
        variance = np.einsum("ij,ij->i", nb, nb) * (1 / n if n else 0)
        if not isinstance(nb, np.ndarray) or not np.all(left * left <= 1e-13 * variance):
            nb -= left[:, None]
            variance = np.einsum("ij,ij->i", nb, nb) * (1 / n if n else 0)
        scale[block, 0] = 1 / np.sqrt(variance + eps)
        nb *= scale[block]
        if weight is not None:
            np.multiply(nb, weight, out=y[block])
            if bias is not None:
                y[block] += bias
        elif bias is not None:
            np.add(nb, bias, out=y[block])

    weight = weight if needs[0] else None
    normed = normed if needs[0] or needs[1] else None

    def vjp(g):
        # With z = (x - mean) / std and h = g * weight: gx = (h - mean(h) - z mean(h z)) / std
        g2 = _rows(g)
        gx = np.empty_like(g2) if needs[0] else None
        g_weight = np.zeros_like(g2, shape=(n,)) if needs[1] else None
        mean_of = average if weight is None else average * weight  # x @ this is mean(x * weight)
        for block in row_blocks(g2):
            gb, z = g2[block], None if normed is None else normed[block]
            gz = gb * z if needs[0] or needs[1] else None
            if needs[1]:
                g_weight += _column_sums(gz)
            if needs[0]:
                h = np.multiply(gb, 1 if weight is None else weight, out=gx[block])
                h -= (gb @ mean_of)[:, None]
                h -= np.multiply(z, (gz @ mean_of)[:, None], out=gz)
                h *= scale[block]
        g_bias = _column_sums(g2) if needs[2] else None
        return np.reshape(gx, g.shape) if needs[0] else None, g_weight, g_bias

    return np.reshape(y, x.shape), vjp


def _check_last_axis(name, x, *params):
    for p in params:
        if p is not None and p.shape != x.shape[-1:]:
            raise ValueError(
                f"{name}: x is {x.shape}, weight and bias are {x.shape[-1:]} and not {p.shape}"
            )


def rms_norm_composed(x, weight=None, eps=1e-5):
    y = x * rsqrt(mean(x * x, axis=-1, keepdims=True) + eps)
    return y if weight is None else y * weight


@op(composed=rms_norm_composed)
def rms_norm(x, weight=None, *, eps=1e-5, needs):
    """Each vector of the last axis divided by its root mean square, then times weight.

    x (..., n), weight (n,) or None -> (..., n). Zhang and Sennrich, 2019.
    """
    _check_last_axis("rms_norm", x, weight)
    x2 = _rows(x)
    n = x2.shape[1]
    scale = 1 / np.sqrt(np.einsum("ij,ij->i", x2, x2)[:, None] * (1 / n if n else 0) + eps)
    scale = scale.astype(x2.dtype)
    normed = x2 * scale
    y = normed if weight is None else normed * weight
    weight = weight if needs[0] else None

    def vjp(g):
        # With z = x / rms and h = g * weight: gx = (h - z mean(h z)) / rms
        g2, gx = _rows(g), None
        if needs[0]:
            gx = g2 * weight if weight is not None else g2 * 1
            gx -= normed * (np.einsum("ij,ij->i", gx, normed)[:, None] * (1 / n if n else 0))
            gx *= scale
            gx = np.reshape(gx, g.shape)
        return gx, _column_sums(g2 * normed) if needs[1] else None

    return np.reshape(y, x.shape), vjp


# =================================================================================================
# Cross-entropy
# =================================================================================================


def cross_entropy_composed(
    logits, targets, ignore_index=-100, reduction="mean", label_smoothing=0.0
):
    targets = np.asarray(targets, like=logits.data)
    counted = targets != ignore_index
    safe = np.where(counted, targets, 0)
    log_p = log_softmax(logits, axis=-1)
    loss = -take_along_axis(log_p, safe[..., None], axis=-1)[..., 0]
    if label_smoothing:
        loss = (1 - label_smoothing) * loss - label_smoothing * mean(log_p, axis=-1)
    loss = masked_fill(loss, ~counted, 0.0)
    if reduction == "none":
        return loss
    return sum(loss) if reduction == "sum" else sum(loss) / counted.sum()


@op(composed=cross_entropy_composed, fresh=True)
def cross_entropy(logits, *, targets, ignore_index=-100, reduction="mean", label_smoothing=0.0):
    """Minus the log of the probability that softmax(logits) gives the targets, in nats.

    logits (..., V), integer targets (...). Targets equal to ignore_index count nothing. reduction
    "mean" (over the targets that count), "sum", or "none" for a loss per target (...).
    label_smoothing mixes so much of the uniform distribution into the targets. Raises IndexError
    for a target outside 0 <= target < V, ValueError for shapes that do not fit.
    """
    x2 = _rows(logits)
    rows, n_classes = x2.shape
    t, counted = _targets(targets, logits.shape[:-1], n_classes, ignore_index, like=x2)
    loss, top = np.empty_like(x2, shape=(rows,)), np.empty_like(x2, shape=(rows, 1))
    for block in row_blocks(x2):
        xb, at = x2[block], (np.arange(len(x2[block]), like=x2), t[block])
        top[block] = np.max(xb, axis=1, keepdims=True)
        right = xb[at] - top[block, 0]
        _, others, _, scale = exp_rows(xb, top[block], at)
        loss[block] = _log_of_total(right, others, scale) - (1 - label_smoothing) * right
        if label_smoothing:
            loss[block] -= label_smoothing * np.mean(xb - top[block], axis=1)
    share = _share(counted, reduction, x2.dtype)
    shape = logits.shape

    def vjp(g):
        # softmax(logits) minus the target distribution, row by row times the row's share of g. At
        # the target that is p - 1, the negative sum of the others, which is not computed from p.
        weight = (share * np.reshape(g, (-1, 1))).astype(x2.dtype)
        gx = np.empty_like(x2)
        for block in row_blocks(x2):
            at, w = (np.arange(len(x2[block]), like=x2), t[block]), weight[block]
            p, others, total, _ = exp_rows(x2[block], top[block], at, out=gx[block])
            p *= w / total
            rest = others / total
            if label_smoothing:
                p -= w * (label_smoothing / n_classes)
                rest -= label_smoothing - label_smoothing / n_classes
            p[at] = -(w * rest)[:, 0]
        return np.reshape(gx, shape)

    return _reduce(loss, counted, reduction, shape[:-1]), vjp


def _log_of_total(right, others, scale):
    """log(sum(exp(x - top))) of rows, where `right` is the target's x - top: all of them (r,).

    `others`, the sum without the target, and `scale` are what `exp_rows` gives. Where the target is
    the largest, this is the logarithm of 1 and what may be very little more.
    """
    return np.log1p(others[:, 0] * scale[:, 0] + np.expm1(right))


def _targets(targets, shape, n_classes, ignore_index, like):
    """Targets checked and flat: (rows,) with 0 where ignored, and which of them count.

    Beside `like`; those on the host are checked there, for a look at a GPU's would wait for it.
    """
    targets = np.asarray(targets) if isinstance(targets, (int, list, tuple)) else targets
    if targets.dtype.kind not in "iu":
        raise TypeError(f"targets are integers, not {targets.dtype}")
    if targets.shape != shape:
        raise ValueError(f"targets have shape {targets.shape}, the logits ask for {shape}")
    t = np.reshape(targets, (math.prod(shape),))
    counted = t != ignore_index
    t = np.where(counted, t, 0)
    if isinstance(t, np.ndarray) and t.size and not 0 <= t.min() <= t.max() < n_classes:
        wrong = t.min() if t.min() < 0 else t.max()
        raise IndexError(f"target {wrong} is outside the {n_classes} classes")
    return np.asarray(t, like=like), np.asarray(counted, like=like)


def _share(counted, reduction, dtype):
    """The part of the reduced loss's gradient that each row gets (rows, 1)."""
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"reduction is 'mean', 'sum' or 'none', not {reduction!r}")
    share = counted
    if reduction == "mean":  # where none counts, the loss is no number and its gradient 0
        share = counted / np.maximum(np.sum(counted), 1)
    return share[:, None].astype(dtype)


def _reduce(loss, counted, reduction, shape):
    """The losses of all rows (rows,) as the caller wants them; those not counted are 0."""
    loss = np.where(counted, loss, 0)
    if reduction == "none":
        return np.reshape(loss, shape)
    return np.sum(loss) / np.sum(counted) if reduction == "mean" else np.sum(loss)


def linear_cross_entropy_composed(x, weight, targets, ignore_index=-100, reduction="mean"):
    logits = matmul(x, swapaxes(weight, 0, 1))
    return cross_entropy(logits, targets, ignore_index, reduction)


@op(composed=linear_cross_entropy_composed, fresh=True)
def linear_cross_entropy(x, weight, *, targets, ignore_index=-100, reduction="mean", needs):
    """cross_entropy(x @ weight.T, targets) without ever holding the logits.

    x (..., C), weight (V, C), integer targets (...); reduction "mean" or "sum". Over a large
    vocabulary the logits are the largest array of a language model. Here they exist for some
    hundred rows at a time: loss and gradients are computed while they do, in the forward pass.
    """
    if reduction == "none":
        raise ValueError("linear_cross_entropy reduces by 'mean' or 'sum'; see cross_entropy")
    x2 = _rows(x)
    rows, (n_classes, n) = len(x2), weight.shape
    if x2.shape[1] != n:
        raise ValueError(f"x {x.shape} and weight {weight.shape} differ in the last axis")
    t, counted = _targets(targets, x.shape[:-1], n_classes, ignore_index, like=x2)
    share = _share(counted, reduction, x2.dtype)
    chunks = math.ceil(rows / (2**24 // n_classes + 64))  # BLAS wants many rows, memory few
    step = math.ceil(rows / chunks) if chunks else 1
    chunks = [slice(i, i + step) for i in range(0, rows, step)]
    ids_of_block = [slice(i, i + 2048) for i in range(0, n_classes, 2048)]

    def compute():
        """(the loss of every row, the gradients of the reduced loss)."""
        loss = np.empty_like(x2, shape=(rows,))
        gx = np.empty_like(x2) if needs[0] else None
        g_weight = np.zeros_like(weight) if needs[1] else None
        for chunk in chunks:
            p = x2[chunk] @ weight.T  # the logits of these rows (r, V)
            for block in row_blocks(p):
                pb, part = p[block], share[chunk][block]
                picked = np.arange(len(pb), like=pb), t[chunk][block]
                top = np.max(pb, axis=1, keepdims=True)
                right = pb[picked] - top[:, 0]
                _, others, total, scale = exp_rows(pb, top, picked, out=pb)
                loss[chunk][block] = _log_of_total(right, others, scale) - right
                if needs[0] or needs[1]:
                    pb *= part / total
                    pb[picked] = -(part * others / total)[:, 0]
            if needs[0]:
                np.matmul(p, weight, out=gx[chunk])
            if needs[1]:
                for ids in ids_of_block:
                    g_weight[ids] += p[:, ids].T @ x2[chunk]
        return loss, gx, g_weight

    loss, *gradients = compute()
    # The largest arrays of a model: given away by the first backward, not copied; a second one
    # over the same graph computes them again. In a dict, for protect.py locks arrays in lists.
    kept = {"gradients": gradients}
    shape = x.shape

    def vjp(g):
        gx, g_weight = kept.pop("gradients") if kept else compute()[1:]
        if needs[0]:
            gx *= g
        if needs[1]:
            g_weight *= g
        return np.reshape(gx, shape) if needs[0] else None, g_weight

    return _reduce(loss, counted, reduction, shape[:-1]), vjp


# =================================================================================================
# Dropout
# =================================================================================================


def drop_composed(x, keep, p):
    return x * (keep / (1 - p)).astype(x.dtype)


@op(composed=drop_composed)
def drop(x, *, keep, p):
    """x / (1 - p) where the boolean array `keep` holds, x times 0 elsewhere."""

    def apply(x):
        y = x * (1 / (1 - p))
        y *= keep
        return y

    return apply(x), apply


def dropout(x, p: float, rng) -> Tensor:
    """Zero each element with probability p and scale the others by 1 / (1 - p).

    `rng` is a NumPy Generator, or anything with its `random(size, dtype)`. The numbers are drawn
    here and not in the operation, so that the operation is a function of its arguments.
    Srivastava et al., 2014. Raises ValueError unless 0 <= p < 1.
    """
    x = x if isinstance(x, Tensor) else tensor(x)
    return drop(x, keep=_draw_keep(x.shape, p, rng, x.data), p=p) if p else x


def _draw_keep(shape, p, rng, like):
    if not 0 <= p < 1:
        raise ValueError(f"dropout takes 0 <= p < 1, not {p}")
    rng = np.random.default_rng() if rng is None else rng
    return np.asarray(rng.random(shape, dtype=np.float32) >= p, like=like)


# =================================================================================================
# Attention
# =================================================================================================

QUERY_BLOCK = 64  # rows of queries at a time: enough for BLAS, where an eighth of them is fewer
TILE = 2**17  # scores at a time: with a temporary beside them, they stay in a core's L2 cache
SHORT = 256  # keys: up to so many the weights are kept for backward, beyond it computes them again
LARGE = 30  # a score: its exp, 1e13, and 1e-13 leave room in float32 for sums, values, gradients


def scaled_dot_product_attention(
    q, k, v, attn_mask=None, is_causal=False, dropout_p=0.0, scale=None, rng=None
) -> Tensor:
    """softmax(q @ k.T * scale) @ v: each query's mean of the values, weighted by its keys.

    q (..., T, D), k (..., S, D), v (..., S, E) -> (..., T, E). `attn_mask` broadcasts to
    (..., T, S): booleans say True where a query may look, floats are added to the scores.
    `is_causal`: query i looks at keys 0 to i. A query that may look nowhere gets zeros. `scale` is
    1 / sqrt(D) if not given. Dropout on the weights with probability `dropout_p` takes its numbers
    from `rng`, by default a fresh Generator. Vaswani et al., 2017.
    """
    keep = None
    attn_mask = np.asarray(attn_mask) if isinstance(attn_mask, (list, tuple)) else attn_mask
    if dropout_p:
        batch = np.broadcast_shapes(q.shape[:-2], k.shape[:-2])
        keep = _draw_keep((*batch, q.shape[-2], k.shape[-2]), dropout_p, rng, _array(q))
    return attention(q, k, v, attn_mask, is_causal, dropout_p, scale, keep)


def attention_composed(
    q, k, v, attn_mask=None, is_causal=False, dropout_p=0.0, scale=None, keep=None
):
    T, S, D = q.shape[-2], k.shape[-2], q.shape[-1]
    scores = matmul(q, swapaxes(k, -1, -2)) * (D**-0.5 if scale is None else scale)  # (..., T, S)
    visible = np.tri(T, S, dtype=bool, like=q.data)
    visible = visible if is_causal else visible | True
    if attn_mask is not None and attn_mask.dtype == bool:
        visible = visible & attn_mask
    elif attn_mask is not None:
        scores = scores + attn_mask.astype(q.dtype)
    shape = np.broadcast_shapes(visible.shape, scores.shape)
    visible, scores = np.broadcast_to(visible, shape), broadcast_to(scores, shape)
    blind = ~visible.any(axis=-1, keepdims=True)  # a query without keys: zeros, not 0 / 0
    scores = masked_fill(scores, ~visible & ~blind, -math.inf)
    weights = masked_fill(softmax(scores, axis=-1), ~visible, 0.0)
    return matmul(weights if keep is None else drop(weights, keep, dropout_p), v)


@op(composed=attention_composed, fresh=True)
def attention(
    q, k, v, *, attn_mask=None, is_causal=False, dropout_p=0.0, scale=None, keep=None, needs
):
    """`scaled_dot_product_attention`, the dropped weights being given by the booleans `keep`.

    Goes over tiles: some heads, and a block of query rows of these. A causal block looks at no key
    behind its last query, which saves half of the products. The (T, S) scores are never held whole
    for long T: the backward pass computes them again from the largest and the total of each row, as
    FlashAttention does (Dao et al., 2022).
    """
    T, S = q.shape[-2], k.shape[-2]
    if attn_mask is not None and attn_mask.dtype.kind not in "bf":
        raise TypeError(f"attn_mask is boolean or floating-point, not {attn_mask.dtype}")
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    batches = [a.shape[:-2] for a in (q, k, v, attn_mask, keep) if a is not None]
    batch = np.broadcast_shapes(*batches)
    if any(b != batch for b in batches[:3]):
        q, k, v = (np.broadcast_to(a, (*batch, *a.shape[-2:])) for a in (q, k, v))
    step = T or 1
    if is_causal and T > 2 * QUERY_BLOCK:  # longer blocks waste more of the masked triangle
        step = builtins.max(QUERY_BLOCK, math.ceil(T / 8))
    per_tile = TILE // (step * S) if S and isinstance(q, np.ndarray) else math.prod(batch)
    tiles = [
        (box, slice(start, start + step), slice(0, start + step if is_causal else S))
        for box in _boxes(batch, per_tile)
        for start in range(0, T if S else 0, step)
    ]
    if attn_mask is not None:
        attn_mask = np.broadcast_to(attn_mask, (*batch, T, S))
    if keep is not None:
        keep = np.broadcast_to(keep, (*batch, T, S))
    future = np.triu(np.full_like(q, -math.inf, shape=(step, step)), 1)  # added to scores
    # Softmax needs no shift where no product of two vectors can be large (Cauchy and Schwarz).
    shift = attn_mask is not None or _may_exceed(LARGE, q, k, scale)

    def exponentials(box, rows, keys, largest=None):
        """exp(scores - the largest of each row) (..., r, s), and the largest (..., r, 1) or 0."""
        p = np.matmul(q[box][..., rows, :] * scale, np.swapaxes(k[box][..., keys, :], -1, -2))
        if is_causal:
            corner = p[..., rows.start :]  # all of these queries see all the keys before it
            corner += future[: corner.shape[-2], : corner.shape[-1]]
        if attn_mask is not None:
            mask = attn_mask[box][..., rows, keys]
            p = np.where(mask, p, -math.inf) if mask.dtype == bool else p + mask.astype(p.dtype)
        if not shift:
            return np.exp(p, out=p), 0
        if largest is None:
            largest = np.max(p, axis=-1, keepdims=True)
            largest = np.where(np.isinf(largest), 0, largest)  # a query without keys: -inf
        p -= largest
        return np.exp(p, out=p), largest

    def dropped(p, box, rows, keys):
        return p if keep is None else drop.body(p, keep=keep[box][..., rows, keys], p=dropout_p)[0]

    # `empty_like` keeps the memory order of q, (B, T, heads, D) where the heads were split off, so
    # that merging them again copies nothing.
    make = np.empty_like if S else np.zeros_like  # without keys: zeros
    y = make(q, shape=(*batch, T, v.shape[-1]))
    # Kept apart: beside a large top, as a mask of -1e9 makes, the total would be rounded away.
    top, total = (np.ones_like(q, shape=(*batch, T, 1)) for _ in range(2))
    kept = {}  # tile -> its exponentials
    for box, rows, keys in tiles:
        p, top[box][..., rows, :] = exponentials(box, rows, keys)
        sums = p @ np.ones_like(p, shape=(p.shape[-1], 1))  # faster than np.sum(p, axis=-1)
        total[box][..., rows, :] = sums + (sums == 0)
        weights = dropped(p, box, rows, keys)
        yb = np.matmul(weights, v[box][..., keys, :], out=y[box][..., rows, :])
        yb /= total[box][..., rows, :]
        if S <= SHORT and any(needs):
            kept[len(kept)] = p

    def vjp(g, out=None):  # `out`: zeros to add the gradients to
        if out is None:
            out = [np.zeros_like(x) if need else None for x, need in zip((q, k, v), needs)]
        gq, gk, gv = out
        g = g / total  # the gradient of sum(p v), where p are the weights before their division
        # The sum over keys of p times its gradient.
        along = np.einsum("...i,...i->...", g, y)[..., None]
        for i, (box, rows, keys) in enumerate(tiles):
            p = kept[i] if kept else exponentials(box, rows, keys, top[box][..., rows, :])[0]
            gb = g[box][..., rows, :]
            if needs[2]:
                weights = dropped(p, box, rows, keys)
                gv[box][..., keys, :] += np.swapaxes(weights, -1, -2) @ gb
            if needs[0] or needs[1]:
                gs = gb @ np.swapaxes(v[box][..., keys, :], -1, -2)
                gs = dropped(gs, box, rows, keys)
                gs -= along[box][..., rows, :]
                gs *= p
            if needs[0]:
                gqb = np.matmul(gs, k[box][..., keys, :], out=gq[box][..., rows, :])
                gqb *= scale
            if needs[1]:
                gkb = np.swapaxes(gs, -1, -2) @ (q[box][..., rows, :] * scale)
                gk[box][..., keys, :] += gkb
        return gq, gk, gv

    return y, vjp


def _may_exceed(bound, q, k, scale) -> bool:
    """Whether a score may be larger, as far as the longest vectors tell; a GPU is not asked."""
    if not isinstance(q, np.ndarray):
        return True
    squares = (np.max(np.einsum("...i,...i->...", x, x), initial=0) for x in (q, k))
    return not math.prod(map(float, squares)) * scale**2 < bound**2  # NaN may be anything


def _boxes(shape, size):
    """Index tuples that cut an array into boxes of at most `size` elements, or of one."""
    if math.prod(shape) <= size or not shape:
        yield (...,)
        return
    inner = math.prod(shape[1:])
    step = size // inner or 1
    for start in range(0, shape[0], step):
        for rest in _boxes(shape[1:], size):
            yield (slice(start, start + step), *rest)


def causal_self_attention(qkv, n_head: int, dropout_p: float = 0.0, rng=None) -> Tensor:
    """Every head's causal attention, from the projection to the merged heads, in one operation.

    qkv (B, T, 3C), the queries, keys and values of all heads side by side -> (B, T, C). Dropout on
    the weights with probability `dropout_p` takes its numbers from `rng`, by default a fresh
    Generator. Raises ValueError where 3C does not divide into 3 x n_head.
    """
    B, T, C3 = qkv.shape
    if C3 % (3 * n_head):
        raise ValueError(f"{C3} columns do not divide into queries, keys, values of {n_head} heads")
    keep = _draw_keep((B, n_head, T, T), dropout_p, rng, _array(qkv)) if dropout_p else None
    return packed_attention(qkv, n_head, dropout_p, keep)


def _heads(qkv, n_head):
    """(B, T, 3C) -> queries, keys, values as one view (3, B, n_head, T, size of a head)."""
    B, T, C3 = qkv.shape
    return np.transpose(np.reshape(qkv, (B, T, 3, n_head, C3 // 3 // n_head)), (2, 0, 3, 1, 4))


def packed_attention_composed(qkv, n_head, dropout_p=0.0, keep=None):
    q, k, v = _heads(qkv, n_head)
    y = attention_composed(q, k, v, is_causal=True, dropout_p=dropout_p, keep=keep)
    return np.reshape(np.transpose(y, (0, 2, 1, 3)), (*qkv.shape[:2], qkv.shape[2] // 3))


@op(composed=packed_attention_composed, fresh=True)
def packed_attention(qkv, *, n_head, dropout_p=0.0, keep=None, needs):
    """`causal_self_attention`, the dropped weights being given by the booleans `keep`."""
    q, k, v = _heads(qkv, n_head)
    y, attention_vjp = attention.body(
        q, k, v, is_causal=True, dropout_p=dropout_p, keep=keep, needs=needs * 3
    )
    shape = qkv.shape

    def vjp(g):
        g_qkv = np.zeros_like(g, shape=shape)
        g = np.transpose(np.reshape(g, (*shape[:2], n_head, shape[2] // 3 // n_head)), (0, 2, 1, 3))
        attention_vjp(g, out=_heads(g_qkv, n_head))
        return (g_qkv,)

    return np.reshape(np.transpose(y, (0, 2, 1, 3)), (*shape[:2], shape[2] // 3)), vjp
