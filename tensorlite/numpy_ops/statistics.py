"""Statistics of samples, differences and integrals along an axis, and polynomials."""

from __future__ import annotations

import math

import numpy as np
from numpy.lib.array_utils import normalize_axis_index, normalize_axis_tuple

from ..arraylike import array_of, is_float
from ..op import op
from ..ops import (
    astype,
    broadcast_to,
    concatenate,
    expand_dims,
    getitem,
    matmul,
    reshape,
    sqrt,
    sum,
    swapaxes,
    transpose,
    where,
)
from ..tensor import Tensor
from .elementwise import clip
from .indexing import diagonal
from .operands import as_tensor, as_tensors, in_wide_floats
from .shapes import flip

__all__ = """
    diff ediff1d gradient trapezoid unwrap
    cov corrcoef convolve correlate polyval
""".split()


def _slice(x, axis: int, *bounds) -> Tensor:
    """x[bounds[0]:bounds[1]] along an axis."""
    return getitem(x, (slice(None),) * axis + (slice(*bounds),))


# =================================================================================================
# Differences and integrals
# =================================================================================================


def diff(x, n: int = 1, axis: int = -1, prepend=None, append=None) -> Tensor:
    """The differences of neighbours along an axis, taken `n` times.

    `prepend` and `append` are joined to x before, unless `n` is 0; a number stands for one element.
    Raises ValueError for a negative `n` and for a number without axes.

    >>> diff([1.0, 4.0, 9.0])
    tensor([3., 5.])
    """
    x = as_tensor(x)
    if n < 0 or not x.ndim:
        raise ValueError(f"diff takes n >= 0 and an x with axes, not n = {n} and shape {x.shape}")
    axis = normalize_axis_index(axis, x.ndim)
    if n == 0:
        return x
    ends = [end for end in (prepend, x, append) if end is not None]
    shape = [1 if a == axis else size for a, size in enumerate(x.shape)]
    ends = [e if e.ndim else broadcast_to(e, tuple(shape)) for e in as_tensors("diff", *ends)]
    x = concatenate(ends, axis) if len(ends) > 1 else x
    for _ in range(n):
        x = _slice(x, axis, 1, None) - _slice(x, axis, 0, -1)
    return x


def ediff1d(x, to_end=None, to_begin=None) -> Tensor:
    """The differences of neighbours among all elements, with `to_begin` before and `to_end` behind.

    >>> ediff1d([1.0, 4.0, 9.0], to_end=0.0)
    tensor([3., 5., 0.])
    """
    parts = [part for part in (to_begin, x, to_end) if part is not None]
    parts = [reshape(part, (part.size,)) for part in as_tensors("ediff1d", *parts)]
    i = 0 if to_begin is None else 1
    parts[i] = diff(parts[i])
    return concatenate(parts) if len(parts) > 1 else parts[0]


def gradient(f, *varargs, axis=None, edge_order: int = 1):
    """The derivative of sampled values along each axis, by differences of second order.

    `varargs` say how far samples are apart: nothing (1), one distance for all axes, or for each
    axis a distance or the coordinates of the samples. Between the edges the differences are
    central; at the edges they are of order `edge_order`, 1 or 2. The result is a tensor for one
    axis and a tuple of tensors for several, differentiable in `f` and in the distances.
    Raises ValueError for fewer than edge_order + 1 samples or for coordinates of another length,
    and TypeError for another number of distances.

    >>> gradient([1.0, 4.0, 9.0], 0.5)
    tensor([ 6.,  8., 10.])
    """
    f, *spacings = as_tensors("gradient", f, *varargs)
    axes = normalize_axis_tuple(range(f.ndim) if axis is None else axis, f.ndim)
    if len(spacings) == 1 and not spacings[0].ndim:
        spacings *= len(axes)
    if spacings and len(spacings) != len(axes):
        raise TypeError(f"gradient takes no distances, 1 or {len(axes)}, not {len(spacings)}")
    if edge_order not in (1, 2):
        raise ValueError(f"edge_order is 1 or 2, not {edge_order!r}")
    (f, dtype), found = in_wide_floats(f), []
    for a, h in zip(axes, spacings or [1.0] * len(axes)):
        n = f.shape[a]
        if n <= edge_order:
            raise ValueError(f"axis {a} has {n} samples; gradient needs {edge_order + 1} or more")
        if np.shape(array_of(h)) not in ((), (n,)):
            raise ValueError(f"axis {a} has {n} samples, not coordinates of shape {h.shape}")
        found.append(astype(swapaxes(_derivative(swapaxes(f, a, -1), h, edge_order), a, -1), dtype))
    return found[0] if len(found) == 1 else tuple(found)


