"""Cholesky, eigenvalues, singular values and QR.

An operation has one value, so those of this file put several results into one array, and the
function of the same name takes them apart.

Vectors that belong to equal eigenvalues or singular values are not determined, and have no
derivative. Functions of the values alone have their gradient there. Where a gradient flows into
such vectors, the result is NaN. Leaving that part out would be wrong: for v @ diag(w) @ v.T at an
identity matrix it is most of the gradient.
"""

from __future__ import annotations

from typing import NamedTuple, NoReturn

import numpy as np

from ..arraylike import array_of
from ..numpy_ops import take_along_axis
from ..numpy_ops.operands import as_tensor
from ..ops import abs
from ..tensor import Tensor
from .matrices import folded, lapack, mirrored, t, without_gradient

__all__ = ["cholesky", "eigh", "eigvalsh", "svd", "svdvals", "qr"]


class EighResult(NamedTuple):
    eigenvalues: Tensor
    eigenvectors: Tensor


class SVDResult(NamedTuple):
    U: Tensor
    S: Tensor
    Vh: Tensor


class QRResult(NamedTuple):
    Q: Tensor
    R: Tensor


# =================================================================================================
# Cholesky
# =================================================================================================


def cholesky(x, upper: bool = False) -> Tensor:
    """The lower triangular matrix L with L @ L.T = x, or with `upper` its transpose.

    Only the entries of x on and below the diagonal are read (with `upper`, on and above it), and
    only these have a gradient. Raises LinAlgError if x is not positive definite.
    """
    x = as_tensor(x)
    return t(_cholesky(t(x))) if upper else _cholesky(x)


@lapack
def _cholesky(x):
    """Murray (2016), "Differentiation of the Cholesky decomposition", section 3."""
    y = np.linalg.cholesky(x)

    def vjp(g):
        half = np.linalg.solve(t(y), mirrored(t(y) @ g))
        return folded(0.5 * np.linalg.solve(t(y), t(half)))

    return y, vjp


# =================================================================================================
# Eigenvalues
# =================================================================================================


def eigh(x, UPLO: str = "L") -> EighResult:
    """Eigenvalues w (..., n), in ascending order, and eigenvectors v (..., n, n) of symmetric x.

    x @ v[..., :, i] = w[..., i] * v[..., :, i]. Only the entries on and below the diagonal are read
    (for UPLO "U", on and above it), and only these have a gradient. Where eigenvalues are equal,
    see the top of this file.

    >>> eigh([[2.0, 1.0], [1.0, 2.0]]).eigenvalues
    tensor([1., 3.])
    """
    if UPLO not in ("L", "U", "l", "u"):
        raise ValueError(f"UPLO is 'L' or 'U', the triangle that is read, not {UPLO!r}")
    y = _eigh(x, UPLO.upper())
    return EighResult(y[..., 0, :], y[..., 1:, :])


@lapack
def _eigh(x, *, UPLO):
    """The eigenvalues as a row above the eigenvectors: (..., 1 + n, n)."""
    w, v = np.linalg.eigh(x, UPLO)

    def vjp(g):
        gw, gv = g[..., 0, :], g[..., 1:, :]
        turned = _turned(v, gv, w[..., None, :] - w[..., None])
        return folded((v * gw[..., None, :] + v @ (0.5 * turned)) @ t(v), UPLO == "U")

    return np.concatenate([w[..., None, :], v], axis=-2), vjp


def _turned(v, gv, gaps):
    """(m_ij - m_ji) / gap_ij, where m = v.T @ gv is the gradient for turning vector j towards i.

    Where vectors have no gap between them, this is NaN if a gradient flows into one of them, and
    otherwise 0; on the diagonal it is 0.
    """
    m, equal = t(v) @ gv, array_of(gaps) == 0
    flows = np.any(array_of(gv) != 0, axis=-2)
    others = ~np.identity(m.shape[-1], bool, like=equal)
    unknown = equal & others & (flows[..., None] | flows[..., None, :])
    quotient = (m - t(m)) / np.where(equal, 1, gaps)
    return np.where(unknown, np.nan, np.where(equal, 0, quotient))


def eigvalsh(x, UPLO: str = "L") -> Tensor:
    """The eigenvalues of symmetric matrices, in ascending order; see `eigh`."""
    return eigh(x, UPLO).eigenvalues


def eig(x) -> NoReturn:
    """Raises TypeError: general matrices have complex eigenvalues, and tensors are real."""
    raise TypeError(
        "eig and eigvals give complex numbers, and tensors are real: use eigh for symmetric "
        "matrices, or .numpy() where no gradient is needed"
    )


eigvals = eig


# =================================================================================================
# Singular values
# =================================================================================================


