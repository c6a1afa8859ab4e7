"""All functions of the benchmark by name, with the arguments that are drawn for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from benchmarks.gradients import functions as f
from benchmarks.gradients import products as p


class Function(NamedTuple):
    """A function, its gradients, and `draw(rng)`, which gives a list of arguments for them."""

    value: Callable
    vjp: Callable
    draw: Callable


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
    "sigmoid": Function(f.sigmoid, f.sigmoid_vjp, normal((3, 4))),
    "silu": Function(f.silu, f.silu_vjp, normal((2, 5))),
    "tanh": Function(f.tanh, f.tanh_vjp, normal((7,))),
    "gelu": Function(f.gelu, f.gelu_vjp, normal((3, 4))),
    "mul": Function(f.mul, f.mul_vjp, away_from_zero((4, 3), (3,))),
    "div": Function(f.div, f.div_vjp, away_from_zero((3, 4), (3, 1))),
    "affine": Function(f.affine, f.affine_vjp, normal((2, 3, 4), (4,), (4,))),
    "power": Function(f.power, f.power_vjp, between(0.5, 2, (5,), (5,))),
    "hypot": Function(f.hypot, f.hypot_vjp, away_from_zero((6,), (6,))),
    "square": Function(f.square, f.square_vjp, away_from_zero((3, 3))),
    "log": Function(f.log, f.log_vjp, between(0.3, 3, (6,))),
    "sqrt": Function(f.sqrt, f.sqrt_vjp, between(0.3, 3, (2, 3))),
    "arcsin": Function(f.arcsin, f.arcsin_vjp, between(-0.9, 0.9, (6,))),
    "arctanh": Function(f.arctanh, f.arctanh_vjp, between(-0.9, 0.9, (6,))),
    "log1p": Function(f.log1p, f.log1p_vjp, between(-0.7, 2, (6,))),
    "arccosh": Function(f.arccosh, f.arccosh_vjp, between(1.2, 3, (6,))),
    "relu": Function(f.relu, f.relu_vjp, away_from_zero((3, 5))),
    "leaky_relu": Function(f.leaky_relu, f.leaky_relu_vjp, away_from_zero((8,))),
    "absolute": Function(f.absolute, f.absolute_vjp, away_from_zero((2, 4))),
    "clip": Function(f.clip, f.clip_vjp, normal((3, 5))),
    "maximum": Function(f.maximum, f.maximum_vjp, normal((6,), (6,))),
    "largest": Function(f.largest, f.largest_vjp, normal((3, 5))),
    "soft_threshold": Function(f.soft_threshold, f.soft_threshold_vjp, normal((10,))),
    "softmax": Function(f.softmax, f.softmax_vjp, normal((3, 5))),
    "log_softmax": Function(f.log_softmax, f.log_softmax_vjp, normal((4, 3))),
    "logsumexp": Function(f.logsumexp, f.logsumexp_vjp, normal((3, 4))),
    "layer_norm": Function(f.layer_norm, f.layer_norm_vjp, normal((3, 6), (6,), (6,))),
    "rms_norm": Function(f.rms_norm, f.rms_norm_vjp, normal((2, 2, 5), (5,))),
    "norm": Function(f.norm, f.norm_vjp, normal((3, 4))),
    "normalize": Function(f.normalize, f.normalize_vjp, normal((3, 4))),
    "variance": Function(f.variance, f.variance_vjp, normal((3, 6))),
    "average": Function(f.average, f.average_vjp, normal((3, 6))),
    "cumsum": Function(f.cumsum, f.cumsum_vjp, normal((2, 6))),
    "diff": Function(f.diff, f.diff_vjp, normal((2, 6))),
    "cross_entropy": Function(
        f.cross_entropy, f.cross_entropy_vjp,
        lambda rng: [rng.standard_normal((4, 6)), rng.integers(0, 5, 4)],
    ),
    "cosine": Function(f.cosine, f.cosine_vjp, normal((3, 4), (3, 4))),
    "matmul": Function(p.matmul, p.matmul_vjp, normal((2, 3, 4), (4, 2))),
    "matmul_square": Function(p.matmul, p.matmul_vjp, normal((3, 3), (3, 3))),
    "linear": Function(p.linear, p.linear_vjp, normal((5, 4), (3, 4), (3,))),
    "linear_square": Function(p.linear, p.linear_vjp, normal((4, 4), (4, 4), (4,))),
    "gram": Function(p.gram, p.gram_vjp, normal((4, 3))),
    "bilinear": Function(p.bilinear, p.bilinear_vjp, normal((3, 4), (4, 4), (3, 4))),
    "outer": Function(p.outer, p.outer_vjp, normal((4,), (5,))),
    "attention": Function(p.attention, p.attention_vjp, normal((2, 4, 3), (2, 4, 3), (2, 4, 3))),
    "conv1d": Function(p.conv1d, p.conv1d_vjp, normal((2, 9), (4,))),
    "squared_distances": Function(
        p.squared_distances, p.squared_distances_vjp, normal((4, 3), (5, 3))
    ),
    "rotate": Function(p.rotate, p.rotate_vjp, normal((2, 3, 8), (3, 4))),
    "embedding": Function(
        p.embedding, p.embedding_vjp,
        lambda rng: [rng.standard_normal((6, 3)), np.array([1, 4, 1, 2, 4, 1, 5])],
    ),
    "interpolate": Function(
        p.interpolate, p.interpolate_vjp,
        lambda rng: [rng.standard_normal(8), np.arange(6) + rng.uniform(0.1, 0.9, 6)],
    ),
    "merge_heads": Function(p.merge_heads, p.merge_heads_vjp, away_from_zero((2, 3, 4, 2))),
}  # fmt: skip
