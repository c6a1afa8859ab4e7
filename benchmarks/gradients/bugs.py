"""Mistakes as people make them in gradients, for benchmarks/gradient_checkers.py.

`BUGS` has for each kind of mistake a list of bugs. The gradients of the first seven kinds are wrong
in their numbers. Those of the last three kinds are right, or right on the average, when they are
called once in the usual way; what is wrong with them is their conduct.
"""

from __future__ import annotations

import math

from benchmarks.gradients import conduct
from benchmarks.gradients import functions as f
from benchmarks.gradients import products as p
from benchmarks.gradients.conduct import Bug
from benchmarks.gradients.functions import mean, one_hot, padded, softmax, total, unbroadcast
from benchmarks.gradients.products import turned


def _norm_parts(xp, x, w, g):
    """What layer_norm's gradient is made of: 1 / deviation, the normalized x, and g * w."""
    d = x - mean(xp, x)
    r = 1 / xp.sqrt(mean(xp, d * d) + 1e-5)
    return r, d * r, g * w


def _rows(xp, g, *columns):
    """g * w and g * h summed over all but the last axis."""
    return [unbroadcast(xp, g * c, g.shape[-1:]) for c in columns]


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
        p.squared_distances_vjp(xp, g, x, y)[0], -p.squared_distances_vjp(xp, g, x, y)[1])),
    Bug("leaky_relu", lambda xp, g, x: (xp.where(x > 0, g, -0.1 * g),)),
    Bug("rotate", lambda xp, g, x, angle: (
        p.rotate_vjp(xp, g, x, angle)[0], -p.rotate_vjp(xp, g, x, angle)[1])),
    Bug("interpolate", lambda xp, g, table, x: (
        p.interpolate_vjp(xp, g, table, x)[0], -p.interpolate_vjp(xp, g, table, x)[1])),
    Bug("normalize", lambda xp, g, x: (-f.normalize_vjp(xp, g, x)[0],)),
    Bug("absolute", lambda xp, g, x: (g * xp.abs(xp.sign(x)),)),
]  # fmt: skip


def _attention(xp, g, q, k, v, scale=None, keys=turned, centred=True, values=True):
    """Attention's gradient, with one or another step as it is written by mistake."""
    right = 1 / math.sqrt(q.shape[-1])
    y = softmax(xp, p.causal(xp, q @ turned(xp, k) * right))
    gy = g @ turned(xp, v)
    gs = y * (gy - total(xp, gy * y) if centred else gy) * (right if scale is None else scale)
    return gs @ k, keys(xp, gs) @ q, (turned(xp, y) if values else y) @ g


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
        xp.einsum("b,ji,bj->bi", g, w, y), *p.bilinear_vjp(xp, g, x, w, y)[1:])),
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
    return p.conv1d_vjp(xp, g, x, w)[0], xp.stack(
        [xp.sum(g * later[..., j : j + n]) for j in range(k)]
    )


def _interpolate(xp, g, table, x):
    """The table's gradient put one entry too far on."""
    gtable, gx = p.interpolate_vjp(xp, g, table, x)
    return _rolled(xp, gtable, 1), gx


INDEX = [
    Bug("cumsum", lambda xp, g, x: (f.cumsum_vjp(xp, g, x)[0] - g,)),
    Bug("cumsum", lambda xp, g, x: (padded(xp, f.cumsum_vjp(xp, g, x)[0], 1, 0)[..., :-1],)),
    Bug("diff", lambda xp, g, x: (_rolled(xp, f.diff_vjp(xp, g, x)[0], -1),)),
    Bug("diff", lambda xp, g, x: (
        padded(xp, (f.diff_vjp(xp, g, x)[0])[..., 1:], 1, 0),)),
    Bug("embedding", lambda xp, g, w, ids: (
        xp.roll(p.embedding_vjp(xp, g, w, ids)[0], 1, 0), None)),
    Bug("cross_entropy", lambda xp, g, x, ids: (
        g * (softmax(xp, x) - one_hot(xp, ids + 1, x.shape[-1])) / x.shape[0], None)),
    Bug("interpolate", _interpolate),
    Bug("conv1d", lambda xp, g, x, w: _conv1d(xp, g, x, w, w.shape[0] - 1, True)),
    Bug("conv1d", _conv1d_weights),
    Bug("softmax", lambda xp, g, x: (
        padded(xp, f.softmax_vjp(xp, g, x)[0][..., :-1], 0, 1),)),
    Bug("conv1d", lambda xp, g, x, w: (
        _rolled(xp, p.conv1d_vjp(xp, g, x, w)[0], 1), p.conv1d_vjp(xp, g, x, w)[1])),
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
    gx, gangle = p.rotate_vjp(xp, g, x, angle)
    n = x.shape[-1] // 2
    return xp.concatenate([gx[..., :n], 0 * gx[..., n:]], -1), gangle


DETACHED = [
    Bug("mul", _zeroed(f.mul_vjp, 1)),
    Bug("linear", _zeroed(p.linear_vjp, 2)),
    Bug("rms_norm", _zeroed(f.rms_norm_vjp, 1)),
    Bug("attention", _zeroed(p.attention_vjp, 0)),
    Bug("silu", lambda xp, g, x: (g * f.sigmoid(xp, x),)),
    Bug("rotate", _half),
    Bug("leaky_relu", lambda xp, g, x: (g * (x > 0),)),
    Bug("maximum", lambda xp, g, x, y: (g * (x > y), 0 * g)),
    Bug("power", _zeroed(f.power_vjp, 1)),
    Bug("interpolate", _zeroed(p.interpolate_vjp, 1)),
    Bug("largest", lambda xp, g, x: (
        f.largest_vjp(xp, g, x)[0] * (xp.arange(3)[:, None] < 1),)),
    Bug("bilinear", lambda xp, g, x, w, y: (
        p.bilinear_vjp(xp, g, x, w, y)[0], 0 * w, p.bilinear_vjp(xp, g, x, w, y)[2])),
]  # fmt: skip


BUGS = {
    "factor": FACTOR,
    "sign": SIGN,
    "transpose": TRANSPOSE,
    "broadcast sum left out": BROADCAST,
    "term left out": TERM,
    "index off by one": INDEX,
    "detached path": DETACHED,
    "nondeterminism": conduct.NONDETERMINISM,
    "writing into g or an argument": conduct.WRITING,
    "depends on memory order or on needs": conduct.DEPENDS,
}
