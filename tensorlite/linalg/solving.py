"""Determinants, inverses and linear equations."""

from __future__ import annotations

import functools
import math
import operator
from typing import NamedTuple

import numpy as np

from ..arraylike import array_of
from ..numpy_ops import dot
from ..numpy_ops.operands import as_tensor, as_tensors
from ..ops import matmul, reshape, sum, transpose
from ..tensor import Tensor
from .decompositions import svdvals
from .matrices import check_square, lapack, mirrored, precision, t

__all__ = ["det", "slogdet", "inv", "solve", "pinv", "lstsq"]
__all__ += ["matrix_power", "multi_dot", "tensorsolve", "tensorinv"]


# =================================================================================================
# Determinants
# =================================================================================================


@lapack
def det(x):
    """The determinants of square matrices; the gradient is right for singular ones too.

    So are further derivatives. Where a matrix of n rows is nearly singular, they take memory for
    n**4 numbers and about n**5 operations.

    >>> det([[1.0, 2.0], [3.0, 4.0]])
    tensor(-2.)
    """
    y = np.linalg.det(x)
    return y, lambda g: g[..., None, None] * _cofactors(x, y)


def _cofactors(x, y):
    """The derivative of y = det(x): y inv(x).T, a polynomial in x that singular matrices have too.

    That product is right to rounding also near a singular matrix, because both factors come from
    the same elimination (Stewart, 1998, "On the adjugate matrix"), but its derivative is not.
    """
    plain = array_of(x)
    regular = bool(np.all(array_of(y) != 0))
    if regular and isinstance(x, Tensor):
        sizes = [np.linalg.norm(a, axis=(-2, -1)) for a in (plain, np.linalg.inv(plain))]
        regular = not np.any(sizes[0] * sizes[1] > np.finfo(plain.dtype).eps ** -0.5)
    if regular:
        return y[..., None, None] * t(np.linalg.inv(x))
    if isinstance(x, Tensor):
        return _minors(x)
    u, s, vt = np.linalg.svd(x)
    others = np.prod(np.where(np.identity(s.shape[-1], bool, like=x), 1, s[..., None, :]), axis=-1)
    signs = np.linalg.det(u) * np.linalg.det(vt)
    return (u * (signs[..., None] * others)[..., None, :]) @ vt


def _minors(x):
    """The cofactors as signed determinants of x without row i and column j."""
    n = x.shape[-1]
    others = np.array([[j for j in range(n) if j != i] for i in range(n)], int)
    rows, places = others[:, None, :, None], others[None, :, None, :]
    signs = np.where(np.indices((n, n)).sum(axis=0) % 2, -1.0, 1.0)
    return det(x[..., rows, places]) * np.asarray(signs, x.dtype, like=array_of(x))


class SlogdetResult(NamedTuple):
    sign: Tensor
    logabsdet: Tensor


def slogdet(x) -> SlogdetResult:
    """The signs of the determinants, which are constants, and the logarithms of their sizes.

    For a singular matrix the logarithm is -infinity, and its gradient raises LinAlgError.
    """
    y = _slogdet(x)
    return SlogdetResult(y[..., 0].detach(), y[..., 1])


@lapack
def _slogdet(x):
    """The sign beside the logarithm: (..., 2)."""
    sign, logabsdet = np.linalg.slogdet(x)
    y = np.stack([sign, logabsdet], axis=-1)
    return y, lambda g: g[..., 1, None, None] * t(np.linalg.inv(x))


# =================================================================================================
# Inverses
# =================================================================================================


@lapack
def inv(x):
    """The inverses of square matrices. Raises LinAlgError for a singular one."""
    y = np.linalg.inv(x)
    return y, lambda g: -t(y) @ g @ t(y)


