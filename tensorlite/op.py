"""`@op`, which makes a function of tensors from a body that computes with arrays.

A call of an operation binds its arguments, takes the arrays out of the tensors, settles the dtypes,
runs the body, and records a `Node` if an input needs a gradient. tensor.py, which comes before this
file, uses the recorded nodes in the backward pass; ops.py, which comes next, declares operations.

HIPS autograd does the same in two steps, `primitive` for the value and `defvjp` for the gradients.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from types import MethodType

import numpy as np

from .arraylike import BFLOAT16, bfloat16, is_array, is_float, is_half, on_gpu, type_name
from .device import place
from .graph import Node
from .modes import check_finite, mode
from .tensor import OPS, Tensor, tensor

# Arguments of NumPy's functions that operations lack, and what to do instead.
WAY_OUT = {
    "dtype": "convert with .astype(dtype)",
    "out": "operations give new tensors",
    "where": "use tl.where(mask, x, number) first",
    "initial": "combine it with the result",
    "mode": "apply np.pad or np.clip to indices, and index with the result",
    "order": "only the order 'C' is supported",
}


_SCALARS = np.generic, int, float


class Op:
    """An operation on tensors, which `@op` makes from a body on arrays.

    In the body's signature, parameters before the `*` are arrays that may need a gradient, and
    those after it are static; callers may pass either by position or by name. A body with `*arrays`
    makes an operation that takes one sequence of arrays. The body returns its value and one vjp per
    array, or None instead of a vjp for an array to which no gradient can flow.

    A body with a parameter `needs` is told which arrays need a gradient, as a tuple of bools. It
    returns its value and a single vjp, which returns one gradient per array, or None for an array
    that needs no gradient.

    A vjp should capture only what it uses, since captured arrays stay in memory until the backward
    pass: the shape of an array, for example, and not the array. It never writes into the gradient
    that it is given. It returns an array of the input's shape, or of a shape to which the input
    broadcasts, or a `Part` or a `Deferred` (graph.py).
    """

    def __init__(
        self,
        body: Callable,
        composed: Callable | None,
        floats: bool,
        fresh: bool,
        moves: bool = False,
        gpu: str | None = None,
    ):
        # The body's name has an underscore if a function of the same name prepares the arguments.
        self.name = self.__name__ = body.__name__.removeprefix("_")
        self.body = body
        self.composed = composed
        self.fresh = fresh
        self.floats = floats
        self.moves = moves
        self.gpu = gpu
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
        if any(p.name == "needs" and p.kind is not p.KEYWORD_ONLY for p in parameters):
            raise TypeError(f"the op '{self.name}' must have its parameter `needs` after a `*`")
        self.joint = any(p.name == "needs" for p in parameters)
        self.variadic = any(p.kind is p.VAR_POSITIONAL for p in parameters)
        self.arrays = [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY]
        seen = [p for p in parameters if p.name != "needs"]
        self.__signature__ = inspect.Signature(
            [p.replace(kind=p.POSITIONAL_OR_KEYWORD) for p in seen]
        )
        self.defaults = {p.name: p.default for p in seen}
        self.n_results = 2 if self.joint else 0 if self.variadic else 1 + len(self.arrays)
        # A call with this many arguments, all given by position, needs no binding.
        self.n_plain = -1 if self.variadic else len(self.arrays)

    def __get__(self, instance, owner=None):  # so that `Tensor.sum = sum` makes a method
        return self if instance is None else MethodType(self, instance)

    def __repr__(self) -> str:
        return f"<op {self.name}{self.__signature__}>"

    def __call__(self, *args, **static) -> Tensor:
        if static or len(args) != self.n_plain:
            args, static = self._bind(args, static)
        recording, keep_inputs, check, _, _ = mode.get()
        values, parents, needed = [], [], False
        for a in args:
            parent = None
            if isinstance(a, Tensor):
                if recording:
                    parent = a if a._requires_grad else a.node  # the leaf, or the node of a result
                    if parent is not None:
                        needed = True
                a = a.data
            elif type(a) is not float:
                a = operand(a, self.name, args)
            values.append(a)
            parents.append(parent)
        call = None
        if keep_inputs:
            kept = [a if isinstance(a, Tensor) else v for a, v in zip(args, values)]
            call = self, kept, {name: _copied(v) for name, v in static.items()}
        if self.joint:
            static["needs"] = tuple(parent is not None for parent in parents)
        given, stored, result = values, None, NotImplemented
        if self.gpu and values[0].__class__ is not np.ndarray and on_gpu(values):
            result = _kernels().run(self.gpu, self.name, values, static)
        plain = result is NotImplemented
        if plain:
            if self.composed is not None:
                values, stored = _of_one_dtype(values, self.floats)
            else:
                if BFLOAT16 and not self.moves:
                    values, stored = _widened(values)
                if self.floats:
                    values = [_as_float(v) for v in values]

        try:
            if plain:
                result = self.body(*values, **static) if static else self.body(*values)
        except (TypeError, AttributeError):
            _check_devices(values, self.name)
            for name, value in zip(self.arrays, values):
                if value is None and self.defaults[name] is inspect.Parameter.empty:
                    raise TypeError(
                        f"{self.name}: '{name}' is None; it must be a tensor, an array or a number"
                    ) from None
            if any(hasattr(v, "dtype") for v in values) or all(v is None for v in values):
                raise
            static.pop("needs", None)  # all arguments are Python numbers: make them tensors
            return self(*(v if v is None else tensor(v) for v in values), **static)

        if result.__class__ is not tuple or len(result) != (self.n_results or len(values) + 1):
            raise TypeError(self._wrong_result(result, len(values)))
        vjps = list(result)
        value = vjps.pop(0)
        if value.__class__ is not np.ndarray:
            if isinstance(value, _SCALARS):
                value = np.asarray(value)  # NumPy turns 0-d results into scalars
            elif isinstance(value, Tensor) or not hasattr(value, "dtype"):
                raise TypeError(self._wrong_value(value))
        dtype = value.dtype
        if plain and dtype.char in "de" and not (given and getattr(given[0], "dtype", 0) is dtype):
            if "dtype" not in static and not _has(dtype.char, given):
                value = value.astype(np.float32)  # NumPy makes float32 * int64, exp(int64) float64
        if stored is not None and value.dtype != stored and value.dtype.kind == "f":
            value = value.astype(stored)
        origin = check_finite(value, self.name) if check else ""
        if not needed or not (dtype.kind == "f" or is_float(dtype)):
            return Tensor(value)
        if self.joint:
            (vjps,) = vjps  # one function for all inputs, instead of a list of one per input
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
                        "a vjp must be a def or a lambda, so that the engine finds its arrays"
                    ) from None
            raise
        if stored is not None and stored.kind != "f":
            node.dtype = np.dtype(np.float32)  # what the vjps have captured
        return Tensor(value, False, node)

    def _bind(self, args, kwargs):
        """Sort the caller's arguments into (arrays in order, static arguments by name)."""
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
                if value.requires_grad and mode.get().record:
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
        """Raise Python's TypeError for arguments that do not fit, with the operation's name."""
        try:
            self.__signature__.bind(*args, **kwargs)
        except TypeError as error:
            ways = [WAY_OUT[name] for name in kwargs if name in WAY_OUT]
            words = "; ".join([str(error), *ways])
            raise TypeError(f"{self.name}{self.__signature__}: {words}") from None

    def _no_gradient(self, name: str) -> str:
        return f"{self.name}: no gradient flows into '{name}'; pass it detached"

    def _input(self, i: int) -> str:
        return f"{self.arrays[0]}[{i}]" if self.variadic else self.arrays[i]


