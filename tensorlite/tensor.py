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

import contextlib
import contextvars
import heapq
import inspect
import itertools
from collections.abc import Callable, Iterator, Sequence
from types import MethodType

import numpy as np

from .device import place
from .protect import captured, protect, release

# =================================================================================================
# Tensor: an array and, if a gradient may flow into it, where it came from
# =================================================================================================


class Tensor:
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

    __slots__ = ("data", "grad", "node", "_requires_grad", "__weakref__")

    def __init__(self, data, requires_grad: bool = False, node: Node | None = None):
        self.data = np.asarray(data) if isinstance(data, np.generic) else data  # 0-d stays an array
        self.grad = None
        self.node = node
        self._requires_grad = False
        if requires_grad:
            self.requires_grad = True

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
        if value and self.data.dtype.kind != "f":
            raise TypeError(
                f"only floating-point tensors can require gradients, this one is {self.dtype}"
            )
        self._requires_grad = bool(value)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.shape

    @property
    def ndim(self) -> int:
        return self.data.ndim

    @property
    def size(self) -> int:
        return self.data.size

    @property
    def dtype(self) -> np.dtype:
        return self.data.dtype

    @property
    def device(self) -> str:
        return "cpu" if isinstance(self.data, np.ndarray) else "cuda"

    def item(self) -> int | float | bool:
        """The value of a tensor of one element, as a Python number."""
        return self.data.item()

    def numpy(self) -> np.ndarray:
        """The values as a NumPy array: the tensor's own memory on the CPU, a copy from a GPU."""
        return place(self.data, "cpu")

    def detach(self) -> Tensor:
        """The same values, sharing memory, cut from the graph."""
        return Tensor(self.data)

    def backward(self, gradient=None, retain_graph: bool = False) -> None:
        """Add to `.grad` of every leaf below the gradient of this tensor with respect to it.

        `gradient` is what to start from, of this tensor's shape; it may be left out for a tensor
        of one element, where it is 1. Each node is freed as it is passed, so a second backward
        over the same graph raises RuntimeError, unless the first was given `retain_graph=True`.
        Raises ValueError if this tensor needs no gradient, or is no scalar and none is given.
        """
        for leaf, (g, owned) in _backward(self, gradient, retain_graph).items():
            if leaf.grad is not None:
                leaf.grad = Tensor(leaf.grad.data + g)
            else:
                leaf.grad = Tensor(g if owned else g.copy())

    def __array__(self, dtype=None, copy=None):
        if self.requires_grad:
            raise TypeError(
                "this tensor needs a gradient, which NumPy would lose: say .numpy() or .detach()"
            )
        return np.array(self.data, dtype=dtype, copy=copy)

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        function = NUMPY.get(ufunc)
        if function is None or method != "__call__" or kwargs:
            call = ufunc.__name__ if method == "__call__" else f"{ufunc.__name__}.{method}"
            given = "".join(f", {name}=" for name in kwargs)
            raise TypeError(f"np.{call}(...{given}) does not take tensors; use .numpy() or a tl op")
        return function(*inputs)

    def __array_function__(self, function, types, args, kwargs):
        ours = NUMPY.get(function)
        if ours is None:
            raise TypeError(f"np.{function.__name__} does not take tensors; use .numpy()")
        return ours(*args, **kwargs)

    def __len__(self) -> int:
        return len(self.data)

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    def __bool__(self) -> bool:
        return bool(self.data)

    def __int__(self) -> int:
        return int(self.data)

    def __float__(self) -> float:
        return float(self.data)

    def __index__(self) -> int:
        return self.data.__index__()

    def __repr__(self) -> str:
        text = np.array2string(self.numpy(), separator=", ", prefix="tensor(")
        dtype = "" if self.dtype in (np.float32, np.int64, np.bool_) else f", dtype={self.dtype}"
        device = "" if self.device == "cpu" else f", device='{self.device}'"
        grad = ", requires_grad=True" if self.requires_grad else ""
        return f"tensor({text}{dtype}{device}{grad})"


def tensor(data, dtype=None, device=None, requires_grad: bool = False) -> Tensor:
    """A new leaf with a copy of `data`: a number, a (nested) list, an array or a tensor.

    Arrays keep their dtype; Python floats become float32, ints int64. `device` is "cpu" or "cuda".
    Raises TypeError for data that are no numbers, and for integers that ask for a gradient.
    """
    if isinstance(data, Tensor):
        data = data.data
    if dtype is None and not hasattr(data, "dtype"):
        array = np.asarray(data)
        dtype = np.float32 if array.dtype == np.float64 else array.dtype
    else:
        array = data if hasattr(data, "dtype") else np.asarray(data)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"a tensor holds numbers; this is of dtype {array.dtype}")
    return Tensor(place(array.astype(dtype or array.dtype, copy=True), device), requires_grad)


