"""Text to integers and back: what stands between a corpus and a model.

`CharTokenizer` has one id per character, `BPETokenizer` is byte-level BPE as GPT-2's, and `load`
reads back either of them from where its `save` put it. Read base.py, char.py, bpe.py, in that
order. Nothing here knows of tensors.

>>> import tokenizer
>>> bpe = tokenizer.BPETokenizer.train(open("corpus.txt").read(), vocab_size=1024)
>>> bpe.save("out")
>>> tokenizer.load("out").decode(bpe.encode("To be, or not to be"))
'To be, or not to be'
"""

import json
import os
from pathlib import Path
from reprlib import repr as short_repr  # a file may hold values of any size

from .base import FILE_FORMAT, FILE_NAME, FILE_VERSION, Tokenizer
from .bpe import BPETokenizer
from .char import CharTokenizer

__all__ = ["BPETokenizer", "CharTokenizer", "Tokenizer", "load"]

# 200,000 merges take 3 MB. JSON grows about tenfold when it is read, so a file that is not a
# tokenizer should be refused by its size, before it fills the memory.
MAX_FILE_BYTES = 64 * 2**20

_TYPES: dict[str, type[Tokenizer]] = {"char": CharTokenizer, "bpe": BPETokenizer}


def load(path: str | os.PathLike) -> Tokenizer:
    """The tokenizer saved in the directory `path`, or in the file `path`.

    >>> CharTokenizer.train("abc").save("out")
    >>> load("out").encode("cab")
    [2, 0, 1]

    The file is data, not code: nothing in it is executed, and all of it is checked. (One thing
    cannot be: a regular expression that needs ages. A file's `pattern` is only as good as its
    source.)
    Raises FileNotFoundError if there is none, ValueError with the file's name if it is not ours or
    not whole.
    """
    path = Path(path)
    file = path / FILE_NAME if path.is_dir() else path
    if not file.exists():
        looked_for = f"{FILE_NAME} in it" if path.is_dir() else "such file or directory"
        raise FileNotFoundError(f"no tokenizer at {path}: there is no {looked_for}")
    if not file.is_file():  # reading a pipe or a device might never end
        raise ValueError(f"{file}: not a regular file")
    size = file.stat().st_size
    if size > MAX_FILE_BYTES:
        raise ValueError(f"{file}: {size:,} bytes; a tokenizer has at most {MAX_FILE_BYTES:,}")
    try:
        description = json.loads(file.read_bytes().decode("utf-8"))
    except (ValueError, RecursionError) as error:  # RecursionError: [[[[[[...
        raise ValueError(f"{file}: not JSON, or cut short ({error})") from None

    if not isinstance(description, dict) or description.get("format") != FILE_FORMAT:
        raise ValueError(f'{file}: not a tensorlite tokenizer (no "format": "{FILE_FORMAT}")')
    version = description.get("version")
    if type(version) is not int or version != FILE_VERSION:
        raise ValueError(
            f"{file}: version {short_repr(version)}; this program reads version {FILE_VERSION}"
        )
    kind = description.get("type")
    if not isinstance(kind, str) or kind not in _TYPES:
        raise ValueError(f"{file}: type {short_repr(kind)}; it must be one of {', '.join(_TYPES)}")
    try:
        return _TYPES[kind]._from_description(description)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{file}: {error}") from error
