"""The graph that operations record: its nodes, and walks over them.

A node is not a tensor and does not hold its value, so a value that no vjp captured can be freed
during the forward pass. op.py makes the nodes; tensor.py walks them in the backward pass.
"""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np

from .arraylike import whole
from .device import add_at
from .protect import captured, protect, release


class Node:
    """One recorded operation: what it was computed from, and how gradients flow back there.

    `parents` has one entry per input: the Node that made the input, the Tensor itself if it is a
    leaf, or None if it needs no gradient. `vjps` is a list of one function per input, or a single
    function that returns all gradients as a tuple. `serial` numbers the nodes as they are made;
    since a node is always made after its parents, descending serial numbers are a topological
    order. `call` is the operation with its arguments, kept for `higher_order`. `origin` is the
    user's line, for `detect_anomaly`. `fresh` is the promise that `op` describes: the vjps return
    newly allocated arrays.
    """

    __slots__ = (
        "serial", "op", "parents", "vjps", "shape", "dtype", "protected", "call", "origin", "fresh"
    )  # fmt: skip

    def __init__(
        self, op: str, parents: list, vjps, value, inputs, call=None, origin="", fresh=False
    ):
        self.protected = ()  # set first, because __del__ needs it even if __init__ is interrupted
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
        if call is not None:  # `higher_order` runs the body again, on all operands
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
        """Drop the references to the parents and to every array that the vjps captured."""
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
    """How many times each leaf is an input of `root` or of the nodes below it."""
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


class Deferred:
    """A gradient that is not computed yet, because that is best done with what it is added to.

    A vjp may return one instead of an array, of its input's `shape` and `dtype`. A subclass has two
    methods. `array()` gives the gradient, a new array; the engine calls it where the value has no
    other gradient. `plus(total, out=None)` gives `total` plus the gradient, written to `out`, which
    may be `total`, or a new array. A vjp with the attribute `takes_deferred` is given it as it is.
    The kernels for a GPU have such gradients: a product adds itself to an array in the pass that
    writes it.
    """

    shape: tuple[int, ...]
    dtype: np.dtype


class Part:
    """A gradient that is `g` at `index` and zero elsewhere: what the vjp of `x[index]` returns.

    The engine adds it in place to the gradient of all of `x`. So code that indexes an array piece
    by piece needs one array of zeros, and not one for each piece.
    """

    def __init__(self, g, index, repeated: bool):
        self.g = whole(g)
        self.index = index
        self.repeated = repeated  # whether an element may occur twice; += would add it only once

    def add_to(self, total) -> None:
        if self.repeated:
            add_at(total, self.index, self.g)
        else:
            total[self.index] += self.g
