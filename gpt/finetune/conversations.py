"""What the methods share that learn from conversations: a template, and records that are some."""

from __future__ import annotations

import itertools
import json
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..commandline import option
from ..data import split_records
from ..data.chat import TEMPLATES, Chat, Message, messages_of, prepare_chat
from ..models import with_config
from .settings import Tuning

Text = tuple[np.ndarray, np.ndarray]  # the ids (N,) of a conversation, which are answers (N,)


@dataclass
class ChatTuning(Tuning):
    """The settings of a method that learns from conversations."""

    fixed: ClassVar[tuple[str, ...]] = (*Tuning.fixed, "template")

    template: str | None = option(
        None,
        f"how conversations are written: {', '.join(TEMPLATES)} (as the tokenizer says, or alpaca)",
    )


def chat_with(s: ChatTuning, tokenizer, model):
    """(the chat of the template in the settings, the model that knows its ids).

    The model's configuration names the ids that end an answer, for programs that read it.
    """
    template = s.template or (None if tokenizer.chat_template else "alpaca")
    chat = Chat(prepare_chat(tokenizer, template) if template else tokenizer)
    size = max(model.config.vocab_size, chat.tokenizer.vocab_size)
    ends = tuple(sorted(model.config.eos_ids | chat.end_ids))
    ends = ends if len(ends) > 1 else ends[0]
    return chat, with_config(model, vocab_size=size, eos_token_id=ends)


def read_conversations(
    records: Sequence[Mapping], chat: Chat, longest: int
) -> tuple[list[Text], list[list[Message]]]:
    """The conversations of records with at most `longest` ids: as ids, and as messages.

    Longer ones are left out, and a line is printed that counts them. Raises ValueError, with the
    record's number, for a record that is no conversation.
    """
    texts, conversations = [], []
    for number, record in enumerate(records, 1):
        try:
            messages = messages_of(record)
            ids, counted = chat.example(messages)
        except ValueError as error:
            raise ValueError(f"record {number}: {error}") from None
        if len(ids) <= longest:
            texts.append((ids, counted))
            conversations.append(messages)
    if left_out := len(records) - len(texts):
        print(
            f"{left_out:,} of {len(records):,} conversations are left out: an answer would end "
            f"beyond the {longest} tokens that there is room for"
        )
    return texts, conversations


def question(messages: Sequence[Message]) -> list[Message]:
    """The messages before the first answer."""
    return list(itertools.takewhile(lambda message: message["role"] != "assistant", messages))


def split_by_question(s: Tuning, conversations: Sequence[Sequence[Message]]) -> list[np.ndarray]:
    """`split_by` the questions of conversations."""
    return split_by(s, [json.dumps(question(c)) for c in conversations])


def split_by(s: Tuning, keys: Sequence[Hashable]) -> list[np.ndarray]:
    """Numbers of examples to train, to validate and to test: those of equal keys stay together.

    Raises ValueError where none is left to train or to validate.
    """
    if not keys:
        raise ValueError(
            "no example is left to learn from; longer ones fit into a model that was trained with "
            "a larger --block_size, or with --tokenizer bpe:1024, whose tokens are longer"
        )
    parts = split_records(len(keys), s.fractions, s.seed, keys)
    for name, part in zip(("train", "validate"), parts):
        if not len(part):
            raise ValueError(
                f"{len(keys)} examples leave none to {name}: give more, or other parts by "
                "--val_fraction and --test_fraction"
            )
    return parts
