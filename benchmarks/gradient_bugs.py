"""Mistakes as people make them in gradients, for benchmarks/gradient_checkers.py.

`BUGS` has for each kind of mistake a list of (function, wrong gradients). The gradients of the first
seven kinds are wrong in their numbers. Those of the last three kinds are right when they are called
once in the usual way; what is wrong with them is their conduct.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from benchmarks import gradient_functions as f
from benchmarks.gradient_functions import mean, one_hot, padded, softmax, total, turned, unbroadcast


class Bug(NamedTuple):
    """A wrong `vjp`, or a `value` that misbehaves, for the function of this name."""

    function: str
    vjp: Callable
    value: Callable | None = None
    frameworks: str = "ntj"  # NumPy, torch, JAX: where the mistake can be made


def _norm_parts(xp, x, w, g):
    """What layer_norm's gradient is made of: 1 / deviation, the normalized x, and g * w."""
    d = x - mean(xp, x)
    r = 1 / xp.sqrt(mean(xp, d * d) + 1e-5)
    return r, d * r, g * w


def _rows(xp, g, *columns):
    """g * w and g * h summed over all but the last axis."""
    return [unbroadcast(xp, g * c, g.shape[-1:]) for c in columns]


# =================================================================================================
# Wrong numbers
# =================================================================================================

FACTOR = [
    Bug("square", lambda xp, g, x: (g * x,)),
    Bug("average", lambda xp, g, x: (xp.zeros_like(x) + g[..., None],)),
    Bug("variance", lambda xp, g, x: (g[..., None] * 2 * (x - mean(xp, x)) / x.shape[-1],)),
    Bug("sqrt", lambda xp, g, x: (g / xp.sqrt(x),)),
    Bug("tanh", lambda xp, g, x: (g * (1 - xp.tanh(x)),)),
    Bug("sigmoid", lambda xp, g, x: (g * f.sigmoid(xp, x),)),
    Bug("norm", lambda xp, g, x: (g[..., None] * x,)),
    Bug("cross_entropy", lambda xp, g, x, ids: (
        g * (softmax(xp, x) - one_hot(xp, ids, x.shape[-1])), None)),
    Bug("softmax", lambda xp, g, x: (g - total(xp, g * softmax(xp, x)),)),
    Bug("gelu", lambda xp, g, x: (f.gelu_vjp(xp, g, x)[0] * 0.5,)),
    Bug("attention", lambda xp, g, q, k, v: _attention(xp, g, q, k, v, scale=1.0)),
    Bug("log1p", lambda xp, g, x: (g / (1 + x) / math.log(10),)),
]  # fmt: skip

SIGN = [
    Bug("div", lambda xp, g, x, y: (
        unbroadcast(xp, g / y, x.shape), unbroadcast(xp, g * x / y / y, y.shape))),
    Bug("diff", lambda xp, g, x: (padded(xp, g, 0, 1) - padded(xp, g, 1, 0),)),
    Bug("absolute", lambda xp, g, x: (-g * xp.sign(x),)),
    Bug("squared_distances", lambda xp, g, x, y: (
        f.squared_distances_vjp(xp, g, x, y)[0], -f.squared_distances_vjp(xp, g, x, y)[1])),
    Bug("leaky_relu", lambda xp, g, x: (xp.where(x > 0, g, -0.1 * g),)),
    Bug("rotate", lambda xp, g, x, angle: (
        f.rotate_vjp(xp, g, x, angle)[0], -f.rotate_vjp(xp, g, x, angle)[1])),
    Bug("interpolate", lambda xp, g, table, x: (
        f.interpolate_vjp(xp, g, table, x)[0], -f.interpolate_vjp(xp, g, table, x)[1])),
    Bug("normalize", lambda xp, g, x: (-f.normalize_vjp(xp, g, x)[0],)),
    Bug("absolute", lambda xp, g, x: (g * xp.abs(xp.sign(x)),)),
]  # fmt: skip


def _attention(xp, g, q, k, v, scale=None, keys=turned, centred=True, values=True):
    """Attention's gradient, with one or another step as it is written by mistake."""
    right = 1 / math.sqrt(q.shape[-1])
    p = softmax(xp, f.causal(xp, q @ turned(xp, k) * right))
    gp = g @ turned(xp, v)
    gs = p * (gp - total(xp, gp * p) if centred else gp) * (right if scale is None else scale)
    return gs @ k, keys(xp, gs) @ q, (turned(xp, p) if values else p) @ g


def _same(xp, x):
    return x


