"""GPT-2's pair of files, a vocabulary and its merges, which transformers writes too.

`encoder.json` (in transformers: `vocab.json`) maps each token to its id; `vocab.bpe` (`merges.txt`)
holds the merges, one on each line, in their order. Both write the bytes of a token as characters;
see byte_characters.py.
"""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from reprlib import repr as short_repr  # a file may hold values of any size

from .base import END_OF_TEXT
from .bpe import BPETokenizer
from .byte_characters import BYTE_OF, to_bytes, to_characters
from .files import read_bytes, read_json
from .normalizers import Step
from .pieces import Pattern
from .transformers_config import (
    About,
    Added,
    Ids,
    check_same_id,
    conventions_of,
    name_tokens,
    read_about,
)

# The classes of transformers whose rules for a vocab.json and merges.txt are GPT-2's.
GPT2_CLASSES = {"GPT2Tokenizer", "CodeGenTokenizer"}


def read_merges(vocabulary: Path, merges: Path) -> BPETokenizer:
    """The tokenizer in a pair of files of GPT-2 or transformers.

    A token that is neither a byte nor made by a merge, and is named `<...>`, is a special token, as
    are those that the files beside them name.
    """
    about = read_about(vocabulary)
    if about.kind is not None and about.kind.removesuffix("Fast") not in GPT2_CLASSES:
        raise ValueError(
            f"tokenizer_config.json beside it names {short_repr(about.kind)}, whose rules are not "
            "GPT-2's and not in these files; transformers can write them to a tokenizer.json: "
            "AutoTokenizer.from_pretrained(FOLDER).save_pretrained(NEW)"
        )
    try:
        ids = read_json(vocabulary)
    except ValueError as error:
        raise ValueError(f"{vocabulary.name}: {error}") from None
    try:
        lines = read_bytes(merges).decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{merges.name} is not text: {error}") from None
    if lines[0].startswith("#version"):
        lines[0] = ""
    pairs = []
    for number, line in enumerate(lines, 1):
        if line := line.removesuffix("\r"):
            pair = line.split(" ")
            if len(pair) != 2 or not all(pair):
                raise ValueError(
                    f"{merges.name}, line {number}: expected two tokens with a space between "
                    f"them, not {short_repr(line)}"
                )
            pairs.append(pair)
    made = {left + right for left, right in pairs}
    names = (
        [name for name in ids if name[:1] == "<" and name[-1:] == ">"]
        if isinstance(ids, dict)
        else []
    )
    added = {name: Added(ids[name]) for name in names if name not in made and len(name) > 1}
    if about.adds and about.roles.bos_token is None:  # the default of these classes
        about = about._replace(roles=about.roles._replace(bos_token=END_OF_TEXT))
    if about.adds_space:
        raise ValueError(
            "tokenizer_config.json beside it adds a space before the text (add_prefix_space), "
            "which is not supported"
        )
    return from_names(ids, pairs, "gpt2", added, about)


def from_names(
    ids: object,
    pairs: Sequence[Sequence[str]],
    pattern: Pattern,
    added: Mapping[str, Added],
    about: About,
    ignore_merges: bool = False,
    normalizer: Sequence[Step] = (),
    put_around: Ids | None = None,
) -> BPETokenizer:
    """The tokenizer of a vocabulary (token -> id) and merges that write bytes as characters."""
    if not isinstance(ids, dict):
        raise ValueError(f"a vocabulary is an object of token: id, not {short_repr(ids)}")
    made = {left + right for left, right in pairs}
    named = name_tokens(ids, added, about)
    for name, token in named.items():
        if token.special and (name in made or name in BYTE_OF):
            raise ValueError(
                f"the special token {short_repr(name)} is a token of plain text too: it would be "
                "cut out of any text, which is not supported"
            )
    apart = {name for name in named if name not in made and name not in BYTE_OF}
    tokens = {}
    for token, token_id in ids.items():
        if type(token_id) is not int:
            raise ValueError(f"the id of {short_repr(token)} is {short_repr(token_id)}")
        if token in named:
            check_same_id(token, token_id, named[token].id)
        if token in apart:
            continue
        if token.endswith("</w>"):
            raise ValueError(
                f"{short_repr(token)} ends a word: this is not a byte-level vocabulary"
            )
        if token_id in tokens:
            other = to_characters(tokens[token_id])
            raise ValueError(f"id {token_id} is given to {other!r} and {short_repr(token)}")
        tokens[token_id] = to_bytes(token)
    for rank, pair in enumerate(pairs):
        for part in pair:
            if part not in ids or part in apart:
                raise ValueError(f"merge {rank} has {short_repr(part)}, which is not a token")
    tokenizer = BPETokenizer(
        [(ids[left], ids[right]) for left, right in pairs],
        pattern,
        {name: token.id for name, token in named.items() if token.special},
        tokens,
        ignore_merges,
        added_tokens={name: token.id for name, token in named.items() if not token.special},
        normalizer=normalizer,
        normalized_tokens={name for name, token in named.items() if token.normalized},
    )
    tokenizer.set_conventions(conventions_of(about, named, put_around))
    never = [t for t in ids if len(t) > 1 and t not in made and t not in named]
    if never and not ignore_merges:
        warn_of_lost_merges(never, len(ids), len(pairs))
    return tokenizer


def warn_of_lost_merges(never: Sequence[str], n_tokens: int, n_merges: int) -> None:
    """Warn of the tokens `never`, which no text is encoded to."""
    warnings.warn(
        f"{len(never):,} of the {n_tokens:,} tokens are made by no merge, "
        f"{short_repr(never[0])} for example, so no text is encoded to them: the file "
        f"of merges, which has {n_merges:,}, may be cut short",
        stacklevel=6,
    )