def svd(
    x, full_matrices: bool = True, compute_uv: bool = True, hermitian: bool = False
) -> SVDResult | Tensor:
    """The singular value decomposition x = U @ diag(S) @ Vh of matrices (m, n).

    U is (..., m, k), S (..., k) in descending order, and Vh (..., k, n), with k = min(m, n). With
    `compute_uv=False`, S alone is returned. `hermitian` says that the matrices are symmetric; then
    only the entries on and below the diagonal are read.

    With `full_matrices=True`, NumPy's default, U is (..., m, m) and Vh (..., n, n). If these are
    larger, their further vectors are not determined and have no derivative: raises ValueError if x
    needs a gradient.

    Where singular values are equal, see the top of this file. A singular value that is 0 has a
    kink, and where a gradient flows into its vectors, they are not determined either, unless the
    matrix is square.
    """
    x = as_tensor(x)
    m, n = x.shape[-2:] if x.ndim > 1 else (0, 0)  # LAPACK refuses what has no two axes
    if hermitian:
        u, s, vt = _svd_of_symmetric(x)
    elif full_matrices and compute_uv and m != n:
        u, s, vt = without_gradient(np.linalg.svd, x, "full_matrices", True, False)
    else:
        y = _svd(x)
        u, s, vt = y[..., :m, :], y[..., m, :], t(y[..., m + 1 :, :])
    return SVDResult(u, s, vt) if compute_uv else s


@lapack
def _svd(x):
    """U above a row of S above V: (..., m + 1 + n, k).

    The gradient is from Townsend (2016), "Differentiating the singular value decomposition".
    """
    u, s, vt = np.linalg.svd(x, full_matrices=False)
    v, m, k = t(vt), x.shape[-2], s.shape[-1]

    def vjp(g):
        gu, gs, gv = g[..., :m, :], g[..., m, :], g[..., m + 1 :, :]
        column, row = s[..., None], s[..., None, :]
        gaps = (row - column) * (row + column)
        inner = _turned(u, gu, gaps) * row + column * _turned(v, gv, gaps)
        gx = (u * gs[..., None, :] + u @ inner) @ vt
        if m > k:  # U turns out of the space that its columns span
            gx = gx + _over(gu - u @ (t(u) @ gu), row) @ vt
        if v.shape[-2] > k:
            gx = gx + u @ t(_over(gv - v @ (vt @ gv), row))
        return gx

    return np.concatenate([u, s[..., None, :], v], axis=-2), vjp


def _over(x, s):
    """x / s, where 0 / 0 is 0."""
    nothing = (x == 0) & (s == 0)
    return np.where(nothing, 0, x / np.where(nothing, 1, s))


def _svd_of_symmetric(x) -> SVDResult:
    """The singular values are the sizes of the eigenvalues, whose signs go to V."""
    w, v = eigh(x)
    order = np.argsort(-np.abs(w.data), axis=-1)
    w = take_along_axis(w, order, -1)
    v = take_along_axis(v, order[..., None, :], -1)
    return SVDResult(v, abs(w), t(v * np.sign(w)[..., None, :]))


def svdvals(x) -> Tensor:
    """The singular values of matrices (m, n), in descending order: (..., min(m, n)); see `svd`."""
    return svd(x, full_matrices=False).S


# =================================================================================================
# QR
# =================================================================================================


def qr(x, mode: str = "reduced") -> QRResult | Tensor:
    """x = Q @ R for matrices (m, n): Q (..., m, k) with orthonormal columns, R (..., k, n) upper
    triangular, k = min(m, n). The mode "r" returns R alone.

    The mode "complete" with m > n has further columns in Q and rows of 0 in R, and "raw" gives what
    LAPACK leaves; these have no derivative: raises ValueError if x needs a gradient. The gradient
    needs the first k columns of x to be linearly independent, and raises LinAlgError if R shows
    that they are not.
    """
    x = as_tensor(x)
    m, n = x.shape[-2:] if x.ndim > 1 else (0, 0)  # LAPACK refuses what has no two axes
    if mode not in ("reduced", "complete", "r", "raw"):
        raise ValueError(f"mode is 'reduced', 'complete', 'r' or 'raw', not {mode!r}")
    if mode == "raw" or (mode == "complete" and m > n):
        values = without_gradient(np.linalg.qr, x, "mode", mode, "reduced")
        return QRResult(*values) if mode == "complete" else values
    y = _qr(x)
    return y[..., m:] if mode == "r" else QRResult(t(y[..., :m]), y[..., m:])


@lapack
def _qr(x):
    """The transpose of Q beside R: (..., k, m + n).

    The gradient is from Roberts and Roberts (2020), "QR and LQ decomposition matrix
    backpropagation algorithms for square, wide, and deep matrices and their software
    implementation".
    """
    q, r = np.linalg.qr(x)
    m, k = q.shape[-2:]
    square, wide = r[..., :k], x[..., k:]

    def vjp(g):
        gq, gr = t(g[..., :m]), g[..., m:]
        gq = gq + wide @ t(gr[..., k:])  # R's further columns are Q.T @ wide
        turned = gq + q @ mirrored(square @ t(gr[..., :k]) - t(gq) @ q)
        gx = t(np.linalg.solve(square, t(turned)))
        return np.concatenate([gx, q @ gr[..., k:]], axis=-1)

    return np.concatenate([t(q), r], axis=-1), vjp