# =================================================================================================
# The graph
# =================================================================================================


class Node:
    """One recorded operation: what it was computed from, and how gradients flow back there.

    `parents` has one entry per input: the Node that made it, the leaf Tensor that it is, or None
    where no gradient is needed. `vjps` is one function per input, or a single function that gives
    all gradients as a tuple. `serial` counts nodes as they are made; since a node is always made
    after its parents, descending serial numbers are a topological order.
    """

    __slots__ = ("serial", "op", "parents", "vjps", "shape", "dtype", "protected")

    count = itertools.count()

    def __init__(self, op: str, parents: tuple, vjps, value, inputs):
        self.protected = ()  # first, for __del__ finds it even if this is interrupted
        self.serial = next(Node.count)
        self.op = op
        self.parents = parents
        self.vjps = vjps
        self.shape = value.shape
        self.dtype = value.dtype
        self.protected = protect(captured(vjps), (value, *inputs))

    def gradients(self, g, useful: set | None = None) -> Sequence:
        """The gradient of each input (None: not needed), given the gradient `g` of the value."""
        self.check_alive()
        if callable(self.vjps):
            return self.vjps(g)
        return [
            vjp(g) if vjp and (useful is None or parent in useful) else None
            for parent, vjp in zip(self.parents, self.vjps)
        ]

    def check_alive(self) -> None:
        if self.vjps is None:
            raise RuntimeError(
                f"the graph of this '{self.op}' was freed by an earlier backward (or one that "
                "failed); to go through it again, pass retain_graph=True to the earlier one"
            )

    def free(self) -> None:
        """Let go of the parents and of every array the vjps captured."""
        self.parents, self.vjps = (), None
        protected, self.protected = self.protected, ()
        release(protected)

    def __del__(self):
        release(self.protected)

    def __reduce__(self):
        raise TypeError("a graph is not copied or pickled; .detach() the tensor first")


_recording = contextvars.ContextVar("tensorlite_recording", default=True)


@contextlib.contextmanager
def no_grad() -> Iterator[None]:
    """Within this block (of this thread) nothing is recorded, so nothing needs a gradient."""
    token = _recording.set(False)
    try:
        yield
    finally:
        _recording.reset(token)


# =================================================================================================
# Operations
# =================================================================================================

OPS: dict[str, Op] = {}  # every differentiable operation by name
NUMPY: dict[Callable, Callable] = {}  # NumPy's function -> ours, for np.exp(tensor)


