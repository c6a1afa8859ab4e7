"""How to draw arguments for the functions of tensorlite/numpy_ops/ and tensorlite/linalg.py.

Each file has a table `CASES` from the name of an operation or of a function to its arguments, and
`LACKING` with what CuPy does not have: our name, and the function that is missed there.
"""

import operator

import tensorlite as tl
from tests.cases import linalg, reductions, shapes

WRAPPED = linalg.WRAPPED | reductions.WRAPPED | shapes.WRAPPED

# A function that is no operation of its own is in the tables too; one of np.linalg as linalg.name.
FUNCTIONS = {name for name in tl.numpy_ops.__all__ if name not in tl.OPS}
FUNCTIONS |= {
    f"linalg.{name}"
    for name in tl.linalg.__all__
    if name not in tl.OPS and getattr(tl.linalg, name) is not getattr(tl, name, None)
}


def named(name):
    """The operation or the function of this name, or what stands in its place in the tests."""
    return WRAPPED.get(name) or tl.OPS.get(name) or operator.attrgetter(name)(tl)


def function_of(name):
    """`named`, joining the results of a function that gives several."""
    function = named(name)

    def joined(*args, **static):
        y = function(*args, **static)
        several = isinstance(y, (list, tuple))
        return tl.concatenate([tl.reshape(part, -1) for part in y]) if several else y

    return function if function is tl.OPS.get(name) else joined
