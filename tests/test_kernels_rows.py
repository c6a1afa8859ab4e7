"""Kernels of norms, activations, sums, rotary positions and masks: they equal their definitions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tensorlite as tl
from tensorlite.arraylike import bfloat16
from tensorlite.device import RowRandom
from tensorlite.kernels import activations, elementwise, norm, random, rope
from tensorlite.kernels.launch import contiguous
from tests.gpu import device  # noqa: F401 - a fixture
from tests.strict import to_device

F32, F16, BF16 = np.dtype(np.float32), np.dtype(np.float16), bfloat16()
TYPES = [F32, BF16, F16]
NAMES = {BF16: "bfloat16", F16: "float16", F32: "float32"}
LIMIT = {F32: 3e-6, BF16: 6e-3, F16: 1e-3}  # relative to the largest number


SEEDS = st.integers(0, 2**32 - 1)


@pytest.fixture(autouse=True, scope="module")
def one_multiprocessor(device):  # noqa: F811
    """Few blocks, so that each goes through many rows."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (norm, elementwise):
            patch.setattr(module, "multiprocessors", lambda: 1)
        yield


def some(rng, shape, dtype, scale=1.0, offset=0):
    """(an array on the device, the same numbers in float64); `offset` elements from alignment."""
    numbers = (rng.standard_normal(offset + int(np.prod(shape))) * scale).astype(F32).astype(dtype)
    return to_device(numbers)[offset:].reshape(shape), numbers[offset:].astype(float).reshape(shape)


def near(got, want, dtype, limit=1.0):
    assert got.dtype == dtype and got.shape == want.shape
    error = np.abs(got.get().astype(float) - want).max(initial=0)
    assert error <= limit * LIMIT[dtype] * np.abs(want).max(initial=1e-20), error


# ---- norms ----

# (dtype of x, dtype of y, widths, whether RMS norm too): a warp a row, with one or several vectors
# in a thread, read 16 bytes or one number at a time; a block a row; rows too wide for registers.
WIDTHS = [
    (F32, F32, [8, 60, 128], True),
    (F32, F32, [5, 31], False),
    (F32, BF16, [520, 768], True),
    (F32, F16, [33, 127], False),
    (BF16, BF16, [768], False),
    (BF16, BF16, [2048], False),
    (F16, F16, [1001], False),
    (F32, F32, [4101], True),
]
CASES = [(True, *case) for case in WIDTHS] + [(False, *case) for case in WIDTHS if case[3]]


IN_PLACE = ("in place", "scattered")


def case_name(value):
    return NAMES.get(value) if isinstance(value, np.dtype) else None


@pytest.mark.parametrize("centred, stored, products, widths, _", CASES, ids=case_name)
@given(data=st.data())
def test_norm(centred, stored, products, widths, _, data):
    draw, rng = data.draw, np.random.default_rng(data.draw(SEEDS))
    rows = draw(st.integers(1, 40 if widths[0] < 200 else 14 if widths[0] < 1000 else 4))
    n = draw(st.sampled_from(widths))
    offset = draw(st.sampled_from([0, 1])) if n % 4 else 0
    x, z = some(rng, (rows, n), stored, draw(st.sampled_from([0.1, 1, 30])), offset)
    weight, w = some(rng, n, F32) if draw(st.booleans()) else (None, 1.0)
    bias, b = some(rng, n, F32) if centred and draw(st.booleans()) else (None, 0.0)
    g, q = some(rng, (rows, n), products)
    params = (weight, bias) if centred else (weight,)
    needs = (draw(st.sampled_from([True, True, False])), *(p is not None for p in params))

    mean = z.mean(1, keepdims=True) if centred else 0.0
    scale = 1 / np.sqrt(np.square(z - mean).mean(1, keepdims=True) + 1e-5)
    z = (z - mean) * scale
    h = q * w
    gx = scale * (
        h - (h.mean(1, keepdims=True) if centred else 0) - z * (h * z).mean(1, keepdims=True)
    )

    with tl.autocast(NAMES[products]):
        body = norm.layer_norm if centred else norm.rms_norm
        y, vjp = body(x, *params, eps=1e-5, needs=needs)
    near(y, z * w + b, products)
    gradients = vjp(g)
    assert [gradient is not None for gradient in gradients] == list(needs)
    if needs[0]:
        way = draw(st.sampled_from(["array", "plus", "in place", "scattered", "columns first"]))
        if way == "columns first" and weight is not None:
            near(gradients[1].array(), (q * z).sum(0), F32)
        if way == "array":
            near(gradients[0].array(), gx, stored, 3)
        else:
            total, before = some(rng, (rows, n), stored)
            if way == "scattered":  # in place, but not in C order
                total = contiguous(total.T).T
            result = gradients[0].plus(total, out=total if way in IN_PLACE else None)
            near(result, before + gx, stored, 3)
            assert (result is total) == (way in IN_PLACE)
    if weight is not None:
        near(gradients[1].array(), (q * z).sum(0), F32)
    if bias is not None:
        near(gradients[2].array(), q.sum(0), F32)


