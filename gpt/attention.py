"""Causal self-attention: every position gathers from the positions before it.

Two classes that compute the same. `PlainCausalSelfAttention` spells the six steps out, to be read;
`CausalSelfAttention` leaves steps 3 to 5 to one fused operation, to be fast. The model uses the
second, a test holds them equal.

B batch, T time (positions), C = n_embd, nh = n_head, hs = C / nh the size of a head.
"""

from __future__ import annotations

import math

import numpy as np

import tensorlite as tl
from tensorlite import nn

from .config import GPTConfig


class PlainCausalSelfAttention(nn.Module):
    """Multi-head attention in its six steps (Vaswani et al., 2017)."""

    def __init__(self, config: GPTConfig):
        self.n_head = config.n_head
        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd, bias=config.bias)
        self.c_proj = nn.Linear(config.n_embd, config.n_embd, bias=config.bias)
        self.attn_dropout = nn.Dropout(config.dropout)
        self.resid_dropout = nn.Dropout(config.dropout)

    def forward(self, x, rng=None):
        B, T, C = x.shape
        # 1. project to queries, keys and values
        q, k, v = tl.split(self.c_attn(x), 3, axis=-1)  # (B, T, C) -> 3 x (B, T, C)
        # 2. split into heads
        q, k, v = (self.split_heads(x) for x in (q, k, v))  # (B, T, C) -> (B, nh, T, hs)
        y = self.attend(q, k, v, rng)  # (B, nh, T, hs)
        # 6. merge the heads and project
        y = y.transpose(0, 2, 1, 3).reshape(B, T, C)  # (B, nh, T, hs) -> (B, T, C)
        return self.resid_dropout(self.c_proj(y), rng)  # (B, T, C)

    def split_heads(self, x):
        B, T, C = x.shape
        x = x.reshape(B, T, self.n_head, C // self.n_head)  # (B, T, C) -> (B, T, nh, hs)
        return x.transpose(0, 2, 1, 3)  # (B, T, nh, hs) -> (B, nh, T, hs)

    def attend(self, q, k, v, rng):
        T, hs = q.shape[-2:]
        # 3. how well does each query match each key?
        scores = q @ k.swapaxes(-1, -2) / math.sqrt(hs)  # (B, nh, T, hs) @ (B, nh, hs, T) -> T x T
        # 4. no position looks into the future
        future = ~np.tri(T, dtype=bool, like=q.data)  # (T, T)
        scores = scores.masked_fill(future, -math.inf)  # (B, nh, T, T)
        # 5. the mean of the values, weighted by the match
        weights = tl.softmax(scores, axis=-1)  # (B, nh, T, T)
        weights = self.attn_dropout(weights, rng)  # (B, nh, T, T)
        return weights @ v  # (B, nh, T, T) @ (B, nh, T, hs) -> (B, nh, T, hs)


class CausalSelfAttention(PlainCausalSelfAttention):
    """The same with steps 2 to 6 fused, so that the T x T weights are never held whole.

    `past` says what else a position sees, or does not: when a text grows, it keeps the keys and
    values of the positions before (generate/cache.py); where several texts share a row, it keeps
    them apart (models/packed.py).
    """

    def forward(self, x, rng=None, past=None):
        qkv = self.c_attn(x)  # (B, T, C) -> (B, T, 3C)
        dropout_p = self.attn_dropout.p if self.training else 0.0
        attend = tl.causal_self_attention if past is None else past.self_attention
        y = attend(qkv, self.n_head, dropout_p, rng)  # (B, T, 3C) -> (B, T, C)
        return self.resid_dropout(self.c_proj(y), rng)  # (B, T, C)
