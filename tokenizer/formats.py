"""Vocabularies in the files of other projects: read, checked, and written.

| file | what it holds | first used by |
|---|---|---|
| `tensorlite-tokenizer.json` | all of a tokenizer of ours | `Tokenizer.save` |
| `encoder.json` + `vocab.bpe` | token -> id; the merges, a line each | GPT-2 |
| `vocab.json` + `merges.txt` | the same under other names (`gpt2-vocab.json`, ...) | transformers |
| `tokenizer.json` | vocabulary, merges, pattern, special tokens | Hugging Face tokenizers |
| `NAME.tiktoken` | the tokens in base64, with their ranks, which are their ids | tiktoken |
| `tokenizer.model` | the same, of some models | Llama 3 |

The second to fourth write a token's bytes as printable characters (`BYTE_OF`), as GPT-2 began to.
What transformers writes beside its files (`added_tokens.json`, `tokenizer_config.json`,
`special_tokens_map.json`) is read with them: see `About`.

All of it is data, never code, and all of it is checked: a file that does not fit raises ValueError,
which names it and says what is wrong. (One thing cannot be checked: a regular expression that needs
ages. A file's pattern is only as good as its source.)
"""

import base64
import binascii
import json
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from reprlib import repr as short_repr  # a file may hold values of any size
from typing import NamedTuple

from .base import END_OF_TEXT, FILE_FORMAT, FILE_NAME, FILE_VERSION, Tokenizer, write_atomic
from .bpe import BPETokenizer
from .char import UNKNOWN, CharTokenizer
from .pieces import PATTERNS

# 200,000 merges take 3 MB. JSON grows about tenfold when it is read, so a file that is not a
# tokenizer should be refused by its size, before it fills the memory.
MAX_FILE_BYTES = 64 * 2**20
MAX_VALUES = 5_000_000  # in JSON; o200k's 200,000 tokens and 470,000 merges are two million

TYPES: dict[str, type[Tokenizer]] = {"char": CharTokenizer, "bpe": BPETokenizer}

# A vocabulary and its merges: names, or endings of names, that belong together.
VOCABULARIES, MERGES = ("vocab.json", "encoder.json"), ("merges.txt", "vocab.bpe")
RANK_LINE = re.compile(rb"[A-Za-z0-9+/]+=* \d+\s")  # the first line of a tiktoken file

# The classes of transformers whose rules for a vocab.json and merges.txt are GPT-2's.
GPT2_CLASSES = {"GPT2Tokenizer", "CodeGenTokenizer"}

ABOUT_RANKS = "tiktoken.json"  # the pattern and special tokens of the `.tiktoken` file beside it

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


HUGGINGFACE_CONFIG = {  # of tokenizer_config.json: all else is in tokenizer.json
    "tokenizer_class": "PreTrainedTokenizerFast",
    "clean_up_tokenization_spaces": False,
    "model_max_length": 10**30,
}


# ---- reading -------------------------------------------------------------------------------------


def load(path: str | Path) -> Tokenizer:
    """The tokenizer in a directory, or in a file, of any format above.

    >>> CharTokenizer.train("abc").save("out")
    >>> load("out").encode("cab")
    [2, 0, 1]

    Of a pair of files either may be named. A directory that holds several formats is read as the
    first of them in this order: ours, `tokenizer.json`, `vocab.json`, `encoder.json`, pairs with
    something before these names, `.tiktoken`, `tokenizer.model`.
    A `.tiktoken` file says nothing of pattern and special tokens: they come from the
    `tiktoken.json` that `export` puts beside it, or by its name if that begins as a published one's
    does (`cl100k_base`); else the pattern is cl100k's, with a warning. Tokens that no merge makes
    are a sign of a file that is cut short: a warning counts them.

    Raises FileNotFoundError if there is none, ValueError with the file's name if it is not one of
    these, or not whole, or asks for what is not byte-level BPE.
    """
    path = Path(path)
    file = _of_folder(path) if path.is_dir() else path
    if not file.exists():
        raise FileNotFoundError(f"no tokenizer at {path}: there is no such file or directory")
    try:
        return _load(file)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{file}: {error}") from error


