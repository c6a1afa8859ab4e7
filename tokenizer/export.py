"""Tokenizers written as files of other projects: Hugging Face's tokenizer.json, tiktoken's ranks.

`BPETokenizer.export` and `CharTokenizer.export` call `export` with the writers of their formats. A
writer returns the contents of its files. What the other project could not do in the same way raises
ValueError. formats.py reads these files back.
"""

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from .base import Tokenizer
from .byte_characters import to_bytes, to_characters
from .conventions import ROLES
from .files import write_atomic
from .normalizers import ANY_DIGIT, LOWERCASE, Step
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
    named = {**tokenizer.special_tokens, **tokenizer.added_tokens}
    written = {text: i for i, text in characters.items()}
    for name in named.keys() & written.keys():
        if named[name] == written[name]:
            continue
        raise ValueError(
            f"the special token {name!r} is also how these files write the token "
            f"{to_bytes(name)!r}: they cannot hold both"
        )
    merges = tokenizer.merges
    if merges is None:
        merges = joins(tokens)
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False}
    patterns = tokenizer.pattern if isinstance(tokenizer.pattern, tuple) else (tokenizer.pattern,)
    steps = [_split(pattern) for pattern in patterns if pattern is not None]
    if patterns[-1] == "gpt2":
        steps[-1] = level | {"use_regex": True}
    else:
        level |= {"use_regex": False}
        steps.append(level)
    one = len(steps) == 1
    pre_tokenizer = steps[0] if one else {"type": "Sequence", "pretokenizers": steps}
    model = BPE_DEFAULTS | {
        "ignore_merges": tokenizer.ignore_merges,
        "vocab": {characters[i]: i for i in sorted(tokens)} | _apart(tokenizer, tokens),
        "merges": [[characters[left], characters[right]] for left, right in merges],
    }
    decoder = level | {"use_regex": True}
    return _huggingface_files(tokenizer, pre_tokenizer, decoder, model)


def write_sentencepiece(tokenizer: Tokenizer) -> dict[str, bytes]:
    """The files of a `SentencePieceBPE` that `tokenizers` and `transformers` read."""
    tokens, metaspace = tokenizer.tokens, None
    if tokenizer.metaspace:
        scheme, split = tokenizer.metaspace
        metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme}
        metaspace["split"] = split
    decoders = [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}]
    decoders += [{"type": "ByteFallback"}] if tokenizer.byte_fallback else []
    decoders.append({"type": "Fuse"})
    if tokenizer.drops_first_space:
        decoders.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    model = BPE_DEFAULTS | {
        "unk_token": tokenizer.unknown,
        "fuse_unk": tokenizer.fuse_unknown,
        "byte_fallback": tokenizer.byte_fallback,
        "ignore_merges": tokenizer.ignore_merges,
        "vocab": {token: i for i, token in tokens.items()} | _apart(tokenizer, tokens),
        "merges": [[tokens[left], tokens[right]] for left, right in tokenizer.merges],
    }
    decoder = {"type": "Sequence", "decoders": decoders}
    return _huggingface_files(tokenizer, metaspace, decoder, model)


def _apart(tokenizer: Tokenizer, tokens: Mapping[int, object]) -> dict[str, int]:
    """The special and added tokens that are no tokens of plain text, in the order of their ids."""
    named = {**tokenizer.special_tokens, **tokenizer.added_tokens}
    return {name: i for name, i in sorted(named.items(), key=_second) if i not in tokens}


def _second(item: tuple[str, int]) -> int:
    return item[1]


def _split(pattern: str) -> dict:
    """The step that cuts at a pattern as we do."""
    expression = PATTERNS.get(pattern) or _plain(pattern)
    step = {"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated"}
    return step | {"invert": False}


BPE_DEFAULTS = {
    "type": "BPE",
    "dropout": None,
    "unk_token": None,
    "continuing_subword_prefix": None,
    "end_of_word_suffix": None,
    "fuse_unk": False,
    "byte_fallback": False,
}


