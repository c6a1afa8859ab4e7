"""Arguments for shapes.py, joining.py and indexing.py of tensorlite/numpy_ops/."""

import numpy as np
from hypothesis import strategies as st

import tensorlite as tl
from tensorlite.testing import arrays, broadcastable, shapes
from tests.cases.drawing import draw_axis, table

CASES, case = table()
LACKING = {}

# Functions that take lists of arrays, or others before them, told the arrays one after the other.
WRAPPED = {
    "select": lambda x, y, default, condlist: tl.select(condlist, [x, y], default),
    "choose": lambda x, y, indices: tl.choose(indices, [x, y]),
    "full_like": lambda x, shape: tl.full_like(tl.broadcast_to(x, shape).detach(), x),
    "insert": lambda x, values, obj, axis: tl.insert(x, obj, values, axis),
}


def small(min_dims=0, **limits):
    return shapes(**{"min_dims": min_dims, "max_dims": max(2, min_dims), "max_side": 3} | limits)


def draw_one_axis(draw, x):
    return draw(st.integers(-x.ndim, x.ndim - 1))


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


# ---- axes and shapes ----


@case("ravel", "atleast_1d", "atleast_2d", "atleast_3d")
def any_shape(draw):
    return [draw(arrays(small()))], {}


@case("flipud", "fliplr", "matrix_transpose")
def matrices(draw):
    return [draw(arrays(small(2)))], {}


@case("rot90")
def rot90(draw):
    x = draw(arrays(small(2, max_dims=3)))
    axes = draw(st.sampled_from([(0, 1), (1, 0), (-1, 0)]))
    return [x], {"k": draw(st.integers(-3, 4)), "axes": axes}


@case("fftshift", "ifftshift")
def fftshift(draw):
    x = draw(arrays(small(1)))
    return [x], {"axes": draw(st.sampled_from([None, 0, (-1,)]))}


@case("moveaxis")
def moveaxis(draw):
    x = draw(arrays(small(2, max_dims=3)))
    pairs = [(0, -1), ((0, 1), (1, 0)), ((-1, 0), (0, 1))]
    source, destination = draw(st.sampled_from(pairs))
    return [x], {"source": source, "destination": destination}


@case("rollaxis")
def rollaxis(draw):
    x = draw(arrays(small(1, max_dims=3)))
    return [x], {"axis": draw_one_axis(draw, x), "start": draw(st.integers(0, x.ndim))}


@case("permute_dims")
def permute_dims(draw):
    x = draw(arrays(small(max_dims=3)))
    return [x], {"axes": tuple(draw(st.permutations(range(x.ndim))))}


@case("resize")
def resize(draw):
    return [draw(arrays(small(min_side=1)))], {"new_shape": draw(small())}


# ---- joining ----


@case("hstack", "vstack", "dstack", "column_stack")
def stacks(draw):
    shape = draw(small(1))
    parts = draw(st.lists(arrays(shape), min_size=1, max_size=3))
    return [parts], {}


@case("append")
def append(draw):
    shape = draw(small(1))
    axis = draw(st.sampled_from([None, *range(-len(shape), len(shape))]))
    return [draw(arrays(shape)), draw(arrays(shape))], {"axis": axis}


@case("broadcast_arrays")
def broadcast_arrays(draw):
    return [draw(arrays(shape)) for shape in draw(broadcastable(2, max_dims=2))], {}


@case("meshgrid")
def meshgrid(draw):
    rows = draw(st.lists(arrays(small(max_dims=1)), min_size=1, max_size=3))
    return rows, {"indexing": draw(st.sampled_from(["xy", "ij"]))}


@case("linspace")
def linspace(draw):
    ends = [draw(arrays(shape)) for shape in draw(broadcastable(2, max_dims=2))]
    return ends, {"num": draw(st.sampled_from([0, 1, 4])), "endpoint": draw(st.booleans())}