def _derivative(f, x, edge_order) -> Tensor:
    """The derivative along the last axis, with a distance or the coordinates x.

    It is that of the parabola through a sample and its two neighbours. With the distances h0 before
    and h1 behind the sample, the slopes s0 and s1 to the neighbours, and half of the second
    derivative b = (s1 - s0) / (h0 + h1), it is s0 + b h0, which is s1 - b h1.
    """
    along = np.ndim(array_of(x)) == 1
    h = diff(x) if along else x
    h0, h1, first, last = (h[:-1], h[1:], h[:1], h[-1:]) if along else (h, h, h, h)
    slopes = diff(f) / h
    inner = (f[..., 2:] - f[..., :-2]) / (h0 + h1)
    start, end = slopes[..., :1], slopes[..., -1:]
    if f.shape[-1] > 2 and (along or edge_order == 2):
        b = diff(slopes) / (h0 + h1)
        inner = slopes[..., :-1] + b * h0 if along else inner
        if edge_order == 2:
            start, end = start - b[..., :1] * first, end + b[..., -1:] * last
    return concatenate([start, inner, end], -1)


def trapezoid(y, x=None, dx=1.0, axis: int = -1) -> Tensor:
    """The integral of samples `y` along an axis by the trapezoidal rule.

    The samples are at the coordinates `x`, of one axis or of the shape of y, or else `dx` apart;
    the integral is differentiable in y, x and dx.

    >>> trapezoid([1.0, 2.0, 4.0])
    tensor(4.5)
    """
    y, h = as_tensors("trapezoid", y, dx if x is None else x)
    y, dtype = in_wide_floats(y)
    axis = normalize_axis_index(axis, y.ndim)
    if x is not None:
        h = diff(h, axis=axis if h.ndim == y.ndim else -1)
        h = reshape(h, (-1,) + (1,) * (y.ndim - 1 - axis)) if h.ndim == 1 else h
    means = (_slice(y, axis, 1, None) + _slice(y, axis, 0, -1)) * 0.5
    return astype(sum(h * means, axis), dtype)


@op(floats=True)
def unwrap(p, *, discont=None, axis=-1, period=2 * math.pi):
    """Angles with multiples of `period` added, so that neighbours are at most half of it apart.

    What is added is constant, so the gradient is 1.
    """
    return np.unwrap(p, discont, axis, period=period), lambda g: g


# =================================================================================================
# Statistics
# =================================================================================================


