"""Checks that gradients are right, and hypothesis strategies that draw arguments for them.

With these, a property test of an operation of your own is:

    @given(arrays())
    def test_my_op(x):
        check_grads(my_op, [x])

`check_grads` checks functions of tensors, `check_vjp` a gradient that is written by hand for any
function of arrays; `of_torch`, `of_jax` and `of_cupy` make such functions of those of others.
`gradient_tests` is the whole property suite of an operation in one line. The checks need only
NumPy; the strategies and the suite need hypothesis.
"""

from .adapters import of_cupy, of_jax, of_tensors, of_torch
from .check import check_grads
from .report import CannotTell, Entry, Estimate, Mistake, Report, WrongGradient
from .strategies import KINDS, arrays, broadcastable, shapes
from .suite import gradient_tests
from .vjp import check_vjp, examine_vjp
