"""Tokenizers read from files, ours and those of other projects.

| file | what it holds | first used by |
|---|---|---|
| `tensorlite-tokenizer.json` | all of a tokenizer of ours | `Tokenizer.save` |
| `encoder.json` + `vocab.bpe` | token -> id; one merge on each line | GPT-2 |
| `vocab.json` + `merges.txt` | the same under other names (`gpt2-vocab.json`, ...) | transformers |
| `tokenizer.json` | vocabulary, merges, pattern, special tokens | Hugging Face tokenizers |
| `NAME.tiktoken` | the tokens in base64, with their ranks, which are their ids | tiktoken |
| `tokenizer.model` | the same, of some models | Llama 3 |

`load` finds out which of these a file is. How each is read stands in gpt2_files.py,
huggingface_files.py and tiktoken_files.py, with the files that transformers writes beside its own
in transformers_config.py. export.py writes the files of other projects.

A file holds data, never code, and everything in it is checked: a file that is not a whole, valid
tokenizer raises ValueError, which names the file and says what is wrong. (One thing cannot be
checked: whether a regular expression takes forever. A file's pattern is only as good as its
source.)
"""

import re
from pathlib import Path
from reprlib import repr as short_repr  # a file may hold values of any size

from .base import FILE_FORMAT, FILE_NAME, FILE_VERSION, Tokenizer
from .bpe import BPETokenizer
from .char import CharTokenizer
from .conventions import Conventions
from .files import read_bytes, read_json
from .gpt2_files import read_merges
from .huggingface_files import read_huggingface
from .sentencepiece_bpe import SentencePieceBPE
from .tiktoken_files import read_ranks
from .transformers_config import read_about

TYPES: dict[str, type[Tokenizer]] = {
    "char": CharTokenizer,
    "bpe": BPETokenizer,
    "sentencepiece-bpe": SentencePieceBPE,
}

# A vocabulary and its merges: names, or endings of names, that belong together.
VOCABULARIES, MERGES = ("vocab.json", "encoder.json"), ("merges.txt", "vocab.bpe")
RANK_LINE = re.compile(rb"[A-Za-z0-9+/]+=* \d+\s")  # the first line of a tiktoken file


def load(path: str | Path) -> Tokenizer:
    """The tokenizer in a directory, or in a file, of any format above.

    >>> CharTokenizer.train("abc").save("out")
    >>> load("out").encode("cab")
    [2, 0, 1]

    Of a pair of files, `path` may name either. A directory that holds several formats is read as
    the first of them in this order: ours, `tokenizer.json`, `vocab.json`, `encoder.json`, pairs
    with a prefix before these names, `.tiktoken`, `tokenizer.model`.
    A `.tiktoken` file does not hold the pattern and the special tokens. They are read from the
    `tiktoken.json` that `export` writes beside it, or known from the file's name, if it begins as
    the name of a published vocabulary (`cl100k_base`). Otherwise the pattern is cl100k's, and a
    warning says so. Tokens that no merge makes are a sign that a file is cut short, and a warning
    counts them.

    Raises FileNotFoundError if there is no tokenizer at `path`, and ValueError, with the name of
    the file, if it has none of these formats, is not whole, or is no BPE that can be read.
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
            "it is not a rank file of tiktoken, the only kind of .model file that can be read "
            "(SentencePiece's models can be read from the tokenizer.json that transformers writes)"
        )
    description = read_json(file)
    if isinstance(description, dict) and description.get("format") == FILE_FORMAT:
        return read_ours(description)
    if isinstance(description, dict) and isinstance(description.get("model"), dict):
        return read_huggingface(description, read_about(file))
    raise ValueError(
        f'it is not a tensorlite tokenizer (it has no "format": "{FILE_FORMAT}") and not a '
        'tokenizer.json (it has no "model"), and it is not named as the other formats are: '
        "vocab.json with merges.txt, encoder.json with vocab.bpe, NAME.tiktoken"
    )


def _other(file: Path, ending: str, endings: tuple[str, ...], i: int) -> Path:
    """The other file of a pair, which has one of these `endings`, usually the i-th."""
    usual, *others = [endings[i], *endings]
    paths = [file.with_name(file.name.removesuffix(ending) + name) for name in (usual, *others)]
    return next((path for path in paths if path.exists()), paths[0])


def read_ours(description: dict) -> Tokenizer:
    """The tokenizer in a file that `Tokenizer.save` has written."""
    version = description.get("version")
    if type(version) is not int or version != FILE_VERSION:
        raise ValueError(
            f"the file has version {short_repr(version)}; this program reads version {FILE_VERSION}"
        )
    kind = description.get("type")
    if not isinstance(kind, str) or kind not in TYPES:
        raise ValueError(f"the type is {short_repr(kind)}; it must be one of {', '.join(TYPES)}")
    tokenizer = TYPES[kind].from_description(description)
    tokenizer.set_conventions(Conventions.from_description(description))
    return tokenizer
