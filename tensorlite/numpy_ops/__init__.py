"""NumPy's differentiable functions beyond those of ops.py, which should be read first.

A function that needs a gradient of its own is an `@op`, in the same form as in ops.py. Most others
are one line composed of functions that have one.
"""

from . import (
    elementwise,
    exponentials,
    indexing,
    joining,
    order,
    products,
    reductions,
    shapes,
    statistics,
    trigonometric,
)
from .elementwise import *
from .exponentials import *
from .indexing import *
from .joining import *
from .order import *
from .products import *
from .reductions import *
from .shapes import *
from .statistics import *
from .trigonometric import *

_ROOM = (
    elementwise,
    trigonometric,
    exponentials,
    reductions,
    order,
    statistics,
    products,
    shapes,
    joining,
    indexing,
)
__all__ = [name for module in _ROOM for name in module.__all__]
