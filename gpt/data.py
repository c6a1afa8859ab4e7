"""From a dataset's name to batches of token ids.

This is the data half of nanoGPT's `train.py` and `prepare.py`: the same 90/10 split, the same
`.bin` token files, the same random windows. It differs in what it takes (text itself, in files,
folders and built-in corpora), in refusing bad input before training instead of failing in the
middle of it, and in `full_windows`, which measures a whole split and not a random part of it.

Text goes read_text -> split -> a tokenizer; token files go open_tokens. Either way training sees
two flat arrays of ids, (N,), and draws windows from them:

    tokens       5 8 2 9 4 7
    x (start 1)    8 2 9         block_size 3: what the model reads
    y                2 9 4       what it should say next, at each place
"""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from tokenizer import texts
from tokenizer.base import token_dtype, write_atomic
from tokenizer.widths import looks_like, types_that_fit

from .corpora import CORPORA

ALIASES = {"shakespeare_char": "shakespeare"}  # nanoGPT's name

SCAN = 2**24  # ids looked at together when a token file is checked
SHOW_BAR = 2**28  # ids from which that takes long enough for a progress bar


# ---- names ---------------------------------------------------------------------------------------


def resolve(dataset: str, folder: str = "") -> str:
    """What `--dataset` means: a built-in corpus, else a path, else nanoGPT's `data/NAME` folder.

    A built-in name wins over a file or folder of that name; `./NAME` means the file. Paths are
    relative to `folder`; where there is nothing of the name, it is given back.
    """
    dataset = ALIASES.get(dataset, dataset)
    if dataset in CORPORA:
        return dataset
    path, nanogpt = os.path.join(folder, dataset), os.path.join(folder, "data", dataset)
    if os.path.exists(path):
        return path
    return nanogpt if os.path.isfile(os.path.join(nanogpt, "train.bin")) else dataset


def is_token_data(dataset: str) -> bool:
    """True where `open_tokens` is the one to ask: a `.bin` file or a folder with a `train.bin`."""
    path = resolve(dataset)
    if path in CORPORA:
        return False
    if path.endswith(".bin") and os.path.isfile(path):
        return True
    return os.path.isfile(os.path.join(path, "train.bin"))


def validation_size(dataset: str) -> int:
    """About how many tokens the validation split has, at most, by the sizes of files alone.

    0 for a built-in corpus, which is small, and for what is not there.
    """
    path = resolve(dataset)
    if os.path.isfile(val := os.path.join(path, "val.bin")):
        return os.path.getsize(val) // 2
    files = [path] if os.path.isfile(path) else filter(os.path.isfile, Path(path).rglob("*"))
    return sum(map(os.path.getsize, files)) // (20 if path.endswith(".bin") else 10)


# ---- text ----------------------------------------------------------------------------------------


def read_text(dataset: str, encoding: str = "utf-8") -> str:
    r"""The texts of a dataset (see `read_texts`), joined by "\n"."""
    return "\n".join(read_texts(dataset, encoding))


def read_texts(dataset: str, encoding: str = "utf-8") -> list[str]:
    """The text of a built-in corpus, of a text file, or of each file of a folder.

    Which files of a folder, and in which order: see `texts.text_files`. Text is kept as it is, line
    ends too; only a byte order mark at the start of a file is dropped.

    Raises FileNotFoundError when there is no such dataset, and ValueError when it is empty or not
    in this encoding.
    """
    path = resolve(dataset)
    if path in CORPORA:
        return [CORPORA[path]()]
    if not path or not os.path.exists(path):  # Path("") would be the current folder
        raise FileNotFoundError(
            f"no dataset {dataset!r}: it is no file or folder here and none of the built-in "
            f"corpora, {', '.join(CORPORA)}"
        )
    files = texts.text_files(path, encoding) if os.path.isdir(path) else [path]
    parts = [texts.read_text(file, encoding) for file in files]
    if not any(part.strip("\n") for part in parts):
        what = "folder" if os.path.isdir(path) else "file"
        raise ValueError(f"the {what} {path} holds no text")
    return parts


def documents(parts: list[str], separator: str) -> list[str]:
    r"""The texts that end on their own: files ("file") or lines ("line"), without empty ones.

    A line is given without its line end, "\n" or "\r\n", whose place the end-of-text token takes.

    >>> documents(["one\ntwo\n", "three"], "file"), documents(["one\n\ntwo\n", "three"], "line")
    (['one\ntwo\n', 'three'], ['one', 'two', 'three'])
    """
    if separator == "line":
        parts = [line.removesuffix("\r") for part in parts for line in part.split("\n")]
    return [part for part in parts if part]


def split(text: str) -> tuple[str, str]:
    """The training part, the first int(0.9 N) characters (or ids), and the validation part.

    >>> split("abcdefghijk")
    ('abcdefghi', 'jk')
    """
    n = int(0.9 * len(text))
    return text[:n], text[n:]


# ---- token files ---------------------------------------------------------------------------------


