"""Pages and texts of web archives: WARC, and WET, which holds their text; by FastWARC."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ..document import Document
from ..libraries import library
from ..tally import Tally
from .faults import NotText, TooLarge, count
from .pages import page_document
from .plain import decode
from .streams import COMPRESSED, MAX_FILE, RATIO, largest, opened

PAGES = ("text/html", "application/xhtml+xml")
GZIP, ZSTANDARD = COMPRESSED["gz"], COMPRESSED["zst"]
# From the bytes with which a file begins to those with which a compressed record begins in it. The
# last are those of a dictionary, which the records of an archive in zstandard may have in common.
MEMBERS = {GZIP: GZIP + b"\x08", ZSTANDARD: ZSTANDARD, b"\x5d\x2a\x4d\x18": ZSTANDARD}
KEPT = 2 * MAX_FILE  # bytes: more than is read of a record before it is known whether it is whole


def read_archive(path: Path, source: str, tally: Tally) -> Iterator[Document]:
    """The documents of a web archive, compressed or not, in the order of its records.

    Of a WARC file these are the pages and plain texts that a server answered with status 200, of a
    WET file all its texts. Other records of content are counted, as are those that are damaged or
    cut off: after such a one, reading goes on where the next seems to begin.
    """
    warc = library("fastwarc.warc", "reading web archives")
    kinds = warc.WarcRecordType
    wanted = (kinds.response, kinds.resource, kinds.conversion)
    number, place, left, failed = 0, 0, largest(path), False
    with _searchable(path) as (file, start):
        while place >= 0:
            file.seek(place)
            try:
                for record in warc.ArchiveIterator(file, parse_http=False):
                    number, place = number + (record.record_type in wanted), record.stream_pos
                    block = _block(record, left)
                    left -= record.content_length
                    if record.record_type not in wanted:
                        continue
                    where = f"{source}#{number}"
                    try:
                        document = _record_document(record, block, where)
                    except BaseException as error:  # whatever a library says of its content
                        count(error, where, tally)
                        continue
                    cut = "WARC-Truncated" in record.headers
                    tally.changed("page cut by the crawler", document, cut)
                    yield document
                if start == MEMBERS[GZIP] and not failed and is_cut_off(file, place):
                    count(ValueError("its last record is cut off"), source, tally)
                return
            except BaseException as error:  # whatever a library says of a damaged record
                count(error, f"{source}#{number}" if number else source, tally)
                failed = True
            place = _find(file, start, place + 1)


@contextmanager
def _searchable(path: Path) -> Iterator[tuple[BinaryIO | Rewindable, bytes]]:
    """What FastWARC reads, and the bytes with which a record begins in it.

    It decompresses gzip and zstandard itself, by records: so it can begin at any of them.
    """
    with open(path, "rb") as file:
        head = file.read(4)
        for magic, start in MEMBERS.items():
            if head.startswith(magic):
                yield file, start
                return
    with opened(path) as stream:
        yield stream if stream.seekable() else Rewindable(stream), b"WARC/1."


class Rewindable:
    """A stream of which the last `KEPT` bytes can be read again.

    >>> import io
    >>> stream = Rewindable(io.BytesIO(b"abcdef"))
    >>> stream.read(4), stream.seek(1), stream.read(4)
    (b'abcd', 1, b'bcde')
    """

    def __init__(self, stream: BinaryIO):
        self.stream = stream
        self.kept = bytearray()  # the last bytes that were read
        self.start = self.place = 0  # where they begin, and where the next read begins

    def read(self, size: int) -> bytes:
        missing = self.place + size - self.start - len(self.kept)
        if missing > 0:
            self.kept += self.stream.read(missing)
        begin = self.place - self.start
        data = bytes(self.kept[begin : begin + size])
        self.place += len(data)
        if len(self.kept) > 2 * KEPT:
            self.start += len(self.kept) - KEPT
            del self.kept[:-KEPT]
        return data

    def seek(self, place: int, whence: int = 0) -> int:
        """Go to a place, or to the first that is kept. Where that is, is returned."""
        if whence != 0:
            raise ValueError("places are counted from the beginning")
        self.place = max(self.start, min(place, self.start + len(self.kept)))
        return self.place

    def tell(self) -> int:
        return self.place


def is_cut_off(file: BinaryIO, place: int) -> bool:
    """Whether the gzip members from `place` on end before the last of them is whole.

    FastWARC does not tell a member of which it has nothing yet from the end of the file.
    """
    file.seek(place)
    member, data, ended = zlib.decompressobj(31), b"", place > 0
    while data := data or file.read(2**14):
        try:
            member.decompress(data)
        except zlib.error:  # what stands behind the last member, such as zeros
            return False
        data, ended = member.unused_data, member.eof
        if ended:
            member = zlib.decompressobj(31)
    return not ended


def _find(file: BinaryIO | Rewindable, what: bytes, place: int) -> int:
    """Where `what` occurs in a file at or after `place`; -1 if it does not."""
    file.seek(place)
    end = b""  # of the block before
    while block := file.read(2**20):
        found = (end + block).find(what)
        if found >= 0:
            return file.tell() - len(end) - len(block) + found
        end = (end + block)[-len(what) + 1 :]
    return -1


def _block(record, left: int) -> bytes:
    """The bytes of a record; of one with more than `MAX_FILE` the first `MAX_FILE + 1`.

    Raises ValueError where these are not the bytes that it says it has, and TooLarge if it says
    that there are more than `left`, which the file's records may have.
    """
    if "Content-Length" not in record.headers:
        raise ValueError("it does not say how long it is: it is damaged or cut off")
    stated = record.content_length
    if stated > left:
        raise TooLarge(f"it says that it has {stated:,} bytes: the file grows over {RATIO}-fold")
    block = record.reader.read(MAX_FILE + 1)
    if len(block) != min(stated, MAX_FILE + 1):
        raise ValueError(f"it has {len(block):,} bytes, but says that it has {stated:,}")
    if b"\r\n\r\nWARC/1." in block:
        raise ValueError("the next record begins within it: it lies about its length")
    return block


def _record_document(record, block: bytes, source: str) -> Document:
    """The document of a record. Raises NotText for one that is none by what the server said."""
    if len(block) > MAX_FILE:
        raise TooLarge(f"it has more than {MAX_FILE:,} bytes, the most that is read")
    url = record.headers.get("WARC-Target-URI") or ""
    if not record.is_http:
        return Document(decode(block), source, url)
    answer = _answer(block)
    status, kind = answer.http_headers.status_code, answer.http_content_type
    if status != 200 or kind not in (*PAGES, "text/plain"):
        raise NotText(f"the server answered {status} with {kind or 'no content type'}")
    content = answer.reader.read(MAX_FILE + 1)
    if len(content) > MAX_FILE:
        raise TooLarge(f"its content has more than {MAX_FILE:,} bytes, the most that is read")
    if kind == "text/plain":
        return Document(decode(content, answer.http_charset or ""), source, url)
    return page_document(content, source, url, answer.http_charset or "")


def _answer(block: bytes):
    """What a server answered, as a record of its own: its reader undoes compression and chunks.

    It is not the record of the archive, since FastWARC cannot go on after one that it cannot read.
    """
    answer = library("fastwarc.warc", "reading web archives").WarcRecord()
    answer.is_http = True
    answer.set_bytes_content(block)
    answer.parse_http(auto_decode="all")
    return answer
