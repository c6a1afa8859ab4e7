"""Checks of a vocabulary, whether it comes from a caller or a file: each fault is a clear error."""

from collections.abc import Iterable, Mapping
from itertools import chain
from reprlib import repr as short_repr  # a file may hold values of any size

from .simple_bpe import Pair
from .texts import replace_surrogates

BYTES = [bytes([b]) for b in range(256)]  # the first 256 tokens of every vocabulary of ours

# Forty merges of a token with itself would make a token of a terabyte.
MAX_VOCABULARY_BYTES = 2**26
MAX_ID = 2**24


def grow(merges: Iterable[Pair]):
    """The tokens in our numbering, the ranks of the pairs, and the ids that the pairs become."""
    if merges is None:
        raise ValueError("merges may be None only if `tokens` is given")
    tokens = dict(enumerate(BYTES))
    id_of, total = {token: i for i, token in tokens.items()}, len(BYTES)
    ranks: dict[Pair, int] = {}
    merged: list[int] = []
    for rank, pair in enumerate(merges):
        left, right = _check_pair(rank, pair, ranks)
        if not (0 <= left < len(tokens) and 0 <= right < len(tokens)):
            raise ValueError(
                f"merge {rank} is {short_repr(pair)}, but only ids 0 to {len(tokens) - 1} exist yet"
            )
        total += len(tokens[left]) + len(tokens[right])
        if total > MAX_VOCABULARY_BYTES:
            raise ValueError(
                f"with merge {rank}, the tokens have more than {MAX_VOCABULARY_BYTES:,} bytes"
            )
        token = tokens[left] + tokens[right]
        new = id_of.setdefault(token, len(tokens))
        tokens[new] = token
        ranks[left, right] = rank
        merged.append(new)
    return tokens, ranks, merged


def rank_merges(merges: Iterable[Pair], tokens: Mapping[int, bytes]):
    """The ranks of the pairs among the given tokens, and the ids that the pairs become."""
    id_of = {token: i for i, token in tokens.items()}
    ranks: dict[Pair, int] = {}
    merged: list[int] = []
    for rank, pair in enumerate(merges):
        left, right = _check_pair(rank, pair, ranks)
        for part in (left, right):
            if part not in tokens:
                raise ValueError(f"merge {rank} is {short_repr(pair)}, but there is no id {part}")
        token = tokens[left] + tokens[right]
        if token not in id_of:
            raise ValueError(f"merge {rank} makes {short_repr(token)}, which is not a token")
        ranks[left, right] = rank
        merged.append(id_of[token])
    return ranks, merged


def _check_pair(rank: int, pair: object, ranks: Mapping[Pair, int]) -> Pair:
    """The pair, as a tuple of two ids that has no rank yet."""
    if not isinstance(pair, (list, tuple)) or len(pair) != 2:
        raise ValueError(f"merge {rank} must be a pair of ids, not {short_repr(pair)}")
    for token_id in pair:
        if type(token_id) is not int:  # not isinstance: True is an int
            raise ValueError(f"merge {rank} must be a pair of ids, not {short_repr(pair)}")
    pair = tuple(pair)
    if pair in ranks:
        raise ValueError(f"merge {rank} is {pair!r}, the same as merge {ranks[pair]}")
    return pair


def check_names(
    special_tokens: Mapping[str, int], added_tokens: Mapping[str, int], tokens: Mapping[int, bytes]
) -> dict[str, int]:
    """The special and added tokens, without those added ones that are tokens of plain text too."""
    for name, token_id in added_tokens.items():
        if name in special_tokens:
            raise ValueError(f"{short_repr(name)} is a special token and an added token")
        if type(token_id) is not int:
            raise ValueError(f"the id of {short_repr(name)} is {short_repr(token_id)}")
    check_special_names([*special_tokens, *added_tokens])
    apart = {n: i for n, i in added_tokens.items() if tokens.get(i) != n.encode()}
    return {**special_tokens, **apart}


