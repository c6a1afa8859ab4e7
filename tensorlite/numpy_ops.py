"""More of NumPy's differentiable functions, in the same form as in ops.py. Read that file first.

Within this file `sum` is the operation of ops.py, and parameters are called `min` and `max` as in
NumPy, so Python's built-in functions of these names are called through `builtins`.
"""

from __future__ import annotations

import builtins
import functools
import string

import numpy as np
from numpy.lib.array_utils import normalize_axis_index, normalize_axis_tuple

from .arraylike import array_of, whole
from .graph import Part
from .op import op, operand
from .ops import (
    axis_of,
    concatenate,
    expand_dims,
    getitem,
    index_array,
    length_of,
    mul,
    reshape,
    spread,
    squeeze,
    sum,
)
from .tensor import Tensor, tensor

# =================================================================================================
# Elementwise functions
# =================================================================================================


@op(floats=True)
def sin(x):
    return np.sin(x), lambda g: g * np.cos(x)


@op(floats=True)
def cos(x):
    return np.cos(x), lambda g: -g * np.sin(x)


@op
def maximum(x, y):
    """The larger of x and y, element by element; each gets half of the gradient where x == y."""
    return (
        np.maximum(x, y),
        lambda g: g * ((x > y) + (x == y) * 0.5).astype(g.dtype),
        lambda g: g * ((y > x) + (x == y) * 0.5).astype(g.dtype),
    )


@op
def minimum(x, y):
    """The smaller of x and y, element by element; each gets half of the gradient where x == y."""
    return (
        np.minimum(x, y),
        lambda g: g * ((x < y) + (x == y) * 0.5).astype(g.dtype),
        lambda g: g * ((y < x) + (x == y) * 0.5).astype(g.dtype),
    )


@op
def clip(x, *, min=None, max=None):
    """x with elements below the number `min` or above `max` replaced by it (None: no bound).

    The gradient is 1 for elements between the bounds or equal to one, and 0 for others.
    """
    y, inside = x, x == x  # False for NaN
    if min is not None:
        y, inside = np.maximum(y, min), inside & (x >= min)
    if max is not None:
        y, inside = np.minimum(y, max), inside & (x <= max)
    return y, lambda g: np.where(inside, g, 0)


# =================================================================================================
# Reductions
# =================================================================================================


@op(floats=True)
def var(x, *, axis=None, ddof=0, keepdims=False):
    """The variance: the sum of squared distances from the mean, divided by n - ddof."""
    n, dtype = length_of(x.shape, axis), x.dtype
    n = builtins.max(n - ddof, 0)  # division by 0 gives infinity or NaN, as in NumPy
    if dtype == np.float16 and not isinstance(x, Tensor):
        x = x.astype(np.float32)
    centred = x - np.mean(x, axis=axis, keepdims=True)
    y = sum.body(centred * centred, axis=axis, keepdims=keepdims)[0] / n
    shape = x.shape
    return y.astype(dtype), lambda g: spread(g * 2, shape, axis, keepdims) * centred / n


def prod_composed(x, axis=None, keepdims=False):
    axis = axis_of(axis, x)
    if axis is None:
        y = prod_composed(reshape(x, (x.size,)), axis=0)
        return reshape(y, (1,) * x.ndim) if keepdims else y
    axes = sorted(normalize_axis_tuple(axis, x.ndim))
    for a in axes:
        one = sum(x, axis=a, keepdims=True) * 0 + 1  # ones, the product of no factors
        x = functools.reduce(mul, split(x, range(1, x.shape[a]), a) if x.shape[a] else (), one)
    return x if keepdims else squeeze(x, tuple(axes))