def test_a_row_of_one_number():
    x, weight, bias = (to_device(np.array(a, F32)) for a in ([[3.0], [-4.0]], [2.0], [0.5]))
    y, vjp = norm.layer_norm(x, weight, bias, eps=1e-5, needs=(True, True, True))
    assert y.get().tolist() == [[0.5], [0.5]]
    gx, g_weight, g_bias = (gradient.array() for gradient in vjp(to_device(np.ones((2, 1), F32))))
    assert gx.get().tolist() == [[0], [0]] and g_weight.get() == [0] and g_bias.get() == [2]


@pytest.mark.parametrize("precision", TYPES, ids=NAMES.get)
def test_the_engine_adds_a_norms_gradient_to_the_residual_stream(precision):
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(shape).astype(F32) for shape in [(6, 40), (40,), (40,)]]

    def gradients(to):
        x, weight, bias = leaves = [tl.tensor(to(a), requires_grad=True) for a in arrays]
        with tl.autocast(NAMES[precision]):
            stream = x * 1.0
            for _ in range(2):
                stream = stream + tl.layer_norm(stream, weight, bias)
        (stream * stream).sum().backward()
        return [leaf.grad.data for leaf in leaves]

    for got, want in zip(gradients(to_device), gradients(np.asarray), strict=True):
        near(got, want.astype(float), F32, 2 * LIMIT[precision] / LIMIT[F32])


@pytest.mark.parametrize("x", [np.zeros((0, 3), F32), np.zeros((2, 0), F32), np.ones((2, 3))])
def test_norms_leave_the_rest_to_the_ordinary_body(x):
    assert norm.layer_norm(to_device(x), needs=(True, False, False)) is NotImplemented
    weight = to_device(np.ones(4, F32))
    assert norm.rms_norm(to_device(np.ones((2, 3), F32)), weight, needs=(1, 1)) is NotImplemented


# ---- activations ----


def sigmoid(x):
    return 1 / (1 + np.exp(np.minimum(-x, 700)))


def gelu_inner(x):
    return 2 * np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)


def gelu_inner_slope(x):
    return 2 * np.sqrt(2 / np.pi) * (1 + 3 * 0.044715 * x**2)


@pytest.mark.parametrize("dtype", [F32, BF16], ids=NAMES.get)
@given(data=st.data())
def test_activations(dtype, data):
    draw, rng = data.draw, np.random.default_rng(data.draw(SEEDS))
    shape = draw(st.sampled_from([(1,), (7,), (5, 40), (2, 3, 5), (4099,), (2, 4096)]))
    x, z = some(rng, shape, dtype, draw(st.sampled_from([0.5, 2, 30])))
    up, u = some(rng, shape, dtype)
    g, q = some(rng, shape, dtype)
    s = sigmoid(z)
    slope = s + z * s * (1 - s)
    y, vjp = activations.silu(x, needs=(True,))
    near(y, z * s, dtype)
    near(vjp(g)[0], q * slope, dtype)
    y, vjp = activations.swiglu(x, up, needs=(True, True))
    near(y, z * s * u, dtype)
    g_gate, g_up = vjp(g)
    near(g_gate, q * u * slope, dtype)
    near(g_up, q * z * s, dtype)
    s = sigmoid(gelu_inner(z))
    y, vjp = activations.gelu(x, approximate="tanh", needs=(True,))
    near(y, z * s, dtype)
    near(vjp(g)[0], q * (s + z * s * (1 - s) * gelu_inner_slope(z)), dtype)


