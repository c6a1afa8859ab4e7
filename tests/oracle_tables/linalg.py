"""The functions of tensorlite/linalg/ in PyTorch.

PyTorch takes matrices for symmetric and gives them symmetric gradients. NumPy reads one triangle
and ours give this triangle its gradient; `mirrored` says so in PyTorch.
"""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is what these tests compare with")
L = torch.linalg


def mirrored(x, UPLO="L"):
    return x.tril() + x.tril(-1).mT if UPLO == "L" else x.triu() + x.triu(1).mT


def steady_eigh(x, UPLO="L"):
    w, v = L.eigh(mirrored(x, UPLO))
    return [w, v * v.sum(-2, True).sign().detach()]


def steady_svd(x, full_matrices):
    u, s, vt = L.svd(x, full_matrices=full_matrices)
    signs = u.sum(-2, True).sign().detach()
    return [u * signs, s, vt * signs.mT]


def slogdet(x):
    sign, size = L.slogdet(x)
    return [size, size * sign]


def solve(a, b):
    if b.ndim > 1:  # torch would take b (2, 3) for vectors
        return L.solve(a, b.expand(*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), *b.shape[-2:]))
    return L.solve(a, b[:, None].expand(*a.shape[:-1], 1))[..., 0]


def lstsq(a, b):
    x = L.lstsq(a, b if b.ndim == 2 else b[:, None]).solution
    m, n = a.shape
    residuals = ((b if b.ndim == 2 else b[:, None]) - a @ x).square().sum(0)
    x = x if b.ndim == 2 else x[:, 0]
    return [x * min(m, n), residuals if m > n else residuals[:0], L.svdvals(a)]


def cond(x, p):
    """L.cond, which has no gradient for some orders, nor for an empty stack."""
    if p in (None, 2, -2):
        s = L.svdvals(x)
        return s[..., -1] / s[..., 0] if p == -2 else s[..., 0] / s[..., -1]
    return L.matrix_norm(x, p) * L.matrix_norm(L.inv(x), p)


THEIRS = {
    "cholesky": lambda x, upper: L.cholesky(mirrored(x, "LU"[upper]), upper=upper),
    "eigh": steady_eigh,
    "linalg.eigvalsh": lambda x, UPLO: L.eigvalsh(mirrored(x, UPLO)),
    "svd": steady_svd,
    "linalg.svdvals": L.svdvals,
    "qr": L.qr,
    "det": L.det,
    "slogdet": slogdet,
    "inv": L.inv,
    "solve": solve,
    "pinv": lambda x, rcond: L.pinv(x, rtol=rcond),
    "linalg.lstsq": lstsq,
    "linalg.matrix_power": L.matrix_power,
    "linalg.multi_dot": L.multi_dot,
    "linalg.tensorsolve": lambda a, b, axes: L.tensorsolve(a, b, dims=axes),
    "linalg.tensorinv": L.tensorinv,
    "p_norm": lambda x, p, axis, keepdims: L.vector_norm(x, p, axis, keepdims),
    "linalg.vector_norm": lambda x, axis, ord, keepdims: L.vector_norm(x, ord, axis, keepdims),
    "linalg.matrix_norm": lambda x, ord, keepdims: L.matrix_norm(x, ord, keepdim=keepdims),
    "linalg.norm": lambda x, ord=None, axis=None, keepdims=False: L.norm(x, ord, axis, keepdims),
    "linalg.cond": cond,
    "linalg.matrix_rank": lambda x: x.sum((-2, -1)) * L.matrix_rank(x),
    "linalg.cross": lambda a, b, axis: L.cross(a, b, dim=axis),
    "linalg.outer": torch.outer,
    "linalg.diagonal": lambda x, offset: L.diagonal(x, offset=offset),
    "linalg.trace": lambda x, offset: L.diagonal(x, offset=offset).sum(-1),
}
EXCEPTIONS = {}
DIFFERENCES = {
    "symmetric matrices": "cholesky, eigh, eigvalsh and what has hermitian= give a gradient to the "
    "triangle that is read; torch gives a symmetric one",
    "svd, qr": "further vectors (full_matrices=True, mode='complete') of matrices that are not "
    "square are refused; torch gives them, and refuses their gradient",
}