def _of_folder(folder: Path) -> Path:
    """The file in a folder that `load` reads."""
    names = [FILE_NAME, "tokenizer.json", *MERGES]
    choices = [[folder / name] for name in names]
    choices.append([f for ending in MERGES for f in sorted(folder.glob(f"*{ending}"))])
    choices += [sorted(folder.glob("*.tiktoken")), [folder / "tokenizer.model"]]
    for files in choices:
        files = [file for file in files if file.exists()]
        if len(files) > 1:
            raise ValueError(
                f"{folder} has several vocabularies, {', '.join(file.name for file in files)}: "
                "name one of these files"
            )
        if files:
            return files[0]
    raise FileNotFoundError(
        f"no tokenizer at {folder}: there is no {FILE_NAME} in it, nor {', '.join(names[1:])}, "
        "*.tiktoken or tokenizer.model"
    )


def _load(file: Path) -> Tokenizer:
    for i, merges in enumerate(MERGES):
        if file.name.endswith(merges):
            return read_merges(_other(file, merges, VOCABULARIES, i), file)
    for i, vocabulary in enumerate(VOCABULARIES):
        if file.name.endswith(vocabulary):
            merges = _other(file, vocabulary, MERGES, i)
            if merges.exists():
                return read_merges(file, merges)
    data = read_bytes(file)
    if file.suffix == ".tiktoken" or RANK_LINE.match(data[:1000]):
        return read_ranks(file)
    if file.suffix == ".model":
        raise ValueError(
            "not a rank file of tiktoken, the only one of this name that is read (SentencePiece's "
            "models are not byte-level BPE)"
        )
    description = read_json(file)
    if isinstance(description, dict) and description.get("format") == FILE_FORMAT:
        return read_ours(description)
    if isinstance(description, dict) and isinstance(description.get("model"), dict):
        return read_huggingface(description, read_about(file))
    raise ValueError(
        f'not a tensorlite tokenizer (no "format": "{FILE_FORMAT}"), nor a tokenizer.json (no '
        f'"model"), nor named as the other formats are: vocab.json with merges.txt, encoder.json '
        f"with vocab.bpe, NAME.tiktoken"
    )


def _other(file: Path, ending: str, endings: tuple[str, ...], i: int) -> Path:
    """The other file of a pair, which begins as this one; the i-th ending is the usual one."""
    usual, *others = [endings[i], *endings]
    paths = [file.with_name(file.name.removesuffix(ending) + name) for name in (usual, *others)]
    return next((path for path in paths if path.exists()), paths[0])


def read_bytes(file: Path) -> bytes:
    """A file's content, if it may be a tokenizer's."""
    if not file.exists():
        raise ValueError(f"there is no {file.name} beside it")
    if not file.is_file():  # reading a pipe or a device might never end
        raise ValueError("not a regular file")
    size = file.stat().st_size
    if size > MAX_FILE_BYTES:
        raise ValueError(f"{size:,} bytes; a tokenizer has at most {MAX_FILE_BYTES:,}")
    return file.read_bytes()


def read_json(file: Path) -> object:
    """The JSON in a file, whose objects name nothing twice."""
    data = read_bytes(file)
    values = sum(data.count(sign) for sign in (b",", b"[", b"{"))
    if values > MAX_VALUES:
        raise ValueError(f"about {values:,} values; a tokenizer has at most {MAX_VALUES:,}")
    try:
        return json.loads(data.decode("utf-8-sig"), object_pairs_hook=_no_name_twice)
    except _Twice:
        raise
    except (ValueError, RecursionError) as error:  # RecursionError: [[[[[[...
        raise ValueError(f"not JSON, or cut short ({error})") from None


class _Twice(ValueError):
    pass


def _no_name_twice(pairs: list[tuple[str, object]]) -> dict:
    names = dict(pairs)
    if len(names) < len(pairs):
        name, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise _Twice(f"{short_repr(name)} stands in it twice")
    return names


def read_ours(description: dict) -> Tokenizer:
    """What `Tokenizer.save` has written."""
    version = description.get("version")
    if type(version) is not int or version != FILE_VERSION:
        raise ValueError(
            f"version {short_repr(version)}; this program reads version {FILE_VERSION}"
        )
    kind = description.get("type")
    if not isinstance(kind, str) or kind not in TYPES:
        raise ValueError(f"type {short_repr(kind)}; it must be one of {', '.join(TYPES)}")
    return TYPES[kind]._from_description(description)


