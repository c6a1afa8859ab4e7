"""Products of vectors and matrices under the names of np.linalg, where some of them are stricter.

`matmul`, `tensordot`, `vecdot` and `matrix_transpose` are those of tensorlite itself.
"""

from __future__ import annotations

from .. import numpy_ops
from ..numpy_ops import matrix_transpose, tensordot, vecdot
from ..numpy_ops.operands import as_tensor, as_tensors
from ..ops import matmul
from ..tensor import Tensor

__all__ = ["matmul", "tensordot", "vecdot", "matrix_transpose"]
__all__ += ["cross", "outer", "diagonal", "trace"]


def cross(x1, x2, axis: int = -1) -> Tensor:
    """The cross product of vectors of three elements along an axis. Raises ValueError for others.

    >>> cross([1.0, 0.0, 0.0], [0.0, 1.0, 0.0])
    tensor([0., 0., 1.])
    """
    x1, x2 = as_tensors("cross", x1, x2)
    if x1.shape[axis] != 3 or x2.shape[axis] != 3:
        raise ValueError(f"cross takes vectors of 3 elements, not shapes {x1.shape}, {x2.shape}")
    return numpy_ops.cross(x1, x2, axis=axis)


def outer(x1, x2) -> Tensor:
    """The products of each element of a vector with each of another. Raises ValueError for others.

    >>> outer([1.0, 2.0], [3.0, 4.0])
    tensor([[3., 4.],
            [6., 8.]])
    """
    x1, x2 = as_tensors("outer", x1, x2)
    if x1.ndim != 1 or x2.ndim != 1:
        raise ValueError(f"outer takes two vectors, not arrays of shapes {x1.shape}, {x2.shape}")
    return numpy_ops.outer(x1, x2)


def diagonal(x, offset: int = 0) -> Tensor:
    """A diagonal of the matrices in the last two axes; `offset` counts from the main diagonal."""
    return numpy_ops.diagonal(as_tensor(x), offset, -2, -1)


def trace(x, offset: int = 0) -> Tensor:
    """The sum of the elements of `diagonal`."""
    return numpy_ops.trace(as_tensor(x), offset, -2, -1)
