"""What the functions of linear algebra have in common."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from ..modes import mode
from ..numpy_ops.operands import in_wide_floats
from ..op import op
from ..tensor import Tensor


def lapack(body: Callable):
    """Make an operation (see op.py) whose body is given float32 for float16, which LAPACK lacks.

    Its value is float16 again if all arrays are.
    """

    @functools.wraps(body)
    def in_float32(*arrays, **static):
        halves = [getattr(a, "dtype", None) == np.float16 for a in arrays]
        if not any(halves):
            return body(*arrays, **static)
        value, *vjps = body(*map(_wide, arrays), **static)
        return (
            value.astype(np.float16) if all(halves) else value,
            *(lambda g, vjp=vjp: vjp(_wide(g)) for vjp in vjps),
        )

    return op(in_float32, floats=True)


def _wide(x):
    return x.astype(np.float32) if getattr(x, "dtype", None) == np.float16 else x


def t(x):
    """The transposed matrices."""
    return np.swapaxes(x, -1, -2)


def mirrored(x):
    """The symmetric matrices that have the entries of x on and below the diagonal."""
    return np.tril(x) + t(np.tril(x, -1))


def folded(g, upper: bool = False):
    """The gradient for one triangle, from the gradient g (symmetric) for symmetric matrices.

    LAPACK reads only the entries on and below the diagonal, or on and above it, of a matrix that it
    takes for symmetric. So an entry off the diagonal stands for two, and the others for none.
    """
    return np.triu(g) + np.triu(g, 1) if upper else np.tril(g) + np.tril(g, -1)


def check_square(name: str, x) -> None:
    if x.ndim < 2 or x.shape[-1] != x.shape[-2]:
        raise np.linalg.LinAlgError(f"{name} takes square matrices (..., n, n), not {x.shape}")


def precision(x) -> float:
    """max(m, n) times the distance from 1 to the next number of the dtype that is computed in."""
    return max(x.shape[-2:]) * float(np.finfo(np.result_type(x.dtype, np.float32)).eps)


def without_gradient(
    function: Callable, x: Tensor, name: str, value, instead
) -> tuple[Tensor, ...]:
    """The results of NumPy's function(x, name=value), which have no derivative for this value.

    Raises ValueError if x needs a gradient; `instead` is a value for which there is one.
    """
    if x.requires_grad and mode.get().record:
        raise ValueError(
            f"{function.__name__} has no gradient with {name}={value!r} for matrices of shape "
            f"{x.shape[-2:]}: pass {name}={instead!r}, or x.detach()"
        )
    wide, dtype = in_wide_floats(x)
    return tuple(Tensor(y.astype(dtype)) for y in function(wide.data, **{name: value}))
