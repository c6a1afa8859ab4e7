"""Cross-entropy of logits and of hidden states on a GPU: the bodies for functional/loss.py."""

from __future__ import annotations

import numpy as np

from ..arraylike import is_array
from .launch import (
    c_type,
    ceil_div,
    contiguous,
    empty,
    has_c_type,
    launch,
    shared_limit,
    vector,
)
from .precision import lowered, tf32
from .products import matmul
from .total import count_targets, total

CHUNK = 2**29  # bytes of logits that linear_cross_entropy holds at a time


def cross_entropy(logits, *, targets, ignore_index=-100, reduction="mean", label_smoothing=0.0):
    """logits (..., V), targets (...) -> the loss in float32; the gradient in the logits' dtype."""
    t = _on_device(targets, logits, logits.shape[:-1], logits.shape[-1:], ignore_index)
    if t is None or label_smoothing or not has_c_type(logits):
        return NotImplemented
    if reduction not in ("mean", "sum", "none"):
        return NotImplemented
    shape, classes = logits.shape, logits.shape[-1]
    x2 = contiguous(logits).reshape(-1, classes)  # (rows, V)
    loss = empty((len(x2),), np.float32)
    counts = count_targets(t, ignore_index, classes) if reduction == "mean" else None
    share = None if counts is None else counts[1:]
    _cross_entropy_rows(x2, t, ignore_index, classes, loss=loss)

    def vjp(g):
        gx = empty(x2.shape, x2.dtype)
        g = contiguous(g).reshape(-1)  # one number, or one a row (rows,)
        _cross_entropy_rows(x2, t, ignore_index, classes, share=share, upstream=g, gradient=gx)
        return gx.reshape(shape)

    value = loss.reshape(shape[:-1]) if reduction == "none" else total(loss, counts)
    return value, vjp


def linear_cross_entropy(
    x, weight, *, targets, ignore_index=-100, reduction="mean", soft_cap=None, needs
):
    """x (..., C), weight (V, C), targets (...) -> the loss in float32. NotImplemented for a cap.

    The gradient of x is of its dtype, that of weight float32. The logits and their gradients are
    of the dtype of the products. A float16 cannot hold a probability divided by the number of
    rows; there the division comes after the products.
    """
    shape = x.shape
    if weight.ndim != 2 or shape[-1:] != weight.shape[1:] or not has_c_type(x, weight):
        return NotImplemented
    t = _on_device(targets, x, shape[:-1], weight.shape[:1], ignore_index)
    if t is None or reduction not in ("mean", "sum") or soft_cap is not None:
        return NotImplemented
    classes, rounded = len(weight), tf32()
    x2 = lowered(contiguous(x).reshape(-1, shape[-1]))  # (rows, C)
    w = lowered(weight)  # (V, C)
    if x2.dtype != w.dtype:
        return NotImplemented
    rows, itemsize = len(x2), w.dtype.itemsize
    counts = count_targets(t, ignore_index, classes) if reduction == "mean" else None
    share = None if counts is None else counts[1:]
    early, late = (None, share) if w.dtype == np.float16 else (share, None)
    pitch = ceil_div(classes, 16) * 16  # each row of logits begins at a multiple of 16 bytes
    chunks = max(1, ceil_div(rows * pitch * itemsize, CHUNK))
    step = max(1, ceil_div(rows, chunks))

    def compute():
        """(the loss of every row, the gradient of x, that of weight)."""
        loss = empty((rows,), np.float32)
        gx = empty(x2.shape, x.dtype) if needs[0] else None
        g_weight = empty(weight.shape, np.float32) if needs[1] else None
        logits = empty((step, pitch), w.dtype)
        for start in range(0, max(rows, 1), step):
            chunk = slice(start, min(start + step, rows))
            p2 = logits[: chunk.stop - start]  # (r, pitch)
            p = p2[:, :classes]  # (r, V)
            matmul(x2[chunk], w, tb=True, out=p, tf32=rounded)
            gradient = p2 if any(needs) else None
            _cross_entropy_rows(
                p2, t[chunk], ignore_index, classes, early, loss=loss[chunk], gradient=gradient
            )
            if needs[0]:
                matmul(p, w, out=gx[chunk], tf32=rounded)
            if needs[1]:
                before = g_weight if start else None
                matmul(p, x2[chunk], ta=True, out=g_weight, add=before, tf32=rounded)
        return loss, gx, g_weight

    loss, *gradients = compute()
    kept = {"gradients": gradients}  # for the first backward; a second one computes them again

    def vjp(g):
        gx, g_weight = kept.pop("gradients") if kept else compute()[1:]
        _multiply(gx, g, late)
        _multiply(g_weight, g, late)
        return None if gx is None else gx.reshape(shape), g_weight

    return total(loss, counts), vjp


def _on_device(targets, like, shape, classes, ignored):
    """The targets (rows,) as int64 on the GPU; None if the ordinary body is to refuse them.

    `classes` is (V,), or () if there are no logits. On the host targets out of range are found; on
    the GPU they count nothing, because reading them would wait for it.
    """
    t = np.asarray(targets) if isinstance(targets, (int, list, tuple)) else targets
    if not is_array(t) or t.dtype.kind not in "iu" or t.shape != shape or 0 in (classes or (0,)):
        return None
    if isinstance(t, np.ndarray):
        counted = t[t != ignored]
        if counted.size and not 0 <= counted.min() <= counted.max() < classes[0]:
            return None
    return contiguous(np.asarray(t, dtype=np.int64, like=like)).reshape(-1)


def _cross_entropy_rows(
    logits, targets, ignored, classes, share=None, upstream=None, loss=None, gradient=None
):
    """Launch the kernel on logits (rows, pitch): what is not None among loss, gradient is written.

    `gradient` may be `logits`. `share` (1,) and `upstream` (1,) or (rows,) multiply the gradient.
    """
    rows, pitch = logits.shape
    itemsize = logits.dtype.itemsize
    V = vector(pitch, logits, gradient)
    kept = ceil_div(pitch * itemsize, 16) * 16
    keep = gradient is not None and kept + 1024 <= shared_limit()  # and what reductions use
    two_fit = 2 * (kept + 2048) <= shared_limit()  # two blocks of 512 threads hide more latency
    threads = 512 if two_fit or not keep else 1024
    kernel = f"cross_entropy<{c_type(logits.dtype)}, {V}, {str(keep).lower()}, {threads}>"
    launch(
        "loss.cu",
        kernel,
        (rows,),
        (min(threads, ceil_div(ceil_div(pitch, V), 32) * 32),),
        (
            *(logits, targets, np.int64(ignored), share, upstream),
            0 if upstream is None or upstream.size == 1 else 1,
            *(loss, gradient, classes, pitch),
        ),
        kept if keep else 0,
    )


def _multiply(x, g, share) -> None:
    """x *= g * share, where g and share hold one number each; nothing for None."""
    if x is not None:
        V = vector(x.size, x)
        kernel = f"multiply<{c_type(x.dtype)}, {V}>"
        args = x, np.int64(x.size), contiguous(g), share
        launch("loss.cu", kernel, (ceil_div(x.size, 256 * V),), (256,), args)