@functools.cache
def _kernels():
    """The kernels for a GPU, which a CPU does without."""
    from . import kernels

    return kernels


def op(
    body: Callable | None = None,
    *,
    composed: Callable | None = None,
    floats: bool | None = None,
    fresh: bool = False,
    moves: bool = False,
    gpu: str | None = None,
):
    """Make an `Op` from a body on arrays and register it in `OPS`.

    `composed` makes the operation a fused one: it is the definition by simpler operations, which
    the body must agree with in value and gradients. The body of a fused operation is given arrays
    of one dtype. With `floats` (by default True for fused operations and False for others), the
    body is given integers as floating-point numbers of at least 32 bits. `fresh` promises that
    each call of a vjp returns newly allocated arrays to which nothing else refers, so that the
    engine may add to them in place. `moves` says that the body only rearranges numbers, so that it
    is given those of 16 bits as they are. `gpu` names the file in kernels/ that has another body of
    this name, for arrays on a GPU.

    Raises ValueError for the name of one of the engine's own operations, and TypeError for a
    signature that does not fit. Calling the operation raises TypeError if the body does not return
    a value and its vjps.
    """
    if body is None:
        return lambda body: op(
            body, composed=composed, floats=floats, fresh=fresh, moves=moves, gpu=gpu
        )
    floats = composed is not None if floats is None else floats
    made = Op(body, composed, floats, fresh, moves, gpu)
    there, ours = OPS.get(made.name), f"{__package__}."
    if there and there.__module__.startswith(ours) and not made.__module__.startswith(ours):
        raise ValueError(
            f"an op named '{made.name}' exists already, in {there.__module__}, and the engine may "
            "depend on it: give the function another name"
        )
    OPS[made.name] = made
    return made


