"""Tokenizers written as files of other projects: Hugging Face's tokenizer.json, tiktoken's ranks.

`BPETokenizer.export` and `CharTokenizer.export` call `export` with the writers of their formats. A
writer returns the contents of its files. What the other project could not do in the same way raises
ValueError. formats.py reads these files back.
"""

import base64
import json
from collections.abc import Callable, Mapping
from pathlib import Path

from .base import Tokenizer
from .byte_characters import to_bytes, to_characters
from .files import write_atomic
from .pieces import PATTERNS

ABOUT_RANKS = "tiktoken.json"  # the pattern and special tokens of the `.tiktoken` file beside it
HUGGINGFACE_CONFIG = {  # the content of tokenizer_config.json; the rest is in tokenizer.json
    "tokenizer_class": "PreTrainedTokenizerFast",
    "clean_up_tokenization_spaces": False,
    "model_max_length": 10**30,
}


Writer = Callable[[Tokenizer], dict[str, bytes]]  # the files' names and what they hold


def export(
    tokenizer: Tokenizer, directory: Path, format: str, writers: Mapping[str, Writer]
) -> None:
    """Write a tokenizer's files in `format`, one of the formats that it has writers for."""
    if format not in writers:
        raise ValueError(f"format must be one of {', '.join(writers)}, not {format!r}")
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in writers[format](tokenizer).items():
        write_atomic(directory / name, content)


def write_huggingface(tokenizer: Tokenizer) -> dict[str, bytes]:
    """The files that `tokenizers` and `transformers` read.

    By tiktoken's rule, any two tokens merge whose bytes together are a token. All such pairs are
    then written as merges, as transformers' own converter does. (Of two overlapping pairs that make
    the same token, tiktoken merges the left one, and Hugging Face the one that is written first.)
    """
    tokens = tokenizer.tokens
    characters = {i: to_characters(token) for i, token in tokens.items()}
    for name in tokenizer.special_tokens.keys() & characters.values():
        raise ValueError(
            f"the special token {name!r} is also how these files write the token "
            f"{to_bytes(name)!r}: they cannot hold both"
        )
    merges = tokenizer.merges
    if merges is None:
        merges = joins(tokens)
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False}
    if tokenizer.pattern == "gpt2":
        pre_tokenizer = level | {"use_regex": True}
    else:
        pre_tokenizer = level = level | {"use_regex": False}
    if tokenizer.pattern not in ("gpt2", None):
        pattern = {"Regex": PATTERNS.get(tokenizer.pattern) or _plain(tokenizer.pattern)}
        split = {"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False}
        pre_tokenizer = {"type": "Sequence", "pretokenizers": [split, level]}
    flags = ("single_word", "lstrip", "rstrip", "normalized")
    by_id = sorted(tokenizer.special_tokens.items(), key=lambda item: item[1])
    tokenizer_json = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": i, "content": name, **dict.fromkeys(flags, False), "special": True}
            for name, i in by_id
        ],
        "normalizer": None,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": None,
        "decoder": level | {"use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": tokenizer.ignore_merges,
            "vocab": {characters[i]: i for i in sorted(tokens)} | dict(by_id),
            "merges": [[characters[left], characters[right]] for left, right in merges],
        },
    }
    config = dict(HUGGINGFACE_CONFIG)
    if tokenizer.eos_token_id is not None:
        config["eos_token"] = tokenizer.eos_token
    return {
        "tokenizer.json": json.dumps(tokenizer_json, ensure_ascii=False).encode(),
        "tokenizer_config.json": json.dumps(config, indent=2).encode(),
    }


