"""The graph that operations leave behind: its nodes, and walks over them.

A node is not a tensor: a value that no vjp captured dies during the forward pass.
"""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np

from .protect import captured, protect, release


class Node:
    """One recorded operation: what it was computed from, and how gradients flow back there.

    `parents` has one entry per input: the Node that made it, the leaf Tensor that it is, or None
    where no gradient is needed. `vjps` is one function per input, or a single function that gives
    all gradients as a tuple. `serial` counts nodes as they are made; since a node is always made
    after its parents, descending serial numbers are a topological order. `call` is the operation
    with its arguments, kept for `higher_order`; `origin` the user's line, for `detect_anomaly`;
    `fresh` says what the operation promises of its gradients (`op`).
    """

    __slots__ = (
        "serial", "op", "parents", "vjps", "shape", "dtype", "protected", "call", "origin", "fresh"
    )  # fmt: skip

    def __init__(
        self, op: str, parents: list, vjps, value, inputs, call=None, origin="", fresh=False
    ):
        self.protected = ()  # first, for __del__ finds it even if this is interrupted
        self.serial = next_serial()
        self.op = op
        self.parents = parents
        self.vjps = vjps
        self.shape = value.shape
        self.dtype = value.dtype
        self.call = call
        self.origin = origin
        self.fresh = fresh
        needed = captured(vjps)
        if call is not None:  # what is computed again needs the operands, captured or not
            needed += [x for x in (*inputs, *call[2].values()) if isinstance(x, np.ndarray)]
        if needed:
            self.protected = protect(needed, (value, *inputs))

    def check_alive(self) -> None:
        if self.vjps is None:
            raise RuntimeError(
                f"the graph of this '{self.op}' was freed by an earlier backward (or one that "
                "failed); to go through it again, pass retain_graph=True to the earlier one"
            )

    def free(self) -> None:
        """Let go of the parents and of every array the vjps captured."""
        self.parents, self.vjps, self.call = (), None, None
        protected, self.protected = self.protected, ()
        if protected:
            release(protected)

    def __del__(self):
        if self.protected:
            release(self.protected)

    def __reduce__(self):
        raise TypeError("a graph is not copied or pickled; .detach() the tensor first")


next_serial = itertools.count().__next__


def count_uses(root) -> Counter:
    """How many inputs of the nodes below `root` each leaf is."""
    uses, stack, seen = Counter(), [root], set()
    while stack:
        node = stack.pop()
        if isinstance(node, Node):
            if node not in seen:
                seen.add(node)
                stack.extend(node.parents)
        elif node is not None:
            uses[node] += 1
    return uses


def nodes_between(root, wanted: set, through: bool) -> set:
    """The nodes and leaves on the paths from `root` to any of `wanted`."""
    nodes, stack = set(), [root]
    while stack:
        node = stack.pop()
        if isinstance(node, Node) and node not in nodes:
            node.check_alive()
            nodes.add(node)
            if through or node not in wanted:
                stack.extend(node.parents)
    useful = set(wanted)
    for node in sorted(nodes, key=lambda node: node.serial):  # parents first
        if any(parent in useful for parent in node.parents):
            useful.add(node)
    return useful
