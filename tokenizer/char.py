"""One id per character: the smallest tokenizer there is.

Follows nanoGPT's character-level Shakespeare (`data/shakespeare_char/prepare.py`): the distinct
characters in code-point order are ids 0, 1, 2... Different: one id more, the last, stands for every
character that is not in the vocabulary, so that any prompt can be encoded.

A character is a code point, as everywhere in Python. A combining mark is a character of its own, so
an "é" that is written as two code points is two ids, and decoding gives the same two back.
"""

import os
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import repeat
from pathlib import Path

from .base import Tokenizer
from .checks import check_special_ids
from .export import export, write_characters
from .texts import replace_surrogates, texts_of

UNKNOWN = "\ufffd"  # what an unknown character decodes to


class CharTokenizer(Tokenizer):
    """A vocabulary of single characters, and one id for all others.

    >>> tokenizer = CharTokenizer("abc")
    >>> tokenizer.encode("cab"), tokenizer.vocab_size
    ([2, 0, 1], 4)
    >>> tokenizer.encode("abx")  # with a warning that "x" is unknown
    [0, 1, 3]

    `special_tokens` are name -> id; their ids come after the one for unknown characters. `train`
    makes none, so that `eos_token_id` is None.
    Raises ValueError if a character is given twice or cannot be written as UTF-8, and for other ids
    of special tokens; TypeError if `characters` is not a str.
    """

    def __init__(self, characters: str, special_tokens: Mapping[str, int] | None = None):
        if not isinstance(characters, str):
            raise TypeError(f"characters must be one str, not {type(characters).__name__}")
        if replace_surrogates(characters) != characters:
            raise ValueError("characters must not hold surrogates (U+D800 to U+DFFF)")
        self._ids = {character: i for i, character in enumerate(characters)}
        if len(self._ids) != len(characters):
            twice, _ = Counter(characters).most_common(1)[0]
            raise ValueError(f"characters must be distinct, but {twice!r} occurs more than once")
        self.characters = characters
        self.unknown_id = len(characters)
        self._warned = False
        tokens = (character.encode() for character in characters + UNKNOWN)
        special_tokens = {} if special_tokens is None else special_tokens
        check_special_ids(special_tokens, first=len(characters) + 1)
        super().__init__(dict(enumerate(tokens)), special_tokens)

    @classmethod
    def train(
        cls,
        texts: str | os.PathLike | Iterable[str | os.PathLike],
        vocab_size: int | None = None,
        encoding: str = "utf-8",
    ) -> "CharTokenizer":
        """The tokenizer of the distinct characters of `texts`, in code-point order.

        >>> CharTokenizer.train("hello").characters
        'ehlo'
        >>> CharTokenizer.train("hello", vocab_size=3).characters
        'el'

        `texts` is one text, one Path of a file (in `encoding`) or of a folder of text files, or any
        iterable of these, taken one at a time. A str is always a text. If it is also the name of a
        file, a warning says so. `vocab_size` is the greatest number of ids, including the one for
        unknown characters. The most frequent characters are kept; of equally frequent ones, those
        that come first in code-point order.
        Raises ValueError if vocab_size is less than 1, or for a file that is not text.
        """
        if vocab_size is not None and vocab_size < 1:
            raise ValueError(
                f"vocab_size must be at least 1, for unknown characters, not {vocab_size}"
            )
        counts: Counter[str] = Counter()
        for text in texts_of(texts, lambda text, place: place, encoding):
            counts.update(replace_surrogates(text))
        characters = sorted(counts, key=lambda c: (-counts[c], c))
        return cls("".join(sorted(characters[: vocab_size and vocab_size - 1])))

    def _plain(self, text: str) -> list[int]:
        """One id per character. The first text with unknown characters gives a warning."""
        if not self._warned:
            self._warn_of_unknown(text)
        return list(map(self._ids.get, text, repeat(self.unknown_id)))  # a loop that runs in C

    def _warn_of_unknown(self, text: str) -> None:
        unknown = sorted(set(text) - self._ids.keys())
        if not unknown:
            return
        self._warned = True
        first = ", ".join(map(repr, unknown[:5])) + (", ..." if len(unknown) > 5 else "")
        warnings.warn(
            f"{len(unknown)} characters are not in the tokenizer's vocabulary and are encoded "
            f"as unknown (id {self.unknown_id}): {first}",
            stacklevel=5,
        )

    def export(self, directory: str | os.PathLike, format: str) -> None:
        """Write `tokenizer.json` and `tokenizer_config.json`, for `tokenizers` and `transformers`.

        These libraries then give the same ids and decode them to the same text. `format` must be
        "huggingface"; any other raises ValueError.
        """
        export(self, Path(directory), format, {"huggingface": write_characters})

    def _cut(self, text: str, place: int) -> int:
        return place

    def describe(self) -> dict:
        description = {"type": "char", "characters": self.characters}
        special = {"special_tokens": self.special_tokens} if self.special_tokens else {}
        return description | special

    @classmethod
    def from_description(cls, description: dict) -> "CharTokenizer":
        special, *_ = cls.described_names({"special_tokens": {}} | description)
        return cls(description.get("characters"), special)
