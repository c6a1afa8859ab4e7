"""Rotary positions: each pair of numbers in a query or key is turned by an angle of its place.

The product of a query and a key then depends on how far apart they stand, and not on where
(Su et al., 2021). The pairs are an element of the first half and the element of the second half at
the same place, as in Llama's published weights.
"""

from __future__ import annotations

import numpy as np

from ..device import row_blocks
from ..op import op
from ..ops import concatenate, reshape, swapaxes
from ..threads import in_threads
from .norm import rms_norm
from .rows import as_rows, row_dots


def rope_composed(x, cos, sin):
    half = x.shape[-1] // 2
    a, b = x[..., :half], x[..., half:]
    cos, sin = cos.astype(x.dtype), sin.astype(x.dtype)
    return concatenate([a * cos - b * sin, a * sin + b * cos], axis=-1)


@op(composed=rope_composed, fresh=True, gpu="rope")
def rope(x, *, cos, sin, needs):
    """Turn the pairs of x (..., T, D) by angles with these cosines and sines, (..., T, D / 2).

    `cos` and `sin` broadcast to half of x. Raises ValueError if D is odd or they do not fit.
    """
    half = x.shape[-1] // 2
    cos, sin = cos.astype(x.dtype), sin.astype(x.dtype)
    if x.shape[-1] % 2 or cos.shape != sin.shape or cos.shape[-1] != half:
        raise ValueError(
            f"rope: x is (..., T, D) with an even D, cos and sin (..., T, D / 2), not {x.shape}, "
            f"{cos.shape} and {sin.shape}"
        )

    return _turn(x, cos, sin), lambda g: (_turn(g, cos, -sin),)


def _turn(x, cos, sin, out=None):
    """The pairs of x (..., D) turned by angles with these cosines and sines, (..., D / 2)."""
    out = np.empty_like(x) if out is None else out
    half = x.shape[-1] // 2
    a, b = x[..., :half], x[..., half:]
    np.multiply(a, cos, out=out[..., :half])
    np.multiply(a, sin, out=out[..., half:])
    out[..., :half] -= b * sin
    out[..., half:] += b * cos
    return out


# =================================================================================================
# In the packed projection
# =================================================================================================


def qk_norm_rope_composed(qkv, n_head, cos=None, sin=None, eps=None):
    B, T, C3 = qkv.shape
    q, k, v = (qkv[..., i * C3 // 3 : (i + 1) * C3 // 3] for i in range(3))  # (B, T, C) each
    parts = []
    for x in (q, k):
        x = swapaxes(reshape(x, (B, T, n_head, -1)), 1, 2)  # (B, nh, T, hs)
        x = x if eps is None else rms_norm(x, eps=eps)
        x = x if cos is None else rope(x, cos, sin)
        parts.append(reshape(swapaxes(x, 1, 2), (B, T, C3 // 3)))
    return concatenate([*parts, v], axis=-1)


@op(composed=qk_norm_rope_composed, fresh=True)
def qk_norm_rope(qkv, *, n_head, cos=None, sin=None, eps=None):
    """Normalise and turn the queries and keys in qkv (B, T, 3C), and keep the values as they are.

    The result is for `causal_self_attention`. Each head of q and k is divided by its root mean
    square, unless `eps`, which is added to the mean square, is None. Then it is turned as by `rope`
    by angles with the cosines and sines `cos` and `sin`, (T, hs / 2) or (B, 1, T, hs / 2), unless
    they are None. Raises ValueError for shapes that do not fit.

    This is fastest where the memory of qkv has a column after the other, as `linear` makes it with
    order="F": then the numbers that are computed alike, those of all tokens, lie side by side.
    """
    B, T, C3 = qkv.shape
    size = C3 // 3 // n_head
    if C3 != 3 * n_head * size:
        raise ValueError(f"qk_norm_rope: qkv is (B, T, 3C) for {n_head} heads, not {qkv.shape}")
    if cos is not None:
        if size % 2 or cos.shape != sin.shape or cos.shape[-1] != size // 2:
            raise ValueError(
                f"qk_norm_rope: cos and sin are (..., T, {size / 2:g}) for heads of {size}, which "
                f"must be even, not {cos.shape} and {sin.shape}"
            )
        cos, sin = (_for_rows(angle.astype(qkv.dtype), B, T) for angle in (cos, sin))

    def heads(x2):  # of q, k and v, rows (B T, 3C) -> a view (3 nh, B T, hs)
        return np.swapaxes(np.reshape(x2, (B * T, 3 * n_head, size)), 0, 1)

    x2 = as_rows(qkv)
    y2 = np.empty_like(x2)
    x, y = heads(x2), heads(y2)
    n_turned = 2 * n_head
    scale = np.ones_like(qkv, shape=(n_turned, B * T, 1))

    def fill(block):
        xb, yb = x[block], y[block]
        if cos is None:
            yb[...] = xb
        else:
            _turn(xb, cos, sin, out=yb)
        if eps is not None:  # turning has changed no length
            scale[block, :, 0] = 1 / np.sqrt(row_dots(xb, xb) / size + eps)
            yb *= scale[block]

    in_threads(fill, row_blocks(x[:n_turned]), qkv)
    values = slice(C3 // 3 * 2, C3)
    y2[:, values] = x2[:, values]
    z = None if eps is None else y[:n_turned]

    def vjp(g):
        # With z = x / rms, before or after turning: gx = (g - z mean(g z)) / rms, turned back
        g2 = as_rows(g)
        gx2 = np.empty_like(g2)
        for block in row_blocks(heads(g2)[:n_turned]):
            gb, gxb = heads(g2)[block], heads(gx2)[block]
            if eps is not None:
                along = row_dots(gb, z[block])[..., None] * (1 / size)
                gb = gb - z[block] * along
                gb *= scale[block]
            if cos is None:
                gxb[...] = gb
            else:
                _turn(gb, cos, -sin, out=gxb)
        gx2[:, values] = g2[:, values]
        return np.reshape(gx2, g.shape)

    return np.reshape(y2, qkv.shape), vjp


def _for_rows(angle, B, T):
    """(T, D / 2) or (B, 1, T, D / 2) -> (B T, D / 2), the numbers of a column side by side."""
    angle = np.broadcast_to(angle, (B, 1, T, angle.shape[-1]))
    return np.reshape(np.moveaxis(angle, -1, 0), (angle.shape[-1], B * T)).T
