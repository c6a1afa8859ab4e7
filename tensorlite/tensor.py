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

import contextvars
import functools
import heapq
import inspect
import itertools
import os
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from types import MethodType
from typing import NamedTuple

import numpy as np

from .device import add_at, place
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
        self._requires_grad = bool(value) and _differentiable(self.data)

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
        gradients = _backward(self, gradient, retain_graph, ready=ready)
        with _adding:  # or of two threads that read .grad at once, one's addition would be lost
            for leaf, (g, owned) in gradients.items():
                if leaf.grad is not None:
                    leaf.grad = Tensor(whole(leaf.grad.data + g))
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
        return int(self._number())

    def __float__(self) -> float:
        return float(self._number())

    def __format__(self, spec: str) -> str:
        return format(self._number(), spec) if spec else str(self)

    def _number(self) -> int | float | bool:
        if self.size != 1:
            raise TypeError(
                f"only a tensor of one element can be used as a number; this has shape {self.shape}"
            )
        return self.item()

    def __index__(self) -> int:
        return self.numpy().__index__()  # CuPy's arrays have none

    def __repr__(self) -> str:
        text = np.array2string(self.numpy(), separator=", ", prefix="tensor(")
        dtype = "" if self.dtype in (np.float32, np.int64, np.bool_) else f", dtype={self.dtype}"
        device = "" if self.device == "cpu" else f", device='{self.device}'"
        grad = ", requires_grad=True" if self.requires_grad else ""
        return f"tensor({text}{dtype}{device}{grad})"


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
    array = array.astype(_number_dtype(dtype or array.dtype), copy=True)
    return Tensor(place(whole(array), device), requires_grad and _differentiable(array))


def _number_dtype(dtype) -> np.dtype:
    if np.dtype(dtype).kind not in "biuf":
        raise TypeError(f"a tensor holds numbers; {np.dtype(dtype)} is no dtype of real numbers")
    return np.dtype(dtype)


def _differentiable(array) -> bool:
    if array.dtype.kind != "f":
        raise TypeError(f"only floating-point tensors can require gradients, not {array.dtype}")
    return True


# =================================================================================================
# The graph
# =================================================================================================


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

    def recorded_gradients(self, g: Tensor) -> Sequence:
        """What the vjps give, as tensors, computed by operations that are recorded in turn."""
        if self.call is None:
            raise RuntimeError(
                f"create_graph=True needs the inputs of '{self.op}': put the forward pass "
                "under `with tl.higher_order():`"
            )
        op, args, static = self.call
        args = [Tensor(a) if isinstance(a, np.ndarray) else a for a in args]
        if op.composed is None and op.joint:
            needs = tuple(parent is not None for parent in self.parents)
            return op.body(*args, **static, needs=needs)[1](g)
        if op.composed is None:
            _, *vjps = op.body(*args, **static)  # a body on tensors gives vjps on tensors
            return [
                vjp(g) if parent is not None else None for parent, vjp in zip(self.parents, vjps)
            ]
        y = op.composed(*args, **static)
        inputs = {p for p in self.parents if p is not None}
        found = _backward(y, g, True, inputs, through=False, create_graph=True)
        # An input that was given twice gets its whole gradient once.
        return [found.pop(p)[0] if p in found else None for p in self.parents]

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


class Mode(NamedTuple):
    """What calling an operation does beside computing; each thread has its own."""

    record: bool = True
    keep_inputs: bool = False
    check: bool = False
    recomputed: bool = False  # inside checkpoint


_mode = contextvars.ContextVar("tensorlite_mode", default=Mode())  # noqa: B039 (it is a tuple)


