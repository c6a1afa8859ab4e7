"""Value and gradient of every function that PyTorch has are PyTorch's.

`THEIRS` says for each function of tensorlite how to say the same in torch, with our names for its
arguments; op_cases.py draws the arguments. `EXCEPTIONS` lists what torch has no counterpart of,
and `DIFFERENCES` where the two differ on purpose, with the reason. Shapes and dtypes of values and
gradients must be equal too.
"""

import inspect
import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import tensorlite as tl
from tensorlite.testing import arrays, broadcastable, shapes
from tests.cases import named
from tests.op_cases import CASES
from tests.oracle_tables import elementwise, linalg, order, products, reductions, statistics
from tests.oracle_tables import shapes as shape_tables

torch = pytest.importorskip("torch", reason="PyTorch is what these tests compare with")
F = torch.nn.functional
torch.set_num_threads(1)

# ---- the table: our function -> the same in torch ----


def dims(x, axis):
    """NumPy's axis (None: all) as a tuple of torch's dims."""
    if axis is None:
        return tuple(range(x.ndim))
    return axis if isinstance(axis, tuple) else (axis,)


def over_dims(function):
    """A reduction of torch that takes a tuple of dims, with NumPy's arguments."""
    return lambda x, axis=None, keepdims=False: function(x, dim=dims(x, axis), keepdim=keepdims)


def prod(x, axis=None, keepdims=False):
    for dim in sorted((a % x.ndim for a in dims(x, axis)), reverse=True):  # it takes only one
        x = torch.prod(x, dim, keepdim=keepdims)
    return x


def var(x, axis=None, ddof=0, keepdims=False):
    return torch.var(x, dims(x, axis), correction=ddof, keepdim=keepdims)


def squeeze(x, axis=None):
    return torch.squeeze(x) if axis is None else torch.squeeze(x, axis)


def clip(x, min=None, max=None):
    if min is None and max is None:
        return x
    bounds = [b if b is None else torch.as_tensor(b, dtype=x.dtype) for b in (min, max)]
    shape = torch.broadcast_shapes(x.shape, *(b.shape for b in bounds if b is not None))
    return torch.clamp(torch.broadcast_to(x, shape), *bounds)


def cumsum(x, axis=None):
    return torch.cumsum(x.reshape(-1), 0) if axis is None else torch.cumsum(x, axis)


def transpose(x, axes=None):
    return torch.permute(x, tuple(reversed(range(x.ndim))) if axes is None else axes)


def roll(x, shift, axis=None):
    return torch.roll(x, shift, () if axis is None else axis)


def pad(x, pad_width, constant_values=0):
    widths = np.broadcast_to(np.asarray(pad_width), (x.ndim, 2)).tolist()
    return F.pad(x, sum(reversed(widths), []), value=constant_values)  # torch: the last axis first


def concatenate(parts, axis=0):
    return torch.cat([x.reshape(-1) for x in parts] if axis is None else parts, axis or 0)


def take(x, indices, axis=None):
    if axis is None:
        return torch.take(x, indices)
    shape = list(x.shape)
    n = shape[axis]
    shape[axis : axis % x.ndim + 1] = indices.shape
    return torch.index_select(x, axis, indices.reshape(-1) % n).reshape(shape)


def take_along_axis(x, indices, axis):
    return torch.take_along_dim(x, indices % x.shape[axis], axis)  # it takes no negative ones


def getitem(x, index):
    """torch's indexing, told that an integer beside arrays is an array too, as NumPy has it."""
    parts = index if isinstance(index, tuple) else (index,)
    if any(isinstance(i, torch.Tensor) and i.ndim for i in parts):
        parts = tuple(torch.tensor([int(i)]) if is_integer(i) else i for i in parts)
    return x[parts]


def is_integer(i):
    return isinstance(i, int) or (isinstance(i, torch.Tensor) and i.ndim == 0)


def scatter_add(g, shape, index):
    index = mapped(lambda i: i.numpy() if isinstance(i, torch.Tensor) else i, index)
    n = math.prod(shape)
    ids = torch.tensor(np.arange(n).reshape(shape)[index].copy()).reshape(-1)
    return torch.zeros(n, dtype=g.dtype).index_add(0, ids, g.reshape(-1)).reshape(shape)


def layer_norm(x, weight=None, bias=None, eps=1e-5):
    return F.layer_norm(x, x.shape[-1:], weight, bias, eps)


def rms_norm(x, weight=None, eps=1e-5):
    return F.rms_norm(x, x.shape[-1:], weight, eps)


