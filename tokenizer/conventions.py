"""What a model that was trained with a tokenizer expects, besides the ids of a text.

The folders of transformers say it around the vocabulary: how the special tokens are named that
begin, end and pad a text, which ids stand around every text, and by which template a conversation
becomes one text. A tokenizer keeps all of it, and `encode` does none of it:
`[*t.prefix_ids, *t.encode(text), *t.suffix_ids]` is what transformers gives for a text.
"""

from collections.abc import Container
from reprlib import repr as short_repr  # a file may hold values of any size
from typing import NamedTuple

END_OF_TEXT = "<|endoftext|>"
ROLES = ("bos_token", "eos_token", "pad_token", "unk_token")


class Conventions(NamedTuple):
    """The attributes of these names of a tokenizer.

    bos_token, eos_token, pad_token, unk_token: names of special tokens, or None. A tokenizer need
        not have a token of that name.
    chat_template: a template in the language of Jinja, as transformers' `chat_template`, or None.
    prefix_ids, suffix_ids: the ids that stand before and after every text.
    """

    bos_token: str | None = None
    eos_token: str = END_OF_TEXT
    pad_token: str | None = None
    unk_token: str | None = None
    chat_template: str | None = None
    prefix_ids: list[int] = []
    suffix_ids: list[int] = []

    @classmethod
    def of(cls, tokenizer: object) -> "Conventions":
        """Those of a tokenizer."""
        return cls(*(getattr(tokenizer, name) for name in cls._fields))

    def checked(self, vocabulary: Container[int]) -> "Conventions":
        """A copy. Raises ValueError for a wrong type, or an id that `vocabulary` does not have."""
        for name in (*ROLES, "chat_template"):
            value = getattr(self, name)
            if not isinstance(value, str) and (value is not None or name == "eos_token"):
                raise ValueError(f"{name} must be a str, not {short_repr(value)}")
        for name in ("prefix_ids", "suffix_ids"):
            ids = getattr(self, name)
            if not isinstance(ids, list) or any(type(i) is not int for i in ids):
                raise ValueError(f"{name} must be a list of ids, not {short_repr(ids)}")
            for i in ids:
                if i not in vocabulary:
                    raise ValueError(f"{name} has id {i}, which is not in the vocabulary")
        return self._replace(prefix_ids=list(self.prefix_ids), suffix_ids=list(self.suffix_ids))

    def describe(self) -> dict:
        """Those that are not the defaults, as JSON values."""
        defaults = Conventions()._asdict()
        return {name: value for name, value in self._asdict().items() if value != defaults[name]}

    @classmethod
    def from_description(cls, description: dict) -> "Conventions":
        """The inverse of `describe`; other names are left alone."""
        return cls(**{name: description[name] for name in cls._fields if name in description})
