"""How to draw arguments for every operation: `CASES[name]` draws (arrays, static arguments).

The walk in test_ops.py fails for an operation that has no case here.
"""

import numpy as np
from hypothesis import strategies as st

from tensorlite.testing import arrays, broadcastable, shapes
from tests.cases import elementwise, linalg, order, products, reductions, statistics
from tests.cases import shapes as shape_cases
from tests.cases.drawing import draw_axis, shape_with, table

CASES, case = table()
LACKING = {}
for room in (elementwise, reductions, order, statistics, products, shape_cases, linalg):
    CASES |= room.CASES
    LACKING |= room.LACKING


# ---- arithmetic and elementwise functions ----


@case("add", "sub", "mul", "div")
def pair(draw):
    first, second = draw(broadcastable(2))
    return [draw(arrays(first)), draw(arrays(second))], {}


@case("power")
def power(draw):
    first, second = draw(broadcastable(2))
    exponent = draw(
        st.one_of(arrays(second), st.sampled_from([2, 3, 0.5, -1, 1, 0]))  # arrays and numbers
    )
    return [draw(arrays(first, "positive")), exponent], {}


@case("neg", "exp", "tanh", "sigmoid", "erf", "abs", "relu", "silu", "relu2")
def unary(draw):
    return [draw(arrays())], {}


@case("log", "sqrt", "rsqrt")
def unary_positive(draw):
    return [draw(arrays(kind="positive"))], {}


@case("swiglu")
def swiglu(draw):
    shape = draw(shapes())
    return [draw(arrays(shape)), draw(arrays(shape))], {}


@case("gelu")
def gelu(draw):
    return [draw(arrays())], {"approximate": draw(st.sampled_from(["tanh", "none"]))}


@case("where")
def where(draw):
    condition, x, y = draw(broadcastable(3))
    return [draw(arrays(condition)) > 0, draw(arrays(x)), draw(arrays(y))], {}


@case("masked_fill")
def masked_fill(draw):
    x, mask = draw(broadcastable(2))
    shape = np.broadcast_shapes(x, mask)
    value = draw(st.sampled_from([-1.5, draw(arrays(()))]))
    return [draw(arrays(shape)), draw(arrays(mask)) > 0, value], {}


@case("astype")
def astype(draw):
    return [draw(arrays())], {"dtype": np.float64}


@case("transfer")
def transfer(draw):
    return [draw(arrays())], {"device": "cpu"}


@case("drop")
def drop(draw):
    x = draw(arrays())
    return [x], {"keep": draw(arrays(x.shape)) > 0, "p": 0.25}


# ---- reductions ----


@case("sum")
def reduction(draw):
    x = draw(arrays())
    return [x], {"axis": draw_axis(draw, x.ndim), "keepdims": draw(st.booleans())}


@case("mean", "max", "min")
def reduction_of_some(draw):
    x = draw(arrays(shapes(min_side=1), "distinct"))
    return [x], {"axis": draw_axis(draw, x.ndim), "keepdims": draw(st.booleans())}


@case("logsumexp")
def logsumexp(draw):
    x = draw(arrays(shapes(min_side=1)))
    return [x], {"axis": draw_axis(draw, x.ndim), "keepdims": draw(st.booleans())}


@case("softmax", "log_softmax")
def along_axis(draw):
    x = draw(arrays(shapes(min_dims=1, min_side=1)))
    return [x], {"axis": draw(st.integers(-x.ndim, x.ndim - 1))}


# ---- products ----


@case("matmul")
def matmul(draw):
    n, k, m = (draw(st.integers(0, 3)) for _ in range(3))
    first, second = draw(broadcastable(2, max_dims=2))
    x = draw(st.sampled_from([(k,), (n, k), (*first, n, k)]))
    y = draw(st.sampled_from([(k,), (k, m), (*second, k, m)]))
    return [draw(arrays(x)), draw(arrays(y))], {}


@case("linear")
def linear(draw):
    *batch, n = shape_with(draw)
    m = draw(st.integers(1, 3))
    bias = draw(st.one_of(st.none(), arrays((m,))))
    order = draw(st.sampled_from("CF"))
    return [draw(arrays((*batch, n))), draw(arrays((n, m))), bias], {"order": order}


