"""Arguments for the functions of tensorlite/linalg/."""

import math

import numpy as np
from hypothesis import strategies as st

import tensorlite as tl
from tensorlite.testing import arrays, broadcastable, shapes
from tests.cases.drawing import draw_axis, table

CASES, case = table()
LACKING = {}


def steady(v):
    """Vectors (..., n, k), of which either sign would do, with a sign that does not jump."""
    return v * np.sign(tl.sum(v, -2, True))


def steady_eigh(x, **static):
    w, v = tl.linalg.eigh(x, **static)
    return [w, steady(v)]


def steady_svd(x, **static):
    u, s, vt = tl.linalg.svd(x, **static)
    signs = np.sign(tl.sum(u, -2, True))
    return [u * signs, s, vt * signs.swapaxes(-1, -2)]


def slogdet(x):
    sign, size = tl.linalg.slogdet(x)
    return [size, size * sign]


def lstsq(a, b):
    x, squares, rank, s = tl.linalg.lstsq(a, b)
    return [x * rank, squares, s]


def rank_times_sum(x):
    return tl.sum(x, (-2, -1)) * tl.linalg.matrix_rank(x).astype(x.dtype)


# In the place of functions and operations whose results are constant in part, or have any sign.
WRAPPED = {
    "eigh": steady_eigh,
    "svd": steady_svd,
    "qr": tl.linalg.qr,
    "cholesky": tl.linalg.cholesky,
    "slogdet": slogdet,
    "linalg.lstsq": lstsq,
    "linalg.matrix_rank": rank_times_sum,
}


def draw_matrices(draw, stack, m, n):
    """Matrices far from singular, with distinct eigenvalues and singular values."""
    x = 0.1 * draw(arrays((*stack, m, n)))
    return x + np.eye(m, n) * np.arange(1.0, n + 1)


def draw_stack(draw):
    return draw(shapes(max_dims=1, max_side=2))


def draw_square(draw):
    n = draw(st.integers(0, 3))
    return draw_matrices(draw, draw_stack(draw), n, n)


def draw_any(draw, min_side=0):
    m, n = (draw(st.integers(min_side, 3)) for _ in range(2))
    return draw_matrices(draw, draw_stack(draw), m, n)


@case("det", "slogdet", "inv")
def square(draw):
    return [draw_square(draw)], {}


@case("cholesky")
def cholesky(draw):
    return [draw_square(draw)], {"upper": draw(st.booleans())}


@case("eigh", "linalg.eigvalsh")
def eigh(draw):
    return [draw_square(draw)], {"UPLO": draw(st.sampled_from("LU"))}


@case("svd")
def svd(draw):
    return [draw_any(draw)], {"full_matrices": False}


@case("linalg.svdvals", "qr", "linalg.matrix_rank")
def matrices(draw):
    return [draw_any(draw)], {}


@case("pinv")
def pinv(draw):
    return [draw_any(draw)], {"rcond": 1e-6}


@case("solve")
def solve(draw):
    n, k = (draw(st.integers(0, 3)) for _ in range(2))
    first, second = draw(broadcastable(2, max_dims=1))
    b = draw(st.sampled_from([(n,), (*second, n, k)]))
    return [draw_matrices(draw, first, n, n), draw(arrays(b))], {}


@case("linalg.lstsq")
def lstsq_case(draw):
    m, n, k = (draw(st.integers(1, 3)) for _ in range(3))
    return [draw_matrices(draw, (), m, n), draw(arrays(draw(st.sampled_from([(m,), (m, k)]))))], {}


@case("linalg.matrix_power")
def matrix_power(draw):
    return [draw_square(draw)], {"n": draw(st.sampled_from([-2, -1, 1, 2, 3, 5]))}


@case("linalg.multi_dot")
def multi_dot(draw):
    sizes = draw(st.lists(st.integers(0, 3), min_size=3, max_size=5))
    ends = [slice(draw(st.integers(0, 1)), None), slice(None, draw(st.sampled_from([None, 1])))]
    pairs = [list(pair) for pair in zip(sizes, sizes[1:])]
    pairs[0], pairs[-1] = pairs[0][ends[0]], pairs[-1][ends[1]]  # vectors or matrices
    return [[draw(arrays(tuple(pair))) for pair in pairs]], {}


@case("linalg.tensorsolve")
def tensorsolve(draw):
    known = [((2, 2, 4), (2, 2), None), ((4, 4), (4,), None), ((4, 2, 2), (2, 2), (0,))]
    of_a, of_b, axes = draw(st.sampled_from(known))
    return [draw_matrices(draw, (), 4, 4).reshape(of_a), draw(arrays(of_b))], {"axes": axes}


@case("linalg.tensorinv")
def tensorinv(draw):
    shape, ind = draw(st.sampled_from([((4, 2, 2), 1), ((2, 2, 4), 2), ((2, 2, 2, 2), 2)]))
    return [draw_matrices(draw, (), 4, 4).reshape(shape)], {"ind": ind}


@case("p_norm")
def p_norm(draw):
    x = draw(arrays(shapes(min_side=1)))
    return [x], {
        "p": draw(st.sampled_from([2, 3, 1.5, 0.5, -1])),
        "axis": draw_axis(draw, x.ndim),
        "keepdims": draw(st.booleans()),
    }


@case("linalg.vector_norm")
def vector_norm(draw):
    x = draw(arrays(shapes(min_side=1), "distinct"))
    return [np.where(np.abs(x) < 0.06, 9.0, x)], {
        "axis": draw_axis(draw, x.ndim),
        "ord": draw(st.sampled_from([1, 2, 3.5])),
        "keepdims": draw(st.booleans()),
    }


ORDERS = st.sampled_from(["fro", "nuc", 1, -1, 2, -2, math.inf, -math.inf])


@case("linalg.matrix_norm")
def matrix_norm(draw):
    return [draw_any(draw, 1)], {"ord": draw(ORDERS), "keepdims": draw(st.booleans())}


@case("linalg.norm")
def norm(draw):
    x = draw_any(draw, 1)
    axes = [(-2, -1), (-1, -2), *([(0, 2)] if x.ndim == 3 and x.size else [])]
    return [x], draw(
        st.sampled_from([
            {},
            {"keepdims": True},
            {"ord": 3, "axis": -1},
            {"ord": draw(ORDERS), "axis": draw(st.sampled_from(axes[:2]))},
            {"axis": axes[-1], "keepdims": True},
        ])
    )  # fmt: skip


@case("linalg.cond")
def cond(draw):
    p = draw(st.sampled_from([None, 2, -2, "fro", 1, math.inf]))
    n = draw(st.integers(1, 3))
    m = draw(st.integers(1, 3)) if p in (None, 2, -2) else n
    return [draw_matrices(draw, draw_stack(draw), m, n)], {"p": p}


@case("linalg.cross")
def cross(draw):
    pair = draw(st.sampled_from([((3,), (3,)), ((2, 3), (1, 3)), ((0, 3), (1, 3))]))
    return [draw(arrays(shape)) for shape in pair], {"axis": -1}


@case("linalg.outer")
def outer(draw):
    return [draw(arrays((draw(st.integers(0, 3)),))) for _ in range(2)], {}


@case("linalg.trace", "linalg.diagonal")
def of_a_diagonal(draw):
    return [draw(arrays(shapes(min_dims=2)))], {"offset": draw(st.integers(-2, 2))}
