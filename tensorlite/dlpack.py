"""DLPack: arrays of other libraries (PyTorch, JAX, CuPy) as tensors and back, without a copy.

`from_dlpack` takes an array of another library. The other direction is the method `__dlpack__` of
tensors (arraylike.py), by which torch.from_dlpack(x) and others take a tensor. Both libraries then
use the same memory, and each sees what the other writes. The protocol: https://dmlc.github.io/dlpack
"""

from __future__ import annotations

import numpy as np

from .arraylike import number_dtype, type_name
from .device import place
from .tensor import Tensor

_CUDA = (2, 13)  # the protocol's numbers for memory of a GPU, and for memory that CUDA moves


def from_dlpack(x) -> Tensor:
    """A tensor over the memory of `x`, an array of another library, on the device where that is.

    It is a leaf that needs no gradient; `.requires_grad = True` changes that. While a backward pass
    is pending, our own writes to the memory are refused, unless it has gaps. Those of the other
    library cannot be noticed and would make the gradient wrong: call `.copy()` if it may write.

    Raises TypeError for an object without DLPack and for numbers that are not real, and what the
    other library raises if it does not give `x` away, such as where it needs a gradient there.

    >>> array = np.ones(3, np.float32)
    >>> x = from_dlpack(array)
    >>> array[0] = 5
    >>> x
    tensor([5., 1., 1.])
    """
    if not hasattr(x, "__dlpack_device__"):
        raise TypeError(f"from_dlpack takes an array with __dlpack__, not {type_name(x)}")
    if x.__dlpack_device__()[0] in _CUDA:
        place(np.zeros(0), "cuda")  # raises RuntimeError that says why if CuPy cannot be used
        import cupy

        array = cupy.from_dlpack(x)
    else:
        array = np.from_dlpack(x)
        order = np.argsort(array.strides)[::-1]
        dense = array.transpose(order)
        if dense.flags.writeable and dense.flags.c_contiguous:
            # Through a memoryview, NumPy can make the memory read-only and writeable again.
            array = np.asarray(memoryview(dense)).transpose(np.argsort(order))
    number_dtype(array.dtype)
    return Tensor(array)
