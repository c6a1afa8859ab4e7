"""Functions with gradients written by hand, right ones, for benchmarks/gradient_checkers.py.

Every function is written once, for NumPy, PyTorch and JAX alike: `xp` is one of numpy, torch and
jax.numpy. A function `f(xp, *args)` has its gradients in `f_vjp(xp, g, *args)`, as a tuple.
`FUNCTIONS` has both by name, with the arguments to draw.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Function(NamedTuple):
    """A function, its gradients, and `draw(rng)`, which gives a list of arguments for them."""

    value: Callable
    vjp: Callable
    draw: Callable


def total(xp, x, axis=-1):
    return xp.sum(x, axis=axis, keepdims=True)


def mean(xp, x):
    return total(xp, x) / x.shape[-1]


def one_hot(xp, ids, n: int):
    return (ids[..., None] == xp.arange(n)) * 1.0


def unbroadcast(xp, g, shape):
    """The sum over the axes that were broadcast."""
    while g.ndim > len(shape):
        g = xp.sum(g, axis=0)
    for axis, n in enumerate(shape):
        if n == 1 and g.shape[axis] != 1:
            g = total(xp, g, axis)
    return g


def padded(xp, x, before: int, after: int):
    """Zeros put before and after the last axis."""
    zeros = xp.zeros_like(x[..., :1])
    return xp.concatenate([zeros] * before + [x] + [zeros] * after, -1)


# ---- elementwise ----


def sigmoid(xp, x):
    return 0.5 * (xp.tanh(0.5 * x) + 1.0)


def sigmoid_vjp(xp, g, x):
    y = sigmoid(xp, x)
    return (g * y * (1 - y),)


def silu(xp, x):
    return x * sigmoid(xp, x)


def silu_vjp(xp, g, x):
    s = sigmoid(xp, x)
    return (g * (s + x * s * (1 - s)),)


def tanh(xp, x):
    return xp.tanh(x)


def tanh_vjp(xp, g, x):
    return (g / xp.cosh(x) ** 2,)


SCALE = math.sqrt(2 / math.pi)


def gelu(xp, x):
    return 0.5 * x * (1 + xp.tanh(SCALE * (x + 0.044715 * x**3)))


def gelu_vjp(xp, g, x):
    t = xp.tanh(SCALE * (x + 0.044715 * x**3))
    return (g * (0.5 * (1 + t) + 0.5 * x * (1 - t * t) * SCALE * (1 + 3 * 0.044715 * x * x)),)


def mul(xp, x, y):
    return x * y


def mul_vjp(xp, g, x, y):
    return unbroadcast(xp, g * y, x.shape), unbroadcast(xp, g * x, y.shape)


def div(xp, x, y):
    return x / y


def div_vjp(xp, g, x, y):
    return unbroadcast(xp, g / y, x.shape), unbroadcast(xp, -g * x / y / y, y.shape)


def affine(xp, x, w, b):
    return x * w + b


def affine_vjp(xp, g, x, w, b):
    return g * w, unbroadcast(xp, g * x, w.shape), unbroadcast(xp, g, b.shape)


def power(xp, x, y):
    return x**y


def power_vjp(xp, g, x, y):
    return g * y * x ** (y - 1), g * x**y * xp.log(x)


def hypot(xp, x, y):
    return xp.hypot(x, y)


def hypot_vjp(xp, g, x, y):
    r = xp.hypot(x, y)
    return g * (x / r), g * (y / r)


def square(xp, x):
    return x * x


def square_vjp(xp, g, x):
    return (2 * g * x,)


# ---- near the edge of the domain ----


def log(xp, x):
    return xp.log(x)


def log_vjp(xp, g, x):
    return (g / x,)


def sqrt(xp, x):
    return xp.sqrt(x)


def sqrt_vjp(xp, g, x):
    return (0.5 * g / xp.sqrt(x),)


def arcsin(xp, x):
    return xp.arcsin(x)


def arcsin_vjp(xp, g, x):
    return (g / xp.sqrt((1 - x) * (1 + x)),)


def arctanh(xp, x):
    return xp.arctanh(x)


def arctanh_vjp(xp, g, x):
    return (g / ((1 - x) * (1 + x)),)


def log1p(xp, x):
    return xp.log1p(x)


def log1p_vjp(xp, g, x):
    return (g / (1 + x),)


def arccosh(xp, x):
    return xp.arccosh(x)


def arccosh_vjp(xp, g, x):
    return (g / xp.sqrt((x - 1) * (x + 1)),)


# ---- with kinks ----


def relu(xp, x):
    return x * (x > 0)


def relu_vjp(xp, g, x):
    return (g * (x > 0),)


def leaky_relu(xp, x):
    return xp.where(x > 0, x, 0.1 * x)


def leaky_relu_vjp(xp, g, x):
    return (xp.where(x > 0, g, 0.1 * g),)


def absolute(xp, x):
    return xp.abs(x)


def absolute_vjp(xp, g, x):
    return (g * xp.sign(x),)


def clip(xp, x):
    return xp.clip(x, -1, 1)


def clip_vjp(xp, g, x):
    return (g * ((x >= -1) & (x <= 1)),)


def maximum(xp, x, y):
    return xp.where(x > y, x, y)


def maximum_vjp(xp, g, x, y):
    return g * (x > y), g * (x <= y)


def largest(xp, x):
    return xp.amax(x, axis=-1)


def largest_vjp(xp, g, x):
    at = (x == xp.amax(x, axis=-1, keepdims=True)) * 1.0
    return (g[..., None] * at / total(xp, at),)


def soft_threshold(xp, x):
    return xp.sign(x) * (xp.abs(x) - 1) * (xp.abs(x) > 1)


def soft_threshold_vjp(xp, g, x):
    return (g * (xp.abs(x) > 1),)


# ---- along an axis ----


def softmax(xp, x):
    e = xp.exp(x - xp.amax(x, axis=-1, keepdims=True))
    return e / total(xp, e)


def softmax_vjp(xp, g, x):
    y = softmax(xp, x)
    return (y * (g - total(xp, g * y)),)


def log_softmax(xp, x):
    x = x - xp.amax(x, axis=-1, keepdims=True)
    return x - xp.log(total(xp, xp.exp(x)))


def log_softmax_vjp(xp, g, x):
    return (g - softmax(xp, x) * total(xp, g),)


def logsumexp(xp, x):
    top = xp.amax(x, axis=-1)
    return top + xp.log(xp.sum(xp.exp(x - top[..., None]), axis=-1))


def logsumexp_vjp(xp, g, x):
    return (g[..., None] * softmax(xp, x),)


def layer_norm(xp, x, w, b):
    d = x - mean(xp, x)
    return d / xp.sqrt(mean(xp, d * d) + 1e-5) * w + b


def layer_norm_vjp(xp, g, x, w, b):
    d = x - mean(xp, x)
    r = 1 / xp.sqrt(mean(xp, d * d) + 1e-5)
    h, n = d * r, g * w
    gx = r * (n - mean(xp, n) - h * mean(xp, n * h))
    return gx, unbroadcast(xp, g * h, w.shape), unbroadcast(xp, g, b.shape)


def rms_norm(xp, x, w):
    return x / xp.sqrt(mean(xp, x * x) + 1e-5) * w


def rms_norm_vjp(xp, g, x, w):
    r = 1 / xp.sqrt(mean(xp, x * x) + 1e-5)
    h, n = x * r, g * w
    return r * (n - h * mean(xp, n * h)), unbroadcast(xp, g * h, w.shape)


def norm(xp, x):
    return xp.sqrt(xp.sum(x * x, axis=-1))


def norm_vjp(xp, g, x):
    return (g[..., None] * (x / norm(xp, x)[..., None]),)


def normalize(xp, x):
    return x / norm(xp, x)[..., None]


def normalize_vjp(xp, g, x):
    n = norm(xp, x)[..., None]
    y = x / n
    return ((g - y * total(xp, g * y)) / n,)


def variance(xp, x):
    d = x - mean(xp, x)
    return xp.sum(d * d, axis=-1) / (x.shape[-1] - 1)


def variance_vjp(xp, g, x):
    return (g[..., None] * 2 * (x - mean(xp, x)) / (x.shape[-1] - 1),)


def average(xp, x):
    return xp.mean(x, axis=-1)


def average_vjp(xp, g, x):
    return (xp.zeros_like(x) + g[..., None] / x.shape[-1],)


def cumsum(xp, x):
    return xp.cumsum(x, -1)


def cumsum_vjp(xp, g, x):
    return (xp.flip(xp.cumsum(xp.flip(g, (-1,)), -1), (-1,)),)


def diff(xp, x):
    return x[..., 1:] - x[..., :-1]


def diff_vjp(xp, g, x):
    return (padded(xp, g, 1, 0) - padded(xp, g, 0, 1),)


def cross_entropy(xp, x, labels):
    return xp.mean(-xp.sum(log_softmax(xp, x) * one_hot(xp, labels, x.shape[-1]), axis=-1))


def cross_entropy_vjp(xp, g, x, labels):
    p = softmax(xp, x) - one_hot(xp, labels, x.shape[-1])
    return g * p / x.shape[0], None


def cosine(xp, x, y):
    return xp.sum(x * y, axis=-1) / (norm(xp, x) * norm(xp, y))


def cosine_vjp(xp, g, x, y):
    nx, ny, c = norm(xp, x)[..., None], norm(xp, y)[..., None], cosine(xp, x, y)[..., None]
    g = g[..., None]
    return g * (y / ny - c * x / nx) / nx, g * (x / nx - c * y / ny) / ny


# ---- products ----


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


# ---- what is drawn ----


def normal(*shapes):
    return lambda rng: [rng.standard_normal(shape) for shape in shapes]


def away_from_zero(*shapes):
    """Numbers of both signs, from 0.3 to 2 in size."""
    return lambda rng: [
        rng.uniform(0.3, 2, shape) * rng.choice([-1.0, 1.0], shape) for shape in shapes
    ]


def between(low: float, high: float, *shapes):
    return lambda rng: [rng.uniform(low, high, shape) for shape in shapes]


FUNCTIONS = {
    "sigmoid": Function(sigmoid, sigmoid_vjp, normal((3, 4))),
    "silu": Function(silu, silu_vjp, normal((2, 5))),
    "tanh": Function(tanh, tanh_vjp, normal((7,))),
    "gelu": Function(gelu, gelu_vjp, normal((3, 4))),
    "mul": Function(mul, mul_vjp, away_from_zero((4, 3), (3,))),
    "div": Function(div, div_vjp, away_from_zero((3, 4), (3, 1))),
    "affine": Function(affine, affine_vjp, normal((2, 3, 4), (4,), (4,))),
    "power": Function(power, power_vjp, between(0.5, 2, (5,), (5,))),
    "hypot": Function(hypot, hypot_vjp, away_from_zero((6,), (6,))),
    "square": Function(square, square_vjp, away_from_zero((3, 3))),
    "log": Function(log, log_vjp, between(0.3, 3, (6,))),
    "sqrt": Function(sqrt, sqrt_vjp, between(0.3, 3, (2, 3))),
    "arcsin": Function(arcsin, arcsin_vjp, between(-0.9, 0.9, (6,))),
    "arctanh": Function(arctanh, arctanh_vjp, between(-0.9, 0.9, (6,))),
    "log1p": Function(log1p, log1p_vjp, between(-0.7, 2, (6,))),
    "arccosh": Function(arccosh, arccosh_vjp, between(1.2, 3, (6,))),
    "relu": Function(relu, relu_vjp, away_from_zero((3, 5))),
    "leaky_relu": Function(leaky_relu, leaky_relu_vjp, away_from_zero((8,))),
    "absolute": Function(absolute, absolute_vjp, away_from_zero((2, 4))),
    "clip": Function(clip, clip_vjp, normal((3, 5))),
    "maximum": Function(maximum, maximum_vjp, normal((6,), (6,))),
    "largest": Function(largest, largest_vjp, normal((3, 5))),
    "soft_threshold": Function(soft_threshold, soft_threshold_vjp, normal((10,))),
    "softmax": Function(softmax, softmax_vjp, normal((3, 5))),
    "log_softmax": Function(log_softmax, log_softmax_vjp, normal((4, 3))),
    "logsumexp": Function(logsumexp, logsumexp_vjp, normal((3, 4))),
    "layer_norm": Function(layer_norm, layer_norm_vjp, normal((3, 6), (6,), (6,))),
    "rms_norm": Function(rms_norm, rms_norm_vjp, normal((2, 2, 5), (5,))),
    "norm": Function(norm, norm_vjp, normal((3, 4))),
    "normalize": Function(normalize, normalize_vjp, normal((3, 4))),
    "variance": Function(variance, variance_vjp, normal((3, 6))),
    "average": Function(average, average_vjp, normal((3, 6))),
    "cumsum": Function(cumsum, cumsum_vjp, normal((2, 6))),
    "diff": Function(diff, diff_vjp, normal((2, 6))),
    "cross_entropy": Function(
        cross_entropy, cross_entropy_vjp,
        lambda rng: [rng.standard_normal((4, 6)), rng.integers(0, 5, 4)],
    ),
    "cosine": Function(cosine, cosine_vjp, normal((3, 4), (3, 4))),
    "matmul": Function(matmul, matmul_vjp, normal((2, 3, 4), (4, 2))),
    "matmul_square": Function(matmul, matmul_vjp, normal((3, 3), (3, 3))),
    "linear": Function(linear, linear_vjp, normal((5, 4), (3, 4), (3,))),
    "gram": Function(gram, gram_vjp, normal((4, 3))),
    "bilinear": Function(bilinear, bilinear_vjp, normal((3, 4), (4, 4), (3, 4))),
    "outer": Function(outer, outer_vjp, normal((4,), (5,))),
    "attention": Function(attention, attention_vjp, normal((2, 4, 3), (2, 4, 3), (2, 4, 3))),
    "conv1d": Function(conv1d, conv1d_vjp, normal((2, 9), (4,))),
    "squared_distances": Function(squared_distances, squared_distances_vjp, normal((4, 3), (5, 3))),
    "rotate": Function(rotate, rotate_vjp, normal((2, 3, 8), (3, 4))),
    "embedding": Function(
        embedding, embedding_vjp,
        lambda rng: [rng.standard_normal((6, 3)), np.array([1, 4, 1, 2, 4, 1, 5])],
    ),
    "interpolate": Function(
        interpolate, interpolate_vjp,
        lambda rng: [rng.standard_normal(8), np.arange(6) + rng.uniform(0.1, 0.9, 6)],
    ),
    "merge_heads": Function(merge_heads, merge_heads_vjp, away_from_zero((2, 3, 4, 2))),
}  # fmt: skip
