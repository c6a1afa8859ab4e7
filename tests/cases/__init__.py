"""How to draw arguments for the functions of tensorlite/numpy_ops/ and tensorlite/linalg.py.

Each file has a table `CASES` from the name of an operation or of a function to its arguments, and
`LACKING` with what CuPy does not have: our name, and the function that is missed there.
"""

import operator

import tensorlite as tl

# A function that is no operation of its own is in the tables too; one of np.linalg as linalg.name.
FUNCTIONS = {name for name in tl.numpy_ops.__all__ if name not in tl.OPS}
FUNCTIONS |= {f"linalg.{name}" for name in tl.linalg.__all__ if name not in tl.OPS}


# Functions that take lists of arrays, or others before them, told the arrays one after the other.
IN_ORDER = {
    "select": lambda x, y, default, condlist: tl.select(condlist, [x, y], default),
    "choose": lambda x, y, indices: tl.choose(indices, [x, y]),
    "full_like": lambda x, shape: tl.full_like(tl.broadcast_to(x, shape).detach(), x),
    "insert": lambda x, values, obj, axis: tl.insert(x, obj, values, axis),
}


def named(name):
    """The operation or the function of this name."""
    return IN_ORDER.get(name) or tl.OPS.get(name) or operator.attrgetter(name)(tl)


def function_of(name):
    """`named`, joining the results of a function that gives several."""
    function = named(name)

    def joined(*args, **static):
        y = function(*args, **static)
        several = isinstance(y, (list, tuple))
        return tl.concatenate([tl.reshape(part, -1) for part in y]) if several else y

    return function if name in tl.OPS else joined
