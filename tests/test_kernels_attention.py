"""Causal attention on a GPU, or on the emulator of its kernels, against NumPy in float64."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tensorlite as tl
from tensorlite.functional.attention import packed_attention
from tensorlite.kernels import attention as kernels
from tests.gpu import device  # noqa: F401 - a fixture

BF16 = np.dtype(pytest.importorskip("ml_dtypes").bfloat16)
F16, F32 = np.dtype(np.float16), np.dtype(np.float32)
TOLERANCE = {BF16: 1e-2, F16: 1e-3, F32: 3e-6}  # of the largest element


def on_device(x):
    import cupy

    return x if x is None else cupy.asarray(x)


# ---- attention as it is defined, and what is compared with it ----


def definition(q, k, v, g, keep=None, p=0.0):
    """y and the gradients of q, k and v (..., T, D), in float64."""
    T, D = q.shape[-2:]
    q, k, v, g = (np.asarray(x, np.float64) for x in (q, k, v, g))
    kept = 1.0 if keep is None else keep / (1 - p)
    scores = np.where(np.tri(T, dtype=bool), q @ np.swapaxes(k, -1, -2) * D**-0.5, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    gw = g @ np.swapaxes(v, -1, -2) * kept
    gs = weights * (gw - (weights * gw).sum(-1, keepdims=True)) * D**-0.5
    gk, gv = np.swapaxes(gs, -1, -2) @ q, np.swapaxes(weights * kept, -1, -2) @ g
    return weights * kept @ v, gs @ k, gk, gv


def heads(x, n_head):
    """(B, T, C) -> (B, n_head, T, D)."""
    return np.transpose(x.reshape(*x.shape[:2], n_head, -1), (0, 2, 1, 3))


def draw(seed, dtype, B, n_head, T, D, p, size=1.5):
    rng = np.random.default_rng(seed)
    qkv = (rng.standard_normal((B, T, 3 * n_head * D)) * size).astype(dtype)
    g = rng.standard_normal((B, T, n_head * D)).astype(dtype)
    return qkv, g, rng.random((B, n_head, T, T)) >= p if p else None


def packed(qkv, g, n_head, keep=None, p=0.0):
    """The value and the gradient that the body gives, as NumPy arrays."""
    how = dict(n_head=n_head, dropout_p=p, keep=on_device(keep), needs=(True,))
    y, vjp = kernels.packed_attention(on_device(qkv), **how)
    return y.get(), vjp(on_device(g))[0].get()


def agree(given, wanted, dtype):
    """Gradients are compared with the largest of all three: that of q is a difference of others."""
    y_size, *g_sizes = (np.max(np.abs(right)) for right in wanted)
    for i, (x, right) in enumerate(zip(given, wanted, strict=True)):
        assert x.dtype == dtype
        worst = np.max(np.abs(x.astype(np.float64) - right))
        assert worst <= TOLERANCE[dtype] * (max(g_sizes) if i else y_size), ("yqkv"[i], worst)


def check(dtype, B, n_head, T, D, p=0.0, size=1.5, seed=0):
    qkv, g, keep = draw(seed, dtype, B, n_head, T, D, p, size)
    y, g_qkv = packed(qkv, g, n_head, keep, p)
    parts = [heads(x, n_head) for x in np.split(qkv, 3, axis=-1)]
    wanted = definition(*parts, heads(g, n_head), keep, p)
    agree([heads(x, n_head) for x in (y, *np.split(g_qkv, 3, axis=-1))], wanted, dtype)


# ---- the kernels ----


KERNELS = [
    (BF16, 64, 0),
    (F16, 32, 0),
    (BF16, 128, 0),
    (F16, 64, 0.3),
    (BF16, 32, 0.1),
    (F16, 128, 0.5),
]
EDGES = [(2, 1, 1), (1, 2, 5), (2, 1, 64), (1, 2, 65), (1, 1, 130), (1, 1, 200)]  # of the tiles


@pytest.mark.parametrize("dtype, D, p", KERNELS)
@pytest.mark.parametrize("B, n_head, T", EDGES)
def test_kernels(dtype, D, p, B, n_head, T):
    check(dtype, B, n_head, T, D, p)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.sampled_from(KERNELS), st.integers(1, 3), st.integers(1, 3), st.integers(1, 100))
def test_drawn_shapes(kernel, B, n_head, T):
    dtype, D, p = kernel
    check(dtype, B, n_head, T, D, p, seed=T)


@pytest.mark.parametrize("size", [1e-3, 8])
def test_small_and_large_scores(size):
    check(BF16, 1, 1, 130, 64, size=size)


def test_heads_of_several_groups():
    """Blocks are ordered by groups of 64 heads, the last of which has fewer."""
    check(BF16, 5, 13, 65, 32, p=0.1)


def test_the_same_bits_in_every_run():
    qkv, g, keep = draw(3, F16, 1, 2, 130, 64, 0.1)
    first, again = (packed(qkv, g, 2, keep, 0.1) for _ in range(2))
    for x, y in zip(first, again, strict=True):
        assert x.tobytes() == y.tobytes()


def test_strided_and_unaligned_arrays():
    qkv, g, _ = draw(4, F16, 2, 1, 5, 32, 0)
    columns = np.concatenate([qkv, qkv], axis=-1)
    odd = np.concatenate([g.ravel()[:1], g.ravel()])
    y, vjp = kernels.packed_attention(on_device(columns)[..., :96], n_head=1, needs=(True,))
    (g_qkv,) = vjp(on_device(odd)[1:].reshape(g.shape))
    for x, same in zip((y, g_qkv), packed(qkv, g, 1), strict=True):
        np.testing.assert_array_equal(x.get(), same)


def test_no_positions():
    for dtype in (F16, F32):
        qkv, g, _ = draw(0, dtype, 2, 1, 0, 32, 0)
        y, g_qkv = packed(qkv, g, 1)
        assert y.shape == (2, 0, 32) and g_qkv.shape == (2, 0, 96)


# ---- by products ----


@settings(max_examples=10, deadline=None, derandomize=True)
@given(st.integers(1, 70), st.sampled_from([1, 24, 64]), st.sampled_from([0, 0.3]))
def test_float32(T, D, p):
    check(F32, 2, 2, T, D, p)


def test_heads_that_the_kernels_lack():
    check(BF16, 2, 2, 9, 24, p=0.3)


def test_a_gpu_without_the_instructions(monkeypatch):
    monkeypatch.setattr(kernels, "_compute_capability", lambda: 75)
    monkeypatch.setattr(kernels, "_flash", None)
    check(F16, 1, 2, 9, 32)


# ---- queries, keys and values apart ----


@pytest.mark.parametrize("dtype, D, p", [(F16, 64, 0.5), (F32, 8, 0.0)])
def test_fewer_heads_of_keys(dtype, D, p):
    """k and v have one head for two of q; their gradients have the heads of q."""
    rng = np.random.default_rng(5)
    q, g = rng.standard_normal((2, 2, 3, 2, 9, D)).astype(dtype)
    k, v = rng.standard_normal((2, 2, 3, 1, 9, D)).astype(dtype)
    keep = rng.random((2, 3, 2, 9, 9)) >= p if p else None
    how = dict(is_causal=True, dropout_p=p, keep=on_device(keep), window=9)
    y, vjp = kernels.attention(*map(on_device, (q, k, v)), **how, needs=(True, True, True))
    given = [x.get() for x in (y, *vjp(on_device(g)))]
    agree(given, definition(q, k, v, g, keep, p), dtype)


def test_only_gradients_that_are_needed():
    q = on_device(np.ones((1, 5, 32), F16))
    y, vjp = kernels.attention(q, q, q, is_causal=True, needs=(False, True, False))
    gq, gk, gv = vjp(y)
    assert gq is None and gv is None and gk.shape == q.shape


def test_what_is_left_to_the_ordinary_body():
    q = on_device(np.ones((2, 5, 32), F16))
    mask = on_device(np.ones((5, 5), bool))
    refused = [
        dict(),  # not causal
        dict(is_causal=True, attn_mask=mask),
        dict(is_causal=True, window=4),
        dict(is_causal=True, offset=1),
        dict(is_causal=True, scale=-1.0),
        dict(is_causal=True, keep=np.ones((5, 5), bool)),  # on the host
        dict(is_causal=True, keep=mask.astype(F32)),
    ]
    for how in refused:
        assert kernels.attention(q, q, q, **how, needs=(True,) * 3) is NotImplemented
    for k in (q[:, :4], q[..., :16], q.astype(F32)):
        assert kernels.attention(q, k, q, is_causal=True, needs=(True,) * 3) is NotImplemented
    doubles = on_device(np.ones((2, 5, 96), np.float64))
    assert kernels.packed_attention(doubles, n_head=1, needs=(True,)) is NotImplemented
    qkv = on_device(np.ones((2, 5, 96), F16))
    for how in (dict(attn_mask=mask), dict(keep=mask.astype(F32))):
        assert kernels.packed_attention(qkv, n_head=1, **how, needs=(True,)) is NotImplemented


# ---- as operations on tensors ----


@pytest.mark.parametrize("precision", [None, "float16"])
def test_tensors(precision):
    """On a GPU the operation gives the CPU's value and gradient, in the precision of autocast."""
    qkv, g, keep = draw(6, F32, 2, 2, 9, 64, 0.3)
    here, there = (tl.tensor(x, requires_grad=True) for x in (qkv, on_device(qkv)))
    y = packed_attention(here, 2, 0.3, keep)
    y.backward(g)
    with tl.autocast(precision):
        z = packed_attention(there, 2, 0.3, on_device(keep))
    assert z.dtype == (precision or F32)
    z.backward(on_device(g.astype(z.dtype)))
    for x, right in ((z.data, y.data), (there.grad.data, here.grad.data)):
        bound = TOLERANCE[z.dtype] * np.max(np.abs(right))
        np.testing.assert_allclose(x.get().astype(F32), right, rtol=0, atol=bound)
    assert there.grad.dtype == F32


@pytest.mark.parametrize("dtype", [F16, F32])
def test_captured(dtype):
    """A captured forward and backward pass gives the same bits as one that is launched."""
    qkv, g, keep = draw(7, dtype, 1, 2, 9, 64, 0.3)

    def step(qkv, g, keep):
        how = dict(dropout_p=0.3, keep=keep)
        y, vjp = kernels.packed_attention(qkv, n_head=2, **how, needs=(True,))
        parts = [qkv[:, None, :, 64 * i : 64 * (i + 1)] for i in range(3)]
        z, apart_vjp = kernels.attention(*parts, is_causal=True, **how, needs=(True,) * 3)
        return y, *vjp(g), z, *apart_vjp(z)

    launched = step(*map(on_device, (qkv, g, keep)))
    captured = tl.cuda.capture(step)
    for x, same in zip(captured(qkv, g, keep), launched, strict=True):
        np.testing.assert_array_equal(x.get(), same.get())
