"""The tokenizers that llama.cpp has too, as a .gguf file describes them.

llama.cpp knows a pattern by the name of a model that has it, and no others. A tokenizer that would
give other ids there is refused, by the name of what it has and llama.cpp lacks.
"""

from __future__ import annotations

import warnings
from itertools import groupby
from typing import NamedTuple

import numpy as np

from tokenizer import BPETokenizer
from tokenizer.byte_characters import to_characters
from tokenizer.export import joins
from tokenizer.sentencepiece_bpe import BYTE, MARK, SentencePieceBPE

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTES = range(1, 7)  # llama_token_type
# (pattern, ignore_merges) -> llama.cpp's name of it
PATTERNS = {
    ("gpt2", False): "gpt-2",
    ("qwen2", False): "qwen2",
    ((r"\p{N}", "gpt2"), False): "smollm",
    ("cl100k", True): "llama-bpe",
    ("cl100k", False): "dbrx",
}


class Vocabulary(NamedTuple):
    """What a .gguf file holds of a tokenizer."""

    model: str  # "gpt2" for byte-level BPE, "llama" for SentencePiece's
    pre: str
    tokens: list[str]  # of all ids that the model has
    types: list[int]
    merges: list[str] | None = None
    scores: list[float] | None = None
    space_first: bool = False
    ids: dict[str, int | None] = {}  # of the tokens that begin, end and pad a text
    begins: bool = False  # whether every text begins with the one that begins texts
    ends: bool = False
    chat_template: str | None = None

    def add_to(self, writer) -> None:
        """Add it to a GGUFWriter."""
        writer.add_tokenizer_model(self.model)
        writer.add_tokenizer_pre(self.pre)
        writer.add_token_list(self.tokens)
        writer.add_token_types(self.types)
        if self.merges is not None:
            writer.add_token_merges(self.merges)
        if self.scores is not None:
            writer.add_token_scores(self.scores)
        writer.add_add_space_prefix(self.space_first)
        for name, token_id in self.ids.items():
            if token_id is not None:
                getattr(writer, f"add_{name}_token_id")(token_id)
        writer.add_add_bos_token(self.begins)
        writer.add_add_eos_token(self.ends)
        if self.chat_template is not None:
            writer.add_chat_template(self.chat_template)


def vocabulary(tokenizer, config) -> Vocabulary:
    """The description of a tokenizer, for a model of this configuration.

    Raises ValueError for one with which llama.cpp would give other ids, or more ids than the model
    has.
    """
    if not isinstance(tokenizer, (BPETokenizer, SentencePieceBPE)):
        kind = type(tokenizer).__name__
        raise ValueError(
            f"a {kind} has no form in GGUF: llama.cpp has byte-level BPE and SentencePiece's only"
        )
    if tokenizer.vocab_size > config.vocab_size:
        raise ValueError(
            f"the tokenizer has {tokenizer.vocab_size} ids, the model {config.vocab_size}"
        )
    if tokenizer.normalized_tokens:
        raise ValueError(
            "tokens that are looked for in the normalised text have no form in GGUF: "
            f"{', '.join(sorted(tokenizer.normalized_tokens)[:5])}"
        )
    of_kind = byte_level if isinstance(tokenizer, BPETokenizer) else sentencepiece
    described = of_kind(tokenizer, config.vocab_size)
    types = described.types
    for token_id in tokenizer.special_tokens.values():
        types[token_id] = UNKNOWN if types[token_id] == UNKNOWN else CONTROL
    for token_id in tokenizer.added_tokens.values():
        types[token_id] = USER_DEFINED
    ends = config.eos_token_id
    said = {
        "bos": config.bos_token_id,
        "eos": next(iter(ends), None) if isinstance(ends, tuple) else ends,
        "pad": config.pad_token_id,
    }
    # -1 means that there is none, as in files of older versions of transformers.
    ids = {name: None if i == -1 else i for name, i in said.items()}
    for name, own in (("bos", tokenizer.bos_token_id), ("eos", tokenizer.eos_token_id)):
        ids[name] = own if ids[name] is None else ids[name]
    around = tokenizer.prefix_ids, tokenizer.suffix_ids
    if around[0] not in ([], [ids["bos"]]) or around[1] not in ([], [ids["eos"]]):
        raise ValueError(f"ids {around} around every text have no form in GGUF")
    begins, ends = map(bool, around)
    more = {"chat_template": tokenizer.chat_template, "begins": begins, "ends": ends}
    return described._replace(types=types, ids=ids, **more)


