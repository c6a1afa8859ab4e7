"""Measures the largest error of every function, in units in the last place, ours and PyTorch's.

    python benchmarks/ulps.py [NAME ...] [--points N]     needs mpmath; uses PyTorch if installed

Compares the value and the first derivative of the elementwise functions, and of the functions that
normalise a row, with mpmath at 60 digits, at points drawn from their whole range. One unit in the
last place is the distance between the neighbouring floats around the exact result. Where the exact
derivative is a sum of terms that cancel, as for GELU near its minimum, the unit is that of the
largest term.

The output is a table in Markdown; docs/accuracy.md contains it and explains how to read it.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from typing import NamedTuple

import mpmath
import numpy as np
from mpmath import mp

import tensorlite as tl

try:
    import torch
except ImportError:
    torch = None

mp.dps = 60
DTYPES = np.float32, np.float64


def error(got, terms: list, dtype, sizes=()) -> float:
    """The distance of `got` from the sum of `terms`, in units in the last place of `dtype`.

    The unit is that of the largest number among the terms and `sizes`. Below the smallest normal
    number, where floats are equally spaced, it is their spacing. If the sum is too large for the
    dtype, `got` must be infinite: the error is then 0, otherwise infinite.
    """
    info, total = np.finfo(dtype), mp.fsum(terms)
    if abs(total) >= mpmath.mpf(float(info.max)) * (1 + mpmath.mpf(float(info.eps)) / 4):
        return 0.0 if np.isinf(got) else float("inf")
    if not np.isfinite(got):
        return float("inf")
    exponent = mp.frexp(max(map(abs, (*terms, *sizes))))[1] - 1
    unit = mp.ldexp(1, max(exponent, int(info.minexp)) - int(info.nmant))
    return float(abs(mpmath.mpf(float(got)) - total) / unit)


# =================================================================================================
# Elementwise functions
# =================================================================================================


class Function(NamedTuple):
    """One row of the table: the function, its exact value and derivative, and the range of x."""

    ours: Callable  # takes a tensor
    theirs: Callable | None  # takes a tensor of PyTorch
    value: Callable  # takes an mpf; returns the exact value
    terms: Callable  # takes an mpf; returns numbers whose sum is the exact derivative
    reach: Callable  # takes L, the logarithm of the largest float; returns the range of x


def logistic(x):
    return 1 / (1 + mp.exp(-x))


C, A = mp.sqrt(2 / mp.pi), mp.mpf(0.044715)  # the engine's constant as it is in float64


def gelu_tanh(x):
    """The terms of the derivative of GPT-2's GELU, which is x p with p = logistic(w)."""
    w, slope = 2 * C * (x + A * x**3), 2 * C * (1 + 3 * A * x**2)
    return logistic(w), x * logistic(w) * logistic(-w) * slope


def _theirs(name: str, *args, **static):
    if torch is None:
        return None
    function = getattr(torch, name, None) or getattr(torch.nn.functional, name)
    return lambda x: function(x, *args, **static)


def everywhere(low, high):
    return lambda L: (low * L, high * L)


def _power(y):
    exact = mp.mpf(y)
    return Function(
        lambda x: x**y,
        _theirs("pow", y),
        lambda x: x**exact,
        lambda x: [exact * x ** (exact - 1)],
        lambda L: (0, mp.exp(L)),
    )


def _simple(name: str, value, derivative, reach) -> Function:
    return Function(tl.OPS[name], _theirs(name), value, lambda x: [derivative(x)], reach)


WHOLE = everywhere(-1.3, 1.3)
LARGE = lambda L: (-mp.exp(L), mp.exp(L))  # noqa: E731
POSITIVE = lambda L: (0, mp.exp(L))  # noqa: E731
BELL = lambda L: (-1.6 * L**0.5, 1.6 * L**0.5)  # noqa: E731

FUNCTIONS = {
    "exp": _simple("exp", mp.exp, mp.exp, WHOLE),
    "log": _simple("log", mp.log, lambda x: 1 / x, POSITIVE),
    "sqrt": _simple("sqrt", mp.sqrt, lambda x: 1 / (2 * mp.sqrt(x)), POSITIVE),
    "rsqrt": _simple("rsqrt", lambda x: x**-0.5, lambda x: -(x**-0.5) / x / 2, POSITIVE),
    "sin": _simple("sin", mp.sin, mp.cos, LARGE),
    "cos": _simple("cos", mp.cos, lambda x: -mp.sin(x), LARGE),
    "tanh": _simple("tanh", mp.tanh, lambda x: mp.sech(x) ** 2, WHOLE),
    "sigmoid": _simple("sigmoid", logistic, lambda x: logistic(x) * logistic(-x), WHOLE),
    "erf": _simple("erf", mp.erf, lambda x: 2 / mp.sqrt(mp.pi) * mp.exp(-x * x), BELL),
    "power 3": _power(3),
    "power 0.5": _power(0.5),
    "power -1.5": _power(-1.5),
    "1 / x": Function(
        lambda x: 1 / x, lambda x: 1 / x, lambda x: 1 / x, lambda x: [-1 / x**2], LARGE
    ),
    "2 ** x": Function(
        lambda x: 2.0**x,
        lambda x: 2.0**x,
        lambda x: mp.mpf(2) ** x,
        lambda x: [mp.mpf(2) ** x * mp.log(2)],
        WHOLE,
    ),
    "silu": Function(
        tl.silu,
        _theirs("silu"),
        lambda x: x * logistic(x),
        lambda x: [logistic(x), x * logistic(x) * logistic(-x)],
        WHOLE,
    ),
    "gelu none": Function(
        lambda x: tl.gelu(x, approximate="none"),
        _theirs("gelu"),
        lambda x: x * mp.ncdf(x),
        lambda x: [mp.ncdf(x), x * mp.npdf(x)],
        BELL,
    ),
    "gelu tanh": Function(
        tl.gelu,
        _theirs("gelu", approximate="tanh"),
        lambda x: x * gelu_tanh(x)[0],
        gelu_tanh,
        BELL,
    ),
}