@lapack
def solve(a, b, *, needs):
    """x with a @ x = b, for a (..., n, n) and b (n,) or (..., n, k); stacks are broadcast.

    As in NumPy 2, b is a vector only if it has one axis. Raises LinAlgError for a singular matrix.

    >>> solve([[2.0, 0.0], [0.0, 4.0]], [1.0, 1.0])
    tensor([0.5 , 0.25])
    """
    is_vector = b.ndim == 1
    b = b[:, None] if is_vector else b
    stack = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])  # CuPy broadcasts nothing here
    a, b = (np.broadcast_to(x, (*stack, *x.shape[-2:])) for x in (a, b))
    x = np.linalg.solve(a, b)

    def vjp(g):
        gb = np.linalg.solve(t(a), g[..., None] if is_vector else g)
        ga = -gb @ t(x) if needs[0] else None
        return ga, gb[..., 0] if is_vector else gb

    return x[..., 0] if is_vector else x, vjp


def pinv(x, rcond=None, hermitian: bool = False, rtol=1e-15) -> Tensor:
    """The Moore-Penrose pseudo-inverse (..., n, m) of matrices (..., m, n).

    Singular values up to `rcond` times the largest count as 0; `rcond` (or `rtol`, its newer name)
    is 1e-15 unless given, also for float32, and `rtol=None` means max(m, n) times the precision of
    the dtype. `hermitian` says that the matrices are symmetric; then only the entries on and below
    the diagonal are read.

    The pseudo-inverse jumps where the rank changes. Its gradient is that among matrices of the same
    rank.
    """
    x = as_tensor(x)
    if rcond is None:
        rcond = precision(x) if rtol is None else rtol
    elif not (isinstance(rtol, float) and rtol == 1e-15):
        raise ValueError("pinv takes rcond or rtol, two names of one thing, not both")
    return _pinv(mirrored(x) if hermitian else x, rcond)


@lapack
def _pinv(x, *, rcond):
    """Golub and Pereyra (1973), "The differentiation of pseudo-inverses and nonlinear least
    squares problems whose variables separate", equation 4.12.
    """
    y = np.linalg.pinv(x, rcond)

    def vjp(g):
        g, yt = t(g), t(y)
        outside = (g - x @ (y @ g)) @ (y @ yt) + (yt @ y) @ (g - (g @ y) @ x)
        return outside - yt @ t(g) @ yt

    return y, vjp


def lstsq(a, b, rcond=None) -> tuple[Tensor, Tensor, int, Tensor]:
    """The x that minimizes the sum of (a @ x - b)**2, for a (m, n) and b (m,) or (m, k).

    Returns x (n,) or (n, k), of several the smallest; the sums of squares that remain, (1,) or
    (k,), but (0,) if a has a rank below n or m <= n; the rank, an integer; and the singular values
    of a. All but the rank have gradients, that of x among matrices of the same rank. Singular
    values up to `rcond` times the largest count as 0 (None: see `rtol=None` of `pinv`).
    """
    a, b = as_tensors("lstsq", a, b)
    if a.ndim != 2 or b.ndim not in (1, 2) or a.shape[0] != b.shape[0]:
        raise np.linalg.LinAlgError(
            f"lstsq takes a of shape (m, n) and b of shape (m,) or (m, k), not {a.shape}, {b.shape}"
        )
    m, n = a.shape
    rcond = precision(a) if rcond is None else rcond
    x = matmul(pinv(a, rcond), b)
    s = svdvals(a)
    rank = int(np.sum(s.data > rcond * s.data[:1]))
    squares = reshape(sum((b - matmul(a, x)) ** 2, axis=0), (-1,))
    return x, squares if m > n == rank else squares[:0], rank, s


# =================================================================================================
# Powers, products and tensors
# =================================================================================================


