"""Products and indexing, with gradients written by hand, as in functions.py."""

from __future__ import annotations

import math

from benchmarks.gradients.functions import one_hot, padded, softmax, total, unbroadcast


def turned(xp, x):
    return xp.swapaxes(x, -1, -2)


def matmul(xp, a, b):
    return a @ b


def matmul_vjp(xp, g, a, b):
    gb = turned(xp, a) @ g
    return g @ turned(xp, b), unbroadcast(xp, gb, b.shape)


def linear(xp, x, w, b):
    return x @ turned(xp, w) + b


def linear_vjp(xp, g, x, w, b):
    gw = turned(xp, g) @ x
    return g @ w, unbroadcast(xp, gw, w.shape), unbroadcast(xp, g, b.shape)


def gram(xp, x):
    return x @ turned(xp, x)


def gram_vjp(xp, g, x):
    return ((g + turned(xp, g)) @ x,)


def bilinear(xp, x, w, y):
    return xp.einsum("bi,ij,bj->b", x, w, y)


def bilinear_vjp(xp, g, x, w, y):
    gx = xp.einsum("b,ij,bj->bi", g, w, y)
    gw = xp.einsum("b,bi,bj->ij", g, x, y)
    return gx, gw, xp.einsum("b,bi,ij->bj", g, x, w)


def outer(xp, x, y):
    return x[:, None] * y


def outer_vjp(xp, g, x, y):
    return g @ y, x @ g


def causal(xp, scores):
    t = xp.arange(scores.shape[-1])
    return xp.where(t[:, None] >= t, scores, -1e30)


def attention(xp, q, k, v):
    return softmax(xp, causal(xp, q @ turned(xp, k) / math.sqrt(q.shape[-1]))) @ v


def attention_vjp(xp, g, q, k, v):
    scale = 1 / math.sqrt(q.shape[-1])
    p = softmax(xp, causal(xp, q @ turned(xp, k) * scale))
    gp = g @ turned(xp, v)
    gs = p * (gp - total(xp, gp * p)) * scale
    return gs @ k, turned(xp, gs) @ q, turned(xp, p) @ g


def conv1d(xp, x, w):
    """y[b, i] = sum over j of x[b, i + j] * w[j]"""
    k = w.shape[0]
    n = x.shape[-1] - k + 1
    return sum(x[..., j : j + n] * w[j] for j in range(k))


def conv1d_vjp(xp, g, x, w):
    k, n = w.shape[0], g.shape[-1]
    gx = sum(padded(xp, g * w[j], j, k - 1 - j) for j in range(k))
    gw = [xp.sum(g * x[..., j : j + n]) for j in range(k)]
    return gx, xp.stack(gw)


def squared_distances(xp, x, y):
    d = x[:, None] - y
    return xp.sum(d * d, axis=-1)


def squared_distances_vjp(xp, g, x, y):
    d = 2 * g[..., None] * (x[:, None] - y)
    return xp.sum(d, axis=1), -xp.sum(d, axis=0)


def rotate(xp, x, angle):
    """Each half of the last axis is one coordinate of points in the plane, turned by `angle`."""
    n = x.shape[-1] // 2
    a, b, c, s = x[..., :n], x[..., n:], xp.cos(angle), xp.sin(angle)
    return xp.concatenate([a * c - b * s, a * s + b * c], -1)


def rotate_vjp(xp, g, x, angle):
    n = x.shape[-1] // 2
    p, q, c, s = g[..., :n], g[..., n:], xp.cos(angle), xp.sin(angle)
    a, b = x[..., :n], x[..., n:]
    gangle = p * (-a * s - b * c) + q * (a * c - b * s)
    return xp.concatenate([p * c + q * s, q * c - p * s], -1), unbroadcast(xp, gangle, angle.shape)


# ---- indices and shapes ----


def embedding(xp, w, ids):
    return w[ids]


def embedding_vjp(xp, g, w, ids):
    return turned(xp, one_hot(xp, ids, w.shape[0]) + 0 * g[..., :1]) @ g, None


def interpolate(xp, table, x):
    """The table, read between its entries; x is from 0 to its length - 1."""
    left = one_hot(xp, xp.floor(x), table.shape[0])
    right = one_hot(xp, xp.floor(x) + 1, table.shape[0])
    t = x - xp.floor(x)
    return xp.sum(left * table, axis=-1) * (1 - t) + xp.sum(right * table, axis=-1) * t


def interpolate_vjp(xp, g, table, x):
    left = one_hot(xp, xp.floor(x), table.shape[0])
    right = one_hot(xp, xp.floor(x) + 1, table.shape[0])
    t = x - xp.floor(x)
    gtable = xp.sum((g * (1 - t))[:, None] * left + (g * t)[:, None] * right, axis=0)
    return gtable, g * xp.sum((right - left) * table, axis=-1)


def merge_heads(xp, x):
    """(B, H, T, D) -> (B, T, H * D), each entry to the power of 3."""
    b, h, t, d = x.shape
    return xp.swapaxes(x, 1, 2).reshape(b, t, h * d) ** 3


def merge_heads_vjp(xp, g, x):
    b, h, t, d = x.shape
    return (3 * x * x * xp.swapaxes(g.reshape(b, t, h, d), 1, 2),)
