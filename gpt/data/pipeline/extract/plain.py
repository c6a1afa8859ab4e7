"""Text that needs no more than its encoding: plain text, Markdown, source code."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from pathlib import Path

from ..document import Document
from ..libraries import library
from ..tally import Tally
from .faults import NotText
from .licences import declared_in
from .streams import read_whole

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


def is_binary(data: bytes) -> bool:
    """Whether the bytes have zeros, as pictures and programs do; UTF-16 with its mark is text."""
    marked = any(data.startswith(mark) for mark in MARKS)
    return not marked and b"\0" in data


def read_plain(path: Path, source: str, tally: Tally) -> Iterator[Document]:
    """The document of a text file. Raises NotText, or TooLarge."""
    data = read_whole(path)
    if is_binary(data):
        raise NotText("it has zero bytes, so it is not text")
    text = decode(data)
    document = Document(text, source, licence=declared_in(text))
    tally.changed("bytes that no encoding explains", document, text.count("\ufffd"))
    yield document
