"""The ways to compute one gradient: in several memory orders, and for some of the inputs only."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

# In each memory order, the gradient of the value is multiplied by another factor, and the results
# are divided by it. This changes nothing, because a vjp is linear, and finds vjps that are not.
FACTORS = {"C": 1.0, "F": -2.0, "strided": 0.5, "reversed": -1.0}
NAMES = {"C": "C order", "F": "Fortran order", "strided": "strided memory",
         "reversed": "reversed memory", "given": "the order given"}  # fmt: skip


class Way(NamedTuple):
    """Which arguments need a gradient, and how arguments and gradients lie in memory."""

    needs: tuple[int, ...]
    orders: dict[int, str]
    g_order: str

    def arranged(self, points: dict) -> dict:
        return {i: arranged(x, self.orders[i]) for i, x in points.items()}

    def __str__(self) -> str:
        orders = {i: NAMES[o] for i, o in self.orders.items() if o != "given"}
        words = [f"argument {i} in {name}" for i, name in orders.items()]
        if self.g_order != "C":
            words.append(f"the gradient of the value in {NAMES[self.g_order]}")
        if len(self.needs) < len(self.orders):
            words.append(f"gradients for argument {', '.join(map(str, self.needs))} alone")
        return "with " + ", ".join(words) if words else ""


def ways_of(points: dict) -> Iterator[Way]:
    """Yield the plain way, then others, except those that are the same as an earlier one."""
    everything, orders = tuple(points), list(FACTORS)
    given = dict.fromkeys(points, "given")
    yield from (Way(everything, given, g_order) for g_order in orders)
    uniform = [dict.fromkeys(points, order) for order in orders]
    mixed = [{i: orders[(k + n) % 4] for n, i in enumerate(points)} for k in (0, 2)]
    seen = {tuple(x.strides for x in points.values())}
    for laid in uniform + mixed:
        way = Way(everything, laid, "C")
        strides = tuple(x.strides for x in way.arranged(points).values())
        if strides not in seen:
            seen.add(strides)
            yield from (way, way._replace(g_order=laid[everything[0]]))
    yield from (Way(needs, given, "C") for needs in subsets(everything))


def subsets(items: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Some of `items`, but neither none nor all: every choice of up to four, otherwise each one
    alone and all but one.
    """
    n = len(items)
    sizes = range(1, n) if n <= 4 else (1, n - 1)
    return itertools.chain(*(itertools.combinations(items, size) for size in sizes))


def arranged(values: np.ndarray, order: str) -> np.ndarray:
    """A copy of `values` in the memory order `order`, a key of `NAMES`."""
    if order == "given" or values.ndim == 0:
        return np.array(values)
    if order == "strided":
        wide = np.zeros((*values.shape[:-1], 2 * values.shape[-1]), values.dtype)
        wide[..., ::2] = values
        return wide[..., ::2]
    if order == "reversed":
        return np.array(values[::-1], order="C")[::-1]
    return np.array(values, order=order)