class _in_mode:
    """A block, or a decorated function, in which these fields of the mode are different."""

    def __init__(self, **changes):
        self.changes = changes
        self.tokens = []  # one for each time that the block was entered and not left

    def __enter__(self) -> None:
        self.tokens.append(_mode.set(_mode.get()._replace(**self.changes)))

    def __exit__(self, *exception) -> None:
        _mode.reset(self.tokens.pop())

    def __call__(self, function: Callable) -> Callable:
        changes = self.changes  # every call has a block of its own
        if inspect.isasyncgenfunction(function):
            raise TypeError(
                f"a mode cannot decorate the asynchronous generator '{function.__name__}': "
                "put the `with` block inside it, without a yield in the block"
            )
        if inspect.iscoroutinefunction(function):

            async def inside(*args, **kwargs):
                with _in_mode(**changes):
                    return await function(*args, **kwargs)

        elif inspect.isgeneratorfunction(function):

            def inside(*args, **kwargs):
                return _generate_in_mode(function(*args, **kwargs), changes)

        else:

            def inside(*args, **kwargs):
                with _in_mode(**changes):
                    return function(*args, **kwargs)

        return functools.wraps(function)(inside)


def _generate_in_mode(generator, changes: dict):
    """What `generator` yields, where its own code runs in the mode, and its caller's does not."""
    resume, sent = generator.send, None
    while True:
        try:
            with _in_mode(**changes):
                value = resume(sent)
        except StopIteration as stop:
            return stop.value
        try:
            resume, sent = generator.send, (yield value)
        except GeneratorExit:
            with _in_mode(**changes):
                generator.close()
            raise
        except BaseException as error:
            resume, sent = generator.throw, error


def no_grad():
    """A block, or a function under `@no_grad()`, in which nothing is recorded.

    A generator function under it records nothing in its own code; its caller's code, which runs
    between the values, is as it was. The same holds for `higher_order` and `detect_anomaly`.
    """
    return _in_mode(record=False)


def higher_order():
    """A block whose gradients can be differentiated again, by `grad(..., create_graph=True)`.

    Every node made in it also keeps its operation's inputs.
    """
    return _in_mode(record=True, keep_inputs=True)