class Op:
    """An operation on tensors, made by `@op` of a body on arrays.

    Parameters before the `*` of the body's signature are differentiable arrays, those behind it
    are static; callers may pass either by position or by name. `*arrays` takes one sequence of
    arrays. The body returns its value and one vjp per array (None: no gradient goes there).

    A body with a parameter `needs` is told which arrays need a gradient, as a tuple of bools, and
    returns its value and a single vjp that gives one gradient per array, None where not needed.

    A vjp captures what it uses and no more: the shape, not the array whose shape it is. It never
    writes into the gradient it is given. What it returns is of the input's shape, or of a shape to
    which the input broadcasts, or a `Part`.
    """

    def __init__(self, body: Callable, composed: Callable | None = None):
        self.name = self.__name__ = body.__name__
        self.body = body
        self.composed = composed
        self.__doc__ = body.__doc__
        self.__module__ = body.__module__
        parameters = inspect.signature(body).parameters.values()
        self.joint = any(p.name == "needs" for p in parameters)
        self.variadic = any(p.kind is p.VAR_POSITIONAL for p in parameters)
        self.arrays = [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY]
        seen = [p for p in parameters if p.name != "needs"]
        self.__signature__ = inspect.Signature(
            [p.replace(kind=p.POSITIONAL_OR_KEYWORD) for p in seen]
        )
        self.defaults = {p.name: p.default for p in seen}

    def __get__(self, instance, owner=None):  # so that `Tensor.sum = sum` makes a method
        return self if instance is None else MethodType(self, instance)

    def __repr__(self) -> str:
        return f"<op {self.name}{self.__signature__}>"

    def __call__(self, *args, **static) -> Tensor:
        if static or self.variadic or len(args) != len(self.arrays):
            args, static = self._bind(args, static)
        recording = _recording.get()
        values, parents, needed = [], [], False
        for a in args:
            parent = None
            if isinstance(a, Tensor):
                values.append(a.data)
                if recording:
                    parent = a if a._requires_grad else a.node  # a leaf itself, or what made it
                    needed = needed or parent is not None
            else:
                values.append(_operand(a, self.name))
            parents.append(parent)
        if self.composed is not None:
            values = _floats_of_one_dtype(values)
        if self.joint:
            static["needs"] = tuple(parent is not None for parent in parents)

        value, *vjps = self.body(*values, **static)

        if isinstance(value, np.generic):
            value = np.asarray(value)  # NumPy turns 0-d results into scalars
        if value.dtype == np.float64 and not _has_float64(values) and "dtype" not in static:
            value = value.astype(np.float32)  # as NumPy's float32 * int64 and exp(int64) are
        if not needed or value.dtype.kind != "f":
            return Tensor(value)
        if self.joint:
            (vjps,) = vjps  # one function for all inputs, instead of a list with one for each
        else:
            for i, parent in enumerate(parents):
                if parent is None:
                    vjps[i] = None
                elif vjps[i] is None:
                    raise TypeError(self._no_gradient(self._input(i)))
        return Tensor(value, node=Node(self.name, tuple(parents), vjps, value, values))

    def _bind(self, args, kwargs):
        """Arguments as the caller gave them -> the arrays in order, the statics by name."""
        bound = dict(zip(self.defaults, args)) | kwargs
        if len(bound) < len(args) + len(kwargs) or not bound.keys() <= self.defaults.keys():
            self.__signature__.bind(*args, **kwargs)  # raises the TypeError that Python would
        arrays = []
        for name in self.arrays:
            value = bound.pop(name, self.defaults[name])
            if value is inspect.Parameter.empty:
                self.__signature__.bind(*args, **kwargs)
            arrays.append(value)
        for name, value in bound.items():
            if isinstance(value, Tensor):
                if value.requires_grad and _recording.get():
                    raise TypeError(self._no_gradient(name))
                bound[name] = value.data
        return (arrays[0] if self.variadic else arrays), bound

    def _no_gradient(self, name: str) -> str:
        return f"{self.name}: no gradient flows into '{name}'; pass it detached"

    def _input(self, i: int) -> str:
        return f"{self.arrays[0]}[{i}]" if self.variadic else self.arrays[i]


def op(body: Callable | None = None, *, composed: Callable | None = None):
    """Make an `Op` of a body on arrays and register it in `OPS`.

    `composed` is the definition by simpler operations that a fused one must equal.
    """
    if body is None:
        return lambda body: op(body, composed=composed)
    OPS[body.__name__] = Op(body, composed)
    return OPS[body.__name__]


def _operand(value, name: str):
    """What the body sees of an operand that is no tensor."""
    if isinstance(value, float):
        return float(value)  # np.float64 is a float, but would make float32 arrays float64
    if value is None or isinstance(value, int):
        return value
    if isinstance(value, (list, tuple)):
        value = np.asarray(value)
        value = value.astype(np.float32) if value.dtype == np.float64 else value
    if not hasattr(value, "dtype") or value.dtype.kind not in "biuf":
        kind = getattr(value, "dtype", type(value).__name__)
        raise TypeError(f"{name} takes tensors, arrays and numbers, not {kind}")
    return value


def _floats_of_one_dtype(values: list) -> list:
    """What a fused body works on: integers as float32, different floats as the larger one."""
    dtypes = {v.dtype for v in values if hasattr(v, "dtype")}
    if len(dtypes) == 1 and next(iter(dtypes)).kind == "f":
        return values
    dtype = np.result_type(*(d for d in dtypes if d.kind == "f"), np.float16)
    if not any(d.kind == "f" for d in dtypes):
        dtype = np.dtype(np.float32)
    return [v.astype(dtype) if hasattr(v, "dtype") and v.dtype != dtype else v for v in values]


def _has_float64(values) -> bool:
    return any(getattr(value, "dtype", None) == np.float64 for value in values)


# =================================================================================================
# Backward
# =================================================================================================


