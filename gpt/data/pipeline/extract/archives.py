"""Pages and texts of web archives: WARC, and WET, which holds their text; by FastWARC."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from ..document import Document
from ..libraries import library
from ..tally import Tally
from .faults import NotText, TooLarge, count
from .pages import page_document
from .plain import decode
from .streams import MAX_FILE

PAGES = ("text/html", "application/xhtml+xml")


def read_archive(path: Path, source: str, tally: Tally) -> Iterator[Document]:
    """The documents of a web archive, compressed or not, in the order of its records.

    Of a WARC file these are the pages and plain texts that a server answered with status 200, of a
    WET file all its texts. Other records of content are counted, as are those that are damaged:
    after such a one, reading goes on where the next seems to begin.
    """
    warc = library("fastwarc.warc", "reading web archives")
    kinds = warc.WarcRecordType
    wanted = kinds.response | kinds.resource | kinds.conversion
    number, place = 0, 0
    with open(path, "rb") as file:
        start = b"\x1f\x8b\x08" if file.read(2) == b"\x1f\x8b" else b"WARC/1."
        while place >= 0:
            file.seek(place)
            try:
                for record in warc.ArchiveIterator(file, record_types=wanted, auto_decode="all"):
                    number, place = number + 1, record.stream_pos
                    try:
                        document = _record_document(record, f"{source}#{number}")
                    except (NotText, TooLarge) as error:
                        count(error, f"{source}#{number}", tally)
                        continue
                    yield document
                return
            except BaseException as error:  # whatever a library says of a damaged record
                count(error, f"{source}#{number}" if number else source, tally)
            place = _find(file, start, place + 1)


def _find(file: BinaryIO, what: bytes, place: int) -> int:
    """Where `what` occurs in a file at or after `place`; -1 if it does not."""
    file.seek(place)
    end = b""  # of the block before
    while block := file.read(2**20):
        found = (end + block).find(what)
        if found >= 0:
            return file.tell() - len(end) - len(block) + found
        end = (end + block)[-len(what) + 1 :]
    return -1


def _record_document(record, source: str) -> Document:
    """The document of a record. Raises NotText for one that is none by what the server said."""
    stated = record.content_length
    data = record.reader.read(MAX_FILE + 1)
    if len(data) > MAX_FILE:
        raise TooLarge(f"it has more than {MAX_FILE:,} bytes, the most that is read")
    if not record.is_http and len(data) != stated:
        raise ValueError(f"it has {len(data):,} bytes, but says that it has {stated:,}")
    if b"\r\n\r\nWARC/1." in data:
        raise ValueError("the next record begins within it: it lies about its length")
    url = record.headers.get("WARC-Target-URI") or ""
    if not record.is_http:
        return Document(decode(data), source, url)
    status, kind = record.http_headers.status_code, record.http_content_type
    if status != 200 or kind not in (*PAGES, "text/plain"):
        raise NotText(f"the server answered {status} with {kind or 'no content type'}")
    if kind == "text/plain":
        return Document(decode(data, record.http_charset or ""), source, url)
    return page_document(data, source, url, record.http_charset or "")
