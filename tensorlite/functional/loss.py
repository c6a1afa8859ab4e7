"""Cross-entropy of logits, and of hidden states, whose logits are computed a few rows at a time."""

from __future__ import annotations

import math

import numpy as np

from ..arraylike import is_array, type_name
from ..device import row_blocks
from ..numpy_ops import take_along_axis
from ..op import op
from ..ops import masked_fill, matmul, mean, sum, swapaxes
from .activations import check_cap
from .activations import soft_cap as capped
from .rows import as_rows
from .softmax import exp_rows, log_softmax


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


@op(composed=cross_entropy_composed, fresh=True, gpu="loss")
def cross_entropy(logits, *, targets, ignore_index=-100, reduction="mean", label_smoothing=0.0):
    """The negative log of the probability that softmax(logits) gives to the targets, in nats.

    logits (..., V), integer targets (...). Targets equal to `ignore_index` are left out.
    `reduction` is "mean" (over the targets that are not left out), "sum", or "none" for one loss
    per target (...). `label_smoothing` is the weight, from 0 to 1, of the uniform distribution that
    is mixed into the targets. Raises TypeError if the targets are not integers, IndexError for a
    target outside 0 <= target < V (on the CPU; targets on a GPU are not checked), and ValueError
    for shapes that do not fit or another reduction.
    """
    x2 = as_rows(logits)
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
        # softmax(logits) minus the target distribution, each row times its share of g. At the
        # target this is p - 1, which is computed as the negative sum of the other probabilities,
        # since p may be nearly 1.
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
    """log(sum(exp(x - top))) of each row (r,), where `right` (r,) is x - top at the target.

    `others`, the sum without the target, and `scale` are those that `exp_rows` returns. If the
    target has the largest logit, this is the logarithm of 1 plus a number that may be very small,
    hence log1p.
    """
    return np.log1p(others[:, 0] * scale[:, 0] + np.expm1(right))


def linear_cross_entropy_composed(
    x, weight, targets, ignore_index=-100, reduction="mean", soft_cap=None
):
    logits = matmul(x, swapaxes(weight, 0, 1))
    logits = logits if soft_cap is None else capped(logits, soft_cap)
    return cross_entropy(logits, targets, ignore_index, reduction)


@op(composed=linear_cross_entropy_composed, fresh=True, gpu="loss")
def linear_cross_entropy(
    x, weight, *, targets, ignore_index=-100, reduction="mean", soft_cap=None, needs
):
    """cross_entropy(x @ weight.T, targets) without holding all logits in memory.

    x (..., C), weight (V, C), integer targets (...); `reduction` is "mean" or "sum". For a large
    vocabulary the logits are the largest array of a language model. Here they are computed for
    some hundred rows at a time, and both the loss and the gradients are computed from them in the
    forward pass. With the positive number `soft_cap`, it is the loss of tl.soft_cap(logits, cap).
    Raises as `cross_entropy` does, and ValueError for another cap.
    """
    if reduction == "none":
        raise ValueError("linear_cross_entropy reduces by 'mean' or 'sum'; see cross_entropy")
    if soft_cap is not None:
        check_cap(soft_cap)
    x2 = as_rows(x)
    rows, (n_classes, n) = len(x2), weight.shape
    if x2.shape[1] != n:
        raise ValueError(f"x {x.shape} and weight {weight.shape} differ in the last axis")
    t, counted = _targets(targets, x.shape[:-1], n_classes, ignore_index, like=x2)
    share = _share(counted, reduction, x2.dtype)
    chunks = math.ceil(rows / (2**24 // n_classes + 64))  # many rows suit BLAS, few save memory
    step = math.ceil(rows / chunks) if chunks else 1
    chunks = [slice(i, i + step) for i in range(0, rows, step)]
    ids_of_block = [slice(i, i + 2048) for i in range(0, n_classes, 2048)]

    def compute():
        """(the loss of every row, the gradient of the reduced loss for x, the one for weight)."""
        loss = np.empty_like(x2, shape=(rows,))
        gx = np.empty_like(x2) if needs[0] else None
        g_weight = np.zeros_like(weight) if needs[1] else None
        for chunk in chunks:
            p = x2[chunk] @ weight.T  # the logits of these rows (r, V)
            for block in row_blocks(p):
                pb, part = p[block], share[chunk][block]
                picked = np.arange(len(pb), like=pb), t[chunk][block]
                if soft_cap is not None:
                    pb /= soft_cap
                    np.tanh(pb, out=pb)
                    slope = 1 - pb * pb
                    pb *= soft_cap
                top = np.max(pb, axis=1, keepdims=True)
                right = pb[picked] - top[:, 0]
                _, others, total, scale = exp_rows(pb, top, picked, out=pb)
                loss[chunk][block] = _log_of_total(right, others, scale) - right
                if needs[0] or needs[1]:
                    pb *= part / total
                    pb[picked] = -(part * others / total)[:, 0]
                    if soft_cap is not None:
                        pb *= slope
            if needs[0]:
                np.matmul(p, weight, out=gx[chunk])
            if needs[1]:
                for ids in ids_of_block:
                    g_weight[ids] += p[:, ids].T @ x2[chunk]
        return loss, gx, g_weight

    loss, *gradients = compute()
    # These are the largest arrays of a model, so the first backward pass returns them without a
    # copy, and a second one over the same graph computes them again. They are kept in a dict
    # because protect.py would make arrays in a list read-only.
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
# Targets, and the weight of each row
# =================================================================================================


def _targets(targets, shape, n_classes, ignore_index, like):
    """Check and flatten the targets: (targets (rows,), 0 where ignored; which ones count (rows,)).

    Both are on the device of `like`. The range of targets on a GPU is not checked, because reading
    them would wait for the GPU.
    """
    targets = np.asarray(targets) if isinstance(targets, (int, list, tuple)) else targets
    if not is_array(targets) or targets.dtype.kind not in "iu":
        kind = targets.dtype if is_array(targets) else type_name(targets)
        raise TypeError(f"targets are integers in NumPy's arrays or lists, not {kind}")
    if targets.shape != shape:
        raise ValueError(f"targets have shape {targets.shape}, but the logits need {shape}")
    t = np.reshape(targets, (math.prod(shape),))
    counted = t != ignore_index
    t = np.where(counted, t, 0)
    if isinstance(t, np.ndarray) and t.size and not 0 <= t.min() <= t.max() < n_classes:
        wrong = t.min() if t.min() < 0 else t.max()
        raise IndexError(f"target {wrong} is outside the {n_classes} classes")
    return np.asarray(t, like=like), np.asarray(counted, like=like)


def _share(counted, reduction, dtype):
    """The factor (rows, 1) of each row's loss in the reduced loss."""
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"reduction is 'mean', 'sum' or 'none', not {reduction!r}")
    share = counted
    if reduction == "mean":  # if no target counts, the loss is NaN and its gradient 0
        share = counted / np.maximum(np.sum(counted), 1)
    return share[:, None].astype(dtype)


def _reduce(loss, counted, reduction, shape):
    """Reduce the losses of all rows (rows,) as `reduction` says; ignored targets have loss 0."""
    loss = np.where(counted, loss, 0)
    if reduction == "none":
        return np.reshape(loss, shape)
    return np.sum(loss) / np.sum(counted) if reduction == "mean" else np.sum(loss)
