"""The quantities and terms that gradients are made of: `g`, `g * value`, `g @ args[1].T`, ...

Each function gives arrays with their names, as one would write them with NumPy.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator

import numpy as np

from .guess import Gradient


def quantities(a: Gradient, shape) -> list[tuple[str, np.ndarray]]:
    """g, the value and the arguments with their names, each broadcast to `shape` if it can be.

    A quantity that lacks an axis, because it was summed away, gets it back.
    """
    named = [("g", a.g), ("value", a.value)]
    named += [(f"args[{i}]", x) for i, x in enumerate(a.args) if x is not None]
    named.append(("exp(value)", np.exp(a.value)))
    return [(name, y) for name, x in named if (y := aligned(x, shape)) is not None]


def aligned(x, shape) -> np.ndarray | None:
    places = [None, *range(-len(shape), 0)] if x.ndim == len(shape) - 1 else [None]
    for place in places:
        try:
            return np.broadcast_to(x if place is None else np.expand_dims(x, place), shape)
        except ValueError:
            continue
    return None


def summed_to(x, shape) -> np.ndarray | None:
    """The sum over the axes to which an argument of `shape` is broadcast."""
    try:
        if np.broadcast_shapes(x.shape, shape) != x.shape:
            return None
    except ValueError:
        return None
    x = x.sum(tuple(range(x.ndim - len(shape))))
    axes = tuple(i for i, n in enumerate(shape) if n == 1 and x.shape[i] != 1)
    return x.sum(axes, keepdims=True)


def monomials(a: Gradient, shape) -> list[tuple[str, np.ndarray]]:
    """g times up to two of the other quantities, or divided by one, in `shape`."""
    g, others = None, {}
    for name, x in quantities(a, shape):
        if name == "g":
            g = x
        else:
            others[name] = x
    if g is None:
        return []
    found = [("g", g)] + [(f"g * {name}", g * x) for name, x in others.items()]
    found += [(f"g / {name}", g / x) for name, x in others.items()]
    for (n, x), (m, y) in itertools.combinations_with_replacement(others.items(), 2):
        found.append((f"g * {n} * {m}", g * x * y))
        if n != m:
            found += [(f"g * {n} / {m}", g * x / y), (f"g * {m} / {n}", g * y / x)]
    return found


def terms(a: Gradient) -> Iterator[tuple[str, np.ndarray]]:
    """Arrays of the argument's shape that a gradient may be a sum of, the shortest first."""
    shape, full = a.got.shape, a.value.shape
    mine = monomials(a, shape)
    yield from mine
    if full != shape:
        for name, x in monomials(a, full):
            if (total := summed_to(x, shape)) is not None:
                yield f"sum({name})", total
    yield from matrix_products(a)
    for ids in a.integers:
        for axis in range(len(shape)):
            if ids.shape == shape[:axis] + shape[axis + 1 :] and ids.size:
                hot = _one_hot(ids, shape, axis)
                yield "the one-hot array of the indices", hot
                if (g := aligned(a.g, shape)) is not None:
                    yield "g * the one-hot array of the indices", g * hot
    plain = [(n, x) for n, x in quantities(a, shape) if n != "g"]
    yield from plain
    yield "1", np.ones(shape)
    for name, x in mine[: 1 + len(plain)]:
        for axis in (*range(len(shape)), None):
            total = np.broadcast_to(x.sum(axis, keepdims=True), shape)
            what = f"sum({name})" if axis is None else f"sum({name}, axis={axis})"
            yield what, total
            yield from ((f"{what} * {n}", total * y) for n, y in plain)


def _one_hot(ids, shape, axis: int) -> np.ndarray:
    places = np.arange(shape[axis]).reshape([-1 if i == axis else 1 for i in range(len(shape))])
    return (places == np.expand_dims(ids, axis)).astype(np.float64)


def matrix_products(a: Gradient) -> list[tuple[str, np.ndarray]]:
    """Products of g with an argument, all in the argument's shape: `g @ args[1].T`, ..."""
    products = batched_products(a)
    summed = [(name, summed_to(product, a.got.shape)) for name, product in products]
    return [(name, product) for name, product in summed if product is not None]


def batched_products(a: Gradient) -> list[tuple[str, np.ndarray]]:
    """The same before the axes of a batch are summed."""
    if a.got.ndim < 2 or a.g is None or a.g.ndim < 2:
        return []
    found = []
    for i, x in enumerate(a.args):
        if x is None or x.ndim < 2:
            continue
        factors = [("g", a.g), (f"args[{i}]", x)]
        for first, second in (factors, factors[::-1]):
            for (n, p), (m, q) in itertools.product(_both(*first), _both(*second)):
                if p.shape[-1] != q.shape[-2] or (p.shape[-2], q.shape[-1]) != a.got.shape[-2:]:
                    continue
                with contextlib.suppress(ValueError):  # the axes in front do not broadcast
                    found.append((f"{n} @ {m}", p @ q))
    return found


def _both(name, x) -> list:
    return [(name, x), (f"{name}.T", np.swapaxes(x, -1, -2))]


def factors(a: Gradient) -> Iterator[tuple[str, np.ndarray]]:
    for name, q in quantities(a, a.got.shape):
        yield from ((name, q), (f"1 / {name}", 1 / q), (f"{name}**2", q * q))
        yield from ((f"(1 - {name})", 1 - q), (f"(1 + {name})", 1 + q))
        yield f"1 / {name}**2", 1 / q**2
        for sign, word in ((-1, "-"), (1, "+")):
            s = 1 + sign * q * q
            yield from ((f"(1 {word} {name}**2)", s), (f"1 / (1 {word} {name}**2)", 1 / s))
            root = np.sqrt(s)
            yield f"sqrt(1 {word} {name}**2)", root
            yield f"1 / sqrt(1 {word} {name}**2)", 1 / root
        yield from ((f"{name} * (1 - {name})", q * (1 - q)), (f"exp({name})", np.exp(q)))
        yield from ((f"cos({name})", np.cos(q)), (f"sin({name})", np.sin(q)))
        yield from ((f"exp(-{name})", np.exp(-q)), (f"sqrt({name})", np.sqrt(q)))
        yield f"1 / sqrt({name})", 1 / np.sqrt(q)
