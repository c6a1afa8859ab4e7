"""Books in EPUB: a zip archive of XHTML pages, and a list of their order."""

from __future__ import annotations

import posixpath
import zipfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree

from ..document import MAX_TEXT, Document
from ..tally import Tally
from .faults import TooLarge, count
from .licences import name_of
from .pages import page_document
from .streams import MAX_FILE, RATIO, largest, read_limited

MAX_MEMBERS = 20_000
MAX_INDEX = 2**22  # bytes of the files of a book that list others
CONTAINER = "META-INF/container.xml"


def read_book(path: Path, source: str, tally: Tally) -> Iterator[Document]:
    """The document of a book: its chapters in their order.

    Raises ValueError for a file that is no book, TooLarge for one with more than `MAX_TEXT`
    characters, or whose chapters grow to more than `RATIO` times its size. A chapter that cannot be
    read is counted and left out.
    """
    with zipfile.ZipFile(path) as book:
        if len(book.infolist()) > MAX_MEMBERS:
            raise TooLarge(f"it has more than {MAX_MEMBERS:,} files in it")
        root = _xml(book, CONTAINER).find(".//{*}rootfile")
        if root is None:
            raise ValueError(f"its {CONTAINER} names no package")
        package_name = root.get("full-path", "")
        package = _xml(book, package_name)
        chapters, characters, size = [], 0, 0
        for name in _spine(package, posixpath.dirname(package_name)):
            if size > largest(path):
                raise TooLarge(f"its chapters grow to more than {RATIO} times its size")
            try:
                with book.open(name) as member:
                    data = read_limited(member, MAX_FILE)
                size += len(data)
                page = page_document(data, source, main_only=False)
            except BaseException as error:  # zipfile has many kinds for damaged members
                count(error, f"{source}#{name}", tally)
                if isinstance(error, TooLarge):
                    size += MAX_FILE  # this much may have been read before
                continue
            chapters.append(page.text.strip())
            characters += len(page.text)
            if characters > MAX_TEXT:
                raise TooLarge(f"it has more than {MAX_TEXT:,} characters")
        text = "\n\n".join(chapter for chapter in chapters if chapter)
        yield Document(text, source, licence=name_of(package.findtext(".//{*}rights") or ""))


def _spine(package: ElementTree.Element, folder: str) -> list[str]:
    """The names of a book's pages, in the order in which they are read, each once."""
    items = {item.get("id"): item.get("href", "") for item in package.iterfind(".//{*}item")}
    pages = [items.get(ref.get("idref"), "") for ref in package.iterfind(".//{*}itemref")]
    names = [posixpath.normpath(posixpath.join(folder, unquote(page))) for page in pages if page]
    return list(dict.fromkeys(names))


def _xml(book: zipfile.ZipFile, name: str) -> ElementTree.Element:
    """The root of a small XML file. Raises ValueError for one that declares entities."""
    with book.open(name) as member:
        data = read_limited(member, MAX_INDEX)
    if b"<!ENTITY" in data or b"\0" in data:  # zero bytes: UTF-16, which could hide a declaration
        raise ValueError(f"its {name} declares entities or is not in UTF-8")
    return ElementTree.fromstring(data)
