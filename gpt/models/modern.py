"""The modern family: GPT-2 with what today's small models do, each part one field and one line.

All blocks have RMSNorm without weights in place of LayerNorm, and no biases. The parts are fields
of ModernConfig:

- rotary: queries and keys are turned by angles of their places (Su et al., 2021); without it there
  are position embeddings.
- qk_norm: queries and keys are normalised, without weights (Henry et al., 2020).
- relu2: the MLP squares what ReLU leaves, in place of GELU (So et al., 2021).
- zero_init: the projections back into the residual stream start at zero (Zhang et al., 2019).
- tied: the output projection is the token embedding; otherwise it is a matrix of its own.
- logit_cap: logits are cap * tanh(logits / cap) (Gemma 2, 2024).
- embedding_norm: the embedding is normalised before the first block.
- ngrams: embeddings of the last 2, 3, ... tokens, hashed into a table, are added to the token's.

The last four are collected in modded-nanogpt (Jordan et al., 2024). With the parts of nanochat
(Karpathy, 2025) alone, it is transformers' NanoChatForCausalLM.

B batch, T time (positions), C = n_embd, V = vocab_size, nh heads, hs = C / nh the size of a head,
I = n_inner.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

import tensorlite as tl
from tensorlite import nn
from tensorlite.arraylike import on_gpu

from ..checkpoint import modern_names, read_modern, write_modern
from ..model import GPT
from .modern_config import ModernConfig, modern_config_of
from .positions import Rotary

HASH, HALF = np.uint64(0x9E3779B97F4A7C15), np.uint64(32)  # 2**64 / golden ratio (Knuth, 6.4)


class Attention(nn.Module):
    """Causal attention whose queries and keys may be normalised and turned."""

    def __init__(self, config: ModernConfig):
        self.config = config
        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd, bias=False, order="F")
        self.c_proj = nn.Linear(config.n_embd, config.n_embd, bias=False)
        self.resid_dropout = nn.Dropout(config.dropout)

    def forward(self, x, angles=None, rng=None, past=None):
        c, (cos, sin) = self.config, angles or (None, None)
        qkv = self.c_attn(x)  # (B, T, C) -> (B, T, 3C)
        eps = c.norm_eps if c.qk_norm else None
        qkv = tl.qk_norm_rope(qkv, c.n_head, cos, sin, eps)  # (B, T, 3C)
        dropout_p = self.resid_dropout.p if self.training else 0.0
        attend = tl.causal_self_attention if past is None else past.self_attention
        y = attend(qkv, c.n_head, dropout_p, rng)  # (B, T, 3C) -> (B, T, C)
        return self.resid_dropout(self.c_proj(y), rng)  # (B, T, C)


class MLP(nn.Module):
    """Widen, apply squared ReLU or GELU, narrow."""

    def __init__(self, config: ModernConfig):
        self.relu2 = config.relu2
        self.c_fc = nn.Linear(config.n_embd, config.n_inner, bias=False)
        self.c_proj = nn.Linear(config.n_inner, config.n_embd, bias=False)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x, rng=None):
        x = self.c_fc(x)  # (B, T, C) -> (B, T, I)
        x = tl.relu2(x) if self.relu2 else tl.gelu(x)  # (B, T, I)
        return self.dropout(self.c_proj(x), rng)  # (B, T, I) -> (B, T, C)


class Block(nn.Module):
    """Attention, then the MLP, around the residual stream, as in gpt/model.py."""

    def __init__(self, config: ModernConfig):
        self.eps = config.norm_eps
        self.attn = Attention(config)
        self.mlp = MLP(config)

    def forward(self, x, angles=None, rng=None, past=None):
        x = x + self.attn(tl.rms_norm(x, eps=self.eps), angles, rng, past)  # (B, T, C)
        x = x + self.mlp(tl.rms_norm(x, eps=self.eps), rng)  # (B, T, C)
        return x


class Modern(GPT):
    """A language model of the modern family: ids (B, T) -> logits (B, T, V).

    >>> config = ModernConfig(65, 8, n_layer=1, n_head=2, n_embd=16, rotary=True, zero_init=True)
    >>> logits, loss = Modern(config)(np.zeros((4, 8), np.int64), np.ones((4, 8), np.int64))
    >>> logits.shape, round(loss.item(), 1)
    ((4, 8, 65), 4.2)
    """

    def build(self, config: ModernConfig) -> None:
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        if config.rotary:
            rope = {"rope_type": "default", "rope_theta": config.rope_theta}
            self.rotary = Rotary(rope, config.n_embd // config.n_head, config.block_size)
        else:
            self.wpe = nn.Embedding(config.block_size, config.n_embd)
        if config.ngrams:
            self.ngrams = nn.ModuleList(
                nn.Embedding(config.count_ngrams(n), config.n_embd) for n in config.ngrams
            )
        self.drop = nn.Dropout(config.dropout)
        self.h = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        if not config.tied:
            self.lm_head = nn.Embedding(config.vocab_size, config.n_embd)

    def init_weights(self, seed: int) -> None:
        """Normal weights whose effect is the same at any width.

        The standard deviation is 1 / sqrt(rows) for the matrices of the blocks, divided by
        sqrt(2 n_layer) for those back into the residual stream, and 0.2 for the embeddings of
        tokens and places, which a norm follows. The rest is as in GPT-2. With zero_init, the
        projections back into the stream and a head of its own are zero.
        """
        super().init_weights(seed)
        for name, p in self.named_parameters():
            if self.config.zero_init and name.endswith((*self.residual, "lm_head.weight")):
                p.data[...] = 0
            elif name.startswith("h."):
                p.data /= 0.02 * math.sqrt(len(p))
            elif name in ("wte.weight", "wpe.weight") and not self.config.tied:
                p.data *= 10

    def num_params(self, non_embedding: bool = False) -> int:
        """The number of parameters, as in `GPT`."""
        return super().num_params(non_embedding and not self.config.rotary)

    def hidden(self, idx, rng=None, cache=None):
        """The normalised residual stream after the last block: ids (B, T) -> (B, T, C)."""
        c, places = self.config, self.places(idx, cache)  # (T,), or (B, T) if texts begin apart
        x = self.wte(idx)  # (B, T) -> (B, T, C)
        for n, table in zip(c.ngrams, self.ngrams if c.ngrams else ()):
            x = x + table(self.ngram_ids(n, idx, places, cache))  # (B, T) -> (B, T, C)
        if not c.rotary:
            x = x + self.wpe(places)  # (B, T, C) + (T, C)
        if c.embedding_norm:
            x = tl.rms_norm(x, eps=c.norm_eps)  # (B, T, C)
        x = self.drop(x, rng)  # (B, T, C)
        angles = None
        if c.rotary:  # nanochat turns the other way than Llama
            cos, sin = self.rotary(places, x.data)  # (T, hs / 2)
            angles = cos, -sin
        for i, block in enumerate(self.h):
            past = None if cache is None else cache[i]
            if self.recompute:
                x = tl.checkpoint(block, x, angles, rng, past)  # (B, T, C)
            else:
                x = block(x, angles, rng, past)  # (B, T, C)
        return tl.rms_norm(x, eps=c.norm_eps)  # (B, T, C)

    def ngram_ids(self, n: int, idx, places, cache=None):
        """The rows (B, T) in the table of the n-grams that end with each of the ids (B, T).

        A place before the text counts as an id of its own. Where the table has no row for each
        n-gram, several share one (multiplicative hashing).
        """
        K, (B, T), rows = self.config.ngram_vocab, idx.shape, self.config.count_ngrams(n)
        ids = np.asarray(idx, like=places).astype(np.int64)  # (B, T)
        ids = ids if cache is None else cache.seen(ids)  # (B, S + T)
        ids = np.concatenate([np.zeros_like(ids, shape=(B, n - 1)), ids], axis=1)
        ids = np.minimum(ids[:, -(T + n - 1) :], K)  # (B, n - 1 + T)
        exact = rows == (K + 1) ** n
        base = K + 1 if exact else K + 1 | 1  # an odd one loses nothing modulo 2**64
        number = ids[:, n - 1 :]  # (B, T)
        for j in range(1, n):
            before = ids[:, n - 1 - j : -j]  # (B, T): the ids j places before
            number = number * base + np.where(places >= j, before, K)  # (B, T)
        if exact:
            return number
        return ((number.astype(np.uint64) * HASH >> HALF) % np.uint64(rows)).astype(np.int64)

    def logits(self, x):
        """The logits of the ids that follow: normalised stream (..., C) -> (..., V)."""
        logits, cap = super().logits(x), self.config.logit_cap
        return logits if cap is None else tl.soft_cap(logits, cap)

    def loss(self, idx, targets, rng=None, packed=None):
        x, cap = self.hidden(self.array(idx), rng, packed), self.config.logit_cap  # (B, T, C)
        if cap is not None and on_gpu((x.data,)):  # whose kernel of the line below has no cap
            return tl.cross_entropy(self.logits(x), self.array(targets))
        return tl.linear_cross_entropy(x, self.head.weight, self.array(targets), soft_cap=cap)

    def save_pretrained(self, directory: str | Path, step: int = 0) -> None:
        """Write config.json and model.safetensors, in nanochat's layout where it fits."""
        write_modern(directory, self.config, self.published(), step)

    def save_config(self, directory: str | Path) -> None:
        """Write config.json alone."""
        write_modern(directory, self.config, None)

    def published(self) -> dict[str, np.ndarray]:
        """The parameters by the names of NanoChatForCausalLM, or in our layout by their own."""
        return modern_names(self.config, self.state_dict())

    @property
    def last_norm(self) -> nn.Module:
        return nn.ModuleList()  # it has no weights

    @staticmethod
    def from_pretrained(directory: str | Path) -> Modern:
        """The model in a directory of either layout, in eval mode.

        Raises ValueError for what is not supported, as `gpt.load` says.
        """
        fields, tensors = read_modern(directory)
        return Modern.filled(modern_config_of(directory, fields), tensors)