def detect_anomaly():
    """A block in which the first value or gradient that is infinite or no number raises.

    The FloatingPointError names the operation and the line that called it. A backward is checked
    if it runs in the block too. Slow: every array is looked at.
    """
    return _in_mode(check=True)


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

    def __init__(self, body: Callable, composed: Callable | None, floats: bool, fresh: bool):
        # With an underscore where a function of that name prepares the arguments.
        self.name = self.__name__ = body.__name__.removeprefix("_")
        self.body = body
        self.composed = composed
        self.fresh = fresh
        self.floats = floats
        self.__doc__ = body.__doc__
        self.__module__ = body.__module__
        parameters = inspect.signature(body).parameters.values()
        kinds = [p.kind for p in parameters if p.kind is not p.KEYWORD_ONLY]
        several = inspect.Parameter.VAR_POSITIONAL in kinds and len(kinds) > 1
        if not kinds or several or inspect.Parameter.VAR_KEYWORD in kinds:
            raise TypeError(
                f"the op '{self.name}' has the signature {inspect.signature(body)}; it must have "
                "named arrays, or one *arrays, before its named static parameters"
            )
        self.joint = any(p.name == "needs" for p in parameters)
        self.variadic = any(p.kind is p.VAR_POSITIONAL for p in parameters)
        self.arrays = [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY]
        seen = [p for p in parameters if p.name != "needs"]
        self.__signature__ = inspect.Signature(
            [p.replace(kind=p.POSITIONAL_OR_KEYWORD) for p in seen]
        )
        self.defaults = {p.name: p.default for p in seen}
        # A call with so many arguments and none by name needs no binding.
        self.n_plain = -1 if self.variadic else len(self.arrays)

    def __get__(self, instance, owner=None):  # so that `Tensor.sum = sum` makes a method
        return self if instance is None else MethodType(self, instance)

    def __repr__(self) -> str:
        return f"<op {self.name}{self.__signature__}>"

    def __call__(self, *args, **static) -> Tensor:
        if static or len(args) != self.n_plain:
            args, static = self._bind(args, static)
        recording, keep_inputs, check, _ = _mode.get()
        values, parents, needed = [], [], False
        for a in args:
            parent = None
            if isinstance(a, Tensor):
                if recording:
                    parent = a if a._requires_grad else a.node  # a leaf itself, or what made it
                    if parent is not None:
                        needed = True
                a = a.data
            elif type(a) is not float:
                a = _operand(a, self.name, args)
            values.append(a)
            parents.append(parent)
        given, stored = values, None
        if self.composed is not None:
            values, stored = _of_one_dtype(values, self.floats)
        elif self.floats:
            values = [_as_float(v) for v in values]
        call = (self, args, dict(static)) if keep_inputs else None
        if self.joint:
            static["needs"] = tuple(parent is not None for parent in parents)

        try:
            result = self.body(*values, **static) if static else self.body(*values)
        except (TypeError, AttributeError):
            _check_devices(values, self.name)
            if any(hasattr(v, "dtype") for v in values) or all(v is None for v in values):
                raise
            static.pop("needs", None)  # nothing but Python numbers: as tensors
            return self(*(v if v is None else tensor(v) for v in values), **static)

        if result.__class__ is not tuple or len(result) < 2:
            raise TypeError(self._wrong_result(result, len(values)))
        value, *vjps = result
        if value.__class__ is not np.ndarray:
            if isinstance(value, (np.generic, int, float)):
                value = np.asarray(value)  # NumPy turns 0-d results into scalars
            elif isinstance(value, Tensor) or not hasattr(value, "dtype"):
                raise TypeError(self._wrong_value(value))
        dtype = value.dtype
        if dtype.char in "de" and "dtype" not in static and not _has(dtype.char, given):
            value = value.astype(np.float32)  # NumPy: float32 * int64 and exp(int64) are float64
        if stored is not None and value.dtype != stored:
            value = value.astype(stored)
        origin = _check(value, self.name) if check else ""
        if not needed or dtype.kind != "f":
            return Tensor(value)
        if len(vjps) != (1 if self.joint else len(parents)):
            raise TypeError(self._wrong_result(result, len(values)))
        if self.joint:
            (vjps,) = vjps  # one function for all inputs, instead of a list with one for each
        else:
            for i, parent in enumerate(parents):
                if parent is None:
                    vjps[i] = None
                elif vjps[i] is None:
                    raise TypeError(self._no_gradient(self._input(i)))
        try:
            node = Node(self.name, parents, vjps, value, values, call, origin, self.fresh)
        except AttributeError:
            for vjp in [vjps] if self.joint else vjps:
                if vjp is not None and not hasattr(vjp, "__closure__"):
                    raise TypeError(
                        f"op '{self.name}' gave an object of type {type(vjp).__name__} for a vjp; "
                        "a vjp is a def or a lambda, where the engine finds the arrays to protect"
                    ) from None
            raise
        return Tensor(value, False, node)

    def _bind(self, args, kwargs):
        """Arguments as the caller gave them -> the arrays in order, the statics by name."""
        bound = dict(zip(self.defaults, args)) | kwargs
        if len(bound) < len(args) + len(kwargs) or not bound.keys() <= self.defaults.keys():
            self._misuse(args, kwargs)
        arrays = []
        for name in self.arrays:
            value = bound.pop(name, self.defaults[name])
            if value is inspect.Parameter.empty:
                self._misuse(args, kwargs)
            arrays.append(value)
        for name, value in bound.items():
            if isinstance(value, Tensor):
                if value.requires_grad and _mode.get().record:
                    raise TypeError(self._no_gradient(name))
                bound[name] = value.data
        return (arrays[0] if self.variadic else arrays), bound

    def _wrong_result(self, result, n: int) -> str:
        gave = f"an object of type {type(result).__name__}"
        if type(result) is tuple:
            gave = f"a tuple of {len(result)}"
        wanted = "one vjp that gives all gradients" if self.joint else "one vjp for each input"
        length = 2 if self.joint else n + 1
        return (
            f"the body of op '{self.name}' gave {gave}; it must give its value and {wanted}, "
            f"here a tuple of {length}"
        )

    def _wrong_value(self, value) -> str:
        return (
            f"the body of op '{self.name}' gave a value of type {type(value).__name__}; the value "
            "must be one array, computed from arrays by NumPy's functions"
        )

    def _misuse(self, args, kwargs) -> None:
        """Raise the TypeError that Python would for these arguments, with the operation's name."""
        try:
            self.__signature__.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{self.name}{self.__signature__}: {error}") from None

    def _no_gradient(self, name: str) -> str:
        return f"{self.name}: no gradient flows into '{name}'; pass it detached"

    def _input(self, i: int) -> str:
        return f"{self.arrays[0]}[{i}]" if self.variadic else self.arrays[i]


