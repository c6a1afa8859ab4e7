"""Norms, and what is computed from singular values and norms."""

from __future__ import annotations

import math

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

from ..arraylike import array_of, is_float
from ..numpy_ops.operands import as_tensor
from ..ops import abs, astype, expand_dims, length_of, max, min, spread, sum, transpose, where
from ..tensor import Tensor
from .decompositions import svd, svdvals
from .matrices import check_square, lapack, precision
from .solving import inv, slogdet

__all__ = ["norm", "vector_norm", "matrix_norm", "cond", "matrix_rank"]


# =================================================================================================
# Norms
# =================================================================================================


def norm(x, ord=None, axis=None, keepdims: bool = False) -> Tensor:
    """The norm of vectors along one axis, or of matrices in two axes.

    Without `axis`, x is one vector or matrix; without `ord` as well, x may have any shape and the
    norm is the square root of the sum of squares. The orders of vectors are those of `vector_norm`,
    and of matrices those of `matrix_norm`. Raises ValueError for others.

    >>> norm([3.0, 4.0])
    tensor(5.)
    """
    x = as_tensor(x)
    if axis is None and ord is None:
        return vector_norm(x, keepdims=keepdims)
    axis = tuple(range(x.ndim)) if axis is None else axis
    axis = axis if isinstance(axis, tuple) else (axis,)
    if len(axis) == 1:
        return vector_norm(x, axis, keepdims, 2 if ord is None else ord)
    if len(axis) != 2:
        raise ValueError(f"norm takes one axis or two, not {len(axis)}: {axis}")
    rows, columns = (normalize_axis_index(a, x.ndim) for a in axis)
    if rows == columns:
        raise ValueError(f"norm takes two different axes, not {axis}")
    others = [a for a in range(x.ndim) if a not in (rows, columns)]
    y = matrix_norm(transpose(x, [*others, rows, columns]), ord="fro" if ord is None else ord)
    return expand_dims(y, (rows, columns)) if keepdims else y


def vector_norm(x, axis=None, keepdims: bool = False, ord=2) -> Tensor:
    """The norm of vectors: sum(|x|**ord)**(1 / ord), over one or several axes or all (None).

    The order infinity gives the largest |x|, -infinity the smallest, and 0 how many are not 0,
    which is a constant. The gradient of the norm of a zero vector is 0, as is the derivative for a
    zero element where the norm has a kink there; ties share it for the orders of infinity.
    """
    x = _of_floats(x)
    if isinstance(ord, str):
        raise ValueError(f"the order of a vector norm is a number, not {ord!r}")
    if ord == math.inf:
        return _largest(abs(x), axis, keepdims)
    if ord == -math.inf:
        return min(abs(x), axis, keepdims)
    if ord == 0:
        return sum((x != 0).astype(x.dtype), axis, keepdims)
    if ord == 1:
        return sum(abs(x), axis, keepdims)
    return _p_norm(x, ord, axis, keepdims)


def _of_floats(x) -> Tensor:
    x = as_tensor(x)
    return x if is_float(x.dtype) else astype(x, np.float32)


def _largest(x, axis, keepdims=False) -> Tensor:
    return (max if length_of(x.shape, axis) else sum)(x, axis, keepdims)  # 0 if there is none


@lapack
def _p_norm(x, *, p, axis, keepdims):
    shape, size = x.shape, np.abs(x)
    total = np.sum(x * x if p == 2 else size**p, axis=axis, keepdims=keepdims)
    y = _root(total, p)

    def vjp(g):
        nothing = y == 0
        inverse = np.where(nothing, 0, 1 / _root(np.where(nothing, 1, total), p))
        if p == 2:
            return x * spread(g * inverse, shape, axis, keepdims)
        ratio = size * spread(inverse, shape, axis, keepdims)
        slope = np.where(ratio == 0, 0, np.where(ratio == 0, 1, ratio) ** (p - 1))
        return np.sign(x) * slope * spread(g, shape, axis, keepdims)

    return y, vjp


def _root(x, p):
    return np.sqrt(x) if p == 2 else x ** (1 / p)


def matrix_norm(x, keepdims: bool = False, ord="fro") -> Tensor:
    """The norm of the matrices in the last two axes.

    "fro" is the square root of the sum of squares, "nuc" the sum of the singular values, 2 the
    largest and -2 the smallest of them; 1 is the largest sum of |x| of a column and -1 the
    smallest, infinity and -infinity the same for rows. Ties share the gradient.
    """
    x = _of_floats(x)
    if x.ndim < 2:
        raise ValueError(f"matrix_norm takes matrices (..., m, n), not an array of shape {x.shape}")
    if ord in ("fro", "f"):
        return _p_norm(x, 2, (-2, -1), keepdims)
    if ord in (2, -2, "nuc"):
        parts = svdvals(x)
    elif ord in (1, -1, math.inf, -math.inf):
        parts = sum(abs(x), -2 if ord in (1, -1) else -1)
    else:
        raise ValueError(
            "the order of a matrix norm is 'fro', 'nuc', 1, -1, 2, -2, infinity or -infinity, "
            f"not {ord!r}"
        )
    y = sum(parts, -1) if ord == "nuc" else _largest(parts, -1) if ord > 0 else min(parts, -1)
    return expand_dims(y, (-2, -1)) if keepdims else y


# =================================================================================================
# Condition and rank
# =================================================================================================


def cond(x, p=None) -> Tensor:
    """The condition number of matrices: the norm times the norm of the inverse.

    `p` is an order of `matrix_norm`. For None or 2 it is the largest singular value divided by the
    smallest, which exists for matrices that are not square too, and for -2 the smallest divided by
    the largest. Singular matrices have an infinite condition, with NaN or 0 for a gradient.
    """
    x = as_tensor(x)
    if x.ndim > 1 and 0 in x.shape[-2:]:
        raise np.linalg.LinAlgError(f"empty matrices, of shape {x.shape}, have no condition number")
    with np.errstate(all="ignore"):
        if p in (None, 2, -2):
            s = svdvals(x)
            y = s[..., -1] / s[..., 0] if p == -2 else s[..., 0] / s[..., -1]
        else:
            check_square("cond", x)
            singular = (slogdet(x.detach()).sign == 0)[..., None, None]
            one = np.identity(x.shape[-1], x.dtype, like=x.data)
            regular = where(singular, one, x)
            y = matrix_norm(regular, ord=p) * matrix_norm(inv(regular), ord=p)
            y = where(singular[..., 0, 0], math.inf, y)
    known = np.isnan(x).data.any(axis=(-2, -1))
    return where(np.isnan(y.data) & ~known, math.inf, y)


def matrix_rank(A, tol=None, hermitian: bool = False, rtol=None) -> Tensor:
    """The number of singular values above `tol`, an integer that has no gradient.

    `tol` is `rtol` times the largest singular value unless given, and `rtol` the precision of the
    dtype times max(m, n). An array of less than two axes has the rank 1, or 0 if it is zero.
    """
    x = as_tensor(A)
    if tol is not None and rtol is not None:
        raise ValueError("matrix_rank takes tol or rtol, not both")
    if x.ndim < 2:
        return Tensor(np.asarray(np.any(x.data != 0).astype(np.int64), like=x.data))
    s = svd(x.detach(), compute_uv=False, hermitian=hermitian).data
    if tol is None:
        rtol = precision(x) if rtol is None else np.asarray(array_of(rtol), like=s)[..., None]
        tol = rtol * _largest(Tensor(s), -1, True).data
    else:
        tol = np.asarray(array_of(tol), like=s)[..., None]
    return Tensor(np.asarray(np.sum(s > tol, axis=-1), like=s))
