"""Conversations as token ids that say which of them are the answers.

conversations.py takes a conversation from a record, template.py makes one text of it by the
tokenizer's chat template, and `Chat` here makes ids of that text.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence

import numpy as np

from tokenizer import Tokenizer, with_special_tokens
from tokenizer.conventions import ROLES
from tokenizer.normalizers import normalize
from tokenizer.texts import replace_surrogates

from .conversations import Message, check_messages, messages_of, prompt_of
from .template import NEEDS, TEMPLATES, compile_template, render

__all__ = ["TEMPLATES", "Chat", "Message", "messages_of", "prepare_chat", "prompt_of"]

BREAK = "\ud800"  # no text holds it: a lone surrogate, which UTF-8 cannot write


class Chat:
    """A tokenizer and a template: the ids of conversations, as transformers gives them.

    `template` is Jinja, or a name in `TEMPLATES`; None is the tokenizer's own. Raises ValueError
    where there is none, and ImportError where Jinja is missing.

    What is written in a message never becomes a special token, and so closes no turn: the name of
    one is encoded as plain text. (transformers does so with `sanitize_control_tokens=True`.) Tokens
    that are found in any text, as Qwen's <think>, keep their meaning in answers, and in the words
    of others unless the template uses them.
    """

    def __init__(self, tokenizer: Tokenizer, template: str | None = None):
        if template in TEMPLATES:
            prepared = prepare_chat(tokenizer, template)
            if prepared.vocab_size > tokenizer.vocab_size:
                raise ValueError(
                    f"the tokenizer lacks special tokens of the template {template}: "
                    "`prepare_chat` adds them"
                )
            tokenizer, template = prepared, None
        template = tokenizer.chat_template if template is None else template
        if template is None:
            raise ValueError(
                f"the tokenizer has no chat template: name one, {', '.join(TEMPLATES)}, or use a "
                "model that was tuned on conversations"
            )
        compile_template(template)  # raises now if it is no template
        self.tokenizer, self.template = tokenizer, template
        named = {role: getattr(tokenizer, role) for role in ROLES}
        self.names = {r: name for r, name in named.items() if name in tokenizer.special_tokens}
        # Names of one character cannot be broken, and white space closes no turn.
        used = {n for n in tokenizer.added_tokens if n.strip() and n in template}
        self.control = {n for n in {*tokenizer.special_tokens, *used} if len(n) > 1}

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """The ids that ask for an answer to these messages, the last of which is the user's.

        Raises ValueError for a conversation that has no such form, and as `render` does.
        """
        messages = check_messages(messages)
        if messages[-1]["role"] == "assistant":
            raise ValueError("the conversation ends with an answer: nothing is asked")
        return self._encode([self._render(messages, True)])[0]

    def example(self, messages: Sequence[Message]) -> tuple[np.ndarray, np.ndarray]:
        """The ids (N,) int64 of a conversation, and which of them are answers: (N,) bool.

        The token that ends an answer counts as part of it. An answer and what is before it are
        encoded separately, so that no token belongs to both. Raises ValueError for a conversation
        without an answer, and for a template that ends answers with no special token, or that
        writes messages in another way once more of them follow.
        """
        messages = check_messages(messages)
        whole, parts, counted = self._render(messages), [], []
        end = 0
        for i, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            begin, last = self._render(messages[:i], True), self._render(messages[: i + 1])
            if not (whole.startswith(begin) and whole.startswith(last) and last.startswith(begin)):
                raise ValueError(
                    f"the chat template writes message {i}, or those before it, in another way "
                    "where more follows, so that it is not clear which tokens are the answer: give "
                    "conversations of one answer, or another template"
                )
            parts += [whole[end : len(begin)], whole[len(begin) : self._end(last, len(begin))]]
            counted += [False, True]
            end = len(begin) + len(parts[-1])
        if not parts:
            raise ValueError("the conversation has no answer")
        ids = self._encode([*parts, whole[end:]])
        flags = np.repeat([*counted, False], [len(part) for part in ids])
        return np.array(sum(ids, []), np.int64), flags

    @functools.cached_property
    def end_ids(self) -> frozenset[int]:
        """The ids that end an answer."""
        messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
        ids, counted = self.example(messages)
        return frozenset({int(ids[counted][-1]), self.tokenizer.eos_token_id} - {None})

    def _render(self, messages: Sequence[Message], add_generation_prompt: bool = False) -> str:
        """The text, with a BREAK in each name of a token that a message holds."""
        broken = [{**m, "content": self._break(m["content"], m["role"])} for m in messages]
        return render(self.template, broken, add_generation_prompt, **self.names)

    def _break(self, content: str, role: str) -> str:
        t, names = self.tokenizer, self.control
        if role == "assistant":
            names = names & t.special_tokens.keys()
        content = replace_surrogates(content)
        if names:
            found = "|".join(map(re.escape, names))
            content = re.sub(f"(?=(?:{found}))(.)", rf"\1{BREAK}", content, flags=re.DOTALL)
        late = [normalize(name, t.normalizer) for name in names & t.normalized_tokens]
        for piece in content.split(BREAK) if late else ():
            if any(name in normalize(piece, t.normalizer) for name in late):
                raise ValueError(
                    f"a message of {role} holds text that the tokenizer's normalizer makes a "
                    "special token of"
                )
        return content

    def _end(self, text: str, begin: int) -> int:
        """Where the answer ends that begins at `begin`: after the last special token."""
        found = [(text.rfind(name, begin), name) for name in self.control]
        end = max((place + len(name) for place, name in found if place >= 0), default=begin)
        if end == begin or text[end:].strip():
            raise ValueError(
                "the chat template ends an answer with no special token of the tokenizer, so that "
                "a model cannot learn to end one"
            )
        return end

    def _encode(self, parts: Sequence[str]) -> list[list[int]]:
        """The ids of the parts of a text."""
        ids, before = [], ""
        for part in parts:
            ids.append([])
            for piece in part.split(BREAK):
                ids[-1] += self._encode_piece(piece, before)
                before += piece
        return ids

    def _encode_piece(self, piece: str, before: str) -> list[int]:
        t = self.tokenizer
        if not piece:
            return []
        encode = functools.partial(t.encode, allowed_special="all", disallowed_special=())
        if before and t.drops_first_space:
            # The tokenizer puts a space before a text. So begin it with something, and drop that:
            # the special token that stands before the piece, or else a line end.
            names = [name for name in t.special_tokens if before.endswith(name)]
            first = max(names, key=len, default="\n")
            ahead, ids = encode(first), encode(first + piece)
            if ids[: len(ahead)] == ahead:
                return ids[len(ahead) :]
        return encode(piece)


def prepare_chat(tokenizer: Tokenizer, template: str) -> Tokenizer:
    """The tokenizer with a template of `TEMPLATES`, and the special tokens that it needs.

    The new ones have the ids after the last one: a model then needs `vocab_size` of them. The token
    that ends answers becomes the tokenizer's `eos_token`. Raises ValueError for another template.
    """
    if template not in TEMPLATES:
        raise ValueError(f"the template is one of {', '.join(TEMPLATES)}, not {template!r}")
    needs, conventions, jinja = NEEDS[template], tokenizer.conventions, TEMPLATES[template]
    eos = needs.eos or tokenizer.eos_token
    bos = tokenizer.bos_token
    if tokenizer.bos_token_id is None and needs.bos:
        bos = needs.bos
    elif tokenizer.prefix_ids == [tokenizer.bos_token_id] and not needs.bos:
        jinja = "{{- bos_token }}" + jinja  # as every text that the model has seen
    names = dict.fromkeys([*needs.tokens, eos, *([bos] if needs.bos else [])])
    prepared = with_special_tokens(tokenizer, names)
    prepared.set_conventions(
        conventions._replace(bos_token=bos, eos_token=eos, chat_template=jinja)
    )
    return prepared
