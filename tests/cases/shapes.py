"""Arguments for the functions of tensorlite/numpy_ops/shapes.py."""

import numpy as np
from hypothesis import strategies as st

from tensorlite.testing import arrays, shapes
from tests.cases.drawing import draw_axis, table

CASES, case = table()
LACKING = {}


@case("flip")
def flip(draw):
    x = draw(arrays())
    return [x], {"axis": draw_axis(draw, x.ndim)}


@case("roll")
def roll(draw):
    x = draw(arrays(shapes(min_dims=1)))
    shift = st.integers(-5, 5)
    axis = draw(st.sampled_from([None, *range(-x.ndim, x.ndim), tuple(range(x.ndim))]))
    several = isinstance(axis, tuple)
    return [x], {
        "shift": tuple(draw(shift) for _ in axis) if several else draw(shift),
        "axis": axis,
    }


@case("tril", "triu")
def triangle(draw):
    return [draw(arrays(shapes(min_dims=2)))], {"k": draw(st.integers(-2, 2))}


@case("pad")
def pad(draw):
    x = draw(arrays())
    width = st.integers(0, 2)
    pairs = [(draw(width), draw(width)) for _ in range(x.ndim)]
    widths = draw(st.sampled_from([draw(width), (1, 2), pairs if pairs else 1]))
    return [x], {"pad_width": widths, "constant_values": draw(st.sampled_from([0, 2]))}


@case("take_along_axis")
def take_along_axis(draw):
    x = draw(arrays(shapes(min_dims=1, min_side=1)))
    axis = draw(st.integers(-x.ndim, x.ndim - 1))
    shape = list(x.shape)
    shape[axis] = draw(st.integers(0, 4))
    n = x.shape[axis]
    indices = np.random.default_rng(draw(st.integers(0, 99))).integers(-n, n, shape)
    return [x], {"indices": indices, "axis": axis}


@case("split")
def split(draw):
    x = draw(arrays(shapes(min_dims=1)))
    axis = draw(st.integers(-x.ndim, x.ndim - 1))
    n = x.shape[axis]
    sections = [k for k in range(1, 5) if n % k == 0]
    cuts = st.lists(st.integers(-n - 1, n + 1), max_size=3)  # in any order, as slices
    static = {"indices_or_sections": draw(st.one_of(st.sampled_from(sections), cuts))}
    return [x], static | {"axis": axis}


@case("stack")
def stack(draw):
    shape = draw(shapes())
    parts = draw(st.lists(arrays(shape), min_size=1, max_size=3))
    return [parts], {"axis": draw(st.integers(-len(shape) - 1, len(shape)))}


@case("take")
def take(draw):
    x = draw(arrays(shapes(min_dims=1, min_side=1)))
    axis = draw(st.sampled_from([None, *range(-x.ndim, x.ndim)]))
    n = x.size if axis is None else x.shape[axis]
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    return [x], {"indices": rng.integers(-n, n, draw(shapes(max_dims=2))), "axis": axis}
