"""The Llama family (Touvron et al., 2023; Mistral, Qwen2, Qwen3, SmolLM): what differs from GPT-2.

- Positions: queries and keys are turned by angles of their places (rotary positions), and there
  are no position embeddings.
- Norms: RMSNorm, which subtracts no mean and has no bias.
- Attention: several heads of queries share a head of keys and values; queries and keys may be
  normalised, and a layer may see a window only.
- MLP: one projection gates another (SwiGLU).
- The output projection may be a matrix of its own.

All else is `GPT`'s (gpt/model.py). Parameters have the names of transformers' LlamaForCausalLM.

B batch, T time (positions), C = n_embd, V = vocab_size, nh heads of queries, nkv of keys and
values, hs the size of a head, I = n_inner.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

import tensorlite as tl
from tensorlite import nn

from ..checkpoint import read_llama, write_llama
from ..model import GPT
from .config import LlamaConfig, config_of
from .positions import Rotary


class Attention(nn.Module):
    """Causal attention with grouped heads and rotary positions (Ainslie et al., 2023)."""

    def __init__(self, config: LlamaConfig, layer: int):
        C, hs = config.n_embd, config.head_size
        self.head_size, self.window = hs, config.windows[layer]
        self.q_proj = nn.Linear(C, config.n_head * hs, bias=config.qkv_bias)
        self.k_proj = nn.Linear(C, config.n_kv_head * hs, bias=config.qkv_bias)
        self.v_proj = nn.Linear(C, config.n_kv_head * hs, bias=config.qkv_bias)
        self.o_proj = nn.Linear(config.n_head * hs, C, bias=config.out_bias)
        if config.qk_norm:
            self.q_norm, self.k_norm = (nn.RMSNorm(hs, config.norm_eps) for _ in "qk")
        self.normalise = config.qk_norm
        self.dropout = config.dropout

    def forward(self, x, cos, sin, rng=None, past=None):
        B, T, _ = x.shape
        q, k, v = self.q_proj(x), self.k_proj(x), self.v_proj(x)  # (B, T, nh or nkv x hs)
        q, k, v = (a.reshape(B, T, -1, self.head_size) for a in (q, k, v))  # (B, T, nh or nkv, hs)
        if self.normalise:
            q, k = self.q_norm(q), self.k_norm(k)
        q, k, v = (a.transpose(0, 2, 1, 3) for a in (q, k, v))  # (B, nh or nkv, T, hs)
        q, k = tl.rope(q, cos, sin), tl.rope(k, cos, sin)
        dropout_p = self.dropout if self.training else 0.0
        if past is None:
            y = tl.scaled_dot_product_attention(
                q, k, v, None, True, dropout_p, rng=rng, enable_gqa=True, window=self.window
            )  # (B, nh, T, hs)
        else:
            y = past.attend(q, k, v, self.window, dropout_p, rng)  # (B, nh, T, hs)
        return self.o_proj(y.transpose(0, 2, 1, 3).reshape(B, T, -1))  # (B, T, C)


class MLP(nn.Module):
    """SwiGLU: one projection, through SiLU, is a gate for another (Shazeer, 2020)."""

    def __init__(self, config: LlamaConfig):
        C, width = config.n_embd, config.n_inner
        self.gate_proj = nn.Linear(C, width, bias=config.mlp_bias)
        self.up_proj = nn.Linear(C, width, bias=config.mlp_bias)
        self.down_proj = nn.Linear(width, C, bias=config.mlp_bias)

    def forward(self, x):
        x = tl.swiglu(self.gate_proj(x), self.up_proj(x))  # (B, T, C) -> (B, T, I)
        return self.down_proj(x)  # (B, T, I) -> (B, T, C)


class Block(nn.Module):
    """Attention, then the MLP, around the residual stream, as in gpt/model.py."""

    def __init__(self, config: LlamaConfig, layer: int):
        self.input_layernorm = nn.RMSNorm(config.n_embd, config.norm_eps)
        self.self_attn = Attention(config, layer)
        self.post_attention_layernorm = nn.RMSNorm(config.n_embd, config.norm_eps)
        self.mlp = MLP(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x, cos, sin, rng=None, past=None):
        y = self.self_attn(self.input_layernorm(x), cos, sin, rng, past)  # (B, T, C)
        x = x + self.dropout(y, rng)  # (B, T, C)
        y = self.mlp(self.post_attention_layernorm(x))  # (B, T, C)
        return x + self.dropout(y, rng)  # (B, T, C)


class Llama(GPT):
    """A language model of the Llama family: ids (B, T) -> logits (B, T, V).

    >>> config = LlamaConfig(vocab_size=65, block_size=8, n_layer=1, n_head=2, n_embd=16)
    >>> logits, loss = Llama(config)(np.zeros((4, 8), np.int64), np.ones((4, 8), np.int64))
    >>> logits.shape, round(loss.item(), 1)
    ((4, 8, 65), 4.2)
    """

    def build(self, config: LlamaConfig) -> None:
        self.embed_tokens = nn.Embedding(config.vocab_size, config.n_embd)
        self.rotary = Rotary(config.rope_parameters, config.head_size, config.rope_context)
        self.drop = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(Block(config, i) for i in range(config.n_layer))
        self.norm = nn.RMSNorm(config.n_embd, config.norm_eps)
        if not config.tied:
            self.lm_head = nn.Embedding(config.vocab_size, config.n_embd)

    residual = ("o_proj.weight", "down_proj.weight")  # the projections back into the stream

    @property
    def blocks(self) -> nn.ModuleList:
        return self.layers

    @property
    def last_norm(self) -> nn.RMSNorm:
        return self.norm

    @property
    def head(self):
        return self.embed_tokens if self.config.tied else self.lm_head

    def num_params(self, non_embedding: bool = False) -> int:
        """The number of parameters. There are no position embeddings to leave out."""
        return sum(p.size for p in self.parameters())

    def hidden(self, idx, rng=None, cache=None):
        """The normalised residual stream after the last block: ids (B, T) -> (B, T, C)."""
        places = self.places(idx, cache)  # (T,), or (B, T) where texts begin at different places
        cos, sin = self.rotary(places, self.embed_tokens.weight.data)  # (T, hs / 2)
        x = self.drop(self.embed_tokens(idx), rng)  # (B, T) -> (B, T, C)
        for i, block in enumerate(self.layers):
            past = None if cache is None else cache[i]
            if self.recompute:
                x = tl.checkpoint(block, x, cos, sin, rng, past)  # (B, T, C)
            else:
                x = block(x, cos, sin, rng, past)  # (B, T, C)
        return self.norm(x)  # (B, T, C)

    def save_pretrained(self, directory: str | Path, step: int = 0) -> None:
        """Write config.json and model.safetensors in Hugging Face's layout of the family."""
        write_llama(directory, self.config, self.published(), step)

    def save_config(self, directory: str | Path) -> None:
        """Write config.json alone."""
        write_llama(directory, self.config, None)

    def published(self) -> dict[str, np.ndarray]:
        """The parameters by the names of transformers, whose matrices are (out, in): views."""
        arrays = {}
        for name, p in self.named_parameters():
            name = name if name.startswith("lm_head") else f"model.{name}"
            arrays[name] = p.data.T if "_proj.weight" in name else p.data
        return arrays

    @staticmethod
    def from_pretrained(directory: str | Path) -> Llama:
        """The model in a directory of that layout, in eval mode.

        Raises ValueError for what is not supported, as `gpt.load` says.
        """
        fields, tensors = read_llama(directory)
        return Llama.filled(config_of(directory, fields), tensors)
