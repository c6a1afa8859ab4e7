"""What stands beside token files in a folder: an index of documents, and tokens.json.

    corpus/train-00000.bin    ids, as in nanoGPT's train.bin; and so on, as many as there are
    corpus/train-00000.idx    where its documents begin, and its end: uint64, (documents + 1,)
    corpus/val-00000.bin ...  the same of what is held out
    corpus/tokens.json        whose ids they are, and how many each shard has
    corpus/tensorlite-tokenizer.json

`python -m gpt.data tokenize` writes all of it, tokens.json at its end. A folder with one file for a
split, train.bin and val.bin, needs no tokens.json; `--documents packed` needs an index there too.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from tokenizer.base import token_dtype, write_atomic
from tokenizer.files import read_json

NAME = "tokens.json"
SPLITS = ("train", "val")
OFFSETS = np.dtype("<u8")
SCAN = 2**20  # offsets that are checked at a time


@dataclass(frozen=True)
class About:
    """What tokens.json says: `shards` has the number of ids of each, by split and name."""

    vocab_size: int
    end_of_text: int  # the id that ends each document
    tokenizer: str  # the hash of its vocabulary: see `vocabulary_hash`
    documents: dict[str, int]  # of each split
    shards: dict[str, dict[str, int]]

    def write(self, folder: Path) -> None:
        content = {"format": "tensorlite tokens", "version": 1, **asdict(self)}
        content["dtype"] = token_dtype(self.vocab_size).name
        write_atomic(folder / NAME, (json.dumps(content, indent=1) + "\n").encode())


def read_about(folder: Path) -> About | None:
    """The tokens.json of a folder; None if it has none. Raises ValueError for a damaged one."""
    path = folder / NAME
    if not path.exists():
        return None
    try:
        content = read_json(path)
        about = About(**{name: content[name] for name in About.__dataclass_fields__})
        if content["version"] != 1 or not isinstance(about.tokenizer, str):
            raise ValueError("it is of another version, or names no tokenizer")
        numbers = [about.vocab_size, about.end_of_text]
        for split in SPLITS:
            numbers += [about.documents[split], *about.shards[split].values()]
            good = all(re.fullmatch(rf"{split}-\d+(-\d+)?", name) for name in about.shards[split])
            if not good:
                raise ValueError("it names shards that are not of this folder")
        if not all(type(n) is int and n >= 0 for n in numbers) or about.vocab_size < 1:
            raise ValueError("it has numbers that cannot be")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} is damaged ({error}): run python -m gpt.data tokenize again"
        ) from None
    return about


def shard_files(folder: Path, about: About, vocab_size: int) -> list[list[Path]]:
    """The token files of each split that tokens.json names.

    Raises ValueError where one is gone or has another length, where a split has none, and for a
    vocab_size that these ids are not of.
    """
    if vocab_size < about.vocab_size or token_dtype(vocab_size) != token_dtype(about.vocab_size):
        raise ValueError(
            f"the ids in {folder} are of a vocabulary of {about.vocab_size:,}, stored as "
            f"{token_dtype(about.vocab_size).name}: --vocab_size {vocab_size} cannot hold them"
        )
    size, found = token_dtype(about.vocab_size).itemsize, []
    for split in SPLITS:
        files = [folder / f"{name}.bin" for name in sorted(about.shards[split])]
        if not files:
            lacks, size = ("training", "smaller") if split == "train" else ("validation", "larger")
            raise ValueError(
                f"{folder} has no documents for {lacks}: run python -m gpt.data split with a "
                f"{size} --val_fraction, then tokenize again; or give the val_fraction of [split] "
                "in the pipeline's file another value, and run that again"
            )
        for file in files:
            expected = size * about.shards[split][file.stem]
            if not file.is_file() or file.stat().st_size != expected:
                raise ValueError(
                    f"the shard {file} is gone or is not the {expected:,} bytes that {NAME} "
                    "states: delete it and run python -m gpt.data tokenize again, which makes it"
                )
        found.append(files)
    return found


def open_offsets(file: Path, tokens: int) -> np.ndarray:
    """Where the documents of a token file begin, and its end: (documents + 1,) uint64, mapped.

    Raises ValueError where there is no such index beside it, or one that does not fit it.
    """
    path = file.with_suffix(".idx")
    if not path.is_file():
        raise ValueError(
            f"there is no {path}: --documents packed needs the index of documents that "
            "python -m gpt.data tokenize writes beside each token file"
        )
    size = path.stat().st_size
    fault = f"the index {path} does not fit {file.name}, which has {tokens:,} ids: "
    if size % OFFSETS.itemsize or size < 2 * OFFSETS.itemsize:
        raise ValueError(f"{fault}its {size:,} bytes are no list of offsets of 8 bytes")
    offsets = np.memmap(path, OFFSETS, mode="r")
    if offsets[0] != 0 or offsets[-1] != tokens:
        raise ValueError(f"{fault}it goes from {offsets[0]:,} to {offsets[-1]:,}")
    for first in range(0, len(offsets), SCAN):
        part = np.asarray(offsets[first : first + SCAN + 1])
        if not (part[1:] > part[:-1]).all():
            at = first + int(np.argmax(part[1:] <= part[:-1]))
            raise ValueError(f"{fault}document {at:,} has no ids")
    return offsets


def vocabulary_hash(tokenizer) -> str:
    """A hash of the ids and their bytes: the same for one vocabulary in several formats."""
    digest = hashlib.sha256()
    for token_id, data in sorted(tokenizer.vocabulary.items()):
        digest.update(f"{token_id} {len(data)} ".encode() + data)
    return digest.hexdigest()


def check_tokenizer(folder: Path, tokenizer) -> None:
    """Raise ValueError if the ids in a folder with a tokens.json are of another vocabulary."""
    about = read_about(folder)
    if about and about.tokenizer != vocabulary_hash(tokenizer):
        raise ValueError(
            f"the ids in {folder} were made with another tokenizer than {tokenizer!r}: leave out "
            "--tokenizer, or run python -m gpt.data tokenize with this one"
        )