TRANSPOSE = [
    Bug("matmul", lambda xp, g, a, b: (
        (g @ turned(xp, b)), turned(xp, unbroadcast(xp, turned(xp, a) @ g, b.shape))
        .reshape(b.shape))),
    Bug("gram", lambda xp, g, x: (2 * turned(xp, g) @ x,)),
    Bug("bilinear", lambda xp, g, x, w, y: (
        xp.einsum("b,ij,bj->bi", g, w, y), xp.einsum("b,bi,bj->ji", g, x, y),
        xp.einsum("b,bi,ij->bj", g, x, w))),
    Bug("bilinear", lambda xp, g, x, w, y: (
        xp.einsum("b,ji,bj->bi", g, w, y), *f.bilinear_vjp(xp, g, x, w, y)[1:])),
    Bug("attention", lambda xp, g, q, k, v: _attention(xp, g, q, k, v, keys=_same)),
    Bug("attention", lambda xp, g, q, k, v: _attention(xp, g, q, k, v, values=False)),
    Bug("merge_heads", lambda xp, g, x: (
        3 * x * x * g.reshape(x.shape),)),
    Bug("square", lambda xp, g, x: (turned(xp, 2 * g * x),)),
    Bug("matmul_square", lambda xp, g, a, b: (g @ b, turned(xp, a) @ g)),
    Bug("matmul_square", lambda xp, g, a, b: (g @ turned(xp, b), a @ g)),
    Bug("linear", lambda xp, g, x, w, b: (
        g @ w, (turned(xp, x) @ g).reshape(w.shape), xp.sum(g, axis=0))),
]  # fmt: skip


def _affine(xp, g, x, w, b, reduce):
    """x * w + b, with something else than a sum over the broadcast axes for w and b."""
    return g * w, reduce(xp, g * x, w.shape), reduce(xp, g, b.shape)


def _last(xp, g, shape):
    while g.ndim > len(shape):
        g = g[-1]
    return g


def _first_axis(xp, g, shape):
    """Summed over the first axis, and the second one forgotten."""
    g = xp.sum(g, axis=0)
    return g[0] if g.ndim > len(shape) else g


def _mean(xp, g, shape):
    n = math.prod(g.shape) // math.prod(shape)
    return unbroadcast(xp, g, shape) / n


def _written(xp, like, ids, g):
    """g written to the rows `ids` of zeros, where it must be added."""
    out = xp.zeros_like(like)
    if hasattr(out, "at"):
        return out.at[ids].set(g)
    out[ids] = g
    return out


BROADCAST = [
    Bug("affine", lambda xp, g, x, w, b: _affine(xp, g, x, w, b, _last)),
    Bug("affine", lambda xp, g, x, w, b: _affine(xp, g, x, w, b, _mean)),
    Bug("affine", lambda xp, g, x, w, b: _affine(xp, g, x, w, b, _first_axis)),
    Bug("mul", lambda xp, g, x, y: (g * y, g * x), frameworks="n"),
    Bug("mul", lambda xp, g, x, y: (g * y, (g * x)[0])),
    Bug("div", lambda xp, g, x, y: (g / y, (-g * x / y / y)[:, :1])),
    Bug("div", lambda xp, g, x, y: (g / y, -g * x / y / y), frameworks="n"),
    Bug("layer_norm", lambda xp, g, x, w, b: (
        f.layer_norm_vjp(xp, g, x, w, b)[0], f.layer_norm_vjp(xp, g, x, w, b)[1], g[0])),
    Bug("linear", lambda xp, g, x, w, b: (g @ w, turned(xp, g) @ x, xp.mean(g, axis=0))),
    Bug("linear", lambda xp, g, x, w, b: (g @ w, turned(xp, g) @ x, g), frameworks="n"),
    Bug("matmul", lambda xp, g, a, b: (g @ turned(xp, b), (turned(xp, a) @ g)[0])),
    Bug("embedding", lambda xp, g, w, ids: (_written(xp, w, ids, g), None)),
]  # fmt: skip


def _layer_norm(xp, g, x, w, b, centred, scaled):
    r, h, n = _norm_parts(xp, x, w, g)
    gx = r * (n - centred * mean(xp, n) - scaled * h * mean(xp, n * h))
    return gx, *_rows(xp, g, h, xp.ones_like(h))


def _cosine(xp, g, x, y):
    nx, ny = f.norm(xp, x)[..., None], f.norm(xp, y)[..., None]
    return g[..., None] * y / nx / ny, g[..., None] * x / nx / ny


