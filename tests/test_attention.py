"""Attention with heads in groups, in windows and after what was read before."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tensorlite as tl
from tensorlite.testing import arrays


@given(st.data())
def test_heads_in_groups_are_heads_that_repeat_their_keys(data):
    """`enable_gqa`, with masks, windows and offsets, against keys and values repeated by hand."""
    size = st.integers(1, 3)
    B, heads, group, T, more = (data.draw(size) for _ in range(5))
    q = data.draw(arrays((B, heads * group, T, 4)))
    k, v = (data.draw(arrays((B, heads, T + more, 4))) for _ in range(2))
    mask = data.draw(arrays((B, data.draw(st.sampled_from([1, heads * group])), T, T + more)))
    how = {
        "attn_mask": data.draw(st.sampled_from([None, mask > 0, mask, mask[0, 0]])),
        "is_causal": True,
        "offset": data.draw(st.integers(0, more)),
        "window": data.draw(st.sampled_from([None, 1, 3])),
    }
    grouped = tl.scaled_dot_product_attention(*map(tl.tensor, (q, k, v)), enable_gqa=True, **how)
    k, v = np.repeat(k, group, axis=1), np.repeat(v, group, axis=1)
    repeated = tl.scaled_dot_product_attention(*map(tl.tensor, (q, k, v)), **how)
    np.testing.assert_allclose(grouped.numpy(), repeated.numpy(), rtol=1e-9, atol=1e-12)


def test_long_attention_in_a_window_is_attention_with_a_mask():
    """Blocks skip the keys before their windows; sizes at which there are several blocks."""
    rng = np.random.default_rng(0)
    q, k, v = (
        tl.tensor(rng.standard_normal((2, n, 8)), requires_grad=True) for n in (300, 400, 400)
    )
    for window in (1, 50, 128, 1000):
        how = {"is_causal": True, "offset": 100}
        band = np.tri(300, 400, 100, bool) & ~np.tri(300, 400, 100 - window, bool)
        y = tl.scaled_dot_product_attention(q, k, v, window=window, **how)
        masked = tl.scaled_dot_product_attention(q, k, v, band)
        np.testing.assert_allclose(y.numpy(), masked.numpy(), rtol=1e-9, atol=1e-12)
        ours, theirs = (tl.grad((x * x).sum(), (q, k, v)) for x in (y, masked))
        for a, b in zip(ours, theirs):
            np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-8, atol=1e-11)


def test_attention_refuses_windows_and_heads_that_cannot_be():
    x = tl.tensor(np.ones((1, 3, 4, 2)))
    with pytest.raises(ValueError, match="a window is at least 1, with is_causal"):
        tl.scaled_dot_product_attention(x, x, x, window=2)
    with pytest.raises(ValueError, match="window 0"):
        tl.scaled_dot_product_attention(x, x, x, is_causal=True, window=0)
    with pytest.raises(ValueError, match="3 heads of queries cannot share 2 heads of keys"):
        tl.scaled_dot_product_attention(x, x[:, :2], x[:, :2], enable_gqa=True)
    with pytest.raises(ValueError, match="even D"):
        tl.rope(x[..., :1], np.ones((4, 0)), np.ones((4, 0)))
