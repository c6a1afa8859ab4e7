"""Adagrad: numbers that seldom have a gradient keep taking large steps."""

from __future__ import annotations

import numpy as np

from .optimizer import Optimizer


def adagrad_update(group: dict, p, g, v, scale=None) -> None:
    """Update `p` and its sum of squares `v` in place from the gradient `g`, all of one shape.

    With a `scale`, the gradient is g times it; `group` has the options of `Adagrad`.

    Where g is zero nothing changes. So on a CPU only the rows that have a gradient are computed,
    which are few in a table of embeddings. A GPU computes all: to find them would wait for it.
    """
    rows = slice(None)
    if isinstance(g, np.ndarray):
        axes = list(range(g.ndim))
        rows = np.flatnonzero(np.einsum(g, axes, g, axes, [0]) != 0)  # twice as fast as np.any
    g = g[rows] if scale is None else g[rows] * scale
    squares = v[rows] + g * g
    v[rows] = squares
    p[rows] -= group["lr"] * g / (np.sqrt(squares) + group["eps"])


class Adagrad(Optimizer):
    """v = v + g^2, then p -= lr g / (sqrt(v) + eps) (Duchi et al., 2011).

    v is the sum of the squares of all gradients so far. So the first step of each number has the
    length lr, and later ones are shorter. This suits the embeddings of things that are rare, such
    as the tables of n-grams: a row changes as if the steps that touch it were the only ones, and
    the others cost nothing.
    """

    slots = ("v",)

    def __init__(self, params_or_groups, lr=0.01, eps=1e-10):
        super().__init__(params_or_groups, lr=lr, eps=eps)

    def update(self, group, t, p, g, v):
        adagrad_update(group, p, g, v)
