"""From a prompt to text: `generate` gives it whole, `stream` piece by piece as it is drawn."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tensorlite.parallel import ALONE, Team
from tokenizer import StreamDecoder

from .beam import beam_search
from .constrain import Grammar
from .ids import Writer, check_ids, evaluating, nth_seed, write
from .sampling import Sampling


class TextWriter(Writer):
    """A text that grows by tokens of a tokenizer; see `stream` for the arguments.

    The prompt may also be ids, which are taken as they are.
    """

    def __init__(
        self,
        model,
        tokenizer,
        prompt: str | Sequence[int],
        max_new_tokens: int = 50,
        temperature: float = 0.8,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        repetition_penalty: float = 1.0,
        seed: int | None = None,
        use_cache: bool = True,
        stop: Sequence[str | int] = (),
        allowed_special: Collection[str] = (),
        presence_penalty: float = 0.0,
        frequency_penalty: float = 0.0,
        logit_bias: Mapping[int, float] | None = None,
        constraint: Grammar | None = None,
        logprobs: bool = False,
    ):
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
        stop = [stop] if isinstance(stop, (str, int)) else list(stop)
        eos = {*check_ids(model, [i for i in stop if not isinstance(i, str)])}
        eos |= model.config.eos_ids
        eos |= {tokenizer.eos_token_id} - {None}
        if isinstance(prompt, str):
            ids = encode_prompt(model, tokenizer, prompt, allowed_special)
        else:
            ids = check_ids(model, prompt)
        super().__init__(ids, max_new_tokens, sampling, seed, eos, logprobs)
        self.prompt, self.use_cache = prompt, use_cache
        # Ids that stand for no text: gaps in the vocabulary, and the id of unknown characters.
        self.n_ids = min(tokenizer.vocab_size, model.config.vocab_size)
        text_ids = tokenizer.vocabulary.keys() - {getattr(tokenizer, "unknown_id", None)}
        self.never = [i for i in range(self.n_ids) if i not in text_ids and i not in self.eos]
        if not any(i < self.n_ids for i in text_ids):
            raise ValueError(f"{tokenizer!r} has no token that stands for text")
        # A token may end in the middle of a character, and a piece of text in the middle of a stop
        # string: both are held back until it is clear how they go on.
        continues = bool(prompt) or constraint is not None
        self.decoder = StreamDecoder(tokenizer, errors="strict", continues=continues)
        self.stop = [s for s in stop if isinstance(s, str) and s]
        self.hold = max((len(s) - 1 for s in self.stop), default=0)
        self.text, self.told = "", 0  # the continuation, and how much of it `news` has told
        self.constraint = None
        if constraint is not None:
            if not isinstance(constraint, Grammar):
                raise TypeError(f"a constraint is a Grammar (Grammar.regex...), not {constraint!r}")
            if self.stop:
                raise ValueError("a text with a constraint ends where it matches, not at `stop`")
            self.constraint = constraint.constraint(tokenizer, self.n_ids, self.eos)
            self.finish_where_complete(n_ids=len(self.ids))

    def possible(self, logits: np.ndarray) -> np.ndarray:
        logits = logits[: self.n_ids].copy()
        logits[self.never] = -np.inf
        if self.constraint is not None:
            logits[~self.constraint.allowed] = -np.inf
        return logits

    def accept(self, new: int) -> bool:
        if new in self.eos:
            return True
        try:
            self.text += self.decoder.push(new)
        except UnicodeError:  # these bytes are not text
            return False
        if self.constraint is not None:
            self.constraint.take(new)
            self.finish_where_complete(n_ids=len(self.ids) + 1)
        found = [self.text.index(s) for s in self.stop if s in self.text]
        if found:
            self.text, self.finish = self.text[: min(found)], "stop"
        return True

    def finish_where_complete(self, n_ids: int) -> None:
        """A text that matches its constraint ends where nothing, or no more token, can follow."""
        if self.constraint.finished or (self.constraint.complete and n_ids >= self.end):
            self.finish = "stop"

    def check_complete(self) -> None:
        """Raise ValueError where the text has ended before it matches its constraint."""
        if self.constraint is not None and self.finish == "length":
            raise ValueError(
                f"{self.end - self.begin} new tokens are too few for this constraint: the "
                f"text is not complete: {self.text!r}; give a larger max_new_tokens"
            )

    def news(self) -> str:
        """The text since the last call, as far as no stop string can begin in it."""
        end = len(self.text) - (0 if self.finish else self.hold)
        told, self.told = self.told, max(end, self.told)
        return self.text[told : self.told]


def encode_prompt(model, tokenizer, prompt: str, allowed_special: Collection[str]) -> list[int]:
    """The ids of a prompt, at most the model's context; those that begin every text come first.

    An empty prompt stands for what begins a text: the tokenizer's token for that, or an end-of-text
    token (without one: a line end, or the tokenizer's first character if it has no line end).
    """
    ids = list(tokenizer.prefix_ids)
    if prompt:
        own = list(tokenizer.encode(prompt, allowed_special, ()))
        ids = own if own[: len(ids)] == ids else ids + own  # a template may have begun the text
    elif not ids and tokenizer.eos_token_id is not None:
        ids = [tokenizer.eos_token_id]
    elif not ids:
        characters = getattr(tokenizer, "characters", "\n")
        ids = list(tokenizer.encode_ordinary("\n" if "\n" in characters else characters[:1]))
    block_size, V = model.config.block_size, model.config.vocab_size
    if max(ids) >= V:
        raise ValueError(
            f"the tokenizer gives id {max(ids)}, the model knows {V} ids: they do not belong "
            "together"
        )
    if len(ids) > block_size:
        warnings.warn(
            f"the prompt has {len(ids)} tokens; the model sees the last {block_size} of them",
            stacklevel=4,
        )
    return ids[-block_size:]


def stream(model, tokenizer, prompt: str, *args, draft=None, **settings) -> Iterator[str]:
    """The continuation of `prompt`, piece by piece as it is drawn.

    max_new_tokens   the largest number of tokens (50)
    temperature, top_k, top_p, min_p, repetition_penalty, presence_penalty, frequency_penalty,
    logit_bias       how a token is chosen; see `Sampling`
    seed             the same seed gives the same text; None draws a new one each time
    use_cache        False reads the text from the start for each token, which is only slower
    stop             strings, before the first of which the text ends, and ids, which end it
    allowed_special  names of special tokens that are tokens in the prompt, or "all"; others in the
                     prompt are text
    constraint       what the text must be: a `Grammar` (constrain.py), for which there are no stop
                     strings
    draft            a smaller model, or "ngrams": the same text sooner; see speculative.py

    The text ends at the tokenizer's end-of-text token, or one that the model's configuration names,
    which is not part of it. Ids that have no bytes (published vocabularies have gaps) are never
    drawn, nor are tokens whose bytes would not continue the text as UTF-8; a character that is
    unfinished at the end is dropped. So the result is always valid text. An empty prompt stands for
    what begins a text (see `encode_prompt`). A prompt longer than the model's context is cropped
    from the left, with a warning; when the text grows beyond it, the model sees the end of the text
    (`window_start` in context.py).

    A text with a constraint ends as soon as nothing can follow, or at an end token, which can only
    be drawn where the text matches. Where there is no end token, it goes on as long as it can.
    Raises ValueError for arguments out of range, and, with a constraint, if max_new_tokens are
    written and the text does not match, or if no token of the tokenizer can follow.
    """
    writer = TextWriter(model, tokenizer, prompt, *args, **settings)
    for _ in write(model, [writer], writer.use_cache, draft):
        if piece := writer.news():
            yield piece
    if piece := writer.news():
        yield piece
    writer.check_complete()


def generate(
    model,
    tokenizer,
    prompt: str,
    *args,
    return_full_text: bool = True,
    num_beams: int = 1,
    length_penalty: float = 1.0,
    **settings,
) -> str:
    """The prompt and its continuation; see `stream` for the other arguments.

    `return_full_text=False` gives the continuation alone. With `num_beams` above 1 it is the best
    that a beam search finds (beam.py), to which seeds, stop strings and constraints do not apply.
    """
    if num_beams == 1:
        text = "".join(stream(model, tokenizer, prompt, *args, **settings))
    else:
        draft = settings.pop("draft", None)
        w = TextWriter(model, tokenizer, prompt, *args, **settings)
        if w.stop or w.constraint is not None or draft is not None:
            raise ValueError("stop strings, constraints and drafts go with num_beams 1")
        never = [*w.never, *range(w.n_ids, model.config.vocab_size)]
        bias = {**w.sampling.logit_bias, **dict.fromkeys(never, -math.inf)}
        sampling = replace(w.sampling, logit_bias=bias)
        more = w.end - w.begin, num_beams, w.eos, length_penalty, sampling, w.use_cache
        with evaluating(model):
            ids = beam_search(model, w.ids, *more)
        decoder = StreamDecoder(tokenizer, continues=bool(prompt))
        text = "".join(map(decoder.push, ids))
    return prompt + text if return_full_text else text


@dataclass
class Completion:
    """A prompt's continuation, its ids, and why it ended: "eos", "stop" or "length".

    A text with a constraint matches it, except where it ended by "length".
    """

    prompt: str
    text: str
    ids: list[int]
    finish: str
    logprobs: list[float] | None = None  # of the ids, natural logarithms


def complete(
    model,
    tokenizer,
    prompts: Sequence[str],
    *args,
    batch_size: int = 8,
    seed: int | None = None,
    team: Team = ALONE,
    **settings,
) -> Iterator[Completion]:
    """The continuations of several prompts, in order, `batch_size` of them written together.

    The arguments are those of `stream` without `draft`, and `logprobs`: True to have them in the
    result. Text number i has the seed `nth_seed(seed, i)`, whatever else is in its batch. The
    processes of a team write a batch each, and all get all continuations.

    Raises TypeError for a single str, ValueError for a batch_size below 1 and as `stream` does.
    """
    if isinstance(prompts, str):
        raise TypeError("complete takes several prompts, not one str; use generate or stream")
    if batch_size < 1:
        raise ValueError(f"batch_size is at least 1, not {batch_size}")
    batches = [
        range(i, min(i + batch_size, len(prompts))) for i in range(0, len(prompts), batch_size)
    ]
    for start in range(0, len(batches), team.size):
        mine = batches[start + team.rank : start + team.rank + 1]  # none, for some at the end
        writers = [
            TextWriter(model, tokenizer, prompts[i], *args, seed=nth_seed(seed, i), **settings)
            for i in (mine[0] if mine else ())
        ]
        for _ in write(model, writers, all(w.use_cache for w in writers)):
            pass
        done = []
        for w in writers:
            logprobs = w.logprobs and w.logprobs[: len(w.new_ids)]
            done.append([w.prompt, w.text, w.new_ids, w.finish, logprobs])
        for fields in itertools.chain.from_iterable(team.gather(done)):
            yield Completion(*fields)
