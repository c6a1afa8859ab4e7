"""The walk: every operation there is, with arguments drawn by hypothesis.

Gradients against central differences in float64; dtype and shape in float32; every fused operation
against its composed definition.
"""

import functools
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tensorlite as tl
from tensorlite.functional.attention import LARGE, _boxes, _may_exceed
from tensorlite.testing import check_grads
from tensorlite.testing.suite import gradient_tests
from tests.cases import FUNCTIONS, function_of
from tests.op_cases import CASES

# The module: `functional.attention` is the operation of that name.
ATTENTION = sys.modules["tensorlite.functional.attention"]


def test_every_operation_has_a_case():
    assert set(CASES) == set(tl.OPS) | FUNCTIONS


@pytest.mark.parametrize("name", sorted(CASES))
def test_walk(name):
    gradient_tests(function_of(name), CASES[name])()


@pytest.mark.parametrize(
    "function",
    [
        lambda x: tl.exp(tl.sin(x)) * x,
        lambda x: tl.layer_norm(x) ** 3,
        lambda x: tl.softmax(x @ x.T) @ tl.gelu(x),
        lambda x: (x**4)[0] / (1 + x[1] * x[1]),
        lambda x: tl.prod(x, axis=1) + tl.logsumexp(x, axis=1),
        lambda x: tl.attention(x, x, x, is_causal=True),
    ],
)
def test_third_derivatives(function):
    check_grads(function, [np.array([[0.5, -0.7], [1.1, 0.3]])], order=3, rtol=1e-4)


BINARY = ["add", "sub", "mul", "div", "maximum", "minimum", "matmul", "power"]


@pytest.mark.parametrize("name", BINARY)
def test_the_same_tensor_twice(name):
    x = np.array([[1.2, 0.4], [2.1, 0.7]])
    check_grads(lambda x: tl.OPS[name](x, x * 1), [x])
    if name not in ("maximum", "minimum"):  # no smooth function where both are equal
        check_grads(lambda x: tl.OPS[name](x, x), [x])


@pytest.mark.parametrize(
    ("subscripts", "shapes"),
    [
        ("ij,jk->ik", ((2, 1), (3, 2))),
        ("ij,ij->", ((1, 3), (2, 1))),
        ("ii,i->", ((1, 1), (3,))),
    ],
)
def test_einsum_stretches_axes_of_size_one(subscripts, shapes):
    rng = np.random.default_rng(0)
    check_grads(lambda *a: tl.einsum(subscripts, *a), [rng.standard_normal(s) for s in shapes])


def test_ties_share_the_gradient():
    x = tl.tensor([[2.0, 2.0, 1.0], [3.0, 0.0, 3.0]], requires_grad=True)
    (g,) = tl.grad(x.max(axis=1).sum(), x)
    np.testing.assert_array_equal(g.data, [[0.5, 0.5, 0], [0.5, 0, 0.5]])
    (g,) = tl.grad(x.min().sum(), x)
    np.testing.assert_array_equal(g.data, [[0, 0, 0], [0, 1, 0]])
    (g,) = tl.grad(tl.maximum(x, 2.0).sum(), x)
    np.testing.assert_array_equal(g.data, [[0.5, 0.5, 0], [1, 0, 1]])
    two = tl.tensor(2.0 * np.ones((2, 3)), requires_grad=True)
    for g in (
        tl.grad(tl.minimum(two, x).sum(), [two, x]),
        tl.grad(tl.minimum(x, two).sum(), [two, x]),
    ):
        np.testing.assert_array_equal(g[0].data, [[0.5, 0.5, 0], [1, 0, 1]])
        np.testing.assert_array_equal(g[1].data, [[0.5, 0.5, 1], [0, 1, 0]])
    (g,) = tl.grad(tl.maximum(x, two).sum(), two)
    np.testing.assert_array_equal(g.data, [[0.5, 0.5, 1], [0, 1, 0]])


def test_power_at_zero():
    x = tl.tensor([0.0, -2.0, 3.0], requires_grad=True)
    np.testing.assert_array_equal(tl.grad((x**2).sum(), x)[0].data, [0, -4, 6])
    np.testing.assert_array_equal(tl.grad((x**0).sum(), x)[0].data, [0, 0, 0])
    exponent = tl.tensor([2.0, 0.0, 1.0], requires_grad=True)
    np.testing.assert_array_equal(tl.grad((x**exponent).sum(), x)[0].data, [0, 0, 1])


