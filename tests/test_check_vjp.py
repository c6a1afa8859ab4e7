"""`check_vjp`: no right gradient is accused, and wrong ones are found, in every dtype."""

import itertools

import mpmath
import numpy as np
import pytest

from tensorlite.testing import CannotTell, WrongGradient, check_vjp, examine_vjp

ml_dtypes = pytest.importorskip("ml_dtypes")
DTYPES = [np.float64, np.float32, np.float16, ml_dtypes.bfloat16]


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def softmax_vjp(g, x):
    s = softmax(x)
    return s * (g - (g * s).sum(-1, keepdims=True))


def standardized(x):
    return (x - x.mean(-1, keepdims=True)) / x.std(-1, keepdims=True)


def standardized_vjp(g, x):
    y = standardized(x)
    inner = g - g.mean(-1, keepdims=True) - y * (g * y).mean(-1, keepdims=True)
    return inner / x.std(-1, keepdims=True)


def total(g, shape):
    """Undo broadcasting to the shape of g."""
    g = g.sum(tuple(range(g.ndim - len(shape))))
    return g.sum(tuple(i for i, n in enumerate(shape) if n == 1), keepdims=True)


FUNCTIONS = {  # value, vjp, kinds of the arguments
    "exp": (np.exp, lambda g, x: g * np.exp(x), "-"),
    "log": (np.log, lambda g, x: g / x, "+"),
    "sqrt": (np.sqrt, lambda g, x: 0.5 * g / np.sqrt(x), "+"),
    "sin": (np.sin, lambda g, x: g * np.cos(x), "-"),
    "tanh": (np.tanh, lambda g, x: g * (1 - np.tanh(x) ** 2), "-"),
    "sigmoid": (sigmoid, lambda g, x: g * sigmoid(x) * (1 - sigmoid(x)), "-"),
    "1/x": (lambda x: 1 / x, lambda g, x: -g / x**2, "+"),
    "abs": (np.abs, lambda g, x: g * np.sign(x), "kink"),
    "relu": (lambda x: np.maximum(x, 0), lambda g, x: g * (x > 0), "kink"),
    "arcsin": (np.arcsin, lambda g, x: g / np.sqrt(1 - x * x), "edge"),
    "mean of squares": (lambda x: np.mean(x * x), lambda g, x: g * 2 * x / x.size, "-"),
    "sum": (lambda x: x.sum(-1), lambda g, x: np.repeat(g[..., None], x.shape[-1], -1), "-"),
    "softmax": (softmax, softmax_vjp, "-"),
    "standardized": (standardized, standardized_vjp, "-"),
    "mul": (lambda x, y: x * y, lambda g, x, y: (g * y, total(g * x, y.shape)), "-b"),
    "div": (lambda x, y: x / y, lambda g, x, y: (g / y, total(-g * x / y**2, y.shape)), "-B"),
    "matmul": (lambda x, y: x @ y.T, lambda g, x, y: (g @ y, g.T @ x), "--"),
}  # fmt: skip

BUGS = {
    "doubled": lambda x: x * 2,
    "negated": lambda x: -x,
    "zeroed": lambda x: x * 0,
    "scaled": lambda x: x * 1.3,
    "one entry": lambda x: x + (np.abs(x) == np.abs(x).max()) * x,
    "shifted": lambda x: np.roll(x, 1) + np.abs(x).max() / 2,
}


def draw(name, dtype, seed):
    """Arguments of one function, of any scale that suits the dtype."""
    rng = np.random.default_rng([seed, *map(ord, name)])
    scale = 10 ** rng.uniform(-3 if np.dtype(dtype).itemsize > 2 else -1, 0.5)
    kinds = FUNCTIONS[name][2]
    for kind in [kinds] if kinds in ("kink", "edge") else kinds:
        shape = (3,) if kind in ("b", "B") or kinds in ("kink", "edge", "+") else (2, 3)
        x = rng.standard_normal(shape) * scale
        if kind in ("+", "B"):
            x = np.abs(x) + 0.1 * scale
        if kind == "edge":
            x = np.clip(x / scale, -0.95, 0.95)
        if kind == "kink":
            x[:2] = 0, 2 * scale
        yield x.astype(dtype)


def in_float32(function, dtype):
    """The function for a narrower dtype: float32 inside, and each result rounded."""
    if dtype in (np.float64, np.float32):
        return function

    def narrow(*args):
        results = function(*(np.asarray(x).astype(np.float32) for x in args))
        if isinstance(results, tuple):
            return tuple(np.asarray(x).astype(dtype) for x in results)
        return np.asarray(results).astype(dtype)

    return narrow


def cases(n):
    """The n first of all functions in all dtypes, over and over."""
    pairs = list(itertools.product(FUNCTIONS, DTYPES))
    return [(*pairs[k % len(pairs)], k // len(pairs)) for k in range(n)]


def test_no_right_gradient_is_accused():
    verdicts = []
    for name, dtype, seed in cases(136):
        value, vjp = (in_float32(f, dtype) for f in FUNCTIONS[name][:2])
        report = examine_vjp(value, vjp, list(draw(name, dtype, seed)))
        assert report.verdict != "wrong" and not report.complaints, f"{name} {dtype}\n{report}"
        verdicts.append(report.verdict)
    assert verdicts.count("cannot tell") <= 0.05 * len(verdicts)


def test_wrong_gradients_are_found():
    missed = []
    for k, (name, dtype, seed) in enumerate(cases(68)):
        bug = list(BUGS)[k % len(BUGS)]

        def wrong(g, *args, bug=bug, vjp=FUNCTIONS[name][1]):
            gradients = vjp(g, *args)
            if isinstance(gradients, tuple):
                return gradients[0], BUGS[bug](gradients[1])
            return BUGS[bug](gradients)

        value = in_float32(FUNCTIONS[name][0], dtype)
        report = examine_vjp(value, in_float32(wrong, dtype), list(draw(name, dtype, seed + 7)))
        if report.verdict != "wrong":
            missed.append(f"{name} {np.dtype(dtype)} {bug}\n{report}")
    assert len(missed) <= 1, "\n".join(missed)