def write_characters(tokenizer: Tokenizer) -> dict[str, bytes]:
    """A character tokenizer as `tokenizers` and `transformers` read it: each character is a word.

    There the unknown character has a name, longer than any character, so that it cannot be taken
    for one. It is decoded to U+FFFD, as it is here.
    """
    name = "<unknown>"
    shown = {
        "type": "Replace",
        "pattern": {"String": name},
        "content": tokenizer.decode([tokenizer.unknown_id]),
    }
    tokenizer_json = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Split",
            "pattern": {"Regex": r"[\s\S]"},
            "behavior": "Isolated",
            "invert": False,
        },
        "post_processor": None,
        "decoder": {"type": "Sequence", "decoders": [shown, {"type": "Fuse"}]},
        "model": {
            "type": "WordLevel",
            "vocab": {c: i for i, c in enumerate([*tokenizer.characters, name])},
            "unk_token": name,
        },
    }
    return {
        "tokenizer.json": json.dumps(tokenizer_json, ensure_ascii=False).encode(),
        "tokenizer_config.json": json.dumps(HUGGINGFACE_CONFIG, indent=2).encode(),
    }


def _plain(pattern: str) -> str:
    """A user's pattern, if the libraries in Rust understand it in the same way.

    Raises ValueError for the differences that can be told from the pattern.
    """
    import regex

    if regex.search(r"\(\?[a-zA-Z]*[rVbe]|\\K|\[\[|\(\?[|R0-9&P]|\\[GmMXRL]", pattern):
        raise ValueError(f"the pattern {pattern!r} uses what only Python's regex module knows")
    if regex.fullmatch(pattern, "") is not None:
        raise ValueError(
            f"the pattern {pattern!r} matches the empty text, which other libraries treat "
            "differently"
        )
    return pattern


def joins(tokens: dict[int, bytes]) -> list[tuple[int, int]]:
    """All pairs of tokens whose bytes together are a token, in the order of its id."""
    id_of = {token: i for i, token in tokens.items()}
    pairs = []
    for token in id_of:  # in the order of ids
        halves = ((id_of.get(token[:k]), id_of.get(token[k:])) for k in range(1, len(token)))
        pairs += sorted(pair for pair in halves if None not in pair)
    return pairs


def write_ranks(tokenizer: Tokenizer) -> dict[str, bytes]:
    """The ranks that tiktoken reads, and a file with what else it has to be given.

    >>> about = json.loads(Path("tiktoken.json").read_text())           # doctest: +SKIP
    >>> ranks = tiktoken.load.load_tiktoken_bpe("vocab.tiktoken")       # doctest: +SKIP
    >>> tiktoken.Encoding("ours", pat_str=about["pat_str"], mergeable_ranks=ranks,
    ...                   special_tokens=about["special_tokens"])       # doctest: +SKIP

    tiktoken needs the id of each token to be its rank, and the bytes of each token, encoded alone,
    to give that token. Both hold for every tokenizer that `train` has made.
    """
    tokens = tokenizer.tokens
    if list(tokens) != list(range(len(tokens))):
        raise ValueError("tiktoken numbers tokens by their ranks, from 0 on; these have gaps")
    if tokenizer.merges is not None:
        made = [tokens[left] + tokens[right] for left, right in tokenizer.merges]
        order = list(tokens.values())[256:]
        reached = all(tokenizer.merge(tokens[i]) == [i] for i in range(256, len(tokens)))
        if made != order or not reached:
            raise ValueError("the ids are not in the order of the merges, as tiktoken's ranks are")
    lines = (base64.b64encode(token) + b" %d\n" % i for i, token in tokens.items())
    pattern = pat_str = tokenizer.pattern
    if pattern is None:
        pat_str = r"[\s\S]+"
    elif pattern in PATTERNS:
        pat_str = PATTERNS[pattern]
    else:  # tiktoken drops what the pattern does not match; here it is a piece
        pat_str = rf"(?:{_plain(pattern)})|(?:(?!{pattern})[\s\S])+"
    about = {
        "ranks": "vocab.tiktoken",
        "pattern": pattern,
        "pat_str": pat_str,
        "special_tokens": tokenizer.special_tokens,
        "tokens": len(tokens),
        "eos_token": tokenizer.eos_token,
    }
    return {"vocab.tiktoken": b"".join(lines), ABOUT_RANKS: json.dumps(about, indent=2).encode()}