def named(tokens: dict[int, str], size: int) -> tuple[list[str], list[int]]:
    """The tokens and types of `size` ids, those without a token among them."""
    types = [NORMAL if i in tokens else UNUSED for i in range(size)]
    return [tokens.get(i, f"[PAD{i}]") for i in range(size)], types


def byte_level(tokenizer: BPETokenizer, size: int) -> Vocabulary:
    pattern, merges = tokenizer.pattern, tokenizer.merges
    ignore_merges = tokenizer.ignore_merges
    if ignore_merges and (pattern, True) not in PATTERNS:
        # Where merging the bytes of every token makes that token, this changes nothing.
        made = all(tokenizer.merge(token) == [i] for i, token in tokenizer.tokens.items())
        ignore_merges = not made
    if (pattern, ignore_merges) not in PATTERNS:
        known = ", ".join(str(name) for name, _ in PATTERNS)
        how = " that takes whole pieces first (ignore_merges)" if ignore_merges else ""
        raise ValueError(
            f"the pattern {str(pattern)[:80]!r}{how} has no form in GGUF; llama.cpp has {known}"
        )
    if tokenizer.normalizer == ("NFC",):
        warnings.warn(
            "llama.cpp does not bring a text into the normal form NFC, as this tokenizer does: "
            "accents that are characters of their own have other ids there",
            stacklevel=2,
        )
    elif tokenizer.normalizer:
        raise ValueError(f"the normalizer {tokenizer.normalizer} has no form in GGUF")
    plain = {i: to_characters(token) for i, token in tokenizer.tokens.items()}
    of_names = {**tokenizer.special_tokens, **tokenizer.added_tokens}
    tokens, types = named(plain | {i: name for name, i in of_names.items()}, size)
    merges = joins(tokenizer.tokens) if merges is None else merges
    pairs = [f"{plain[left]} {plain[right]}" for left, right in merges]
    return Vocabulary("gpt2", PATTERNS[pattern, ignore_merges], tokens, types, pairs)


def sentencepiece(tokenizer: SentencePieceBPE, size: int) -> Vocabulary:
    """Scores instead of merges: of two neighbours, those merge whose token has the best score."""
    spaces = ("replace", " ", MARK)
    prefixes = {(("prepend", MARK), spaces): True, (spaces,): False}
    if tokenizer.metaspace is not None or tokenizer.normalizer not in prefixes:
        raise ValueError(
            f"spaces that become marks as in {tokenizer.metaspace or tokenizer.normalizer} have no "
            "form in GGUF: llama.cpp puts one before every text, or none"
        )
    if not tokenizer.byte_fallback or tokenizer.unknown is None or tokenizer.ignore_merges:
        raise ValueError(
            "SentencePiece's BPE has a form in GGUF if it has an unknown token and tokens for all "
            "bytes, and does not take whole pieces first (ignore_merges)"
        )
    strings = tokenizer.tokens
    tokens, types = named(strings, size)
    ids = {token: i for i, token in strings.items()}
    types[ids[tokenizer.unknown]] = UNKNOWN
    for i, token in strings.items():
        if BYTE.fullmatch(token):
            types[i] = BYTES
    merges = tokenizer.merges
    made = [ids[strings[left] + strings[right]] for left, right in merges]
    order = [token_id for token_id, _ in groupby(made)]
    halves = ((token[:k], token[k:]) for token in strings.values() for k in range(1, len(token)))
    of_names = {**tokenizer.special_tokens, **tokenizer.added_tokens}.keys()
    pairs = {
        (ids[left], ids[right])
        for left, right in halves
        if left in ids and right in ids and left + right not in of_names
    }
    if len(order) != len(set(order)) or pairs != set(merges):
        raise ValueError(
            "the merges have no form in GGUF: llama.cpp merges any two tokens that are a token "
            "together, the same token always at the same rank"
        )
    scores = np.zeros(size, np.float32)
    scores[order] = -np.arange(1, len(order) + 1)
    first = prefixes[tokenizer.normalizer]
    return Vocabulary("llama", "default", tokens, types, None, scores.tolist(), first)
