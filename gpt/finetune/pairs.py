"""Pairs of a better and a worse answer: what reward models and DPO have in common.

A record has `chosen` and `rejected`, and what was asked: as `instruction` (and `input`), or as
`prompt`, each a text or a list of messages; or both answers are whole conversations. These are the
forms of TRL's data sets, and Alpaca's.
"""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from tqdm import tqdm

import tensorlite as tl
from tensorlite import Tensor
from tensorlite.device import RowRandom
from tensorlite.parallel import ALONE, Team

from ..data import split_records
from ..data.chat import TEMPLATES, Chat, messages_of, prepare_chat
from ..generate import evaluating
from ..models import with_config
from ..training.settings import option
from ..training.task import Batch
from .epochs import EpochTask, portions
from .settings import Tuning

Text = tuple[np.ndarray, np.ndarray]  # the ids of a prompt with its answer, which are the answer's


def log_sigmoid(x: Tensor) -> Tensor:
    """log(1 / (1 + exp(-x))), element by element, exact for large x of either sign."""
    return -tl.logsumexp(tl.stack([Tensor(np.zeros_like(x.data)), -x]), axis=0)


@dataclass
class PairTuning(Tuning):
    """Settings of a method that learns from answers in conversations."""

    fixed: ClassVar[tuple[str, ...]] = (*Tuning.fixed, "template")

    template: str | None = option(
        None, f"how conversations are written: {', '.join(TEMPLATES)} (as the tokenizer says)"
    )


def chat_with(s: PairTuning, tokenizer, model):
    """(the chat of the template in the settings, the model with the ids that it needs)."""
    if s.template:
        tokenizer = prepare_chat(tokenizer, s.template)
    if tokenizer.vocab_size > model.config.vocab_size:
        model = with_config(model, vocab_size=tokenizer.vocab_size)
        model.recompute = s.recompute
    return Chat(tokenizer), model


# =================================================================================================
# Records
# =================================================================================================


def conversation(record: Mapping, answer: str) -> list[dict[str, str]]:
    """The messages of a record that end with the answer in the column `answer`.

    Raises ValueError for a record in another form, as `messages_of` does.

    >>> conversation({"prompt": "2 + 2?", "chosen": "4.", "rejected": "5."}, "rejected")
    [{'role': 'user', 'content': '2 + 2?'}, {'role': 'assistant', 'content': '5.'}]
    """
    if answer not in record:
        raise ValueError(f"there is no column {answer!r}, only {', '.join(map(str, record))}")
    if "prompt" in record:
        return messages_of({"prompt": record["prompt"], "completion": record[answer]})
    if "instruction" in record:
        asked = {name: record.get(name) for name in ("instruction", "input")}
        return messages_of({**asked, "output": record[answer]})
    return messages_of({"messages": record[answer]})


def encode_answer(chat: Chat, messages: Sequence[Mapping]) -> Text:
    """The ids (N,) of a conversation, and which are its last answer with the token that ends it."""
    ids, counted = chat.example(messages)
    end = np.flatnonzero(counted)[-1]
    prompt = np.flatnonzero(~counted[:end])[-1] + 1  # how many ids are before the last answer
    return ids, counted & (np.arange(len(ids)) >= prompt)


def read_pairs(
    records: Sequence[Mapping], chat: Chat, longest: int
) -> tuple[list[Text], list[str]]:
    """The texts of n pairs, each chosen one before its rejected one (2 n), and the prompts (n).

    Pairs of equal answers are left out, and those with more than `longest` ids; a line is printed
    that counts them. Raises ValueError, with the record's number, for what is no pair.
    """
    texts, prompts, left_out = [], [], Counter()
    for number, record in enumerate(records, 1):
        try:
            chosen, rejected = conversation(record, "chosen"), conversation(record, "rejected")
            if chosen[:-1] != rejected[:-1]:
                raise ValueError("chosen and rejected are answers to different prompts")
            pair = encode_answer(chat, chosen), encode_answer(chat, rejected)
        except ValueError as error:
            raise ValueError(f"record {number}: {error}") from None
        if chosen == rejected:
            left_out["chosen and rejected are equal"] += 1
        elif max(len(ids) for ids, _ in pair) > longest:
            left_out[TOO_LONG.format(longest)] += 1
        else:
            texts += pair
            prompts.append(json.dumps(chosen[:-1]))
    say_left_out(left_out, len(records))
    return texts, prompts


TOO_LONG = "an answer ends beyond the {} tokens of the context"