TERM = [
    Bug("softmax", lambda xp, g, x: (softmax(xp, x) * g,)),
    Bug("log_softmax", lambda xp, g, x: (g - softmax(xp, x),)),
    Bug("layer_norm", lambda xp, g, x, w, b: _layer_norm(xp, g, x, w, b, 0, 1)),
    Bug("layer_norm", lambda xp, g, x, w, b: _layer_norm(xp, g, x, w, b, 1, 0)),
    Bug("layer_norm", lambda xp, g, x, w, b: _layer_norm(xp, g, x, w, b, 0, 0)),
    Bug("rms_norm", lambda xp, g, x, w: (
        g * w / xp.sqrt(mean(xp, x * x) + 1e-5), f.rms_norm_vjp(xp, g, x, w)[1])),
    Bug("gelu", lambda xp, g, x: (
        g * 0.5 * (1 + xp.tanh(f.SCALE * (x + 0.044715 * x**3))),)),
    Bug("gelu", lambda xp, g, x: (_gelu_inner(xp, g, x),)),
    Bug("cosine", _cosine),
    Bug("normalize", lambda xp, g, x: (g / f.norm(xp, x)[..., None],)),
    Bug("gram", lambda xp, g, x: (g @ x,)),
    Bug("attention", lambda xp, g, q, k, v: _attention(xp, g, q, k, v, centred=False)),
    Bug("cross_entropy", lambda xp, g, x, ids: (g * softmax(xp, x) / x.shape[0], None)),
]  # fmt: skip


def _gelu_inner(xp, g, x):
    """The derivative of the cubic term inside tanh forgotten."""
    t = xp.tanh(f.SCALE * (x + 0.044715 * x**3))
    return g * (0.5 * (1 + t) + 0.5 * x * (1 - t * t) * f.SCALE)


def _rolled(xp, x, step: int):
    return xp.roll(x, step, -1)


def _conv1d(xp, g, x, w, taps, before):
    k, n = w.shape[0], g.shape[-1]
    gx = padded(xp, 0 * g, k - 1, 0)
    for j in range(taps):
        gx = gx + padded(xp, g * w[j], *((j, k - 1 - j) if before else (k - 1 - j, j)))
    gw = [xp.sum(g * x[..., j : j + n]) * (j < taps) for j in range(k)]
    return gx, xp.stack(gw)


def _conv1d_weights(xp, g, x, w):
    """The weights' gradient read one place too far on."""
    k, n = w.shape[0], g.shape[-1]
    later = padded(xp, x, 0, 1)[..., 1:]
    return f.conv1d_vjp(xp, g, x, w)[0], xp.stack(
        [xp.sum(g * later[..., j : j + n]) for j in range(k)]
    )


def _interpolate(xp, g, table, x):
    """The table's gradient put one entry too far on."""
    gtable, gx = f.interpolate_vjp(xp, g, table, x)
    return _rolled(xp, gtable, 1), gx


INDEX = [
    Bug("cumsum", lambda xp, g, x: (f.cumsum_vjp(xp, g, x)[0] - g,)),
    Bug("cumsum", lambda xp, g, x: (padded(xp, f.cumsum_vjp(xp, g, x)[0], 1, 0)[..., :-1],)),
    Bug("diff", lambda xp, g, x: (_rolled(xp, f.diff_vjp(xp, g, x)[0], -1),)),
    Bug("diff", lambda xp, g, x: (
        padded(xp, (f.diff_vjp(xp, g, x)[0])[..., 1:], 1, 0),)),
    Bug("embedding", lambda xp, g, w, ids: (
        xp.roll(f.embedding_vjp(xp, g, w, ids)[0], 1, 0), None)),
    Bug("cross_entropy", lambda xp, g, x, ids: (
        g * (softmax(xp, x) - one_hot(xp, ids + 1, x.shape[-1])) / x.shape[0], None)),
    Bug("interpolate", _interpolate),
    Bug("conv1d", lambda xp, g, x, w: _conv1d(xp, g, x, w, w.shape[0] - 1, True)),
    Bug("conv1d", _conv1d_weights),
    Bug("softmax", lambda xp, g, x: (
        padded(xp, f.softmax_vjp(xp, g, x)[0][..., :-1], 0, 1),)),
    Bug("conv1d", lambda xp, g, x, w: (
        _rolled(xp, f.conv1d_vjp(xp, g, x, w)[0], 1), f.conv1d_vjp(xp, g, x, w)[1])),
    Bug("average", lambda xp, g, x: (
        padded(xp, f.average_vjp(xp, g, x)[0][..., 1:], 1, 0),)),
]  # fmt: skip


