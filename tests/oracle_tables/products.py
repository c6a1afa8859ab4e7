"""The functions of tensorlite/numpy_ops/products.py in PyTorch."""

import pytest

torch = pytest.importorskip("torch")


def cross(a, b, axisc=-1):
    """torch's takes vectors of three elements, along one axis of both."""
    short = a.shape[-1] == b.shape[-1] == 2
    a, b = (torch.nn.functional.pad(x, (0, 3 - x.shape[-1])) for x in (a, b))
    c = torch.linalg.cross(*torch.broadcast_tensors(a, b))
    return c[..., 2] if short else torch.movedim(c, -1, axisc)


def trace(x, offset=0, axis1=0, axis2=1):
    n, m = x.shape[axis1], x.shape[axis2]
    if not -n <= offset <= m:  # which torch refuses
        x, offset = x * 0, 0
    return torch.diagonal(x, offset, axis1, axis2).sum(-1)


THEIRS = {
    "dot": torch.matmul,  # of vectors, and of an array and a vector
    "vdot": lambda a, b: torch.vdot(a.reshape(-1), b.reshape(-1)),
    "inner": torch.inner,
    "outer": lambda a, b: torch.outer(a.reshape(-1), b.reshape(-1)),
    "kron": torch.kron,
    "tensordot": lambda a, b, axes: torch.tensordot(
        a, b, [[i] if isinstance(i, int) else i for i in axes] if isinstance(axes, tuple) else axes
    ),
    "cross": cross,
    "trace": trace,
    "vecdot": lambda a, b: torch.linalg.vecdot(*torch.broadcast_tensors(a, b)),
    "matvec": lambda a, b: torch.matmul(a, b[..., None])[..., 0],
    "vecmat": lambda a, b: torch.matmul(a[..., None, :], b)[..., 0, :],
}
EXCEPTIONS = {}
DIFFERENCES = {"cross": "takes vectors of two elements too, as NumPy does"}
