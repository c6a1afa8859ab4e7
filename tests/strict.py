"""A device that we do not have: arrays that behave as CuPy's do, over NumPy's.

What runs on a `StrictArray` would run on a GPU. It refuses what CuPy refuses: conversion to NumPy
without `.get()`, operands that are NumPy arrays, functions, keywords and dtypes that CuPy lacks
(cupy_api.json, written by benchmarks/cupy_api.py from the real package). It raises where CuPy is
silently wrong: index arrays out of range, writing to a `broadcast_to` view; memory from `empty` is
poisoned. And it notes in `waits` whatever would make the program wait for the GPU, and in
`launches` what is given to the GPU to do. `install` puts it in the place of CuPy. The other files
that begin with strict_ have what else there is of CUDA: streams, graphs, memory, kernels.
"""

from __future__ import annotations

import operator
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from tests import strict_cuda
from tests.strict_api import API, SIGNATURES, check, check_types, keywords, parse
from tests.strict_memory import MemoryPointer, PinnedMemory, allocate, default_pool, hold, upload
from tests.strict_streams import (  # noqa: F401 - also for tests of what runs here
    enqueue,
    get_current_stream,
    is_capturing,
    launches,
    wait,
    waits,
)
from tests.strict_work import execute

# =================================================================================================
# Into the array and out of it
# =================================================================================================


def to_device(array, dtype=None):
    """A StrictArray with a copy of what NumPy makes of `array`; one that is given stays itself."""
    if isinstance(array, StrictArray):
        return array if dtype in (None, array.dtype) else array.astype(dtype)
    host = np.array(_plain(array, host=True), dtype=dtype)
    if host.ndim:  # a number travels with the kernel that fills the array
        upload(host.nbytes)
    return _wrap(execute("asarray", np.copy, host))


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
    if isinstance(value, tuple) and hasattr(value, "_make"):
        return value._make(map(_wrap, value))
    return type(value)(map(_wrap, value)) if isinstance(value, (list, tuple)) else value


def _index(index):
    """An index as NumPy takes it; index arrays may live on the host."""

    def part(i):
        if isinstance(i, slice):
            return slice(*map(bound, (i.start, i.stop, i.step)))
        if isinstance(i, (StrictArray, np.ndarray)) and i.dtype.kind == "b":
            wait("boolean mask")  # how many elements there are shapes the result
        return i._array if isinstance(i, StrictArray) else _uploaded(i)

    def bound(i):
        return int(i) if isinstance(i, StrictArray) else i

    return tuple(map(part, index)) if isinstance(index, tuple) else part(index)


def _uploaded(index):
    """An index array of the host as it is now; CuPy copies it to the device."""
    if isinstance(index, (np.ndarray, list)):
        index = np.array(index)
        upload(index.nbytes)
    return index


# =================================================================================================
# The array
# =================================================================================================

# Functions whose result, or its shape, the host must know before it goes on.
WAITING = {"nonzero", "flatnonzero", "argwhere", "unique", "bincount", "extract", "compress"}
WAITING |= {"array2string", "array_repr", "array_str", "histogram", "roots"}
ADD_AT = "ilILefd"  # the dtypes whose atomic additions CuPy has
# Functions that write to their first argument, and methods that write to their array.
WRITING = {"copyto", "put_along_axis", "fill_diagonal", "place", "put", "putmask"}
WRITING_METHODS = {"fill", "sort", "partition", "put"}
JOINING = {"concatenate", "concat", "stack", "hstack", "vstack", "dstack", "column_stack"}
# Products go to cuBLAS, which CuPy does not let capture.
PRODUCTS = {"matmul", "dot", "vdot", "inner", "einsum", "tensordot", "linalg.matmul"}


