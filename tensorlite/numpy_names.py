"""The operations as operators, methods and NumPy's functions: x * y, x.sum(axis=0), np.exp(x).

NumPy's functions pass their arguments on to ours. An argument that ours does not have raises a
TypeError that names it, unless it has its default value.
"""

from __future__ import annotations

import functools
import inspect
import operator

import numpy as np

from .arraylike import NUMPY, array_of, whole
from .functional.softmax import logsumexp
from .numpy_ops import (
    clip,
    cos,
    cumsum,
    einsum,
    flip,
    maximum,
    minimum,
    pad,
    prod,
    roll,
    sin,
    split,
    stack,
    take,
    take_along_axis,
    tril,
    triu,
    var,
)
from .op import WAY_OUT
from .ops import (
    abs,
    add,
    astype,
    broadcast_to,
    concatenate,
    div,
    exp,
    expand_dims,
    getitem,
    log,
    masked_fill,
    matmul,
    max,
    mean,
    min,
    mul,
    neg,
    power,
    relu,
    reshape,
    rsqrt,
    sigmoid,
    sqrt,
    squeeze,
    sub,
    sum,
    swapaxes,
    tanh,
    transpose,
    where,
)
from .tensor import Tensor

# =================================================================================================
# Operators
# =================================================================================================


def _operator(op):
    """The methods for x * y and y * x, where x is a tensor and y may be a number or an array."""
    call = op.__call__  # bound once, because for small arrays the overhead is most of the time
    return lambda x, y: call(x, y), lambda x, y: call(y, x)


def _comparison(function):
    def compare(x, y) -> Tensor:
        return _without_gradient(function, x, y)

    compare.__doc__ = f"np.{function.__name__}, a tensor of booleans: no gradient flows through it."
    return compare


def _without_gradient(function, *args, **kwargs) -> Tensor:
    y = function(*map(array_of, args), **{name: array_of(value) for name, value in kwargs.items()})
    return Tensor(whole(y))


Tensor.__add__, Tensor.__radd__ = _operator(add)
Tensor.__sub__, Tensor.__rsub__ = _operator(sub)
Tensor.__mul__, Tensor.__rmul__ = _operator(mul)
Tensor.__truediv__, Tensor.__rtruediv__ = _operator(div)
Tensor.__pow__, Tensor.__rpow__ = _operator(power)
Tensor.__matmul__, Tensor.__rmatmul__ = _operator(matmul)
Tensor.__neg__, Tensor.__abs__ = neg, abs
Tensor.__getitem__ = lambda x, index: getitem(x, index)
for _name in ("eq", "ne", "lt", "le", "gt", "ge"):
    setattr(Tensor, f"__{_name}__", _comparison(getattr(operator, _name)))
Tensor.__and__, Tensor.__or__ = _comparison(operator.and_), _comparison(operator.or_)
Tensor.__invert__ = lambda x: Tensor(~x.data)  # masks: (x > 0) & ~(x > 1)
Tensor.__hash__ = object.__hash__  # by identity: tensors of equal values are different keys


# =================================================================================================
# Methods
# =================================================================================================


_methods = (exp, log, sqrt, rsqrt, sin, cos, tanh, sigmoid, relu, abs, clip, masked_fill)
_methods += (sum, mean, var, max, min, prod, logsumexp, cumsum, astype)
_methods += (swapaxes, expand_dims, squeeze, broadcast_to, flip, roll, tril, triu, take, split)
for _op in _methods:
    setattr(Tensor, _op.__name__, _op)


def _one_tuple(values):
    """Let methods take x.reshape(2, 3) for x.reshape((2, 3))."""
    return values[0] if len(values) == 1 and not isinstance(values[0], int) else values


def _reshape(x, *shape, **named) -> Tensor:
    return reshape(x, _one_tuple(shape), **named) if shape else reshape(x, **named)


def _transpose(x, *axes, **named) -> Tensor:
    return transpose(x, _one_tuple(axes), **named) if axes else transpose(x, **named)


Tensor.reshape, Tensor.transpose = _reshape, _transpose
Tensor.T = property(transpose)


# =================================================================================================
# NumPy's functions
# =================================================================================================


def _by_numpys_signature(function, ours):
    """`ours` with the signature of NumPy's `function`; raises TypeError for what ours lacks."""
    name = f"np.{function.__name__}"
    try:
        signature = inspect.signature(function)
    except ValueError:  # in NumPy 2.0 the functions written in C have no signature
        return ours
    first, *_ = signature.parameters
    known = inspect.signature(ours).parameters

    def call(*args, **kwargs):
        try:
            given = signature.bind(*args, **kwargs).arguments
        except TypeError as error:
            raise TypeError(f"{name}{signature}: {error}") from None
        x, more, obeyed = given.pop(first), given.pop("kwargs", {}), {}
        for key, value in [*given.items(), *more.items()]:
            parameter = signature.parameters.get(key)
            if parameter is None or not _is_default(value, parameter.default):
                key = _RENAMED.get(key, key)
                if key not in known or key in obeyed:
                    way = WAY_OUT.get(key, "use .numpy() where no gradient is needed")
                    raise TypeError(f"{name} does not take {key}= for tensors: {way}")
                obeyed[key] = value
        return ours(x, **obeyed)

    return call


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


_ufuncs = (add, power, exp, log, sqrt, sin, cos, tanh, abs, maximum, minimum, matmul)
for _op in _ufuncs:
    NUMPY[getattr(np, _op.__name__)] = _op
_functions = (clip, sum, mean, var, max, min, prod, cumsum, reshape, transpose, swapaxes)
_functions += (expand_dims, squeeze, flip, roll, tril, triu, broadcast_to, concatenate, stack)
_functions += (take, take_along_axis, pad, split)
for _op in _functions:
    _function = getattr(np, _op.__name__)
    NUMPY[_function] = _by_numpys_signature(_function, _op)
NUMPY[np.where] = _numpys_where
NUMPY[np.einsum] = _numpys_einsum
NUMPY |= {np.subtract: sub, np.multiply: mul, np.divide: div, np.negative: neg}
for _name in ("equal", "not_equal", "less", "less_equal", "greater", "greater_equal"):
    NUMPY[getattr(np, _name)] = _comparison(getattr(np, _name))
# These are constant nearly everywhere, so their values need no gradient.
for _function in (np.sign, np.isinf, np.isnan, np.isfinite, np.argmax, np.argmin, np.argsort):
    NUMPY[_function] = functools.partial(_without_gradient, _function)
