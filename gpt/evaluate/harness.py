"""EleutherAI's lm-evaluation-harness on our models: all of its tasks, by its own rules.

    import lm_eval
    from gpt.evaluate.harness import HarnessLM

    lm = HarnessLM.open("out")
    print(lm_eval.simple_evaluate(lm, tasks=["arc_easy"], num_fewshot=5)["results"])

The harness asks a model three kinds of questions, and this class answers them. It is the only file
that imports lm-eval (pip install 'tensorlite[eval]').
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from lm_eval.api.model import LM

import tokenizer as tokenizers

from ..checkpoint import local_folder
from ..generate import complete
from ..model import GPT
from ..models import load
from .likelihood import beginning, encode_pair, loglikelihoods
from .loss import AT_A_TIME
from .perplexity import windows

SETTINGS = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")  # of generation
LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")


class HarnessLM(LM):
    """A model and its tokenizer, as lm-eval sees them.

    Figures are those that its class HFLM gives for the same weights. Special tokens in a text are
    plain text here.
    """

    def __init__(
        self, model: GPT, tokenizer, at_a_time: int = AT_A_TIME, batch_size: int = 8, seed: int = 0
    ):
        super().__init__()
        self.model, self.tokenizer = model, tokenizer
        self.at_a_time, self.batch_size, self.seed = at_a_time, batch_size, seed

    @classmethod
    def open(cls, directory: str | Path, **settings) -> HarnessLM:
        """The model in a folder, or hf:OWNER/NAME; raises as `gpt.load` does."""
        folder = local_folder(directory)
        return cls(load(folder), tokenizers.find(str(folder)), **settings)

    @property
    def before(self) -> list[int]:
        """The id before a text of which every token is predicted: the beginning's or the end's."""
        for name in (self.tokenizer.bos_token_id, self.tokenizer.eos_token_id):
            if name is not None:
                return [name]
        return beginning(self.model, self.tokenizer)[:1]

    def pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """The ids of a context and of its continuation."""
        if not context:
            return self.before, self.tokenizer.encode_ordinary(continuation)
        return encode_pair(self.model, self.tokenizer, context, continuation)

    def prompt(self, context: str) -> list[int]:
        """The ids of a context that a text continues."""
        return [*self.tokenizer.prefix_ids, *self.tokenizer.encode_ordinary(context)] or self.before

    def loglikelihood(self, requests, disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """log p of each continuation after its context, and whether it is the greedy one."""
        pairs = [self.pair(*request.args) for request in requests]
        logprobs, greedy = loglikelihoods(self.model, pairs, self.at_a_time)
        return list(zip(logprobs.tolist(), greedy.tolist()))

    def loglikelihood_rolling(self, requests, disable_tqdm: bool = False) -> list[float]:
        """log p of each text, every token of it, in windows that do not overlap.

        What begins every text of a tokenizer (Llama's <s>) is predicted too, as by HFLM.
        """
        before, T, pairs, owner = self.before, self.model.config.block_size, [], []
        for number, request in enumerate(requests):
            own = self.tokenizer.encode_ordinary(request.args[0])
            ids = [*before, *self.tokenizer.prefix_ids, *own]
            for start, begin, end in windows(len(ids), 1, T, stride=T):
                pairs.append((ids[start:begin], ids[begin:end]))
                owner.append(number)
        logprobs, _ = loglikelihoods(self.model, pairs, self.at_a_time)
        return np.bincount(np.array(owner, np.int64), logprobs, minlength=len(requests)).tolist()

    def generate_until(self, requests, disable_tqdm: bool = False) -> list[str]:
        """The continuation of each context up to one of the texts in `until`: greedy by default.

        Of a context that leaves no room for max_gen_toks, the beginning is left out. Raises
        ValueError for settings of generation that are not known.
        """
        alike: dict[str, list[int]] = {}  # requests with the same settings are written together
        for number, request in enumerate(requests):
            alike.setdefault(json.dumps(request.args[1], sort_keys=True), []).append(number)
        texts = [""] * len(requests)
        for said, numbers in alike.items():
            how = dict(batch_size=self.batch_size, seed=self.seed, **generation(json.loads(said)))
            numbers.sort(key=lambda number: -len(requests[number].args[0]))
            room = max(1, self.model.config.block_size - how["max_new_tokens"])
            prompts = [self.prompt(requests[number].args[0])[-room:] for number in numbers]
            for number, done in zip(numbers, complete(self.model, self.tokenizer, prompts, **how)):
                texts[number] = done.text
        return texts


def generation(said: dict) -> dict:
    """The harness's settings of generation under the names of `gpt.generate.complete`.

    >>> generation({"until": ["Q:"], "max_gen_toks": 20, "do_sample": False, "temperature": 0.7})
    {'stop': ['Q:'], 'max_new_tokens': 20, 'temperature': 0.0}
    """
    left = dict(said)
    until, drawn = left.pop("until", None) or [], left.pop("do_sample", None)
    lengths = [n for n in (left.pop(name, None) for name in LENGTHS) if n is not None]
    temperature = left.pop("temperature", 0.0)
    if drawn is False or (drawn and not temperature):
        temperature = 1.0 if drawn else 0.0
    if wrong := left.keys() - set(SETTINGS):
        raise ValueError(f"settings of generation that are not known here: {sorted(wrong)}")
    stop = [until] if isinstance(until, str) else list(until)
    return dict(stop=stop, max_new_tokens=(lengths or [256])[0], temperature=temperature) | left
