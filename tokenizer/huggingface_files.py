"""`tokenizer.json`, the file of Hugging Face tokenizers (https://github.com/huggingface/tokenizers).

It describes a pipeline of steps (normalizer, pre_tokenizer, model, post_processor). Byte-level BPE
is read; a pipeline that does anything else with a text raises ValueError. export.py writes it.
"""

import warnings
from collections.abc import Iterator
from reprlib import repr as short_repr  # a file may hold values of any size

from .bpe import BPETokenizer
from .files import member
from .gpt2_files import from_names
from .pieces import PATTERNS
from .transformers_config import About, added_name, items

NOTHING = About()


def read_huggingface(description: dict, about: About = NOTHING) -> BPETokenizer:
    """The tokenizer in a `tokenizer.json`, if it is byte-level BPE and leaves the text as it is.

    If it puts special tokens around every text, that is left to the caller, and a warning says so.
    """
    model = description["model"]
    if model.get("type", "BPE") != "BPE":
        raise ValueError(f"a model of type {short_repr(model['type'])}; only BPE can be read")
    for name in ("continuing_subword_prefix", "end_of_word_suffix", "dropout", "byte_fallback"):
        if model.get(name):
            raise ValueError(
                f"{name} {short_repr(model[name])} cannot be read: this is not byte-level BPE"
            )
    if description.get("normalizer"):
        kind = short_repr(member(description["normalizer"], "type"))
        raise ValueError(f"it changes the text first (normalizer {kind}), which is not supported")
    ids, pairs = model.get("vocab"), model.get("merges")
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
    added = description.get("added_tokens") or []
    special_tokens = {}
    for token in added if isinstance(added, list) else [added]:
        name = added_name(token)
        if name in special_tokens:
            raise ValueError(f"added_tokens has {short_repr(name)} twice")
        special_tokens[name] = member(token, "id")
    for name in ("truncation", "padding"):
        if description.get(name) is not None:
            warnings.warn(f"the {name} that tokenizer.json asks for is not done", stacklevel=2)
    pattern = _huggingface_pattern(description.get("pre_tokenizer"))
    around = [*_around(description.get("post_processor")), *about.around]
    about = about._replace(around=around)
    ignore_merges = model.get("ignore_merges") is True
    return from_names(ids, pairs, pattern, special_tokens, ignore_merges, about)


def _around(processor: object) -> Iterator[str]:
    """The special tokens that a `post_processor` puts around a text."""
    kind = member(processor, "type")
    if kind == "Sequence":
        for step in items(processor.get("processors")):
            yield from _around(step)
    elif kind == "TemplateProcessing":
        for piece in items(processor.get("single")):
            if (name := member(member(piece, "SpecialToken"), "id")) is not None:
                yield str(name)
    elif kind in ("BertProcessing", "RobertaProcessing"):
        for token in (processor.get("cls"), processor.get("sep")):
            yield from map(str, list(items(token))[:1])
    elif processor is not None and kind != "ByteLevel":  # ByteLevel changes only offsets
        raise ValueError(f"post_processor {short_repr(kind)} cannot be read")


def _huggingface_pattern(pre_tokenizer: object) -> str | None:
    """The pattern by which a `pre_tokenizer` cuts: ByteLevel's, or that of one Split before it."""
    steps = [pre_tokenizer]
    if member(pre_tokenizer, "type") == "Sequence":
        steps = member(pre_tokenizer, "pretokenizers")
        steps = steps if isinstance(steps, list) else [steps]
    kinds = [member(step, "type") for step in steps]
    if kinds[-1:] == ["ByteLevel"]:
        last = steps[-1]
        if last.get("add_prefix_space"):
            raise ValueError("it adds a space before the text, which is not supported")
        by_regex = last.get("use_regex", True)
        if kinds == ["ByteLevel"]:
            return "gpt2" if by_regex else None
        if kinds == ["Split", "ByteLevel"] and not by_regex:
            pattern = member(steps[0].get("pattern"), "Regex")
            how = steps[0].get("behavior"), bool(steps[0].get("invert"))
            if isinstance(pattern, str):
                name = _named(pattern)
                # Isolated keeps what the pattern does not match, Removed (inverted) drops it. The
                # published patterns match everything, so for them both do the same.
                if how == ("Isolated", False) or how == ("Removed", True) and name in PATTERNS:
                    return name
    raise ValueError(
        f"pre_tokenizer {short_repr(kinds)} cannot be read; only ByteLevel, or one Split by a "
        f"regular expression (Isolated, not inverted) and ByteLevel after it"
    )


def _named(pattern: str) -> str:
    """The name of a published pattern; any other pattern as it is."""
    return next((name for name, known in PATTERNS.items() if pattern == known), pattern)