def op(
    body: Callable | None = None,
    *,
    composed: Callable | None = None,
    floats: bool | None = None,
    fresh: bool = False,
):
    """Make an `Op` of a body on arrays and register it in `OPS`.

    `composed` is the definition by simpler operations that a fused one must equal. A fused body is
    given arrays of one dtype. With `floats`, as fused operations have it unless they say otherwise,
    a body is given integers as floating-point numbers of at least 32 bits.
    `fresh` promises that each call of a vjp gives arrays that it has made, and that nobody else
    holds: the engine adds to them in place.

    Raises ValueError for the name of one of the engine's own operations, and TypeError for a
    signature that does not fit; the operation raises TypeError when the body does not give a value
    and its vjps.
    """
    if body is None:
        return lambda body: op(body, composed=composed, floats=floats, fresh=fresh)
    made = Op(body, composed, composed is not None if floats is None else floats, fresh)
    there, ours = OPS.get(made.name), f"{__package__}."
    if there and there.__module__.startswith(ours) and not made.__module__.startswith(ours):
        raise ValueError(
            f"an op named '{made.name}' exists already, in {there.__module__}, and the engine may "
            "depend on it: give the function another name"
        )
    OPS[made.name] = made
    return made


def _operand(value, name: str, beside: Sequence = ()):
    """What the body sees of an operand that is no tensor, `beside` all the others."""
    if isinstance(value, float):
        return float(value)  # np.float64 is a float, but would make float32 arrays float64
    if value is None or isinstance(value, int):
        return value
    if isinstance(value, (list, tuple)):
        value = np.asarray(value)
        if value.dtype == np.float64 and not _has("d", beside):
            value = value.astype(np.float32)
    if not is_array(value) or value.dtype.kind not in "biuf":
        kind = value.dtype if is_array(value) else type_name(value)
        raise TypeError(f"{name} takes tensors, arrays and numbers, not {kind}")
    return value


def is_array(value) -> bool:
    """Whether `value` is an array or a scalar of NumPy or CuPy: not one of another library."""
    return isinstance(getattr(value, "dtype", None), np.dtype)


def type_name(value) -> str:
    kind = type(value)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"


def _as_float(value):
    """An integer array as floating-point numbers: exactly, or to 53 bits of large integers.

    NumPy would compute functions of 8-bit integers in float16.
    """
    if not hasattr(value, "dtype") or value.dtype.kind == "f":
        return value
    return value.astype(np.float32 if value.dtype.itemsize < 4 else np.float64)


def _of_one_dtype(values: list, floats: bool) -> tuple[list, np.dtype | None]:
    """The arrays that a fused body works on, and the dtype of its value if it is another.

    Different dtypes become the larger one; with `floats`, integers become floating-point numbers.
    float16 is how numbers are stored, sums are made in float32.
    """
    dtypes = {v.dtype for v in values if hasattr(v, "dtype")}
    real = [d for d in dtypes if d.kind == "f"]
    if len(dtypes) == 1 and (real[0] != np.float16 if real else not floats):
        return values, None
    if not floats and not real:
        stored = dtype = np.result_type(*dtypes)
    else:
        values = [_as_float(v) for v in values]
        stored = np.result_type(*real) if real else np.dtype(np.float32)
        dtype = np.result_type(np.float32, *(v.dtype for v in values if hasattr(v, "dtype")))
    values = [v.astype(dtype) if hasattr(v, "dtype") and v.dtype != dtype else v for v in values]
    return values, stored


def _check_devices(values: list, name: str) -> None:
    arrays = [v for v in values if hasattr(v, "dtype") and not isinstance(v, np.generic)]
    if len({isinstance(v, np.ndarray) for v in arrays}) > 1:
        raise TypeError(
            f"{name}: operands on the cpu and on cuda; .to(device) brings them together"
        )


def _has(char: str, values) -> bool:
    """Whether one of the operands is of that dtype: "d" is float64, "e" float16."""
    for value in values:
        if hasattr(value, "dtype") and getattr(value.dtype, "char", None) == char:
            return True
    return False


