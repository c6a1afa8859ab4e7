"""The bytes of a file, decompressed on the way, within limits.

A compressed file of a few kilobytes can hold terabytes. So what is read whole has a size that it
may not exceed, and what is read as a stream may grow only so much by decompression.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ..libraries import library
from .faults import TooLarge

MAX_FILE = 2**24  # bytes of a page or another file that is read whole, decompressed
RATIO = 250  # a stream may be this many times as large as the file: text is less than 100 times
ALLOWANCE = 2**26  # and has this many bytes more

COMPRESSED = {"gz": b"\x1f\x8b", "bz2": b"BZh", "xz": b"\xfd7zXZ\0", "zst": b"\x28\xb5\x2f\xfd"}


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """The decompressed bytes of a file; its first bytes tell whether and how it is compressed.

    Reading raises ValueError for compressed data that are damaged or cut off, and TooLarge where
    they grow to more than `RATIO` times the file's size and `ALLOWANCE` bytes.
    """
    with open(path, "rb") as file:
        head = file.read(8)
        file.seek(0)
        kind = next((k for k, magic in COMPRESSED.items() if head.startswith(magic)), "")
        if not kind:
            yield file
            return
        with _decompressed(path, file, kind) as inner:
            yield io.BufferedReader(_Limited(inner, kind, largest(path)), 2**18)


def largest(path: Path) -> int:
    """To how many bytes a file may grow where it is decompressed."""
    return RATIO * path.stat().st_size + ALLOWANCE


def _decompressed(path: Path, file: BinaryIO, kind: str):
    if kind == "zst":  # the reader of zstandard takes a file that is cut off for a whole one
        return library("pyarrow", "reading .zst files").input_stream(str(path), compression="zstd")
    return {"gz": gzip, "bz2": bz2, "xz": lzma}[kind].open(file, "rb")


class _Limited(io.RawIOBase):
    """A stream that ends in an error after `limit` bytes."""

    def __init__(self, inner, kind: str, limit: int):
        self.inner, self.kind, self.limit = inner, kind, limit

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        try:
            data = self.inner.read(len(buffer))
        except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
            raise ValueError(f"its {self.kind} data are damaged or cut off: {error}") from None
        self.limit -= len(data)
        if self.limit < 0:
            raise TooLarge(f"its {self.kind} data grow to more than {RATIO} times their size")
        buffer[: len(data)] = data
        return len(data)


def read_limited(stream, limit: int = MAX_FILE) -> bytes:
    """All bytes of a stream. Raises TooLarge where there are more than `limit`."""
    blocks, size = [], 0
    while block := stream.read(2**20):
        blocks.append(block)
        size += len(block)
        if size > limit:
            raise TooLarge(f"it has more than {limit:,} bytes, the most that is read")
    return b"".join(blocks)


def read_whole(path: Path) -> bytes:
    """All bytes of a file, decompressed. Raises TooLarge where there are more than `MAX_FILE`."""
    with opened(path) as stream:
        return read_limited(stream)
