"""From a prompt to text: the model's logits, one token drawn, again."""

from __future__ import annotations

import math
import warnings
from collections.abc import Collection, Iterator, Sequence

import numpy as np

import tensorlite as tl
from tensorlite.device import random
from tokenizer import StreamDecoder

from ..model import GPT
from .sampling import next_token


def generate(model: GPT, tokenizer, prompt: str, *args, return_full_text: bool = True, **kw) -> str:
    """The prompt and its continuation; see `stream` for the arguments.

    `return_full_text=False` gives the continuation alone.
    """
    continuation = "".join(stream(model, tokenizer, prompt, *args, **kw))
    return prompt + continuation if return_full_text else continuation


def stream(
    model: GPT,
    tokenizer,
    prompt: str,
    max_new_tokens: int = 50,
    temperature: float = 0.8,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    repetition_penalty: float = 1.0,
    seed: int | None = None,
    stop: Sequence[str] = (),
    allowed_special: Collection[str] = (),
) -> Iterator[str]:
    """The continuation of `prompt`, piece by piece as it is drawn.

    max_new_tokens  the largest number of tokens
    temperature     below 1 makes likely tokens likelier; 0 always takes the likeliest
    top_k, top_p    draw from the k likeliest tokens, from those that together reach probability p
    min_p           draw from tokens that are at least min_p times as likely as the likeliest
    repetition_penalty  above 1 makes tokens less likely that the context already holds
    seed            the same seed gives the same text; None draws a new one each time
    stop            strings; the text ends before the first of them
    allowed_special names of special tokens that are tokens in the prompt, or "all"; others in the
                    prompt are text

    The text ends at the tokenizer's end-of-text token, which is not part of it. Ids that have no
    bytes (published vocabularies have gaps) are never drawn, nor are tokens whose bytes would not
    continue the text as UTF-8; a character that is unfinished at the end is dropped. So the result
    is always valid text. An empty prompt stands for an end-of-text token (for a tokenizer without
    one: a line end, or the tokenizer's first character if it has no line end). A prompt longer than
    the model's context is cropped from the left, with a warning. Raises ValueError for arguments
    out of range.
    """
    check_arguments(max_new_tokens, temperature, top_k, top_p, min_p, repetition_penalty)
    stop = [stop] if isinstance(stop, str) else [s for s in stop if s]
    block_size, eos = model.config.block_size, tokenizer.eos_token_id
    if prompt:
        ids = list(tokenizer.encode(prompt, allowed_special, ()))
    elif eos is not None:
        ids = [eos]
    else:  # the first character, where a tokenizer of characters has no line end
        characters = getattr(tokenizer, "characters", "\n")
        ids = list(tokenizer.encode_ordinary("\n" if "\n" in characters else characters[:1]))
    if max(ids) >= model.config.vocab_size:
        raise ValueError(
            f"the tokenizer gives id {max(ids)}, the model knows {model.config.vocab_size} ids: "
            "they do not belong together"
        )
    if len(ids) > block_size:
        warnings.warn(
            f"the prompt has {len(ids)} tokens; the model sees the last {block_size} of them",
            stacklevel=2,
        )
    # Ids that stand for no text: gaps in the vocabulary, and the id of unknown characters.
    n_ids = min(tokenizer.vocab_size, model.config.vocab_size)
    text_ids = tokenizer.vocabulary.keys() - {getattr(tokenizer, "unknown_id", None)}
    never = [i for i in range(n_ids) if i not in text_ids]
    if len(never) == n_ids:
        raise ValueError(f"{tokenizer!r} has no token that stands for text")
    rng = np.random.default_rng() if seed is None else random(seed, "generate")
    # A token may end in the middle of a character, and a piece of text in the middle of a stop
    # string: both are held back until it is clear how they go on.
    decoder = StreamDecoder(tokenizer, errors="strict", continues=bool(prompt))
    hold = max((len(s) - 1 for s in stop), default=0)
    text = ""
    training = model.training
    model.eval()
    try:
        for _ in range(max_new_tokens):
            with tl.no_grad():
                logits = model.next_logits(np.asarray([ids[-block_size:]]))  # (1, T) -> (1, V)
            logits = logits.numpy()[0, :n_ids].copy()
            logits[never] = -np.inf
            while True:
                new = next_token(
                    logits,
                    rng,
                    temperature,
                    top_k,
                    top_p,
                    min_p,
                    repetition_penalty,
                    ids[-block_size:],
                )
                if new == eos:
                    break
                try:
                    piece = decoder.push(new)
                    break
                except UnicodeError:  # these bytes are not text: draw another token
                    logits[new] = -np.inf
            if new == eos:
                break
            ids.append(new)
            text += piece
            found = [text.index(s) for s in stop if s in text]
            if found:
                yield text[: min(found)]
                return
            if len(text) > hold:
                yield text[: len(text) - hold]
                text = text[len(text) - hold :]
        yield text
    finally:
        model.train(training)


def check_arguments(max_new_tokens, temperature, top_k, top_p, min_p, repetition_penalty) -> None:
    for name, value, fine, expected in (
        ("max_new_tokens", max_new_tokens, max_new_tokens >= 0, "at least 0"),
        ("temperature", temperature, 0 <= temperature < math.inf, "a number, 0 or more"),
        ("top_k", top_k, top_k is None or top_k >= 1, "at least 1"),
        ("top_p", top_p, top_p is None or 0 < top_p <= 1, "above 0 and at most 1"),
        ("min_p", min_p, min_p is None or 0 < min_p <= 1, "above 0 and at most 1"),
        ("repetition_penalty", repetition_penalty, 0 < repetition_penalty < math.inf, "above 0"),
    ):
        if not fine:
            raise ValueError(f"{name} is {expected}, not {value}")