# ---- shape ----


@case("reshape")
def reshape(draw):
    x = draw(arrays())
    shape = draw(st.sampled_from([(x.size,), (1, x.size), x.shape[::-1], (*x.shape, 1)]))
    return [x], {"shape": shape}


@case("transpose")
def transpose(draw):
    x = draw(arrays())
    axes = draw(st.one_of(st.none(), st.permutations(range(x.ndim))))
    if axes is not None:
        axes = tuple(a - x.ndim if draw(st.booleans()) else a for a in axes)
    return [x], {"axes": axes}


@case("swapaxes")
def swapaxes(draw):
    x = draw(arrays(shapes(min_dims=1)))
    axis = st.integers(-x.ndim, x.ndim - 1)
    return [x], {"axis1": draw(axis), "axis2": draw(axis)}


@case("expand_dims")
def expand_dims(draw):
    x = draw(arrays())
    return [x], {"axis": draw(st.integers(-x.ndim - 1, x.ndim))}


@case("squeeze")
def squeeze(draw):
    shape = [draw(st.sampled_from([1, 1, 2])) for _ in range(draw(st.integers(0, 3)))]
    ones = [i for i, n in enumerate(shape) if n == 1]
    axis = draw(st.sampled_from([None, *ones]))
    return [draw(arrays(tuple(shape)))], {"axis": axis}


@case("broadcast_to")
def broadcast_to(draw):
    x, other = draw(broadcastable(2))
    return [draw(arrays(x))], {"shape": np.broadcast_shapes(x, other)}


@case("concatenate")
def concatenate(draw):
    shape = list(shape_with(draw))
    axis = draw(st.sampled_from([None, *range(-len(shape), len(shape))]))
    parts = []
    for _ in range(draw(st.integers(1, 3))):
        if axis is not None:
            shape[axis] = draw(st.integers(0, 3))
        parts.append(draw(arrays(tuple(shape))))
    return [parts], {"axis": axis}


# ---- indexing ----


@case("getitem")
def getitem(draw):
    from hypothesis.extra.numpy import basic_indices, integer_array_indices

    x = draw(arrays(shapes(min_dims=1, min_side=1)))
    masks = arrays(x.shape).map(lambda a: a > 0)
    rows = st.lists(st.integers(-len(x), len(x) - 1), max_size=5).map(
        lambda ids: np.array(ids, dtype=np.int64)
    )
    mixed = rows.map(lambda ids: (ids, Ellipsis, None))
    options = [basic_indices(x.shape), integer_array_indices(x.shape), masks, rows, mixed]
    return [x], {"index": draw(st.one_of(options))}


@case("scatter_add")
def scatter_add(draw):
    [x], static = draw(CASES["getitem"])
    shape = np.shape(x[static["index"]])
    return [draw(arrays(shape))], {"shape": x.shape, "index": static["index"]}


@case("embedding")
def embedding(draw):
    rows, columns = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    shape = draw(shapes(max_side=4))
    ids = np.random.default_rng(draw(st.integers(0, 99))).integers(0, rows, shape)  # repeated
    return [draw(arrays((rows, columns)))], {"ids": ids}


# ---- functions of neural networks ----


@case("layer_norm")
def layer_norm(draw):
    *batch, n = shape_with(draw, max_dims=4)
    x = draw(arrays((*batch, n + 1), "distinct"))  # a lone value is always its own mean
    weight, bias = (draw(st.one_of(st.none(), arrays((n + 1,)))) for _ in range(2))
    return [x, weight, bias], {"eps": draw(st.sampled_from([1e-5, 1e-2]))}


def draw_targets(draw, shape, n_classes):
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    targets = rng.integers(0, n_classes, shape)
    ignored = np.asarray(rng.random(shape) < 0.3)
    ignored[(0,) * ignored.ndim] = False  # else the mean is over nothing
    return np.where(ignored, -100, targets)


@case("rms_norm")
def rms_norm(draw):
    x = draw(arrays(shapes(min_dims=1, min_side=1)))
    weight = draw(st.one_of(st.none(), arrays(x.shape[-1:])))
    return [x, weight], {"eps": draw(st.sampled_from([1e-5, 1e-2]))}


