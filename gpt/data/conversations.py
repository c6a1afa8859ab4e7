"""Conversations in the records of a data set, in the forms in which they are published.

A conversation is a list of messages, {"role": "system", "user" or "assistant", "content": str}: a
system message or none, then the user and the assistant in turn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .template import INPUT

Message = Mapping[str, str]

SPEAKERS = {"human": "user", "gpt": "assistant"}  # ShareGPT's names, in many data sets
WRITTEN = (("instruction", "output"), ("prompt", "completion"), ("prompt", "response"))


def messages_of(record: Mapping) -> list[dict[str, str]]:
    """The conversation in a record, which ends with an answer.

    >>> messages_of({"instruction": "Name a colour.", "input": "", "output": "Red."})
    [{'role': 'user', 'content': 'Name a colour.'}, {'role': 'assistant', 'content': 'Red.'}]

    A record has `messages` (or `conversations`); or `instruction`, `output` and perhaps `input`, as
    Alpaca's; or `prompt` and `completion` (or `response`), each a text or a list of messages.
    Raises ValueError for any other, for an empty conversation or message, and for roles that are
    unknown or out of order.
    """
    messages = _conversation(record, answered=True)
    if messages[-1]["role"] != "assistant":
        raise ValueError("the conversation ends with no answer: its last message is the user's")
    return messages


def prompt_of(record: Mapping) -> list[dict[str, str]]:
    """The same up to and including the last message of the user; no answer need be there."""
    messages = _conversation(record, answered=False)
    return messages[:-1] if messages[-1]["role"] == "assistant" else messages


def _conversation(record: Mapping, answered: bool) -> list[dict[str, str]]:
    for name in ("messages", "conversations"):
        if name in record:
            return check_messages(record[name])
    found = [pair for pair in WRITTEN if pair[0] in record and (pair[1] in record or not answered)]
    if not found:
        raise ValueError(
            "a conversation is in the column messages (or conversations), or in instruction and "
            "output, or in prompt and completion (or response); this record has the columns "
            f"{', '.join(map(str, record))}"
        )
    question, answer = found[0]
    asked, said = record[question], record[answer] if answered else []
    if question == "instruction" and isinstance(asked, str) and record.get("input"):
        asked = f"{asked}{INPUT}{record['input']}"
    parts = [
        text if isinstance(text, list) else [{"role": role, "content": text}]
        for role, text in (("user", asked), ("assistant", said))
    ]
    return check_messages(parts[0] + parts[1])


def check_messages(messages: Sequence[Message]) -> list[dict[str, str]]:
    """The messages with role and content alone. Raises ValueError as `messages_of` does."""
    if not isinstance(messages, Sequence) or isinstance(messages, str) or not messages:
        raise ValueError(f"a conversation is a list of messages, not {messages!r:.80}")
    checked = []
    for i, message in enumerate(messages):
        if not isinstance(message, Mapping):
            raise ValueError(f"message {i} has a role and a content, unlike {message!r:.80}")
        role = message.get("role", message.get("from"))
        content = message.get("content", message.get("value"))
        role = SPEAKERS.get(role, role) if isinstance(role, str) else role
        if role not in ("system", "user", "assistant"):
            raise ValueError(f"message {i} is of system, user or assistant, not of {role!r:.80}")
        if not isinstance(content, str) or not content.strip():
            raise ValueError(f"message {i}, of {role}, has no text: {content!r:.80}")
        checked.append({"role": role, "content": content})
    first = 1 if checked[0]["role"] == "system" else 0
    if first == len(checked):
        raise ValueError("the conversation has no message of the user")
    for i, message in enumerate(checked[first:]):
        expected = ("user", "assistant")[i % 2]
        if message["role"] != expected:
            raise ValueError(
                f"message {first + i} is of {message['role']}, and not of {expected}: "
                "a system message or none, then user and assistant in turn"
            )
    return checked
