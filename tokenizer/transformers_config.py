"""The files that transformers writes beside a vocabulary, and what they say about special tokens.

They are `added_tokens.json`, `tokenizer_config.json` and `special_tokens_map.json`. `read_about`
gathers what they say in an `About`. What would change a text's ids in a way that is not done here
raises ValueError.
"""

from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from reprlib import repr as short_repr  # a file may hold values of any size
from typing import NamedTuple

from .base import END_OF_TEXT
from .files import member, read_json


class About(NamedTuple):
    """What the files beside a vocabulary of transformers say about it.

    added: name -> id of special tokens, which need not be in the vocabulary.
    names: the names of special tokens.
    eos_token: the special token that ends a text.
    around: the special tokens that transformers puts around every text.
    kind: the class of transformers that reads the vocabulary, or None if the files do not say.
    """

    added: dict[str, int] = {}
    names: list[str] = []
    eos_token: str = END_OF_TEXT
    around: list[str] = []
    kind: str | None = None


def read_about(file: Path) -> About:
    """What the files beside `file` say; the defaults of `About` if there are none."""
    added, config, names = (
        _beside(file, f"{name}.json")
        for name in ("added_tokens", "tokenizer_config", "special_tokens_map")
    )
    if config.get("add_prefix_space"):
        raise ValueError(
            "tokenizer_config.json beside it adds a space before the text (add_prefix_space), "
            "which is not supported"
        )
    decoder = config.get("added_tokens_decoder") or {}
    if not isinstance(decoder, dict):
        raise ValueError(f"added_tokens_decoder must be an object, not {short_repr(decoder)}")
    for token_id, token in decoder.items():
        name = added_name(token)
        if not (token_id.isascii() and token_id.isdigit() and len(token_id) < 10):
            raise ValueError(f"the id of {short_repr(name)} is {short_repr(token_id)}")
        if added.setdefault(name, int(token_id)) != int(token_id):
            raise ValueError(f"{short_repr(name)} has ids {short_repr(added[name])}, {token_id}")
    roles = {}
    for name, token in chain(names.items(), config.items()):
        if name.endswith("_token") and (text := _name(token)):
            roles[name] = text
    more = (
        about.get(name)
        for about in (names, config)
        for name in ("additional_special_tokens", "extra_special_tokens")
    )
    listed = [_name(token) for tokens in more for token in items(tokens)]
    around = [
        roles.get(f"{end}_token", END_OF_TEXT)
        for end in ("bos", "eos")
        if config.get(f"add_{end}_token") is True
    ]
    kind = config.get("tokenizer_class")
    return About(
        added,
        list(dict.fromkeys(name for name in chain(roles.values(), listed) if name)),
        roles.get("eos_token", END_OF_TEXT),
        around,
        kind if isinstance(kind, str) else None,
    )


def _beside(file: Path, name: str) -> dict:
    """The object in a JSON file beside `file`; {} if there is none."""
    beside = file.with_name(name)
    if not beside.exists():
        return {}
    try:
        content = read_json(beside)
    except ValueError as error:
        raise ValueError(f"{name} beside it: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{name} beside it: expected an object, not {short_repr(content)}")
    return content


def _name(token: object) -> str | None:
    """The name of a token, which may be a str, or an object that has flags too."""
    if isinstance(token, dict):
        return added_name(token)
    return token if isinstance(token, str) and token else None


def items(tokens: object) -> Iterable:
    """The tokens in a list, or in an object of role: token."""
    tokens = tokens.values() if isinstance(tokens, dict) else tokens
    return tokens if isinstance(tokens, Iterable) and not isinstance(tokens, str) else ()


def added_name(token: object) -> str:
    """The name of an added token. Raises ValueError if it has flags that are not supported."""
    name = member(token, "content")
    if not isinstance(name, str):
        raise ValueError(f"added_tokens has {short_repr(token)}, which has no name")
    for flag in ("lstrip", "rstrip", "single_word"):
        if token.get(flag):
            raise ValueError(
                f"the added token {short_repr(name)} has {flag}, which is not supported"
            )
    if token.get("special") is False:
        raise ValueError(
            f"the added token {short_repr(name)} is not special: it would be cut out of any text, "
            f"which is not supported"
        )
    return name
