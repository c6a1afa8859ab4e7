"""Lines that occur in many documents of one site: menus, footers, notices of licences.

In a first pass each shard gives the hashes of its lines, counted once a document; then the counts
of all shards are added up, a part of the hashes at a time, so that memory is bounded; and what is
kept is a table of the hashes that are frequent, 16 bytes each. The count of a site's documents is
that of a line which all of them have, the empty one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..arrays import open_array, save
from ..code import is_code
from ..document import Document
from ..filter.blocklist import host_of

PART = 2**21  # (hash, count) pairs that are added up at a time, which takes about 200 MB
FOLD = 2**20  # hashes of lines that are kept before equal ones are counted together


def site_of(document: Document) -> str:
    """The host of the document's address or, if it has none, the first folder of its source.

    >>> site_of(Document("", "numpy/a/b.html")), site_of(Document("", "x", "http://a.org/b"))
    ('numpy', 'a.org')
    """
    return host_of(document.url) or document.source.partition("#")[0].partition("/")[0]


def line_hashes(site: str, lines: list[str]) -> np.ndarray:
    """(lines,) uint64 hashes of lines of a site, without the white space around them."""
    start = hashlib.blake2b(site.encode("utf-8", "surrogatepass") + b"\0", digest_size=8)
    digests = bytearray()
    for line in lines:
        state = start.copy()
        state.update(line.strip().encode("utf-8", "surrogatepass"))
        digests += state.digest()
    return np.frombuffer(digests, "<u8")


class Counts(NamedTuple):
    """Hashes in their order, (n,) uint64, and in how many documents each occurs, (n,) uint32."""

    hashes: np.ndarray
    documents: np.ndarray

    def save(self, path: Path) -> None:
        """Write one array (2, n) of uint64: hashes, documents."""
        save(path, np.stack([self.hashes, self.documents.astype(np.uint64)]))

    @classmethod
    def load(cls, path: Path) -> Counts:
        """What `save` wrote; the file stays where it is and is read as far as it is used."""
        both = open_array(path)
        return cls(both[0], both[1])


def added(hashes: np.ndarray, documents: np.ndarray) -> Counts:
    """Counts in which each hash occurs once, from some in which it may occur several times."""
    unique, which = np.unique(hashes, return_inverse=True)
    return Counts(unique, np.bincount(which, documents, len(unique)).astype(np.uint32))


def count_lines(documents: Iterable[Document]) -> Counts:
    """In how many of the documents each line of their sites occurs; source code is left out."""
    total, waiting, size = Counts(np.zeros(0, np.uint64), np.zeros(0, np.uint32)), [], 0

    def fold() -> Counts:
        hashes = np.concatenate([total.hashes, *waiting])
        ones = np.ones(size, np.uint32)
        return added(hashes, np.concatenate([total.documents, ones]))

    for document in documents:
        if not is_code(document):
            lines = {line.strip() for line in document.text.split("\n")} | {""}
            waiting.append(np.sort(line_hashes(site_of(document), list(lines))))
            size += len(waiting[-1])
            if size > max(FOLD, len(total.hashes)):
                total, waiting, size = fold(), [], 0
    return fold()


def frequent(paths: list[Path], documents: int) -> Counts:
    """The hashes that occur in at least so many documents of all shards, and their counts.

    The hashes are taken in parts of equal range, of about `PART` pairs each.
    """
    files = [(path, array.offset, array.shape[1]) for path, array in opened(paths)]
    parts = sum(n for _, _, n in files) // PART + 1
    edges = [2**64 * i // parts for i in range(1, parts)]
    bounds = [bounds_in(array[0], edges) for _, array in opened(paths)]
    found = []
    for i in range(parts):
        some = [part_of(*file, *bound[i : i + 2]) for file, bound in zip(files, bounds)]
        counts = added(*np.concatenate(some, axis=1))
        often = counts.documents >= documents
        found.append(Counts(counts.hashes[often], counts.documents[often]))
    return Counts(*(np.concatenate(of_parts) for of_parts in zip(*found)))


def opened(paths: list[Path]) -> Iterator[tuple[Path, np.memmap]]:
    """The files, one after another: not all can be mapped at a time."""
    return ((path, open_array(path)) for path in paths)


def bounds_in(hashes: np.ndarray, edges: list[int]) -> list[int]:
    """Where the hashes that are not below each edge begin, with 0 before and n behind."""
    return [0, *(int(np.searchsorted(hashes, np.uint64(edge))) for edge in edges), len(hashes)]


def part_of(path: Path, offset: int, n: int, begin: int, end: int) -> np.ndarray:
    """The columns from `begin` to `end` of (2, n) numbers, which are at `offset` in a file.

    They are read, and not mapped: the pages of what is mapped stay in memory.
    """
    places = (offset + 8 * (row * n + begin) for row in range(2))
    return np.stack([np.fromfile(path, np.uint64, end - begin, offset=place) for place in places])


def look_up(table: Counts, hashes: np.ndarray) -> np.ndarray:
    """In how many documents each hash occurs, by the table; 0 for those that are not in it."""
    if not len(table.hashes):
        return np.zeros(len(hashes), np.uint64)
    where = np.minimum(np.searchsorted(table.hashes, hashes), len(table.hashes) - 1)
    return np.where(table.hashes[where] == hashes, table.documents[where], 0)


def cut(document: Document, table: Counts, documents: int, share: float) -> tuple[str, list[str]]:
    """The document's text without boilerplate, and the lines that were cut.

    A line is boilerplate if it is in at least `documents` documents of its site, and in at least
    `share` of all that the site has.
    """
    if is_code(document):
        return document.text, []
    site, lines = site_of(document), document.text.split("\n")
    counts = look_up(table, line_hashes(site, ["", *lines]))
    if counts[0] < documents:  # the site has not as many documents
        return document.text, []
    often = (counts[1:] >= max(documents, share * int(counts[0]))).tolist()
    gone = [line for line, is_cut in zip(lines, often) if is_cut and line.strip()]
    if not gone:
        return document.text, []
    kept = [line for line, is_cut in zip(lines, often) if not (is_cut and line.strip())]
    return "\n".join(kept), gone
