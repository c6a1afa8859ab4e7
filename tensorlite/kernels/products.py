"""Matrix products on a GPU, and what is done with a product before it is stored.

cublaslt.py computes them. What it cannot do is composed of a product and other kernels; where
nvmath-python is not installed, the products are CuPy's.
"""

from __future__ import annotations

import numpy as np

from .activations import gelu
from .cublaslt import DTYPES, Operands, library
from .elementwise import cast, plus
from .launch import empty
from .layouts import Problem, has_rows, matrix, with_rows
from .precision import tf32 as tf32_is_on


def matmul(
    a,
    b,
    ta: bool = False,
    tb: bool = False,
    out=None,
    dtype=None,
    add=None,
    bias=None,
    epilogue: str = "",
    aux=None,
    tf32: bool | None = None,
):
    """op(a) @ op(b) + add + bias, then the epilogue: a new array, or `out`.

    `a` is (M, K), or (K, M) with `ta`; `b` is (K, N), or (N, K) with `tb`; or both have one axis
    more in front, of the same length. Both are float32, bfloat16 or float16. The result is (M, N)
    of `dtype`: that of `a`, or float32. Sums are in float32. `add` is like the result, and may be
    `out` itself. `bias` (N,) is of any dtype. Views whose rows or columns are contiguous are taken
    as they are, others are copied; the rows of `out` and `add` are contiguous.

    The epilogue "gelu" stores its argument in `aux` and gives GELU of it, in the form with tanh;
    "dgelu" multiplies by the slope of GELU at `aux`. `aux` is like the result. Neither they nor
    `bias` are for three axes. `tf32` says whether float32 is rounded to 10 bits after the point
    before it is multiplied; by default, autocast says it.

    Raises TypeError for other dtypes, ValueError for shapes that do not fit.
    """
    dtype = np.dtype(a.dtype if dtype is None else dtype) if out is None else out.dtype
    _check(a, b, ta, tb, dtype)
    M, K = a.shape[:-3:-1] if ta else a.shape[-2:]
    N = b.shape[-2 if tb else -1]
    shape = (*a.shape[:-2], M, N)
    _check_rest(shape, dtype, out, add, bias, epilogue, aux)
    a, ta = with_rows(a, ta)
    b, tb = with_rows(b, tb)
    if out is None:
        out = empty(shape, dtype)
    if bias is not None and bias.dtype != dtype:
        bias = cast(bias, dtype)  # the library takes no other
    if 0 in shape:
        return out

    known = library() if K else None
    if known is None:
        _finish(_product(a, b, ta, tb), out, add, bias, epilogue, aux)
        return out
    tf32 = a.dtype == np.float32 and (tf32_is_on() if tf32 is None else tf32)
    batch = len(a) if a.ndim == 3 else 1

    def compute(out, add, bias, epilogue, aux) -> bool:
        *sides, saved = (x if x is None else matrix(x) for x in (a, b, out, add, bias, aux))
        problem = Problem(M, N, K, batch, ta, tb, *sides, epilogue, saved, tf32)
        return known.product(problem, Operands(a, b, out, add, bias, aux))

    if not compute(out, add, bias, epilogue, aux):
        y = empty(shape, np.float32)
        if not compute(y, None, None, "", None):
            raise RuntimeError(
                f"cuBLASLt has no product of {a.dtype} on {known.card}: use another precision"
            )
        _finish(y, out, add, bias, epilogue, aux)
    return out


def _check(a, b, ta: bool, tb: bool, dtype) -> None:
    names = a.dtype.name, b.dtype.name, dtype.name
    if names[0] != names[1] or names[0] not in DTYPES or names[2] not in (names[0], "float32"):
        raise TypeError(
            "a product is of two arrays of float32, bfloat16 or float16, and its result is of "
            f"their dtype or float32; here {names[0]} and {names[1]} give {names[2]}"
        )
    if (
        a.ndim != b.ndim
        or a.ndim not in (2, 3)
        or a.shape[:-2] != b.shape[:-2]
        or a.shape[-2 if ta else -1] != b.shape[-1 if tb else -2]
    ):
        raise ValueError(
            f"a product of {a.shape}{' transposed' if ta else ''} and {b.shape}"
            f"{' transposed' if tb else ''}: the shapes do not fit"
        )


def _check_rest(shape, dtype, out, add, bias, epilogue, aux) -> None:
    for name, x in dict(out=out, add=add, aux=aux).items():
        if x is not None and (x.shape != shape or x.dtype != dtype or not has_rows(x)):
            raise ValueError(
                f"{name} is {shape} of {dtype} with contiguous rows, not {x.shape} of {x.dtype}"
            )
    if bias is not None and bias.shape != shape[-1:]:
        raise ValueError(f"the bias is {shape[-1:]}, not {bias.shape}")
    if epilogue not in ("", "gelu", "dgelu") or (aux is None) != (epilogue == ""):
        raise ValueError(f"the epilogue is '', or 'gelu' or 'dgelu' with aux, not {epilogue!r}")
    if bias is not None and epilogue == "dgelu":
        raise ValueError("the epilogue dgelu has no bias")
    if len(shape) == 3 and (epilogue or bias is not None):
        raise ValueError("an epilogue or a bias is for products of two axes, not of three")


# =================================================================================================
# The same from simpler parts
# =================================================================================================


def _product(a, b, ta: bool, tb: bool):
    """op(a) @ op(b) by CuPy."""
    a = np.swapaxes(a, -1, -2) if ta else a
    b = np.swapaxes(b, -1, -2) if tb else b
    if a.ndim == 3 and a.dtype.name == "bfloat16":  # which CuPy multiplies with two axes only
        a, b = a.astype(np.float32), b.astype(np.float32)
    return np.matmul(a, b)


def _finish(y, out, add, bias, epilogue: str, aux) -> None:
    """Write a product to `out`, with all that follows it, computed in float32."""
    y = cast(y, np.float32)
    for term in (add, bias):
        y = y if term is None else plus(y, term)
    if epilogue == "gelu":
        aux[...] = y
        y, _ = gelu(y, needs=(False,))
    elif epilogue == "dgelu":
        _, vjp = gelu(aux, needs=(True,))
        (y,) = vjp(y)
    out[...] = y