class StrictArray:
    """An array of the strict device; `_array` holds the values."""

    __slots__ = ("_array",)
    __hash__ = None

    def __init__(self, array: np.ndarray):
        if array.dtype.kind not in "biufc" and array.dtype.name != "bfloat16":
            raise ValueError(f"the device holds numbers, not {array.dtype}")
        hold(array)
        self._array = array

    def __array__(self, *args, **kwargs):
        raise TypeError("no implicit conversion to a NumPy array; use .get()")

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **kwargs):
        if any(_foreign(x) for x in inputs):
            return NotImplemented
        name = ufunc.__name__
        if name in API["functions"]:  # matmul and its like
            check(name, SIGNATURES[name], inputs, kwargs)
        elif name not in API["ufuncs"]:
            raise TypeError(f"there is no cupy.{name}")
        elif unknown := kwargs.keys() - keywords(name, method):
            raise TypeError(f"cupy.{name} does not take {sorted(unknown)} ({method})")
        if method == "at":
            return self._at(ufunc, *inputs)
        values = _plain(inputs)
        if method == "__call__" and name in API["ufuncs"]:
            check_types(name, values)
        if out is not None:
            (out,) = out if isinstance(out, tuple) else (out,)
            if not isinstance(out, StrictArray):
                raise TypeError("out= is an array of the device")
            kwargs["out"] = out._array
        function = _product(name, values) if name in PRODUCTS else getattr(ufunc, method)
        result = execute(name, function, *values, into=kwargs.get("out"), **kwargs)
        return _wrap(result) if out is None else out

    def _at(self, ufunc, x, index, *values):
        if ufunc is not np.add:
            raise TypeError(f"there is no cupy.{ufunc.__name__}.at")
        if isinstance(index, tuple):
            raise TypeError("NumPy hands no tuple of indices on to CuPy; cupy.add.at takes one")
        add_at(x, index, *values)

    def __array_function__(self, function, types, args, kwargs):
        if not all(issubclass(t, (StrictArray, np.ndarray)) for t in types):
            return NotImplemented
        module = function.__module__.removeprefix("numpy").removeprefix(".")
        name = f"{module}.{function.__name__}" if module else function.__name__
        if name not in SIGNATURES:
            raise TypeError(f"there is no cupy.{name}")
        check(name, SIGNATURES[name], args, kwargs)
        if name in ("array", "asarray", "asanyarray", "ascontiguousarray"):
            return to_device(*args, **kwargs)
        if name == "where":
            if not isinstance(args[0], StrictArray):
                raise TypeError("cupy.where takes a condition on the device")
            if len(args) + len(kwargs) == 1:
                wait("one-argument where")
        if name == "linalg.solve" and args[1].ndim > 1 and args[0].shape[:-1] != args[1].shape[:-1]:
            raise ValueError("cupy.linalg.solve does not broadcast stacks of matrices")
        if name.endswith("_like") and kwargs.get("shape", 1) in (0, ()):
            raise ValueError(f"cupy.{name} ignores shape={kwargs['shape']}; (0,) is not ignored")
        if name in WAITING or (name == "repeat" and isinstance(args[1], StrictArray)):
            wait(name)
        if name in ("copyto", "put_along_axis", "fill_diagonal"):
            if not isinstance(args[0], StrictArray):
                raise TypeError(f"cupy.{name} writes to arrays of the device")
        if name in ("take", "take_along_axis"):  # index arrays may live on the host
            args = (args[0], _plain(_uploaded(args[1]), host=True), *args[2:])
            return _wrap(execute(name, function, _plain(args[0]), args[1], *args[2:], **kwargs))
        if name in JOINING and len(args[0]) > 8:
            upload(8 * len(args[0]))  # the addresses of the arrays
        out = kwargs.get("out")
        kwargs = {key: _plain(value) for key, value in kwargs.items()}
        args = _plain(args)
        if name in ("empty", "empty_like"):
            like = function(*args, **kwargs)
            return StrictArray(allocate(like.shape, like.dtype))
        into = args[0] if name in WRITING else kwargs.get("out")
        if name in PRODUCTS:
            function = _product(name, args)
        elif name in ("allclose", "array_equal"):  # these stay on the device
            function = _as_array(function)
        elif name == "where" and any(_is_bfloat16(a) for a in args):
            function = _in_float32(function)
        result = execute(name, function, *args, into=into, **kwargs)
        if name == "broadcast_arrays":
            for array in result:
                array.flags.writeable = False
        return _wrap(result) if out is None else out

    # ---- indexing ----

    def __getitem__(self, index):
        index = _index(index)
        index = index if isinstance(index, tuple) else (index,)
        if not any(i is ... for i in index):  # so that a single element is a view, as in CuPy
            index = (*index, ...)
        return StrictArray(execute("getitem", operator.getitem, self._array, index))

    def __setitem__(self, index, value):
        if not isinstance(value, (StrictArray, int, float, complex, np.generic)):
            raise ValueError(f"{type(value).__name__} cannot be assigned: move it to the device")
        args = self._array, _index(index), _plain(value)
        execute("setitem", operator.setitem, *args, into=self._array)

    def __len__(self):
        return len(self._array)

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    # ---- what waits ----

    def get(self, stream=None, order="C", out=None, blocking=True) -> np.ndarray:
        with get_current_stream() if stream is None else stream:
            wait("get")
        return self._array.copy()

    def item(self):
        wait("item")
        return self._array.item()

    def __bool__(self):
        wait("bool")
        return bool(self._array)

    def __int__(self):
        wait("int")
        return int(self._array)

    def __float__(self):
        wait("float")
        return float(self._array)

    def __repr__(self):
        wait("str")
        return repr(self._array)

    def __format__(self, spec):
        wait("str")
        return format(self._array, spec)

    def __copy__(self):
        return self.copy()

    def __deepcopy__(self, memo):
        return self.copy()

    @property
    def data(self):
        return MemoryPointer(self._array)

    @property
    def flags(self):
        """No `writeable`: an array of the device cannot be made read-only."""
        flags = self._array.flags
        return SimpleNamespace(
            c_contiguous=flags.c_contiguous, f_contiguous=flags.f_contiguous, owndata=flags.owndata
        )


