"""Causal attention on a GPU, its kernels executed by the emulator, against NumPy in float64."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tensorlite as tl
from tensorlite.functional.attention import attention_composed
from tensorlite.kernels import attention as kernels
from tensorlite.kernels import launch
from tests import strict

ml_dtypes = pytest.importorskip("ml_dtypes")
DTYPES = {"bfloat16": ml_dtypes.bfloat16, "float16": np.float16, "float32": np.float32}
TOLERANCES = {"bfloat16": 1e-2, "float16": 1e-3, "float32": 3e-6}  # of the largest element
LENGTHS = st.sampled_from([1, 5, 64, 65, 130, 200])


@pytest.fixture(autouse=True)
def gpu(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", strict.stand_in())
    monkeypatch.setattr(launch, "compiled", {})


def definition(q, k, v, g, keep=None, p=0.0):
    """y and the gradients of q, k, v (B, nh, T, D), in float64."""
    T, D = q.shape[-2:]
    q, k, v, g = (np.asarray(x, np.float64) for x in (q, k, v, g))
    kept = np.ones(1) if keep is None else keep / (1 - p)
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
    qkv = (rng.standard_normal((B, T, 3 * n_head * D)) * size).astype(DTYPES[dtype])
    g = rng.standard_normal((B, T, n_head * D)).astype(DTYPES[dtype])
    return qkv, g, rng.random((B, n_head, T, T)) >= p if p else None


def run(qkv, g, n_head, keep, p):
    """The body's value and gradient, as NumPy arrays."""
    device = strict.to_device
    keep = keep if keep is None else device(keep)
    how = dict(n_head=n_head, dropout_p=p, keep=keep, attn_mask=None)
    y, vjp = kernels.packed_attention(device(qkv), **how, needs=(True,))
    (g_qkv,) = vjp(device(g))
    return y.get(), g_qkv.get()


def check_packed(dtype, B, n_head, T, D, p, size=1.5, seed=0):
    qkv, g, keep = draw(seed, dtype, B, n_head, T, D, p, size)
    y, g_qkv = run(qkv, g, n_head, keep, p)
    assert y.dtype == g_qkv.dtype == DTYPES[dtype]
    parts = [heads(x, n_head) for x in np.split(qkv, 3, axis=-1)]
    wanted = definition(*parts, heads(g, n_head), keep, p)
    given = [heads(x, n_head) for x in (y, *np.split(g_qkv, 3, axis=-1))]
    for name, x, right in zip(("y", "q", "k", "v"), given, wanted, strict=True):
        worst = np.max(np.abs(x.astype(np.float64) - right))
        largest = max(np.max(np.abs(right)), T == 1)  # with one key, q and k get no gradient
        assert worst <= TOLERANCES[dtype] * largest, (name, worst)


KERNELS = [("bfloat16", 64, 0), ("float16", 32, 0), ("bfloat16", 128, 0)]
DROPPING = [("float16", 64, 0.3), ("bfloat16", 32, 0.3), ("float16", 128, 0.3)]


@pytest.mark.parametrize("dtype, D, p", KERNELS + DROPPING)
@settings(max_examples=4, deadline=None, derandomize=True)
@given(B=st.integers(1, 2), n_head=st.integers(1, 2), T=LENGTHS, seed=st.integers(0, 9))
def test_kernels(dtype, D, p, B, n_head, T, seed):
    check_packed(dtype, B, n_head, T, D, p, seed=seed)
