"""Tensor, the graph behind it, and backward: the whole reverse-mode engine in one file.

An operation is declared once, as its value and one vjp per differentiable input:

    @op
    def mul(x, y):
        return x * y, lambda g: g * y, lambda g: g * x

A vjp (vector-Jacobian product) is given the gradient of the loss with respect to the operation's
value, an array of the value's shape, and gives the gradient with respect to one input; where
broadcasting stretched that input, the gradient may be as large as the value is. The body sees plain
arrays; `op` makes of it a function of tensors that records a `Node` whenever an input
needs a gradient, and `backward` walks the nodes from the last to the first.

What the engine does so that no vjp has to: it undoes broadcasting (`_fit`), sums the gradients of
a value that is used more than once (`_accumulate`), drops the vjp of an input that needs no
gradient, frees each node as soon as it has been used (`Node.free`), and makes what the graph needs
read-only until then (protect.py).

Follows HIPS autograd (vjps, iterative order, who owns a gradient) and micrograd (small enough to
read). Differs from both in that a node is not a tensor: a value that no vjp captured dies during
the forward pass.
"""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable, Sequence

import numpy as np

from .arraylike import (
    ArrayLike,
    array_of,
    broadcasts,
    check_differentiable,
    is_array,
    number_dtype,
    type_name,
    whole,
    wide_sum,
)
from .device import add_at, place
from .graph import Node, count_uses, nodes_between
from .modes import check_finite, higher_order, in_mode, mode

OPS: dict[str, Callable] = {}  # every operation by name; op.py enters them


# =================================================================================================
# Tensor: an array and, if a gradient may flow into it, where it came from
# =================================================================================================


class Tensor(ArrayLike):
    """An array that remembers how it was computed.

    `data` is a NumPy (or CuPy) array. A *leaf* is a tensor that the user made; one made with
    `requires_grad=True` receives its gradient in `.grad` when `backward` is called on something
    computed from it. The other tensors are results: they hold the `Node` that made them.

    >>> x = tensor([1.0, 2.0], requires_grad=True)
    >>> (x * x).sum().backward()
    >>> x.grad
    tensor([2., 4.])

    While a backward is pending, the arrays it needs are read-only: writing to them raises
    ValueError instead of giving a wrong gradient. One hole remains: a view of the array that the
    user took before can still write through. One taken meanwhile stays read-only; copy it.
    """

    __slots__ = ("data", "_grad", "node", "_requires_grad", "__weakref__")

    def __init__(self, data, requires_grad: bool = False, node: Node | None = None):
        self.data = data
        self._grad = None
        self.node = node
        self._requires_grad = requires_grad

    @property
    def requires_grad(self) -> bool:
        return self._requires_grad or self.node is not None

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        if self.node is not None:
            raise ValueError(
                "requires_grad can be changed on a leaf only; this tensor is the result of "
                f"'{self.node.op}': use .detach() to cut it from its graph"
            )
        self._requires_grad = bool(value) and check_differentiable(self.data)

    @property
    def grad(self) -> Tensor | None:
        """The gradient of a leaf, a tensor of its shape on its device, or None.

        Raises TypeError when something else than a tensor is assigned, ValueError for another
        shape or device.
        """
        return self._grad

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        if value is not None:
            if not isinstance(value, Tensor):
                kind = type(value).__name__
                raise TypeError(f".grad is a tensor or None, not {kind}: assign tl.tensor(...)")
            if value.shape != self.shape or value.device != self.device:
                raise ValueError(
                    f"a gradient of shape {value.shape} on {value.device} was assigned to a tensor "
                    f"of shape {self.shape} on {self.device}; both must be the same"
                )
        self._grad = value

    def to(self, where) -> Tensor:
        """On another device ("cpu", "cuda") or of another dtype; gradients find their way back."""
        if isinstance(where, str) and where in ("cpu", "cuda"):
            return self if where == self.device else OPS["transfer"](self, where)
        return OPS["astype"](self, np.dtype(where))

    def detach(self) -> Tensor:
        """The same values, sharing memory, cut from the graph."""
        return Tensor(self.data)

    def backward(
        self,
        gradient=None,
        retain_graph: bool = False,
        ready: Callable[[Tensor, np.ndarray], None] | None = None,
    ) -> None:
        """Add to `.grad` of every leaf below the gradient of this tensor with respect to it.

        `gradient` is what to start from, of this tensor's shape; it may be left out for a tensor
        of one element, where it is 1. Each node is freed as it is passed, so a second backward
        over the same graph raises RuntimeError, unless the first was given `retain_graph=True`.
        Raises ValueError if this tensor needs no gradient, or is no scalar and none is given.

        With `ready`, no `.grad` is written: `ready(leaf, g)` is given the gradient of a leaf, an
        array to keep, as soon as it is complete, while backward goes on below.

        Threads may call backward on graphs of their own that share leaves: every gradient is added
        whole, in the order in which the threads come.
        """
        gradients = run_backward(self, gradient, retain_graph, ready=ready)
        with _adding:  # or of two threads that read .grad at once, one's addition would be lost
            for leaf, (g, owned) in gradients.items():
                if leaf.grad is not None:
                    leaf.grad = Tensor(whole(leaf.grad.data + g))
                else:
                    leaf.grad = Tensor(g if owned else g.copy())


