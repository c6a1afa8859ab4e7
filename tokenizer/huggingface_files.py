"""`tokenizer.json`, the file of Hugging Face tokenizers (https://github.com/huggingface/tokenizers).

It describes a pipeline of steps (normalizer, pre_tokenizer, model, post_processor, decoder), which
huggingface_steps.py reads. Two kinds of pipelines are read: byte-level BPE, which ends with a
pre_tokenizer ByteLevel, and BPE over characters with "▁" for a space. One that does anything else
with a text raises ValueError. export.py writes both.
"""

import warnings
from reprlib import repr as short_repr  # a file may hold values of any size

from .base import Tokenizer
from .files import member
from .gpt2_files import from_names, warn_of_lost_merges
from .huggingface_steps import (
    byte_level_pattern,
    check_byte_level_decoder,
    is_byte_level,
    read_around,
    read_metaspace,
    read_normalizer,
    read_sentencepiece_decoder,
)
from .normalizers import normalize
from .sentencepiece_bpe import BYTE, SentencePieceBPE
from .transformers_config import (
    About,
    Added,
    added_token,
    check_same_id,
    conventions_of,
    name_tokens,
)

NOTHING = About()


def read_huggingface(description: dict, about: About = NOTHING) -> Tokenizer:
    """The tokenizer in a `tokenizer.json`, if it is BPE of one of the two kinds."""
    model = description["model"]
    if model.get("type", "BPE") != "BPE":
        raise ValueError(f"a model of type {short_repr(model['type'])}; only BPE can be read")
    for name in ("continuing_subword_prefix", "end_of_word_suffix", "dropout"):
        if model.get(name):
            raise ValueError(f"{name} {short_repr(model[name])} cannot be read")
    for name in ("truncation", "padding"):
        if description.get(name) is not None:
            warnings.warn(f"the {name} that tokenizer.json asks for is not done", stacklevel=5)
    pairs = _pairs(model.get("merges"))
    if not isinstance(model.get("vocab"), dict):
        raise ValueError(
            f"a vocabulary is an object of token: id, not {short_repr(model.get('vocab'))}"
        )
    read = _byte_level if is_byte_level(description.get("pre_tokenizer")) else _sentencepiece
    return read(description, about, pairs, _added(description))


def _byte_level(description: dict, about: About, pairs, added) -> Tokenizer:
    model = description["model"]
    if model.get("byte_fallback"):
        raise ValueError("byte_fallback True cannot be read in byte-level BPE")
    if about.adds_space:
        raise ValueError(
            "tokenizer_config.json beside it adds a space before the text (add_prefix_space), "
            "which is not supported"
        )
    check_byte_level_decoder(description.get("decoder"))
    return from_names(
        model["vocab"],
        pairs,
        byte_level_pattern(description["pre_tokenizer"]),
        added,
        about,
        model.get("ignore_merges") is True,
        read_normalizer(description.get("normalizer")),
        read_around(description.get("post_processor")),
    )


def _sentencepiece(description: dict, about: About, pairs, added) -> Tokenizer:
    model, ids = description["model"], description["model"]["vocab"]
    normalizer = read_normalizer(description.get("normalizer"))
    metaspace = read_metaspace(description.get("pre_tokenizer"), normalizer)
    before = normalize("a", normalizer) != "a" or metaspace and metaspace.scheme != "never"
    if about.adds_space is not None and about.adds_space != bool(before):
        raise ValueError(
            f"tokenizer_config.json beside it has add_prefix_space {about.adds_space}, which is "
            "not what the steps in tokenizer.json do"
        )
    for token, token_id in ids.items():
        if type(token_id) is not int:
            raise ValueError(f"the id of {short_repr(token)} is {short_repr(token_id)}")
    tokens = {token_id: token for token, token_id in ids.items()}
    if len(tokens) < len(ids):
        twice = next(token for token, token_id in ids.items() if tokens[token_id] != token)
        raise ValueError(
            f"id {ids[twice]} is given to {short_repr(twice)} and {short_repr(tokens[ids[twice]])}"
        )
    named = name_tokens(ids, added, about)
    for name, token in named.items():
        check_same_id(name, ids.get(name, token.id), token.id)
    made = {left + right for left, right in pairs}
    # Names that no plain text is made of, as <s>, are kept as names alone.
    used = {part for pair in pairs for part in pair} | made | {model.get("unk_token")}
    tokens = {
        token_id: token
        for token_id, token in tokens.items()
        if token not in named or token in used or BYTE.fullmatch(token)
    }
    for rank, (left, right) in enumerate(pairs):
        for part in (left, right):
            if part not in ids:
                raise ValueError(f"merge {rank} has {short_repr(part)}, which is not a token")
    tokenizer = SentencePieceBPE(
        [(ids[left], ids[right]) for left, right in pairs],
        tokens,
        model.get("unk_token"),
        model.get("byte_fallback") is True,
        model.get("fuse_unk") is True,
        model.get("ignore_merges") is True,
        metaspace,
        read_sentencepiece_decoder(description.get("decoder"), model.get("byte_fallback") is True),
        special_tokens={name: token.id for name, token in named.items() if token.special},
        added_tokens={name: token.id for name, token in named.items() if not token.special},
        normalizer=normalizer,
        normalized_tokens={name for name, token in named.items() if token.normalized},
    )
    put_around = read_around(description.get("post_processor"))
    tokenizer.set_conventions(conventions_of(about, named, put_around))
    reached = used | named.keys()
    never = [t for t in ids if len(t) > 1 and t not in reached and not BYTE.fullmatch(t)]
    if never and not tokenizer.ignore_merges:
        warn_of_lost_merges(never, len(ids), len(pairs))
    return tokenizer


def _pairs(pairs: object) -> list[list[str]]:
    """The merges, each as its two tokens."""
    if not isinstance(pairs, list):
        raise ValueError(f"merges must be a list, not {short_repr(pairs)}")
    pairs = [pair.split(" ") if isinstance(pair, str) else pair for pair in pairs]
    for rank, pair in enumerate(pairs):
        if (
            not isinstance(pair, list)
            or len(pair) != 2
            or not all(isinstance(p, str) for p in pair)
        ):
            raise ValueError(f"merge {rank} must be two tokens, not {short_repr(pair)}")
    return pairs


def _added(description: dict) -> dict[str, Added]:
    """The special and added tokens that the file names."""
    listed = description.get("added_tokens") or []
    added: dict[str, Added] = {}
    for token in listed if isinstance(listed, list) else [listed]:
        name, token = added_token(token, member(token, "id"))
        if name in added:
            raise ValueError(f"added_tokens has {short_repr(name)} twice")
        added[name] = token
    return added
