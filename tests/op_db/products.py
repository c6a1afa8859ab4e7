"""PyTorch's products and linear algebra, said with NumPy's functions of tensors."""

import numpy as np

import tensorlite as tl

from .compare import CannotSay
from .reductions import vector_norm

SAME_NAME = "matmul dot vdot inner outer kron trace"
SAME_LINALG = "cholesky cond det inv matrix_power multi_dot slogdet solve"


def numpys(name: str):
    return lambda *args: getattr(np, name)(*args)


def linalg(name: str):
    return lambda *args: getattr(np.linalg, name)(*args)


def addmm(x, a, b, beta=1, alpha=1):
    return beta * x + alpha * (a @ b)


def addbmm(x, a, b, beta=1, alpha=1):
    return beta * x + alpha * np.sum(a @ b, axis=0)


def cdist(x, y, p=2.0, compute_mode=None):
    return vector_norm(x[..., :, None, :] - y[..., None, :, :], p, -1)


def pdist(x, p=2.0):
    i, j = np.triu_indices(x.shape[0], 1)
    return vector_norm(x[i] - x[j], p, -1)


def cholesky(x, upper=False):
    y = np.linalg.cholesky(x)
    return np.matrix_transpose(y) if upper else y


def cross(x, y, dim=-1):
    return np.cross(x, y, axis=dim)


def eigh(x, UPLO="L"):
    return np.linalg.eigh(x, UPLO)


def lstsq(x, y, driver=None):
    if x.ndim > 2:
        raise CannotSay("a stack of matrices")
    return np.linalg.lstsq(x, y)[0]


def matrix_norm(x, ord="fro", dim=(-2, -1), keepdim=False, dtype=None):
    return np.linalg.norm(x, ord, axis=dim, keepdims=keepdim)


def norm(x, ord=None, dim=None, keepdim=False, dtype=None):
    if x.size == 0 and ord == 3.5:
        raise CannotSay("the second derivative of nothing, which is NaN in PyTorch")
    return np.linalg.norm(x, ord, axis=dim, keepdims=keepdim)


def flat_norm(x, p="fro", dim=None, keepdim=False, dtype=None):
    """torch.norm, whose 'fro' and numbers are norms of vectors over any axes."""
    dim = tuple(dim) if isinstance(dim, list) else dim
    if p == "nuc":
        return np.linalg.norm(x, "nuc", axis=dim, keepdims=keepdim)
    return vector_norm(x, 2 if p in ("fro", None) else p, dim, keepdim)


def pinv(x, rtol=None, hermitian=False):
    return np.linalg.pinv(x, rtol=rtol, hermitian=hermitian)


def qr(x, mode="reduced"):
    return np.linalg.qr(x, mode)


def old_qr(x, some=True):
    return np.linalg.qr(x, "reduced" if some else "complete")


def solve(a, b, left=True):
    """A vector b has one axis less than a; torch takes a stack of vectors too."""
    vectors = b.ndim == 1 or (b.ndim == a.ndim - 1 and b.shape == a.shape[:-1])
    if vectors:
        return np.linalg.solve(a, b[..., None])[..., 0]
    if left:
        return np.linalg.solve(a, b)
    t = np.matrix_transpose
    return t(np.linalg.solve(t(a), t(b)))


def svd(x, full_matrices=True):
    if full_matrices and x.shape[-1] != x.shape[-2]:
        raise CannotSay("vectors that belong to no singular value have no derivative")
    return np.linalg.svd(x, full_matrices)


def old_svd(x, some=True):
    u, s, vh = svd(x, not some)
    return u, s, np.matrix_transpose(vh)


def slogdet(x):
    return tuple(np.linalg.slogdet(x))


def triangular(a, upper, unit):
    """The matrix of which a triangular solver reads one triangle, maybe with ones as diagonal."""
    a = (np.triu if upper else np.tril)(a)
    if unit:
        eye = np.eye(a.shape[-1])
        a = a * (1 - eye) + eye
    return a