_adding = threading.RLock()  # held while gradients are added to `.grad`


def tensor(data, dtype=None, device=None, requires_grad: bool = False) -> Tensor:
    """A new leaf with a copy of `data`: a number, a (nested) list, an array or a tensor.

    Arrays keep their dtype; Python floats become float32, ints int64. `device` is "cpu" or "cuda".
    Raises TypeError for data that are no numbers, and for integers that ask for a gradient.
    """
    if isinstance(data, Tensor):
        data = data.data
    if hasattr(data, "dtype") and not is_array(data):
        raise TypeError(f"a tensor is made of numbers and arrays, not {type_name(data)}")
    if dtype is None and not hasattr(data, "dtype"):
        array = np.asarray(data)
        dtype = np.float32 if array.dtype == np.float64 else array.dtype
    else:
        array = data if hasattr(data, "dtype") else np.asarray(data)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"a tensor holds numbers; this is of dtype {array.dtype}")
    array = array.astype(number_dtype(dtype or array.dtype), copy=True)
    return Tensor(place(whole(array), device), requires_grad and check_differentiable(array))


# =================================================================================================
# Backward
# =================================================================================================


def grad(
    output: Tensor,
    inputs,
    gradient=None,
    create_graph: bool = False,
    retain_graph: bool = False,
) -> tuple[Tensor, ...]:
    """The gradients of `output` with respect to `inputs`: one tensor, or a sequence of them.

    Inputs may be leaves or results in between; one that `output` does not depend on gets zeros.
    Only the vjps that lead to an input are called, and no `.grad` is written, so threads may
    differentiate through the same parameters at once. With `create_graph=True`, which implies
    retain_graph, the gradients can be differentiated again; the forward pass must then have run
    under `with higher_order():`, else RuntimeError says so.
    Raises as `Tensor.backward` does, and ValueError for an input that needs no gradient.

    >>> x = tensor(3.0, requires_grad=True)
    >>> grad(x * x, x)
    (tensor(6.),)
    """
    inputs = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    for i, x in enumerate(inputs):
        if not x.requires_grad:
            raise ValueError(f"input {i} needs no gradient: make it with requires_grad=True")
    keys = [x if x.node is None else x.node for x in inputs]
    if create_graph:
        with higher_order():
            found = run_backward(output, gradient, True, set(keys), create_graph=True)
            return tuple(
                OPS["astype"](found[key][0], x.dtype)  # a copy, as below
                if key in found
                else Tensor(np.zeros_like(x.data))
                for key, x in zip(keys, inputs)
            )
    found = run_backward(output, gradient, retain_graph, set(keys))
    # Copied, for one array may be the gradient of several inputs: x + y passes on what it got.
    return tuple(
        Tensor(found[key][0].copy() if key in found else np.zeros_like(x.data))
        for key, x in zip(keys, inputs)
    )