def say_left_out(left_out: Counter, n: int) -> None:
    """Print how many of n records are left out, for each reason."""
    for why, count in left_out.items():
        print(f"{count:,} of {n:,} records are left out: {why}")


def split_by_prompt(s: Tuning, prompts: Sequence[str]) -> list[np.ndarray]:
    """Numbers of examples to train, to validate and to test: those of one prompt stay together.

    Raises ValueError where none is left to train or to validate.
    """
    parts = split_records(len(prompts), s.fractions, s.seed, prompts)
    for name, part in zip(("train", "validate"), parts):
        if not len(part):
            raise ValueError(f"{len(prompts)} examples, divided by {s.fractions}: none to {name}")
    return parts


# =================================================================================================
# The task
# =================================================================================================


class PairTask(EpochTask):
    """To tell apart the two answers of a pair, by one number that the model gives to each.

    `texts` (2 n) are those of n pairs, the chosen one of pair i being number 2 i, and the rejected
    one 2 i + 1; `parts` are the numbers of the pairs to train, to validate and to test. A subclass
    has `outputs`, `losses` and `figures`.
    """

    def __init__(self, settings: Tuning, texts: Sequence[Text], parts: Sequence[np.ndarray]):
        self.texts, (self.train, self.val, self.test) = texts, parts
        self.sizes = np.array([len(ids) for ids, _ in texts])  # (2 n,)
        super().__init__(settings, self.sizes.reshape(-1, 2).sum(axis=1)[self.train])

    def outputs(self, model, texts: np.ndarray, rng: RowRandom | None = None) -> Tensor:
        """What the model gives to the texts of these numbers (B,): one number each, (B,)."""
        raise NotImplementedError

    def losses(self, pairs: np.ndarray, chosen: Tensor, rejected: Tensor) -> Tensor:
        """The loss of each pair (B,), from the outputs of both of its answers, (B,) each."""
        raise NotImplementedError

    def figures(self, pairs: np.ndarray, chosen: Tensor, rejected: Tensor) -> dict[str, float]:
        """What is measured of all of these pairs together: `loss`, then others."""
        raise NotImplementedError

    def loss(self, model, examples: Batch, rng: RowRandom | None = None) -> Tensor:
        (rows,) = examples.arrays
        pairs, B = self.train[rows], len(rows)
        out = self.outputs(model, both(pairs), rng and of_both(rng))  # (2 B,)
        return tl.mean(self.losses(pairs, out[:B], out[B:])) * examples.share

    def evaluate(self, model, team: Team = ALONE) -> dict[str, float]:
        return self.measured_on("val", model, self.val, team)

    def final(self, model, team: Team = ALONE) -> dict[str, float]:
        return self.measured_on("test", model, self.test, team) if len(self.test) else {}

    def measured_on(self, name: str, model, pairs: np.ndarray, team: Team) -> dict[str, float]:
        out = tl.tensor(self.measure(model, both(pairs), team))  # (2 n,)
        figures = self.figures(pairs, out[: len(pairs)], out[len(pairs) :])
        return {f"{name}_{figure}": float(value) for figure, value in figures.items()}

    def measure(self, model, texts: np.ndarray, team: Team = ALONE, title: str = "") -> np.ndarray:
        """The outputs of texts (n,), without dropout: (n,) float32, on every rank.

        Each rank takes its share. What is computed together depends on the texts and the number of
        ranks alone, so that the same model gives the same numbers, bit for bit.
        """
        out = np.zeros(len(texts))
        hidden = None if title and team.rank == 0 else True  # None: shown in a terminal
        parts = tqdm(portions(self.sizes[texts], team), title, leave=False, disable=hidden, delay=2)
        with evaluating(model), tl.no_grad():
            for rows in parts:
                out[rows] = self.outputs(model, texts[rows]).numpy()
        return team.sum(out).astype(np.float32)


def both(pairs: np.ndarray) -> np.ndarray:
    """The numbers of the texts of pairs (B,): all chosen ones, then all rejected ones, (2 B,)."""
    return np.concatenate([2 * pairs, 2 * pairs + 1])


def of_both(rng: RowRandom) -> RowRandom:
    """The random numbers of both texts of each pair: every text is a row of its own."""
    rng = copy.copy(rng)
    rng.rows = both(np.asarray(rng.rows))
    return rng


def compare(chosen: Tensor, rejected: Tensor) -> dict[str, float]:
    """How often the chosen one has more, equals counted as half, and how much more on average."""
    c, r = chosen.numpy(), rejected.numpy()
    return {"accuracy": np.mean((c > r) + 0.5 * (c == r)), "margin": np.mean(c - r)}