def draw(reach, dtype, n: int, rng) -> np.ndarray:
    """Random points: uniform in the whole range, of every order of magnitude, and in [-4, 4]."""
    info = np.finfo(dtype)
    low, high = map(float, reach(mp.log(mpmath.mpf(float(info.max)))))
    low, high = max(low, float(info.min)), min(high, float(info.max))
    even = np.clip(rng.random(n) * 2 - 1, -1, 1) * (high / 2 - low / 2) + (high / 2 + low / 2)
    smallest = np.log(float(info.smallest_subnormal))
    sizes = np.exp(rng.uniform(smallest, np.log(max(-low, high)), n))
    near = rng.uniform(-4, 4, n)
    signs = rng.choice([-1, 1], n) if low < 0 else np.ones(n)
    x = np.concatenate([even, signs * sizes, near if low < 0 else np.abs(near)]).astype(dtype)
    x = np.clip(x, dtype(low), dtype(high))
    return x[x != 0]


def with_gradient(function, x, g):
    """(the value of our function at x, the gradient for x); g(value) is the value's gradient."""
    x = tl.tensor(x, requires_grad=True)
    y = function(x)
    return y.data, tl.grad(y, x, gradient=g(y.data))[0].data


def with_their_gradient(function, x, g):
    x = torch.from_numpy(x).requires_grad_()
    y = function(x)
    y.backward(torch.from_numpy(g(y.detach().numpy())))
    return y.detach().numpy(), x.grad.numpy()


def measure(name: str, dtype, n: int, theirs: bool = False) -> tuple[np.ndarray, list, list]:
    """(points, the errors of the value at them, the errors of the derivative at them)."""
    function = FUNCTIONS[name]
    x = draw(function.reach, dtype, n, np.random.default_rng(0))
    run, f = (with_their_gradient, function.theirs) if theirs else (with_gradient, function.ours)
    values, slopes = run(f, x, np.ones_like)
    exact = [mpmath.mpf(float(a)) for a in x]
    return (
        x,
        [error(v, [function.value(a)], dtype) for v, a in zip(values, exact)],
        [error(s, list(function.terms(a)), dtype) for s, a in zip(slopes, exact)],
    )


# =================================================================================================
# Functions of a row
# =================================================================================================


class Normaliser(NamedTuple):
    """The same as `Function`, for functions of a row."""

    ours: Callable
    theirs: Callable | None
    # Takes a row x, the gradient g of its values, and the target; returns the arguments `terms` and
    # `sizes` of `error`, for each value and for each element of the gradient.
    exact: Callable


def _probabilities(x) -> tuple[list, list]:
    """The softmax of a row of mpf, and 1 minus each of its elements."""
    e = [mp.exp(a - max(x)) for a in x]
    total = mp.fsum(e)
    return [a / total for a in e], [mp.fsum(e[:i] + e[i + 1 :]) / total for i in range(len(e))]


def _log(p, rest):
    return mp.log1p(-rest) if rest < 0.5 else mp.log(p)


def _without(terms: list, i: int) -> list:
    return terms[:i] + terms[i + 1 :]


def _softmax(x, g, _):
    p, rest = _probabilities(x)
    gradients = []
    for i in range(len(x)):
        others = _without([-p[i] * a * b for a, b in zip(p, g)], i)
        gradients.append(([p[i] * rest[i] * g[i], *others], [mp.fsum(map(abs, others))]))
    return [([a], ()) for a in p], gradients


def _log_softmax(x, g, _):
    p, rest = _probabilities(x)
    gradients = []
    for i in range(len(x)):
        others = _without([-p[i] * a for a in g], i)
        gradients.append(([rest[i] * g[i], *others], [mp.fsum(map(abs, others))]))
    return [([_log(a, r)], ()) for a, r in zip(p, rest)], gradients


def _logsumexp(x, g, _):
    p, rest = _probabilities(x)
    top = max(x)
    return [([top, -mp.log1p(-rest[x.index(top)])], ())], [([a * g[0]], ()) for a in p]


