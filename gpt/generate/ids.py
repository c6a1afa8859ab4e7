"""From prompts to continuations, in ids: the loop that every way of generating runs.

A `Writer` is one text that grows; `write` lets a batch of them grow together. What a writer draws
depends on its own text, settings and seed alone, so that a text is the same in any batch.
"""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np

from tensorlite.device import random

from .beam import beam_search
from .context import Context
from .sampling import Sampling
from .speculative import guess, guesses_ahead


class Writer:
    """A text that grows by one token at a time, each drawn from the model's logits.

    ids       the prompt and what follows it; `begin` is where that begins
    finish    why the text has ended: "eos", "stop" or "length"; None while it grows
    end_id    the end token that was drawn, which is not among `ids`; None for other texts
    logprobs  the logarithm of the model's probability of each new token, where `logprobs` is True
    """

    constraint = None  # what the text must be, for writers that are told

    def __init__(
        self,
        prompt: Sequence[int],
        max_new_tokens: int,
        sampling: Sampling,
        seed: int | None = None,
        eos: Collection[int] = (),
        logprobs: bool = False,
    ):
        if max_new_tokens < 0:
            raise ValueError(f"max_new_tokens is at least 0, not {max_new_tokens}")
        self.ids, self.begin, self.end = list(prompt), len(prompt), len(prompt) + max_new_tokens
        self.sampling, self.eos = sampling, frozenset(eos)
        self.seed = int(np.random.default_rng().integers(2**62)) if seed is None else seed
        self.finish = "length" if max_new_tokens == 0 else None
        self.end_id: int | None = None
        self.logprobs: list[float] | None = [] if logprobs else None

    @property
    def new_ids(self) -> list[int]:
        return self.ids[self.begin :]

    def random(self, place: int) -> np.random.Generator:
        """The random numbers for the token at a place: a function of the seed and the place."""
        return random(self.seed, "generate", place - self.begin)

    def take(self, model_logits: np.ndarray) -> None:
        """Choose the next token from the logits (V,) for it."""
        logits = self.sampling.logits(self.possible(model_logits), self.ids, self.begin)
        rng = self.random(len(self.ids))
        while not self.accept(new := self.sampling.draw(logits, rng.random())):
            logits[new] = -np.inf  # it cannot follow: draw another one
        if self.logprobs is not None:
            z = model_logits.astype(np.float64)
            z -= z.max()
            self.logprobs.append(float(z[new] - np.log(np.exp(z).sum())))
        self.add(new)

    def take_drawn(self, new: int, logprob: float) -> bool:
        """Take a token that was drawn as `take` does it; False, and nothing else, if it cannot be.

        `new` is -1 where none could be drawn.
        """
        if new < 0 or not self.accept(new):
            return False
        if self.logprobs is not None:
            self.logprobs.append(logprob)
        self.add(new)
        return True

    def add(self, new: int) -> None:
        if new in self.eos:
            self.finish, self.end_id = "eos", new
        else:
            self.ids.append(new)
            if len(self.ids) >= self.end and self.finish is None:
                self.finish = "length"

    def possible(self, logits: np.ndarray) -> np.ndarray:
        """The logits (n_ids,) of the ids that may be drawn; -inf for others."""
        return logits

    def accept(self, new: int) -> bool:
        """Whether the text may go on with this token; if so, it does."""
        return True


def write(
    model,
    writers: Sequence[Writer],
    use_cache: bool = True,
    draft=None,
    n_guesses: int = 4,
) -> Iterator[None]:
    """Let the texts grow until all are finished; yields after each pass of the model.

    `draft` makes several tokens a pass of a single text likely; see speculative.py. Raises
    ValueError for a draft model of another vocabulary, and for a draft with several texts.
    """
    active = [writer for writer in writers if writer.finish is None]
    if draft is not None and len(writers) > 1:
        raise ValueError(f"a draft helps one text at a time, not {len(writers)} together")
    context = Context(model, max((w.end for w in active), default=1) + n_guesses, use_cache)
    ahead = None if draft is None else guesses_ahead(model, draft, n_guesses, use_cache)
    models = (m for m in (model, draft) if hasattr(m, "eval"))
    with evaluating(*models), recording(context, active, draft) as recorded:
        while active:
            if ahead is not None:
                guess(context, ahead, active[0])
            else:
                logits = context.read([writer.ids for writer in active])[:, -1]  # (B, V)
                for writer, row in zip(active, logits):
                    writer.take(row)
            if recorded is not None:
                yield
                for _ in recorded.run(active):
                    yield
            growing = [i for i, writer in enumerate(active) if writer.finish is None]
            context.keep(growing)
            active = [active[i] for i in growing]
            yield


