"""Scaled dot-product attention: softmax(q @ k.T * scale) @ v, over tiles that fit the cache.

- `scaled_dot_product_attention` is what users call. It draws the random numbers of dropout and
  calls `attention`, the fused operation, whose definition is `attention_composed`: read that first.
- `causal_self_attention` is what the GPT calls (gpt/attention.py), with the projections of all
  heads packed side by side. It calls `packed_attention`, which views them as heads for `attention`.

Both fused operations avoid copies and never hold all (T, S) scores of a long sequence at once, as
FlashAttention does (Dao et al., 2022).
"""

from __future__ import annotations

import math

import numpy as np

from ..arraylike import array_of
from ..op import op
from ..ops import broadcast_to, expand_dims, masked_fill, matmul, reshape, swapaxes
from ..tensor import Tensor
from ..threads import in_threads
from .dropout import draw_keep, drop
from .softmax import softmax


def scaled_dot_product_attention(
    q,
    k,
    v,
    attn_mask=None,
    is_causal=False,
    dropout_p=0.0,
    scale=None,
    rng=None,
    enable_gqa=False,
    window=None,
    offset=0,
) -> Tensor:
    """softmax(q @ k.T * scale) @ v: for each query, a mean of the values weighted by its keys.

    q (..., T, D), k (..., S, D), v (..., S, E) -> (..., T, E). `attn_mask` broadcasts to
    (..., T, S): a boolean mask is True where a query may attend to a key, and a floating-point mask
    is added to the scores. With `is_causal`, query i attends to keys 0 to `offset` + i only, and
    with a `window` only to the last `window` of them. A query that may attend to no key gets zeros.
    `scale` defaults to 1 / sqrt(D). Dropout with probability `dropout_p` is applied to the weights;
    its random numbers come from `rng`, by default a fresh Generator. With `enable_gqa`, q has more
    heads (the third axis from the end) than k and v, and each of their heads serves a group of
    neighbouring heads of q (Ainslie et al., 2023). Raises TypeError for a mask of integers, and
    ValueError for a window without `is_causal` and for heads that cannot be grouped.
    Vaswani et al., 2017.
    """
    if enable_gqa:
        return _grouped(q, k, v, attn_mask, is_causal, dropout_p, scale, rng, window, offset)
    keep = None
    attn_mask = np.asarray(attn_mask) if isinstance(attn_mask, (list, tuple)) else attn_mask
    if dropout_p:
        batch = np.broadcast_shapes(q.shape[:-2], k.shape[:-2])
        keep = draw_keep((*batch, q.shape[-2], k.shape[-2]), dropout_p, rng, array_of(q))
    return attention(q, k, v, attn_mask, is_causal, dropout_p, scale, keep, window, offset)


