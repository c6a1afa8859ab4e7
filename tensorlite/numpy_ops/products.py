"""Sums of products.

All but `einsum` are composed of products of elements and of matrices.
"""

from __future__ import annotations

import math
import string

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple

from ..arraylike import array_of, whole
from ..op import op, operand
from ..ops import expand_dims, matmul, mul, reshape, squeeze, sum, transpose
from ..tensor import Tensor, tensor
from .indexing import diagonal
from .operands import as_tensors
from .shapes import moveaxis, pad, roll

__all__ = """
    dot vdot inner outer tensordot kron cross trace vecdot matvec vecmat einsum
""".split()


def dot(a, b) -> Tensor:
    """The sums of products over the last axis of a and the last but one (or only) axis of b.

    That is the inner product of vectors and the product of matrices. A number is a factor. Raises
    ValueError if the axes differ in size.

    >>> dot([1.0, 2.0], [3.0, 4.0])
    tensor(11.)
    """
    a, b = as_tensors("dot", a, b)
    if not a.ndim or not b.ndim:
        return mul(a, b)
    return matmul(a, b) if b.ndim <= 2 else tensordot(a, b, (-1, -2))


def vdot(a, b) -> Tensor:
    """The inner product of all elements of two arrays of the same size.

    >>> vdot([[1.0, 2.0]], [[3.0], [4.0]])
    tensor(11.)
    """
    a, b = as_tensors("vdot", a, b)
    return matmul(reshape(a, (a.size,)), reshape(b, (b.size,)))


def inner(a, b) -> Tensor:
    """The sums of products over the last axes of a and b. A number is a factor."""
    a, b = as_tensors("inner", a, b)
    return tensordot(a, b, (-1, -1)) if a.ndim and b.ndim else mul(a, b)


def outer(a, b) -> Tensor:
    """The products of each element of a, in rows, with each element of b, in columns.

    >>> outer([1.0, 2.0], [3.0, 4.0])
    tensor([[3., 4.],
            [6., 8.]])
    """
    a, b = as_tensors("outer", a, b)
    return reshape(a, (a.size, 1)) * reshape(b, (1, b.size))


def tensordot(a, b, axes=2) -> Tensor:
    """The sums of products over several axes; those left of a come first, then those left of b.

    `axes` is a number n, for the last n axes of a and the first n of b, or a pair: the axes of a
    (one or a sequence) and the axes of b. Raises ValueError for axes of different sizes.
    """
    a, b = as_tensors("tensordot", a, b)
    if isinstance(axes, (int, np.integer)):
        axes = range(a.ndim - axes, a.ndim), range(axes)
    summed_a, summed_b = (
        normalize_axis_tuple(part, x.ndim) for part, x in zip(axes, (a, b), strict=True)
    )
    sizes = [a.shape[i] for i in summed_a]
    if sizes != [b.shape[i] for i in summed_b]:
        raise ValueError(
            f"tensordot sums over axes of one size, not over the axes {tuple(summed_a)} of a shape "
            f"{a.shape} and the axes {tuple(summed_b)} of a shape {b.shape}"
        )
    kept_a = [i for i in range(a.ndim) if i not in summed_a]
    kept_b = [i for i in range(b.ndim) if i not in summed_b]
    shape_a, shape_b = [a.shape[i] for i in kept_a], [b.shape[i] for i in kept_b]
    n = math.prod(sizes)
    rows = reshape(transpose(a, (*kept_a, *summed_a)), (math.prod(shape_a), n))
    columns = reshape(transpose(b, (*summed_b, *kept_b)), (n, math.prod(shape_b)))
    return reshape(matmul(rows, columns), (*shape_a, *shape_b))


def kron(a, b) -> Tensor:
    """The Kronecker product: each element of a, times the whole of b.

    >>> kron([1.0, 10.0], [1.0, 2.0])
    tensor([ 1.,  2., 10., 20.])
    """
    a, b = as_tensors("kron", a, b)
    ndim = max(a.ndim, b.ndim)
    m, n = ((1,) * (ndim - x.ndim) + x.shape for x in (a, b))
    a = reshape(a, tuple(side for size in m for side in (size, 1)))
    b = reshape(b, tuple(side for size in n for side in (1, size)))
    return reshape(a * b, tuple(i * j for i, j in zip(m, n)))