def recording(context: Context, writers: Sequence[Writer], draft):
    """A block with what lets texts grow on a GPU (gpu.py); on a CPU it is None."""
    if not context.on_gpu:
        return contextlib.nullcontext()
    from .gpu import recorded_steps

    return recorded_steps(context, writers, draft)


@contextlib.contextmanager
def evaluating(*models) -> Iterator[None]:
    """The models in evaluation mode, without dropout, and afterwards as they were."""
    training = [model.training for model in models]
    for model in models:
        model.eval()
    try:
        yield
    finally:
        for model, mode in zip(models, training):
            model.train(mode)


def nth_seed(seed: int | None, i: int) -> int | None:
    """The seed of text number i of several: the given one for the first, derived for others.

    (seed + i would make the second text of one seed the first text of the next.)
    """
    return seed if i == 0 or seed is None else int(random(seed, "sample", i).integers(2**62))


def generate_ids(
    model,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    temperature: float = 0.8,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    repetition_penalty: float = 1.0,
    num_beams: int = 1,
    eos_token_id: int | Collection[int] | None = None,
    seed: int | Sequence[int] | None = None,
    use_cache: bool = True,
    *,
    presence_penalty: float = 0.0,
    frequency_penalty: float = 0.0,
    logit_bias: Mapping[int, float] | None = None,
    length_penalty: float = 1.0,
    draft=None,
    return_logprobs: bool = False,
) -> list[list[int]] | tuple[list[list[int]], list[list[float]]]:
    """The continuations of prompts, which are lists of ids of any lengths, as lists of ids.

    >>> generate_ids(model, [[5, 3], [1]], max_new_tokens=2, temperature=0)  # doctest: +SKIP
    [[4, 0], [7, 7]]

    `Sampling` says what the arguments up to `logit_bias` mean. A text ends before any of the ids
    `eos_token_id`. `seed` is one for all texts, of which each then has one of its own, or a seed
    for each; the same seed gives the same text, whatever else is in the batch. With `num_beams`
    above 1, the continuation is the best that a beam search finds, and nothing is drawn
    (beam.py). When a text is longer than the model's context, the model sees the end of it
    (`window_start` in context.py). `draft` is for a single prompt (speculative.py). With
    `return_logprobs`, the logarithms of the model's probabilities of the new tokens come too, one
    more than ids where a text ends with an end token.

    Raises ValueError for an empty prompt, ids that the model does not know, and numbers out of
    range; TypeError for ids that are no integers.
    """
    sampling = Sampling(
        temperature,
        top_k,
        top_p,
        min_p,
        repetition_penalty,
        presence_penalty,
        frequency_penalty,
        {} if logit_bias is None else logit_bias,
    )
    several = isinstance(eos_token_id, Collection)
    ends = eos_token_id if several else [] if eos_token_id is None else [eos_token_id]
    eos = frozenset(check_ids(model, ends))
    prompts = [check_ids(model, prompt) for prompt in prompts]
    if not all(prompts):
        raise ValueError("a prompt has at least one id: give the one that begins texts")
    if num_beams != 1:
        if return_logprobs or draft is not None:
            raise ValueError("return_logprobs and draft go with num_beams 1: beams are not drawn")
        more = max_new_tokens, num_beams, eos, length_penalty, sampling, use_cache
        with evaluating(model):
            return [beam_search(model, prompt, *more) for prompt in prompts]
    one = seed is None or isinstance(seed, (int, np.integer))
    seeds = [nth_seed(seed, i) for i in range(len(prompts))] if one else list(seed)
    if len(seeds) != len(prompts):
        raise ValueError(f"there are {len(seeds)} seeds for {len(prompts)} prompts")
    writers = [
        Writer(prompt, max_new_tokens, sampling, seed, eos, return_logprobs)
        for prompt, seed in zip(prompts, seeds)
    ]
    for _ in write(model, writers, use_cache, draft):
        pass
    texts = [writer.new_ids for writer in writers]
    return (texts, [writer.logprobs for writer in writers]) if return_logprobs else texts


def check_ids(model, ids: Collection[int]) -> list[int]:
    """The ids as a list of int. Raises ValueError for others than the model's, TypeError too."""
    ids, V = list(map(operator.index, ids)), model.config.vocab_size
    if wrong := [i for i in ids if not 0 <= i < V]:
        raise ValueError(f"id {wrong[0]} is not one of the {V} ids that the model knows")
    return ids
