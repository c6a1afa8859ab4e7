"""Folders of documents: compressed JSON lines in shards, and the manifest that vouches for them.

    corpus/clean/00000.jsonl.zst    documents, one a line, compressed with zstandard
    corpus/clean/00000.json         an entry: what was read, and the hashes and counts of the shards
    corpus/clean/manifest.json      all entries: written last, so that a folder with it is complete

What one task of a step read is one shard, or several where a large file was read: those that follow
the first are named 00000-0001 and so on.

A folder is read only if it is complete, and each shard must have the hash that the manifest states.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from math import inf
from pathlib import Path

from tokenizer.files import atomic_file

from .document import MAX_TEXT, Document, parse
from .libraries import library

SUFFIX = ".jsonl.zst"
NAME = re.compile(r"[\w-]+")  # of a shard
LEVEL = 3  # of compression: zstandard's own default
MAX_LINE = 8 * MAX_TEXT  # bytes: JSON writes a control character as six
MAX_WINDOW = 2**27  # bytes that a frame may ask the reader to keep


@dataclass(frozen=True)
class Shard:
    """A shard of a complete folder: its file, its SHA-256 in hex, its documents and bytes."""

    path: Path
    sha256: str
    documents: int
    size: int

    @property
    def name(self) -> str:
        return self.path.name.removesuffix(SUFFIX)

    @property
    def key(self) -> str:
        """What tells this input from another: its hash."""
        return self.sha256


def read_manifest(folder: Path) -> dict:
    """The manifest of a complete folder.

    Raises FileNotFoundError for a folder that has none, ValueError for one that is damaged.
    """
    path = folder / "manifest.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no {path}: the step that makes {folder} has not ended, and goes on where it "
            "was if it is run again; or it is no folder of documents, which python -m gpt.data "
            "extract makes of files"
        )
    try:
        manifest = json.loads(path.read_bytes())
        entries = manifest["shards"]
        shards = [shard for entry in entries for shard in entry.get("parts", ())]
        good = all(NAME.fullmatch(stated["name"]) for stated in [*entries, *shards])
    except (ValueError, KeyError, TypeError, RecursionError):
        good = False
    if not good:
        raise ValueError(f"{path} is damaged: delete it and run the step that made it again")
    return manifest


def shards_in(folder: str | Path) -> list[Shard]:
    """The shards of a complete folder, by name. Raises as `read_manifest`, and for lost shards."""
    folder, found = Path(folder), []
    entries = read_manifest(folder)["shards"]
    if not all("parts" in entry for entry in entries):
        raise ValueError(f"{folder} is no folder of documents: its manifest lists other files")
    for stated in (shard for entry in entries for shard in entry["parts"]):
        sha256, documents, size = (stated.get(name) for name in ("sha256", "documents", "size"))
        if not (isinstance(sha256, str) and isinstance(documents, int) and isinstance(size, int)):
            raise ValueError(
                f"{folder / 'manifest.json'} is damaged: delete it and run the step that made it "
                "again"
            )
        found.append(Shard(folder / f"{stated['name']}{SUFFIX}", sha256, documents, size))
        if not found[-1].path.is_file():
            raise FileNotFoundError(
                f"the shard {found[-1].path} is gone: run the step that made {folder} again, it "
                "makes what is missing"
            )
    return found


def read_shard(shard: Shard) -> Iterator[Document]:
    """The documents of a shard, one at a time.

    Raises ValueError where the file is not the one that the manifest knows, at its end at the
    latest: what was made of it is not to be kept then.
    """
    zstandard = library("zstandard", "the compression of shards")
    digest = hashlib.sha256()

    class Hashed(io.RawIOBase):
        def readable(self):
            return True

        def readinto(self, buffer):
            n = file.readinto(buffer)
            digest.update(memoryview(buffer)[:n])
            return n

    decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW)
    with open(shard.path, "rb") as file:
        try:
            stream = decompressor.stream_reader(Hashed(), read_across_frames=True)
            lines = io.BufferedReader(stream, 2**20)
            number = 0
            while line := lines.readline(MAX_LINE):
                number += 1
                where = f"line {number} of {shard.path}"
                if not line.endswith(b"\n"):
                    raise ValueError(f"{where} is cut off, or longer than {MAX_LINE} bytes")
                yield parse(line, where)
        except zstandard.ZstdError as error:
            raise ValueError(
                f"{shard.path} is damaged ({error}): delete it and run the step that made it again"
            ) from None
        while block := file.read(2**20):  # the decompressor may leave bytes that it has no use for
            digest.update(block)
    if digest.hexdigest() != shard.sha256 or number != shard.documents:
        raise ValueError(
            f"{shard.path} is not the shard that its manifest knows, by its hash: delete it and "
            "run the step that made it again"
        )


def read_documents(folder: str | Path) -> Iterator[Document]:
    """All documents of a folder, shard by shard. Raises as `shards_in` and `read_shard`."""
    for shard in shards_in(folder):
        yield from read_shard(shard)


@contextmanager
def hashed_file(path: Path) -> Iterator:
    """An `atomic_file`; its `digest` is the SHA-256 of what was written, its `size` the bytes."""
    with atomic_file(path) as file:

        class Hashed:
            digest, size = hashlib.sha256(), 0

            def write(self, data) -> int:
                self.digest.update(data)
                self.size += memoryview(data).nbytes
                return file.write(data)

            def flush(self):
                file.flush()

        yield Hashed()


def write_shards(stem: Path, documents: Iterable[Document], most: float = inf) -> dict:
    """Write shards of at most `most` characters, or of one longer document: at least one shard.

    Returns what the entry says of them. `stem` is the path of the first without its suffix.
    """
    size = full = 0

    def full_before(document: Document) -> int:
        """How many shards are full before this document."""
        nonlocal size, full
        size += len(document.text)
        if size > most and size > len(document.text):
            size, full = len(document.text), full + 1
        return full

    parts = []
    for number, part in groupby(documents, full_before):
        name = f"{stem.name}-{number:04d}" if number else stem.name
        parts.append(write_shard(stem.with_name(name + SUFFIX), part))
    parts = parts or [write_shard(stem.with_name(stem.name + SUFFIX), [])]
    return {
        "documents": sum(part["documents"] for part in parts),
        "characters": sum(part["characters"] for part in parts),
        "size": sum(part["size"] for part in parts),
        "files": {f"{part['name']}{SUFFIX}": part["sha256"] for part in parts},
        "parts": parts,
    }


def write_shard(path: Path, documents: Iterable[Document]) -> dict:
    """Write a shard, which appears whole or not at all; returns what is stated of it."""
    zstandard = library("zstandard", "the compression of shards")
    count = characters = 0
    with hashed_file(path) as file:
        compressor = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True)
        with compressor.stream_writer(file, closefd=False) as stream:
            for document in documents:
                stream.write(document.line())
                count += 1
                characters += len(document.text)
    return {
        "name": path.name.removesuffix(SUFFIX),
        "sha256": file.digest.hexdigest(),
        "size": file.size,
        "documents": count,
        "characters": characters,
    }
