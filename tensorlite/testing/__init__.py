"""Is a gradient right? Checks for any function, and hypothesis strategies to draw its arguments.

A property test of an operation of your own:

    @given(arrays())
    def test_my_op(x):
        check_grads(my_op, [x])

`check_grads` needs NumPy alone; the strategies need hypothesis.
"""

from .check import check_grads
from .strategies import KINDS, arrays, broadcastable, shapes
