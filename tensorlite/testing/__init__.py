"""Checks that gradients are right, and hypothesis strategies that draw arguments for them.

With these, a property test of an operation of your own is:

    @given(arrays())
    def test_my_op(x):
        check_grads(my_op, [x])

`check_grads` checks functions of tensors, `check_vjp` a gradient that is written by hand for any
function of arrays. Both need only NumPy; the strategies need hypothesis.
"""

from .check import check_grads
from .report import CannotTell, Entry, Estimate, Mistake, Report, WrongGradient
from .strategies import KINDS, arrays, broadcastable, shapes
from .vjp import check_vjp, examine_vjp