def cross(a, b, axisa: int = -1, axisb: int = -1, axisc: int = -1, axis=None) -> Tensor:
    """The cross product of vectors in three dimensions, which lie along the axes given.

    `axis` stands for all three of axisa, axisb and axisc. A vector of two elements has a third one
    of 0; of two such vectors, the result is the third element of the product alone. Raises
    ValueError for vectors of another length.

    >>> cross([1.0, 0.0, 0.0], [0.0, 1.0, 0.0])
    tensor([0., 0., 1.])
    """
    if axis is not None:
        axisa = axisb = axisc = axis
    a, b = as_tensors("cross", a, b)
    a, b = moveaxis(a, axisa, -1), moveaxis(b, axisb, -1)
    if not {a.shape[-1], b.shape[-1]} <= {2, 3}:
        raise ValueError(f"cross takes vectors of 2 or 3 elements, not shapes {a.shape}, {b.shape}")
    if a.shape[-1] == b.shape[-1] == 2:
        return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]
    a, b = (pad(x, [(0, 0)] * (x.ndim - 1) + [(0, 3 - x.shape[-1])]) for x in (a, b))
    c = roll(a * roll(b, -1, -1) - roll(a, -1, -1) * b, -1, -1)
    return moveaxis(c, -1, axisc)


def trace(x, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Tensor:
    """The sum of a diagonal of the matrices in two axes; `offset` counts from the main diagonal.

    >>> trace([[1.0, 2.0], [3.0, 4.0]])
    tensor(5.)
    """
    return sum(diagonal(x, offset, axis1, axis2), -1)


def vecdot(x1, x2, axis: int = -1) -> Tensor:
    """The inner products of the vectors along an axis; the other axes are broadcast.

    >>> vecdot([[1.0, 2.0], [3.0, 4.0]], [1.0, 10.0])
    tensor([21., 43.])
    """
    x1, x2 = as_tensors("vecdot", x1, x2)
    x1, x2 = moveaxis(x1, axis, -1), moveaxis(x2, axis, -1)
    if x1.shape[-1] != x2.shape[-1]:
        raise ValueError(f"vecdot takes vectors of one length, not shapes {x1.shape}, {x2.shape}")
    return sum(x1 * x2, -1)


def matvec(x1, x2) -> Tensor:
    """The products of matrices (..., m, n) and vectors (..., n); the other axes are broadcast."""
    x1, x2 = as_tensors("matvec", x1, x2)
    return squeeze(matmul(x1, expand_dims(x2, -1)), -1)


def vecmat(x1, x2) -> Tensor:
    """The products of vectors (..., m) and matrices (..., m, n); the other axes are broadcast."""
    x1, x2 = as_tensors("vecmat", x1, x2)
    return squeeze(matmul(expand_dims(x1, -2), x2), -2)


# =================================================================================================
# Einstein summation
# =================================================================================================


def einsum(subscripts, *operands) -> Tensor:
    """Einstein summation, with NumPy's subscripts: "ij,jk->ik", "...ij", "ii", "i,j".

    Instead of letters there may be a list of numbers behind each operand, and one for the result,
    as in einsum(x, [0, 1], y, [1, 2], [0, 2]). Raises TypeError if there are neither letters nor
    such lists, and ValueError for subscripts that do not fit the operands.

    >>> einsum("ij,j->i", tensor([[1.0, 2.0], [3.0, 4.0]]), tensor([1.0, 1.0]))
    tensor([3., 7.])
    >>> einsum(tensor([[1.0, 2.0], [3.0, 4.0]]), [0, 1], tensor([1.0, 1.0]), [1], [0])
    tensor([3., 7.])
    """
    if not isinstance(subscripts, str):
        subscripts, operands = _in_letters(subscripts, *operands)
    inputs, arrow, output = subscripts.replace(" ", "").partition("->")
    inputs = inputs.split(",")
    if len(inputs) != len(operands):
        raise ValueError(f"einsum {subscripts!r} names {len(inputs)} operands, not {len(operands)}")
    # The axes that an ellipsis stands for get letters of their own, aligned at the last axis.
    spare = [c for c in string.ascii_letters if c not in subscripts]
    operands = [float(x) if isinstance(x, np.floating) else x for x in operands]
    operands = [x if hasattr(x, "ndim") else operand(x, "einsum", operands) for x in operands]
    operands = [x if hasattr(x, "ndim") else tensor(x) for x in operands]
    n_dots = [x.ndim - len(s.replace("...", "")) for s, x in zip(inputs, operands)]
    dots = "".join(spare[: max((n for n, s in zip(n_dots, inputs) if "..." in s), default=0)])
    for s, x, n in zip(inputs, operands, n_dots):
        if n < 0 or (n and "..." not in s):
            raise ValueError(f"einsum: {s!r} does not fit an operand of shape {x.shape}")
    if not arrow:  # the implicit output has the letters that occur once, in alphabetical order
        letters = "".join(inputs).replace(".", "")
        output = "..." + "".join(sorted(c for c in set(letters) if letters.count(c) == 1))
    inputs = [s.replace("...", dots[len(dots) - n :]) for s, n in zip(inputs, n_dots)]
    return _einsum(operands, ",".join(inputs) + "->" + output.replace("...", dots))


def _in_letters(*arguments) -> tuple[str, tuple]:
    """The subscripts and the operands of einsum(x, [0, 1], y, [1, 2], [0, 2])."""
    n = len(arguments) // 2 * 2
    lists = [*arguments[1:n:2], *arguments[n:]]
    if not n or not all(isinstance(axes, (list, tuple)) for axes in lists):
        raise TypeError(
            "einsum takes its subscripts first, as a string such as 'ij,jk->ik', or a list of axes "
            "behind each operand, as in einsum(x, [0, 1], y, [1, 2], [0, 2])"
        )
    letters = dict(enumerate(string.ascii_uppercase + string.ascii_lowercase)) | {...: "..."}
    if unknown := [a for axes in lists for a in axes if a not in letters]:
        raise ValueError(f"einsum numbers axes from 0 to 51, not {unknown[0]}")
    words = ["".join(letters[a] for a in axes) for axes in lists]
    output = "->" + words[-1] if len(arguments) > n else ""
    return ",".join(words[: n // 2]) + output, arguments[:n:2]


@op
def _einsum(*operands, subscripts):
    """`einsum` of a sequence of operands, with an explicit output and without ellipses."""
    inputs, output = subscripts.split("->")
    inputs = inputs.split(",")
    sizes = {}
    for letters, x in zip(inputs, operands):
        for letter, n in zip(letters, x.shape):
            sizes[letter] = n if sizes.get(letter, 1) == 1 else sizes[letter]
    shapes = [x.shape for x in operands]
    y = np.einsum(subscripts, *operands, optimize=len(operands) > 1)

    def vjp(i):
        others = [x for j, x in enumerate(operands) if j != i]
        known = [output, *(letters for j, letters in enumerate(inputs) if j != i)]
        return lambda g: _einsum_gradient(inputs[i], known, [g, *others], sizes, shapes[i])

    return y, *map(vjp, range(len(operands)))


def _einsum_gradient(target, known, operands, sizes, shape):
    """The gradient for the operand with the letters `target`: an einsum of g and the others.

    `operands` are g and the other operands, `known` their letters, and `sizes` the size of each
    letter.
    """
    like = whole(array_of(operands[0]))
    # A letter that only the target has was summed over in it alone. The gradient is constant along
    # that axis, so the einsum gets one more operand of ones with these letters.
    long = {c for s, x in zip(known, operands) for c, n in zip(s, x.shape) if n == sizes[c]}
    lost = "".join(dict.fromkeys(c for c in target if c not in long))
    if lost:
        operands = [*operands, np.ones_like(like, shape=tuple(sizes[c] for c in lost))]
        known = [*known, lost]
    # A letter that the target has twice took its diagonal, so the gradient is 0 off the diagonal.
    # Each repetition gets another letter and one more operand, an identity matrix of the two.
    unique = ""
    for letter in target:
        if letter in unique:
            spare = next(c for c in string.ascii_letters if c not in unique + "".join(known))
            eye = np.identity(sizes[letter], like.dtype, like=like)
            operands, known = [*operands, eye], [*known, letter + spare]
            letter = spare
        unique += letter
    g = np.einsum(f"{','.join(known)}->{unique}", *operands, optimize=True)
    return g.astype(operands[0].dtype)
