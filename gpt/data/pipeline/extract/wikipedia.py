"""Articles of MediaWiki's XML dumps, such as Wikipedia's, in plain text by mwparserfromhell.

Dumps are read by expat as a stream, in which an article at a time is kept. What declares entities
is refused: a dump has none, and their expansion can fill the memory. So can what expat keeps: a tag
or comment until it ends, the elements that are open, and all names.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlsplit
from xml.parsers import expat

from ..document import MAX_TEXT, Document
from ..libraries import library
from ..tally import Tally
from .faults import NotText, TooLarge, count
from .streams import opened

# The parser's time can grow with the square of what it is given, so that it gets a section at a
# time, and none that is longer than any section of prose.
MAX_SECTION = 2**16  # characters
MAX_OPEN = 100  # brackets of a kind that are open at a time
MAX_TAG = 2**20  # bytes of a tag or a comment of the dump
MAX_DEPTH = 100  # of its elements: a dump has 6 levels
MAX_NAMES = 1000  # of its elements and attributes: a dump has about 50
SECTION = re.compile(r"(?m)^(?==)")
# Projects of the Wikimedia foundation whose texts are under CC BY-SA 4.0 by its terms of use.
SHARED = re.compile(r"(?:wikipedia|wiktionary|wikibooks|wikiquote|wikiversity|wikivoyage)\.org$")
KEPT = {"title", "ns", "text", "base", "model", "redirect"}  # the elements whose text is used
LEFT_OUT = re.compile(  # links to pictures, categories, and the article in other languages
    r"\s*(?:file|image|category|datei|kategorie|fichier|catégorie|[a-z]{2,3})\s*:", re.IGNORECASE
)
BRACKETS = re.compile(r"\[\[|\{\{|\]\]|\}\}|\{\||<(?!br\b|hr\b)[a-zA-Z][^<>]*+(?<!/)>|</")
CLOSES = {"]]": "[", "}}": "{", "</": "<"}
MARKERS = re.compile(r"(?m)^[*#:;]+[ \t]*")  # of lists
# What is left out anyway is cut before parsing, where it takes most of the time: comments,
# references, templates and tables, those first that have none of their kind in them.
CUT = re.compile(
    r"<!--(?:(?!<!--|-->).)*+-->"
    r"|<ref\b[^<>]*+(?:(?<=/)>|(?<!/)>(?:(?!</?ref\b).)*+</ref\s*>)"
    r"|\{\{[^{}]*+\}\}"
    r"|^[ \t:*]*+\{\|(?:(?!^[ \t:*]*\{\||^[ \t]*\|\}).)*+^[ \t]*+\|\}(?!\})",
    re.DOTALL | re.MULTILINE | re.IGNORECASE,
)
NESTED = 8  # passes: how deeply these may be in each other
LEFT_OUT_TAGS = {"ref", "table", "gallery", "math", "timeline", "references"}


class _Dump:
    """What expat calls: collects the fields of an article, and articles that are complete."""

    def __init__(self):
        self.fields: dict[str, str] = {}  # of the article at hand
        self.complete: list[dict[str, str]] = []
        self.base = ""  # the address of the wiki's main page
        self.language = ""
        self.text: io.StringIO | None = None  # of an element that is kept
        self.size = 0
        self.depth = 0
        self.parser = expat.ParserCreate()
        self.parser.buffer_text = True
        self.parser.StartElementHandler = self.start
        self.parser.EndElementHandler = self.end
        self.parser.CharacterDataHandler = self.characters
        self.parser.EntityDeclHandler = self.entity

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise TooLarge(f"its elements are nested more than {MAX_DEPTH} deep")
        if name == "mediawiki":
            self.language = attributes.get("xml:lang", "")
        elif name == "page":
            self.fields = {}
        elif name == "redirect":
            self.fields["redirect"] = attributes.get("title", "") or "?"
        if name in KEPT:
            self.text, self.size = io.StringIO(), 0

    def characters(self, data: str) -> None:
        if self.text is not None:
            self.size += len(data)
            if self.size <= MAX_TEXT:
                self.text.write(data)

    def end(self, name: str) -> None:
        self.depth -= 1
        if name in KEPT and self.text is not None:
            text, self.text = self.text.getvalue(), None
            if name == "base":
                self.base = text
            elif name != "redirect":
                self.fields[name] = text
            if self.size > MAX_TEXT:
                self.fields["too long"] = f"{self.size:,} characters"
        elif name == "page":
            self.complete.append(self.fields)
            self.fields = {}

    def entity(self, name: str, *_) -> None:
        raise ValueError(f"it declares the entity {str(name)[:50]!r}, which no dump does")


def read_dump(path: Path, source: str, tally: Tally) -> Iterator[Document]:
    """The articles of a dump, compressed or not: pages of namespace 0 that do not lead to others.

    Raises ValueError where the file is no XML, is cut off or declares entities, and TooLarge where
    it has longer tags, more levels or more names than the limits above: what stood before has been
    given by then.
    """
    dump, size = _Dump(), 0
    with opened(path) as stream:
        while True:
            block = stream.read(2**18)
            size += len(block)
            try:
                dump.parser.Parse(block, not block)
            except expat.ExpatError as error:
                raise ValueError(f"it is not a whole XML file: {error}") from None
            finally:
                yield from _documents(dump, source, tally)
            if not block:
                return
            if size - dump.parser.CurrentByteIndex > MAX_TAG:  # which expat keeps until it ends
                raise TooLarge(f"it has a tag or comment of more than {MAX_TAG:,} bytes")
            if len(dump.parser.intern) > MAX_NAMES:
                raise TooLarge(f"it has more than {MAX_NAMES:,} names of elements and attributes")


def _documents(dump: _Dump, source: str, tally: Tally) -> Iterator[Document]:
    """The documents of the articles that are complete, which are then forgotten."""
    host = urlsplit(dump.base).hostname or ""
    licence = "CC-BY-SA-4.0" if SHARED.search(host) else ""
    for fields in dump.complete:
        title = fields.get("title", "")
        where = f"{source}#{title}"
        if fields.get("ns", "0") != "0" or "redirect" in fields:
            continue
        if fields.get("model", "wikitext") != "wikitext" or "too long" in fields:
            count(_refusal(fields), where, tally)
            continue
        document = Document("", where, licence=licence, language=dump.language)
        if host:
            document.url = f"https://{host}/wiki/{quote(title.replace(' ', '_'))}"
        try:
            document.text = plain_text(title, fields.get("text", ""), document, tally)
        except BaseException as error:  # whatever the parser says of markup that it cannot read
            count(error, where, tally)
            continue
        yield document
    dump.complete = []


def _refusal(fields: dict[str, str]) -> ValueError:
    if "too long" in fields:
        return TooLarge(f"it has {fields['too long']}; at most {MAX_TEXT:,} are read")
    return NotText(f"its content is {fields['model'][:50]!r}, not wikitext")


def plain_text(title: str, markup: str, document: Document, tally: Tally) -> str:
    """An article's text without markup, tables, references, pictures and templates.

    Sections that are too long or have too many brackets that stay open are counted and left out.
    """
    parts = [title]
    for _ in range(NESTED):
        markup = CUT.sub("", markup)
    markup = MARKERS.sub("", markup)
    for section in SECTION.split(markup):
        if len(section) > MAX_SECTION or _open(section) > MAX_OPEN:
            tally.changed("section too long to parse", document, detail=section)
            continue
        parts.append(_stripped(section))
    text = "\n\n".join(part for part in parts if part)
    return re.sub(r"\n{3,}", "\n\n", text)


def _open(section: str) -> int:
    """The most brackets or tags of one kind that are open at a time."""
    levels, most = dict.fromkeys("[{<", 0), 0
    for bracket in BRACKETS.findall(section):
        if bracket in CLOSES:
            levels[CLOSES[bracket]] -= levels[CLOSES[bracket]] > 0
        else:
            levels[bracket[0]] += 1
            most = max(most, levels[bracket[0]])
    return most


def _stripped(section: str) -> str:
    wiki = library("mwparserfromhell", "reading wiki markup")
    code = wiki.parse(section, skip_style_tags=True)
    for node in code.filter_wikilinks(recursive=False):
        if LEFT_OUT.match(str(node.title)):
            code.remove(node)
    for tag in code.filter_tags(recursive=True):
        if str(tag.tag).lower() in LEFT_OUT_TAGS:
            try:
                code.remove(tag)
            except ValueError:  # it was in one that has been removed
                pass
    text = code.strip_code(normalize=True, collapse=True)
    text = text.replace("'''", "").replace("''", "")
    return re.sub(r"[ \t]*\n[ \t]*", "\n", text).strip()
