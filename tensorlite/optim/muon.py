"""Muon: a step of the same length in every direction of a matrix (Jordan et al., 2024).

The momentum M = U S V^T of a matrix has a few singular values in S that are far larger than the
others, so a step along M moves the matrix in a few directions only. Muon steps along U V^T, which
has the same directions and all singular values 1. A singular value decomposition would take long;
a polynomial of M, five times over, is close enough (`orthogonalise`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from .optimizer import Optimizer, check_range

# p(s) = 3.4445 s - 4.7750 s^3 + 2.0315 s^5, applied five times, takes singular values between about
# 0.01 and 1 to values between 0.68 and 1.13. Its slope at 0 is large, so that small ones grow fast.
COEFFICIENTS = 3.4445, -4.7750, 2.0315
EPS = 1e-7  # the least norm that a matrix is divided by: a gradient of zeros gives zeros


def orthogonalise(m, steps: int = 5):
    """About U V^T for a matrix M = U S V^T (rows, columns), a new array of its dtype.

    Newton-Schulz: X becomes p(X) = a X + b (X X^T) X + c (X X^T)^2 X, which applies the same odd
    polynomial to each singular value and leaves U and V alone. The Gram matrix is the one of the
    smaller side, and a + b A + c A^2 is made before the product with X, so that a step has three
    products, two of them of small matrices.
    """
    a, b, c = COEFFICIENTS
    x = m / np.maximum(np.sqrt(np.vdot(m, m)), EPS)  # all singular values are at most 1 now
    wide = x.shape[0] <= x.shape[1]
    diagonal = a * np.identity(min(x.shape), x.dtype, like=x)
    for _ in range(steps):
        gram = x @ x.T if wide else x.T @ x
        polynomial = gram @ gram.T  # it is symmetric: NumPy computes half of such a product
        polynomial *= c
        gram *= b
        polynomial += gram
        polynomial += diagonal
        x = polynomial @ x if wide else x @ polynomial
    return x


def muon_update(group: dict, p, g, m) -> None:
    """Update the matrix `p` (rows, columns) and its momentum `m` in place from the gradient `g`.

    `group` has the options of `Muon`.
    """
    if p.size == 0:
        return
    lr, momentum, splits = group["lr"], group["momentum"], group["splits"]
    new = (1 - momentum) * g
    m *= momentum
    m += new
    direction = momentum * m + new  # Nesterov: as if g came once more
    if group["weight_decay"]:
        p *= 1 - lr * group["weight_decay"]
    for part, d in zip(np.split(p, splits, axis=1), np.split(direction, splits, axis=1)):
        rows, columns = part.shape
        part -= lr * math.sqrt(max(1, columns / rows)) * orthogonalise(d, group["steps"])


def muon_cost(shape: tuple[int, int], splits: int = 1) -> float:
    """How long an update takes, up to a factor: elements times the smaller side, added up."""
    rows, columns = shape
    return rows * columns * min(rows, columns // splits)


def check_matrices(group: dict, names: Sequence[str]) -> None:
    """Raise ValueError for a parameter of a group that Muon cannot update; they have these names.

    Also for options that are out of range.
    """
    check_range("momentum", group["momentum"], below=1)
    for option, least in (("steps", 0), ("splits", 1)):
        if not isinstance(group[option], int) or group[option] < least:
            raise ValueError(f"{option} is {group[option]!r}; it must be a count, at least {least}")
    for name, p in zip(names, group["params"]):
        if p.ndim != 2:
            raise ValueError(
                f"{name} has the shape {p.shape}, and Muon takes matrices: leave it to AdamW, in a "
                "group of MuonAdamW without 'muon'"
            )
        if p.shape[1] % group["splits"]:
            raise ValueError(
                f"{name} has {p.shape[1]} columns, which do not split into {group['splits']} parts"
            )


class Muon(Optimizer):
    """Momentum, orthogonalised: m = momentum m + (1 - momentum) g, then p -= lr scale U V^T.

    U S V^T is Nesterov's momentum, (1 - momentum) g + momentum m, and `scale` is
    sqrt(max(1, columns / rows)) for a matrix that is used as x @ p. `torch.optim.Muon` does the
    same to p.T, in bfloat16. The weight decay is decoupled, as in `AdamW`. `steps` is the number of
    steps of Newton-Schulz. A matrix whose columns hold several, as those of queries, keys and
    values, is updated as so many matrices if its group has the option "splits". Raises ValueError
    for a parameter that is not a matrix.
    """

    slots = ("m",)

    def __init__(
        self, params_or_groups, lr=0.02, momentum=0.95, weight_decay=0.0, steps=5, splits=1
    ):
        super().__init__(
            params_or_groups,
            lr=lr,
            momentum=momentum,
            weight_decay=weight_decay,
            steps=steps,
            splits=splits,
        )

        first = 0
        for group in self.groups:
            check_matrices(group, self.names[first:])
            first += len(group["params"])

    def update_all(self, ready):
        for i, group, (p, g, m) in ready:  # a matrix is not cut into blocks
            g = g if self.scale is None else g * self.scale
            self.update(group, self.updates[i], p, g, m)

    def update(self, group, t, p, g, m):
        muon_update(group, p, g, m)
