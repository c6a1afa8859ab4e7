"""Layer norm and RMS norm over the last axis."""

from __future__ import annotations

import numpy as np

from ..device import row_blocks
from ..op import op
from ..ops import mean, rsqrt
from ..threads import in_threads
from .rows import as_rows, column_sums


def layer_norm_composed(x, weight=None, bias=None, eps=1e-5):
    centred = x - mean(x, axis=-1, keepdims=True)
    y = centred / (mean(centred * centred, axis=-1, keepdims=True) + eps) ** 0.5
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


@op(composed=layer_norm_composed, fresh=True, gpu="norm")
def layer_norm(x, weight=None, bias=None, *, eps=1e-5, needs):
    """Normalize each vector along the last axis, then multiply by weight and add bias.

    x (..., n), weight (n,) or None, bias (n,) or None -> (..., n). Normalized vectors have mean 0
    and variance 1, except that `eps` is added to the variance before the division. Raises
    ValueError if weight or bias has another shape. Ba et al., 2016.
    """
    _check_last_axis("layer_norm", x, weight, bias)
    x2 = as_rows(x)
    rows, n = x2.shape
    average = np.full_like(x2, 1 / n if n else 0, shape=(n,))
    normed, scale = np.empty_like(x2), np.empty_like(x2, shape=(rows, 1))  # y = normed
    y = normed if weight is None and bias is None else np.empty_like(x2)

    def fill(block):
        nb = np.subtract(x2[block], (x2[block] @ average)[:, None], out=normed[block])
        left = nb @ average  # the remaining mean: the rounding error of a mean that is large
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

    in_threads(fill, row_blocks(x2), x2)
    weight = weight if needs[0] else None
    normed = normed if needs[0] or needs[1] else None

    def vjp(g):
        # With z = (x - mean) / std and h = g * weight: gx = (h - mean(h) - z mean(h z)) / std
        g2 = as_rows(g)
        gx = np.empty_like(g2) if needs[0] else None
        g_weight = np.zeros_like(g2, shape=(n,)) if needs[1] else None
        mean_of = average if weight is None else average * weight  # x @ this is mean(x * weight)
        for block in row_blocks(g2):
            gb, z = g2[block], None if normed is None else normed[block]
            gz = gb * z if needs[0] or needs[1] else None
            if needs[1]:
                g_weight += column_sums(gz)
            if needs[0]:
                h = np.multiply(gb, 1 if weight is None else weight, out=gx[block])
                h -= (gb @ mean_of)[:, None]
                h -= np.multiply(z, (gz @ mean_of)[:, None], out=gz)
                h *= scale[block]
        g_bias = column_sums(g2) if needs[2] else None
        return np.reshape(gx, g.shape) if needs[0] else None, g_weight, g_bias

    return np.reshape(y, x.shape), vjp


def rms_norm_composed(x, weight=None, eps=1e-5):
    y = x * rsqrt(mean(x * x, axis=-1, keepdims=True) + eps)
    return y if weight is None else y * weight


@op(composed=rms_norm_composed, fresh=True, gpu="norm")
def rms_norm(x, weight=None, *, eps=1e-5, needs):
    """Divide each vector along the last axis by its root mean square, and multiply by weight.

    x (..., n), weight (n,) or None -> (..., n). `eps` is added to the mean square. Raises
    ValueError if weight has another shape. Zhang and Sennrich, 2019.
    """
    _check_last_axis("rms_norm", x, weight)
    x2 = as_rows(x)
    rows, n = x2.shape
    normed, scale = np.empty_like(x2), np.empty_like(x2, shape=(rows, 1))
    y = normed if weight is None else np.empty_like(x2)
    over_n = 1 / n if n else 0

    def fill(block):
        xb = x2[block]
        scale[block, 0] = 1 / np.sqrt(np.einsum("ij,ij->i", xb, xb) * over_n + eps)
        nb = np.multiply(xb, scale[block], out=normed[block])
        if weight is not None:
            np.multiply(nb, weight, out=y[block])

    in_threads(fill, row_blocks(x2), x2)
    weight = weight if needs[0] else None

    def vjp(g):
        # With z = x / rms and h = g * weight: gx = (h - z mean(h z)) / rms
        g2 = as_rows(g)
        gx = np.empty_like(g2) if needs[0] else None
        g_weight = np.zeros_like(g2, shape=(n,)) if needs[1] else None
        for block in row_blocks(g2):
            h, z = g2[block], normed[block]
            if needs[1]:
                g_weight += column_sums(h * z)
            if needs[0]:
                h = h if weight is None else h * weight
                along = np.einsum("ij,ij->i", h, z)[:, None] * over_n
                gb = np.multiply(z, along, out=gx[block])
                np.subtract(h, gb, out=gb)
                gb *= scale[block]
        return np.reshape(gx, g.shape) if needs[0] else None, g_weight

    return np.reshape(y, x.shape), vjp


def _check_last_axis(name, x, *params):
    for p in params:
        if p is not None and p.shape != x.shape[-1:]:
            raise ValueError(
                f"{name}: x is {x.shape}, weight and bias are {x.shape[-1:]} and not {p.shape}"
            )
