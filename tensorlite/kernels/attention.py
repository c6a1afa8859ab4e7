"""Causal attention on a GPU.

In 16 bits, with heads of 32, 64 or 128, the kernels of attention.cu compute it from the packed
projection, without scores in memory. Everything else goes by products in float32, which keep the
weights for the backward pass: `_by_products`, the plain twin.
"""

from __future__ import annotations

import math

import numpy as np

from ..arraylike import is_half, on_gpu
from .elementwise import cast
from .launch import c_type, ceil_div, contiguous, empty, has_c_type, launch, shared_limit
from .precision import low
from .products import matmul
from .softmax import causal_softmax, causal_softmax_backward

FILE = "attention.cu"
THREADS = 128  # of a block: 4 warps
SIDE = 64  # rows of the tiles that a block goes over
# By the size of a head: how many times 16 rows a warp owns, and how many blocks a multiprocessor is
# to hold. More rows save reading, but take registers; these leave enough of them on compute
# capability 8.0 and 9.0, and were the fastest of those tried on an H200.
SHAPES = {
    32: {"forward": (2, 3), "backward_q": (2, 3), "backward_kv": (2, 2)},
    64: {"forward": (2, 2), "backward_q": (2, 2), "backward_kv": (2, 2)},
    128: {"forward": (1, 2), "backward_q": (1, 2), "backward_kv": (1, 2)},
}
DROPPING = {32: (1, 4), 64: (1, 3), 128: (1, 2)}  # the same with dropout, for all kernels


