"""A step of writing text that is recorded as one CUDA graph.

It reads the last token of each text, at its place in the cache, and draws the token that follows.
There are two ways through the model, of which the faster is taken: the model's own forward pass,
for any model, and for a few texts of a GPT-2 kernels that have the norms in the products.

B texts, C = n_embd, nh heads of size hs, V = vocab_size.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import NamedTuple

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
from tensorlite.modes import mode

from ..attention import CausalSelfAttention
from ..model import GPT, MLP, Block
from ..models import llama
from .cache import Cache
from .sampling import Sampling

AHEAD = 4  # steps that are launched together, and whose tokens are copied to the host together
SPARE = 16  # steps that are launched to find the faster way
FASTER = 0.9  # of the time: how much faster the second way has to be to be taken


_chosen = {}  # the way that was faster, by the shape of the step: taken again in this process


class Step:
    """The recorded step for the texts of a cache, drawn as all `writers` say.

    It may be used again for other texts (`fits`, `prepare`), also after the weights were updated.
    Raises RuntimeError for a model whose forward pass cannot be recorded.
    """

    def __init__(self, model, cache: Cache, writers: Sequence):
        self._model = weakref.ref(model)  # so that a step that is kept keeps no model
        self.cache, self.keys, self.values = cache, cache.keys, cache.values
        self.how = how(model, cache.size, writers)
        rows, V = len(writers), model.config.vocab_size
        self.state = State(empty, rows, cache.size + SPARE, cache.size)
        self.state.uniform[...] = 0
        self.logits, self.stream = (empty((rows, n), np.float32) for n in (V, model.config.n_embd))
        self.logprobs = empty((cache.size + SPARE, rows), np.float32)
        bias = added_to_logits(model, writers[0])
        self.bias = np.asarray(bias, like=self.logits) if len(bias) < V or bias.any() else None
        self.arrays = [p.data for p in model.parameters()]
        matrices = [w for w in self.arrays if w.ndim == 2]
        self.matrices = {id(w): contiguous(cast(w, low(w))) for w in matrices}
        self.copies = [(w, self.matrices[id(w)]) for w in matrices if low(w) != w.dtype]
        self.n_launched = 0  # since `begin`
        results = self.state.tokens[:AHEAD], self.logprobs[:AHEAD]
        self.host = [Host(*results), Host(*results)]  # used in turn
        self.begin([0] * rows)
        self.recorded = self.record()

    @property
    def model(self):
        return self._model()

    def fits(self, model, size: int, writers: Sequence) -> bool:
        """Whether it writes as many texts, up to this size, as these writers say."""
        addresses = [id(p.data) for p in model.parameters()]
        same = addresses == [id(array) for array in self.arrays]
        return same and self.how == how(model, size, writers)

    def prepare(self) -> Cache:
        """Take the weights as they are now; returns the cache for the next texts, empty."""
        for weight, matrix in ((w, self.matrices[id(w)]) for w in self.arrays if w.ndim == 2):
            if matrix is not weight:
                matrix[...] = weight
        self.cache.keys, self.cache.values, self.cache.length = self.keys, self.values, 0
        self.cache.set_pads(np.zeros(len(self.logits), np.int64))
        return self.cache

    def record(self) -> Callable:
        """The way that is faster, recorded; where only one can be recorded, that."""
        s, config = self.state, self.model.config
        key = *self.logits.shape, config.n_layer, config.n_embd, self.keys.dtype.name
        ways = [self.forward_few_rows] if self.takes_few_rows() else []
        ways.append(self.forward)
        chosen = [way for way in ways if way.__name__ == _chosen.get(key)]
        recorded, errors = [], []
        for way in chosen or ways:
            step = tl.cuda.capture(way, restore=(s.token, s.slot, s.step))
            try:
                step.record()
                recorded.append(step)
            except RuntimeError as error:
                errors.append(error)
        if not recorded:
            raise errors[-1]
        if len(recorded) > 1 and milliseconds(recorded[1]) < FASTER * milliseconds(recorded[0]):
            recorded.reverse()
        _chosen[key] = recorded[0].fn.__name__
        return recorded[0]

    # ---- the host's side -------------------------------------------------------------------------

    def begin(self, tokens: list[int]) -> None:
        """The texts of the cache go on with these tokens (B,)."""
        s, length = self.state, self.cache.length
        s.token[...] = np.asarray(np.array(tokens, np.int32), like=s.token)
        s.begin[...] = np.asarray(self.cache.pads.astype(np.int32), like=s.begin)
        s.slot[...] = length
        s.step[...] = 0
        self.n_launched = 0

    def launch(self, numbers: np.ndarray) -> Callable:
        """Let a few more steps begin; returns a function that waits for them.

        `numbers` (steps, B) are their random numbers, as fractions of 2^64. The function gives for
        each step the tokens and their log-probabilities, (B,) and (B,); the latter mean nothing
        where no writer keeps them.
        """
        s, first = self.state, self.n_launched
        self.n_launched = end = first + len(numbers)
        s.uniform[first:end] = np.asarray(numbers, like=s.uniform)
        for _ in numbers:
            self.recorded()
        host = self.host[0]
        self.host.reverse()
        return host.copy(s.tokens[first:end], self.logprobs[first:end])

    # ---- what is recorded ------------------------------------------------------------------------

    def forward(self) -> None:
        """A step by the model's own forward pass."""
        with tl.no_grad(), copies(self.copies):
            cache, head = PlacesOnGPU(self.cache, self.state), self.model.head
            x = self.model.hidden(self.state.token[:, None], cache=cache)  # (B, 1) -> (B, 1, C)
            if type(head) is nn.Embedding:
                table = self.matrices[id(head.weight.data)]  # (V, C)
                x = cast(x.data[:, 0], table.dtype)  # (B, C)
                matmul(x, table, tb=True, out=self.logits)  # (B, V)
            else:
                self.logits[...] = head.unembed(x).data[:, 0]  # (B, V)
        self.draw()

    def forward_few_rows(self) -> None:
        """The same for a GPT-2, in 5 launches a block."""
        s, x, model = self.state, self.stream, self.model
        C, nh = model.config.n_embd, model.config.n_head
        linear, norm = self.linear, self.norm
        decode.embed(s.token, s.slot, s.begin, model.wte.weight.data, model.wpe.weight.data, x)
        for block, keys, values in zip(model.h, self.cache.keys, self.cache.values):
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
        s = self.how.sampling
        filters = s.temperature, s.top_k, s.top_p, s.min_p
        logprobs = self.logprobs if self.how.logprobs else None
        draw(self.logits, self.state, self.bias, *filters, logprobs)

    def takes_few_rows(self) -> bool:
        """Whether this is a plain GPT-2 of a shape that decode.cu has kernels for."""
        model, rows = self.model, len(self.logits)
        if type(model) is not GPT or not is_plain(model):
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
PLAIN |= {nn.Linear, nn.Embedding, nn.Dropout, nn.ModuleList}


