"""A conversation with a model that was tuned on conversations: it answers, and it remembers."""

from __future__ import annotations

from collections.abc import Iterator

from ..data.chat import Chat, Message
from .ids import write
from .text import TextWriter


class Conversation:
    """A conversation that grows with each question and its answer.

    `system` is a message that stands before all others. `settings` are those of `stream`, which
    say how an answer is drawn; `draft` is a smaller model, as there. Raises ValueError where the
    tokenizer has no chat template, and ImportError where Jinja is missing.
    """

    def __init__(self, model, tokenizer, system: str | None = None, draft=None, **settings):
        self.model, self.chat = model, Chat(tokenizer)
        self.messages = [] if system is None else [{"role": "system", "content": system}]
        self.settings = {"max_new_tokens": 500, "stop": (), **settings}
        self.draft = draft

    def ask(self, text: str, seed: int | None = None) -> Iterator[str]:
        """The answer to the user's next message, piece by piece as it is drawn.

        It ends with the token that ends answers, at the latest where the context ends. Message and
        answer become part of the conversation, an answer that was interrupted as far as it came;
        without any answer, neither does. The oldest turns are forgotten where there is no more room
        for them. Raises ValueError for an empty message, and one that is too long for the context.
        """
        s, block_size = self.settings, self.model.config.block_size
        least = min(s["max_new_tokens"], block_size // 4)  # the tokens that an answer has room for
        asked = [*self.messages, {"role": "user", "content": text}]
        asked, ids = fit(self.chat, asked, block_size - least)
        n = min(s["max_new_tokens"], block_size - len(ids))
        more = {"max_new_tokens": n, "stop": [*s["stop"], *self.chat.end_ids], "seed": seed}
        writer = TextWriter(self.model, self.chat.tokenizer, ids, **s | more)
        try:
            for _ in write(self.model, [writer], draft=self.draft):
                yield writer.news()
            yield writer.news()
            writer.check_complete()
        finally:
            if writer.text.strip():
                self.messages = [*asked, {"role": "assistant", "content": writer.text}]


def fit(chat: Chat, messages: list[Message], size: int) -> tuple[list[Message], list[int]]:
    """The messages without the oldest turns, as many as fit, and their ids, at most `size`.

    A turn is a message of the user and its answer; the system's message stays. Raises ValueError
    where the last message alone does not fit.
    """
    first = 1 if messages[0]["role"] == "system" else 0
    for begin in range(first, len(messages), 2):
        kept = [*messages[:first], *messages[begin:]]
        ids = chat.prompt_ids(kept)
        if len(ids) <= size:
            return kept, ids
    raise ValueError(
        f"the message has {len(ids)} tokens with what the template puts around it; the model reads "
        f"at most {size} before an answer"
    )
