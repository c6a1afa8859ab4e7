"""GPT-2's pair of files, a vocabulary and its merges, which transformers writes too.

`encoder.json` (in transformers: `vocab.json`) maps each token to its id; `vocab.bpe` (`merges.txt`)
holds the merges, one on each line, in their order. Both write the bytes of a token as characters;
see byte_characters.py.
"""

import warnings
from pathlib import Path
from reprlib import repr as short_repr  # a file may hold values of any size

from .bpe import BPETokenizer
from .byte_characters import BYTE_OF, to_bytes, to_characters
from .files import read_bytes, read_json
from .transformers_config import read_about

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
    special_tokens = {name: ids[name] for name in names if name not in made and len(name) > 1}
    return from_names(ids, pairs, "gpt2", special_tokens, False, about)


def from_names(ids, pairs, pattern, special_tokens, ignore_merges, about) -> BPETokenizer:
    """The tokenizer of a vocabulary (token -> id) and merges that write bytes as characters."""
    if not isinstance(ids, dict):
        raise ValueError(f"a vocabulary is an object of token: id, not {short_repr(ids)}")
    special_tokens, made = dict(special_tokens), {left + right for left, right in pairs}
    for name, token_id in about.added.items():
        if special_tokens.setdefault(name, token_id) != token_id:
            raise ValueError(
                f"{short_repr(name)} has ids {short_repr(special_tokens[name])}, "
                f"{short_repr(token_id)}"
            )
    for name in about.names:
        if name in ids:
            special_tokens.setdefault(name, ids[name])
    if unknown := [name for name in about.names if name not in special_tokens]:
        warnings.warn(
            f"{', '.join(map(short_repr, unknown))}: named as a special token by a file beside the "
            "vocabulary, but the vocabulary has no id for it, so it is left out",
            stacklevel=5,
        )
    for name in special_tokens:
        if name in made or name in BYTE_OF:
            raise ValueError(
                f"the special token {short_repr(name)} is a token of plain text too: it would be "
                "cut out of any text, which is not supported"
            )
    tokens = {}
    for token, token_id in ids.items():
        if type(token_id) is not int:
            raise ValueError(f"the id of {short_repr(token)} is {short_repr(token_id)}")
        if token in special_tokens:
            if special_tokens[token] != token_id:
                raise ValueError(f"{short_repr(token)} has ids {token_id}, {special_tokens[token]}")
        elif token.endswith("</w>"):
            raise ValueError(
                f"{short_repr(token)} ends a word: this is not a byte-level vocabulary"
            )
        elif token_id in tokens:
            other = to_characters(tokens[token_id])
            raise ValueError(f"id {token_id} is given to {other!r} and {short_repr(token)}")
        else:
            tokens[token_id] = to_bytes(token)
    for rank, pair in enumerate(pairs):
        for part in pair:
            if part not in ids or part in special_tokens:
                raise ValueError(f"merge {rank} has {short_repr(part)}, which is not a token")
    merges = [(ids[left], ids[right]) for left, right in pairs]
    tokenizer = BPETokenizer(
        merges, pattern, special_tokens, tokens, ignore_merges, about.eos_token
    )
    never = [t for t in ids if len(t) > 1 and t not in made and t not in special_tokens]
    if never and not ignore_merges:
        warnings.warn(
            f"{len(never):,} of the {len(ids):,} tokens are made by no merge, "
            f"{short_repr(never[0])} for example, so no text is encoded to them: the file "
            f"of merges, which has {len(pairs):,}, may be cut short",
            stacklevel=5,
        )
    if around := list(dict.fromkeys(about.around)):
        warnings.warn(
            f"Hugging Face's libraries put {', '.join(map(repr, around))} around every text; here "
            "a text's ids are those of the text alone",
            stacklevel=5,
        )
    return tokenizer
