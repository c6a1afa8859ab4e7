"""Arguments for the functions of tensorlite/numpy_ops/elementwise.py."""

import numpy as np
from hypothesis import strategies as st

from tensorlite.testing import arrays, broadcastable
from tests.cases.drawing import table

CASES, case = table()
LACKING = {}


@case("sin", "cos")
def unary(draw):
    return [draw(arrays())], {}


@case("maximum", "minimum")
def pair_apart(draw):
    first, second = draw(broadcastable(2))
    x, y = draw(arrays(first, "distinct")), draw(arrays(second, "distinct"))
    grid = np.round(x / 0.1) * 0.1, np.round(y / 0.1) * 0.1  # multiples of 0.1, then 0.05 apart
    return [grid[0], grid[1] + 0.05], {}


@case("clip")
def clip(draw):
    bounds = st.sampled_from([None, -1.0, 0.1]), st.sampled_from([None, 1.0, 5])
    x = np.round(draw(arrays()) / 0.3) * 0.3 + 0.05  # off the bounds
    return [x], {"min": draw(bounds[0]), "max": draw(bounds[1])}
