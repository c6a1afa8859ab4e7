"""Arguments for the functions of tensorlite/numpy_ops/statistics.py."""

import numpy as np
from hypothesis import strategies as st

from tensorlite.testing import arrays
from tests.cases.drawing import shape_with, table

CASES, case = table()
LACKING = {}
SIDES = st.integers(1, 4)


@case("diff")
def diff(draw):
    x = draw(arrays(shape_with(draw)))
    static = {"n": draw(st.integers(0, 3)), "axis": draw(st.integers(-x.ndim, x.ndim - 1))}
    return [x], static | {"prepend": draw(st.sampled_from([None, 0.5]))}


@case("ediff1d")
def ediff1d(draw):
    ends = st.sampled_from([None, 0.5])
    return [draw(arrays())], {"to_end": draw(ends), "to_begin": draw(ends)}


@case("gradient")
def gradient(draw):
    """The samples, and coordinates for all axes or none."""
    edge_order = draw(st.sampled_from([1, 2]))
    x = draw(arrays(shape_with(draw, min_side=edge_order + 1, max_dims=2)))
    static = {"edge_order": edge_order}
    if draw(st.booleans()):
        return [x, *(np.cumsum(draw(arrays((n,), "positive"))) for n in x.shape)], static
    return [x], static | {"axis": draw(st.integers(-x.ndim, x.ndim - 1))}


@case("trapezoid")
def trapezoid(draw):
    y = draw(arrays(shape_with(draw)))
    axis = draw(st.integers(-y.ndim, y.ndim - 1))
    x = draw(st.sampled_from([None, (y.shape[axis],), y.shape]))
    static = {"axis": axis, "dx": draw(st.sampled_from([1.0, 0.5]))}
    return [y] if x is None else [y, draw(arrays(x))], static


@case("unwrap")
def unwrap(draw):
    x = draw(arrays(shape_with(draw)))
    return [3 * x], {"axis": draw(st.integers(-x.ndim, x.ndim - 1))}


@case("cov")
def cov(draw):
    n, rowvar = draw(st.integers(2, 4)), draw(st.booleans())
    shape = draw(st.sampled_from([(2, n), (n,)]))
    x = draw(arrays(shape if rowvar else shape[::-1]))
    static = {"rowvar": rowvar, "bias": draw(st.booleans())}
    return [x, *([draw(arrays((n,)))] if draw(st.booleans()) else [])], static


@case("corrcoef")
def corrcoef(draw):
    """Of a sine with noise and a cosine: no two variables of a correlation near 1 or -1."""
    noise = draw(arrays((4,)))
    return [np.array([[0.0, 2, 0, -2], [2.0, 0, -2, 0]]) + 0.1 * noise], {}


@case("convolve", "correlate")
def convolve(draw):
    a, v = draw(arrays((draw(SIDES),))), draw(arrays((draw(SIDES),)))
    return [a, v], {"mode": draw(st.sampled_from(["full", "same", "valid"]))}


@case("polyval")
def polyval(draw):
    return [draw(arrays((draw(SIDES),))), draw(arrays(shape_with(draw)))], {}