# A token's bytes as characters that show: those of Latin-1 that do are themselves, the others are
# the next ones from U+0100 on. After `bytes_to_unicode` in GPT-2's encoder.py.
SHOWN = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), 256)]
HIDDEN = [byte for byte in range(256) if byte not in SHOWN]
BYTE_OF = {chr(b): b for b in SHOWN} | {chr(256 + i): b for i, b in enumerate(HIDDEN)}
CHARACTER_OF = {byte: character for character, byte in BYTE_OF.items()}


def to_bytes(token: str) -> bytes:
    """The bytes that a token of a byte-level vocabulary stands for.

    >>> to_bytes("Ġlow")
    b' low'

    Raises ValueError if a character stands for no byte.
    """
    try:
        return bytes(map(BYTE_OF.__getitem__, token))
    except KeyError as error:
        raise ValueError(
            f"the token {short_repr(token)} has a character that stands for no byte, "
            f"{error.args[0]!r}: not a byte-level vocabulary"
        ) from None


def to_characters(token: bytes) -> str:
    """The inverse of `to_bytes`."""
    return "".join(map(CHARACTER_OF.__getitem__, token))


class About(NamedTuple):
    """What the files beside a vocabulary of transformers' say of it.

    added: name -> id of special tokens, which the vocabulary need not hold.
    names: of special tokens.
    eos_token: the one that ends a text.
    around: those that are put around every text.
    kind: the class that reads the vocabulary, None if it is not said.
    """

    added: dict[str, int] = {}
    names: list[str] = []
    eos_token: str = END_OF_TEXT
    around: list[str] = []
    kind: str | None = None


