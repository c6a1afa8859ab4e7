"""Launching decode.cu: the next position of a few texts, in 5 launches a block of GPT-2."""

from __future__ import annotations

import math

from . import launch as gpu
from .launch import ceil_div, launch

FILE = "decode.cu"
MOST_ROWS = 8


def attend(q, k, v, keys, values, slot, begin, n_head: int, window: int | None = None):
    """Attention of one new position of each text, whose key and value are put into the cache.

    q (B, nh * hs), k and v (B, nkv * hs) have contiguous rows, which may be parts of longer ones;
    the cache `keys`, `values` is (B, nkv, size, hs); all of one dtype. The new position of text b
    is slot[b], and it sees those from begin[b] on, int32 (B,); with a `window`, the last so many
    of them. Returns (B, nh * hs), or NotImplemented for heads that `takes_heads` does not
    know, and arrays that are not aligned to 16 bytes.
    """
    (B, nkv, size, hs), dtype = keys.shape, keys.dtype
    arrays = q, k, v, keys, values
    if not takes_heads(hs, dtype) or any(a.dtype != dtype for a in arrays):
        return NotImplemented
    wide = 16 // dtype.itemsize
    rows = [a.strides[0] // dtype.itemsize for a in (q, k)]
    if any(a.data.ptr % 16 for a in arrays) or any(n % wide for n in rows):
        return NotImplemented
    y = gpu.empty((B, n_head * hs), dtype)
    args = q, k, v, *rows, keys, values, y, slot, begin, n_head, nkv, size, window or 0
    kernel = f"attend<{gpu.c_type(dtype)}, {hs}>"
    launch(FILE, kernel, (n_head, B), (512,), (*args, hs**-0.5))
    return y


def takes_heads(head_size: int, dtype) -> bool:
    """Whether there is a kernel for heads of this size: multiples of 8 that a warp can hold."""
    return (
        dtype.name in gpu.C_TYPES
        and head_size % 8 == 0
        and 8 <= head_size <= 32 * 16 // dtype.itemsize
    )


def takes_few_rows(rows: int, head_size: int, weights: list) -> bool:
    """Whether there are kernels for so many rows, for heads of this size and these weights (K, N).

    The weights are contiguous, and have the dtype of products.
    """
    return (
        1 <= rows <= MOST_ROWS
        and all(takes_heads(head_size, w.dtype) for w in weights)
        and all(gpu.vector(math.gcd(*w.shape), w) > 1 for w in weights)
        and 4 * rows * max(len(w) for w in weights) <= gpu.shared_limit() - 24 * 1024
    )


def few_rows(x, weight, bias=None, norm=None, then: str = "", out=None):
    """x @ weight + bias for a few rows: x (B, K), weight (K, N) of the dtype of products.

    x has that dtype too, except with `norm`, (weight, bias, eps) of a layer norm of x, which is
    then float32, as are all weights of norms, and biases; those may be None. `then` is "" or
    "gelu", which give (B, N) of that dtype, or "add", which adds to `out`, float32.
    """
    (B, K), N = x.shape, weight.shape[1]
    wide = 16 // weight.dtype.itemsize
    side = 2 if ceil_div(N, 2 * wide) >= gpu.multiprocessors() else 1  # all of them have work
    mode = ("", "gelu", "add").index(then)
    y = gpu.empty((B, N), weight.dtype) if out is None else out
    types = f"{gpu.c_type(weight.dtype)}, {B}, {str(norm is not None).lower()}, {mode}, {side}"
    args = x, *_norm(norm), weight, bias, y, K, N
    launch(FILE, f"few_rows<{types}>", (ceil_div(N, side * wide),), (256,), args, 4 * B * K)
    return y


def few_rows_head(stream, norm, table, logits) -> None:
    """logits (B, N) = the layer norm of the stream (B, K) @ table (N, K) transposed.

    The stream and the logits are float32, the table has the dtype of products.
    """
    (B, K), N = stream.shape, len(table)
    grid = min(ceil_div(N, 8 * (4 if B <= 4 else 2)), 4 * gpu.multiprocessors())
    args = stream, *_norm(norm), table, logits, K, N
    kernel = f"few_rows_head<{gpu.c_type(table.dtype)}, {B}>"
    launch(FILE, kernel, (grid,), (256,), args, 4 * B * K)


def embed(token, slot, begin, tokens, places, stream) -> None:
    """stream (B, C) = tokens[token] + places[slot - begin]: the embeddings, all float32."""
    args = token, slot, begin, tokens, places, stream, stream.shape[1]
    launch(FILE, "embed", (len(stream),), (256,), args)


def _norm(norm) -> tuple:
    return (None, None, 0.0) if norm is None else (*norm[:2], float(norm[2]))
