"""Built on the engine: products with second derivatives, and memory for time."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np

from .tensor import Node, Tensor, _backward, _mode, grad, higher_order, next_serial


def hvp(f: Callable[[Tensor], Tensor], x, v) -> Tensor:
    """The Hessian of the scalar function `f` at `x`, times `v` of x's shape: (...) like x.

    Differentiates the gradient along v, at the cost of a few evaluations of f, without the Hessian
    itself (Pearlmutter, 1994).

    >>> hvp(lambda x: (x**3).sum(), tensor([1.0, 2.0]), tensor([1.0, 1.0]))
    tensor([ 6., 12.])
    """
    x, v = _leaf(x), _data(v)
    with higher_order():
        (g,) = grad(f(x), x, create_graph=True)
        if not g.requires_grad:  # f is linear
            return Tensor(np.zeros_like(x.data))
        return grad((g * v).sum(), x)[0]


def hessian(f: Callable[[Tensor], Tensor], x) -> Tensor:
    """All second derivatives of the scalar function `f` at `x`: x.shape + x.shape."""
    x = _leaf(x)
    with higher_order():
        (g,) = grad(f(x), x, create_graph=True)
    rows = np.zeros((x.size, *x.shape), x.dtype, like=x.data)
    if g.requires_grad:
        for i, index in enumerate(np.ndindex(x.shape)):
            rows[i] = grad(g[index], x, retain_graph=True)[0].data
    return Tensor(np.reshape(rows, x.shape + x.shape))


def _data(x):
    return x.data if isinstance(x, Tensor) else x


def _leaf(x) -> Tensor:
    data = _data(x)
    return Tensor(data if hasattr(data, "dtype") else np.asarray(data, np.float32), True)


def checkpoint(fn: Callable[..., Tensor], *args) -> Tensor:
    """fn(*args), keeping only the arguments; the backward pass computes `fn` again.

    Of a block of a model it keeps one input instead of all activations, for the time of one more
    forward pass (Chen et al., 2016). Gradients flow into tensors among the arguments and into
    leaves that `fn` uses, such as a model's parameters. Random numbers must come from generators
    among the arguments: they are copied, so that the second run draws what the first has drawn.
    """
    if not _mode.get().record or _mode.get().keep_inputs:
        return fn(*args)
    inputs = [_inside(a) for a in args]
    again = [copy.deepcopy(a) if hasattr(a, "random") else a for a in inputs]
    first = next_serial()
    y = fn(*inputs)
    if y.node is None:
        return y
    # Whatever the block reached outside itself; the block's own graph is dropped here.
    outside = _reached(y.node, first)
    own = {
        a: _key(arg) for a, arg in zip(inputs, args) if isinstance(a, Tensor) and a.requires_grad
    }
    keys = list(outside)
    parents = [own.get(key, key) for key in keys]

    def vjp(g):
        found = _backward(fn(*again), g, False, set(keys), through=False)
        return [found[key][0] if key in found else None for key in keys]

    return Tensor(y.data, node=Node("checkpoint", parents, vjp, y.data, ()))


def _inside(a):
    """An argument as a leaf of the block's own graph."""
    return Tensor(a.data, a.requires_grad) if isinstance(a, Tensor) else a


def _key(tensor: Tensor):
    return tensor if tensor.node is None else tensor.node


def _reached(root: Node, first: int) -> dict:
    """The leaves below `root`, and the nodes older than `first`, in the order they are met."""
    reached, stack, seen = {}, [root], set()
    while stack:
        item = stack.pop()
        if item is None or item in seen:
            continue
        seen.add(item)
        if isinstance(item, Node) and item.serial > first:
            stack.extend(item.parents)
        else:
            reached[item] = True
    return reached