def run_backward(
    output: Tensor,
    gradient,
    retain_graph: bool,
    wanted: set | None = None,
    through: bool = True,
    create_graph: bool = False,
    ready: Callable | None = None,
) -> dict:
    """Each leaf (or each one of `wanted`) -> (its gradient, owned).

    `owned` says that the array was allocated on the way, so that nobody else can hold it. Not
    `through` stops at the nodes in `wanted`, as if they were leaves. With `create_graph` gradients
    are tensors, and the nodes' vjps run on tensors.
    """
    if not output.requires_grad:
        raise ValueError("this tensor needs no gradient: nothing it was computed from does")
    if gradient is not None:
        g = gradient
        if not (create_graph and isinstance(g, Tensor)):
            g = np.asarray(array_of(g), dtype=output.dtype, like=output.data)
        if g.shape != output.shape:
            raise ValueError(f"gradient has shape {g.shape}, the tensor has {output.shape}")
    elif output.size == 1:
        g = np.ones_like(output.data)
    else:
        raise ValueError(
            f"backward from a tensor of shape {output.shape} must be told where to start: "
            "pass gradient=, or make it a scalar with .sum() or .mean()"
        )
    if create_graph and not isinstance(g, Tensor):
        g = Tensor(g)
    root = output if output.node is None else output.node
    useful = None if wanted is None else nodes_between(root, wanted, through)
    held, found = {root: (g, False)}, {}
    check = mode.get().check
    uses = count_uses(root) if ready else {}
    queue = [(-root.serial, root)] if isinstance(root, Node) else []
    while queue:
        _, node = heapq.heappop(queue)
        g, owned = held.pop(node)
        if wanted is not None and node in wanted:
            found[node] = g, owned
            if not through:
                continue
        node.check_alive()
        vjps = node.vjps
        if create_graph:
            with in_mode(check=False):  # the composed definitions may pass through infinity
                together = _recorded_gradients(node, g)
        else:
            together = None if type(vjps) is list else vjps(g)
        if together is not None and not isinstance(together, (tuple, list)):
            raise TypeError(
                f"the vjp of '{node.op}' gave an object of type {type(together).__name__}; it must "
                "give a tuple of gradients, one for each input, since its body has `needs`"
            )
        if together is not None and len(together) != len(node.parents):
            raise ValueError(
                f"the vjp of '{node.op}' gave {len(together)} gradients for "
                f"{len(node.parents)} inputs"
            )
        for i, parent in enumerate(node.parents):
            if parent is None or (useful is not None and parent not in useful):
                continue
            new = vjps[i](g) if together is None else together[i]
            if new is None:
                continue
            if check:
                new_array = new.g if isinstance(new, Part) else new
                check_finite(array_of(new_array), node.op, f"gradient for input {i}", node.origin)
            before = held.get(parent)
            if before is None and isinstance(parent, Node):
                heapq.heappush(queue, (-parent.serial, parent))
            if create_graph:
                new = new.dense(parent.shape) if isinstance(new, Part) else new
                new = _fit(new, parent, node, i)
                held[parent] = (new if before is None else before[0] + new), False
            else:
                held[parent] = _accumulate(before, new, parent, node, i)
        if ready:
            for leaf in node.parents:
                if isinstance(leaf, Tensor):
                    uses[leaf] -= 1
                    if not uses[leaf] and leaf in held:
                        _hand_over(leaf, *held.pop(leaf), ready)
        if not retain_graph:
            node.free()
    gradients = {key: (whole(g), owned) for key, (g, owned) in (held | found).items()}
    if not ready:
        return gradients
    for leaf, (g, owned) in gradients.items():
        _hand_over(leaf, g, owned, ready)
    return {}


