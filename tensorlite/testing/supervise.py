"""What a vjp of an operation may not do: write into what it is given, or break its promises."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import numpy as np

from ..graph import Node
from ..tensor import Tensor
from .report import misconduct
from .ways import arranged


@contextlib.contextmanager
def supervised(value: Tensor, g_order: str) -> Iterator[None]:
    """A block in which the vjps below `value` are watched, and given gradients in memory order
    `g_order`.
    """
    vjps = {node: node.vjps for node in nodes_of(value)}
    for node in vjps:
        node.vjps = _watched(node, node.vjps, g_order)
    try:
        yield
    finally:
        for node in vjps:  # restored, because the graph may be used again
            node.vjps = vjps[node]


def _watched(node: Node, vjps, g_order: str) -> Callable:
    """The vjps of a node as one function, which raises WrongGradient if they break a rule."""

    def call(g):
        try:
            if callable(vjps):
                return vjps(g)
            return [None if p is None else vjp(g) for p, vjp in zip(node.parents, vjps)]
        except ValueError as error:
            if "read-only" not in str(error):
                raise
            raise misconduct(
                f"a vjp of '{node.op}' writes into an array that is not its own, either the "
                f"gradient that it is given or one that the forward pass keeps: copy it first "
                f"({error})"
            ) from error

    def watched(g):
        g = arranged(np.asarray(g), g_order)
        g.flags.writeable = False
        before = g.copy()
        gradients = call(g)
        if not np.array_equal(g, before, equal_nan=True):
            raise misconduct(f"a vjp of '{node.op}' changes the gradient that it is given")
        if node.fresh:
            _check_fresh(node, g, gradients, call(g))
        return gradients

    return watched


def _check_fresh(node: Node, g, *calls) -> None:
    """Raise WrongGradient unless the vjps of an operation declared `fresh` return new arrays.

    `calls` are the results of two calls. An array that is kept somewhere would be in both.
    """
    others = [g]
    for i, new in ((i, new) for gradients in calls for i, new in enumerate(gradients)):
        if not isinstance(new, np.ndarray) or not new.size:  # only arrays are added to in place
            continue
        if not new.flags.writeable or any(np.shares_memory(new, other) for other in others):
            raise misconduct(
                f"'{node.op}' is declared fresh=True, but its gradient for input {i} shares memory "
                "with the gradient that the vjp was given, with another gradient, or with an array "
                "that is kept, which the engine would add to in place: copy it, or leave fresh out"
            )
        others.append(new)


def nodes_of(value: Tensor) -> list[Node]:
    """All nodes that `value` was computed by, except those that were freed."""
    found, stack = {}, [value.node]
    while stack:
        node = stack.pop()
        if isinstance(node, Node) and node.vjps is not None and node not in found:
            found[node] = None
            stack.extend(node.parents)
    return list(found)
