"""Layer norm and RMS norm, and their gradients: what norm.cu computes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..graph import Deferred
from .elementwise import cast, column_total, plus
from .launch import c_type, ceil_div, contiguous, empty, has_c_type, launch, multiprocessors, vector
from .precision import low

FILE = "norm.cu"


def layer_norm(x, weight=None, bias=None, *, eps=1e-5, needs):
    """The body of `layer_norm`: x (..., n) -> (..., n) in the dtype of x's products."""
    return _norm(x, weight, bias, eps, needs, centred=True)


def rms_norm(x, weight=None, *, eps=1e-5, needs):
    """The body of `rms_norm`: x (..., n) -> (..., n) in the dtype of x's products."""
    return _norm(x, weight, None, eps, needs, centred=False)


def _norm(x, weight, bias, eps, needs, centred):
    n = x.shape[-1] if x.ndim else 0
    params = [p for p in (weight, bias) if p is not None]
    if not has_c_type(x, *params) or any(p.shape != (n,) for p in params) or x.size == 0:
        return NotImplemented
    if len({p.dtype for p in params}) > 1:
        return NotImplemented
    x = contiguous(x)
    rows = x.size // n
    y = empty(x.shape, low(x))
    means = empty((rows,), np.float32) if centred else None
    scales = empty((rows,), np.float32)
    W = c_type(params[0].dtype) if params else "float"
    types = f"{c_type(x.dtype)}, {c_type(y.dtype)}, {W}"
    V = vector(n, x, y, *params)
    args = x, weight, bias, y, means, scales
    layout = _layout(n, V)
    if layout is None:
        kernel = f"norm_forward_wide<{types}, {_bool(centred)}>"
        launch(FILE, kernel, (rows,), (512,), (*args, n, eps))
    else:
        kernel = f"norm_forward<{types}, {layout.template}, {_bool(centred)}>"
        grid = (ceil_div(rows, layout.rows),)
        launch(FILE, kernel, grid, layout.block, (*args, np.int64(rows), n, eps))
    dtypes = [None if p is None else p.dtype for p in (weight, bias)]

    def vjp(g):
        backward = _Backward(contiguous(g), x, weight, means, scales, needs)
        gradients = [_InputGradient(backward) if needs[0] else None]
        for i, need in enumerate(needs[1:]):
            gradients.append(_ColumnGradient(backward, i, dtypes[i]) if need else None)
        return tuple(gradients)

    return y, vjp


class _Layout(NamedTuple):
    """How a row is divided among threads; norm.cu explains it."""

    vectors: int  # of each thread: K
    threads: int  # for a row
    rows: int  # in a block
    template: str  # V, K, the most threads of a block, and whether a row has all of them

    @property
    def block(self) -> tuple[int, int]:
        return self.threads, self.rows


def _layout(n: int, V: int) -> _Layout | None:
    """The layout for rows of n, read V at a time; None if a row is too wide for registers."""
    vectors = ceil_div(n, V)
    K = ceil_div(vectors, 32)
    if K * V <= 32 and K <= 8:  # numbers in a thread of a warp
        if V == 1:
            K = 1 if K == 1 else 4 if K <= 4 else 8  # fewer kernels to compile
        return _Layout(K, 32, 4, f"{V}, {K}, 128, false")
    K = 8 if V == 1 else 16 // V
    threads = 32 * ceil_div(ceil_div(vectors, K), 32)
    return _Layout(K, threads, 1, f"{V}, {K}, 512, true") if threads <= 512 else None


def _bool(value: bool) -> str:
    return "true" if value else "false"


class _Backward:
    """All gradients of a norm come from one launch, when the first of them is asked for."""

    def __init__(self, g, x, weight, means, scales, needs):
        self.arrays = g, x, weight, means, scales
        self.shape, self.dtype = x.shape, x.dtype
        self.for_x, self.for_columns = needs[0], any(needs[1:])
        self.gx = self.totals = None

    @property
    def done(self) -> bool:
        return self.arrays is None

    def compute(self, base=None, gx=None) -> None:
        """gx = base + the gradient of x; totals = the sums over rows, (2 or 1, n)."""
        (g, x, weight, means, scales), self.arrays = self.arrays, None
        n = self.shape[-1]
        rows = x.size // n
        centred = means is not None
        W = "float" if weight is None else c_type(weight.dtype)
        types = f"{c_type(g.dtype)}, {c_type(x.dtype)}, {W}"
        V = vector(n, g, x, weight, base, gx)
        layout = _layout(n, V)
        if layout is None:
            blocks = min(rows, 2 * multiprocessors())
            kernel, block, shared = f"norm_backward_wide<{types}, {_bool(centred)}>", (512,), 0
        else:
            blocks = min(ceil_div(rows, layout.rows), _resident(layout, V) * multiprocessors())
            kernel = f"norm_backward<{types}, {layout.template}, {_bool(centred)}>"
            block, shared = layout.block, 8 * n if layout.rows > 1 else 0
        part = empty((2 if centred else 1, blocks, n), np.float32) if self.for_columns else None
        args = g, x, weight, means, scales, base, gx, part, np.int64(rows), n
        launch(FILE, kernel, (blocks,), block, args, shared)
        if part is not None:
            self.totals = column_total(part)

    def compute_alone(self) -> None:
        if not self.done:
            self.gx = empty(self.shape, self.dtype) if self.for_x else None
            self.compute(None, self.gx)


def _resident(layout: _Layout, V: int) -> int:
    """How many blocks a multiprocessor holds at once, which their registers limit."""
    if layout.rows == 1:
        return max(1, 512 // layout.threads)
    numbers = layout.vectors * V  # each thread holds four arrays of so many
    return 2 if numbers > 24 else 3 if numbers > 8 else 4


class _InputGradient(Deferred):
    """The gradient of x, which the kernel can add to that of the residual stream."""

    def __init__(self, backward: _Backward):
        self.backward, self.shape, self.dtype = backward, backward.shape, backward.dtype

    def array(self):
        backward = self.backward
        backward.compute_alone()
        gx, backward.gx = backward.gx, None  # is asked for once; the columns need not keep it
        return gx

    def plus(self, total, out=None):
        scattered = out is not None and not out.flags.c_contiguous
        if self.backward.done or scattered or total.dtype != self.dtype:
            return plus(total, self.array(), out)
        total = contiguous(total)
        out = empty(self.shape, self.dtype) if out is None else out
        self.backward.compute(total, out)
        return out


class _ColumnGradient(Deferred):
    """The gradient of the weight (number 0) or of the bias (number 1)."""

    def __init__(self, backward: _Backward, number: int, dtype):
        self.backward, self.number, self.dtype = backward, number, dtype
        self.shape = backward.shape[-1:]

    def array(self):
        self.backward.compute_alone()
        return cast(self.backward.totals[self.number], self.dtype)

    def plus(self, total, out=None):
        return plus(total, self.array(), out)
