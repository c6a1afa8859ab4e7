"""A step of writing text, recorded as one CUDA graph, and launched again and again.

gpu_forward.py has what is recorded, in two ways, of which the faster is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

import tensorlite as tl
from tensorlite.modes import mode

from .cache import Cache
from .gpu_forward import Forward
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
        self.cache, self.keys, self.values = cache, cache.keys, cache.values
        self.how, bias = how(model, cache.size, writers), added_to_logits(model, writers[0])
        drawn = self.how.sampling, bias, self.how.logprobs
        self.forward = Forward(model, cache, *drawn, steps=cache.size + SPARE)
        self.n_launched = 0  # since `begin`
        results = self.forward.state.tokens[:AHEAD], self.forward.logprobs[:AHEAD]
        self.host = [Host(*results), Host(*results)]  # used in turn
        self.begin([0] * len(writers))
        self.recorded = self.record()

    def fits(self, model, size: int, writers: Sequence) -> bool:
        """Whether it writes as many texts, up to this size, as these writers say."""
        addresses = [id(p.data) for p in model.parameters()]
        same = addresses == [id(array) for array in self.forward.arrays]
        return same and self.how == how(model, size, writers)

    def prepare(self) -> Cache:
        """Take the weights as they are now; returns the cache for the next texts, empty."""
        self.forward.copy_weights()
        self.cache.keys, self.cache.values, self.cache.length = self.keys, self.values, 0
        self.cache.set_pads(np.zeros(self.how.rows, np.int64))
        return self.cache

    def record(self) -> Callable:
        """The way that is faster, recorded; where only one can be recorded, that."""
        s = self.forward.state
        key = *self.forward.stream.shape, self.keys.shape, self.keys.dtype.name
        ways = [self.forward.by_few_rows] if self.forward.takes_few_rows() else []
        ways.append(self.forward.by_model)
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

    def begin(self, tokens: list[int]) -> None:
        """The texts of the cache go on with these tokens (B,)."""
        s, length = self.forward.state, self.cache.length
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
        s, first = self.forward.state, self.n_launched
        self.n_launched = end = first + len(numbers)
        s.uniform[first:end] = np.asarray(numbers, like=s.uniform)
        for _ in numbers:
            self.recorded()
        host = self.host[0]
        self.host.reverse()
        return host.copy(s.tokens[first:end], self.forward.logprobs[first:end])


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
