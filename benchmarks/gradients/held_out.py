"""More mistakes in gradients, written after the explanations of tensorlite/testing/mistakes.py.

The author of the explanations knew the mistakes of bugs.py. These were written when the
explanations were finished, and nothing was changed to explain them.
"""

from __future__ import annotations

from benchmarks.gradients import functions as f
from benchmarks.gradients import products as p
from benchmarks.gradients.conduct import Bug
from benchmarks.gradients.functions import mean, one_hot, padded, softmax, total
from benchmarks.gradients.products import turned


def changed(vjp, i: int, how):
    """The gradients of `vjp`, with that for argument i changed by how(xp, gradient, g, *args)."""

    def wrong(xp, g, *args):
        gs = list(vjp(xp, g, *args))
        gs[i] = how(xp, gs[i], g, *args)
        return tuple(gs)

    return wrong


def _log_deviation(xp, g, x, w, b):
    """The variance in place of its root."""
    d = x - mean(xp, x)
    r = 1 / (mean(xp, d * d) + 1e-5)
    h, n = d * r**0.5, g * w
    gx = r * (n - mean(xp, n) - h * mean(xp, n * h))
    return gx, *f.layer_norm_vjp(xp, g, x, w, b)[1:]


HELD_OUT = {
    "factor": [
        Bug("hypot", lambda xp, g, x, y: (g * x, g * y)),
        Bug("squared_distances", lambda xp, g, x, y: tuple(
            v / 2 for v in p.squared_distances_vjp(xp, g, x, y))),
        Bug("layer_norm", _log_deviation),
        Bug("logsumexp", lambda xp, g, x: (softmax(xp, x) + 0 * g[..., None],)),
        Bug("merge_heads", lambda xp, g, x: (p.merge_heads_vjp(xp, g, x)[0] / x,)),
        Bug("cosine", lambda xp, g, x, y: tuple(
            v * f.norm(xp, z)[..., None] for v, z in zip(f.cosine_vjp(xp, g, x, y), (x, y)))),
    ],
    "sign": [
        Bug("cosine", lambda xp, g, x, y: tuple(-v for v in f.cosine_vjp(xp, g, x, y))),
        Bug("power", changed(f.power_vjp, 1, lambda xp, v, g, x, y: g * x**y * xp.log(1 / x))),
        Bug("cross_entropy", lambda xp, g, x, ids: (
            g * (one_hot(xp, ids, x.shape[-1]) - softmax(xp, x)) / x.shape[0], None)),
        Bug("clip", lambda xp, g, x: (g * (xp.abs(x) <= 1) * xp.sign(x),)),
        Bug("rotate", changed(p.rotate_vjp, 0, lambda xp, v, g, x, a: xp.concatenate(
            [v[..., :4], -v[..., 4:]], -1))),
    ],
    "transpose": [
        Bug("linear_square", changed(p.linear_vjp, 1, lambda xp, v, g, x, w, b: turned(xp, x) @ g)),
        Bug("linear_square", changed(p.linear_vjp, 0, lambda xp, v, g, x, w, b: g @ turned(xp, w))),
        Bug("bilinear", changed(p.bilinear_vjp, 2, lambda xp, v, g, x, w, y: xp.einsum(
            "b,bi,ji->bj", g, x, w))),
        Bug("attention", changed(p.attention_vjp, 0, lambda xp, v, g, q, k, u: turned(xp, v)
            .reshape(v.shape))),
        Bug("merge_heads", lambda xp, g, x: (3 * x * x * xp.swapaxes(
            g.reshape(x.shape[0], x.shape[1], x.shape[3], x.shape[2]), 2, 3),)),
    ],
    "broadcast sum left out": [
        Bug("rotate", changed(p.rotate_vjp, 1, lambda xp, v, g, x, a: p.rotate_vjp(
            xp, g[0], x[0], a)[1])),
        Bug("rms_norm", changed(f.rms_norm_vjp, 1, lambda xp, v, g, x, w: v / 4)),
        Bug("affine", changed(f.affine_vjp, 2, lambda xp, v, g, x, w, b: xp.amax(
            xp.amax(g, axis=0), axis=0))),
        Bug("div", changed(f.div_vjp, 1, lambda xp, v, g, x, y: total(xp, g)[:, :1] * 0 + v / 4)),
        Bug("affine", changed(f.affine_vjp, 1, lambda xp, v, g, x, w, b: xp.sum(
            (g * x)[0], axis=0))),
    ],
    "term left out": [
        Bug("silu", lambda xp, g, x: (
            g * x * f.sigmoid(xp, x) * (1 - f.sigmoid(xp, x)),)),
        Bug("variance", lambda xp, g, x: (g[..., None] * 2 * x / (x.shape[-1] - 1),)),
        Bug("log_softmax", lambda xp, g, x: (g + 0 * x,)),
        Bug("squared_distances", changed(p.squared_distances_vjp, 0, lambda xp, v, g, x, y: (
            2 * x * total(xp, g)))),
        Bug("rotate", changed(p.rotate_vjp, 0, lambda xp, v, g, x, a: g * xp.concatenate(
            [xp.cos(a), xp.cos(a)], -1))),
        Bug("logsumexp", lambda xp, g, x: (
            g[..., None] * (softmax(xp, x) - 1 / x.shape[-1]),)),
        Bug("rms_norm", changed(f.rms_norm_vjp, 0, lambda xp, v, g, x, w: v - g * w)),
    ],
    "index off by one": [
        Bug("cumsum", lambda xp, g, x: (xp.cumsum(g, -1),)),
        Bug("diff", lambda xp, g, x: (padded(xp, g, 1, 0),)),
        Bug("conv1d", changed(p.conv1d_vjp, 0, lambda xp, v, g, x, w: sum(
            padded(xp, g * w[j], j, 3 - j) for j in range(1, 4)))),
        Bug("conv1d", changed(p.conv1d_vjp, 1, lambda xp, v, g, x, w: xp.flip(v, (0,)))),
        Bug("embedding", changed(p.embedding_vjp, 0, lambda xp, v, g, w, ids: turned(
            xp, one_hot(xp, ids[1:], 6) + 0 * g[1:, :1]) @ g[:-1])),
        Bug("largest", lambda xp, g, x: (xp.roll(f.largest_vjp(xp, g, x)[0], 1, -1),)),
    ],
    "detached path": [
        Bug("cosine", changed(f.cosine_vjp, 1, lambda xp, v, g, x, y: 0 * v)),
        Bug("hypot", changed(f.hypot_vjp, 0, lambda xp, v, g, x, y: v * (xp.abs(x) > xp.abs(y)))),
        Bug("gram", lambda xp, g, x: (turned(xp, g) @ x,)),
        Bug("conv1d", changed(p.conv1d_vjp, 1, lambda xp, v, g, x, w: 0 * v)),
        Bug("softmax", lambda xp, g, x: (f.softmax_vjp(xp, g, x)[0] * (x > 0),)),
        Bug("interpolate", changed(p.interpolate_vjp, 0, lambda xp, v, g, t, x: v * (t > 0))),
    ],
}  # fmt: skip
