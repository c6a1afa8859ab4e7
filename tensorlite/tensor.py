"""Tensors and the backward pass: the core of the reverse-mode engine. Start reading here.

An operation is declared once, as its value and one vjp per differentiable input:

    @op
    def mul(x, y):
        return x * y, lambda g: g * y, lambda g: g * x

A vjp (vector-Jacobian product) takes `g`, the gradient of the loss with respect to the operation's
value, and returns the gradient with respect to one input. The body sees plain arrays; `op` turns it
into a function of tensors that records a `Node` whenever an input needs a gradient. `backward` then
walks the nodes from the last to the first.

- Broadcasting is undone by the engine, in `fit`: a vjp returns a gradient of its input's shape, or
  of a shape to which that input broadcasts, which `unbroadcast` sums to the input's shape. It may
  also return a `Part` or a `Deferred` (graph.py), or None where no gradient flows.
- Gradients of a value that is used more than once are added up in `accumulate`.
- Ownership: a vjp must never write into `g`, but it may return `g` itself, an array that it
  captured, or a view of either. So the engine adds in place only to arrays that it owns: sums that
  it allocated, and what the vjps of an operation declared `fresh` return (`accumulate`): these
  vjps promise new arrays, never `g` or one that they captured.
- Arrays that the graph needs are read-only (protect.py) until their node has been used; the engine
  frees each node right after its use (`Node.free`).
- The vjp of an input that needs no gradient is never called.

Read on in gradients.py (how gradients are added), graph.py (nodes), op.py (how `@op` makes an
operation), ops.py (the primitives), functional/ (the fused functions of neural networks) and nn.py
(modules). arraylike.py has what a tensor reports about its array, methods.py its operators and
methods, numpy_names.py NumPy's functions of it, and modes.py the modes, such as `no_grad`.

Follows HIPS autograd (vjps, ownership of gradients) and micrograd (small enough to read). Unlike in
both, a node is not a tensor: a value that no vjp captured can be freed during the forward pass.
"""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable, Sequence

import numpy as np

from .arraylike import (
    ArrayLike,
    array_of,
    check_differentiable,
    is_array,
    is_float,
    number_dtype,
    type_name,
    whole,
)
from .device import place
from .gradients import accumulate, fit, stored
from .graph import Deferred, Node, Part, count_uses, nodes_between
from .modes import check_finite, higher_order, in_mode, mode

OPS: dict[str, Callable] = {}  # every operation by name, registered by op.py


# =================================================================================================
# Tensor: an array and, if a gradient may flow into it, where it came from
# =================================================================================================