def _cross_entropy(x, g, target):
    p, rest = _probabilities(x)
    gradients = [([a * g[0]], ()) for a in p]
    gradients[target] = ([-rest[target] * g[0]], ())
    return [([-_log(p[target], rest[target])], ())], gradients


def _ours_of_targets(x):
    return tl.cross_entropy(x, np.arange(x.shape[0]) % x.shape[1], reduction="none")


def _theirs_of_targets(x):
    targets = torch.arange(x.shape[0]) % x.shape[1]
    return torch.nn.functional.cross_entropy(x, targets, reduction="none")


NORMALISERS = {
    "softmax": Normaliser(tl.softmax, _theirs("softmax", -1), _softmax),
    "log_softmax": Normaliser(tl.log_softmax, _theirs("log_softmax", -1), _log_softmax),
    "logsumexp": Normaliser(
        lambda x: tl.logsumexp(x, axis=-1), _theirs("logsumexp", -1), _logsumexp
    ),
    "cross_entropy": Normaliser(_ours_of_targets, _theirs_of_targets, _cross_entropy),
}

# The kinds of rows. For each, several pairs (scale of the numbers, number added to all of them).
ROWS = {
    "": [(0.1, 0), (1, 0), (3, 0), (10, 0)],
    ", one dominates": [(1, "top"), (5, "top")],
    ", any numbers": [(30, 0), (100, 0), (3, 100), (3, -100)],
}


def draw_rows(scale, shift, dtype, n: int, rng) -> np.ndarray:
    x = rng.standard_normal((n, 9)) * scale
    if shift == "top":  # the row's target is the largest, by a lead of any size
        lead = rng.uniform(0, 20 if dtype == np.float32 else 45, n)
        i = np.arange(n)
        x[i, i % 9] = 0
        x -= np.max(x, axis=1, keepdims=True)
        x -= lead[:, None]
        x[i, i % 9] = rng.uniform(0, 5, n)
        return x.astype(dtype)
    if not shift and scale <= 10:  # keeps the rows for which exp needs no shift
        x = x[(x.max(axis=1) > 0) & (x.max(axis=1) < 30)]
    return (x + shift).astype(dtype)


def measure_rows(name: str, kind: str, dtype, n: int, theirs: bool = False):
    """(each number's distance from the largest of its row, errors of values, of derivatives)."""
    function, rng = NORMALISERS[name], np.random.default_rng(0)
    run, f = (with_their_gradient, function.theirs) if theirs else (with_gradient, function.ours)
    values, slopes, below = [], [], []
    for scale, shift in ROWS[kind]:
        x = draw_rows(scale, shift, dtype, n, rng)
        drawn = {}

        def g(y, drawn=drawn):
            drawn["g"] = rng.standard_normal(y.shape).astype(dtype)
            return drawn["g"]

        y, gx = (np.reshape(a, (len(x), -1)) for a in run(f, x, g))
        gs = np.reshape(drawn["g"], y.shape)
        for i, row in enumerate(x):
            numbers = [[mpmath.mpf(float(a)) for a in part] for part in (row, gs[i])]
            exact, exact_gradients = function.exact(*numbers, i % len(row))
            values.append([error(a, t, dtype, sizes) for a, (t, sizes) in zip(y[i], exact)])
            slopes.append(
                [error(a, t, dtype, sizes) for a, (t, sizes) in zip(gx[i], exact_gradients)]
            )
            below.append(np.max(row) - row)
    return below, values, slopes


# =================================================================================================
# The table
# =================================================================================================


def rows_of_the_table(names: list[str], n: int):
    for name in FUNCTIONS:
        if not names or name.split()[0] in names or name in names:
            yield name, lambda dtype, theirs, name=name: measure(name, dtype, n, theirs)[1:]
    for name in NORMALISERS:
        for kind in ROWS:
            if not names or name in names:
                yield (
                    name + kind,
                    lambda dtype, theirs, name=name, kind=kind: measure_rows(
                        name, kind, dtype, n // 10, theirs
                    )[1:],
                )


def text(worst: float) -> str:
    return f"{worst:.1f}" if worst < 100 else f"{worst:.0e}".replace("e+0", "e") + ""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="functions (all)")
    parser.add_argument("--points", type=int, default=1000, help="points of each kind (1000)")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    print("| | float32: value | PyTorch | derivative | PyTorch ", end="")
    print("| float64: value | PyTorch | derivative | PyTorch |")
    print("|---" * 9 + "|")
    with np.errstate(all="ignore"):
        for label, run in rows_of_the_table(options.names, options.points):
            cells = []
            for dtype in DTYPES:
                ours = [np.max(e) for e in run(dtype, False)]
                theirs = [np.max(e) for e in run(dtype, True)] if torch else ["", ""]
                cells += [ours[0], theirs[0], ours[1], theirs[1]]
            shown = (c if c == "" else text(c) for c in cells)
            print(f"| {label} | {' | '.join(shown)} |", flush=True)


if __name__ == "__main__":
    main()
