"""Sums of products."""

from __future__ import annotations

import string

import numpy as np

from ..arraylike import array_of, whole
from ..op import op, operand
from ..tensor import Tensor, tensor

__all__ = ["einsum"]


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
    dots = "".join(spare[: max((n for n, s in zip(n_dots, inputs) if "..." in s), default=0)])
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
