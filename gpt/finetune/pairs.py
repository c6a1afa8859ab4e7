"""Records of pairs, a better and a worse answer to the same, as reward.py and dpo.py read them.

A record has `chosen` and `rejected`, and what was asked: as `instruction` (and `input`), or as
`prompt`, each a text or a list of messages; or both answers are whole conversations. These are the
forms of TRL's data sets, and Alpaca's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from ..data.chat import Chat, Message, messages_of
from .conversations import Text


def conversation(record: Mapping, answer: str) -> list[Message]:
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


def encode_answer(chat: Chat, messages: Sequence[Message]) -> Text:
    """The ids (N,) of a conversation, and which are its last answer with the token that ends it."""
    ids, counted = chat.example(messages)
    end = np.flatnonzero(counted)[-1]
    prompt = np.flatnonzero(~counted[:end])[-1] + 1  # how many ids are before the last answer
    return ids, counted & (np.arange(len(ids)) >= prompt)


def read_pairs(
    records: Sequence[Mapping], chat: Chat, longest: int
) -> tuple[list[Text], list[list[Message]]]:
    """The texts of n pairs, each chosen one before its rejected one (2 n), and the chosen ones (n).

    Pairs of equal answers are left out, and those with more than `longest` ids; a line is printed
    that counts them. Raises ValueError, with the record's number, for what is no pair.
    """
    texts, conversations, left_out = [], [], Counter()
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
            conversations.append(chosen)
    say_left_out(left_out, len(records))
    return texts, conversations


TOO_LONG = "an answer would end beyond the {} tokens that there is room for"


def say_left_out(left_out: Counter, n: int) -> None:
    """Print how many of n records are left out, for each reason."""
    for why, count in left_out.items():
        print(f"{count:,} of {n:,} records are left out: {why}")
