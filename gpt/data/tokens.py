"""Token files: nanoGPT's `.bin` files, flat arrays of ids, mapped into memory.

The format is that of nanoGPT's `prepare.py`. Unlike nanoGPT, `open_tokens` refuses bad files before
the training instead of failing in the middle of it.
"""

from pathlib import Path

import numpy as np
from tqdm import tqdm

from tokenizer.base import token_dtype, write_atomic
from tokenizer.widths import looks_like, types_that_fit

from .names import resolve
from .text import split

SCAN = 2**24  # ids that are checked at a time when a token file is opened
SHOW_BAR = 2**28  # files with more ids than this take long enough for a progress bar


def open_tokens(dataset: str, vocab_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Training and validation ids of nanoGPT's token files, (N,) each, mapped and read-only.

    A folder holds them as train.bin and val.bin; a single file is split 90/10. The files hold
    ids and nothing else, so their type follows from vocab_size (`token_dtype`), and every id is
    checked once: a wrong one would otherwise crash the training, or worse, hours into a run.

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