def _check(value, name: str, what: str = "value", origin: str = "") -> str:
    """Raise for a value that is not finite; returns the line of the user that called."""
    if not origin:
        frames = traceback.extract_stack()
        here = os.path.dirname(__file__)
        user = [f for f in frames if os.path.dirname(f.filename) != here]
        origin = f"{user[-1].filename}:{user[-1].lineno}: {user[-1].line}" if user else "?"
    if value.dtype.kind == "f" and not np.all(np.isfinite(value)):
        raise FloatingPointError(f"the {what} of '{name}' is not finite, called at {origin}")
    return origin


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
            found = _backward(output, gradient, True, set(keys), create_graph=True)
            return tuple(
                OPS["astype"](found[key][0], x.dtype)  # a copy, as below
                if key in found
                else Tensor(np.zeros_like(x.data))
                for key, x in zip(keys, inputs)
            )
    found = _backward(output, gradient, retain_graph, set(keys))
    # Copied, for one array may be the gradient of several inputs: x + y passes on what it got.
    return tuple(
        Tensor(found[key][0].copy() if key in found else np.zeros_like(x.data))
        for key, x in zip(keys, inputs)
    )


def _backward(
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
            g = np.asarray(_array(g), dtype=output.dtype, like=output.data)
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
    useful = None if wanted is None else _between(root, wanted, through)
    held, found = {root: (g, False)}, {}
    check = _mode.get().check
    uses = _count_uses(root) if ready else {}
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
            with _in_mode(check=False):  # the composed definitions may pass through infinity
                together = node.recorded_gradients(g)
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
                _check(_array(new_array), node.op, f"gradient for input {i}", node.origin)
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


def _hand_over(leaf: Tensor, g, owned: bool, ready: Callable) -> None:
    ready(leaf, whole(g) if owned else whole(g.copy()))


def _count_uses(root) -> Counter:
    """How many inputs of the nodes below `root` each leaf is."""
    uses, stack, seen = Counter(), [root], set()
    while stack:
        node = stack.pop()
        if isinstance(node, Tensor):
            uses[node] += 1
        elif node is not None and node not in seen:
            seen.add(node)
            stack.extend(node.parents)
    return uses


def _between(root, wanted: set, through: bool) -> set:
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


def whole(x):
    """An array, also where NumPy has made a scalar of a 0-d result."""
    return np.asarray(x) if isinstance(x, np.generic) else x


def _fit(new, parent, node: Node, i: int):
    """What the vjp for input `i` returned, as an array of the shape and dtype of that input."""
    if new.shape != parent.shape:
        if not _broadcasts(parent.shape, new.shape):
            raise ValueError(
                f"the vjp of '{node.op}' gave input {i}, of shape {parent.shape}, "
                f"a gradient of shape {new.shape}"
            )
        new = unbroadcast(new, parent.shape)
    if new.dtype != parent.dtype:
        new = new.astype(parent.dtype)
    return new


def _array(x):
    """The array of a tensor; anything else as it is."""
    return x.data if isinstance(x, Tensor) else x


def _broadcasts(shape: tuple, to: tuple) -> bool:
    """Whether an array of `shape` stretches to the shape `to`."""
    return len(shape) <= len(to) and all(n in (1, m) for n, m in zip(shape[::-1], to[::-1]))


def unbroadcast(g, shape: tuple[int, ...]):
    """Sum `g` over the axes that broadcasting added to or stretched in an array of `shape`.

    Broadcasting copies values along an axis; the gradient of a copy is a sum.
    """
    added = g.ndim - len(shape)
    stretched = [added + i for i, n in enumerate(shape) if n == 1]
    return wide_sum(g, (*range(added), *stretched)).reshape(shape)


def wide_sum(x, axis, keepdims: bool = False):
    """np.sum, in which float16 is how numbers are stored and float32 how they are added."""
    if x.dtype == np.float16 and not isinstance(x, Tensor):
        return np.sum(x, axis=axis, keepdims=keepdims, dtype=np.float32).astype(x.dtype)
    return np.sum(x, axis=axis, keepdims=keepdims)


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