def _huggingface_files(
    tokenizer: Tokenizer, pre_tokenizer: dict | None, decoder: dict, model: dict
) -> dict[str, bytes]:
    """`tokenizer.json` and `tokenizer_config.json`, with what all kinds have in common."""
    named = {**tokenizer.special_tokens, **tokenizer.added_tokens}
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip"), False)
    added_tokens = [
        {
            "id": i,
            "content": name,
            **flags,
            "normalized": name in tokenizer.normalized_tokens,
            "special": name in tokenizer.special_tokens,
        }
        for name, i in sorted(named.items(), key=_second)
    ]
    tokenizer_json = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added_tokens,
        "normalizer": _normalizer(tokenizer.normalizer),
        "pre_tokenizer": pre_tokenizer,
        "post_processor": _template(tokenizer, {i: name for name, i in model["vocab"].items()}),
        "decoder": decoder,
        "model": model,
    }
    # A name that is no special token here would become one there, with an id of its own.
    roles = tokenizer.conventions._asdict().items()
    config = dict(HUGGINGFACE_CONFIG)
    config |= {role: name for role, name in roles if role in ROLES and name in named}
    if tokenizer.chat_template is not None:
        config["chat_template"] = tokenizer.chat_template
    return {
        "tokenizer.json": json.dumps(tokenizer_json, ensure_ascii=False).encode(),
        "tokenizer_config.json": json.dumps(config, indent=2).encode(),
    }


def _normalizer(steps: Sequence[Step]) -> dict | None:
    written = []
    for step in steps:
        if step == LOWERCASE:
            written.append({"type": "Lowercase"})
        elif isinstance(step, str):
            written.append({"type": step})
        elif step[0] == "digits":
            pattern = {"Regex": ANY_DIGIT}
            written.append({"type": "Replace", "pattern": pattern, "content": step[1]})
        elif step[0] == "prepend":
            written.append({"type": "Prepend", "prepend": step[1]})
        else:
            written.append({"type": "Replace", "pattern": {"String": step[1]}, "content": step[2]})
    return {"type": "Sequence", "normalizers": written} if written else None


def _template(tokenizer: Tokenizer, names: Mapping[int, str]) -> dict | None:
    """The post_processor that puts the tokenizer's ids around a text."""
    prefix, suffix = tokenizer.prefix_ids, tokenizer.suffix_ids
    if not prefix and not suffix:
        return None

    def around(sequence: str, type_id: int) -> list[dict]:
        def written(ids: list[int]) -> list[dict]:
            return [{"SpecialToken": {"id": names[i], "type_id": type_id}} for i in ids]

        text = {"Sequence": {"id": sequence, "type_id": type_id}}
        return [*written(prefix), text, *written(suffix)]

    tokens = {names[i]: i for i in (*prefix, *suffix)}
    return {
        "type": "TemplateProcessing",
        "single": around("A", 0),
        "pair": around("A", 0) + around("B", 1),
        "special_tokens": {n: {"id": n, "ids": [i], "tokens": [n]} for n, i in tokens.items()},
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
    split = {
        "type": "Split",
        "pattern": {"Regex": r"[\s\S]"},
        "behavior": "Isolated",
        "invert": False,
    }
    decoder = {"type": "Sequence", "decoders": [shown, {"type": "Fuse"}]}
    ids = {c: i for i, c in enumerate([*tokenizer.characters, name])}
    if clash := sorted(ids.keys() & tokenizer.special_tokens.keys()):
        raise ValueError(f"these files cannot hold a special token with the name {clash[0]!r}")
    vocabulary = ids | _apart(tokenizer, {})
    model = {"type": "WordLevel", "vocab": vocabulary, "unk_token": name}
    return _huggingface_files(tokenizer, split, decoder, model)


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
    for name in ("normalizer", "added_tokens"):
        if getattr(tokenizer, name):
            raise ValueError(f"tiktoken has no {name}, which this tokenizer has")
    if isinstance(tokenizer.pattern, tuple):
        raise ValueError("tiktoken cuts by one pattern, this tokenizer by several")
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
