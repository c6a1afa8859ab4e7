"""The operators and methods of tensors: x * y, x[0] = 1, x.sum(axis=0).

They have the names and the meaning of those of NumPy's arrays, and give new tensors, except for
assignments. `x[index] = value`, `x += y` and the like write into the array of x. No gradient could
flow through that, so they raise TypeError if x or the value needs a gradient, except under
`no_grad`, where parameters are updated in this way. They raise ValueError while a pending backward
pass needs the array.
"""

from __future__ import annotations

import operator

import numpy as np

from . import linalg, numpy_ops, ops
from .arraylike import array_of
from .functional.softmax import logsumexp
from .modes import mode
from .numpy_names import without_gradient
from .numpy_ops import copy
from .op import operand
from .ops import (
    abs,
    add,
    div,
    getitem,
    matmul,
    mul,
    neg,
    plain_index,
    power,
    reshape,
    sub,
    swapaxes,
    transpose,
)
from .tensor import Tensor
from .writing import check_writeable

# =================================================================================================
# Operators
# =================================================================================================


def _operator(op):
    """The methods for x * y and y * x, where x is a tensor and y may be a number or an array."""
    call = op.__call__  # bound once, because for small arrays the overhead is most of the time
    return lambda x, y: call(x, y), lambda x, y: call(y, x)


def _comparison(function):
    def compare(x, y) -> Tensor:
        return without_gradient(function, x, y)

    compare.__doc__ = f"np.{function.__name__}, a tensor of booleans: no gradient flows through it."
    return compare


Tensor.__add__, Tensor.__radd__ = _operator(add)
Tensor.__sub__, Tensor.__rsub__ = _operator(sub)
Tensor.__mul__, Tensor.__rmul__ = _operator(mul)
Tensor.__truediv__, Tensor.__rtruediv__ = _operator(div)
Tensor.__pow__, Tensor.__rpow__ = _operator(power)
Tensor.__matmul__, Tensor.__rmatmul__ = _operator(matmul)
Tensor.__mod__, Tensor.__rmod__ = _operator(numpy_ops.remainder)
Tensor.__floordiv__, Tensor.__rfloordiv__ = _operator(numpy_ops.floor_divide)
Tensor.__divmod__ = lambda x, y: numpy_ops.divmod(x, y)
Tensor.__rdivmod__ = lambda x, y: numpy_ops.divmod(y, x)
Tensor.__neg__, Tensor.__pos__, Tensor.__abs__ = neg, numpy_ops.positive, abs
Tensor.__round__ = numpy_ops.round  # round(x, 2) is a tensor, rounded as np.round does
Tensor.__getitem__ = lambda x, index: getitem(x, index)
for _name in ("eq", "ne", "lt", "le", "gt", "ge"):
    setattr(Tensor, f"__{_name}__", _comparison(getattr(operator, _name)))
for _name in ("and", "or", "xor"):  # of masks, and of integers
    _function = getattr(operator, f"__{_name}__")
    setattr(Tensor, f"__{_name}__", _comparison(_function))
    setattr(Tensor, f"__r{_name}__", _comparison(_function))
Tensor.__invert__ = lambda x: Tensor(~x.data)  # masks: (x > 0) & ~(x > 1)
Tensor.__hash__ = object.__hash__  # by identity: tensors of equal values are different keys


# =================================================================================================
# Assignments
# =================================================================================================


def _assigned(x: Tensor, value, way_out: str):
    """The array or number `value`, once it is certain that it may be written into x."""
    for t, name in ((x, "the tensor"), (value, "the value")):
        if isinstance(t, Tensor) and t.requires_grad and mode.get().record:
            raise TypeError(
                f"{name} needs a gradient, which does not flow through an assignment: {way_out}; "
                "to update a parameter, assign under `with tl.no_grad():`"
            )
    check_writeable("this tensor", x.data)
    if value is None:
        raise TypeError("None is no number that can be assigned to a tensor")
    return operand(array_of(value), "an assignment", (x,))


def _setitem(x, index, value) -> None:
    """x[index] = value: write into the array of x."""
    value = _assigned(x, value, "tl.where(mask, value, x) makes a new tensor")
    x.data[plain_index(index)] = value


def _in_place(symbol: str, function):
    def assign(x, y) -> Tensor:
        function(x.data, _assigned(x, y, f"x = x {symbol} y makes a new tensor"))
        return x

    assign.__doc__ = f"x {symbol}= y: write into the array of x."
    return assign


Tensor.__setitem__ = _setitem
Tensor.__iadd__ = _in_place("+", operator.iadd)
Tensor.__isub__ = _in_place("-", operator.isub)
Tensor.__imul__ = _in_place("*", operator.imul)
Tensor.__itruediv__ = _in_place("/", operator.itruediv)
Tensor.__ipow__ = _in_place("**", operator.ipow)
Tensor.__ifloordiv__ = _in_place("//", operator.ifloordiv)
Tensor.__imod__ = _in_place("%", operator.imod)
Tensor.__iand__ = _in_place("&", operator.iand)
Tensor.__ior__ = _in_place("|", operator.ior)
Tensor.__ixor__ = _in_place("^", operator.ixor)


# =================================================================================================
# Methods
# =================================================================================================


_METHODS = """
    exp log sqrt rsqrt sin cos tanh sigmoid relu abs clip masked_fill
    sum mean var std max min prod cumsum cumprod sort round dot trace astype
    swapaxes expand_dims squeeze broadcast_to flip roll tril triu take split
    copy ravel repeat diagonal
""".split()
for _name in _METHODS:
    setattr(Tensor, _name, getattr(numpy_ops, _name, None) or getattr(ops, _name))
Tensor.logsumexp, Tensor.norm = logsumexp, linalg.norm


def _one_tuple(values):
    """Let methods take x.reshape(2, 3) for x.reshape((2, 3))."""
    return values[0] if len(values) == 1 and not isinstance(values[0], int) else values


def _reshape(x, *shape, **named) -> Tensor:
    return reshape(x, _one_tuple(shape), **named) if shape else reshape(x, **named)


def _transpose(x, *axes, **named) -> Tensor:
    return transpose(x, _one_tuple(axes), **named) if axes else transpose(x, **named)


Tensor.reshape, Tensor.transpose = _reshape, _transpose
Tensor.T = property(transpose)


def _flatten(x) -> Tensor:
    """The numbers in order, as a tensor of one axis in memory of its own."""
    return reshape(copy(x), -1)


def _tolist(x) -> list | int | float | bool:
    """The numbers as (nested) lists of Python's; that of a 0-d tensor by itself."""
    return x.data.tolist()


def _numpys(name: str):
    """The method that calls NumPy's function of this name, through which no gradient flows."""

    function = getattr(np, name)

    def method(x, *args, **kwargs):
        return function(x, *args, **kwargs)

    method.__name__, method.__doc__ = name, f"np.{name} of this tensor."
    return method


Tensor.flatten, Tensor.tolist = _flatten, _tolist
Tensor.mT = property(lambda x: swapaxes(x, -1, -2))
for _name in "all any argmax argmin argsort argpartition searchsorted nonzero".split():
    setattr(Tensor, _name, _numpys(_name))
