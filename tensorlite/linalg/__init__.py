"""Linear algebra: the differentiable functions of np.linalg, on matrices (m, n) and stacks of them.

The last two axes of a stack (..., m, n) are those of its matrices. float16 is computed in float32.
What NumPy refuses raises `np.linalg.LinAlgError` here too, such as the inverse of a singular
matrix; on a GPU, CuPy gives NaN or infinity for it instead.
"""

from . import decompositions, norms, solving
from .decompositions import *
from .norms import *
from .solving import *

_ROOM = (decompositions, norms, solving)
__all__ = [name for module in _ROOM for name in module.__all__]
