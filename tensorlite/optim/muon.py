"""Muon: a step of the same length in every direction of a matrix (Jordan et al., 2024).

The momentum M = U S V^T of a matrix has a few singular values in S that are far larger than the
others, so a step along M moves the matrix in a few directions only. Muon steps along U V^T, which
has the same directions and all singular values 1. A singular value decomposition would take long;
polynomials of M, a few of them one after another, are close enough (`orthogonalise`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from .optimizer import Optimizer, check_range

# Odd polynomials a s + b s^3 + c s^5 as (a, b, c), applied to singular values one after another.
# Their slopes a at 0 are large, so that small values grow fast. The five of Jordan et al. take
# values between about 0.01 and 1 to values between 0.68 and 1.13.
QUINTIC = ((3.4445, -4.7750, 2.0315),) * 5
# The three that take values between 0.004 and 1 closest to 1, which is to values between 0.43 and
# 1.57 (Amsel et al., 2025, "The Polar Express").
POLAR_EXPRESS = (
    (8.3410, -24.5974, 18.2230),
    (3.9780, -2.9654, 0.5643),
    (3.3275, -2.4952, 0.5108),
)
EPS = 1e-7  # the least norm that a matrix is divided by: a gradient of zeros gives zeros
TOGETHER = 3  # steps of a long matrix between two of its products: more would cost float32 digits


def orthogonalise(m, polynomials=QUINTIC):
    """About U V^T for a matrix M = U S V^T (rows, columns), a new array of its dtype.

    Newton-Schulz: a step multiplies X by Q = a + b G + c G^2, where G is the Gram matrix X X^T, or
    X^T X if that is smaller. This applies the odd polynomial a s + b s^3 + c s^5 to each singular
    value s, and leaves U and V alone. The next Gram matrix is Q G Q. So where one side is at least
    twice the other, three steps multiply small matrices only, and X by the product of all Q.
    """
    x = m / np.maximum(np.sqrt(np.vdot(m, m)), EPS)  # all singular values are at most 1 now
    rows, columns = x.shape
    wide, together = rows <= columns, steps_together(rows, columns)
    for first in range(0, len(polynomials), together):
        gram = x @ x.T if wide else x.T @ x
        product = q = factor(gram, polynomials[first])
        for polynomial in polynomials[first + 1 : first + together]:
            gram = q @ gram @ q
            q = factor(gram, polynomial)
            product = q @ product
        x = product @ x if wide else x @ product
    return x


def steps_together(rows: int, columns: int) -> int:
    """How many steps multiply a matrix by their common product: 1 if it is about square."""
    return TOGETHER if max(rows, columns) >= 2 * min(rows, columns) else 1


def factor(gram, polynomial):
    """a + b G + c G^2 for a symmetric matrix G (n, n) and the polynomial (a, b, c)."""
    a, b, c = polynomial
    q = gram @ gram.T  # NumPy computes half of such a product
    q *= c
    q += b * gram
    np.reshape(q, -1)[:: len(q) + 1] += a  # the diagonal
    return q


def muon_update(group: dict, p, g, m) -> None:
    """Update the matrix `p` (rows, columns) and its momentum `m` in place from the gradient `g`.

    `group` has the options of `Muon`.
    """
    if p.size == 0:
        return
    lr, momentum = group["lr"], group["momentum"]
    direction = (1 - momentum) * g
    m *= momentum
    m += direction
    direction += momentum * m  # Nesterov: as if g came once more
    if group["weight_decay"]:
        p *= 1 - lr * group["weight_decay"]
    for part, d in zip(side_by_side(p, group["splits"]), side_by_side(direction, group["splits"])):
        rows, columns = part.shape
        step = orthogonalise(d, group["polynomials"])
        step *= lr * math.sqrt(max(1, columns / rows))
        part -= step


def side_by_side(m, n: int):
    """Views of the n matrices that a matrix (rows, columns) has side by side: (n, rows, width)."""
    rows, columns = m.shape
    return np.swapaxes(np.reshape(m, (rows, n, columns // n)), 0, 1)


def muon_cost(shape: tuple[int, int], splits: int = 1, steps: int = 5) -> int:
    """The multiplications of an update of a matrix with so many polynomials."""
    rows, columns = shape[0], shape[1] // splits
    small, large = sorted((rows, columns))
    times = math.ceil(steps / steps_together(rows, columns))  # that the whole matrix is multiplied
    return splits * small**2 * (2 * times * large + (4 * steps - 3 * times) * small)


def check_matrices(group: dict, names: Sequence[str]) -> None:
    """Raise ValueError for a parameter of a group that Muon cannot update; they have these names.

    Also for options that are out of range.
    """
    check_range("momentum", group["momentum"], below=1)
    splits, polynomials = group["splits"], group["polynomials"]
    if not isinstance(splits, int) or splits < 1:
        raise ValueError(f"splits is {splits!r}; it must be a count, at least 1")
    if np.ndim(polynomials) != 2 or np.shape(polynomials)[1] != 3 or not np.size(polynomials):
        raise ValueError(
            f"polynomials is {polynomials!r}; it must be a sequence of (a, b, c), such as QUINTIC"
        )
    if not np.all(np.isfinite(polynomials)):
        raise ValueError(f"polynomials is {polynomials!r}; its numbers must be finite")
    for name, p in zip(names, group["params"]):
        if p.ndim != 2:
            raise ValueError(
                f"{name} has the shape {p.shape}, and Muon takes matrices: leave it to AdamW, in a "
                "group of MuonAdamW without 'muon'"
            )
        if p.shape[1] % splits:
            raise ValueError(
                f"{name} has {p.shape[1]} columns, which do not split into {splits} parts"
            )


class Muon(Optimizer):
    """Momentum, orthogonalised: m = momentum m + (1 - momentum) g, then p -= lr scale U V^T.

    U S V^T is Nesterov's momentum, (1 - momentum) g + momentum m, and `scale` is
    sqrt(max(1, columns / rows)) for a matrix that is used as x @ p. `torch.optim.Muon` does the
    same to p.T, in bfloat16. The weight decay is decoupled, as in `AdamW`. `polynomials` are those
    of Newton-Schulz: QUINTIC, or POLAR_EXPRESS, which has three steps instead of five. A matrix
    whose columns hold several, as those of queries, keys and values, is updated as so many matrices
    if its group has the option "splits". Raises ValueError for a parameter that is not a matrix.
    """

    slots = ("m",)

    def __init__(
        self,
        params_or_groups,
        lr=0.02,
        momentum=0.95,
        weight_decay=0.0,
        polynomials=QUINTIC,
        splits=1,
    ):
        super().__init__(
            params_or_groups,
            lr=lr,
            momentum=momentum,
            weight_decay=weight_decay,
            polynomials=polynomials,
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