def grad(output: Tensor, inputs, gradient=None, retain_graph: bool = False) -> tuple[Tensor, ...]:
    """The gradients of `output` with respect to `inputs`: one tensor, or a sequence of them.

    Inputs may be leaves or results in between; one that `output` does not depend on gets zeros.
    Only the vjps that lead to an input are called, and no `.grad` is written, so threads may
    differentiate through the same parameters at once.
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
    found = _backward(output, gradient, retain_graph, set(keys))
    # Copied, for one array may be the gradient of several inputs: x + y passes on what it got.
    return tuple(
        Tensor(found[key][0].copy() if key in found else np.zeros_like(x.data))
        for key, x in zip(keys, inputs)
    )


def _backward(output: Tensor, gradient, retain_graph: bool, wanted: set | None = None) -> dict:
    """Each leaf (or each one of `wanted`) -> (its gradient, owned).

    `owned` says that the engine allocated the array itself, so that nobody else can hold it.
    """
    if not output.requires_grad:
        raise ValueError("this tensor needs no gradient: nothing it was computed from does")
    if gradient is not None:
        g = getattr(gradient, "data", gradient) if isinstance(gradient, Tensor) else gradient
        g = np.asarray(g, dtype=output.dtype, like=output.data)
        if g.shape != output.shape:
            raise ValueError(f"gradient has shape {g.shape}, the tensor has {output.shape}")
    elif output.size == 1:
        g = np.ones_like(output.data)
    else:
        raise ValueError(
            f"backward from a tensor of shape {output.shape} must be told where to start: "
            "pass gradient=, or make it a scalar with .sum() or .mean()"
        )
    root = output if output.node is None else output.node
    useful = None if wanted is None else _between(root, wanted)
    held, found = {root: (g, False)}, {}
    queue = [(-root.serial, root)] if isinstance(root, Node) else []
    while queue:
        _, node = heapq.heappop(queue)
        g, owned = held.pop(node)
        if wanted is not None and node in wanted:
            found[node] = g, owned
        for i, (parent, new) in enumerate(zip(node.parents, node.gradients(g, useful))):
            if new is None or parent is None or (useful is not None and parent not in useful):
                continue
            if isinstance(parent, Node) and parent not in held:
                heapq.heappush(queue, (-parent.serial, parent))
            held[parent] = _accumulate(held.get(parent), new, parent, node, i)
        if not retain_graph:
            node.free()
    return held | found


def _between(root, wanted: set) -> set:
    """The nodes and leaves on the paths from `root` to any of `wanted`."""
    nodes, stack = set(), [root]
    while stack:
        node = stack.pop()
        if isinstance(node, Node) and node not in nodes:
            node.check_alive()
            nodes.add(node)
            stack.extend(node.parents)
    useful = set(wanted)
    for node in sorted(nodes, key=lambda node: node.serial):  # parents first
        if any(parent in useful for parent in node.parents):
            useful.add(node)
    return useful


def _accumulate(held, new, parent, node: Node, i: int):
    """Add one more gradient of a value to what is held of it: (gradient, owned) or None.

    What a vjp returned may be the gradient it was given, an array that it captured or a view of
    either, so the engine adds in place only to sums that it allocated itself.
    """
    if isinstance(new, Part):
        if held is None:
            total = np.zeros(parent.shape, parent.dtype, like=new.g)
        else:
            total = held[0] if held[1] else held[0].copy()
        new.add_to(total)
        return total, True
    new = _fit(new, parent, node, i)
    if held is None:
        return new, False
    g, owned = held
    if owned:
        g += new
        return held
    return np.asarray(g + new, like=new), True


def _fit(new, parent, node: Node, i: int):
    """What the vjp for input `i` returned, as an array of the shape and dtype of that input."""
    if isinstance(new, Tensor):
        new = new.data
    if new.shape != parent.shape:
        if not _broadcasts(parent.shape, new.shape):
            raise ValueError(
                f"the vjp of '{node.op}' gave input {i}, of shape {parent.shape}, "
                f"a gradient of shape {new.shape}"
            )
        new = unbroadcast(new, parent.shape)
    if new.dtype != parent.dtype:
        new = new.astype(parent.dtype)
    return np.asarray(new) if isinstance(new, np.generic) else new


def _broadcasts(shape: tuple, to: tuple) -> bool:
    """Whether an array of `shape` stretches to the shape `to`."""
    return len(shape) <= len(to) and all(n in (1, m) for n, m in zip(shape[::-1], to[::-1]))


def unbroadcast(g, shape: tuple[int, ...]):
    """Sum `g` over the axes that broadcasting added to or stretched in an array of `shape`.

    Broadcasting copies values along an axis; the gradient of a copy is a sum.
    """
    added = g.ndim - len(shape)
    stretched = [added + i for i, n in enumerate(shape) if n == 1]
    return np.sum(g, axis=(*range(added), *stretched)).reshape(shape)


class Part:
    """A gradient that is `g` at `index` and zero elsewhere: what the vjp of `x[index]` gives.

    The engine adds it in place to the whole, so that taking an array apart piece by piece costs
    one array of zeros and not one for each piece.
    """

    def __init__(self, g, index, repeated: bool):
        self.g = g
        self.index = index
        self.repeated = repeated  # may the index name an element twice? += would add it once

    def add_to(self, total) -> None:
        if self.repeated:
            np.add.at(total, self.index, self.g)
        else:
            total[self.index] += self.g
