"""The user's own lists: words that no document may have, and domains that none may come from."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from ..document import Document

MAX_BYTES = 64 * 2**20
UNSPACED = frozenset(["ja", "th", "zh"])  # languages without spaces: words are found anywhere


@dataclass
class Words:
    """Words and phrases, in small letters. A document has one if no letter or digit touches it.

    C4 leaves out pages so, with a list of its own (Raffel et al., 2020, section 2.2); datatrove's
    filter of bad words gives the same verdicts for the same list.
    """

    entries: list[str]
    single: frozenset[str] = field(init=False)  # those of letters and digits alone: looked up
    others: list[str] = field(init=False)  # those with spaces or signs: searched

    def __post_init__(self):
        self.single = frozenset(entry for entry in self.entries if re.fullmatch(r"\w+", entry))
        self.others = [entry for entry in self.entries if entry not in self.single]

    def found_in(self, document: Document) -> str:
        """The first entry, by the alphabet, that the document has; "" for none."""
        text = document.text.lower()
        if document.language in UNSPACED:
            return min((entry for entry in self.entries if entry in text), default="")
        found = list(self.single.intersection(re.findall(r"\w+", text))) if self.single else []
        found += [e for e in self.others if e in text and stands_alone(e, text)]
        return min(found, default="")


def stands_alone(entry: str, text: str) -> bool:
    """Whether an entry occurs in a text with no letter, digit or underscore beside it."""
    return bool(re.search(rf"(?:\W|^){re.escape(entry)}(?:\W|$)", text))


@dataclass
class Domains:
    """Domains, in small letters: a document is from one if its address is in it or below it."""

    entries: list[str]

    def __post_init__(self):
        self.known = frozenset(entry.removeprefix("www.").strip(".") for entry in self.entries)

    def found_in(self, document: Document) -> str:
        """The domain of the list that the document's address is in; "" for none.

        >>> Domains(["example.org"]).found_in(Document("", "", url="http://a.example.org/b"))
        'example.org'
        """
        host = host_of(document.url)
        while host and host not in self.known:
            host = host.partition(".")[2]
        return host


def host_of(url: str) -> str:
    """The host of an address, in small letters; "" where it has none."""
    try:
        return (urlsplit(url).hostname or "").strip(".") if url else ""
    except ValueError:  # http://[broken
        return ""


def read_list(path: str, what: str) -> list[str]:
    """The entries of a file, one a line, in small letters; empty lines and those with # are none.

    Raises FileNotFoundError if there is no such file, and ValueError for one that is no list.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"there is no file {path} of {what} to block, one a line")
    if file.stat().st_size > MAX_BYTES:
        raise ValueError(
            f"{path} has {file.stat().st_size:,} bytes; a list of {what} has at most {MAX_BYTES:,}"
        )
    try:
        lines = file.read_text("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}, the list of {what}, is not UTF-8: {error}") from None
    entries = sorted({line.strip().lower() for line in lines if not line.startswith("#")} - {""})
    if not entries:
        raise ValueError(f"{path} is empty; a list of {what} to block has one a line")
    return entries