def read_about(file: Path) -> About:
    """The `About` of the files beside `file`, if there are any."""
    added, config, names = (
        _beside(file, f"{name}.json")
        for name in ("added_tokens", "tokenizer_config", "special_tokens_map")
    )
    if config.get("add_prefix_space"):
        raise ValueError(
            "tokenizer_config.json beside it adds a space before the text (add_prefix_space), "
            "which is not done here"
        )
    decoder = config.get("added_tokens_decoder") or {}
    if not isinstance(decoder, dict):
        raise ValueError(f"added_tokens_decoder must be an object, not {short_repr(decoder)}")
    for token_id, token in decoder.items():
        name = _added_name(token)
        if not (token_id.isascii() and token_id.isdigit() and len(token_id) < 10):
            raise ValueError(f"the id of {short_repr(name)} is {short_repr(token_id)}")
        if added.setdefault(name, int(token_id)) != int(token_id):
            raise ValueError(f"{short_repr(name)} has ids {short_repr(added[name])}, {token_id}")
    roles = {}
    for name, token in chain(names.items(), config.items()):
        if name.endswith("_token") and (text := _name(token)):
            roles[name] = text
    more = (
        about.get(name)
        for about in (names, config)
        for name in ("additional_special_tokens", "extra_special_tokens")
    )
    listed = [_name(token) for tokens in more for token in _items(tokens)]
    around = [
        roles.get(f"{end}_token", END_OF_TEXT)
        for end in ("bos", "eos")
        if config.get(f"add_{end}_token") is True
    ]
    kind = config.get("tokenizer_class")
    return About(
        added,
        list(dict.fromkeys(name for name in chain(roles.values(), listed) if name)),
        roles.get("eos_token", END_OF_TEXT),
        around,
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
        raise ValueError(f"{name} beside it: an object is expected, not {short_repr(content)}")
    return content


def _name(token: object) -> str | None:
    """A token's name, which may be written alone or with flags."""
    if isinstance(token, dict):
        return _added_name(token)
    return token if isinstance(token, str) and token else None


def _items(tokens: object) -> Iterable:
    """The tokens of a list, or of an object that names each by its role."""
    tokens = tokens.values() if isinstance(tokens, dict) else tokens
    return tokens if isinstance(tokens, Iterable) and not isinstance(tokens, str) else ()


def _added_name(token: object) -> str:
    """The name of an added token, if it is special and nothing is stripped around it."""
    name = _get(token, "content")
    if not isinstance(name, str):
        raise ValueError(f"added_tokens has {short_repr(token)}: no name, or one twice")
    for flag in ("lstrip", "rstrip", "single_word"):
        if token.get(flag):
            raise ValueError(f"added token {short_repr(name)} with {flag}, which is not done here")
    if token.get("special") is False:
        raise ValueError(
            f"added token {short_repr(name)} is not special: it would be cut out of any text, "
            f"which is not done here"
        )
    return name


def read_merges(vocabulary: Path, merges: Path) -> BPETokenizer:
    """GPT-2's and transformers' pair of files.

    A token that is neither a byte nor made by a merge, and is named `<...>`, is a special token, as
    are those that the files beside them name.
    """
    about = read_about(vocabulary)
    if about.kind is not None and about.kind.removesuffix("Fast") not in GPT2_CLASSES:
        raise ValueError(
            f"tokenizer_config.json beside it names {short_repr(about.kind)}, whose rules are not "
            "in these files, nor GPT-2's: transformers writes them to a tokenizer.json, "
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
                    f"{merges.name}, line {number}: two tokens and a space between them, not "
                    f"{short_repr(line)}"
                )
            pairs.append(pair)
    made = {left + right for left, right in pairs}
    names = (
        [name for name in ids if name[:1] == "<" and name[-1:] == ">"]
        if isinstance(ids, dict)
        else []
    )
    special_tokens = {name: ids[name] for name in names if name not in made and len(name) > 1}
    return _from_names(ids, pairs, "gpt2", special_tokens, False, about)


def _from_names(ids, pairs, pattern, special_tokens, ignore_merges, about) -> BPETokenizer:
    """A tokenizer from token -> id and merges whose tokens are written as characters."""
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
            "vocabulary, which has no id for it, so it is left out",
            stacklevel=5,
        )
    for name in special_tokens:
        if name in made or name in BYTE_OF:
            raise ValueError(
                f"the special token {short_repr(name)} is a token of plain text too: it would be "
                "cut out of any text, which is not done here"
            )
    tokens = {}
    for token, token_id in ids.items():
        if type(token_id) is not int:
            raise ValueError(f"the id of {short_repr(token)} is {short_repr(token_id)}")
        if token in special_tokens:
            if special_tokens[token] != token_id:
                raise ValueError(f"{short_repr(token)} has ids {token_id}, {special_tokens[token]}")
        elif token.endswith("</w>"):
            raise ValueError(f"{short_repr(token)} ends a word: not a byte-level vocabulary")
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
            f"{short_repr(never[0])} the first of them, so no text is encoded to them: the file "
            f"of the {len(pairs):,} merges may be cut short",
            stacklevel=5,
        )
    if around := list(dict.fromkeys(about.around)):
        warnings.warn(
            f"Hugging Face's libraries put {', '.join(map(repr, around))} around every text; here "
            "a text's ids are those of the text alone",
            stacklevel=5,
        )
    return tokenizer


NOTHING = About()


def read_huggingface(description: dict, about: About = NOTHING) -> BPETokenizer:
    """`tokenizer.json`, if it is byte-level BPE and nothing is done to the text before.

    Special tokens that it puts around a text are left to the caller, with a warning.
    """
    model = description["model"]
    if model.get("type", "BPE") != "BPE":
        raise ValueError(f"a model of type {short_repr(model['type'])}; only BPE can be read")
    for name in ("continuing_subword_prefix", "end_of_word_suffix", "dropout", "byte_fallback"):
        if model.get(name):
            raise ValueError(f"{name} {short_repr(model[name])} cannot be read: not byte-level BPE")
    if description.get("normalizer"):
        kind = short_repr(_get(description["normalizer"], "type"))
        raise ValueError(f"it changes the text first (normalizer {kind}), which is not done here")
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
        name = _added_name(token)
        if name in special_tokens:
            raise ValueError(f"added_tokens has {short_repr(token)}: no name, or one twice")
        special_tokens[name] = _get(token, "id")
    pattern = _huggingface_pattern(description.get("pre_tokenizer"))
    around = [*_around(description.get("post_processor")), *about.around]
    about = about._replace(around=around)
    ignore_merges = model.get("ignore_merges") is True
    return _from_names(ids, pairs, pattern, special_tokens, ignore_merges, about)


