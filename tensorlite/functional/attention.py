"""Scaled dot-product attention, over tiles that fit the cache."""

from __future__ import annotations

import builtins
import math

import numpy as np

from ..arraylike import array_of
from ..op import op
from ..ops import broadcast_to, masked_fill, matmul, swapaxes
from ..tensor import Tensor
from .dropout import draw_keep, drop
from .softmax import softmax


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
        keep = draw_keep((*batch, q.shape[-2], k.shape[-2]), dropout_p, rng, array_of(q))
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


QUERY_BLOCK = 64  # rows of queries at a time: enough for BLAS, where an eighth of them is fewer
TILE = 2**17  # scores at a time: with a temporary beside them, they stay in a core's L2 cache
SHORT = 256  # keys: up to so many the weights are kept for backward, beyond it computes them again
LARGE = 30  # a score: its exp, 1e13, and 1e-13 leave room in float32 for sums, values, gradients


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


# =================================================================================================
# From the packed projection to the merged heads
# =================================================================================================


def causal_self_attention(qkv, n_head: int, dropout_p: float = 0.0, rng=None) -> Tensor:
    """Every head's causal attention, from the projection to the merged heads, in one operation.

    qkv (B, T, 3C), the queries, keys and values of all heads side by side -> (B, T, C). Dropout on
    the weights with probability `dropout_p` takes its numbers from `rng`, by default a fresh
    Generator. Raises ValueError where 3C does not divide into 3 x n_head.
    """
    B, T, C3 = qkv.shape
    if C3 % (3 * n_head):
        raise ValueError(f"{C3} columns do not divide into queries, keys, values of {n_head} heads")
    keep = draw_keep((B, n_head, T, T), dropout_p, rng, array_of(qkv)) if dropout_p else None
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