def _zeroed(vjp, i: int):
    """The gradients of `vjp`, with zeros for argument i."""

    def wrong(xp, g, *args):
        gs = list(vjp(xp, g, *args))
        gs[i] = 0 * args[i]
        return tuple(gs)

    return wrong


def _half(xp, g, x, angle):
    """The second half of the points gets no gradient."""
    gx, gangle = f.rotate_vjp(xp, g, x, angle)
    n = x.shape[-1] // 2
    return xp.concatenate([gx[..., :n], 0 * gx[..., n:]], -1), gangle


DETACHED = [
    Bug("mul", _zeroed(f.mul_vjp, 1)),
    Bug("linear", _zeroed(f.linear_vjp, 2)),
    Bug("rms_norm", _zeroed(f.rms_norm_vjp, 1)),
    Bug("attention", _zeroed(f.attention_vjp, 0)),
    Bug("silu", lambda xp, g, x: (g * f.sigmoid(xp, x),)),
    Bug("rotate", _half),
    Bug("leaky_relu", lambda xp, g, x: (g * (x > 0),)),
    Bug("maximum", lambda xp, g, x, y: (g * (x > y), 0 * g)),
    Bug("power", _zeroed(f.power_vjp, 1)),
    Bug("interpolate", _zeroed(f.interpolate_vjp, 1)),
    Bug("largest", lambda xp, g, x: (
        f.largest_vjp(xp, g, x)[0] * (xp.arange(3)[:, None] < 2),)),
    Bug("bilinear", lambda xp, g, x, w, y: (
        f.bilinear_vjp(xp, g, x, w, y)[0], 0 * w, f.bilinear_vjp(xp, g, x, w, y)[2])),
]  # fmt: skip


# =================================================================================================
# Wrong conduct
# =================================================================================================


class Noise:
    """Random numbers from a generator that is not seeded anew in each call."""

    def __init__(self):
        self.rng = np.random.default_rng(5)

    def like(self, xp, x):
        return xp.asarray(self.rng.standard_normal(tuple(x.shape)))

    def mask(self, xp, x):
        return xp.asarray(self.rng.random(tuple(x.shape)) > 0.3) * 1.0


NOISE = Noise()
KEPT: dict = {}  # what functions keep between calls by mistake


def _dropout(xp, x):
    return x * NOISE.mask(xp, x) / 0.7


def _dropout_vjp(xp, g, x):
    return (g * NOISE.mask(xp, x) / 0.7,)


def _accumulated(name, vjp):
    """The gradient is added to a buffer that is not emptied between calls."""

    def wrong(xp, g, *args):
        first, *rest = vjp(xp, g, *args)
        key = name, xp.__name__, tuple(first.shape)
        KEPT[key] = first + KEPT.get(key, 0)
        return KEPT[key], *rest

    return wrong


NONDETERMINISM = [
    Bug("square", _dropout_vjp, _dropout),
    Bug("silu", lambda xp, g, x: (f.silu_vjp(xp, g, x)[0] * NOISE.mask(xp, x),)),
    Bug("tanh", lambda xp, g, x: (f.tanh_vjp(xp, g, x)[0] + 1e-3 * NOISE.like(xp, x),)),
    Bug("square", f.square_vjp, lambda xp, x: f.square(xp, x) + 0.01 * NOISE.like(xp, x)),
    Bug("softmax", _accumulated("softmax", f.softmax_vjp), frameworks="nt"),
    Bug("mul", _accumulated("mul", f.mul_vjp), frameworks="nt"),
    Bug("layer_norm", lambda xp, g, x, w, b: tuple(
        v * (1 + 1e-4 * NOISE.like(xp, v)) for v in f.layer_norm_vjp(xp, g, x, w, b))),
    Bug("gelu", lambda xp, g, x: (f.gelu_vjp(xp, g, x + 0.01 * NOISE.like(xp, x))[0],)),
]  # fmt: skip


def _in_place(xp, g, x):
    y = xp.tanh(x)
    g *= 1 - y * y
    return (g,)


def _masked_in_place(xp, g, x):
    g[x <= 0] = 0
    return (g,)


def _scaled_after(xp, g, x):
    gx = 2 * g * x
    g *= 0
    return (gx,)


def _softmax_in_place(xp, x):
    x -= xp.amax(x, axis=-1, keepdims=True)
    return softmax(xp, x)


def _normalized_in_place(xp, g, x):
    gx = f.norm_vjp(xp, g, x)[0]
    x /= f.norm(xp, x)[..., None]
    return (gx,)


def _centred_in_place(xp, x):
    x -= mean(xp, x)
    return xp.sum(x * x, axis=-1) / (x.shape[-1] - 1)