def check_tokens(tokens: Mapping[int, bytes], special_tokens: Mapping[str, int]):
    """The tokens in the order of their ids, if they are a vocabulary of bytes."""
    check_special_names(special_tokens)
    for token_id in chain(tokens, special_tokens.values()):
        if type(token_id) is not int or not 0 <= token_id < MAX_ID:
            raise ValueError(f"an id must be from 0 to {MAX_ID - 1:,}, not {short_repr(token_id)}")
    special = {}
    for name, token_id in special_tokens.items():
        if token_id in tokens or token_id in special:
            other = tokens.get(token_id) or special[token_id]
            raise ValueError(
                f"id {token_id} is given to {short_repr(other)} and {short_repr(name)}"
            )
        special[token_id] = name
    id_of: dict[bytes, int] = {}
    for token_id, token in tokens.items():
        if not isinstance(token, bytes) or not token:
            raise ValueError(
                f"token {token_id} must be bytes, at least one, not {short_repr(token)}"
            )
        if token in id_of:
            raise ValueError(f"{short_repr(token)} is token {id_of[token]} and token {token_id}")
        id_of[token] = token_id
    if sum(map(len, id_of)) > MAX_VOCABULARY_BYTES:
        raise ValueError(f"the tokens have more than {MAX_VOCABULARY_BYTES:,} bytes together")
    missing = [byte for byte in BYTES if byte not in id_of]
    if missing:
        raise ValueError(
            f"{len(missing)} of the 256 bytes are not tokens, {missing[0]!r} for example: "
            f"this is not a byte-level vocabulary"
        )
    for token_id in range(max(tokens)):
        if token_id not in tokens and token_id not in special:
            raise ValueError(
                f"there is no token {token_id}, but there are higher ids; "
                "the ids must not have a gap"
            )
    return dict(sorted(tokens.items()))


def check_special_names(names: Iterable[str]) -> list[str]:
    if isinstance(names, str):  # list(names) would be a list of letters
        raise TypeError(f"special_tokens must be a list of names, not one str; write [{names!r}]")
    names, seen = list(names), set()
    for name in names:
        if not isinstance(name, str) or not name or replace_surrogates(name) != name:
            raise ValueError(
                f"special token {short_repr(name)}: it must be a str of at least one character, "
                f"without surrogates"
            )
        if name in seen:
            raise ValueError(f"special token {name!r} is given twice")
        seen.add(name)
    return names


def check_special_ids(special_tokens: Mapping[str, int], first: int) -> None:
    check_special_names(special_tokens)
    ids = list(special_tokens.values())
    expected = range(first, first + len(ids))
    if any(type(i) is not int for i in ids) or sorted(ids) != list(expected):
        raise ValueError(
            f"special tokens must have the {len(ids)} ids from {first} on, each once, "
            f"not {short_repr(ids)}"
        )


def token_bytes(i: int, token: object) -> bytes:
    try:
        return token.encode("latin-1")
    except (AttributeError, UnicodeEncodeError):
        raise ValueError(
            f"token {i} must be a str of characters up to U+00FF, not {short_repr(token)}"
        ) from None


def check_pieces(tokens: Mapping[int, str], named: Mapping[str, int]) -> dict[str, int]:
    """The ids of the tokens, if they are a vocabulary of characters.

    A name in `named`, special and added tokens, may be one of the tokens, with the same id.
    """
    for token_id in chain(tokens, named.values()):
        if type(token_id) is not int or not 0 <= token_id < MAX_ID:
            raise ValueError(f"an id must be from 0 to {MAX_ID - 1:,}, not {short_repr(token_id)}")
    id_of: dict[str, int] = {}
    for token_id, token in tokens.items():
        if not isinstance(token, str) or not token or replace_surrogates(token) != token:
            raise ValueError(
                f"token {token_id} must be a str of at least one character, without surrogates, "
                f"not {short_repr(token)}"
            )
        if token in id_of:
            raise ValueError(f"{short_repr(token)} is token {id_of[token]} and token {token_id}")
        id_of[token] = token_id
    if not id_of:
        raise ValueError("there are no tokens")
    if sum(map(len, id_of)) > MAX_VOCABULARY_BYTES:
        raise ValueError(f"the tokens have more than {MAX_VOCABULARY_BYTES:,} characters together")
    taken: dict[int, str] = {}
    for name, token_id in named.items():
        other = tokens.get(token_id, taken.get(token_id, name))
        if other != name:
            raise ValueError(
                f"id {token_id} is given to {short_repr(other)} and {short_repr(name)}"
            )
        if id_of.get(name, token_id) != token_id:
            raise ValueError(f"{short_repr(name)} has ids {id_of[name]}, {token_id}")
        taken[token_id] = name
    return id_of