def same(functions, leaves, rtol=1e-6):
    """Value and gradients of several functions of the same leaves are equal."""
    results = []
    for function in functions:
        y = function(*leaves)
        results.append(
            [y, *tl.grad(y, leaves, gradient=np.cos(np.arange(y.size)).reshape(y.shape))]
        )
    for values in zip(*results):
        for value in values[1:]:
            np.testing.assert_allclose(value.data, values[0].data, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("offset", [0, 1e4, 1e6, 1e8, -1e8])
def test_large_logits_keep_their_differences(offset):
    x = tl.tensor(np.array([[0, 8, 16]], np.float32) + np.float32(offset), requires_grad=True)
    for static in ({}, {"label_smoothing": 0.1}):
        y = tl.cross_entropy(x, np.array([1]), **static)
        expected = tl.cross_entropy(x.data.astype(np.float64), np.array([1]), **static)
        np.testing.assert_allclose(y.data, expected.data, rtol=1e-6)
        g = tl.grad(y, x)[0]
        wide = tl.tensor(x.data, dtype=np.float64, requires_grad=True)
        expected = tl.grad(tl.cross_entropy.composed(wide, np.array([1]), **static), wide)[0]
        np.testing.assert_allclose(g.data, expected.data, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("low", [-1e4, -1e9, np.finfo(np.float32).min, -np.inf])
def test_rows_masked_by_large_numbers(low):
    rng = np.random.default_rng(0)
    leaves = [tl.tensor(rng.standard_normal((2, 4, 3)), np.float32, None, True) for _ in range(3)]
    mask = np.zeros((4, 4), np.float32)
    mask[0], mask[1, 2:] = low, low
    if low != -np.inf:  # the composed definition has zeros for boolean masks alone
        fused, composed = tl.attention, tl.attention.composed
        same([lambda *qkv: composed(*qkv, mask), lambda *qkv: fused(*qkv, mask)], leaves, 1e-5)
    else:
        y = tl.attention(*leaves, attn_mask=mask)
        assert np.all(y.data[:, 0] == 0) and np.all(np.isfinite(y.data))
        assert all(np.all(np.isfinite(g.data)) for g in tl.grad(y.sum(), leaves))


def test_attention_without_keys_gives_zeros():
    q, k = tl.tensor(np.ones((2, 3, 4)), requires_grad=True), tl.tensor(np.ones((2, 0, 4)))
    y = tl.attention(q, k, k)
    assert y.shape == (2, 3, 4) and np.all(y.data == 0)
    assert np.all(tl.grad(y.sum(), q)[0].data == 0)


def test_layer_norm_of_constant_rows_is_zero():
    for value, n in ((1e4, 7), (1e6, 768)):
        x = np.full((2, n), value, np.float32)
        assert np.abs(tl.layer_norm(x).data).max() < 1e-2


def test_fused_operations_take_integers_as_float32():
    for y in (
        tl.layer_norm(tl.tensor([[1, 2, 3]])),
        tl.softmax(tl.tensor([1, 2])),
        tl.gelu(np.array([1, 2])),
        tl.cross_entropy(tl.tensor([[1, 2]]), [1]),
    ):
        assert y.dtype == np.float32
    assert tl.cross_entropy(tl.tensor([[1, 2]]), (1,)).item() == pytest.approx(0.31326, rel=1e-4)
    assert tl.linear(np.ones((2, 3), np.float32), np.ones((3, 4))).dtype == np.float64


@pytest.mark.parametrize(
    "index",
    [((0, 0, 1),), ((0, 0), (1, 1)), [0, 0, 1], ([0, 0], 1), (np.int64(1), [0, 0]), ([],), []],
)
def test_indices_of_lists_and_tuples(index):
    x = np.arange(6.0).reshape(2, 3)
    plain = tuple(np.asarray(i, np.int64) for i in index) if isinstance(index, tuple) else index
    np.testing.assert_array_equal(tl.tensor(x)[index].data, x[plain if index else [0][:0]])
    check_grads(lambda x: x[index] * 2.0, [x])


@pytest.mark.parametrize("batch, T, S", [
    ((2,), 150, 150), ((2,), 200, 140), ((2,), 140, 200), ((70,), 40, 40),  # weights kept
    ((2,), 300, 300), ((3, 2), 270, 260), ((), 140, 300),  # computed again
])  # fmt: skip
@pytest.mark.parametrize("tile", [1, 2**13, 2**17])
def test_long_causal_attention_equals_composed(batch, T, S, tile, monkeypatch):
    """Enough for several blocks of queries and parts of the batch, the last ones not full."""
    monkeypatch.setattr(ATTENTION, "TILE", tile)
    rng = np.random.default_rng(0)
    shapes = (*batch, T, 4), (*batch, S, 4), (*batch, S, 4)
    q, k, v = (tl.tensor(rng.standard_normal(s), requires_grad=True) for s in shapes)
    keep = rng.random((*batch, T, S)) > 0.3
    mask = rng.random((*batch[:1], *(1,) * len(batch[1:]), 1, S)) > 0.2
    for attn_mask in (None, mask):
        results = []
        for function in (tl.attention, tl.attention.composed):
            y = function(q, k, v, attn_mask, True, 0.3, keep=keep)
            results.append([y, *tl.grad((y * y).sum(), [q, k, v])])
        for fused, composed in zip(*results):
            np.testing.assert_allclose(fused.data, composed.data, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("size", [0.1, 3.0, 30.0, 300.0])
def test_scores_of_every_size(size):
    """Where they may be large, the largest of a row is subtracted, else not."""
    rng = np.random.default_rng(0)
    q, k, v = (rng.standard_normal((2, 9, 4)).astype(np.float32) for _ in range(3))
    leaves = [tl.tensor(x, requires_grad=True) for x in (q * size, k, v)]
    assert _may_exceed(LARGE, q * size, k, 0.5) == (size > 10)
    functions = [
        functools.partial(f, is_causal=True) for f in (tl.attention.composed, tl.attention)
    ]
    same(functions, leaves, 1e-4)
    for bad in (np.nan, np.inf):
        q[0, 0, 0] = bad
        assert _may_exceed(LARGE, q, k, 0.5)


@pytest.mark.parametrize("size", [1.0, 30.0, 1e3, 1e5])
def test_logits_of_every_size(size):
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((9, 4)) * size, rng.standard_normal((5, 4))
    leaves = [tl.tensor(a.astype(np.float32), requires_grad=True) for a in (x, weight)]
    f = functools.partial(tl.linear_cross_entropy, targets=np.arange(9) % 5)
    composed = functools.partial(tl.linear_cross_entropy.composed, targets=np.arange(9) % 5)
    same([f, composed], leaves, 1e-5)


@given(st.lists(st.integers(0, 4), max_size=4), st.integers(0, 30))
def test_boxes_cover_every_element_once(shape, size):
    seen = np.zeros(shape, int)
    for box in _boxes(tuple(shape), size):
        assert seen[box].ndim == seen.ndim and seen[box].size <= max(1, size)
        seen[box] += 1
    assert np.all(seen == 1)


@pytest.mark.parametrize("tile", [1, 2**17])
def test_values_and_dropout_with_batches_of_their_own(tile, monkeypatch):
    monkeypatch.setattr(ATTENTION, "TILE", tile)
    rng = np.random.default_rng(0)
    leaves = [tl.tensor(rng.standard_normal(s)) for s in ((7, 4), (7, 4), (3, 2, 7, 4))]
    keep = rng.random((7, 7)) > 0.4
    fused, composed = tl.attention, tl.attention.composed
    static = {"is_causal": True, "keep": keep, "dropout_p": 0.4}
    functions = [functools.partial(f, **static) for f in (composed, fused)]
    for x in leaves:
        x.requires_grad = True
    same(functions, leaves, 1e-10)


@pytest.mark.parametrize("T, S", [(0, 3), (3, 0), (0, 0)])
@pytest.mark.parametrize("is_causal", [False, True])
def test_attention_of_nothing(T, S, is_causal):
    q, k = tl.tensor(np.ones((2, T, 4)), requires_grad=True), tl.tensor(np.ones((2, S, 4)))
    y = tl.attention(q, k, k, is_causal=is_causal)
    assert y.shape == (2, T, 4) and np.all(y.data == 0)
    assert tl.grad(y.sum(), q)[0].shape == (2, T, 4)
    assert tl.causal_self_attention(tl.tensor(np.ones((2, 0, 12))), 2).shape == (2, 0, 4)


def test_softmax_keeps_its_value_and_not_its_argument():
    for function in (tl.softmax, tl.log_softmax):
        x = tl.tensor([[1.0, 2.0]], requires_grad=True)
        y = function(x)
        x.data += 1  # not needed for the gradient
        y.backward(np.ones((1, 2)))
        assert function(tl.tensor(3.0)).shape == ()


def test_packed_attention_is_attention_of_split_heads():
    rng = np.random.default_rng(0)
    qkv = tl.tensor(rng.standard_normal((2, 5, 24)), requires_grad=True)
    q, k, v = (x.reshape(2, 5, 4, 2).swapaxes(1, 2) for x in tl.split(qkv, 3, axis=-1))
    split = tl.scaled_dot_product_attention(q, k, v, is_causal=True).swapaxes(1, 2)
    packed = tl.causal_self_attention(qkv, 4)
    np.testing.assert_allclose(packed.data, split.data.reshape(2, 5, 8), rtol=1e-12)
    with pytest.raises(ValueError, match="24 columns .* 5 heads"):
        tl.causal_self_attention(qkv, 5)


def test_many_rows_go_in_several_blocks():
    """More rows than fit a block of the cache, for every fused operation over rows."""
    rng = np.random.default_rng(1)
    x = tl.tensor(rng.standard_normal((3000, 40)), requires_grad=True)
    w = tl.tensor(rng.standard_normal(40), requires_grad=True)
    targets = rng.integers(0, 40, 3000)
    for fused, args, static in (
        (tl.gelu, [x], {}),
        (tl.layer_norm, [x, w, w], {}),
        (tl.cross_entropy, [x], {"targets": targets}),
        (tl.linear_cross_entropy, [x, x.data[:40]], {"targets": targets}),
    ):
        results = []
        for function in (fused, fused.composed):
            y = function(*args, **static)
            results.append([y, *tl.grad((y * y).sum(), [x])])
        for a, b in zip(*results):
            np.testing.assert_allclose(a.data, b.data, rtol=1e-9, atol=1e-10)


def test_a_linear_layer_may_give_a_column_after_the_other():
    x, w = np.ones((3, 4, 2), np.float32), np.ones((2, 5), np.float32)
    y = tl.linear(x, w, order="F").data
    assert y.shape == (3, 4, 5) and y.strides == (16, 4, 48)
    assert tl.linear(x[:1, :2], w, order="F").data.flags.c_contiguous  # few rows
    with pytest.raises(ValueError, match="order is 'C' or 'F', not 'A'"):
        tl.linear(x, w, order="A")


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(n_head=4), r"qkv is \(B, T, 3C\) for 4 heads, not \(1, 2, 18\)"),
        (dict(cos=np.ones((2, 2)), sin=np.ones((2, 2))), r"heads of 3, which must be even"),
        (dict(n_head=3, cos=np.ones((2, 2)), sin=np.ones((2, 2))), r"\(..., T, 1\) for heads of 2"),
    ],
)
def test_what_qk_norm_rope_refuses(change, message):
    with pytest.raises(ValueError, match=message):
        tl.qk_norm_rope(np.ones((1, 2, 18)), **{"n_head": 2} | change)


@pytest.mark.parametrize("cap", [0.0, -1.0, np.inf, np.nan])
def test_a_soft_cap_is_a_positive_number(cap):
    with pytest.raises(ValueError, match=f"a soft cap is a positive number, not {cap}"):
        tl.soft_cap(np.ones(2), cap)
    with pytest.raises(ValueError, match="a soft cap is a positive number"):
        tl.linear_cross_entropy(np.ones((2, 3)), np.ones((4, 3)), np.array([0, 1]), soft_cap=cap)
