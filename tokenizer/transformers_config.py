"""The files that transformers writes beside a vocabulary, and what they say about its tokens.

They are `added_tokens.json`, `tokenizer_config.json`, `special_tokens_map.json`, and
`chat_template.jinja` or `chat_template.json`. `read_about` gathers what they say in an `About`.
What would change a text's ids in a way that is not done here raises ValueError.
"""

import warnings
from collections.abc import Iterable, Mapping
from itertools import chain
from pathlib import Path
from reprlib import repr as short_repr  # a file may hold values of any size
from typing import NamedTuple

from .conventions import ROLES, Conventions
from .files import member, read_bytes, read_json


class Added(NamedTuple):
    """A token that is found in a text before the text is cut into pieces.

    special: whether it is a special token; others are found in any text.
    normalized: whether it is looked for in the text that the normalizer has made.
    """

    id: object  # an int, if the file is right, which is checked where tokenizers are made
    special: bool = True
    normalized: bool = False


class About(NamedTuple):
    """What the files beside a vocabulary of transformers say about it.

    added: tokens by their names, which need not be in the vocabulary.
    names: the names of special tokens.
    roles: the names of the tokens that begin, end and pad a text, and the chat template.
    adds: whether bos_token is put before every text and eos_token after it; None if the files do
        not say.
    adds_space: whether a space is put before a text; None if the files do not say.
    kind: the class of transformers that reads the vocabulary, or None if the files do not say.
    """

    added: dict[str, Added] = {}
    names: list[str] = []
    roles: Conventions = Conventions()
    adds: tuple[bool, bool] | None = None
    adds_space: bool | None = None
    kind: str | None = None


def read_about(file: Path) -> About:
    """What the files beside `file` say; the defaults of `About` if there are none."""
    added, config, names = (
        _beside(file, f"{name}.json")
        for name in ("added_tokens", "tokenizer_config", "special_tokens_map")
    )
    added = {name: Added(token_id) for name, token_id in added.items()}
    decoder = config.get("added_tokens_decoder") or {}
    if not isinstance(decoder, dict):
        raise ValueError(f"added_tokens_decoder must be an object, not {short_repr(decoder)}")
    for token_id, token in decoder.items():
        if not (token_id.isascii() and token_id.isdigit() and len(token_id) < 10):
            name = short_repr(member(token, "content"))
            raise ValueError(f"the id of {name} is {short_repr(token_id)}")
        name, token = added_token(token, int(token_id))
        check_same_id(name, added.get(name, token).id, token.id)
        added[name] = token
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
    adds = [config.get(f"add_{end}_token") for end in ("bos", "eos")]
    space, kind = config.get("add_prefix_space"), config.get("tokenizer_class")
    named = {name: roles[name] for name in ROLES if name in roles}
    return About(
        added,
        list(dict.fromkeys(name for name in chain(roles.values(), listed) if name)),
        Conventions(**named, chat_template=_chat_template(file, config)),
        (adds[0] is True, adds[1] is True) if any(type(a) is bool for a in adds) else None,
        space if isinstance(space, bool) else None,
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


def _chat_template(file: Path, config: dict) -> str | None:
    """The template beside `file`; of several with names, the one that is named default."""
    jinja = file.with_name("chat_template.jinja")
    if jinja.exists():
        try:
            return read_bytes(jinja).decode()
        except ValueError as error:  # UnicodeDecodeError too
            raise ValueError(f"{jinja.name} beside it: {error}") from None
    template = _beside(file, "chat_template.json").get("chat_template")
    template = config.get("chat_template") if template is None else template
    if isinstance(template, list):
        named = {str(member(t, "name")): member(t, "template") for t in template}
        if left := sorted(named.keys() - {"default"}):
            warnings.warn(
                f"of several chat templates only the one named default is kept, and not "
                f"{', '.join(map(short_repr, left))}",
                stacklevel=5,
            )
        template = named.get("default")
    if template is not None and not isinstance(template, str):
        raise ValueError(f"chat_template must be a str, not {short_repr(template)}")
    return template


def _name(token: object) -> str | None:
    """The name of a token, which may be a str, or an object that has flags too."""
    if isinstance(token, dict):
        return added_token(token)[0]
    return token if isinstance(token, str) and token else None


def items(tokens: object) -> Iterable:
    """The tokens in a list, or in an object of role: token."""
    tokens = tokens.values() if isinstance(tokens, dict) else tokens
    return tokens if isinstance(tokens, Iterable) and not isinstance(tokens, str) else ()


FLAGS = {
    "lstrip": "it would take the white space before it too",
    "rstrip": "it would take the white space behind it too",
    "single_word": "it would be found only where no word goes on beside it",
}


def added_token(token: object, token_id: object = None) -> tuple[str, Added]:
    """The name of an added token and what it is. Raises ValueError for flags not supported."""
    name = member(token, "content")
    if not isinstance(name, str):
        raise ValueError(f"added_tokens has {short_repr(token)}, which has no name")
    for flag, meaning in FLAGS.items():
        if token.get(flag):
            raise ValueError(
                f"the added token {short_repr(name)} has {flag}, which is not supported: {meaning}"
            )
    special = token.get("special") is not False
    return name, Added(token_id, special, token.get("normalized") is True)


def check_same_id(name: str, first: object, second: object) -> None:
    if first != second:
        raise ValueError(f"{short_repr(name)} has ids {short_repr(first)}, {short_repr(second)}")


def name_tokens(
    ids: Mapping[str, int], added: Mapping[str, Added], about: About
) -> dict[str, Added]:
    """All special and added tokens of a vocabulary (token -> id), by their names.

    `added` are those that the vocabulary's own file names. Where a file beside it says something
    else of a token, that counts, as in transformers.
    """
    named = dict(added)
    for name, token in about.added.items():
        check_same_id(name, named.get(name, token).id, token.id)
        named[name] = token
    for name in about.names:
        if name in named:
            named[name] = named[name]._replace(special=True)
        elif name in ids:
            named[name] = Added(ids[name])
    if unknown := [name for name in about.names if name not in named]:
        warnings.warn(
            f"{', '.join(map(short_repr, unknown))}: named as a special token by a file beside the "
            "vocabulary, but the vocabulary has no id for it, so it is left out",
            stacklevel=6,
        )
    return named


Ids = tuple[list[int], list[int]]  # what stands before every text, and what stands after it


def conventions_of(about: About, named: Mapping[str, Added], around: Ids | None) -> Conventions:
    """The conventions of `about`, with the ids around a text.

    `around` is what a tokenizer.json says of them, and counts as it does in transformers 5,
    whatever add_bos_token and add_eos_token in tokenizer_config.json are. Without a tokenizer.json
    `around` is None, and these two say it.
    """
    ends = about.roles.bos_token, about.roles.eos_token
    adds = about.adds or (False, False)
    said = tuple([named[end].id] if add and end in named else [] for add, end in zip(adds, ends))
    around = said if around is None else around
    if about.adds is not None and around != said:
        warnings.warn(
            f"tokenizer.json puts the ids {around[0]} before and {around[1]} after every text, "
            "which is what counts; by add_bos_token and add_eos_token in tokenizer_config.json "
            f"beside it, it would be {said[0]} and {said[1]}",
            stacklevel=6,
        )
    return about.roles._replace(prefix_ids=around[0], suffix_ids=around[1])
