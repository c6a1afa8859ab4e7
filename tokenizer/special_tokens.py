"""A tokenizer with more special tokens, as a model needs that learns to converse."""

import itertools
from collections.abc import Iterable

from .base import Tokenizer
from .checks import check_special_names


def with_special_tokens(tokenizer: Tokenizer, names: Iterable[str]) -> Tokenizer:
    """A tokenizer with these special tokens too; a new one has the id after the last.

    >>> with_special_tokens(CharTokenizer("ab"), ["<|endoftext|>"]).special_tokens
    {'<|endoftext|>': 3}

    A token of `added_tokens` becomes a special token and keeps its id. All else stays as it is.
    Raises ValueError for a name that cannot be one.
    """
    special, added = dict(tokenizer.special_tokens), dict(tokenizer.added_tokens)
    free = itertools.count(tokenizer.vocab_size)
    for name in check_special_names(names):
        if name not in special:
            special[name] = added.pop(name) if name in added else next(free)
    named = {"special_tokens": special, "added_tokens": added}
    extended = tokenizer.from_description(tokenizer.describe() | named)
    extended.set_conventions(tokenizer.conventions)
    return extended
