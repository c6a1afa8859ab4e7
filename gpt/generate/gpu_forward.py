"""What a step of writing text does on a GPU: gpu_step.py records it.

It reads the last token of each text, at its place in the cache, and draws the token that follows.
There are two ways through the model: its own forward pass, and for a few texts of a GPT-2 kernels
that have the norms in the products.

B texts, C = n_embd, nh heads of size hs, V = vocab_size.
"""

from __future__ import annotations

import weakref

import numpy as np

import tensorlite as tl
from tensorlite import nn
from tensorlite.arraylike import array_of
from tensorlite.kernels import decode
from tensorlite.kernels.draw import State, draw
from tensorlite.kernels.elementwise import cast
from tensorlite.kernels.launch import contiguous, empty
from tensorlite.kernels.precision import copies, low
from tensorlite.kernels.products import matmul

from ..attention import CausalSelfAttention
from ..model import GPT, MLP, Block
from ..models import llama, modern
from .cache import Cache
from .sampling import Sampling


class Forward:
    """A step for the texts of a cache, each by a call of `by_model` or `by_few_rows`.

    `bias` (n_ids,) is added to the logits of the ids that may be drawn; `logprobs` says whether
    their logarithms of probability are computed; `steps` is the most that is drawn for a text.
    The arrays that a recording uses are held here, but not the model, so that a recording which is
    kept for later keeps no model.
    """

    def __init__(self, model, cache: Cache, sampling: Sampling, bias, logprobs: bool, steps: int):
        self._model, self.sampling = weakref.ref(model), sampling
        self.keys, self.values = cache.keys, cache.values
        rows, V = len(cache.pads), model.config.vocab_size
        self.state = State(empty, rows, steps, cache.size)
        self.state.uniform[...] = 0
        self.logits, self.stream = (empty((rows, n), np.float32) for n in (V, model.config.n_embd))
        self.cap = getattr(model.config, "logit_cap", None)
        self.logprobs, self.wants_logprobs = empty((steps, rows), np.float32), logprobs
        self.bias = np.asarray(bias, like=self.logits) if len(bias) < V or bias.any() else None
        self.arrays = [p.data for p in model.parameters()]
        matrices = [w for w in self.arrays if w.ndim == 2]
        self.matrices = {id(w): contiguous(cast(w, low(w))) for w in matrices}
        self.copies = [(w, self.matrices[id(w)]) for w in matrices if low(w) != w.dtype]

    @property
    def model(self):
        return self._model()

    def copy_weights(self) -> None:
        """Take the weights as they are now."""
        for weight, matrix in ((w, self.matrices[id(w)]) for w in self.arrays if w.ndim == 2):
            if matrix is not weight:
                matrix[...] = weight

    def by_model(self) -> None:
        """A step by the model's own forward pass."""
        with tl.no_grad(), copies(self.copies):
            cache, head = PlacesOnGPU(self.keys, self.values, self.state), self.model.head
            x = self.model.hidden(self.state.token[:, None], cache=cache)  # (B, 1) -> (B, 1, C)
            known = type(self.model).logits in (GPT.logits, modern.Modern.logits)
            plain = type(head) is nn.Embedding and known
            table = self.matrices.get(id(head.weight.data)) if plain else None  # (V, C)
            if table is not None:
                x = cast(x.data[:, 0], table.dtype)  # (B, C)
                matmul(x, table, tb=True, out=self.logits)  # (B, V)
                if self.cap is not None:
                    self.logits[...] = tl.soft_cap(tl.Tensor(self.logits), self.cap).data  # (B, V)
            else:
                self.logits[...] = self.model.logits(x).data[:, 0]  # (B, V)
        self.draw()

    def by_few_rows(self) -> None:
        """The same for a GPT-2, in 5 launches a block."""
        s, x, model = self.state, self.stream, self.model
        C, nh = model.config.n_embd, model.config.n_head
        linear, norm = self.linear, self.norm
        decode.embed(s.token, s.slot, s.begin, model.wte.weight.data, model.wpe.weight.data, x)
        for block, keys, values in zip(model.h, self.keys, self.values):
            attn, mlp = block.attn, block.mlp
            qkv = decode.few_rows(x, *linear(attn.c_attn), norm(block.ln_1))  # (B, 3C)
            q, k, v = (qkv[:, i * C : (i + 1) * C] for i in range(3))  # 3 x (B, C)
            y = decode.attend(q, k, v, keys, values, s.slot, s.begin, nh)  # (B, C)
            decode.few_rows(y, *linear(attn.c_proj), then="add", out=x)  # (B, C)
            y = decode.few_rows(x, *linear(mlp.c_fc), norm(block.ln_2), "gelu")  # (B, 4C)
            decode.few_rows(y, *linear(mlp.c_proj), then="add", out=x)  # (B, C)
        table = self.matrices[id(model.head.weight.data)]  # (V, C)
        decode.few_rows_head(x, norm(model.ln_f), table, self.logits)  # (B, V)
        self.draw()

    def draw(self) -> None:
        s = self.sampling
        filters = s.temperature, s.top_k, s.top_p, s.min_p
        logprobs = self.logprobs if self.wants_logprobs else None
        draw(self.logits, self.state, self.bias, *filters, logprobs)

    def takes_few_rows(self) -> bool:
        """Whether this is a plain GPT-2 of a shape that decode.cu has kernels for."""
        model, rows = self.model, len(self.logits)
        if type(model) is not GPT or not is_plain(model):
            return False
        if any(array.dtype != np.float32 for array in self.arrays):
            return False
        weights = [self.matrices[id(p.data)] for p in model.blocks.parameters() if p.ndim == 2]
        return decode.takes_few_rows(rows, model.config.kv_shape[1], weights)

    def linear(self, layer: nn.Linear) -> tuple:
        """The weight, in the dtype of products, and the bias or None."""
        return self.matrices[id(layer.weight.data)], array_or_none(layer.bias)

    def norm(self, layer: nn.LayerNorm) -> tuple:
        return layer.weight.data, array_or_none(layer.bias), layer.eps