@op(composed=prod_composed, floats=False)
def prod(x, *, axis=None, keepdims=False):
    """The product of elements; the gradient is right also where some of them are 0."""
    axis = axis_of(axis, x)
    shape, n = x.shape, length_of(x.shape, axis)
    reduced = list(range(x.ndim) if axis is None else normalize_axis_tuple(axis, x.ndim))
    order = [a for a in range(x.ndim) if a not in reduced] + reduced
    moved = np.transpose(x, order)  # the reduced axes last

    def vjp(g):
        # The gradient for an element is the product of the others: of those before it, times those
        # behind it. Dividing the whole product by the element would fail where it is 0.
        rows = np.reshape(moved, (x.size // n if n else 0, n))
        ones = np.ones_like(rows[:, :1])
        before = np.cumprod(np.concatenate([ones, rows[:, :-1]], axis=1), axis=1)
        behind = np.cumprod(np.concatenate([ones, rows[:, :0:-1]], axis=1), axis=1)[:, ::-1]
        others = np.transpose(np.reshape(before * behind, moved.shape), np.argsort(order).tolist())
        return spread(g, shape, axis, keepdims) * others

    return np.prod(x, axis=axis, keepdims=keepdims), vjp


@op
def cumsum(x, *, axis=None):
    """Running sums along an axis, or over all elements in order if `axis` is None."""
    axis = axis_of(axis, x)
    shape, along = x.shape, 0 if axis is None else axis

    def sums(x, axis):
        if x.dtype == np.float16 and not isinstance(x, Tensor):
            return np.cumsum(x, axis, dtype=np.float32).astype(x.dtype)
        return np.cumsum(x, axis)

    def vjp(g):
        return np.reshape(np.flip(sums(np.flip(g, along), along), along), shape)

    return sums(x, axis), vjp


# =================================================================================================
# Sums of products
# =================================================================================================


def einsum(subscripts: str, *operands) -> Tensor:
    """Einstein summation, with NumPy's subscripts: "ij,jk->ik", "...ij", "ii", "i,j".

    Raises TypeError if the first argument is not a string, and ValueError for subscripts that do
    not fit the operands.

    >>> einsum("ij,j->i", tensor([[1.0, 2.0], [3.0, 4.0]]), tensor([1.0, 1.0]))
    tensor([3., 7.])
    """
    if not isinstance(subscripts, str):
        raise TypeError(
            "einsum takes its subscripts first, as a string such as 'ij,jk->ik', "
            f"not {type(subscripts).__name__}"
        )
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
    dots = "".join(
        spare[: builtins.max((n for n, s in zip(n_dots, inputs) if "..." in s), default=0)]
    )
    for s, x, n in zip(inputs, operands, n_dots):
        if n < 0 or (n and "..." not in s):
            raise ValueError(f"einsum: {s!r} does not fit an operand of shape {x.shape}")
    if not arrow:  # the implicit output has the letters that occur once, in alphabetical order
        letters = "".join(inputs).replace(".", "")
        output = "..." + "".join(sorted(c for c in set(letters) if letters.count(c) == 1))
    inputs = [s.replace("...", dots[len(dots) - n :]) for s, n in zip(inputs, n_dots)]
    return _einsum(operands, ",".join(inputs) + "->" + output.replace("...", dots))


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


# =================================================================================================
# Shape
# =================================================================================================


@op(moves=True)
def flip(x, *, axis=None):
    """x with the order of its elements reversed along an axis, a tuple of them, or all (None)."""
    return np.flip(x, axis), lambda g: np.flip(g, axis)


@op(moves=True)
def roll(x, *, shift, axis=None):
    """x shifted along an axis; elements pushed out at the end come in again at the start."""
    back = tuple(-s for s in shift) if isinstance(shift, (tuple, list)) else -shift
    return np.roll(x, shift, axis), lambda g: np.roll(g, back, axis)


@op
def tril(x, *, k=0):
    """The elements of the last two axes on and below the k-th diagonal, zeros above."""
    return np.tril(x, k), lambda g: np.tril(g, k)


@op
def triu(x, *, k=0):
    """The elements of the last two axes on and above the k-th diagonal, zeros below."""
    return np.triu(x, k), lambda g: np.triu(g, k)


@op
def pad(x, *, pad_width, constant_values=0):
    """x with a border of one number; pad_width is n, (before, after), or one such pair per axis."""
    widths = np.broadcast_to(np.asarray(pad_width), (x.ndim, 2)).tolist()
    inside = tuple(slice(before, before + n) for (before, _), n in zip(widths, x.shape))
    y = np.pad(x, widths, constant_values=constant_values) if x.ndim else x
    return y, lambda g: g[inside]


def split(x, indices_or_sections, axis: int = 0) -> list[Tensor]:
    """Cut a tensor along an axis: into equal sections (int), or at the given indices (list).

    Raises ValueError if equal sections do not divide the axis.
    """
    x = x if isinstance(x, Tensor) else tensor(x)
    axis = normalize_axis_index(axis, x.ndim)
    n = x.shape[axis]
    if isinstance(indices_or_sections, (int, np.integer)):
        if n % indices_or_sections:
            raise ValueError(f"cannot split {n} into {indices_or_sections} equal sections")
        size = n // indices_or_sections
        cuts = [i * size for i in range(1, indices_or_sections)]
    else:
        cuts = list(indices_or_sections)
    before = (slice(None),) * axis
    return [
        getitem(x, before + (slice(start, stop),)) for start, stop in zip([0, *cuts], [*cuts, None])
    ]


def stack(arrays, axis: int = 0) -> Tensor:
    """Join tensors of one shape along a new axis."""
    arrays = [operand(x, "stack", arrays) if isinstance(x, list) else x for x in arrays]
    return concatenate([expand_dims(x, axis) for x in arrays], axis)


# =================================================================================================
# Indexing
# =================================================================================================


def take(x, indices, axis: int | None = None) -> Tensor:
    """The elements at integer `indices` along an axis, or among all elements in order (None)."""
    x = x if isinstance(x, Tensor) else tensor(x)
    indices, axis = index_array(indices), axis_of(axis, x)
    if axis is None:
        return getitem(reshape(x, (x.size,)), indices)
    return getitem(x, (slice(None),) * normalize_axis_index(axis, x.ndim) + (indices,))


@op
def take_along_axis(x, *, indices, axis):
    """The elements of x at `indices` along `axis`; in other axes both have the same size."""
    axis, indices = normalize_axis_index(axis, x.ndim), index_array(indices)
    index = []
    for a, n in enumerate(x.shape):
        along = (-1,) + (1,) * (x.ndim - 1 - a)
        index.append(indices if a == axis else np.reshape(np.arange(n, like=array_of(x)), along))
    return np.take_along_axis(x, indices, axis), lambda g: Part(g, tuple(index), repeated=True)