def matrix_power(x, n: int) -> Tensor:
    """The product of n copies of a square matrix, by repeated squaring; of its inverse if n < 0.

    n = 0 gives identity matrices, which are constants. Raises TypeError if n is not an integer, and
    LinAlgError for a matrix that is not square, or singular if n < 0.
    """
    x, n = as_tensor(x), operator.index(n)
    check_square("matrix_power", x)
    if n == 0:
        one = np.identity(x.shape[-1], x.dtype, like=x.data)
        return Tensor(np.array(np.broadcast_to(one, x.shape), like=x.data))
    power, result = inv(x) if n < 0 else x, None
    for bit in reversed(f"{n if n > 0 else -n:b}"):
        if bit == "1":
            result = power if result is None else matmul(result, power)
        power = matmul(power, power)
    return result


def multi_dot(arrays) -> Tensor:
    """The product of two or more matrices, in the order that needs the fewest multiplications.

    The first may be a vector (a row) and the last may be (a column). Two arrays may have any number
    of axes: see `dot`. Raises ValueError for fewer than two arrays or sizes that do not fit, and
    LinAlgError for other numbers of axes.

    The order is found by dynamic programming: Cormen et al., "Introduction to Algorithms", 15.2.
    """
    xs = as_tensors("multi_dot", *arrays)
    if len(xs) < 2:
        raise ValueError(f"multi_dot takes at least two arrays, not {len(xs)}")
    if len(xs) == 2:
        return dot(*xs)
    axes = [x.ndim for x in xs]
    if not {axes[0], axes[-1]} <= {1, 2} or set(axes[1:-1]) - {2}:
        raise np.linalg.LinAlgError(
            f"multi_dot takes matrices, and vectors at the ends, not arrays of {axes} axes"
        )
    sizes = [1 if axes[0] == 1 else xs[0].shape[0], *(x.shape[0] for x in xs[1:])]
    sizes.append(1 if axes[-1] == 1 else xs[-1].shape[1])

    @functools.cache
    def cheapest(i, j):
        """(multiplications, where to cut) of the product of the arrays from i to j - 1."""
        if j == i + 1:
            return 0, None
        return min(
            (cheapest(i, k)[0] + cheapest(k, j)[0] + sizes[i] * sizes[k] * sizes[j], k)
            for k in range(i + 1, j)
        )

    def product(i, j):
        k = cheapest(i, j)[1]
        return xs[i] if k is None else matmul(product(i, k), product(k, j))

    return product(0, len(xs))


def tensorsolve(a, b, axes=None) -> Tensor:
    """x with tensordot(a, x, x.ndim) = b, where a has the shape b.shape + x.shape.

    `axes` of a are moved to the end first. Raises LinAlgError if a is not square in this sense, or
    is singular.
    """
    a, b = as_tensors("tensorsolve", a, b)
    if axes is not None:
        last = [axis % a.ndim for axis in axes]
        a = transpose(a, [axis for axis in range(a.ndim) if axis not in last] + last)
    shape = a.shape[-(a.ndim - b.ndim) :]  # all of it for 0, as in NumPy
    n = math.prod(shape)
    if a.size != n * n or b.size != n:
        raise np.linalg.LinAlgError(
            f"tensorsolve takes a of the shape of b and x together, not {a.shape} with b {b.shape}"
        )
    return reshape(solve(reshape(a, (n, n)), reshape(b, (n,))), shape)


def tensorinv(a, ind: int = 2) -> Tensor:
    """The inverse of b -> tensordot(a, b, ...), where the first `ind` axes of a are those of its
    values: a tensor of the shape a.shape[ind:] + a.shape[:ind].

    Raises ValueError unless `ind` is positive, and LinAlgError if the two groups of axes have
    different numbers of elements or a is singular.
    """
    a = as_tensor(a)
    if ind <= 0:
        raise ValueError(f"ind is a positive number of axes, not {ind}")
    n = math.prod(a.shape[:ind])
    if n != math.prod(a.shape[ind:]):
        raise np.linalg.LinAlgError(
            f"tensorinv takes a whose first {ind} axes have as many elements as the others, not "
            f"{a.shape}"
        )
    return reshape(inv(reshape(a, (n, n))), a.shape[ind:] + a.shape[:ind])
