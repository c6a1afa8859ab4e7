"""A device that we do not have: arrays that behave as CuPy's do, over NumPy's.

What runs on a `StrictArray` would run on a GPU. It refuses what CuPy refuses: conversion to NumPy
without `.get()`, operands that are NumPy arrays, functions, keywords and dtypes that CuPy lacks
(cupy_api.json, written by benchmarks/cupy_api.py from the real package). It raises where CuPy is
silently wrong: index arrays out of range, writing to a `broadcast_to` view; memory from `empty` is
poisoned. And it notes in `waits` whatever would make the program wait for the GPU.
"""

from __future__ import annotations

import inspect
import json
import linecache
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np

API = json.loads(Path(__file__).with_name("cupy_api.json").read_text())

# =================================================================================================
# Waits
# =================================================================================================


class Wait(NamedTuple):
    """What waited ("item"), the source line that asked for it, and where that is."""

    kind: str
    line: str
    where: str


waits: list[Wait] = []
# Who passes on what somebody else asked for: this file, NumPy, and ArrayLike's own `item`.
_BETWEEN = (__file__, str(Path(np.__file__).parent), str(Path("tensorlite", "arraylike.py")))


def _wait(kind: str) -> None:
    frame = sys._getframe(1)
    while any(part in frame.f_code.co_filename for part in _BETWEEN):
        frame = frame.f_back
    file, number = frame.f_code.co_filename, frame.f_lineno
    waits.append(Wait(kind, linecache.getline(file, number).strip(), f"{file}:{number}"))


# =================================================================================================
# Into the array and out of it
# =================================================================================================


def to_device(array, dtype=None):
    """A StrictArray with a copy of what NumPy makes of `array`; one that is given stays itself."""
    if isinstance(array, StrictArray) and dtype in (None, array.dtype):
        return array
    return StrictArray(np.array(_plain(array, host=True), dtype=dtype))


def _plain(value, host: bool = False):
    """The NumPy array inside, also in lists and tuples. Arrays of the host are refused."""
    if isinstance(value, StrictArray):
        return value._array
    if isinstance(value, np.ndarray) and not host:
        raise TypeError("a NumPy array where one of the device is expected: move it there first")
    if isinstance(value, (list, tuple)):
        return type(value)(_plain(v, host) for v in value)
    return value


def _wrap(value):
    if isinstance(value, (np.ndarray, np.generic)):
        return StrictArray(np.asarray(value))
    if isinstance(value, (list, tuple)):
        return type(value)(map(_wrap, value)) if type(value) in (list, tuple) else value
    return value


def _compute(function, *args, **kwargs):
    with np.errstate(all="ignore"):  # a GPU does not warn
        return function(*args, **kwargs)


def _signature(text: str | None):
    """What binds arguments as the function of these parameters would; None: any."""
    if text is None:
        return None
    text = "".join(
        f"{part}None, " if part.endswith("=") else f"{part}, " for part in text.split(", ") if part
    )
    return inspect.signature(eval(f"lambda {text}: None"))


SIGNATURES = {name: _signature(text) for name, text in API["functions"].items()}


def _check(name: str, signature, args, kwargs) -> None:
    if signature is not None:
        try:
            signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"cupy.{name}{signature}: {error}") from None
    if name.endswith("sort") and kwargs.get("kind") not in (None, "stable"):
        raise ValueError(f"cupy.{name} takes kind None or 'stable', not {kwargs['kind']!r}")
    if name == "astype" and kwargs.get("casting") is not None:
        raise TypeError("casting is not supported yet")


def _poison(array: np.ndarray) -> np.ndarray:
    """Fill memory that `empty` left as it was with what nobody takes for a result."""
    kind = array.dtype.kind
    array[...] = np.nan if kind in "fc" else True if kind == "b" else np.iinfo(array.dtype).max
    return array


def _index(index):
    """An index as NumPy takes it; index arrays may live on the host."""

    def part(i):
        if isinstance(i, slice):
            return slice(*map(bound, (i.start, i.stop, i.step)))
        if isinstance(i, (StrictArray, np.ndarray)) and i.dtype.kind == "b":
            _wait("boolean mask")  # how many elements there are shapes the result
        return i._array if isinstance(i, StrictArray) else i

    def bound(i):
        return int(i) if isinstance(i, StrictArray) else i

    return tuple(map(part, index)) if isinstance(index, tuple) else part(index)


# =================================================================================================
# The array
# =================================================================================================

# Functions whose result, or its shape, the host must know before it goes on.
WAITING = {"nonzero", "flatnonzero", "argwhere", "unique", "bincount", "extract", "compress"}
WAITING |= {"array2string", "array_repr", "array_str", "histogram", "roots"}
ADD_AT = "ilILefd"  # the dtypes whose atomic additions CuPy has


