"""The rank files of tiktoken (https://github.com/openai/tiktoken), which Llama 3 uses too.

A `.tiktoken` file has a line for each token: its bytes in base64 and its rank, which is its id.
There are no merges in it: any two tokens merge whose bytes together are a token. export.py writes
such files.
"""

import base64
import binascii
import warnings
from pathlib import Path
from reprlib import repr as short_repr  # a file may hold values of any size

from .base import END_OF_TEXT
from .bpe import BPETokenizer
from .export import ABOUT_RANKS
from .files import member, read_bytes, read_json

FIM = ("<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>")
# name -> pattern, how many ranks, special tokens; as in tiktoken_ext/openai_public.py
PUBLISHED = {
    "gpt2": ("gpt2", 50256, {END_OF_TEXT: 50256}),
    "r50k_base": ("gpt2", 50256, {END_OF_TEXT: 50256}),
    "p50k_base": ("gpt2", 50280, {END_OF_TEXT: 50256}),
    "cl100k_base": (
        "cl100k",
        100256,
        {
            END_OF_TEXT: 100257,
            **{name: 100258 + i for i, name in enumerate(FIM)},
            "<|endofprompt|>": 100276,
        },
    ),
    "o200k_base": ("o200k", 199998, {END_OF_TEXT: 199999, "<|endofprompt|>": 200018}),
}


def read_ranks(file: Path) -> BPETokenizer:
    """The tokenizer in a rank file; see `formats.load` for its pattern and special tokens."""
    tokens: dict[int, bytes] = {}
    for number, line in enumerate(read_bytes(file).removeprefix(b"\xef\xbb\xbf").splitlines(), 1):
        if not line:
            continue
        try:
            token, rank = line.split()
            token, rank = base64.b64decode(token, validate=True), int(rank)
        except (ValueError, binascii.Error):
            raise ValueError(
                f"line {number}: expected a token in base64, a space and a rank, not "
                f"{short_repr(line)}"
            ) from None
        if rank in tokens:
            raise ValueError(f"line {number}: rank {rank} is given twice")
        tokens[rank] = token
    if not tokens:
        raise ValueError("the file holds no tokens")
    beside = file.with_name(ABOUT_RANKS)
    about = read_json(beside) if beside.exists() else {}
    if member(about, "ranks") == file.name:
        if not isinstance(about.get("special_tokens"), dict):
            raise ValueError(f"{beside.name} beside it has no special_tokens")
        if about.get("tokens", len(tokens)) != len(tokens):
            raise ValueError(
                f"the file has {len(tokens):,} tokens, and {beside.name} beside it says "
                f"{short_repr(about['tokens'])}: it is cut short"
            )
        eos_token = about.get("eos_token", END_OF_TEXT)
        arguments = None, about.get("pattern"), about["special_tokens"], tokens
        return BPETokenizer(*arguments, eos_token=eos_token)
    for name, (pattern, ranks, special_tokens) in PUBLISHED.items():
        named = file.stem == name or "_" in name and file.name.startswith(name)
        if named and len(tokens) != ranks:
            raise ValueError(
                f"{name} has {ranks:,} tokens, and this file has {len(tokens):,}: it is cut short, "
                "or it is another vocabulary, which should have another name"
            )
        if file.name.startswith(name.split("_")[0]):
            special_tokens = special_tokens if len(tokens) == ranks else {}
            return BPETokenizer(None, pattern, special_tokens, tokens)
    warnings.warn(
        f"{file} does not say by which pattern it cuts a text into pieces, nor which special "
        "tokens there are; the pattern cl100k is assumed, and no special tokens",
        stacklevel=4,
    )
    return BPETokenizer(None, "cl100k", {}, tokens)
