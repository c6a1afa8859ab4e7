"""GPT: a stack of pre-norm transformer blocks on learned token and position embeddings.

Follows GPT-2 (Radford et al., 2019) in architecture, initialisation and parameter names, so that
its published weights fit, and nanoGPT in how it reads. Linear weights are (in, out), as GPT-2
stores them.

B batch, T time (positions), C = n_embd, V = vocab_size.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

import tensorlite as tl
from tensorlite import nn
from tensorlite.device import random

from .attention import CausalSelfAttention
from .checkpoint import Tensors, read_gpt2, write_gpt2
from .config import GPTConfig


class MLP(nn.Module):
    """The same for each position on its own: widen, apply GELU, narrow."""

    def __init__(self, config: GPTConfig):
        self.c_fc = nn.Linear(config.n_embd, 4 * config.n_embd, bias=config.bias)
        self.c_proj = nn.Linear(4 * config.n_embd, config.n_embd, bias=config.bias)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x, rng=None):
        x = self.c_fc(x)  # (B, T, C) -> (B, T, 4C)
        x = tl.gelu(x)  # (B, T, 4C)
        x = self.c_proj(x)  # (B, T, 4C) -> (B, T, C)
        return self.dropout(x, rng)  # (B, T, C)


class Block(nn.Module):
    """Attention, then the MLP, around the residual stream: the sum that all blocks add to.

    Each of the two reads the stream, normalised, and adds its result to the stream itself.
    """

    def __init__(self, config: GPTConfig):
        self.ln_1 = nn.LayerNorm(config.n_embd, bias=config.bias)
        self.attn = CausalSelfAttention(config)
        self.ln_2 = nn.LayerNorm(config.n_embd, bias=config.bias)
        self.mlp = MLP(config)

    def forward(self, x, rng=None, past=None):
        x = x + self.attn(self.ln_1(x), rng, past)  # (B, T, C)
        x = x + self.mlp(self.ln_2(x), rng)  # (B, T, C)
        return x


class GPT(nn.Module):
    """A language model: ids (B, T) -> logits (B, T, V) for the id that follows each.

    The output projection is the token embedding, transposed (tied weights), unless the
    configuration says otherwise. `seed` fixes the initial weights; with None there are none yet,
    and the arrays hold anything.

    >>> model = GPT(GPTConfig(vocab_size=65, block_size=8, n_layer=1, n_head=2, n_embd=16))
    >>> logits, loss = model(np.zeros((4, 8), np.int64), np.ones((4, 8), np.int64))
    >>> logits.shape, round(loss.item(), 1)
    ((4, 8, 65), 4.2)
    """

    def __init__(self, config: GPTConfig, seed: int | None = 1337):
        self.config = config
        self.recompute = False  # True: compute blocks again in backward, keep no activations
        self.replay = None  # what computes `loss` for evaluation while a GPU trains, if anything
        with nn.uninitialised():
            self.build(config)
        if seed is not None:
            self.init_weights(seed)

    def build(self, config: GPTConfig) -> None:
        # The names are GPT-2's: the embeddings of tokens and of positions, the blocks (hidden
        # layers), and the last layer norm.
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.wpe = nn.Embedding(config.block_size, config.n_embd)
        self.drop = nn.Dropout(config.dropout)
        self.h = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.ln_f = nn.LayerNorm(config.n_embd, bias=config.bias)
        if not config.tied:
            self.lm_head = nn.Embedding(config.vocab_size, config.n_embd)

    residual = ("c_proj.weight",)  # the projections back into the residual stream

    @property
    def blocks(self) -> nn.ModuleList:
        return self.h

    @property
    def last_norm(self) -> nn.LayerNorm:
        return self.ln_f

    @property
    def head(self):
        """The embedding whose weight (V, C) is the output projection."""
        return self.wte if self.config.tied else self.lm_head

    def init_weights(self, seed: int) -> None:
        """GPT-2's initial weights: normal with standard deviation 0.02; biases are zero.

        The projections back into the residual stream are scaled by 1 / sqrt(2 n_layer), so that
        the stream does not grow with the number of blocks that add to it.
        """
        for i, (name, p) in enumerate(self.named_parameters()):
            if p.ndim == 2:
                std = 0.02
                if name.endswith(self.residual):
                    std /= math.sqrt(2 * self.config.n_layer)
                p.data[...] = random(seed, "init", i).standard_normal(p.shape, np.float32)
                p.data *= std
            elif name.endswith("bias"):
                p.data[...] = 0

    def num_params(self, non_embedding: bool = False) -> int:
        """The number of parameters.

        With `non_embedding` the position embeddings are left out, as in nanoGPT. The token
        embeddings count, because they are the output projection too; where that is a matrix of its
        own, both count.
        """
        n = sum(p.size for p in self.parameters())
        return n - self.wpe.weight.size if non_embedding else n

    def hidden(self, idx, rng=None, cache=None):
        """The normalised residual stream after the last block: ids (B, T) -> (B, T, C).

        With a `cache` (gpt/generate/cache.py), the ids go on where those that it has seen end. A
        `Packed` (gpt/models/packed.py) in its place says which text of its row each id belongs to.
        """
        tok = self.wte(idx)  # (B, T) -> (B, T, C)
        pos = self.wpe(self.places(idx, cache))  # (T,) -> (T, C)
        x = self.drop(tok + pos, rng)  # (B, T, C) + (T, C) -> (B, T, C)
        for i, block in enumerate(self.h):
            past = None if cache is None else cache[i]
            if self.recompute:
                x = tl.checkpoint(block, x, rng, past)  # (B, T, C)
            else:
                x = block(x, rng, past)  # (B, T, C)
        return self.ln_f(x)  # (B, T, C)

    def places(self, idx, cache=None):
        """Where in the context the ids (B, T) stand: (T,), or (B, T) if a cache says so.

        Raises ValueError if there is no room for them.
        """
        T = idx.shape[1]
        places = np.arange(T, like=idx) if cache is None else cache.places(T)
        end = T if cache is None else cache.length + T
        if end > self.config.block_size:
            raise ValueError(
                f"{end} tokens are longer than the model's context of {self.config.block_size}"
            )
        return places

    def forward(self, idx, targets=None, rng=None):
        """Logits (B, T, V), and the mean cross-entropy in nats if targets (B, T) are given.

        `rng` gives the random numbers of dropout. Raises ValueError for more than block_size
        positions, IndexError for ids outside the vocabulary.
        """
        x = self.hidden(self.array(idx), rng)  # (B, T) -> (B, T, C)
        logits = self.logits(x)  # (B, T, C) -> (B, T, V)
        loss = None if targets is None else tl.cross_entropy(logits, self.array(targets))
        return logits, loss

    def next_logits(self, idx, cache=None, last: int = 1):
        """The logits for the ids that follow the `last` positions: ids (B, T) -> (B, last, V)."""
        x = self.hidden(self.array(idx), cache=cache)[:, -last:]  # (B, T) -> (B, last, C)
        return self.logits(x)  # (B, last, C) -> (B, last, V)

    def logits(self, x):
        """The logits of the ids that follow: normalised stream (..., C) -> (..., V)."""
        return self.head.unembed(x)  # (..., C) @ (C, V) -> (..., V)

    def loss(self, idx, targets, rng=None, packed=None):
        """The loss that `model(idx, targets)` gives, without ever holding all logits.

        Training and evaluation use this one. With `packed`, a `Packed`, there are several texts in
        a row.
        """
        x = self.hidden(self.array(idx), rng, packed)  # (B, T) -> (B, T, C)
        return tl.linear_cross_entropy(x, self.head.weight, self.array(targets))

    def array(self, ids):
        """Token ids (a tensor, an array, nested lists) as an array.

        Ids in the CPU's memory stay there, because checking their range then need not wait for the
        GPU, which accepts them as an index.
        """
        ids = ids.data if isinstance(ids, tl.Tensor) else ids
        return ids if hasattr(ids, "dtype") else np.asarray(ids)

    def save_pretrained(self, directory: str | Path, step: int = 0) -> None:
        """Write config.json and model.safetensors in Hugging Face's GPT-2 layout.

        `step` is the number of updates that made the weights; the file keeps it.
        """
        write_gpt2(directory, self.config, self.published(), step)

    def save_config(self, directory: str | Path) -> None:
        """Write config.json alone."""
        write_gpt2(directory, self.config, None)

    def published(self) -> dict[str, np.ndarray]:
        """The parameters by the names of transformers' GPT2LMHeadModel."""
        return {
            name if name.startswith("lm_head") else f"transformer.{name}": p.data
            for name, p in self.named_parameters()
        }

    @staticmethod
    def from_pretrained(directory: str | Path) -> GPT:
        """The model in a directory of that layout, whoever wrote it, in eval mode: no dropout.

        Raises FileNotFoundError when there is none, and ValueError for one that is damaged, of
        another architecture, or whose tensors do not fit the configuration. `gpt.load` opens the
        other families too.
        """
        return GPT.filled(*read_gpt2(directory))

    @classmethod
    def filled(cls, config: GPTConfig, tensors: Tensors) -> GPT:
        """The model of this shape with the weights in a folder, in eval mode.

        Raises ValueError, before memory is used, if the two do not fit.
        """
        return read_weights(cls.empty(config, tensors.path), tensors)

    @classmethod
    def empty(cls, config: GPTConfig, path: str | Path) -> GPT:
        """The model of this shape, in memory that is not used before something is read into it.

        Raises ValueError, which names the folder `path`, where no memory holds it.
        """
        try:
            return cls(config, seed=None)
        except (MemoryError, ValueError):  # ValueError: for sizes beyond any address
            raise ValueError(f"{path} describes a model that no memory holds: {config}") from None


def read_weights(model: nn.Module, tensors: Tensors) -> nn.Module:
    """Read the weights in a folder into a model, which is returned in eval mode.

    Raises ValueError, before memory is used, if they do not fit its `published()` arrays.
    """
    tensors.check(model.published())
    for part in model.parts():
        if isinstance(part, nn.Linear):
            part.arrange()
    tensors.read_into(model.published())
    return model.eval()