def is_plain(model) -> bool:
    """Whether it is a GPT or a Llama of which no part was replaced, such as by an adapter."""
    return all(type(part) in PLAIN for part in model.parts())


class How(NamedTuple):
    """What a recording depends on besides the model's arrays."""

    rows: int
    size: int  # of the cache
    products: str | None  # their precision
    sampling: Sampling
    bias: bytes  # what is added to the logits
    logprobs: bool  # whether they are computed


def how(model, size: int, writers: Sequence) -> How:
    first, logprobs = writers[0], any(w.logprobs is not None for w in writers)
    bias = added_to_logits(model, first).tobytes()
    return How(len(writers), size, mode.get().products, first.sampling, bias, logprobs)


def added_to_logits(model, writer) -> np.ndarray:
    """What is added to the logits of the ids that may be drawn: (n_ids,) float32."""
    zeros = np.zeros(model.config.vocab_size, np.float32)
    return writer.sampling.logits(writer.possible(zeros)).astype(np.float32)


def array_or_none(x):
    return None if x is None else x.data


class PlacesOnGPU:
    """A cache as a model sees it that reads one position of each text, wherever that is.

    The positions are known to the GPU alone (`State`), so that a recording serves for all.
    """

    length = 0

    def __init__(self, cache: Cache, state: State):
        self.cache, self.state = cache, state

    def places(self, T: int):
        """Where in their texts the tokens stand: (B, 1)."""
        return (self.state.slot - self.state.begin)[:, None]

    def __getitem__(self, layer: int) -> PastOnGPU:
        return PastOnGPU(self.cache.keys[layer], self.cache.values[layer], self.state)


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
            raise NotImplementedError(f"attention with heads of {self.keys.shape[-1]}")
        return y


class Host:
    """Memory of the host that the GPU copies its results to by itself."""

    def __init__(self, *arrays):
        """Room for as much as these arrays (steps, B) have."""
        import cupy

        self.copied = cupy.cuda.Event(disable_timing=True)
        self.memory = [cupy.cuda.alloc_pinned_memory(array.nbytes) for array in arrays]

    def copy(self, *arrays) -> Callable:
        """Let arrays be copied; returns a function that waits and gives their rows side by side."""
        import cupy

        stream = cupy.cuda.get_current_stream()
        for memory, array in zip(self.memory, arrays):
            array.data.copy_to_host_async(memory.ptr, array.nbytes, stream)
        self.copied.record(stream)

        def read():
            self.copied.synchronize()
            views = (
                np.frombuffer(memory, array.dtype, array.size).reshape(array.shape)
                for memory, array in zip(self.memory, arrays)
            )
            return zip(*(view.tolist() for view in views))

        return read


def milliseconds(step: Callable, n: int = 5) -> float:
    """The time that a recorded step takes."""
    import cupy

    begin, end = cupy.cuda.Event(), cupy.cuda.Event()
    for i in range(n + 1):
        step()
        if i == 0:
            begin.record()
    end.record()
    end.synchronize()
    return cupy.cuda.get_elapsed_time(begin, end) / n