def _grouped(q, k, v, attn_mask, *static) -> Tensor:
    """Attention of q (..., n_head, T, D) to k and v with fewer heads, (..., n_kv_head, S, D)."""
    *batch, n_head, T, D = q.shape
    n_kv_head, S = k.shape[-3:-1]
    if n_head % n_kv_head:
        raise ValueError(f"{n_head} heads of queries cannot share {n_kv_head} heads of keys evenly")
    groups = (*batch, n_kv_head, n_head // n_kv_head)
    if attn_mask is not None and attn_mask.ndim > 2:  # its heads: one for all, or one for each
        heads = (1, 1) if attn_mask.shape[-3] == 1 else groups[-2:]
        attn_mask = np.reshape(attn_mask, (*attn_mask.shape[:-3], *heads, *attn_mask.shape[-2:]))
    q = reshape(q, (*groups, T, D))
    k, v = expand_dims(k, -3), expand_dims(v, -3)  # (..., n_kv_head, 1, S, D)
    y = scaled_dot_product_attention(q, k, v, attn_mask, *static[:4], False, *static[4:])
    return reshape(y, (*batch, n_head, T, v.shape[-1]))


def attention_composed(
    q,
    k,
    v,
    attn_mask=None,
    is_causal=False,
    dropout_p=0.0,
    scale=None,
    keep=None,
    window=None,
    offset=0,
):
    """What attention is, in operations whose gradients the engine derives."""
    T, S, D = q.shape[-2], k.shape[-2], q.shape[-1]
    scores = matmul(q, swapaxes(k, -1, -2)) * (D**-0.5 if scale is None else scale)  # (..., T, S)
    # (T, S): the lower triangle, where no key is after its query, or everything.
    visible = np.tri(T, S, offset if is_causal else S, dtype=bool, like=q.data)
    if window is not None:
        visible = visible & ~np.tri(T, S, offset - window, dtype=bool, like=q.data)
    if attn_mask is not None and attn_mask.dtype == bool:
        visible = visible & attn_mask
    elif attn_mask is not None:
        scores = scores + attn_mask.astype(q.dtype)
    shape = np.broadcast_shapes(visible.shape, scores.shape)
    visible, scores = np.broadcast_to(visible, shape), broadcast_to(scores, shape)  # array, tensor
    blind = ~visible.any(axis=-1, keepdims=True)  # a query without keys gets zeros, not 0 / 0
    scores = masked_fill(scores, ~visible & ~blind, -math.inf)
    weights = masked_fill(softmax(scores, axis=-1), ~visible, 0.0)
    return matmul(weights if keep is None else drop(weights, keep, dropout_p), v)


QUERY_BLOCK = 64  # query rows in a block, at least: with fewer, BLAS is slow
TILE = 2**17  # scores in a tile: these and one temporary array fit into a core's L2 cache
SHORT = 256  # up to this many keys the weights are kept for backward, instead of computed again
FEW = 16  # queries for which the scores are shifted without asking whether they need it
LARGE = 30  # scores up to it need no shift: exp(30) is 1e13, far from overflow in float32


@op(composed=attention_composed, fresh=True, gpu="attention")
def attention(
    q,
    k,
    v,
    *,
    attn_mask=None,
    is_causal=False,
    dropout_p=0.0,
    scale=None,
    keep=None,
    window=None,
    offset=0,
    needs,
):
    """`scaled_dot_product_attention` with dropout given by the booleans `keep`, False to drop.

    The computation goes over tiles, each a block of query rows in some heads. A causal block skips
    the keys after its last query, which saves nearly half of the products. With more than `SHORT`
    keys only one tile of scores is in memory at a time: the backward pass computes it again, from
    the largest score and the total of each row, as FlashAttention does (Dao et al., 2022).
    """
    T, S = q.shape[-2], k.shape[-2]
    if attn_mask is not None and attn_mask.dtype.kind not in "bf":
        raise TypeError(f"attn_mask is boolean or floating-point, not {attn_mask.dtype}")
    if offset < 0 or (window is not None and (not is_causal or window < 1 or offset + T > S)):
        raise ValueError(
            f"a window is at least 1, with is_causal and a key at each query's place: window "
            f"{window}, is_causal {is_causal}, {T} queries from place {offset} on, {S} keys"
        )
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    batches = [a.shape[:-2] for a in (q, k, v, attn_mask, keep) if a is not None]
    batch = np.broadcast_shapes(*batches)
    if any(b != batch for b in batches[:3]):
        q, k, v = (np.broadcast_to(a, (*batch, *a.shape[-2:])) for a in (q, k, v))
    step = T or 1
    if is_causal and T > 2 * QUERY_BLOCK:  # longer blocks compute more scores that are masked
        step = max(QUERY_BLOCK, math.ceil(T / 8))
    # A tile: a part of the batch and its heads (a box), some query rows of it, the keys they see.
    per_tile = TILE // (step * S) if S and isinstance(q, np.ndarray) else math.prod(batch)
    tiles = []
    for box in _boxes(batch, per_tile):
        for start in range(0, T if S else 0, step):
            first = max(0, offset + start - window + 1) if window else 0
            last = min(S, offset + start + step) if is_causal else S
            tiles.append((box, slice(start, start + step), slice(first, last)))
    if attn_mask is not None:
        attn_mask = np.broadcast_to(attn_mask, (*batch, T, S))
    if keep is not None:
        keep = np.broadcast_to(keep, (*batch, T, S))
    infinite = np.full_like(q, -math.inf, shape=(step, step)) if is_causal else None
    future = np.triu(infinite, 1) if is_causal else None  # added to scores
    # Softmax needs no shift if no score can be large, by the Cauchy-Schwarz inequality. For few
    # queries, to find that out takes longer than the shift.
    shift = attn_mask is not None or T < FEW or _may_exceed(LARGE, q, k, scale)

    def exponentials(box, rows, keys, largest=None):
        """(exp(scores - largest) (..., r, s), largest): the largest score of each row, or 0."""
        p = np.matmul(q[box][..., rows, :] * scale, np.swapaxes(k[box][..., keys, :], -1, -2))
        if is_causal:  # every query of the block sees the keys before the block, up to the window
            corner = p[..., offset + rows.start - keys.start :]
            corner += future[: corner.shape[-2], : corner.shape[-1]]
            if window:
                corner = p[..., :step]
                past = np.tril(infinite, offset + rows.start - window - keys.start)
                corner += past[: corner.shape[-2], : corner.shape[-1]]
        if attn_mask is not None:
            mask = attn_mask[box][..., rows, keys]
            p = np.where(mask, p, -math.inf) if mask.dtype == bool else p + mask.astype(p.dtype)
        if not shift:
            return np.exp(p, out=p), 0
        if largest is None:
            largest = np.max(p, axis=-1, keepdims=True)
            largest = np.where(np.isinf(largest), 0, largest)  # -inf for a query without keys
        p -= largest
        return np.exp(p, out=p), largest

    def dropped(p, box, rows, keys):
        return p if keep is None else drop.body(p, keep=keep[box][..., rows, keys], p=dropout_p)[0]

    # `empty_like` keeps the memory order of q. If q is a view that split off the heads, this is
    # (B, T, heads, D), so that merging the heads of y copies nothing.
    make = np.empty_like if S else np.zeros_like  # without keys the result is zeros
    y = make(q, shape=(*batch, T, v.shape[-1]))
    # For each query the largest score and the sum of the exponentials, with which backward computes
    # a tile again. They are not combined into top + log(total): next to a large top, such as a mask
    # of -1e9 causes, the logarithm would be rounded away.
    top, total = (np.ones_like(q, shape=(*batch, T, 1)) for _ in range(2))
    keeps = S <= SHORT and any(needs)
    kept = {}  # the exponentials of each tile, where the keys are few

    def attend(i):
        box, rows, keys = tiles[i]
        p, top[box][..., rows, :] = exponentials(box, rows, keys)
        sums = p @ np.ones_like(p, shape=(p.shape[-1], 1))  # faster than np.sum(p, axis=-1)
        total[box][..., rows, :] = sums + (sums == 0)
        weights = dropped(p, box, rows, keys)
        yb = np.matmul(weights, v[box][..., keys, :], out=y[box][..., rows, :])
        yb /= total[box][..., rows, :]
        if keeps:
            kept[i] = p

    in_threads(attend, range(len(tiles)), q, math.prod(batch) * T * S)

    def add_product(total, x, y):
        """total += x @ y, where `total` is zero if there is only one tile for its keys."""
        if step >= T:
            np.matmul(x, y, out=total)
        else:
            total += x @ y

    def vjp(g, out=None):  # `out`: arrays of zeros that receive the gradients
        if out is None:
            out = [np.zeros_like(x) if need else None for x, need in zip((q, k, v), needs)]
        gq, gk, gv = out
        g = g / total  # the gradient of sum(p v), where p are the weights before their division
        # Each p also changes `total`, by which y is divided. That part of its gradient is the same
        # for all keys of a query.
        along = np.einsum("...i,...i->...", g, y)[..., None]
        for i, (box, rows, keys) in enumerate(tiles):
            p = kept[i] if keeps else exponentials(box, rows, keys, top[box][..., rows, :])[0]
            gb = g[box][..., rows, :]
            if needs[2]:
                weights = dropped(p, box, rows, keys)
                add_product(gv[box][..., keys, :], np.swapaxes(weights, -1, -2), gb)
            if needs[0] or needs[1]:
                gs = gb @ np.swapaxes(v[box][..., keys, :], -1, -2)
                gs = dropped(gs, box, rows, keys)
                gs -= along[box][..., rows, :]
                gs *= p
            if needs[0]:
                gqb = np.matmul(gs, k[box][..., keys, :], out=gq[box][..., rows, :])
                gqb *= scale
            if needs[1]:
                scaled = q[box][..., rows, :] * scale
                add_product(gk[box][..., keys, :], np.swapaxes(gs, -1, -2), scaled)
        return gq, gk, gv

    return y, vjp


def _may_exceed(bound, q, k, scale) -> bool:
    """Whether a score may exceed `bound`, judging by the longest vectors; True on a GPU.

    Computing it on a GPU would wait for the GPU.
    """
    if not isinstance(q, np.ndarray):
        return True
    squares = (np.max(np.einsum("...i,...i->...", x, x), initial=0) for x in (q, k))
    return not math.prod(map(float, squares)) * scale**2 < bound**2  # True for NaN


def _boxes(shape, size):
    """Index tuples that cut an array of `shape` into boxes of at most max(size, 1) elements."""
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


def causal_self_attention(
    qkv, n_head: int, dropout_p: float = 0.0, rng=None, attn_mask=None
) -> Tensor:
    """Causal attention of all heads in one operation, from the projection to the merged heads.

    qkv (B, T, 3C), the queries, keys and values of all heads side by side -> (B, T, C). Dropout
    with probability `dropout_p` is applied to the weights; its random numbers come from `rng`, by
    default a fresh Generator. `attn_mask` hides more than the future, as in
    `scaled_dot_product_attention`: it broadcasts to (B, n_head, T, T). Raises ValueError if 3C is
    not a multiple of 3 * n_head.
    """
    B, T, C3 = qkv.shape
    if C3 % (3 * n_head):
        raise ValueError(f"{C3} columns do not divide into queries, keys, values of {n_head} heads")
    keep = draw_keep((B, n_head, T, T), dropout_p, rng, array_of(qkv)) if dropout_p else None
    return packed_attention(qkv, n_head, dropout_p, keep, attn_mask)


def _heads(qkv, n_head):
    """(B, T, 3C) -> queries, keys, values as one view (3, B, n_head, T, size of a head)."""
    B, T, C3 = qkv.shape
    return np.transpose(np.reshape(qkv, (B, T, 3, n_head, C3 // 3 // n_head)), (2, 0, 3, 1, 4))


def packed_attention_composed(qkv, n_head, dropout_p=0.0, keep=None, attn_mask=None):
    q, k, v = _heads(qkv, n_head)
    y = attention_composed(q, k, v, attn_mask, is_causal=True, dropout_p=dropout_p, keep=keep)
    return np.reshape(np.transpose(y, (0, 2, 1, 3)), (*qkv.shape[:2], qkv.shape[2] // 3))


@op(composed=packed_attention_composed, fresh=True, gpu="attention")
def packed_attention(qkv, *, n_head, dropout_p=0.0, keep=None, attn_mask=None, needs):
    """`causal_self_attention` with dropout given by the booleans `keep`, False to drop."""
    q, k, v = _heads(qkv, n_head)
    how = dict(attn_mask=attn_mask, is_causal=True, dropout_p=dropout_p, keep=keep)
    y, attention_vjp = attention.body(q, k, v, **how, needs=needs * 3)
    shape = qkv.shape

    def vjp(g):
        g_qkv = np.zeros_like(qkv)
        g = np.transpose(np.reshape(g, (*shape[:2], n_head, shape[2] // 3 // n_head)), (0, 2, 1, 3))
        attention_vjp(g, out=_heads(g_qkv, n_head))
        return (g_qkv,)

    return np.reshape(np.transpose(y, (0, 2, 1, 3)), (*shape[:2], shape[2] // 3)), vjp
