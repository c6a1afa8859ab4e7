"""The walk: every operation there is, with arguments drawn by hypothesis.

Gradients against central differences in float64; dtype and shape in float32; every fused operation
against its composed definition.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tensorlite as tl
from tensorlite.testing import check_grads
from tests.op_cases import CASES


def flat(arrays):
    """The arrays of a case, and how to call the operation on them again."""
    if isinstance(arrays[0], list):  # concatenate takes one sequence
        return arrays[0], lambda values: [list(values)]
    return arrays, lambda values: list(values)


def check_case(op, arrays, static):
    values, again = flat(arrays)
    check_grads(lambda *args: op(*again(args), **static), values)


def check_dtype(op, arrays, static):
    """float32 in, float32 out, for the value and all gradients; equal to float64's."""
    values, again = flat(arrays)
    floats = [i for i, v in enumerate(values) if getattr(v, "dtype", None) == np.float64]
    if op.name == "astype":
        static = static | {"dtype": np.float32}
    results = []
    for dtype in (np.float32, np.float64):
        args = list(values)
        for i in floats:
            args[i] = tl.tensor(values[i], dtype=dtype, requires_grad=True)
        y = op(*again(args), **static)
        gradients = tl.grad(y, [args[i] for i in floats], gradient=np.ones(y.shape))
        results.append([y, *gradients])
        if dtype == np.float32:
            assert {t.dtype for t in results[0]} == {np.dtype(np.float32)}
    for single, double in zip(*results):
        assert single.shape == double.shape
        np.testing.assert_allclose(single.data, double.data, rtol=2e-3, atol=2e-3)


def check_unneeded(op, arrays, static):
    """An input that needs no gradient changes nothing about the gradients of the others."""
    values, again = flat(arrays)
    floats = [i for i, v in enumerate(values) if getattr(v, "dtype", None) == np.float64]
    tensors = [tl.tensor(values[i], requires_grad=True) for i in floats]
    args = list(values)
    for i, t in zip(floats, tensors):
        args[i] = t
    y = op(*again(args), **static)
    expected = tl.grad(y, tensors, gradient=np.ones(y.shape))
    for i, t, g in zip(floats, tensors, expected):
        alone = list(values)
        alone[i] = t
        y = op(*again(alone), **static)
        (g_alone,) = tl.grad(y, t, gradient=np.ones(y.shape))
        np.testing.assert_allclose(g_alone.data, g.data, rtol=1e-12, atol=1e-15)


def check_all(op, arrays, static):
    check_case(op, arrays, static)
    check_dtype(op, arrays, static)
    check_unneeded(op, arrays, static)


def test_every_operation_has_a_case():
    assert set(CASES) == set(tl.OPS)


@pytest.mark.parametrize("name", sorted(tl.OPS))
def test_walk(name):
    @given(CASES[name])
    def walk(arguments):
        check_all(tl.OPS[name], *arguments)

    walk()


@pytest.mark.parametrize("name", sorted(n for n, op in tl.OPS.items() if op.composed))
def test_fused_equals_composed(name):
    """Value and gradients, to rounding."""

    @given(CASES[name], st.sampled_from([np.float64, np.float32]))
    def compare(arguments, dtype):
        arrays, static = arguments
        results = []
        for function in (tl.OPS[name], tl.OPS[name].composed):
            args = [
                None if a is None else tl.tensor(a, dtype=dtype, requires_grad=True) for a in arrays
            ]
            y = function(*args, **static)
            weight = np.cos(np.arange(y.size)).reshape(y.shape)
            leaves = [a for a in args if a is not None]
            results.append([y, *tl.grad(y, leaves, gradient=weight)])
        tolerance = 1e-11 if dtype == np.float64 else 1e-4
        for fused, composed in zip(*results):
            assert fused.dtype == composed.dtype == dtype
            np.testing.assert_allclose(
                fused.data, composed.data, rtol=tolerance, atol=tolerance, equal_nan=False
            )

    compare()


BINARY = ["add", "sub", "mul", "div", "maximum", "minimum", "matmul", "power"]


@pytest.mark.parametrize("name", BINARY)
def test_the_same_tensor_twice(name):
    x = np.array([[1.2, 0.4], [2.1, 0.7]])
    check_grads(lambda x: tl.OPS[name](x, x * 1), [x])
    if name not in ("maximum", "minimum"):  # no smooth function where both are equal
        check_grads(lambda x: tl.OPS[name](x, x), [x])


def test_ties_share_the_gradient():
    x = tl.tensor([[2.0, 2.0, 1.0], [3.0, 0.0, 3.0]], requires_grad=True)
    (g,) = tl.grad(x.max(axis=1).sum(), x)
    np.testing.assert_array_equal(g.data, [[0.5, 0.5, 0], [0.5, 0, 0.5]])
    (g,) = tl.grad(x.min().sum(), x)
    np.testing.assert_array_equal(g.data, [[0, 0, 0], [0, 1, 0]])
    (g,) = tl.grad(tl.maximum(x, 2.0).sum(), x)
    np.testing.assert_array_equal(g.data, [[0.5, 0.5, 0], [1, 0, 1]])


def test_power_at_zero():
    x = tl.tensor([0.0, -2.0, 3.0], requires_grad=True)
    np.testing.assert_array_equal(tl.grad((x**2).sum(), x)[0].data, [0, -4, 6])
    np.testing.assert_array_equal(tl.grad((x**0).sum(), x)[0].data, [0, 0, 0])
    exponent = tl.tensor([2.0, 0.0, 1.0], requires_grad=True)
    np.testing.assert_array_equal(tl.grad((x**exponent).sum(), x)[0].data, [0, 0, 1])


def test_long_causal_attention_equals_composed():
    """Long enough for several blocks of queries, the last one not full."""
    rng = np.random.default_rng(0)
    for T, S in ((150, 150), (200, 140), (140, 200)):
        q, k, v = (tl.tensor(rng.standard_normal((2, n, 4)), requires_grad=True) for n in (T, S, S))
        keep = rng.random((2, T, S)) > 0.3
        results = []
        for function in (tl.attention, tl.attention.composed):
            y = function(q, k, v, is_causal=True, keep=keep, dropout_p=0.3)
            results.append([y, *tl.grad((y * y).sum(), [q, k, v])])
        for fused, composed in zip(*results):
            np.testing.assert_allclose(fused.data, composed.data, rtol=1e-10, atol=1e-12)


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
