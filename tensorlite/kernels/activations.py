"""GELU, SiLU and SwiGLU, and their gradients: what activations.cu computes."""

from __future__ import annotations

import numpy as np

from ..graph import Deferred
from .elementwise import flat
from .launch import c_type, contiguous, empty, has_c_type, launch

FILE = "activations.cu"


def gelu(x, *, approximate="tanh", needs):
    """The body of `gelu` in the form of GPT-2. NotImplemented for the exact one."""
    return _activation("Gelu", x) if approximate == "tanh" else NotImplemented


def silu(x, *, needs):
    """The body of `silu`: x * sigmoid(x)."""
    return _activation("Silu", x)


def _activation(function: str, x):
    if not has_c_type(x):
        return NotImplemented
    x = contiguous(x)
    y = empty(x.shape, x.dtype)
    V, grid, block = flat(x, y)
    kernel = f"activation<{function}, {c_type(x.dtype)}, {V}>"
    launch(FILE, kernel, grid, block, (x, y, np.int64(x.size)))

    def vjp(g):
        if isinstance(g, Deferred):
            if function == "Gelu" and hasattr(g, "times_gelu_slope"):
                return (g.times_gelu_slope(x),)  # a product multiplies by the slope as it writes
            g = g.array()
        g = contiguous(g)
        gx = empty(x.shape, x.dtype)
        V, grid, block = flat(g, x, gx)
        kernel = f"activation_backward<{function}, {c_type(g.dtype)}, {c_type(x.dtype)}, {V}>"
        launch(FILE, kernel, grid, block, (g, x, gx, np.int64(x.size)))
        return (gx,)

    vjp.takes_deferred = True
    return y, vjp


def swiglu(gate, up, *, needs):
    """The body of `swiglu`: silu(gate) * up, for arrays of one shape and dtype."""
    if not has_c_type(gate, up) or gate.shape != up.shape or gate.dtype != up.dtype:
        return NotImplemented
    gate, up = contiguous(gate), contiguous(up)
    y = empty(gate.shape, gate.dtype)
    V, grid, block = flat(gate, up, y)
    kernel = f"swiglu<{c_type(gate.dtype)}, {V}>"
    launch(FILE, kernel, grid, block, (gate, up, y, np.int64(gate.size)))

    def vjp(g):
        g = contiguous(g)
        g_gate, g_up = empty(gate.shape, gate.dtype), empty(gate.shape, gate.dtype)
        V, grid, block = flat(g, gate, up, g_gate, g_up)
        kernel = f"swiglu_backward<{c_type(g.dtype)}, {c_type(gate.dtype)}, {V}>"
        launch(FILE, kernel, grid, block, (g, gate, up, g_gate, g_up, np.int64(gate.size)))
        return g_gate if needs[0] else None, g_up if needs[1] else None

    return y, vjp
