"""Arguments for the functions of tensorlite/numpy_ops/products.py."""

from hypothesis import strategies as st

from tensorlite.testing import arrays, broadcastable, shapes
from tests.cases.drawing import shape_with, table

CASES, case = table()
LACKING = {}


@case("einsum")
def einsum(draw):
    """Operands with letters drawn at random: repeated in one, in several, summed, kept."""
    sizes = {c: draw(st.integers(0, 3)) for c in "abcd"}
    letters = st.lists(st.sampled_from("abcd"), max_size=3).map("".join)
    inputs = draw(st.lists(letters, min_size=1, max_size=3))
    known = sorted(set("".join(inputs)))
    output = "".join(draw(st.permutations(known)))[: draw(st.integers(0, len(known)))]
    parts = [draw(arrays(tuple(sizes[c] for c in names))) for names in inputs]
    return [parts], {"subscripts": ",".join(inputs) + "->" + output}


@case("dot", "inner")
def dot(draw):
    n, batch = draw(st.integers(0, 3)), shapes(max_dims=2, max_side=2)
    return [draw(arrays((*draw(batch), n))), draw(arrays((n,)))], {}


@case("vdot")
def vdot(draw):
    shape = draw(shapes(max_side=3))
    return [draw(arrays(shape)), draw(arrays(shape[::-1]))], {}


@case("outer", "kron")
def outer(draw):
    shape = shapes(max_dims=2, max_side=3)
    return [draw(arrays(draw(shape))), draw(arrays(draw(shape)))], {}


@case("tensordot")
def tensordot(draw):
    m, n, k = (draw(st.integers(0, 3)) for _ in range(3))
    first, second, axes = draw(
        st.sampled_from(
            [
                ((m, n, k), (n, k, 2), 2),
                ((m, n), (k,), 0),
                ((m, n, k), (k, m), ((2, 0), (0, 1))),
                ((m, n, k), (2, n), (1, -1)),
            ]
        )
    )
    return [draw(arrays(first)), draw(arrays(second))], {"axes": axes}


@case("cross")
def cross(draw):
    first, second = draw(broadcastable(2, max_dims=2))
    n, m = draw(st.sampled_from([(3, 3), (3, 2), (2, 3), (2, 2)]))
    x, y = draw(arrays((*first, n))), draw(arrays((*second, m)))
    return [x, y], {"axisc": draw(st.sampled_from([0, -1]))}


@case("trace")
def trace(draw):
    x = draw(arrays(shape_with(draw, min_dims=2)))
    axis1, axis2 = draw(st.permutations(range(-x.ndim, 0)))[:2]
    return [x], {"offset": draw(st.integers(-4, 4)), "axis1": axis1, "axis2": axis2}


@case("vecdot")
def vecdot(draw):
    first, second = draw(broadcastable(2, max_dims=2))
    n = draw(st.integers(0, 3))
    return [draw(arrays((*first, n))), draw(arrays((*second, n)))], {}


@case("matvec")
def matvec(draw):
    first, second = draw(broadcastable(2, max_dims=1))
    m, n = draw(st.integers(0, 3)), draw(st.integers(0, 3))
    return [draw(arrays((*first, m, n))), draw(arrays((*second, n)))], {}


@case("vecmat")
def vecmat(draw):
    first, second = draw(broadcastable(2, max_dims=1))
    m, n = draw(st.integers(0, 3)), draw(st.integers(0, 3))
    return [draw(arrays((*first, m))), draw(arrays((*second, m, n)))], {}
