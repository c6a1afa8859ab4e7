"""The cases of benchmarks/gradient_checkers.py: planted bugs, and right gradients to be drawn."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from benchmarks.gradients.bugs import BUGS
from benchmarks.gradients.table import FUNCTIONS, Function


class Case(NamedTuple):
    """A function with a vjp, as in functions.py, in one framework and one dtype."""

    group: str  # the kind of the bug, or what is special about a right gradient
    name: str
    value: Callable
    vjp: Callable
    args: list
    framework: str = "n"  # NumPy; or "t", PyTorch; or "j", JAX
    dtype: str = "float64"


def dtype_of(case: Case) -> np.dtype:
    if case.dtype == "bfloat16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(case.dtype)


def arguments(case: Case) -> list[np.ndarray]:
    """The arguments as NumPy arrays, those of floating point in the case's dtype."""
    return [x.astype(dtype_of(case)) if is_float(x) else x for x in map(np.array, case.args)]


def is_float(x) -> bool:
    return np.asarray(x).dtype.kind not in "iub"


def in_numpy(case: Case) -> tuple[Callable, Callable]:
    """(value, vjp) of a case that is computed by NumPy."""
    dtype = dtype_of(case)

    def wide(x):
        """bfloat16 is computed in float32, as kernels do it."""
        return x.astype(np.float32) if case.dtype == "bfloat16" and is_float(x) else x

    def value(*args):
        return np.asarray(case.value(np, *map(wide, args)), dtype)

    if "needs" in inspect.signature(case.vjp).parameters:

        def vjp(g, *args, needs=None):
            return case.vjp(np, g, *args, needs=needs)
    else:

        def vjp(g, *args):
            gs = case.vjp(np, wide(g), *map(wide, args))
            return tuple(None if x is None else np.asarray(x, dtype) for x in gs)

    return value, vjp


def planted(per_kind: int = 20, dtype: str = "float64", lists: dict = BUGS) -> Iterator[Case]:
    """`per_kind` bugs of each kind: each in one framework, then again in another."""
    for kind, bugs in lists.items():
        found = []
        for turn in range(3):
            for n, bug in enumerate(bugs):
                if turn < len(bug.frameworks):
                    framework = bug.frameworks[(n + turn) % len(bug.frameworks)]
                    found.append((n, turn, bug, framework))
        for n, turn, bug, framework in found[:per_kind]:
            right = FUNCTIONS[bug.function]
            args = right.draw(np.random.default_rng(100 * n + turn))
            yield Case(
                kind, bug.function, bug.value or right.value, bug.vjp, args, framework, dtype
            )


# =================================================================================================
# Right gradients
# =================================================================================================


def drawn(n: int, seed: int = 0) -> Iterator[Case]:
    """n right gradients of six groups, in the three frameworks in turn."""
    shares = {"ordinary": 20, "kinks": 20, "scales": 20, "edges": 15, "float32": 15, "bfloat16": 10}
    for group, share in shares.items():
        names = {"kinks": KINKS, "scales": SCALED, "edges": EDGES}.get(group, list(FUNCTIONS))
        names = list(names)
        for i in range(n * share // 100):
            rng = np.random.default_rng([seed, i, len(group), share])
            name = names[i % len(names)]
            function = FUNCTIONS[name]
            args = DRAWS.get(group, _ordinary)(rng, name, function)
            dtype = group if group in ("float32", "bfloat16") else "float64"
            framework = "ntj"[i // len(names) % 3]
            yield Case(group, name, function.value, function.vjp, args, framework, dtype)


def _ordinary(rng, name: str, function: Function) -> list:
    return function.draw(rng)


KINKS = ["relu", "leaky_relu", "absolute", "clip", "soft_threshold", "maximum", "largest"]


def _at_kinks(rng, name: str, function: Function) -> list:
    """About half of the entries at a kink, or 1e-12 to 0.01 from it."""
    x, *rest = function.draw(rng)
    if name == "maximum":
        place = rest[0]
    elif name == "largest":
        place = np.broadcast_to(x.max(-1, keepdims=True), x.shape)
    else:
        place = np.sign(x) * (name in ("clip", "soft_threshold"))
    near = 10 ** rng.uniform(-12, -2, x.shape) * rng.choice([-1, 0, 1], x.shape)
    if name == "largest":
        near = -np.abs(near)
    return [np.where(rng.random(x.shape) < 0.5, place + near, x), *rest]


SCALED = [
    "mul", "div", "affine", "square", "hypot", "relu", "absolute", "norm", "normalize", "variance",
    "average", "cumsum", "diff", "cosine", "matmul", "linear", "gram", "bilinear", "outer",
    "squared_distances", "layer_norm", "rms_norm", "merge_heads", "conv1d", "log", "sqrt",
]  # fmt: skip


def _scaled(rng, name: str, function: Function) -> list:
    """All arguments multiplied by one number from 1e-12 to 1e12, and by one of their own."""
    scale = 10 ** rng.uniform(-12, 12)
    return [x * scale * 10 ** rng.uniform(-1, 1) for x in function.draw(rng)]


EDGES = ["log", "sqrt", "arcsin", "arctanh", "log1p", "arccosh", "power", "norm", "hypot", "div"]


def _at_edges(rng, name: str, function: Function) -> list:
    """Numbers 1e-9 to 0.01 from the edge of the domain."""
    x, *rest = function.draw(rng)
    near = 10 ** rng.uniform(-9, -2, x.shape)
    if name in ("arcsin", "arctanh"):
        return [np.sign(x) * (1 - near)]
    if name == "log1p":
        return [near - 1]
    if name == "arccosh":
        return [1 + near]
    if name == "div":
        return [x, 10 ** rng.uniform(-9, -2, rest[0].shape)]
    return [near, *rest]


DRAWS = {"kinks": _at_kinks, "scales": _scaled, "edges": _at_edges}