class StrictArray:
    """An array of the strict device; `_array` holds the values."""

    __slots__ = ("_array",)
    __hash__ = None

    def __init__(self, array: np.ndarray):
        if array.dtype.kind not in "biufc":
            raise ValueError(f"the device holds numbers, not {array.dtype}")
        self._array = array

    def __array__(self, *args, **kwargs):
        raise TypeError("no implicit conversion to a NumPy array; use .get()")

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **kwargs):
        if any(_foreign(x) for x in inputs):
            return NotImplemented
        name = ufunc.__name__
        if name in API["functions"]:  # matmul and its like
            _check(name, SIGNATURES[name], inputs, kwargs)
        elif name not in API["ufuncs"]:
            raise TypeError(f"there is no cupy.{name}")
        elif unknown := kwargs.keys() - _keywords(name, method):
            raise TypeError(f"cupy.{name} does not take {sorted(unknown)} ({method})")
        if method == "at":
            return self._at(ufunc, *inputs)
        values = _plain(inputs)
        if method == "__call__" and name in API["ufuncs"]:
            _check_types(name, values)
        if out is not None:
            (out,) = out if isinstance(out, tuple) else (out,)
            if not isinstance(out, StrictArray):
                raise TypeError("out= is an array of the device")
            kwargs["out"] = out._array
        result = _compute(getattr(ufunc, method), *values, **kwargs)
        return _wrap(result) if out is None else out

    def _at(self, ufunc, x, index, *values):
        if ufunc is not np.add or x.dtype.char not in ADD_AT:
            raise TypeError(f"cupy.{ufunc.__name__}.at does not take {x.dtype}")
        if isinstance(index, tuple):
            raise TypeError("NumPy hands no tuple of indices on to CuPy; cupy.add.at takes one")
        ufunc.at(_plain(x), _index(index), *_plain(values))

    def __array_function__(self, function, types, args, kwargs):
        if not all(issubclass(t, (StrictArray, np.ndarray)) for t in types):
            return NotImplemented
        module = function.__module__.removeprefix("numpy").removeprefix(".")
        name = f"{module}.{function.__name__}" if module else function.__name__
        if name not in SIGNATURES:
            raise TypeError(f"there is no cupy.{name}")
        _check(name, SIGNATURES[name], args, kwargs)
        if name in ("array", "asarray", "asanyarray", "ascontiguousarray"):
            return to_device(*args, **kwargs)
        if name == "where":
            if not isinstance(args[0], StrictArray):
                raise TypeError("cupy.where takes a condition on the device")
            if len(args) + len(kwargs) == 1:
                _wait("one-argument where")
        if name.endswith("_like") and kwargs.get("shape", 1) in (0, ()):
            raise ValueError(f"cupy.{name} ignores shape={kwargs['shape']}; (0,) is not ignored")
        if name in WAITING or (name == "repeat" and isinstance(args[1], StrictArray)):
            _wait(name)
        if name in ("copyto", "put_along_axis", "fill_diagonal"):
            if not isinstance(args[0], StrictArray):
                raise TypeError(f"cupy.{name} writes to arrays of the device")
        if name in ("take", "take_along_axis"):  # index arrays may live on the host
            result = _compute(function, _plain(args[0]), *_plain(args[1:], host=True), **kwargs)
            return _wrap(result)
        out = kwargs.get("out")
        kwargs = {key: _plain(value) for key, value in kwargs.items()}
        result = _compute(function, *_plain(args), **kwargs)
        if name in ("empty", "empty_like"):
            _poison(result)
        if name == "broadcast_arrays":
            for array in result:
                array.flags.writeable = False
        if name in ("allclose", "array_equal"):  # these stay on the device
            result = np.asarray(result)
        return _wrap(result) if out is None else out

    # ---- indexing ----

    def __getitem__(self, index):
        index = _index(index)
        result = self._array[index]
        if isinstance(result, np.generic):  # NumPy's scalar is a copy, CuPy's 0-d array a view
            result = self._array[(*index, ...) if isinstance(index, tuple) else (index, ...)]
        return StrictArray(result)

    def __setitem__(self, index, value):
        if not isinstance(value, (StrictArray, int, float, complex, np.generic)):
            raise ValueError(f"{type(value).__name__} cannot be assigned: move it to the device")
        self._array[_index(index)] = _plain(value)

    def __len__(self):
        return len(self._array)

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    # ---- what waits ----

    def get(self, stream=None, order="C", out=None, blocking=True) -> np.ndarray:
        _wait("get")
        return self._array.copy()

    def item(self):
        _wait("item")
        return self._array.item()

    def __bool__(self):
        _wait("bool")
        return bool(self._array)

    def __int__(self):
        _wait("int")
        return int(self._array)

    def __float__(self):
        _wait("float")
        return float(self._array)

    def __repr__(self):
        _wait("str")
        return repr(self._array)

    def __format__(self, spec):
        _wait("str")
        return format(self._array, spec)

    def __copy__(self):
        return self.copy()

    def __deepcopy__(self, memo):
        return self.copy()

    @property
    def flags(self):
        """No `writeable`: an array of the device cannot be made read-only."""
        flags = self._array.flags
        return SimpleNamespace(
            c_contiguous=flags.c_contiguous, f_contiguous=flags.f_contiguous, owndata=flags.owndata
        )


