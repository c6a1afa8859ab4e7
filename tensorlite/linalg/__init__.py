"""Linear algebra: the differentiable functions of np.linalg, on matrices (m, n) and stacks of them.

The last two axes of a stack (..., m, n) are those of its matrices. float16 is computed in float32.
What NumPy refuses raises `np.linalg.LinAlgError` here too, such as the inverse of a singular
matrix; on a GPU, CuPy gives NaN or infinity for it instead.
"""

from . import decompositions, norms, products, solving
from .decompositions import *
from .decompositions import eig, eigvals
from .norms import *
from .products import *
from .solving import *

_ROOM = (decompositions, solving, norms, products)
__all__ = [name for module in _ROOM for name in module.__all__]