class Tensor(ArrayLike):
    """An array that remembers how it was computed.

    `data` is a NumPy (or CuPy) array. A *leaf* is a tensor that the user made; one made with
    `requires_grad=True` receives its gradient in `.grad` when `backward` is called on something
    computed from it. The other tensors are results of operations; if a gradient may flow through
    one, its `node` is the `Node` that recorded the operation.

    >>> x = tensor([1.0, 2.0], requires_grad=True)
    >>> (x * x).sum().backward()
    >>> x.grad
    tensor([2., 4.])

    While a backward pass is pending, the arrays that it needs are read-only: writing to one raises
    ValueError instead of causing a wrong gradient. One case is not covered: a view that was taken
    before the operation ran can still be written to. A view that is taken while its array is
    read-only stays read-only afterwards; copy it to write to it.
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

        Assigning raises TypeError for anything but a tensor or None, and ValueError for a tensor of
        another shape or on another device.
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
        """This tensor on another device ("cpu", "cuda") or of another dtype; differentiable."""
        if isinstance(where, str) and where in ("cpu", "cuda"):
            return self if where == self.device else OPS["transfer"](self, where)
        return OPS["astype"](self, number_dtype(where))

    def detach(self) -> Tensor:
        """A new leaf that needs no gradient, with the same values in the same memory."""
        return Tensor(self.data)

    def backward(
        self,
        gradient=None,
        retain_graph: bool = False,
        ready: Callable[[Tensor, np.ndarray], None] | None = None,
    ) -> None:
        """Compute the gradient of this tensor with respect to every leaf it was computed from.

        The gradient of each leaf is added to the leaf's `.grad`. `gradient`, an array of this
        tensor's shape, is the gradient to start from; it defaults to 1 for a tensor of one
        element. Each node is freed after its use, so a second backward over the same graph raises
        RuntimeError, unless the first was given `retain_graph=True`. Raises ValueError if this
        tensor needs no gradient, or if it has several elements and `gradient` is not given.

        With `ready`, no `.grad` is written. Instead `ready(leaf, g)` is called as soon as the
        gradient `g` of a leaf is complete, while the backward pass goes on; the callee may keep
        and change the array `g`.

        Several threads may call backward at once, each on its own graph, even if the graphs share
        leaves: each thread adds its whole gradient to a leaf, one thread after the other.
        """
        gradients = run_backward(self, gradient, retain_graph, ready=ready)
        with _adding:  # if two threads read .grad at the same time, one addition would be lost
            for leaf, (g, owned) in gradients.items():
                if leaf.grad is not None:
                    leaf.grad = Tensor(whole(leaf.grad.data + g))
                else:
                    leaf.grad = Tensor(g if owned else g.copy())


_adding = threading.RLock()  # held while gradients are added to `.grad`


def tensor(data, dtype=None, device=None, requires_grad: bool = False) -> Tensor:
    """A new leaf with a copy of `data`: a number, a (nested) list, an array or a tensor.

    Arrays keep their dtype; Python floats become float32 and ints int64. `device` is "cpu" or
    "cuda". Raises TypeError for data that are not numbers, and for `requires_grad=True` with a
    dtype that is not floating-point.
    """
    data = array_of(data)
    if hasattr(data, "dtype") and not is_array(data):
        raise TypeError(f"a tensor is made of numbers and arrays, not {type_name(data)}")
    array = data if hasattr(data, "dtype") else np.asarray(data)
    if dtype is None and array is not data and array.dtype == np.float64:
        dtype = np.float32
    if array.dtype.kind not in "biuf" and not is_float(array.dtype):
        raise TypeError(f"a tensor holds real numbers; this is of dtype {array.dtype}")
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

    Inputs may be leaves or intermediate results; an input that `output` does not depend on gets
    zeros. Only the vjps on a path to an input are called, and no `.grad` is written, so several
    threads may differentiate through the same parameters at once. With `create_graph=True`, which
    implies `retain_graph`, the gradients can be differentiated again; the forward pass must then
    have run under `with higher_order():`, otherwise RuntimeError is raised.
    Raises as `Tensor.backward` does, and ValueError for an input that needs no gradient.

    >>> x = tensor(3.0, requires_grad=True)
    >>> grad(x * x, x)
    (tensor(6.),)
    """
    inputs = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    for x in (output, *inputs):
        if not isinstance(x, Tensor):
            raise TypeError(f"gradients are of tensors and with respect to tensors, not {x!r:.80}")
    for i, x in enumerate(inputs):
        if not x.requires_grad:
            raise ValueError(f"input {i} needs no gradient: make it with requires_grad=True")
    keys = [x if x.node is None else x.node for x in inputs]
    if create_graph:
        with higher_order():
            found = run_backward(output, gradient, True, set(keys), create_graph=True)
            return tuple(
                OPS["astype"](found[key][0], x.dtype)  # astype copies, as below
                if key in found
                else Tensor(np.zeros_like(x.data))
                for key, x in zip(keys, inputs)
            )
    found = run_backward(output, gradient, retain_graph, set(keys))
    # Copied, because one array may be the gradient of several inputs: both vjps of x + y return g.
    return tuple(
        Tensor(found[key][0].astype(x.dtype, order="C") if key in found else np.zeros_like(x.data))
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
    """The backward pass: a dict from each leaf (or each entry of `wanted`) to (gradient, owned).

    `owned` is True if the engine allocated the array during this pass or a `fresh` vjp returned it:
    it may be changed in place. Keys are leaf tensors and nodes. With `through=False` the walk stops
    at the nodes in `wanted`, as if they were leaves. With `create_graph` the gradients are tensors,
    and the vjps of the nodes run on tensors.
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
        asked = wanted is not None and node in wanted
        if isinstance(g, Deferred):
            if asked or not getattr(node.vjps, "takes_deferred", False):
                g, owned = g.array(), True
        elif g.dtype is not node.dtype:  # a sum of float16 in float32
            g, owned = stored(g, owned, node)
        if asked:
            found[node] = g, owned
            if not through:
                continue
        vjps = node.vjps
        if vjps is None:
            node.check_alive()  # raises
        if create_graph:
            with in_mode(check=False):  # the composed definitions may pass through infinity
                together = _recorded_gradients(node, g)
        else:
            together = None if type(vjps) is list else vjps(g)
        if together is not None:
            _check_together(node, together)
        for i, parent in enumerate(node.parents):
            if parent is None or (useful is not None and parent not in useful):
                continue
            new = vjps[i](g) if together is None else together[i]
            if new is None:
                continue
            if check:
                new = new.array() if isinstance(new, Deferred) else new
                new_array = new.g if isinstance(new, Part) else new
                check_finite(array_of(new_array), node.op, f"gradient for input {i}", node.origin)
            before = held.get(parent)
            if before is None and isinstance(parent, Node):
                heapq.heappush(queue, (-parent.serial, parent))
            if create_graph:
                if isinstance(new, Part):
                    new = OPS["scatter_add"](new.g, parent.shape, new.index)
                new = fit(new, parent, node, i)
                held[parent] = (new if before is None else before[0] + new), False
            else:
                held[parent] = accumulate(before, new, parent, node, i)
        if ready:
            for leaf in node.parents:
                if isinstance(leaf, Tensor):
                    uses[leaf] -= 1
                    if not uses[leaf] and leaf in held:
                        g_leaf, owned = stored(*held.pop(leaf), leaf)
                        ready(leaf, whole(g_leaf if owned else g_leaf.copy()))
        if not retain_graph:
            node.free()
    gradients = {key: stored(*value, key) for key, value in (held | found).items()}
    if not ready:
        return gradients
    for leaf, (g, owned) in gradients.items():
        ready(leaf, whole(g if owned else g.copy()))
    return {}


def _check_together(node: Node, gradients) -> None:
    """Raise if what one vjp gave for all inputs is not one gradient for each."""
    if not isinstance(gradients, (tuple, list)):
        raise TypeError(
            f"the vjp of '{node.op}' gave an object of type {type(gradients).__name__}; it must "
            "give a tuple of gradients, one for each input, because its body takes `needs`"
        )
    if len(gradients) != len(node.parents):
        raise ValueError(
            f"the vjp of '{node.op}' gave {len(gradients)} gradients for {len(node.parents)} inputs"
        )


def _recorded_gradients(node: Node, g: Tensor) -> Sequence:
    """What the vjps of a node return, as tensors computed by operations that are recorded in turn.

    Skip this at first: `op.body`, `op.composed` and `op.joint` are explained in op.py.
    """
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
    # An input that was passed twice gets its whole gradient the first time, and None after that.
    return [found.pop(p)[0] if p in found else None for p in node.parents]
