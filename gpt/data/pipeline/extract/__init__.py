"""The first step: from files of many kinds to documents.

    .html .htm .xhtml      pages.py      the main text of a page
    .warc .wet             archives.py   pages and texts of web archives
    .xml                   wikipedia.py  a dump of a wiki; other XML is read as plain text
    .epub                  books.py      the chapters of a book
    .jsonl                 tables.py     columns of records
    .parquet               parquet.py    the same
    man pages              man.py        by their name and first lines
    everything else        plain.py      plain text, Markdown, source code

Any of them may be compressed (.gz, .bz2, .xz, .zst). What cannot be read is counted, and why.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path

from gpt.commandline import option

from ..document import MAX_TEXT, Document
from ..shards import SUFFIX, write_shards
from ..steps import Step, Unit
from ..tally import Tally
from .archives import read_archive
from .books import read_book
from .faults import NoText, TooLarge, count
from .inputs import File, system_docs_inputs, units_of
from .language import identified, known_languages
from .licences import name_of
from .man import MAN_NAME, MAN_START, read_man
from .pages import read_page
from .parquet import read_parquet
from .plain import decode, read_plain
from .streams import COMPRESSED, opened
from .tables import read_json_lines
from .wikipedia import read_dump

Reader = Callable[[Path, str, Tally], Iterator[Document]]
HEAD = 2**14  # bytes by which the kind of a file is told
LONGEST = {"source": 1000, "url": 2000, "licence": 100, "language": 20}  # characters of a field


@dataclass
class Settings:
    """What `extract` may be told. Raises ValueError for values that cannot be."""

    shard_mb: float = option(16.0, "a shard holds the text of about this many MB of files")
    languages: str = option("", "the languages to keep, such as en,de; all without")
    identify: bool = option(True, "find out the language of each document")
    separator: str = option("<|endoftext|>", "what divides the documents of a plain text file")
    text_column: str = option("text", "the column of the text, in JSON lines and Parquet")
    url_column: str = option("url", "the column of the address of a page, if there is one")
    licence_column: str = option("license", "the column of the licence, if there is one")
    language_column: str = option("language", "the column of the language, if there is one")
    licence: str = option("", "the licence of documents for which none is found")

    def __post_init__(self):
        if not 0 < self.shard_mb <= 2**20:
            raise ValueError(f"shard_mb is a number above 0, not {self.shard_mb}")
        if not self.text_column:
            raise ValueError("text_column is empty: name the column that holds the text")
        if self.languages and not self.identify:
            raise ValueError("languages are kept by what identify finds: leave it on")
        if unknown := set(self.kept_languages()) - set(known_languages() if self.languages else ()):
            raise ValueError(
                f"there is no language {', '.join(sorted(unknown))}: those that can be told apart "
                f"are {', '.join(known_languages())}"
            )

    def kept_languages(self) -> list[str]:
        return [code.strip() for code in self.languages.split(",") if code.strip()]

    def columns(self) -> dict[str, str]:
        """From fields of a document to the columns that hold them."""
        named = asdict(self).items()
        return {key.removesuffix("_column"): value for key, value in named if "_column" in key}


class Extract(Step):
    """Files and folders become documents; their text is what a reader of them would read."""

    name = "extract"
    version = 3
    libraries = "fastwarc mwparserfromhell py3langid pyarrow resiliparse"
    Settings = Settings

    def units(self, inputs: list[str]) -> list[Unit]:
        """Files in groups of about `shard_mb`. Raises FileNotFoundError for a missing input."""
        return units_of(inputs, int(self.settings.shard_mb * 2**20))

    def write(self, unit: Unit, stem: Path, tally: Tally) -> dict:
        """A large file becomes several shards, so that the steps that follow can divide it."""
        most = int(self.settings.shard_mb * 2**20)
        for path in stem.parent.glob(f"{stem.name}-[0-9]*{SUFFIX}"):
            path.unlink()  # a run that was killed wrote it, perhaps of what was here before
        return write_shards(stem, self.watched(unit, tally), most)

    def documents(self, unit: Unit, tally: Tally) -> Iterator[Document]:
        for file in unit.source:
            try:
                path = Path(file.path)
                reader = reader_of(path, self.settings)
                for document in reader(path, file.source, tally):
                    if self.complete(document, file, tally):
                        yield document
            except BaseException as error:
                count(error, file.source, tally)

    def complete(self, document: Document, file: File, tally: Tally) -> bool:
        """Fill in licence and language; False for a document that is left out, and counted."""
        document.text = storable(document.text)
        if not document.text.strip():
            count(NoText("it has no text in it"), document.source, tally)
            return False
        if len(document.text) > MAX_TEXT:
            error = TooLarge(f"it has {len(document.text):,} characters; at most {MAX_TEXT:,} go")
            count(error, document.source, tally)
            return False
        document.licence = document.licence or licence_in(file.licence) or self.settings.licence
        if self.settings.identify:
            document.language = document.language or identified(document.text)
        for field, longest in LONGEST.items():
            setattr(document, field, storable(getattr(document, field)[:longest]))
        kept = self.settings.kept_languages()
        if kept and document.language not in kept:
            tally.removed("language", document, f"{document.language}: {document.text}")
            return False
        return True


def storable(text: str) -> str:
    """The text, or what UTF-8 can hold of it: JSON may name halves of surrogate pairs."""
    try:
        text.encode("utf-8")
        return text
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


@lru_cache(maxsize=256)
def licence_in(path: str) -> str:
    """The name of the licence that a file of this name states; "" for none, and if unknown."""
    try:
        with open(path, "rb") as file:
            return name_of(decode(file.read(HEAD)))
    except OSError:  # there is none, or it has gone
        return ""


def reader_of(path: Path, settings: Settings) -> Reader:
    """What reads a file of this name and beginning."""
    name = path.name.lower()
    if "." in name and name.rpartition(".")[2] in COMPRESSED:
        name = name.rpartition(".")[0]
    suffix = name.rpartition(".")[2] if "." in name else ""
    columns = settings.columns()
    by_suffix = {
        **dict.fromkeys(("html", "htm", "xhtml"), read_page),
        **dict.fromkeys(("warc", "wet"), read_archive),
        **dict.fromkeys(("jsonl", "ndjson"), partial(read_json_lines, columns=columns)),
        "parquet": partial(read_parquet, columns=columns),
        "epub": read_book,
    }
    if suffix in by_suffix:
        return by_suffix[suffix]
    with opened(path) as stream:
        head = stream.read(HEAD).decode("utf-8", "replace").lstrip("\ufeff \t\r\n")
    if suffix == "xml" and "<mediawiki" in head:
        return read_dump
    if MAN_NAME.fullmatch(name) and MAN_START.match(head):
        return read_man
    if re.match(r"<!doctype html|<html", head, re.IGNORECASE):
        return read_page
    return partial(read_plain, separator=settings.separator)