# =================================================================================================
# Operands
# =================================================================================================


def operand(value, name: str, beside: Sequence = ()):
    """What the body is given for `value`, an operand that is not a tensor.

    `beside` has all operands of the call: a list beside a tensor on a GPU is put there too. Raises
    TypeError unless `value` is a number, an array or a list of numbers.
    """
    if isinstance(value, float):
        return float(value)  # np.float64 is a float too, but would turn float32 into float64
    if value is None or isinstance(value, int):
        return value
    if isinstance(value, (list, tuple)):
        value = np.asarray(value)
        if value.dtype == np.float64 and not _has("d", filter(is_array, beside)):
            value = value.astype(np.float32)
        if any(isinstance(b, Tensor) and b.device == "cuda" for b in beside):
            value = place(value, "cuda")
    if not is_array(value) or (value.dtype.kind not in "biuf" and not is_float(value.dtype)):
        kind = value.dtype if is_array(value) else type_name(value)
        raise TypeError(f"{name} takes tensors, arrays and real numbers, not {kind}")
    if value.dtype.kind == "V":
        bfloat16()  # from now on operations look for it
    return value


def _copied(value):
    """A list with copies of its lists, which a user may change; anything else unchanged."""
    return type(value)(map(_copied, value)) if type(value) in (list, tuple) else value


def _as_float(value):
    """An integer array converted to floating point: exact, except that float64 keeps 53 bits.

    NumPy by itself would compute functions of 8-bit integers in float16.
    """
    if not hasattr(value, "dtype") or value.dtype.kind == "f":
        return value
    narrow = value.dtype.itemsize < 4  # among them bfloat16
    return value.astype(np.float32 if narrow else np.float64)


def _of_one_dtype(values: list, floats: bool) -> tuple[list, np.dtype | None]:
    """The arrays for a fused body, all of one dtype, and the dtype to convert its value to or None.

    Arrays of different dtypes are promoted to a common one; with `floats`, integers are converted
    to floating point. Numbers of 16 bits are only stored: the body computes in float32.
    """
    dtypes = {v.dtype for v in values if hasattr(v, "dtype")}
    real = [d for d in dtypes if is_float(d)]
    if len(dtypes) == 1 and (not is_half(real[0]) if real else not floats):
        return values, None
    if not floats and not real:
        stored = dtype = np.result_type(*dtypes)
    else:
        values = [_as_float(v) for v in values]
        stored = _common(real) if real else np.dtype(np.float32)
        dtype = np.result_type(np.float32, *(v.dtype for v in values if hasattr(v, "dtype")))
    values = [v.astype(dtype) if hasattr(v, "dtype") and v.dtype != dtype else v for v in values]
    return values, stored


def _common(real: list) -> np.dtype:
    """The dtype that numbers of these floating-point dtypes have together."""
    halves = [d for d in real if is_half(d)]
    if len(halves) == 2:  # float16 and bfloat16, neither of which holds the other's numbers
        real = [np.dtype(np.float32), *(d for d in real if d not in halves)]
    return np.result_type(*real)


def _widened(values: list) -> tuple[list, np.dtype | None]:
    """The values with bfloat16 as float32, and bfloat16 where no operand is wider, else None."""
    dtypes = {v.dtype for v in values if hasattr(v, "dtype") and is_float(v.dtype)}
    low = [d for d in dtypes if d.kind != "f"]
    if not low:
        return values, None
    wide = [
        v.astype(np.float32) if hasattr(v, "dtype") and v.dtype == low[0] else v for v in values
    ]
    return wide, low[0] if len(dtypes) == 1 else None


def _check_devices(values: list, name: str) -> None:
    arrays = [v for v in values if hasattr(v, "dtype") and not isinstance(v, np.generic)]
    if len({isinstance(v, np.ndarray) for v in arrays}) > 1:
        raise TypeError(
            f"{name}: operands are on the cpu and on cuda; move them together with .to(device)"
        )


def _has(char: str, values) -> bool:
    """Whether an operand has the dtype with this character code: "d" is float64, "e" float16."""
    for value in values:
        if hasattr(value, "dtype") and value.dtype.char == char:
            return True
    return False
