"""What else NumPy's arrays can do: assignments, and methods that need no operation of their own.

`x[index] = value`, `x += y` and the like write into the array of x, as in NumPy. No gradient could
flow through that, so they raise TypeError if x or the value needs a gradient, except under
`no_grad`, where parameters are updated in this way. They raise ValueError while a pending backward
pass needs the array. To read on, see numpy_names.py, which has the operators and most methods.
"""

from __future__ import annotations

import operator

import numpy as np

from .arraylike import array_of
from .modes import mode
from .op import operand
from .ops import astype, plain_index, reshape, swapaxes
from .tensor import Tensor
from .writing import check_writeable

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


# =================================================================================================
# Methods
# =================================================================================================


def _copy(x) -> Tensor:
    """The same numbers in memory of their own; gradients flow through."""
    return astype(x, x.dtype)


def _flatten(x) -> Tensor:
    """The numbers in order, as a tensor of one axis in memory of its own."""
    return reshape(_copy(x), -1)


def _tolist(x) -> list | int | float | bool:
    """The numbers as (nested) lists of Python's; that of a 0-d tensor by itself."""
    return x.data.tolist()


def _numpys(name: str):
    """The method that calls NumPy's function of this name, which in turn calls ours."""

    def method(x, *args, **kwargs):
        return getattr(np, name)(x, *args, **kwargs)

    method.__name__, method.__doc__ = name, f"np.{name} of this tensor."
    return method


Tensor.copy, Tensor.flatten, Tensor.tolist = _copy, _flatten, _tolist
Tensor.__round__ = lambda x, decimals=0: np.round(x, decimals)  # a tensor, as np.round gives
Tensor.mT = property(lambda x: swapaxes(x, -1, -2))
for _name in "all any argmax argmin argsort searchsorted nonzero ravel repeat diagonal".split():
    setattr(Tensor, _name, _numpys(_name))
