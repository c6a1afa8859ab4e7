"""Token files: nanoGPT's `.bin` files, flat arrays of ids, mapped into memory.

The format is that of nanoGPT's `prepare.py`. Unlike nanoGPT, `open_tokens` refuses bad files before
the training instead of failing in the middle of it.
"""

from pathlib import Path

import numpy as np
from tqdm import tqdm

from tokenizer.base import token_dtype, write_atomic
from tokenizer.widths import looks_like, types_that_fit

from .names import resolve, token_files
from .text import split
from .token_folder import NAME, SPLITS, open_offsets, read_about, shard_files
from .token_shards import ShardedTokens

SCAN = 2**24  # ids that are checked at a time when a token file is opened
SHOW_BAR = 2**28  # files with more ids than this take long enough for a progress bar


def open_tokens(dataset: str, vocab_size: int, documents: bool = False):
    """Training and validation ids of token files, (N,) each, mapped and read-only.

    A folder holds them as nanoGPT's train.bin and val.bin, or in several shards each
    (token_folder.py); a single file is split 90/10. The files hold ids and nothing else, so their
    type follows from vocab_size (`token_dtype`), and every id is checked once: a wrong one would
    otherwise crash the training, or worse, hours into a run. One file is an array, several are
    `ShardedTokens`. With `documents` it is these in any case, which know their documents.

    Raises ValueError for a file that is missing, empty, cut off, holds an id >= vocab_size, or
    looks like ids of another type or like another format (see `tokenizer.widths`); and for an index
    of documents that is missing or does not fit, where it is asked for.
    """
    path = Path(resolve(dataset))
    if path.is_file():
        if documents:
            raise ValueError(
                f"--documents packed needs an index of documents, and {path} is a single file: "
                "give a folder that python -m gpt.data tokenize has written"
            )
        return split(_open(path, vocab_size))
    if about := read_about(path):
        files = shard_files(path, about, vocab_size)
    else:
        files = [token_files(path, name) for name in SPLITS]
        numbered = [file for own in files for file in own if file.stem not in SPLITS]
        if numbered:
            raise ValueError(
                f"there is no {path / NAME}, which says how many shards belong to "
                f"{numbered[0].name}: python -m gpt.data tokenize writes it at its end, the same "
                "command goes on where it was stopped"
            )
    for name, own, other in zip(SPLITS, files, reversed(SPLITS)):
        if not own:
            raise ValueError(
                f"there is no {path / name}.bin: a folder of token data holds train.bin and "
                f"val.bin (a single file, such as {path / other}.bin, would be split 90/10)"
            )
    train, val = (_open_all(own, vocab_size, documents) for own in files)
    return train, val


def _open_all(files: list[Path], vocab_size: int, documents: bool) -> np.ndarray | ShardedTokens:
    shards = [_open(file, vocab_size) for file in files]
    if documents:
        offsets = [open_offsets(file, len(shard)) for file, shard in zip(files, shards)]
        return ShardedTokens(shards, offsets)
    return shards[0] if len(shards) == 1 else ShardedTokens(shards)


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