def _clipped_in_place(xp, x):
    x[x > 1] = 1
    x[x < -1] = -1
    return x * 1


def _weights_in_place(xp, g, x, w, b):
    gs = f.linear_vjp(xp, g, x, w, b)
    w += 0.1 * gs[1]
    return gs


def _sorted_in_place(xp, g, x, y):
    gx, gy = g * (x / xp.hypot(x, y)), g * (y / xp.hypot(x, y))
    y[...] = xp.abs(y)
    return gx, gy


def _minus_in_place(xp, g, x):
    y = softmax(xp, x)
    g -= total(xp, g * y)
    return (y * g,)


WRITING = [
    Bug("tanh", _in_place, frameworks="nt"),
    Bug("relu", _masked_in_place, frameworks="nt"),
    Bug("square", _scaled_after, frameworks="nt"),
    Bug("softmax", f.softmax_vjp, _softmax_in_place, "nt"),
    Bug("norm", _normalized_in_place, frameworks="nt"),
    Bug("variance", f.variance_vjp, _centred_in_place, "nt"),
    Bug("clip", f.clip_vjp, _clipped_in_place, "nt"),
    Bug("linear", _weights_in_place, frameworks="nt"),
    Bug("hypot", _sorted_in_place, frameworks="nt"),
    Bug("softmax", _minus_in_place, frameworks="nt"),
]


def raw(xp, x):
    """What a kernel reads that is given the address of x and takes its memory to be in C order."""
    if xp is np:
        if x.flags.c_contiguous:
            return x
        base = x if x.base is None or not isinstance(x.base, np.ndarray) else x.base
        memory = base.ravel(order="K")
        start = (x.__array_interface__["data"][0] - memory.__array_interface__["data"][0])
        start = start // x.itemsize if np.shares_memory(x, memory) else 0
        return np.resize(memory[max(start, 0):], x.shape)
    if x.is_contiguous():
        return x
    strides = [math.prod(x.shape[i + 1 :]) for i in range(x.ndim)]
    return x.as_strided(x.shape, strides)


def _raw_g(vjp):
    return lambda xp, g, *args: vjp(xp, raw(xp, g), *args)


def _raw_args(function):
    return lambda xp, *args: function(xp, *(raw(xp, x) for x in args))


def _raw_args_vjp(vjp):
    return lambda xp, g, *args: vjp(xp, g, *(raw(xp, x) for x in args))


def _together(vjp, when: int, then: int):
    """The gradient of one argument is computed only if another one needs its own."""

    def wrong(xp, g, *args, needs=None):
        gs = list(vjp(xp, g, *args))
        if needs is not None and not needs[when]:
            gs[then] = 0 * gs[then]
        return tuple(gs)

    return wrong


def _first_come(vjp):
    """The gradients that are needed, in their order, from the first place on."""

    def wrong(xp, g, *args, needs=None):
        gs = list(vjp(xp, g, *args))
        if needs is None or all(needs) or not any(needs):
            return tuple(gs)
        alone = [x for x, need in zip(gs, needs) if need]
        return tuple(gs[0] * 0 if need and gs[0].shape == x.shape and len(alone) < len(gs) else x
                     for x, need in zip(gs, needs))

    return wrong


DEPENDS = [
    Bug("gelu", _raw_g(f.gelu_vjp), frameworks="nt"),
    Bug("layer_norm", _raw_g(f.layer_norm_vjp), frameworks="nt"),
    Bug("softmax", _raw_args_vjp(f.softmax_vjp), frameworks="nt"),
    Bug("silu", _raw_args_vjp(f.silu_vjp), _raw_args(f.silu), frameworks="nt"),
    Bug("matmul", _raw_g(f.matmul_vjp), frameworks="nt"),
    Bug("hypot", _together(f.hypot_vjp, 0, 1), frameworks="nt"),
    Bug("linear", _together(f.linear_vjp, 1, 2), frameworks="nt"),
    Bug("attention", _together(f.attention_vjp, 0, 1), frameworks="nt"),
    Bug("maximum", _first_come(f.maximum_vjp), frameworks="nt"),
    Bug("rms_norm", _together(f.rms_norm_vjp, 1, 0), frameworks="nt"),
]

BUGS = {
    "factor": FACTOR,
    "sign": SIGN,
    "transpose": TRANSPOSE,
    "broadcast sum left out": BROADCAST,
    "term left out": TERM,
    "index off by one": INDEX,
    "detached path": DETACHED,
    "nondeterminism": NONDETERMINISM,
    "writing into g or an argument": WRITING,
    "depends on memory order or on needs": DEPENDS,
}