def _recorded_gradients(node: Node, g: Tensor) -> Sequence:
    """What the vjps give, as tensors, computed by operations that are recorded in turn."""
    if node.call is None:
        raise RuntimeError(
            f"create_graph=True needs the inputs of '{node.op}': put the forward pass "
            "under `with tl.higher_order():`"
        )
    op, args, static = node.call
    args = [Tensor(a) if isinstance(a, np.ndarray) else a for a in args]
    if op.composed is None and op.joint:
        needs = tuple(parent is not None for parent in node.parents)
        return op.body(*args, **static, needs=needs)[1](g)
    if op.composed is None:
        _, *vjps = op.body(*args, **static)  # a body on tensors gives vjps on tensors
        return [vjp(g) if parent is not None else None for parent, vjp in zip(node.parents, vjps)]
    y = op.composed(*args, **static)
    inputs = {p for p in node.parents if p is not None}
    found = run_backward(y, g, True, inputs, through=False, create_graph=True)
    # An input that was given twice gets its whole gradient once.
    return [found.pop(p)[0] if p in found else None for p in node.parents]


def _hand_over(leaf: Tensor, g, owned: bool, ready: Callable) -> None:
    ready(leaf, whole(g) if owned else whole(g.copy()))


# =================================================================================================
# What happens to a gradient
# =================================================================================================


def _accumulate(held, new, parent, node: Node, i: int):
    """Add one more gradient of a value to what is held of it: (gradient, owned) or None.

    What a vjp returned may be the gradient it was given, an array that it captured or a view of
    either, so the engine adds in place only to sums that it allocated itself, and to what the vjp
    of an operation that is declared `fresh` has allocated.
    """
    if isinstance(new, Part):
        if held is None:
            total = np.zeros(parent.shape, parent.dtype, like=new.g)
        else:
            total = held[0] if held[1] else whole(held[0].copy())
        new.add_to(total)
        return total, True
    if isinstance(new, Tensor):
        new = new.data
    try:
        fits = new.shape == parent.shape and new.dtype == parent.dtype
    except AttributeError:
        raise TypeError(
            f"the vjp of '{node.op}' gave input {i} an object of type {type(new).__name__}; "
            "a gradient is an array"
        ) from None
    if not fits:
        new = _fit(new, parent, node, i)
    fresh = node.fresh and not isinstance(new, np.generic)
    if held is None:
        return new, fresh
    g, owned = held
    if owned:
        g += new
        return held
    if fresh:
        new += g
        return new, True
    total = g + new
    return total, not isinstance(total, np.generic)


def _fit(new, parent, node: Node, i: int):
    """What the vjp for input `i` returned, as an array of the shape and dtype of that input."""
    if new.shape != parent.shape:
        if not broadcasts(parent.shape, new.shape):
            raise ValueError(
                f"the vjp of '{node.op}' gave input {i}, of shape {parent.shape}, "
                f"a gradient of shape {new.shape}"
            )
        new = unbroadcast(new, parent.shape)
    if new.dtype != parent.dtype:
        new = new.astype(parent.dtype)
    return new


def unbroadcast(g, shape: tuple[int, ...]):
    """Sum `g` over the axes that broadcasting added to or stretched in an array of `shape`.

    Broadcasting copies values along an axis; the gradient of a copy is a sum.
    """
    added = g.ndim - len(shape)
    stretched = [added + i for i, n in enumerate(shape) if n == 1]
    return wide_sum(g, (*range(added), *stretched)).reshape(shape)


class Part:
    """A gradient that is `g` at `index` and zero elsewhere: what the vjp of `x[index]` gives.

    The engine adds it in place to the whole, so that taking an array apart piece by piece costs
    one array of zeros and not one for each piece.
    """

    def __init__(self, g, index, repeated: bool):
        self.g = whole(g)
        self.index = index
        self.repeated = repeated  # may the index name an element twice? += would add it once

    def add_to(self, total) -> None:
        if self.repeated:
            add_at(total, self.index, self.g)
        else:
            total[self.index] += self.g

    def dense(self, shape):
        """The whole gradient, with zeros, as an operation that is recorded."""
        return OPS["scatter_add"](self.g, shape, self.index)