def solve_triangular(a, b, upper, left=True, unitriangular=False):
    return solve(triangular(a, upper, unitriangular), b, left)


def triangular_solve(b, a, upper=True, transpose=False, unitriangular=False):
    a = triangular(a, upper, unitriangular)
    return np.linalg.solve(np.matrix_transpose(a) if transpose else a, b)


def cholesky_inverse(x, upper=False):
    x, t = triangular(x, upper, False), np.matrix_transpose
    return np.linalg.inv(t(x) @ x if upper else x @ t(x))


def cholesky_solve(b, x, upper=False):
    x, t = triangular(x, upper, False), np.matrix_transpose
    return np.linalg.solve(t(x) @ x if upper else x @ t(x), b)


def tensordot(a, b, dims):
    axes = ((), ()) if isinstance(dims, int) else dims
    if any(a.shape[i] != b.shape[j] for i, j in zip(*axes)):
        raise CannotSay("stretches an axis of size 1")
    return np.tensordot(a, b, dims)


NAMES = {name: numpys(name) for name in SAME_NAME.split()}
NAMES |= {f"linalg.{name}": linalg(name) for name in SAME_LINALG.split()} | {
    "__rmatmul__": lambda x, y: y @ x,
    "addbmm": addbmm,
    "addmm": addmm,
    "addmv": addmm,
    "addr": lambda x, a, b, beta=1, alpha=1: beta * x + alpha * np.outer(a, b),
    "baddbmm": addmm,
    "bmm": numpys("matmul"),
    "cdist": cdist,
    "cholesky": cholesky,
    "cholesky_inverse": cholesky_inverse,
    "cholesky_solve": cholesky_solve,
    "cross": cross,
    "dist": lambda x, y, p=2: vector_norm(x - y, p),
    "einsum": lambda operands, subscripts: np.einsum(subscripts, *operands),
    "linalg.cholesky": cholesky,
    "linalg.cholesky_ex": cholesky,
    "linalg.cross": cross,
    "linalg.eigh": eigh,
    "linalg.eigvalsh": lambda x, UPLO="L": np.linalg.eigvalsh(x, UPLO),
    "linalg.inv_ex": linalg("inv"),
    "linalg.lstsq": lstsq,
    "linalg.matrix_norm": matrix_norm,
    "linalg.multi_dot": lambda arrays: np.linalg.multi_dot(arrays),
    "linalg.norm": norm,
    "linalg.pinv": pinv,
    "linalg.pinv|singular": lambda a, b: np.linalg.pinv(a @ np.matrix_transpose(b)),
    "linalg.qr": qr,
    "linalg.slogdet": slogdet,
    "linalg.solve": solve,
    "linalg.solve_ex": solve,
    "linalg.solve_triangular": solve_triangular,
    "linalg.svd": svd,
    "linalg.svdvals": lambda x: np.linalg.svdvals(x),
    "linalg.tensorinv": lambda x, ind=2: np.linalg.tensorinv(x, ind),
    "linalg.tensorsolve": lambda a, b, dims=None: np.linalg.tensorsolve(a, b, dims),
    "linalg.vecdot": lambda x, y, dim=-1: np.linalg.vecdot(x, y, axis=dim),
    "logdet": lambda x: np.linalg.slogdet(x)[1],
    "mm": numpys("matmul"),
    "mv": numpys("matmul"),
    "nn.functional.bilinear": lambda x, y, w, b=None: (
        np.einsum("...i,oij,...j->...o", x, w, y) + (0 if b is None else b)
    ),
    "nn.functional.linear": lambda x, w, b=None: tl.linear(x, w.T, b),
    "nn.functional.pdist": pdist,
    "norm": flat_norm,
    "pinverse": lambda x: np.linalg.pinv(x),
    "qr": old_qr,
    "svd": old_svd,
    "tensordot": tensordot,
    "triangular_solve": triangular_solve,
}
