"""Functions with gradients written by hand, right ones, for benchmarks/gradient_checkers.py.

Every function is written once, for NumPy, PyTorch and JAX alike: `xp` is one of numpy, torch and
jax.numpy. A function `f(xp, *args)` has its gradients in `f_vjp(xp, g, *args)`, as a tuple.
"""

from __future__ import annotations

import math


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