@case("full_like")
def full_like(draw):
    x, value = draw(broadcastable(2, max_dims=2))
    return [draw(arrays(value))], {"shape": np.broadcast_shapes(x, value)}


# ---- cutting and repeating ----


@case("array_split")
def array_split(draw):
    x = draw(arrays(small(1)))
    return [x], {"indices_or_sections": draw(st.integers(1, 4)), "axis": draw_one_axis(draw, x)}


@case("hsplit", "vsplit", "dsplit")
def halves(draw):
    x = draw(arrays(draw(st.sampled_from([(2, 2, 2), (0, 2, 2), (2, 4, 2), (2, 2, 0)]))))
    return [x], {"indices_or_sections": draw(st.sampled_from([1, 2, [1], [0, 2]]))}


@case("unstack")
def unstack(draw):
    x = draw(arrays(small(1, min_side=1)))
    return [x], {"axis": draw_one_axis(draw, x)}


@case("repeat")
def repeat(draw):
    x = draw(arrays(small(1)))
    axis = draw(st.sampled_from([None, *range(-x.ndim, x.ndim)]))
    n = x.size if axis is None else x.shape[axis]
    counts = np.random.default_rng(draw(st.integers(0, 99))).integers(0, 3, n)
    return [x], {"repeats": draw(st.sampled_from([0, 2, counts])), "axis": axis}


@case("tile")
def tile(draw):
    reps = st.one_of(st.integers(0, 3), small(max_dims=3))
    return [draw(arrays(small()))], {"reps": draw(reps)}


# ---- diagonals ----


@case("diag", "diagflat")
def diag(draw):
    return [draw(arrays(small(1)))], {"k": draw(st.integers(-2, 2))}


@case("diagonal")
def diagonal(draw):
    x = draw(arrays(small(2, max_dims=3)))
    axis1, axis2 = draw(st.permutations(range(x.ndim)))[:2]
    static = {"axis1": axis1, "axis2": axis2 - x.ndim}
    return [x], {"offset": draw(st.integers(-2, 2))} | static


@case("vander")
def vander(draw):
    static = {"N": draw(st.sampled_from([None, 0, 1, 4])), "increasing": draw(st.booleans())}
    return [draw(arrays(small(1, max_dims=1)))], static


# ---- choosing ----


@case("compress")
def compress(draw):
    x = draw(arrays(small(1)))
    axis = draw(st.sampled_from([None, *range(-x.ndim, x.ndim)]))
    n = x.size if axis is None else x.shape[axis]
    return [draw(arrays((n,))) > 0, x], {"axis": axis}


@case("extract")
def extract(draw):
    x = draw(arrays(small()))
    return [draw(arrays(x.shape)) > 0, x], {}


@case("select")
def select(draw):
    x, y, default, *conditions = draw(broadcastable(5, max_dims=2))
    conditions = [draw(arrays(shape)) > 0 for shape in conditions]
    return [draw(arrays(shape)) for shape in (x, y, default)], {"condlist": tuple(conditions)}


@case("choose")
def choose(draw):
    x, y, indices = draw(broadcastable(3, max_dims=2))
    indices = (draw(arrays(indices)) > 0).astype(np.int64)
    return [draw(arrays(x)), draw(arrays(y))], {"indices": indices}


@case("insert")
def insert(draw):
    x = draw(arrays(small(1, max_dims=1)))
    values = draw(arrays((2,)))
    obj = draw(st.sampled_from([0, [0, len(x)], [len(x), 0]]))
    return [x, values], {"obj": obj, "axis": draw(st.sampled_from([None, 0]))}


@case("delete")
def delete(draw):
    x = draw(arrays(small(1, min_side=1)))
    obj = draw(st.sampled_from([0, -1, [0], slice(0, 2), []]))
    return [x], {"obj": obj, "axis": draw(st.sampled_from([None, 0, -1]))}


@case("unique")
def unique(draw):
    x = draw(arrays(small(), "distinct"))
    return [x], {"axis": draw(st.sampled_from([None, 0])) if x.size and x.ndim else None}