def _around(processor: object) -> Iterator[str]:
    """The special tokens that a `post_processor` puts around a text."""
    kind = _get(processor, "type")
    if kind == "Sequence":
        for step in _items(processor.get("processors")):
            yield from _around(step)
    elif kind == "TemplateProcessing":
        for piece in _items(processor.get("single")):
            if (name := _get(_get(piece, "SpecialToken"), "id")) is not None:
                yield str(name)
    elif kind in ("BertProcessing", "RobertaProcessing"):
        for token in (processor.get("cls"), processor.get("sep")):
            yield from map(str, list(_items(token))[:1])
    elif processor is not None and kind != "ByteLevel":  # which changes offsets alone
        raise ValueError(f"post_processor {short_repr(kind)} cannot be read")


def _get(value: object, name: str) -> object:
    return value.get(name) if isinstance(value, dict) else None


def _huggingface_pattern(pre_tokenizer: object) -> str | None:
    """The pattern that a `pre_tokenizer` cuts by: that of ByteLevel, or of one Split before it."""
    steps = [pre_tokenizer]
    if _get(pre_tokenizer, "type") == "Sequence":
        steps = _get(pre_tokenizer, "pretokenizers")
        steps = steps if isinstance(steps, list) else [steps]
    kinds = [_get(step, "type") for step in steps]
    if kinds[-1:] == ["ByteLevel"]:
        last = steps[-1]
        if last.get("add_prefix_space"):
            raise ValueError("it adds a space before the text, which is not done here")
        by_regex = last.get("use_regex", True)
        if kinds == ["ByteLevel"]:
            return "gpt2" if by_regex else None
        if kinds == ["Split", "ByteLevel"] and not by_regex:
            pattern = _get(steps[0].get("pattern"), "Regex")
            how = steps[0].get("behavior"), bool(steps[0].get("invert"))
            if isinstance(pattern, str):
                name = _named(pattern)
                # What no piece matches: kept, or removed, where the published ones leave nothing.
                if how == ("Isolated", False) or how == ("Removed", True) and name in PATTERNS:
                    return name
    raise ValueError(
        f"pre_tokenizer {short_repr(kinds)} cannot be read; only ByteLevel, or one Split by a "
        f"regular expression (Isolated, not inverted) and ByteLevel after it"
    )


def _named(pattern: str) -> str:
    """A pattern by its name, if it has one."""
    return next((name for name, known in PATTERNS.items() if pattern == known), pattern)


def read_ranks(file: Path) -> BPETokenizer:
    """tiktoken's file: a line for each token, its bytes in base64 and its rank, which is its id."""
    tokens: dict[int, bytes] = {}
    for number, line in enumerate(read_bytes(file).removeprefix(b"\xef\xbb\xbf").splitlines(), 1):
        if not line:
            continue
        try:
            token, rank = line.split()
            token, rank = base64.b64decode(token, validate=True), int(rank)
        except (ValueError, binascii.Error):
            raise ValueError(
                f"line {number}: a token in base64, a space and a rank, not {short_repr(line)}"
            ) from None
        if rank in tokens:
            raise ValueError(f"line {number}: rank {rank} is given twice")
        tokens[rank] = token
    if not tokens:
        raise ValueError("it holds no tokens")
    beside = file.with_name(ABOUT_RANKS)
    about = read_json(beside) if beside.exists() else {}
    if _get(about, "ranks") == file.name:
        if not isinstance(about.get("special_tokens"), dict):
            raise ValueError(f"{beside.name} beside it has no special_tokens")
        if about.get("tokens", len(tokens)) != len(tokens):
            raise ValueError(
                f"{len(tokens):,} tokens, and {beside.name} beside it says "
                f"{short_repr(about['tokens'])}: it is cut short"
            )
        eos_token = about.get("eos_token", END_OF_TEXT)
        arguments = None, about.get("pattern"), about["special_tokens"], tokens
        return BPETokenizer(*arguments, eos_token=eos_token)
    for name, (pattern, ranks, special_tokens) in PUBLISHED.items():
        named = file.stem == name or "_" in name and file.name.startswith(name)
        if named and len(tokens) != ranks:
            raise ValueError(
                f"{name} has {ranks:,} tokens, and this file {len(tokens):,}: it is cut short, or "
                "it is another vocabulary, which should have another name"
            )
        if file.name.startswith(name.split("_")[0]):
            special_tokens = special_tokens if len(tokens) == ranks else {}
            return BPETokenizer(None, pattern, special_tokens, tokens)
    warnings.warn(
        f"{file} does not say by which pattern it cuts a text into pieces, nor which special "
        "tokens there are; cl100k is taken, and no special tokens",
        stacklevel=4,
    )
    return BPETokenizer(None, "cl100k", {}, tokens)