def packed_attention(qkv, *, n_head, dropout_p=0.0, keep=None, attn_mask=None, needs):
    """The body of `packed_attention`: qkv (B, T, 3C) -> (B, T, C).

    NotImplemented with a mask, and for other dtypes than float32, bfloat16 and float16.
    """
    if attn_mask is not None or not has_c_type(qkv) or not _drops(keep):
        return NotImplemented
    B, T, C3 = qkv.shape
    if keep is not None:
        keep = np.broadcast_to(keep, (B, n_head, T, T))
    y, gradient = _causal(qkv, n_head, (C3 // 3 // n_head) ** -0.5, keep, dropout_p)
    return y, lambda g: (gradient(g),)


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
    """The body of `attention`: q, k, v (..., T, D) -> (..., T, D), packed for the kernels.

    NotImplemented unless it is causal, from the first key on, without a mask and without a window
    that hides anything, for q, k and v of one dtype and one size.
    """
    T, D = q.shape[-2:]
    whole = is_causal and attn_mask is None and not offset and (window is None or window >= T)
    alike = k.shape[-2:] == v.shape[-2:] == (T, D) and q.dtype == k.dtype == v.dtype
    scale = D**-0.5 if scale is None else scale
    if not (whole and alike and has_c_type(q) and scale > 0 and _drops(keep)):
        return NotImplemented
    batch = np.broadcast_shapes(*(x.shape[:-2] for x in (q, k, v, keep) if x is not None))
    qkv = empty((*batch, T, 3, D), q.dtype)
    for i, x in enumerate((q, k, v)):
        qkv[..., i, :] = x
    if keep is not None:
        keep = np.broadcast_to(keep, (*batch, T, T))
    rows = math.prod(batch)  # each head is a row of the batch, with one head
    y, gradient = _causal(qkv.reshape(rows, T, 3 * D), 1, scale, keep, dropout_p)

    def vjp(g):
        g_qkv = gradient(g.reshape(rows, T, D)).reshape(*batch, T, 3, D)
        return tuple(g_qkv[..., i, :] if need else None for i, need in enumerate(needs))

    return y.reshape(*batch, T, D), vjp


def _drops(keep) -> bool:
    """Whether the kernels read `keep`: booleans on the GPU, or None."""
    return keep is None or (keep.dtype == bool and on_gpu([keep]))


def _causal(qkv, n_head: int, scale: float, keep, dropout_p: float):
    """qkv (B, T, 3C) -> y (B, T, C), and the function from its gradient to that of qkv.

    y has the dtype of products, and the gradient that of qkv. `keep`, if not None, has B * n_head
    times (T, T) booleans.
    """
    stored, dtype = qkv.dtype, low(qkv)
    way = _flash if _has_kernels(qkv, n_head, dtype) else _by_products
    keep = keep if keep is None else contiguous(keep)
    y, gradient = way(cast(qkv, dtype), n_head, scale, keep, dropout_p)
    return y, lambda g: cast(gradient(cast(g, dtype)), stored)


# =================================================================================================
# By the kernels
# =================================================================================================


def _has_kernels(qkv, n_head: int, dtype) -> bool:
    """Whether attention.cu computes this, on this GPU; its kernels count elements in 32 bits."""
    head_size = qkv.shape[-1] // 3 // n_head
    if not is_half(dtype) or head_size not in SHAPES or qkv.size >= 2**32:
        return False
    return _compute_capability() >= 80 and _shared_bytes("backward_kv", head_size) <= shared_limit()


def _compute_capability() -> int:
    """80 from the first GPUs on that multiply bfloat16 (A100)."""
    import cupy

    return int(cupy.cuda.Device().compute_capability)


def _flash(qkv, n_head: int, scale: float, keep, dropout_p: float):
    B, T, C3 = qkv.shape
    qkv = _aligned(qkv)
    y = empty((B, T, C3 // 3), qkv.dtype)
    lse = empty((B, n_head, T), np.float32)  # log2 of each row's sum of exponentials
    how = keep, T, n_head
    kept = 1 / (1 - dropout_p)
    scale2 = scale * math.log2(math.e)  # the exponentials are powers of 2
    _launch("forward", qkv, n_head, (qkv, y, lse, *how, scale2, kept), keep)

    def gradient(g):
        g = _aligned(g)
        g_qkv = empty(qkv.shape, qkv.dtype)
        terms = empty((B, n_head, T, 2), np.float32)
        scales = scale, scale2, kept
        _launch("backward_q", qkv, n_head, (g, qkv, y, lse, terms, g_qkv, *how, *scales), keep)
        _launch("backward_kv", qkv, n_head, (g, qkv, terms, g_qkv, *how, *scales), keep)
        return g_qkv

    return y, gradient


def _aligned(x):
    """x in C order, beginning at a multiple of 16 bytes."""
    x = contiguous(x)
    return x.copy() if x.data.ptr % 16 else x


def _launch(kernel: str, qkv, n_head: int, args: tuple, keep) -> None:
    B, T, C3 = qkv.shape
    head_size = C3 // 3 // n_head
    groups, blocks = _shape(kernel, head_size, keep is not None)
    drop = "false" if keep is None else "true"
    name = f"attention_{kernel}<{c_type(qkv.dtype)}, {head_size}, {groups}, {blocks}, {drop}>"
    grid = (ceil_div(T, 64 * groups) * B * n_head,)
    launch(FILE, name, grid, (THREADS,), args, _shared_bytes(kernel, head_size, groups))


def _shape(kernel: str, head_size: int, drops: bool) -> tuple[int, int]:
    return DROPPING[head_size] if drops else SHAPES[head_size][kernel]


def _shared_bytes(kernel: str, head_size: int, groups: int | None = None) -> int:
    """The shared memory of a block: its own rows, and two tiles of each array it goes over."""
    groups = groups or SHAPES[head_size][kernel][0]
    own = 64 * groups * (1 if kernel == "forward" else 2)
    terms = 2 * SIDE * 8 if kernel == "backward_kv" else 0
    return 2 * head_size * (own + 4 * SIDE) + terms


# =================================================================================================
# By products
# =================================================================================================


def _by_products(qkv, n_head: int, scale: float, keep, dropout_p: float):
    """The same as `_flash` for all dtypes and sizes of heads, keeping the weights."""
    B, T, C3 = qkv.shape
    dtype, head_size = qkv.dtype, C3 // 3 // n_head
    rows = B * n_head
    qkv = np.transpose(qkv.reshape(B, T, 3, n_head, head_size), (2, 0, 3, 1, 4))
    qkv = cast(contiguous(qkv), np.float32).reshape(3, rows, T, head_size)
    q, k, v = qkv[0], qkv[1], qkv[2]
    keep = keep if keep is None else keep.reshape(rows, T, T)
    p = matmul(q, k, tb=True)  # scores, which become the weights
    weights = causal_softmax(p, scale, keep, dropout_p)

    def merged(x):  # (n, B n_head, T, D) -> (B, T, n C)
        n = len(x)
        x = np.transpose(x.reshape(n, B, n_head, T, head_size), (1, 3, 0, 2, 4))
        return cast(contiguous(x).reshape(B, T, n * C3 // 3), dtype)

    def gradient(g):
        g = np.transpose(g.reshape(B, T, n_head, head_size), (0, 2, 1, 3))
        g = cast(contiguous(g), np.float32).reshape(rows, T, head_size)
        g_qkv = empty((3, rows, T, head_size), np.float32)
        g_scores = matmul(g, v, tb=True)
        causal_softmax_backward(p, g_scores, scale, keep, dropout_p)
        matmul(g_scores, k, out=g_qkv[0])
        matmul(g_scores, q, ta=True, out=g_qkv[1])
        matmul(weights, g, ta=True, out=g_qkv[2])
        return merged(g_qkv)

    return merged(matmul(weights, v)[None]), gradient