def _foreign(value) -> bool:
    """Whether another type, such as Tensor, takes part and is to decide."""
    known = (StrictArray, np.ndarray, np.generic)
    return hasattr(value, "__array_ufunc__") and not isinstance(value, known)


def _keywords(name: str, method: str) -> set[str]:
    """What the method of a ufunc takes; sum, product and their like exist for few."""
    if method in ("reduce", "accumulate") and name in ("add", "multiply"):
        return {"axis", "dtype"} | ({"keepdims"} if method == "reduce" else set())
    if method == "reduceat" and name == "add":
        return {"axis", "dtype"}
    if method == "__call__":
        return {"dtype", "casting"}
    if method in ("outer", "at"):
        return set()
    raise TypeError(f"cupy.{name}.{method} is not supported yet")


def _check_types(name: str, values) -> None:
    """Raise TypeError unless a loop of CuPy's ufunc takes the dtypes of all arrays."""
    dtypes = [(i, v.dtype) for i, v in enumerate(values) if hasattr(v, "dtype")]
    for loop in API["ufuncs"][name].split():
        if all(np.can_cast(dtype, loop[i]) for i, dtype in dtypes):
            return
    raise TypeError(f"cupy.{name} has no loop for {[str(dtype) for _, dtype in dtypes]}")


def _operator(ufunc, reflected=False, in_place=False):
    def binary(x, y):
        return ufunc(y, x) if reflected else ufunc(x, y, out=x) if in_place else ufunc(x, y)

    return binary


def _method(name: str):
    signature, numpys = _signature(API["ndarray"][name]), getattr(np.ndarray, name)

    def method(self, *args, **kwargs):
        _check(name, signature, args, kwargs)
        if name in ("tolist", "tobytes", "nonzero", "compress", "dump", "dumps", "tofile"):
            _wait(name)
        if name == "repeat" and isinstance(args[0], StrictArray):
            _wait("repeat")
        out = kwargs.get("out")
        kwargs = {key: _plain(value) for key, value in kwargs.items()}
        result = _compute(numpys, self._array, *_plain(args), **kwargs)
        if name in ("tolist", "tobytes", "dumps"):
            return result
        return _wrap(result) if out is None else out

    return method


def _attribute(name: str):
    return property(lambda self: _wrap(getattr(self._array, name)))


for _name, _text in API["ndarray"].items():
    if _name in vars(StrictArray) or not hasattr(np.ndarray, _name):
        continue
    if _text is not None:
        setattr(StrictArray, _name, _method(_name))
    elif _name not in ("base", "data", "flat"):  # would lead to memory of the host
        setattr(StrictArray, _name, _attribute(_name))
_ARITHMETIC = dict(add="add", sub="subtract", mul="multiply", truediv="divide", pow="power")
_ARITHMETIC |= dict(floordiv="floor_divide", mod="remainder", matmul="matmul")
_ARITHMETIC |= {"and": "bitwise_and", "or": "bitwise_or", "xor": "bitwise_xor"}
for _name, _ufunc in _ARITHMETIC.items():
    _ufunc = getattr(np, _ufunc)
    setattr(StrictArray, f"__{_name}__", _operator(_ufunc))
    setattr(StrictArray, f"__r{_name}__", _operator(_ufunc, reflected=True))
    if f"__i{_name}__" != "__imatmul__":  # CuPy has none
        setattr(StrictArray, f"__i{_name}__", _operator(_ufunc, in_place=True))
for _name, _ufunc in dict(
    eq="equal", ne="not_equal", lt="less", le="less_equal", gt="greater", ge="greater_equal"
).items():
    setattr(StrictArray, f"__{_name}__", _operator(getattr(np, _ufunc)))
for _name, _ufunc in dict(neg=np.negative, abs=np.absolute, invert=np.invert).items():
    setattr(StrictArray, f"__{_name}__", lambda x, ufunc=_ufunc: ufunc(x))


def add_at(x: StrictArray, index, value) -> None:
    """cupy.add.at, which takes every index, unlike np.add.at of an array on the device."""
    if x.dtype.char not in ADD_AT:
        raise TypeError(f"cupy.add.at does not take {x.dtype}")
    np.add.at(_plain(x), _index(index), _plain(value))


def stand_in() -> SimpleNamespace:
    """As much of a module `cupy` as tensorlite asks for by name."""
    return SimpleNamespace(
        ndarray=StrictArray,
        asarray=to_device,
        asnumpy=StrictArray.get,
        add=SimpleNamespace(at=add_at),
    )
