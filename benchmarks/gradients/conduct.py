"""Functions and gradients whose numbers are right, and whose conduct is wrong."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from benchmarks.gradients import functions as f
from benchmarks.gradients import products as p
from benchmarks.gradients.functions import mean, softmax, total


class Bug(NamedTuple):
    """A wrong `vjp`, or a `value` that misbehaves, for the function of this name."""

    function: str
    vjp: Callable
    value: Callable | None = None
    frameworks: str = "ntj"  # NumPy, torch, JAX: where the mistake can be made


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
    gs = p.linear_vjp(xp, g, x, w, b)
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
        start = x.__array_interface__["data"][0] - memory.__array_interface__["data"][0]
        start = start // x.itemsize if np.shares_memory(x, memory) else 0
        return np.resize(memory[max(start, 0) :], x.shape)
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


DEPENDS = [
    Bug("gelu", _raw_g(f.gelu_vjp), frameworks="nt"),
    Bug("layer_norm", _raw_g(f.layer_norm_vjp), frameworks="nt"),
    Bug("softmax", _raw_args_vjp(f.softmax_vjp), frameworks="nt"),
    Bug("silu", _raw_args_vjp(f.silu_vjp), _raw_args(f.silu), frameworks="nt"),
    Bug("matmul", _raw_g(p.matmul_vjp), frameworks="nt"),
    Bug("hypot", _together(f.hypot_vjp, 0, 1), frameworks="nt"),
    Bug("linear", _together(p.linear_vjp, 1, 2), frameworks="nt"),
    Bug("attention", _together(p.attention_vjp, 0, 1), frameworks="nt"),
    Bug("maximum", _together(f.maximum_vjp, 1, 0), frameworks="nt"),
    Bug("rms_norm", _together(f.rms_norm_vjp, 1, 0), frameworks="nt"),
]
