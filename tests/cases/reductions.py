"""Arguments for the functions of tensorlite/numpy_ops/reductions.py."""

from hypothesis import strategies as st

import tensorlite as tl
from tensorlite.testing import arrays, shapes
from tests.cases.drawing import draw_axis, shape_with, table

CASES, case = table()
LACKING = {}
# The weights are the second array, and not the second argument.
WRAPPED = {"average": lambda x, weights, **static: tl.average(x, weights=weights, **static)}


@case("prod", "nanprod", "nansum")
def reduction(draw):
    x = draw(arrays())
    return [x], {"axis": draw_axis(draw, x.ndim), "keepdims": draw(st.booleans())}


@case("var", "amax", "amin", "ptp", "nanmax", "nanmin", "nanmean", "nanvar")
def reduction_of_some(draw):
    x = draw(arrays(shapes(min_side=1), "distinct"))
    return [x], {"axis": draw_axis(draw, x.ndim), "keepdims": draw(st.booleans())}


@case("std", "nanstd")
def deviation(draw):
    """Of two elements or more, of which no two are equal: it has a kink where all are."""
    x = draw(arrays(shape_with(draw, min_side=2), "distinct"))
    static = {"axis": draw_axis(draw, x.ndim), "ddof": draw(st.sampled_from([0, 1]))}
    return [x], static | {"keepdims": draw(st.booleans())}


@case("average")
def average(draw):
    x = draw(arrays(shape_with(draw, min_side=1)))
    axis = draw_axis(draw, x.ndim)
    some = axis if isinstance(axis, tuple) else () if axis is None else (axis,)
    shape = draw(st.sampled_from([x.shape, tuple(x.shape[a] for a in some) or x.shape]))
    weights = draw(arrays(shape, "positive"))
    static = {"axis": axis, "returned": draw(st.booleans()), "keepdims": draw(st.booleans())}
    return [x, weights], static


@case("cumsum", "cumprod", "nancumsum", "nancumprod")
def running(draw):
    x = draw(arrays())
    return [x], {"axis": draw(st.sampled_from([None, *range(-x.ndim, x.ndim)]))}


@case("cumulative_sum", "cumulative_prod")
def cumulative(draw):
    x = draw(arrays(shape_with(draw)))
    axis = draw(st.sampled_from([*([None] if x.ndim == 1 else []), *range(-x.ndim, x.ndim)]))
    return [x], {"axis": axis, "include_initial": draw(st.booleans())}
