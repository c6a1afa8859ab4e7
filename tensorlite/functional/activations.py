"""GELU, SiLU, SwiGLU, squared ReLU and a soft cap, which are applied to each element."""

from __future__ import annotations

import math

import numpy as np

from ..device import row_blocks
from ..erf import erf, erfcx, exp_minus_square
from ..op import op
from ..ops import relu, sigmoid, tanh
from ..threads import in_threads
from .rows import as_rows

_C = math.sqrt(2 / math.pi)  # Python floats: a NumPy scalar would turn float32 into float64
_A = 0.044715


def gelu_composed(x, approximate="tanh"):
    if approximate == "none":
        return x * (1 + erf(x * math.sqrt(0.5))) * 0.5
    # The paper has (1 + tanh(u)) / 2, which is sigmoid(2 u).
    return x * sigmoid(2 * _C * (x + _A * x * x * x))


@op(composed=gelu_composed, fresh=True, gpu="activations")
def gelu(x, *, approximate="tanh", needs):
    """The Gaussian error linear unit: x times the standard normal distribution function of x.

    `approximate` is "tanh" for the form that GPT-2 uses, or "none" for the exact one; anything else
    raises ValueError. The derivative is computed together with the value, with which it shares most
    of the work, and kept for the backward pass instead of x. Hendrycks and Gimpel, 2016.
    """
    if approximate not in ("tanh", "none"):
        raise ValueError(f"approximate is 'tanh' or 'none', not {approximate!r}")
    x2 = as_rows(x)
    y = np.empty_like(x2)
    slope = np.empty_like(x2) if needs[0] else None

    def fill(block):
        xb, yb, sb = x2[block], y[block], slope[block] if needs[0] else None
        if approximate == "none":
            _gelu_exact(xb, yb, sb)
            return
        # y = x p with p = sigmoid(w) and w = 2 C (x + A x^3): y' = p + x p (1 - p) w'
        inner = np.clip(xb, -40, 9)  # p is 0 or 1 outside this range, and exp must not overflow
        square = np.multiply(inner, inner, out=sb)
        p = square * (2 * _A * _C)
        p += 2 * _C
        p *= inner  # w
        np.exp(p, out=p)
        rest = np.add(1, p, out=yb)
        np.divide(1, rest, out=rest)  # 1 - p, exact also where p is rounded to 1
        p *= rest
        if needs[0]:
            sb *= 6 * _A * _C
            sb += 2 * _C  # w'
            sb *= rest
            sb *= p
            sb *= inner
            sb += p
        np.multiply(xb, p, out=yb)

    in_threads(fill, row_blocks(x2), x2)
    return np.reshape(y, x.shape), lambda g: (np.reshape(as_rows(g) * slope, g.shape),)


def _gelu_exact(x, y, slope):
    """Write x times the normal distribution function of x to `y`, and its derivative to `slope`.

    The distribution function of -|x| is half * bell with bell = exp(-x^2 / 2). x multiplies `half`
    first, because half * bell may be so small that it is stored with fewer digits.
    """
    inner = np.clip(x, -50, 50)  # bell is 0 outside this range
    bell = exp_minus_square(inner, 0.5)
    half = 0.5 * erfcx(np.abs(inner) * math.sqrt(0.5))
    half = np.where(x < 0, half, -half)  # for x >= 0 the function is 1 - half * bell
    np.multiply(inner * half, bell, out=y)
    y += np.maximum(x, 0)
    if slope is not None:  # the distribution function, and x times the density
        np.multiply(half + inner * (1 / math.sqrt(2 * math.pi)), bell, out=slope)
        slope += x >= 0


def silu_composed(x):
    return x * sigmoid(x)


@op(composed=silu_composed, fresh=True, gpu="activations")
def silu(x, *, needs):
    """x * sigmoid(x), also called swish (Elfwing et al., 2017)."""
    x2 = as_rows(x)
    y = np.empty_like(x2)
    slope = np.empty_like(x2) if needs[0] else None
    for block in row_blocks(x2):
        xb = x2[block]
        e = np.exp(-np.abs(xb))
        high = 1 / (1 + e)  # sigmoid(|x|)
        e *= high  # sigmoid(-|x|), which is 1 minus it
        # The next two lines compute p = np.where(x < 0, e, high), several times as fast: clipping
        # x * 1e16 to [e, high] chooses by sign, and where |x| < 1e-16, e and high are equal.
        p = xb * 1e16
        p = np.minimum(np.maximum(p, e, out=p), high, out=p)
        np.multiply(xb, p, out=y[block])
        if needs[0]:  # y' = p + x p (1 - p)
            e *= high
            np.multiply(xb, e, out=slope[block])
            slope[block] += p

    return np.reshape(y, x.shape), lambda g: (np.reshape(as_rows(g) * slope, g.shape),)


def swiglu_composed(gate, up):
    return silu(gate) * up


@op(composed=swiglu_composed, fresh=True, gpu="activations")
def swiglu(gate, up, *, needs):
    """silu(gate) * up, the gated activation of Llama's MLP (Shazeer, 2020)."""
    if gate.shape != up.shape:
        raise ValueError(f"swiglu: the gate {gate.shape} and what it gates {up.shape} differ")
    opened, gate_vjp = silu.body(gate, needs=(needs[0],))  # how far the gate is open
    y = opened * up
    up = up if needs[0] else None

    def vjp(g):
        return gate_vjp(g * up)[0] if needs[0] else None, g * opened if needs[1] else None

    return y, vjp


def relu2_composed(x):
    y = relu(x)
    return y * y


@op(composed=relu2_composed, fresh=True)
def relu2(x, *, needs):
    """Squared ReLU: the square of x where x is positive, else 0 (So et al., 2021).

    The slope, 2 x or 0, is computed together with the value, and kept instead of x.
    """
    x2 = as_rows(x)
    y = np.empty_like(x2)
    slope = np.empty_like(x2) if needs[0] else None
    zeros = np.zeros_like(x2, shape=x2.shape[1:])  # NumPy compares with an array 3 times as fast

    def fill(block):
        yb = np.maximum(x2[block], zeros, out=y[block])
        if needs[0]:
            np.add(yb, yb, out=slope[block])
        yb *= yb

    in_threads(fill, row_blocks(x2), x2)
    return np.reshape(y, x.shape), lambda g: (np.reshape(as_rows(g) * slope, g.shape),)


def soft_cap(x, cap: float):
    """cap * tanh(x / cap): about x where x is small, and always between -cap and cap.

    Bello et al., 2017; for logits, Gemma 2, 2024. Raises ValueError for a cap that is not a
    positive number.
    """
    check_cap(cap)
    return tanh(x / cap) * cap


def check_cap(cap: float) -> None:
    """Raise ValueError for a soft cap that is not a positive number."""
    if not 0 < cap < math.inf:
        raise ValueError(f"a soft cap is a positive number, not {cap!r}")