# ---- writing -------------------------------------------------------------------------------------


def export(tokenizer: Tokenizer, directory: Path, format: str) -> None:
    """`BPETokenizer.export` and `CharTokenizer.export`."""
    writers = {"huggingface": write_huggingface, "tiktoken": write_ranks}
    if isinstance(tokenizer, CharTokenizer):
        writers = {"huggingface": write_characters}
    if format not in writers:
        raise ValueError(f"format is one of {', '.join(writers)}, not {format!r}")
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in writers[format](tokenizer).items():
        write_atomic(directory / name, content)


def write_huggingface(tokenizer: BPETokenizer) -> dict[str, bytes]:
    """The files that `tokenizers` and `transformers` read.

    Where any two tokens merge whose bytes together are one (tiktoken's rule), all pairs that do are
    written as merges, as transformers' own converter does. (Of two overlapping pairs that make the
    same token, tiktoken then merges the left one, and HF the one written first.)
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


def write_characters(tokenizer: CharTokenizer) -> dict[str, bytes]:
    """A character tokenizer as `tokenizers` and `transformers` read it: each character is a word.

    They call the unknown character by a name, which no single character is, and decode it to
    U+FFFD, as we do.
    """
    name = "<unknown>"
    shown = {"type": "Replace", "pattern": {"String": name}, "content": UNKNOWN}
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
    """A user's pattern, if it means the same to the libraries in Rust, as far as can be told."""
    import regex

    if regex.search(r"\(\?[a-zA-Z]*[rVbe]|\\K|\[\[|\(\?[|R0-9&P]|\\[GmMXRL]", pattern):
        raise ValueError(f"the pattern {pattern!r} uses what only Python's regex module knows")
    if regex.fullmatch(pattern, "") is not None:
        raise ValueError(
            f"the pattern {pattern!r} matches nothing at all, which others do otherwise"
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


def write_ranks(tokenizer: BPETokenizer) -> dict[str, bytes]:
    """The ranks that tiktoken reads, and what else it has to be told.

    >>> about = json.loads(Path("tiktoken.json").read_text())           # doctest: +SKIP
    >>> ranks = tiktoken.load.load_tiktoken_bpe("vocab.tiktoken")       # doctest: +SKIP
    >>> tiktoken.Encoding("ours", pat_str=about["pat_str"], mergeable_ranks=ranks,
    ...                   special_tokens=about["special_tokens"])       # doctest: +SKIP

    tiktoken's rule needs a token's id to be its rank, and every token to be what its bytes alone
    are encoded to, which holds for all that `train` has made.
    """
    tokens = tokenizer.tokens
    if list(tokens) != list(range(len(tokens))):
        raise ValueError("tiktoken numbers tokens by their ranks, from 0 on; these have gaps")
    if tokenizer.merges is not None:
        made = [tokens[left] + tokens[right] for left, right in tokenizer.merges]
        order = list(tokens.values())[256:]
        reached = all(tokenizer._merge(tokens[i]) == [i] for i in range(256, len(tokens)))
        if made != order or not reached:
            raise ValueError("the ids are not in the order of the merges, as tiktoken's ranks are")
    lines = (base64.b64encode(token) + b" %d\n" % i for i, token in tokens.items())
    pattern = pat_str = tokenizer.pattern
    if pattern is None:
        pat_str = r"[\s\S]+"
    elif pattern in PATTERNS:
        pat_str = PATTERNS[pattern]
    else:  # what it does not match is a piece here, and nothing to tiktoken
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