def open_tokens(dataset: str, vocab_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Training and validation ids of nanoGPT's token files, (N,) each, mapped and read-only.

    A folder holds them as train.bin and val.bin; a single file is split 90/10. The files hold
    ids and nothing else, so their type follows from vocab_size (`token_dtype`), and every id is
    looked at once: a wrong one would surface as a crash, or worse, hours into a run.

    Raises ValueError for a file that is missing, empty, cut off, holds an id >= vocab_size, or
    looks like ids of another type or like another format (see `tokenizer.widths`).
    """
    path = Path(resolve(dataset))
    if path.is_file():
        return split(_open(path, vocab_size))
    train, val = path / "train.bin", path / "val.bin"
    for file, other in ((train, val), (val, train)):
        if not file.is_file():
            raise ValueError(
                f"there is no {file}: a folder of token data holds train.bin and val.bin "
                f"(a single file, such as {other}, would be split 90/10)"
            )
    return _open(train, vocab_size), _open(val, vocab_size)


def _open(path: Path, vocab_size: int) -> np.ndarray:
    dtype = token_dtype(vocab_size)
    kind = f"{dtype.name}, by vocab_size {vocab_size}"
    size = path.stat().st_size
    if size == 0:
        raise ValueError(f"the token file {path} is empty")
    if other := looks_like(path, dtype):
        raise ValueError(f"the token file {path} is read as {kind}, and looks like {other}")
    if size % dtype.itemsize:
        raise ValueError(
            f"the token file {path} has {size} bytes, which is no whole number of ids of "
            f"{dtype.itemsize} bytes ({kind}): it is cut off, or its ids are of another type"
        )
    tokens = np.memmap(path, dtype=dtype, mode="r")
    starts = range(0, len(tokens), SCAN)
    # disable=None: no bar where the output is no terminal.
    disable = None if len(tokens) >= SHOW_BAR else True
    for start in tqdm(starts, desc=f"checking {path.name}", leave=False, disable=disable):
        chunk = np.asarray(tokens[start : start + SCAN])
        if chunk.max() >= vocab_size:
            at = int(np.argmax(chunk >= vocab_size))
            fit = [name for name in types_that_fit(path, vocab_size) if name != dtype.str]
            hint = f"; or its ids are of another type, {fit[0]!r} would fit" if fit else ""
            raise ValueError(
                f"the token file {path} holds the id {chunk[at]} at position {start + at}, but "
                f"vocab_size {vocab_size} allows 0 to {vocab_size - 1} (read as {kind}): "
                f"--vocab_size sets it{hint}"
            )
    return tokens


def write_tokens(path: str | Path, ids, vocab_size: int) -> None:
    """Write ids, a list or array (N,) of integers, as a `.bin` file that open_tokens reads.

    The file appears whole or not at all. Raises ValueError for ids outside 0 to vocab_size - 1,
    and for none at all.
    """
    ids = np.asarray(ids)
    if ids.size == 0:
        raise ValueError(f"there are no ids to write to {path}")
    if ids.dtype.kind not in "iu":
        raise TypeError(f"ids are integers, and these are {ids.dtype}")
    if ids.min() < 0 or ids.max() >= vocab_size:
        raise ValueError(
            f"ids from {ids.min()} to {ids.max()} do not fit vocab_size {vocab_size}, "
            f"which allows 0 to {vocab_size - 1}"
        )
    write_atomic(path, ids.astype(token_dtype(vocab_size)).data)


# ---- batches -------------------------------------------------------------------------------------


def check_length(tokens: np.ndarray, block_size: int, what: str) -> None:
    """Raise ValueError when a split (`what`: "training", say) is too short for one window."""
    if len(tokens) < block_size + 1:
        raise ValueError(
            f"the {what} split has {len(tokens)} tokens, and one window of block_size "
            f"{block_size} takes {block_size + 1}: give a smaller --block_size or more text"
        )


def draw_starts(
    rng: np.random.Generator, tokens_len: int, batch_size: int, block_size: int
) -> np.ndarray:
    """Where batch_size random windows start, (B,) int64, uniform in [0, tokens_len - block_size).

    The last window starts at tokens_len - block_size - 1, for y reaches one further than x.
    """
    return rng.integers(0, tokens_len - block_size, size=batch_size)


def draw_batch(
    tokens: np.ndarray, starts: np.ndarray, block_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """The windows at `starts`, (B,): x and the y one further on, (B, T) int64 each.

    >>> draw_batch(np.array([5, 8, 2, 9, 4, 7]), np.array([1]), 3)
    (array([[8, 2, 9]]), array([[2, 9, 4]]))
    """
    places = starts[:, None] + np.arange(block_size + 1)  # (B, 1) + (T + 1,) -> (B, T + 1)
    # asarray: a memmap's subclass would stick to everything computed from it.
    windows = np.asarray(tokens)[places]  # (B, T + 1)
    return windows[:, :-1].astype(np.int64), windows[:, 1:].astype(np.int64)


def full_windows(
    tokens: np.ndarray, block_size: int, batch_size: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """All floor((N - 1) / block_size) windows that do not overlap, batch_size at a time, in order.

    Every token but the first (and fewer than block_size at the end) is predicted exactly once,
    so the mean loss over them is a number of the split, not of a draw. The last batch may be
    smaller.
    """
    windows = (len(tokens) - 1) // block_size
    for first in range(0, windows, batch_size):
        last = min(first + batch_size, windows)
        yield draw_batch(tokens, np.arange(first, last) * block_size, block_size)
