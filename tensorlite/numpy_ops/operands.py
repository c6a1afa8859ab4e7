"""Arguments as tensors, for functions that are composed of operations."""

from __future__ import annotations

import numpy as np

from ..arraylike import array_of, is_float, is_half, whole
from ..op import operand
from ..ops import astype
from ..tensor import Tensor, tensor


def as_tensor(x) -> Tensor:
    """A tensor unchanged; a number, a list or an array as a new one."""
    return x if isinstance(x, Tensor) else tensor(x)


def as_tensors(name: str, *values) -> list[Tensor]:
    """Operands of the function `name` as tensors.

    A list beside float64 becomes float64. A number gets the dtype of the arrays beside it, if that
    can hold it.
    """
    values = [v if isinstance(v, Tensor) else operand(v, name, values) for v in values]
    arrays = [whole(array_of(v)) for v in values if hasattr(v, "dtype")]
    for i, v in enumerate(values):
        if arrays and not hasattr(v, "dtype"):
            common = np.result_type(*(a.dtype for a in arrays))
            if not is_float(common):
                common = np.float32 if isinstance(v, float) else np.result_type(v, common)
            values[i] = np.asarray(v, common, like=arrays[0])
    return [as_tensor(v) for v in values]


def in_wide_floats(x) -> tuple[Tensor, np.dtype]:
    """(a tensor of floats of 32 bits or more, the dtype of a result computed from it).

    Numbers of 16 bits are computed with in float32. Integers are exact in float64, and results
    computed from them are float32.
    """
    x = as_tensor(x)
    if not is_float(x.dtype):
        return astype(x, np.float64), np.dtype(np.float32)
    return (astype(x, np.float32) if is_half(x.dtype) else x), x.dtype
