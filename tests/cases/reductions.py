"""Arguments for the functions of tensorlite/numpy_ops/reductions.py."""

from hypothesis import strategies as st

from tensorlite.testing import arrays, shapes
from tests.cases.drawing import draw_axis, table

CASES, case = table()
LACKING = {}


@case("prod")
def reduction(draw):
    x = draw(arrays())
    return [x], {"axis": draw_axis(draw, x.ndim), "keepdims": draw(st.booleans())}


@case("var")
def reduction_of_some(draw):
    x = draw(arrays(shapes(min_side=1), "distinct"))
    return [x], {"axis": draw_axis(draw, x.ndim), "keepdims": draw(st.booleans())}


@case("cumsum")
def cumsum(draw):
    x = draw(arrays())
    return [x], {"axis": draw(st.sampled_from([None, *range(-x.ndim, x.ndim)]))}