def _product(name: str, args):
    """The function for a product, of arrays of bfloat16 too."""
    if is_capturing():
        raise NotImplementedError(
            "calling cuBLAS API during stream capture is currently unsupported"
        )
    function = operator.attrgetter(name)(np)
    if not any(map(_is_bfloat16, args)):
        return function
    if name == "einsum" or any(getattr(a, "ndim", 0) > 2 for a in args):
        raise TypeError("data type 'E' not understood")
    return lambda *args, **kwargs: function(*args, **kwargs).astype(np.result_type(*args))


def _is_bfloat16(value) -> bool:
    return hasattr(value, "dtype") and value.dtype.name == "bfloat16"


def _in_float32(function):
    return lambda *args, **kwargs: function(*args, **kwargs).astype(np.float32)


def _as_array(function):
    return lambda *args, **kwargs: np.asarray(function(*args, **kwargs))


def _foreign(value) -> bool:
    """Whether another type, such as Tensor, takes part and is to decide."""
    known = (StrictArray, np.ndarray, np.generic)
    return hasattr(value, "__array_ufunc__") and not isinstance(value, known)


def _operator(ufunc, reflected=False, in_place=False):
    def binary(x, y):
        return ufunc(y, x) if reflected else ufunc(x, y, out=x) if in_place else ufunc(x, y)

    return binary


def _method(name: str):
    signature, numpys = parse(API["ndarray"][name]), getattr(np.ndarray, name)

    def method(self, *args, **kwargs):
        check(name, signature, args, kwargs)
        if name in ("tolist", "tobytes", "nonzero", "compress", "dump", "dumps", "tofile"):
            wait(name)
        if name == "repeat" and isinstance(args[0], StrictArray):
            wait("repeat")
        out = kwargs.get("out")
        kwargs = {key: _plain(value) for key, value in kwargs.items()}
        if name in ("tolist", "tobytes", "dumps"):
            return numpys(self._array, *args, **kwargs)
        into = self._array if name in WRITING_METHODS else kwargs.get("out")
        function = _product(name, [self._array]) if name in PRODUCTS else numpys
        result = execute(name, function, self._array, *_plain(args), into=into, **kwargs)
        return _wrap(result) if out is None and name not in WRITING_METHODS else out

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
    args = x._array, _index(index), _plain(value)
    execute("add.at", np.add.at, *args, into=x._array)


def _new(name: str):
    """cupy.zeros and its like, which make an array on the device."""
    return lambda *args, **kwargs: _wrap(execute(name, getattr(np, name), *args, **kwargs))


def _empty(shape, dtype=float, order="C"):
    return StrictArray(allocate(shape, dtype))


def _random_generator(seed=None):
    """cupy.random.default_rng: as much of it as is needed to see whether cuRAND works."""

    def random(size=(), dtype=np.float64):
        if is_capturing():
            raise NotImplementedError("calling cuRAND API during stream capture is unsupported")
        return to_device(np.random.default_rng(seed).random(size, dtype))

    return SimpleNamespace(random=random)


def stand_in() -> SimpleNamespace:
    """As much of a module `cupy` as tensorlite asks for by name."""
    return SimpleNamespace(
        __file__=str(Path(__file__).with_suffix("") / "__init__.py"),  # so that ours are CuPy's
        ndarray=StrictArray,
        array=to_device,
        asarray=to_device,
        asnumpy=StrictArray.get,
        empty=_empty,
        **{name: _new(name) for name in ("zeros", "ones", "full", "arange")},
        **{name: getattr(np, name) for name in ("empty_like", "zeros_like", "copyto")},
        add=SimpleNamespace(at=add_at),
        random=SimpleNamespace(default_rng=_random_generator),
        cuda=strict_cuda.namespace(),
        RawModule=strict_cuda.RawModule,
        get_default_memory_pool=lambda: default_pool,
        get_default_pinned_memory_pool=lambda: SimpleNamespace(malloc=PinnedMemory),
    )


def install(monkeypatch) -> None:
    """Let device="cuda" be the strict device for a test, with products by cuBLASLt's stand-in."""
    from tests import emulator_blas

    # Where CuPy is installed, its part `cupyx` is loaded when somebody first looks at it, and that
    # fails while the module `cupy` is another. Hypothesis does.
    getattr(sys.modules.get("cupyx"), "__file__", None)
    monkeypatch.setattr("tensorlite.device._cuda_fault", lambda: None)
    monkeypatch.setitem(sys.modules, "cupy", stand_in())
    emulator_blas.install(monkeypatch)
    waits.clear()
    launches.clear()
