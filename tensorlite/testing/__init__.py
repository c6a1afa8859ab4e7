"""Checks that gradients are right, and hypothesis strategies that draw arguments for them.

With these, a property test of an operation of your own is:

    @given(arrays())
    def test_my_op(x):
        check_grads(my_op, [x])

`check_grads` needs only NumPy; the strategies need hypothesis.
"""

from .check import check_grads
from .strategies import KINDS, arrays, broadcastable, shapes