PLAIN = {GPT, Block, CausalSelfAttention, MLP, nn.LayerNorm}
PLAIN |= {llama.Llama, llama.Block, llama.Attention, llama.MLP, nn.RMSNorm}
PLAIN |= {modern.Modern, modern.Block, modern.Attention, modern.MLP}
PLAIN |= {nn.Linear, nn.Embedding, nn.Dropout, nn.ModuleList}


def is_plain(model) -> bool:
    """Whether it is a model of ours of which no part was replaced, such as by an adapter."""
    return all(type(part) in PLAIN for part in model.parts())


def array_or_none(x):
    return None if x is None else x.data


class PlacesOnGPU:
    """A cache as a model sees it that reads one position of each text, wherever that is.

    The positions are known to the GPU alone (`State`), so that a recording serves for all.
    """

    length = 0

    def __init__(self, keys, values, state: State):
        self.keys, self.values, self.state = keys, values, state

    def places(self, T: int):
        """Where in their texts the tokens stand: (B, 1)."""
        return (self.state.slot - self.state.begin)[:, None]

    def __getitem__(self, layer: int) -> PastOnGPU:
        return PastOnGPU(self.keys[layer], self.values[layer], self.state)


class PastOnGPU:
    """The part of it that belongs to one layer: keys and values (B, nkv, S, hs)."""

    def __init__(self, keys, values, state: State):
        self.keys, self.values, self.state = keys, values, state

    def self_attention(self, qkv, n_head: int, dropout_p: float = 0.0, rng=None):
        B, _, C3 = qkv.shape
        q, k, v = (qkv.data[:, 0, i * C3 // 3 : (i + 1) * C3 // 3] for i in range(3))  # (B, C)
        return tl.Tensor(self._attend(q, k, v, n_head, None)[:, None])  # (B, 1, C)

    def attend(self, q, k, v, window: int | None = None, dropout_p: float = 0.0, rng=None):
        B, nh, _, hs = q.shape
        q, k, v = (contiguous(array_of(a)).reshape(B, -1) for a in (q, k, v))  # (B, nh x hs)
        y = self._attend(q, k, v, nh, window)  # (B, nh x hs)
        return tl.Tensor(y.reshape(B, nh, 1, hs))

    def _attend(self, q, k, v, n_head: int, window: int | None):
        s, dtype = self.state, self.keys.dtype
        q, k, v = (cast(a, dtype) for a in (q, k, v))
        y = decode.attend(q, k, v, self.keys, self.values, s.slot, s.begin, n_head, window)
        if y is NotImplemented:
            raise RuntimeError(f"attention with heads of {self.keys.shape[-1]}")
        return y
