"""Arguments for elementwise.py, trigonometric.py and exponentials.py of tensorlite/numpy_ops/."""

import numpy as np
from hypothesis import strategies as st

from tensorlite.testing import arrays, broadcastable, shapes
from tests.cases.drawing import table

CASES, case = table()
LACKING = {}

SMALL = shapes(max_dims=2, max_side=3)


def draw_pair(draw, kind="nonzero"):
    first, second = draw(broadcastable(2, max_dims=2))
    return draw(arrays(first, kind)), draw(arrays(second, kind))


# ---- functions of one array ----


@case("sin", "cos", "sinh", "cosh", "arctan", "arcsinh", "sinc", "exp2", "expm1", "cbrt")
@case("deg2rad", "radians", "rad2deg", "degrees", "square", "reciprocal", "fabs")
@case("positive", "copy", "real", "conj", "real_if_close", "sign")
def unary(draw):
    return [draw(arrays(SMALL))], {}


@case("log2", "log10")
def unary_positive(draw):
    return [draw(arrays(SMALL, "positive"))], {}


@case("arcsin", "arccos", "arctanh", "log1p", "tan")
def within_one(draw):
    return [draw(arrays(SMALL)) * 0.45], {}


@case("arccosh")
def above_one(draw):
    return [draw(arrays(SMALL, "positive")) + 1.0], {}


@case("floor", "ceil", "trunc", "fix", "rint")
def off_the_jumps(draw):
    return [np.round(draw(arrays(SMALL)) * 3) + 0.3], {}


@case("round", "around")
def rounding(draw):
    decimals = draw(st.integers(-1, 2))
    x = np.round(draw(arrays(SMALL)) * 3) + 0.3
    return [x * 10.0**-decimals], {"decimals": decimals}


@case("nan_to_num")
def nan_to_num(draw):
    return [draw(arrays(SMALL))], {"nan": draw(st.sampled_from([0.0, -1.5]))}


@case("ldexp")
def ldexp(draw):
    first, second = draw(broadcastable(2, max_dims=2))
    exponents = arrays(second, "distinct", np.int32)
    return [draw(arrays(first))], {"exponent": draw(st.one_of(exponents, st.integers(-3, 3)))}


# ---- functions of two ----


@case("hypot", "arctan2", "logaddexp", "logaddexp2", "copysign", "heaviside")
def pair(draw):
    return list(draw_pair(draw)), {}


@case("float_power")
def float_power(draw):
    x, y = draw_pair(draw)
    return [np.abs(x), draw(st.sampled_from([y, 2, -1, 0.5]))], {}


@case("maximum", "minimum", "fmax", "fmin")
def pair_apart(draw):
    x, y = draw_pair(draw, "distinct")
    grid = np.round(x / 0.1) * 0.1, np.round(y / 0.1) * 0.1  # multiples of 0.1, then 0.05 apart
    return [grid[0], grid[1] + 0.05], {}


@case("remainder", "mod", "fmod", "floor_divide", "divmod")
def quotient(draw):
    x, y = draw_pair(draw)
    return [np.round(x * 3) + 0.3, np.where(np.abs(y) > 1, 2, 1) * np.sign(y)], {}


@case("clip")
def clip(draw):
    x, *bounds = draw(broadcastable(3, max_dims=2))
    low, high = (np.round(draw(arrays(shape)) / 0.3) * 0.3 + 0.2 for shape in bounds)
    x = np.round(draw(arrays(x)) / 0.3) * 0.3 + 0.05  # off the bounds
    low = draw(st.sampled_from([None, -1.0, 0.1, low - 0.6]))
    return [x, low, draw(st.sampled_from([None, 1.0, 5, high + 0.5]))], {}


@case("interp")
def interp(draw):
    n = draw(st.integers(2, 4))
    fp = draw(arrays((n,)))
    x = np.round(draw(arrays(SMALL)) * 2) * 0.7 + 0.05
    ends = st.sampled_from([None, -1.5])
    return [x, np.arange(n) * 0.7 - 0.7, fp], {"left": draw(ends), "right": draw(ends)}
