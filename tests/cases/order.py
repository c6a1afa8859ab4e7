"""Arguments for the functions of tensorlite/numpy_ops/order.py."""

from hypothesis import strategies as st

from tensorlite.testing import arrays, shapes
from tests.cases.drawing import draw_axis, shape_with, table

CASES, case = table()
LACKING = {}
METHODS = (
    "linear lower higher midpoint nearest inverted_cdf averaged_inverted_cdf closest_observation "
    "interpolated_inverted_cdf hazen weibull median_unbiased normal_unbiased"
).split()


@case("sort")
def sort(draw):
    x = draw(arrays(shape_with(draw), "distinct"))
    axis = draw(st.sampled_from([None, *range(-x.ndim, x.ndim)]))
    return [x], {"axis": axis, "kind": draw(st.sampled_from([None, "stable"]))}


@case("partition")
def partition(draw):
    x = draw(arrays(shape_with(draw, min_side=1), "distinct"))
    axis = draw(st.sampled_from([None, *range(-x.ndim, x.ndim)]))
    n = x.size if axis is None else x.shape[axis]
    return [x], {"kth": draw(st.integers(-n, n - 1)), "axis": axis}


@case("median", "nanmedian")
def median(draw):
    x = draw(arrays(shapes(min_side=1), "distinct"))
    return [x], {"axis": draw_axis(draw, x.ndim), "keepdims": draw(st.booleans())}


def quantile_of(draw, q):
    x = draw(arrays(shapes(min_side=1), "distinct"))
    static = {"q": draw(q), "axis": draw_axis(draw, x.ndim), "keepdims": draw(st.booleans())}
    return [x], static | {"method": draw(st.sampled_from(METHODS))}


@case("quantile", "nanquantile")
def quantile(draw):
    return quantile_of(draw, st.sampled_from([0, 0.3, 0.5, 1.0, (0.1, 0.75), ()]))


@case("percentile", "nanpercentile")
def percentile(draw):
    return quantile_of(draw, st.sampled_from([0, 30, 62.5, (10, 75)]))
