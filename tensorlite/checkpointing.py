"""`checkpoint`, which saves memory: a block is computed again instead of being kept."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np

from .graph import Node, next_serial
from .modes import in_mode, mode
from .protect import protect
from .tensor import Tensor, run_backward


def checkpoint(fn: Callable[..., Tensor], *args) -> Tensor:
    """Compute fn(*args) and keep only the arguments; the backward pass runs `fn` again.

    For a block of a model this keeps one input instead of all activations, and costs the time of
    one more forward pass (Chen et al., 2016). Gradients flow into tensors among the arguments and
    into leaves that `fn` uses, such as a model's parameters. Random numbers must come from
    generators among the arguments: `checkpoint` copies these, so that the second run draws the same
    numbers as the first (nn.Dropout without a generator raises ValueError). Nothing else that `fn`
    uses may change between the two runs. Raises TypeError unless `fn` returns one tensor.
    """
    if not mode.get().record or mode.get().keep_inputs:
        return _one_tensor(fn(*args))
    inputs = [_inside(a) for a in args]
    kept = _with_copied_generators(inputs)
    first = next_serial()
    with in_mode(recomputed=True):
        y = _one_tensor(fn(*inputs))
    for a, arg in zip(inputs, args):
        if y is a:  # `fn` returned its argument, as a layer that is skipped does
            return arg
    if y.node is None:
        return y
    # Gradients flow to the leaves and nodes outside `fn` that its graph reaches. The graph itself
    # is dropped when this function returns.
    inside = {a: arg for a, arg in zip(inputs, args) if isinstance(a, Tensor)}
    keys = _reached(y.node, first)
    parents = [_key(inside.get(key, key)) for key in keys]

    def vjp(g):
        with in_mode(record=True, keep_inputs=False, recomputed=True):
            y = fn(*_with_copied_generators(kept))
        found = run_backward(y, g, False, set(keys), through=False)
        return [found[key][0] if key in found else None for key in keys]

    node = Node("checkpoint", parents, vjp, y.data, ())
    # `fn` will be computed again from these arrays, so they must not change.
    arrays = [t.data for t in (*inside, *keys) if isinstance(t, Tensor)]
    # The node has protected arrays among the arguments already, which its vjp holds.
    more = protect([a for a in arrays if isinstance(a, np.ndarray)])
    node.protected = [*node.protected, *more]
    return Tensor(y.data, False, node)


def _one_tensor(y) -> Tensor:
    if not isinstance(y, Tensor):
        raise TypeError(
            f"checkpoint takes a function that returns one tensor, not a {type(y).__name__}: join "
            "several with tl.stack or tl.concatenate, or checkpoint the parts one by one"
        )
    return y


def _with_copied_generators(args: list) -> list:
    return [copy.deepcopy(a) if hasattr(a, "random") else a for a in args]


def _inside(a):
    """An argument as a leaf of the graph inside `fn`."""
    return Tensor(a.data, a.requires_grad) if isinstance(a, Tensor) else a


def _key(item):
    """The entry for a tensor in the graph: the node that made it, or the leaf itself."""
    return item.node if isinstance(item, Tensor) and item.node is not None else item


def _reached(root: Node, first: int) -> list:
    """The leaves and the nodes made before serial number `first` that `root` reaches, each once."""
    reached, stack, seen = [], [root], set()
    while stack:
        item = stack.pop()
        if item is None or item in seen:
            continue
        seen.add(item)
        if isinstance(item, Node) and item.serial > first:
            stack.extend(item.parents)
        else:
            reached.append(item)
    return reached