def cov(
    m, y=None, rowvar: bool = True, bias: bool = False, ddof=None, fweights=None, aweights=None
) -> Tensor:
    """The covariance of variables, each a row of `m` (a column, if not `rowvar`) or of `y`.

    The sums are divided by n - ddof, where ddof is 1 by default, and 0 with `bias`. `fweights` says
    in integers how often each observation counts, and `aweights` how important it is; the result is
    differentiable in `aweights` too. Raises ValueError for arrays of more than two dimensions and
    for weights of another shape, and TypeError for `fweights` that are not integers.

    >>> cov([[1.0, 2.0, 3.0], [1.0, 4.0, 1.0]])
    tensor([[1., 0.],
            [0., 3.]])
    """
    x = _variables(as_tensor(m), rowvar)
    if y is not None:
        y = as_tensor(y)
        x = concatenate([x, _variables(y, rowvar or len(_variables(y, True)) == 1)])
    x, dtype = in_wide_floats(x)
    n = x.shape[1]
    ddof = (0 if bias else 1) if ddof is None else ddof
    ones = np.ones_like(x.data, shape=(n,))
    fweights, aweights = (ones if w is None else w for w in (fweights, aweights))
    _, fweights, aweights = as_tensors("cov", x, fweights, aweights)
    if fweights.shape != (n,) or aweights.shape != (n,):
        raise ValueError(
            f"cov takes one weight for each of {n} observations, not weights of shape "
            f"{fweights.shape if fweights.shape != (n,) else aweights.shape}"
        )
    if is_float(fweights.dtype) and (fweights.data != np.rint(fweights.data)).any():
        raise TypeError("fweights count observations: they are integers; see aweights for others")
    w = fweights * aweights
    total = sum(w)
    divisor = total - ddof * (sum(w * aweights) / total)
    divisor = where(divisor.data <= 0, 0.0, divisor)  # NaN or infinity, as in NumPy
    x = x - sum(x * w, 1, keepdims=True) / total
    c = astype(matmul(x * w, transpose(x)) / divisor, dtype)
    return reshape(c, ()) if c.size == 1 else c


def _variables(x, rowvar):
    """x as a matrix with a variable in each row."""
    if x.ndim > 2:
        raise ValueError(f"variables are in the rows of a matrix, not in a shape {x.shape}")
    return (x if rowvar else transpose(x)) if x.ndim == 2 else reshape(x, (1, x.size))


def corrcoef(x, y=None, rowvar: bool = True) -> Tensor:
    """The correlation of variables: their covariance (`cov`), divided by both deviations.

    NaN for a variable whose observations are all equal.
    """
    c = cov(x, y, rowvar)
    if not c.ndim:
        return c / c
    deviations = sqrt(diagonal(c))
    return clip(c / expand_dims(deviations, 1) / deviations, -1.0, 1.0)


# =================================================================================================
# Convolutions and polynomials
# =================================================================================================


@op
def convolve(a, v, *, mode="full"):
    """The convolution of two arrays of one dimension: the sums of a[i] * v[k - i], for each k.

    The mode "full" gives all k at which the two overlap, "same" as many in the middle as the longer
    array has elements, and "valid" those at which the shorter one lies inside the longer one.
    Raises ValueError for other dimensions, for an empty array, and for another mode.
    """
    shapes = [getattr(x, "shape", ()) for x in (a, v)]
    if any(len(shape) != 1 or not shape[0] for shape in shapes):
        raise ValueError(f"convolve takes two rows of numbers, not shapes {shapes}")
    y, short = np.convolve(a, v, mode), min(shapes)[0]
    before = {"full": 0, "same": (short - 1) // 2, "valid": short - 1}[mode]
    behind = len(a) + len(v) - 1 - before - len(y)

    def full(g):
        return np.pad(g, [(before, behind)])

    return (
        y,
        lambda g: np.correlate(full(g), v, "valid"),
        lambda g: np.correlate(full(g), a, "valid"),
    )


def correlate(a, v, mode: str = "valid") -> Tensor:
    """The sums of a[i + k] * v[i], for each k: a convolution with v in reverse order.

    The modes and errors are those of `convolve`.
    """
    a, v = as_tensors("correlate", a, v)
    if a.size < v.size:  # as NumPy does; the middle of an even number depends on it
        return flip(convolve(v, flip(a), mode))
    return convolve(a, flip(v), mode)


def polyval(p, x) -> Tensor:
    """The polynomial p[0] * x**n + ... + p[n] at x, by Horner's rule.

    >>> polyval([1.0, 0.0, 2.0], 3.0)
    tensor(11.)
    """
    p, x = as_tensors("polyval", p, x)
    if p.ndim != 1:
        raise ValueError(f"a polynomial is one row of coefficients, not of shape {p.shape}")
    y = Tensor(np.zeros_like(x.data))
    for coefficient in p:
        y = y * x + coefficient
    return y