def test_activations_of_extreme_numbers():
    x = np.array([-3e38, -1e4, -100, -20, 0, 20, 100, 1e4, np.nan], F32)
    for body in (activations.gelu, activations.silu):
        y, vjp = body(to_device(x), needs=(True,))
        assert np.allclose(y.get(), np.maximum(x, 0), atol=1e-7, equal_nan=True), y.get()
        (slope,) = vjp(to_device(np.ones_like(x)))
        assert np.allclose(
            slope.get(), np.where(x == 0, 0.5, x > 0) + x * 0, atol=1e-7, equal_nan=True
        )


def test_a_product_multiplies_by_the_slope_of_gelu():
    class Product(tl.graph.Deferred):
        def array(self):
            raise AssertionError("the product is not asked for")

        def plus(self, total, out=None):
            raise AssertionError("the product is not asked for")

        def times_gelu_slope(self, pre):
            return "gradient", pre

    x = to_device(np.ones(4, F32))
    _, vjp = activations.gelu(x, needs=(True,))
    assert vjp.takes_deferred and vjp(Product()) == (("gradient", x),)
    assert activations.gelu(x, approximate="none", needs=(True,)) is NotImplemented


# ---- sums, conversions, dropout ----


@pytest.mark.parametrize("first, second", [(F32, F32), (F16, F32), (BF16, BF16)])
@given(data=st.data())
def test_add(first, second, data):
    draw, rng = data.draw, np.random.default_rng(data.draw(SEEDS))
    shape = draw(st.sampled_from([(1,), (3, 7), (2, 5, 16), (3, 4100)]))
    n_axes = draw(st.integers(1, len(shape)))
    shapes = [shape, shape[-n_axes:]]
    if draw(st.booleans()):
        shapes.reverse()
    offset = draw(st.sampled_from([0, 0, 1])) if first == F32 else 0
    x, a = some(rng, shapes[0], first, 1.0, offset)
    y, b = some(rng, shapes[1], second)
    sum_type = first if first == second else F32
    value, *vjps = elementwise.add(x, y)
    near(value, a + b, sum_type)
    g, q = some(rng, shape, sum_type)
    for vjp, term, dtype in zip(vjps, (a, b), (first, second), strict=True):
        rest = tuple(range(len(shape) - term.ndim))
        near(vjp(g), q.sum(rest), dtype)


def test_add_leaves_the_rest_to_the_ordinary_body():
    x = to_device(np.ones((2, 3), F32))
    for y in (1.0, to_device(np.ones((2, 1), F32)), to_device(np.ones((2, 3)))):
        assert elementwise.add(x, y) is NotImplemented


CASTS = [(F32, BF16), (F32, F16), (BF16, F32), (F16, F32), (BF16, F16), (F16, BF16)]


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
@pytest.mark.parametrize("given_type, wanted", CASTS, ids=case_name)
def test_cast_is_numpys(given_type, wanted):
    numbers = np.random.default_rng(0).standard_normal(1003).astype(F32) * 1000
    numbers[:6] = np.inf, -np.inf, np.nan, 1.00390625 + 2**-20, 65520, 0
    x = to_device(numbers.astype(given_type))
    for part in (x, x[:8], x[1:]) if given_type == F32 else (x,):
        got = elementwise.cast(part, wanted).get()
        assert got.dtype == wanted
        want = part.get().astype(F32).astype(wanted)
        assert np.array_equal(got.astype(F32), want.astype(F32), equal_nan=True)
    assert elementwise.cast(x, given_type) is x


