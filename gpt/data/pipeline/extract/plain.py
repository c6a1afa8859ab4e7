"""Text that needs no more than its encoding: plain text, Markdown, source code."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from pathlib import Path

from ..document import Document
from ..libraries import library
from ..tally import Tally
from .faults import NotText, TooLarge, count
from .licences import declared_in
from .streams import MAX_FILE, opened

HEAD = 2**17  # bytes by which an encoding is guessed
MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}


def decode(data: bytes, declared: str = "") -> str:
    """The text of some bytes.

    A byte order mark decides. What is valid UTF-8 is UTF-8, whatever is declared: texts in other
    encodings that happen to be valid UTF-8 are hardly found, wrong declarations often. Otherwise
    the encoding is the one declared, if the bytes are valid in it, or else what resiliparse guesses
    from them. Bytes that are not valid then become U+FFFD.

    >>> decode("größer".encode("utf-8"), "latin-1"), decode("größer".encode("latin-1"), "utf-8")
    ('größer', 'größer')
    """
    for mark, name in MARKS.items():
        if data.startswith(mark):
            return data[len(mark) :].decode(name, "replace")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        pass
    encodings = library("resiliparse.parse.encoding", "guessing encodings")
    named = encodings.map_encoding_to_html5(declared, fallback_utf8=False) if declared else None
    for name in (named, encodings.detect_encoding(data, max_len=HEAD)):
        try:
            if name and name != "utf-8":
                return data.decode(name)
        except (UnicodeDecodeError, LookupError):
            pass
    return data.decode("utf-8", "replace")


def unknown(data: bytes, text: str) -> int:
    """How many U+FFFD are in the text of some bytes that are not in the bytes themselves."""
    return max(text.count("\ufffd") - data.count("\ufffd".encode()), 0)


def is_binary(data: bytes) -> bool:
    """Whether the bytes have zeros, as pictures and programs do; UTF-16 with its mark is text."""
    marked = any(data.startswith(mark) for mark in MARKS)
    return not marked and b"\0" in data


def pieces(stream, separator: bytes) -> Iterator[bytes]:
    """The parts of a stream of bytes that `separator` divides; with b"" all of it is one part.

    Of a part that has more than `MAX_FILE` bytes, the first `MAX_FILE + 1` are given.
    """
    part = b""
    while block := stream.read(2**20):
        *whole, part = (part + block).split(separator) if separator else [part + block]
        yield from (piece[: MAX_FILE + 1] for piece in whole)
        if len(part) > MAX_FILE + len(separator):  # keep the end: a separator may begin in it
            part = part[: MAX_FILE + 1] + part[len(part) - len(separator) :]
    yield part[: MAX_FILE + 1]


def read_plain(path: Path, source: str, tally: Tally, separator: str) -> Iterator[Document]:
    """The documents of a text file, which `separator` divides, compressed or not."""
    with opened(path) as stream:
        for number, data in enumerate(pieces(stream, separator.encode()), 1):
            if not data.strip() and number > 1:
                continue  # behind the last separator
            where = source if number == 1 else f"{source}#{number}"
            try:
                document = _plain_document(data, where)
            except (NotText, TooLarge) as error:
                count(error, where, tally)
                continue
            tally.changed("unknown bytes", document, unknown(data, document.text))
            yield document


def _plain_document(data: bytes, source: str) -> Document:
    if is_binary(data):
        raise NotText("it has zero bytes, so it is not text")
    if len(data) > MAX_FILE:
        raise TooLarge(f"it has more than {MAX_FILE:,} bytes, the most that is read")
    text = decode(data)
    return Document(text, source, licence=declared_in(text))
