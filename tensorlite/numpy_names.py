"""NumPy's functions of tensors are ours: np.exp(x) is exp(x), np.shape(x) is x.shape.

NumPy's functions pass their arguments on to ours. An argument that ours does not have raises a
TypeError that names it, unless it has its default value. methods.py has operators and methods.
"""

from __future__ import annotations

import functools
import inspect

import numpy as np

from . import linalg, numpy_ops, ops
from .arraylike import NUMPY, array_of, whole
from .numpy_ops import einsum
from .op import WAY_OUT
from .ops import div, mul, neg, sub, where
from .tensor import Tensor


def _by_numpys_signature(function, ours):
    """`ours` with the signature of NumPy's `function`; raises TypeError for what ours lacks.

    Arguments that both require are matched by their place, because NumPy calls the same thing `a`,
    `x` or `arr`. All others are matched by name.
    """

    def call(*args, **kwargs):
        if len(args) == 1 and not kwargs:  # the commonest call, which needs no binding
            return ours(*args)
        try:
            signature, several, renamed, known = _matched(function, ours)
        except ValueError:  # in NumPy 2.0 the functions written in C have no signature
            return ours(*args, **kwargs)
        name = f"np.{function.__name__}"
        try:
            given = signature.bind(*args, **kwargs).arguments
        except TypeError as error:
            raise TypeError(f"{name}{signature}: {error}") from None
        more, obeyed = given.pop("kwargs", {}), {}
        arrays = given.pop(several, ()) if several else ()
        for key, value in [*given.items(), *more.items()]:
            parameter = signature.parameters.get(key)
            if parameter is None or not _is_default(value, parameter.default):
                key = renamed.get(key, key)
                if key not in known or key in obeyed:
                    way = WAY_OUT.get(key, "use .numpy() where no gradient is needed")
                    raise TypeError(f"{name} does not take {key}= for tensors: {way}")
                obeyed[key] = value
        return ours(*arrays, **obeyed)

    return call


@functools.cache
def _matched(function, ours):
    """NumPy's signature, its *arguments, what ours calls NumPy's names, and the names of ours."""
    signature = inspect.signature(function)
    known = inspect.signature(ours).parameters
    several = [p.name for p in signature.parameters.values() if p.kind is p.VAR_POSITIONAL]
    required = [
        [p.name for p in parameters.values() if p.default is p.empty and p.kind not in (2, 4)]
        for parameters in (signature.parameters, known)
    ]
    return signature, "".join(several), _RENAMED | dict(zip(*required)), known


def _is_default(value, default) -> bool:
    return value is default or (isinstance(value, (bool, int, str)) and value == default)


_RENAMED = {"a_min": "min", "a_max": "max", "correction": "ddof"}


def _numpys_where(condition, x=None, y=None) -> Tensor:
    if x is None or y is None:
        raise TypeError(
            "np.where takes a condition, x and y for tensors; "
            "np.nonzero(condition.numpy()) gives the indices where a condition holds"
        )
    return where(condition, x, y)


def _numpys_einsum(subscripts, *operands, optimize=None, **refused) -> Tensor:
    """np.einsum; `optimize` is ignored, because it changes how the sum is computed, not the sum."""
    for key in refused:
        raise TypeError(f"np.einsum does not take {key}= for tensors: {WAY_OUT.get(key, key)}")
    return einsum(subscripts, *operands)


_OPS = """
    add power exp log sqrt tanh abs matmul sum mean max min
    reshape transpose swapaxes expand_dims squeeze broadcast_to concatenate
""".split()


def _register(names, room, numpys) -> None:
    """Make `numpys.name` call `room.name` for each of the names that NumPy's module has."""
    for name in names:
        function, ours = getattr(numpys, name, None), getattr(room, name)
        if function is not None:
            ufunc = isinstance(function, np.ufunc)
            NUMPY[function] = ours if ufunc else _by_numpys_signature(function, ours)


_register(_OPS, ops, np)
_register(numpy_ops.__all__, numpy_ops, np)
_register(["fftshift", "ifftshift"], numpy_ops, np.fft)
_register([*linalg.__all__, "eig", "eigvals"], linalg, np.linalg)
NUMPY[np.where] = _numpys_where
NUMPY[np.einsum] = _numpys_einsum
NUMPY[np.gradient] = numpy_ops.gradient  # of which any number of arguments are distances
NUMPY |= {np.subtract: sub, np.multiply: mul, np.divide: div, np.negative: neg}


def without_gradient(function, *args, **kwargs):
    """NumPy's `function` of tensors and arrays, with tensors for the arrays that it gives."""
    y = function(*map(array_of, args), **{name: array_of(value) for name, value in kwargs.items()})
    return tuple(map(_as_tensor, y)) if isinstance(y, tuple) else _as_tensor(y)


def _as_tensor(y):
    """An array as a tensor; what is none, such as a shape, unchanged."""
    return Tensor(whole(y)) if hasattr(y, "dtype") else y


# The values of these need no gradient: they are booleans, counts, indices, shapes and constants.
_WITHOUT_GRADIENT = """
    equal not_equal less less_equal greater greater_equal
    isfinite isinf isnan isneginf isposinf signbit isclose allclose array_equal array_equiv
    logical_and logical_not logical_or logical_xor
    bitwise_and bitwise_or bitwise_xor invert left_shift right_shift any all count_nonzero
    argmax argmin nanargmax nanargmin argsort argpartition
    searchsorted digitize nonzero argwhere flatnonzero zeros_like ones_like empty_like imag angle
    ndim shape size result_type iscomplexobj isrealobj iscomplex isreal
""".split()
CONSTANT = {  # name -> function; tl.name too
    name: functools.partial(without_gradient, getattr(np, name)) for name in _WITHOUT_GRADIENT
}
NUMPY |= {getattr(np, name): function for name, function in CONSTANT.items()}