@case("cross_entropy")
def cross_entropy(draw):
    *batch, n_classes = draw(shapes(min_dims=1, max_dims=3, min_side=1))
    static = {
        "targets": draw_targets(draw, batch, n_classes),
        "reduction": draw(st.sampled_from(["mean", "sum", "none"])),
        "label_smoothing": draw(st.sampled_from([0.0, 0.2])),
    }
    return [draw(arrays((*batch, n_classes)))], static


@case("linear_cross_entropy")
def linear_cross_entropy(draw):
    *batch, n = draw(shapes(min_dims=2, max_dims=3, min_side=1))
    n_classes = draw(st.integers(1, 4))
    static = {
        "targets": draw_targets(draw, batch, n_classes),
        "reduction": draw(st.sampled_from(["mean", "sum"])),
        "soft_cap": draw(st.sampled_from([None, 1.5])),
    }
    return [draw(arrays((*batch, n))), draw(arrays((n_classes, n)))], static


@case("attention")
def attention(draw):
    side = st.integers(1, 3)
    n_queries, n_keys, size, width = draw(side), draw(side), draw(side), draw(side)
    q_batch, k_batch, v_batch, m_batch = draw(broadcastable(4, min_side=1, max_side=2, max_dims=2))
    q = draw(arrays((*q_batch, n_queries, size)))
    k = draw(arrays((*k_batch, n_keys, size)))
    v = draw(arrays((*v_batch, n_keys, width)))
    # A mask may not add axes of its own to the scores.
    batch = np.broadcast_shapes(q_batch, k_batch)
    m_batch = m_batch if np.broadcast_shapes(batch, m_batch) == batch else ()
    mask_shape = (
        *m_batch,
        draw(st.sampled_from([1, n_queries])),
        draw(st.sampled_from([1, n_keys])),
    )
    mask = draw(arrays(mask_shape))
    static = {
        "attn_mask": draw(st.sampled_from([None, mask, mask > 0])),
        "is_causal": draw(st.booleans()),
        "scale": draw(st.sampled_from([None, 0.5])),
    }
    if draw(st.booleans()):
        static |= {"keep": draw(arrays((*batch, n_queries, n_keys))) > 0, "dropout_p": 0.25}
    if draw(st.booleans()):
        static["offset"] = draw(st.integers(0, 2))
        if static["is_causal"] and static["offset"] + n_queries <= n_keys:
            static["window"] = draw(st.sampled_from([None, 1, 2, 5]))
    return [q, k, v], static


@case("rope")
def rope(draw):
    *batch, T, half = draw(shapes(min_dims=2, max_dims=4))
    angles = draw(arrays(draw(st.sampled_from([(T, half), (*batch, T, half), (1, half)]))))
    static = {"cos": np.cos(angles), "sin": np.sin(angles)}
    return [draw(arrays((*batch, T, 2 * half)))], static


@case("qk_norm_rope")
def qk_norm_rope(draw):
    side = st.integers(1, 3)
    B, T, n_head, half = draw(side), draw(side), draw(side), draw(side)
    static = {"n_head": n_head, "eps": draw(st.sampled_from([None, 1e-5, 1e-2]))}
    if draw(st.booleans()):
        angles = draw(arrays(draw(st.sampled_from([(T, half), (B, 1, T, half)]))))
        static |= {"cos": np.cos(angles), "sin": np.sin(angles)}
    return [draw(arrays((B, T, 6 * n_head * half)))], static


@case("packed_attention")
def packed_attention(draw):
    side = st.integers(1, 3)
    B, T, n_head, size = draw(side), draw(side), draw(side), draw(side)
    static = {"n_head": n_head}
    if draw(st.booleans()):
        static |= {"keep": draw(arrays((B, n_head, T, T))) > 0, "dropout_p": 0.25}
    if draw(st.booleans()):
        static |= {"attn_mask": draw(arrays((B, 1, T, T))) > 0}
    return [draw(arrays((B, T, 3 * n_head * size)))], static