@pytest.mark.parametrize("dtype", TYPES, ids=NAMES.get)
@given(data=st.data())
def test_column_sums_and_drop(dtype, data):
    draw, rng = data.draw, np.random.default_rng(data.draw(SEEDS))
    shape = draw(st.integers(1, 70)), draw(st.sampled_from([1, 7, 64, 520]))
    x, z = some(rng, shape, dtype, 1.0, draw(st.sampled_from([0, 1])) if dtype == F32 else 0)
    near(elementwise.column_sums(x), z.sum(0), F32)
    keep = rng.random(shape) >= 0.25
    y, vjp = elementwise.drop(x, keep=to_device(keep), p=0.25)
    near(y, z * keep / 0.75, dtype)
    g, q = some(rng, shape, dtype)
    near(vjp(g), q * keep / 0.75, dtype)


@pytest.mark.parametrize("shape", [(1, 1, 5), (2, 32, 33), (2, 71, 40)])
def test_column_total(shape):
    part, z = some(np.random.default_rng(0), shape, F32)
    near(elementwise.column_total(part), z.sum(1), F32)


def test_column_sums_of_nothing():
    assert elementwise.column_sums(to_device(np.zeros((0, 3), F32))).get().tolist() == [0, 0, 0]


# ---- rotary positions ----


@pytest.mark.parametrize("dtype", TYPES, ids=NAMES.get)
@given(data=st.data())
def test_rope(dtype, data):
    draw, rng = data.draw, np.random.default_rng(data.draw(SEEDS))
    B, nh, T = (draw(st.integers(1, 3)) for _ in range(3))
    hs = draw(st.sampled_from([2, 6, 16, 64] if dtype == F32 else [16, 64]))
    heads_last = draw(st.booleans())  # (B, T, nh, hs) in memory, as after the projection
    x, z = some(rng, (B, T, nh, hs) if heads_last else (B, nh, T, hs), dtype)
    if heads_last:
        x, z = x.transpose(0, 2, 1, 3), z.transpose(0, 2, 1, 3)
    angle = rng.standard_normal((B, 1, T, hs // 2))
    angle = angle.astype(F32) if draw(st.booleans()) else angle[0, 0].astype(F32)
    cos, sin = np.cos(angle), np.sin(angle)
    g, q = some(rng, (B, nh, T, hs), dtype)

    def turned(z, sin):
        a, b = z[..., : hs // 2], z[..., hs // 2 :]
        return np.concatenate([a * cos - b * sin, a * sin + b * cos], axis=-1)

    y, vjp = rope.rope(x, cos=to_device(cos), sin=to_device(sin), needs=(True,))
    near(y, turned(z, sin), dtype)
    near(vjp(g)[0], turned(q, -sin), dtype)


def test_rope_leaves_the_rest_to_the_ordinary_body():
    x, angles = to_device(np.ones((2, 3, 4), F32)), to_device(np.ones((3, 1), F32))
    assert rope.rope(x, cos=angles, sin=angles, needs=(True,)) is NotImplemented
    angles = to_device(np.ones((3, 2)))
    assert rope.rope(x, cos=angles, sin=angles, needs=(True,)) is NotImplemented


# ---- masks ----


@given(
    rest=st.lists(st.integers(0, 40), min_size=1, max_size=2),
    rows=st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=4),
    p=st.sampled_from([0.0, 0.1, 0.2, 0.5, 0.999, None]),
    draws=st.integers(0, 5),
    seed=st.integers(0, 2**31),
)
def test_masks_are_those_of_the_cpu(rest, rows, p, draws, seed):
    rng = RowRandom(seed, "dropout", 3, rows=rows)
    rng.draws = draws
    shape = (len(rows), *rest)
    numbers = rng.random(shape)
    if p is None:
        p = float(numbers.max(initial=0))  # a number that is kept by just so much
    want = numbers >= p
    key, device_rows = to_device(rng.key), to_device(np.array(rows, np.int64))
    got = random.keep_mask(shape, p, key, device_rows, draws)
    assert got.dtype == np.bool_ and np.array_equal(got.get(), want)


def test_a_mask_needs_as_many_rows():
    key, rows = to_device(np.zeros(2, np.uint64)), to_device(np.zeros(3, np.int64))
    with pytest.raises(ValueError, match=r"\(2,\) rows"):
        random.keep_mask((2, 5), 0.1, key, rows, 0)
    with pytest.raises(TypeError, match="64-bit"):
        random.keep_mask((3, 5), 0.1, key, rows.astype(np.int32), 0)