def rope(x, cos, sin):
    """As transformers writes it, with the angles of both halves side by side."""
    a, b = x.chunk(2, dim=-1)
    cos, sin = (torch.cat([angle, angle], dim=-1) for angle in (cos, sin))
    return x * cos + torch.cat([-b, a], dim=-1) * sin


def qk_norm_rope(qkv, n_head, cos=None, sin=None, eps=None):
    B, T, C = qkv.shape[0], qkv.shape[1], qkv.shape[2] // 3
    q, k, v = (x.reshape(B, T, n_head, C // n_head).transpose(1, 2) for x in qkv.split(C, dim=-1))
    if eps is not None:
        q, k = rms_norm(q, eps=eps), rms_norm(k, eps=eps)
    if cos is not None:
        q, k = rope(q, cos, sin), rope(k, cos, sin)
    q, k, v = (x.transpose(1, 2).reshape(B, T, C) for x in (q, k, v))
    return torch.cat([q, k, v], dim=-1)


def cross_entropy(logits, targets, **static):
    """torch has the classes on axis 1, so the rows are made one axis."""
    rows = logits.reshape(-1, logits.shape[-1])
    loss = F.cross_entropy(rows, targets.reshape(-1), **static)
    return loss.reshape(targets.shape) if static.get("reduction") == "none" else loss


def linear_cross_entropy(x, weight, targets, soft_cap=None, **static):
    logits = F.linear(x, weight)
    logits = logits if soft_cap is None else soft_cap * torch.tanh(logits / soft_cap)
    return cross_entropy(logits, targets, **static)


def attention(
    q,
    k,
    v,
    attn_mask=None,
    is_causal=False,
    dropout_p=0.0,
    scale=None,
    keep=None,
    window=None,
    offset=0,
):
    if is_causal and (attn_mask is not None or offset or window):  # torch takes only one mask
        past = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool).tril(offset)
        if window:
            past = past.triu(offset - window + 1)
        attn_mask = past if attn_mask is None else attn_mask
        if attn_mask.dtype == torch.bool:
            attn_mask = attn_mask & past
        else:
            attn_mask = torch.where(past, attn_mask, -math.inf)
        is_causal = False
    if keep is None:
        return F.scaled_dot_product_attention(q, k, v, attn_mask, is_causal=is_causal, scale=scale)
    # torch draws what it drops. Attention to the unit vectors gives the weights themselves.
    eye = torch.eye(k.shape[-2], dtype=k.dtype)
    weights = attention(q, k, eye.expand(*k.shape[:-2], -1, -1), attn_mask, is_causal, 0.0, scale)
    return torch.matmul(weights * keep / (1 - dropout_p), v)


def packed_attention(qkv, n_head, dropout_p=0.0, keep=None, attn_mask=None):
    B, T, C = qkv.shape[0], qkv.shape[1], qkv.shape[2] // 3
    q, k, v = (x.reshape(B, T, n_head, C // n_head).transpose(1, 2) for x in qkv.split(C, dim=-1))
    y = attention(q, k, v, attn_mask, is_causal=True, dropout_p=dropout_p, keep=keep)
    return y.transpose(1, 2).reshape(B, T, C)


SAME_NAME = (
    "add sub mul div neg exp log sqrt rsqrt sin cos tanh sigmoid erf abs relu maximum minimum "
    "where masked_fill matmul reshape"
)
THEIRS = {name: getattr(torch, name) for name in SAME_NAME.split()} | {
    "power": torch.pow,
    "silu": F.silu,
    "relu2": lambda x: torch.square(torch.relu(x)),
    "swiglu": lambda gate, up: F.silu(gate) * up,
    "gelu": lambda x, approximate="tanh": F.gelu(x, approximate=approximate),
    "clip": clip,
    "astype": lambda x, dtype: x.to(dtype),
    "drop": lambda x, keep, p: x * keep / (1 - p),  # F.dropout, told what to keep
    "sum": over_dims(torch.sum),
    "mean": over_dims(torch.mean),
    "max": over_dims(torch.amax),
    "min": over_dims(torch.amin),
    "logsumexp": over_dims(torch.logsumexp),
    "var": var,
    "prod": prod,
    "cumsum": cumsum,
    "softmax": lambda x, axis=-1: torch.softmax(x, axis),
    "log_softmax": lambda x, axis=-1: torch.log_softmax(x, axis),
    "einsum": lambda operands, subscripts: torch.einsum(subscripts, *operands),
    "linear": lambda x, weight, bias=None, order="C": F.linear(x, weight.T, bias),
    "transpose": transpose,
    "swapaxes": lambda x, axis1, axis2: torch.swapaxes(x, axis1, axis2),
    "expand_dims": lambda x, axis: torch.unsqueeze(x, axis),
    "squeeze": squeeze,
    "flip": lambda x, axis=None: torch.flip(x, dims(x, axis)),
    "roll": roll,
    "tril": lambda x, k=0: torch.tril(x, k),
    "triu": lambda x, k=0: torch.triu(x, k),
    "pad": pad,
    "broadcast_to": lambda x, shape: torch.broadcast_to(x, shape),
    "concatenate": concatenate,
    "stack": lambda parts, axis=0: torch.stack(parts, axis),
    "split": lambda x, indices_or_sections, axis=-1: torch.tensor_split(
        x, indices_or_sections, dim=axis
    ),
    "take": take,
    "take_along_axis": take_along_axis,
    "getitem": getitem,
    "scatter_add": scatter_add,
    "embedding": lambda weight, ids: F.embedding(ids, weight),
    "layer_norm": layer_norm,
    "rms_norm": rms_norm,
    "rope": rope,
    "qk_norm_rope": qk_norm_rope,
    "cross_entropy": cross_entropy,
    "linear_cross_entropy": linear_cross_entropy,
    "attention": attention,
    "scaled_dot_product_attention": attention,
    "packed_attention": packed_attention,
}
# Functions that are in no table, and why.
EXCEPTIONS = {
    "dropout": "draws its own numbers; what it does with them is 'drop'",
    "causal_self_attention": "draws its own numbers too, for 'packed_attention'",
    "soft_cap": "is tanh, scaled; its use is in 'linear_cross_entropy'",
    "transfer": "moves data between devices, of which a machine of tests may have one",
}
# Where ours differ from torch's on purpose, so that the tests below keep away from it.
DIFFERENCES = {
    "power": "the gradient for the exponent is 0 where the base is not above 0; torch has NaN "
    "below 0, and -inf for 0 to a negative power",
    "var": "ddof is 0 unless given, as in NumPy; torch's correction is 1",
    "getitem": "an integer beside arrays is an array, and an Ellipsis of no axes stands between "
    "arrays, as in NumPy, which both move axes; torch takes no slices of negative step",
    "take_along_axis": "negative indices count from the end; torch refuses them",
    "attention": "takes a mask and is_causal together; torch refuses",
    "cross_entropy": "the classes are the last axis; torch has them on axis 1. Targets are "
    "integers; torch takes distributions and weights of classes too",
    "dtypes": "a 0-d array counts in the choice of a dtype, as in NumPy; torch asks only its kind",
    "NaN": "the gradient of abs, relu, maximum and minimum where an argument is NaN, and of prod "
    "beside infinities; the values are equal",
    "frozen parameters": "stay as they are in a step; torch changes one that still has a .grad",
    "gelu": "the gradient at infinity is its limit, 1 or 0; torch has NaN",
    "clip_grad_norm": "raises where no parameter has a gradient; torch gives 0",
}


# ---- comparing ----

DTYPES = st.sampled_from([np.float32, np.float64])
for room in (elementwise, reductions, order, statistics, products, shape_tables, linalg):
    THEIRS |= room.THEIRS
    EXCEPTIONS |= room.EXCEPTIONS
    DIFFERENCES |= room.DIFFERENCES

TOLERANCE = {np.dtype(np.float32): 1e-5, np.dtype(np.float64): 1e-11}
# A vector whose values are all equal: its rounding is divided by sqrt(eps).
ROOM = {"layer_norm": 10}


def mapped(function, value):
    """Lists and tuples with `function` applied to what is in them."""
    if isinstance(value, (list, tuple)):
        return type(value)(mapped(function, v) for v in value)
    return function(value)


def flattened(value):
    return [v for item in value for v in flattened(item)] if isinstance(value, list) else [value]


def is_float(value):
    return isinstance(value, (np.ndarray, np.floating)) and value.dtype.kind == "f"


def to_torch(value, dtype):
    """Arrays as torch's tensors, those of floats in `dtype`; dtypes as torch's."""
    if inspect.isclass(value):
        return torch.from_numpy(np.empty(0, value)).dtype
    if not isinstance(value, (np.ndarray, np.generic)):
        return value
    value = np.asarray(value)
    return torch.tensor(np.array(value, dtype if is_float(value) else None, order="C"))


def our_leaf(value, dtype):
    # Not tl.tensor, whose copy would lose how the memory is laid out.
    return tl.Tensor(np.asarray(value, dtype), True) if is_float(value) else value


def their_leaf(value, dtype):
    return to_torch(value, dtype).requires_grad_() if is_float(value) else to_torch(value, dtype)


def outcome(function, args, static):
    """Values and gradients; the gradient of a value is started from a fixed weight."""
    values = function(*args, **static)
    values = list(values) if isinstance(values, (list, tuple)) else [values]
    for y in values:
        weight = np.cos(np.arange(math.prod(y.shape))).reshape(y.shape)
        weight = weight if isinstance(y, tl.Tensor) else torch.tensor(weight).to(y.dtype)
        y.backward(weight, retain_graph=True)
    leaves = [a for a in flattened(args) if getattr(a, "requires_grad", False)]
    gradients = [a * 0 if a.grad is None else a.grad for a in leaves]  # None: no path leads there
    return [*values, *gradients]


def same(ours, theirs, room=1):
    """Shape, dtype and numbers are equal, NaN and infinities too."""
    ours, theirs = (a.detach().numpy() for a in (ours, theirs))
    assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
    tolerance = TOLERANCE.get(ours.dtype, 0) * room
    np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)


def check(name, args, static, dtype):
    """Values and gradients of our function are those of torch's."""
    args = list(args)
    ours = outcome(named(name), mapped(lambda a: our_leaf(a, dtype), args), static)
    theirs = outcome(
        THEIRS[name],
        mapped(lambda a: their_leaf(a, dtype), args),
        {key: mapped(lambda a: to_torch(a, dtype), value) for key, value in static.items()},
    )
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs):
        same(a, b, ROOM.get(name, 1))


# ---- arguments beside those of op_cases.py ----


@st.composite
def attention_case(draw):
    side = st.integers(1, 5)
    n_queries, n_keys, size, width = draw(side), draw(side), draw(side), draw(side)
    batch = draw(shapes(max_dims=2, min_side=1, max_side=2))
    q = draw(arrays((*batch, n_queries, size)))
    k, v = draw(arrays((*batch, n_keys, size))), draw(arrays((*batch, n_keys, width)))
    lead = draw(st.sampled_from([(), (1,) * len(batch), batch]))
    mask = draw(arrays((*lead, draw(st.sampled_from([1, n_queries])), n_keys)))
    masks = [None, mask, mask > 0, np.where(mask > 0, mask, -math.inf)]  # some rows see nothing
    return [q, k, v], {
        "attn_mask": draw(st.sampled_from(masks)),
        "is_causal": draw(st.booleans()),
        "scale": draw(st.sampled_from([None, 0.5, 2.0])),
        "offset": draw(st.integers(0, 3)),
    }


@st.composite
def index_case(draw):
    """Slices, None, an Ellipsis, integers, and either integer arrays or one mask, in any order."""
    x = draw(arrays(shapes(min_dims=1, max_dims=4, min_side=1, max_side=3)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    array_shapes = [(draw(st.integers(0, 3)),), (1,), (2, 1)]
    kinds = ["slice", "int", *draw(st.sampled_from([["slice"], ["array"] * 2, ["mask"]]))]

    def parts(shape):
        """What stands for the axes of `shape`."""
        if not shape:
            return []
        n, kind, n_axes = shape[0], draw(st.sampled_from(kinds)), 1
        if kind == "mask":
            kinds.remove("mask")
            n_axes = draw(st.integers(1, len(shape)))
            part = rng.random(shape[:n_axes]) < 0.6
        elif kind == "array":
            part = rng.integers(-n, n, draw(st.sampled_from(array_shapes)))
        elif kind == "int":
            part = int(rng.integers(-n, n))
        else:
            start, stop = sorted(rng.integers(-1, n + 2, 2).tolist())
            part = slice(*draw(st.sampled_from([(None,), (start, stop), (-2, None, 2)])))
        added = [None] if draw(st.integers(0, 4)) == 0 else []
        return [*added, part, *parts(shape[n_axes:])]

    start, stop = sorted(draw(st.integers(0, x.ndim)) for _ in range(2))  # what "..." stands for
    dots = [Ellipsis] if start < stop and (stop < x.ndim or draw(st.booleans())) else []
    return [x], {"index": (*parts(x.shape[:start]), *dots, *parts(x.shape[stop:]))}


@st.composite
def cross_entropy_case(draw):
    [x], static = draw(CASES["cross_entropy"])
    ignore_index = draw(st.sampled_from([-100, -1, 0]))
    targets = np.where(static["targets"] == -100, ignore_index, static["targets"])
    assume(np.any(targets != ignore_index))  # the mean over nothing
    return [x], static | {"targets": targets, "ignore_index": ignore_index}


@st.composite
def var_case(draw):
    [x], static = draw(CASES["var"])
    axis = dims(x, static["axis"])
    ddof = draw(st.sampled_from([0, 1, 2]))
    assume(math.prod(x.shape[a] for a in axis) > ddof)
    return [x], static | {"ddof": ddof}


@st.composite
def astype_case(draw):
    return [draw(arrays())], {"dtype": draw(DTYPES)}


MORE_CASES = {
    "scaled_dot_product_attention": attention_case(),
    "getitem": index_case(),
    "cross_entropy": cross_entropy_case(),
    "var": var_case(),
    "astype": astype_case(),
}


def has_no_negative_step(arguments):
    index = arguments[1]["index"]
    parts = index if isinstance(index, tuple) else (index,)
    return not any(isinstance(i, slice) and (i.step or 1) < 0 for i in parts)


def cases(name):
    known = [table[name] for table in (CASES, MORE_CASES) if name in table]
    drawn = st.one_of(known)
    return drawn.filter(has_no_negative_step) if name == "getitem" else drawn


# ---- the tests ----


FUNCTIONS = ("tensorlite.ops", "tensorlite.numpy_ops", "tensorlite.erf", "tensorlite.functional")


def test_every_function_is_in_a_table():
    public = {
        name
        for name, value in vars(tl).items()
        if str(getattr(value, "__module__", "")).startswith(FUNCTIONS)
    }
    in_linalg = {name for name in CASES if name.startswith("linalg.")}
    assert set(THEIRS) | set(EXCEPTIONS) == public | set(tl.OPS) | in_linalg
    assert not set(THEIRS) & set(EXCEPTIONS)


@pytest.mark.parametrize("name", sorted(THEIRS))
def test_as_torch(name):
    @settings(max_examples=2 * settings.default.max_examples)
    @given(cases(name), DTYPES)
    def compare(arguments, dtype):
        check(name, *arguments, dtype)

    compare()


KINKS = {  # small integers among the arguments: zeros, ties, bounds met
    "abs": {},
    "relu": {},
    "sqrt": {},
    "maximum": {},
    "minimum": {},
    "clip": {"min": -1, "max": 1},
    "max": {"axis": 1},
    "min": {"axis": (0, 1)},
    "prod": {"axis": 1, "keepdims": True},
    "power": {},
    "where": {},
}


@pytest.mark.parametrize("name", sorted(KINKS))
def test_kinks_and_ties(name):
    @given(st.integers(0, 2**32 - 1), DTYPES)
    def compare(seed, dtype):
        rng = np.random.default_rng(seed)
        low = 0 if name in ("sqrt", "power") else -2
        drawn = [a for a in tl.OPS[name].arrays if a not in KINKS[name]]
        values = [rng.integers(low, 3, (2, 4)).astype(np.float64) for _ in drawn]
        if name == "where":
            values[0] = values[0] > 0
        with np.errstate(divide="ignore", invalid="ignore"):
            check(name, values, KINKS[name], dtype)

    compare()


@pytest.mark.parametrize("exponent", [0, 1, 2, 3, 0.5, -1, -2.0])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_power_of_any_base_to_a_number(exponent, dtype):
    with np.errstate(divide="ignore", invalid="ignore"):
        check("power", [np.array([-2.0, -1, 0, 0.5, 3]), exponent], {}, dtype)


SMOOTH = (
    "tanh sigmoid erf relu relu2 silu gelu softmax log_softmax logsumexp abs layer_norm rms_norm"
)


@pytest.mark.parametrize("name", SMOOTH.split())
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_far_from_zero(name, dtype):
    """No overflow on the way to a finite result."""
    with np.errstate(over="ignore", under="ignore"):
        x = np.array([[-1e4, -300, -89, -20, -6.5, 0, 1e-4], [1e4, 300, 89, 20, 6.5, 1e-9, -1e-4]])
        check(name, [x], {}, dtype)
        if name == "gelu":
            check(name, [x], {"approximate": "none"}, dtype)
        if name in ("softmax", "log_softmax", "logsumexp"):
            check(name, [np.where(abs(x) == 300, -math.inf, x)], {"axis": 1}, dtype)


NOT_FINITE = {  # those of one array, with the axis that most of them take
    **dict.fromkeys("exp log sqrt rsqrt sin cos tanh sigmoid erf silu relu2 gelu".split(), {}),
    **dict.fromkeys(
        "softmax log_softmax logsumexp sum mean max min cumsum var".split(), {"axis": 1}
    ),
    **dict.fromkeys(["layer_norm", "rms_norm"], {}),
    "clip": {"min": -1.0, "max": 2.0},
    "cross_entropy": {"targets": np.array([1, 2])},
}


@pytest.mark.parametrize("name", sorted(NOT_FINITE))
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_not_finite(name, dtype):
    """NaN and infinities come out, in values and gradients, where torch has them."""
    x = np.array([[math.nan, 1, -2, math.inf], [0.5, -math.inf, 3, -1]])
    with np.errstate(all="ignore"):
        if name == "gelu":  # DIFFERENCES has the gradient at infinity
            ours = outcome(tl.gelu, [our_leaf(np.array([math.inf, -math.inf]), dtype)], {})
            theirs = F.gelu(torch.tensor([math.inf, -math.inf]), approximate="tanh")
            np.testing.assert_array_equal(ours[0].data, theirs.numpy().astype(dtype))
            x = np.where(np.isinf(x), 4, x)
        check(name, [x], NOT_FINITE[name], dtype)


KINDS = st.sampled_from([np.float32, np.float64, np.int32, np.int64, np.bool_])


@pytest.mark.parametrize("name", ["add", "mul", "div", "maximum", "minimum", "power", "where"])
def test_dtype_of_two(name):
    """float32 stays beside integers of any size; 0-d arrays are listed in DIFFERENCES."""

    @given(KINDS, KINDS)
    def compare(first, second):
        assume(name != "power" or not first == second == np.bool_)  # neither has it
        x, y = np.array([1, 2, 3]).astype(first), np.array([3, 1, 2]).astype(second)
        condition = [np.array([True, False, True])] if name == "where" else []
        values = [*condition, x, y]
        ours = tl.OPS[name](*map(tl.tensor, values))
        same(ours, THEIRS[name](*map(torch.tensor, values)))

    compare()


@pytest.mark.parametrize("name", "exp log sqrt rsqrt sin cos tanh sigmoid erf".split())
def test_function_of_integers(name):
    @given(KINDS.filter(lambda kind: kind != np.bool_))
    def compare(dtype):
        x = np.array([1, 2, 3]).astype(dtype)
        same(tl.OPS[name](tl.tensor(x)), THEIRS[name](torch.tensor(x)))

    compare()


@pytest.mark.parametrize("name", ["sum", "prod", "max", "min", "cumsum"])
@given(KINDS, st.sampled_from([None, 0, -1]))
def test_reduction_of_integers(name, dtype, axis):
    x = np.array([[1, 0, 3], [2, 2, 0]]).astype(dtype)
    same(tl.OPS[name](tl.tensor(x), axis=axis), THEIRS[name](torch.tensor(x), axis=axis))


@st.composite
def einsum_case(draw):
    """What the op's own case leaves out: no arrow, an ellipsis, sizes of 1 that stretch."""
    sizes = {c: draw(st.integers(1, 3)) for c in "aBc"}
    n = draw(st.integers(1, 3))
    batches = draw(broadcastable(n, min_side=1, max_dims=2))
    inputs, parts = [], []
    for batch in batches:
        letters = draw(st.lists(st.sampled_from("aBc"), max_size=3))
        shape = [sizes[c] for c in letters]
        if draw(st.booleans()):
            i = draw(st.integers(0, len(letters)))
            letters[i:i], shape[i:i] = ["..."], batch
        inputs.append("".join(letters))
        parts.append(draw(arrays(tuple(shape))))
    subscripts = draw(st.sampled_from([",", " , "])).join(inputs)
    if draw(st.booleans()):
        known = sorted(set("".join(inputs)) & set(sizes))
        output = draw(st.permutations(known))[: draw(st.integers(0, len(known)))]
        if "..." in subscripts:
            output.insert(draw(st.integers(0, len(output))), "...")
        subscripts += "->" + "".join(output)
    return subscripts, parts


def check_einsum(subscripts, parts, dtype):
    ours = outcome(tl.einsum, [subscripts, *(our_leaf(a, dtype) for a in parts)], {})
    theirs = outcome(torch.einsum, [subscripts, *(their_leaf(a, dtype) for a in parts)], {})
    for a, b in zip(ours, theirs, strict=True):
        same(a, b)


@given(einsum_case(), DTYPES)
def test_einsum_in_words(arguments, dtype):
    check_einsum(*arguments, dtype)


@pytest.mark.parametrize(
    "subscripts, shapes",
    [
        ("ij,jk", [(2, 3), (3, 4)]),
        ("ji", [(2, 3)]),
        ("ii", [(3, 3)]),
        ("...ii->...i", [(2, 3, 3)]),
        ("i,j,k->", [(2,), (3,), (4,)]),
        ("bthd,bshd->bhts", [(2, 3, 2, 4), (2, 5, 2, 4)]),
        ("...ij,...jk", [(2, 1, 2, 3), (4, 3, 2)]),
        ("i...->...", [(3, 2, 2)]),
        ("Ba,ab", [(2, 3), (3, 2)]),
    ],
)
def test_einsum_known_forms(subscripts, shapes):
    rng = np.random.default_rng(0)
    parts = [rng.standard_normal(shape) for shape in shapes]
    check_einsum(subscripts, parts, np.float64)


# ---- second derivatives ----


OURS = SimpleNamespace(**{name: named(name) for name in THEIRS})
TORCH = SimpleNamespace(**THEIRS)

# Scalar functions of x (n, m), in the words of either library.
COMPOSITIONS = {
    "elementwise": lambda f, x: f.sum(f.exp(f.sin(x)) * f.tanh(x) + f.erf(x) * f.sigmoid(x)),
    "powers": lambda f, x: f.sum(f.power(f.mul(x, x) + 1.0, 1.5) / f.sqrt(f.abs(x))),
    "linear": lambda f, x: f.mean(x),
    "reductions": lambda f, x: f.sum(f.var(x, axis=0) * f.logsumexp(x, axis=0) + f.prod(x, axis=0)),
    "extremes": lambda f, x: f.max(f.mul(x, x)) * f.sum(f.min(x, axis=1)),
    "matrices": lambda f, x: f.sum(f.power(f.matmul(x, f.swapaxes(x, 0, 1)), 2)),
    "einsum": lambda f, x: f.sum(f.einsum([x, x, x], subscripts="ij,kj,kl->il")),
    "shapes": lambda f, x: f.sum(
        f.power(f.concatenate([f.cumsum(x, axis=0), f.flip(x, axis=0)], axis=1), 3)
        * f.pad(f.tril(f.roll(x, 1, 1)), ((0, 0), (0, x.shape[1])), 0.5)
    ),
    "indices": lambda f, x: f.sum(f.power(f.stack([x[0], x[-1], x[0]]), 3)),
    "norms": lambda f, x: f.sum(f.power(f.layer_norm(x) + f.rms_norm(x, x[0]), 3)),
    "activations": lambda f, x: f.sum(f.gelu(x) * f.silu(x) * f.gelu(x, approximate="none")),
    "attention": lambda f, x: f.sum(f.power(f.attention(x, x, x, is_causal=True), 2)),
    "softmax": lambda f, x: f.sum(f.mul(f.softmax(x), f.log_softmax(x, axis=0))),
}


def torch_second(compute, *args):
    # The fast kernels for attention have no second derivative.
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        return compute(*args)


def near(ours, theirs):
    """As `same`, with room for what two derivatives in a row add in rounding."""
    ours, theirs = ours.numpy(), theirs.numpy()
    assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
    tolerance = 100 * TOLERANCE[ours.dtype]
    scale = np.abs(theirs).max(initial=1)
    np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance * scale)


@pytest.mark.parametrize("name", COMPOSITIONS)
def test_second_derivatives(name):
    f = COMPOSITIONS[name]
    sides = st.tuples(st.integers(1, 3), st.integers(2, 3))

    @settings(max_examples=10)
    @given(sides.flatmap(lambda shape: arrays(shape, "distinct")), st.integers(0, 99), DTYPES)
    def compare(x, seed, dtype):
        x = np.where(abs(x) < 0.05, 0.1, x).astype(dtype)  # |x| has a kink at 0
        v = np.random.default_rng(seed).standard_normal(x.shape).astype(dtype)
        theirs = torch_second(
            torch.autograd.functional.hessian, lambda x: f(TORCH, x), torch.tensor(x)
        )
        near(tl.hessian(lambda x: f(OURS, x), x), theirs)
        _, theirs = torch_second(
            torch.autograd.functional.hvp, lambda x: f(TORCH, x), torch.tensor(x), torch.tensor(v)
        )
        near(tl.hvp(lambda x: f(OURS, x), x, v), theirs)

    compare()


@given(cross_entropy_case(), DTYPES)
def test_second_derivatives_of_the_loss(arguments, dtype):
    [x], static = arguments
    assume(x.ndim < 3)
    x = x.astype(dtype)
    targets = {"targets": torch.tensor(static["targets"])}

    def theirs(x):
        return torch.sum(torch.tanh(cross_entropy(torch.mul(x, x), **static | targets)))

    ours = tl.hessian(lambda x: tl.sum(tl.tanh(tl.cross_entropy(x * x, **static))), x)
    near(ours, torch.autograd.functional.hessian(theirs, torch.tensor(np.array(x, order="C"))))


# ---- optimizers ----

PARAMETERS = [(3, 2), (4,), (), (0, 2)]


def both(values, dtype):
    """The same parameters for us and for torch."""
    return [our_leaf(a.astype(dtype), dtype) for a in values], [
        their_leaf(a, dtype) for a in values
    ]


def follow(make_ours, make_theirs, seed, dtype, n_steps=6, absent=()):
    """Both optimizers take the same steps; (step, parameter) in `absent` has no gradient."""
    rng = np.random.default_rng(seed)
    ours, theirs = both([np.asarray(rng.standard_normal(s)) for s in PARAMETERS], dtype)
    optimizers = make_ours(ours), make_theirs(theirs)
    for step in range(n_steps):
        for i, (p, q) in enumerate(zip(ours, theirs)):
            g = np.asarray(rng.standard_normal(p.shape), dtype)
            p.grad, q.grad = tl.tensor(g), torch.tensor(g)
            if (step, i) in absent:
                p.grad = q.grad = None
        for optimizer in optimizers:
            optimizer.step()
        for p, q in zip(ours, theirs):
            same(p, q)


def groups(parameters, *options):
    """Two groups of parameters, each with options of its own."""
    halves = parameters[:2], parameters[2:]
    return [{"params": p} | o for p, o in zip(halves, options)]


RATES, DECAYS = st.sampled_from([1e-3, 0.1]), st.sampled_from([0.0, 0.01, 0.3])
SEEDS = st.integers(0, 999)


@given(SEEDS, DTYPES, RATES, DECAYS, st.sampled_from([(0.9, 0.999), (0.8, 0.5), (0.0, 0.9)]))
def test_adamw(seed, dtype, lr, decay, betas):
    options = {"lr": lr, "betas": betas, "eps": 1e-6}
    own = {"weight_decay": decay}, {"weight_decay": 0.0, "lr": 0.01}
    follow(
        lambda parameters: tl.optim.AdamW(groups(parameters, *own), **options),
        lambda parameters: torch.optim.AdamW(groups(parameters, *own), **options),
        seed,
        dtype,
        n_steps=8,
        absent={*((step, 0) for step in range(5)), (0, 1), (3, 1), (4, 2), (6, 3)},
    )


@given(SEEDS, DTYPES, RATES, DECAYS, st.sampled_from([0.0, 0.5, 0.9]))
def test_sgd(seed, dtype, lr, decay, momentum):
    options = {"lr": lr, "momentum": momentum}
    own = {"weight_decay": decay}, {"weight_decay": 0.0, "lr": 0.01}
    follow(
        lambda parameters: tl.optim.SGD(groups(parameters, *own), **options),
        lambda parameters: torch.optim.SGD(groups(parameters, *own), **options),
        seed,
        dtype,
        absent={(0, 1), (3, 0), (4, 2)},
    )


@given(SEEDS, DTYPES, st.sampled_from([1e-3, 1.0, 50.0]), st.sampled_from([1e-4, 1.0, 1e3]))
def test_clip_grad_norm(seed, dtype, max_norm, size):
    rng = np.random.default_rng(seed)
    ours, theirs = both([np.asarray(rng.standard_normal(s)) for s in PARAMETERS], dtype)
    for p, q in list(zip(ours, theirs))[:-1]:  # the last one has no gradient
        g = np.asarray(rng.standard_normal(p.shape) * size, dtype)
        p.grad, q.grad = tl.tensor(g), torch.tensor(g)
    same(
        tl.tensor(tl.optim.clip_grad_norm(ours, max_norm)),
        torch.nn.utils.clip_grad_norm_(theirs, max_norm),
    )
    for p, q in list(zip(ours, theirs))[:-1]:
        same(p.grad, q.grad)
