"""The main text of HTML pages, by resiliparse (Bevendorff et al., Elastic ChatNoir, 2018)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from ..document import Document
from ..libraries import library
from ..tally import Tally
from .faults import NotText, TooLarge
from .licences import name_of
from .plain import decode, is_binary, unknown
from .streams import read_whole

# Elements in elements. The time that a parser needs grows with the square of it, so that a page
# made for the purpose takes minutes; browsers stop at 512.
MAX_DEPTH = 512
MAX_PAGE = 2**23  # bytes
MAX_TAGS = 2**19  # of a page: each takes about 600 bytes in memory
MAX_ATTRIBUTES = 1024  # of an element: here, too, the time grows with the square
TAG = re.compile(r"<(/?)([a-zA-Z][^\s/>]*)")
DRAWN_TAG = re.compile(r"<(/?)([a-zA-Z][^\s/>]*)(?:[^<>]*(/)>)?")
DECLARED = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([\w.:-]{1,40})", re.IGNORECASE)
LINK = re.compile(r"<(?:link|a)\b([^>]{1,1000})>", re.IGNORECASE)
META = re.compile(r"<meta\b([^>]{1,1000})>", re.IGNORECASE)
ATTRIBUTE = re.compile(r"(?<![\w:-])([\w:-]++)\s*+=\s*+(?:\"([^\"]*)\"|'([^']*)'|([^\s\"'>]+))")
HEAD = 2**15  # characters in which a page says of itself what it is
# Elements that have no content, or that the next of their kind ends: they do not nest.
FLAT = set(
    "area base br col embed hr img input link meta source track wbr param p li dt dd option tr td "
    "th thead tbody tfoot html head body colgroup optgroup rp rt".split()
)
# In drawings and formulas "/>" ends an element; in HTML it means nothing.
DRAWN = set(
    "svg g path rect circle ellipse line polyline polygon use stop image text tspan defs title "
    "desc style symbol mask pattern filter marker animate lineargradient radialgradient clippath "
    "math mi mo mn ms mtext mspace mrow mfrac msqrt mroot mstyle msub msup msubsup munder mover "
    "munderover mtable mtr mtd mprescripts none semantics annotation".split()
)


def depth(html: str) -> int:
    """How deeply the elements of a page may be nested, counted until it is more than `MAX_DEPTH`.

    These are the elements that are opened and not closed: parsers close some of them earlier.

    >>> depth("<div><p>One<p>Two<br><div><b>Three</b></div></div>")
    3
    """
    deepest = _unclosed(TAG.findall(html))
    if deepest > MAX_DEPTH:  # seldom: it may be a drawing, whose elements end with "/>"
        deepest = _unclosed(DRAWN_TAG.findall(html))
    return deepest


def _unclosed(tags: list[tuple[str, ...]]) -> int:
    """The most elements that are open at a time, by tags of (slash before, name, slash behind)."""
    opened: dict[str, int] = {}  # of each name: a tag that closes nothing must not count
    deepest = level = 0
    drawing = False
    for closing, name, *ended in tags:
        name = name.lower()
        if name in FLAT:
            drawing = False
        elif closing:
            if opened.get(name):
                opened[name] -= 1
                level -= 1
        else:
            drawing = name in ("svg", "math") or drawing and name in DRAWN
            if drawing and ended and ended[0]:
                continue
            opened[name] = opened.get(name, 0) + 1
            level += 1
            if level > deepest:
                deepest = level
                if deepest > MAX_DEPTH:
                    break
    return deepest


def attributes(html: str) -> int:
    """About how many attributes the tag with most of them has; 0 for pages without long tags."""
    most = 0
    for piece in html.split(">"):
        if len(piece) > 2 * MAX_ATTRIBUTES and (tag := re.search("<[a-zA-Z]", piece)):
            bare = re.sub("\"[^\"]*\"|'[^']*'", "'", piece[tag.start() :])  # without their values
            most = max(most, len(re.findall(r"[\s/']+", bare)))
    return most


def page_document(
    data: bytes, source: str, url: str = "", declared: str = "", main_only: bool = True
) -> Document:
    """The document of a page: its main text without menus, headers and footers.

    With `main_only` False it is all text. `declared` is the encoding that a server named, which
    goes before the page's own. The licence, and the address if `url` is empty, are what the page
    says of itself, by `rel=license` and `rel=canonical`.

    Raises NotText for what is not text, and TooLarge for a page with more bytes or tags,
    nested more deeply or with more attributes in a tag than the limits above.
    """
    if len(data) > MAX_PAGE:
        raise TooLarge(f"it has {len(data):,} bytes; at most {MAX_PAGE:,} of a page are read")
    if is_binary(data):
        raise NotText("it has zero bytes, so it is no page")
    own = DECLARED.search(data, 0, HEAD)
    html = decode(data, declared or (own[1].decode("ascii", "replace") if own else ""))
    if max(html.count("<"), html.count(">")) > MAX_TAGS:
        raise TooLarge(f"it has more than {MAX_TAGS:,} tags")
    if depth(html) > MAX_DEPTH:
        raise TooLarge(f"its elements are nested more than {MAX_DEPTH} deep")
    if attributes(html) > MAX_ATTRIBUTES:
        raise TooLarge(f"an element has more than {MAX_ATTRIBUTES} attributes")
    tree = library("resiliparse.parse.html", "reading HTML").HTMLTree.parse(html)
    extract = library("resiliparse.extract.html2text", "reading HTML").extract_plain_text
    text = extract(tree, main_content=main_only, alt_texts=False)
    licence, address = _links(html)
    return Document(text, source, url or address, licence)


def _links(html: str) -> tuple[str, str]:
    """The licence and the address that a page gives for itself."""
    licence = address = ""
    for tag in chain(LINK.finditer(html), META.finditer(html, 0, HEAD)):
        lower = tag[1].lower()
        if "licen" not in lower and "rights" not in lower and "canonical" not in lower:
            continue
        values = {name.lower(): a or b or c for name, a, b, c in ATTRIBUTE.findall(tag[1])}
        what = (values.get("rel", "") or values.get("name", "")).lower().split()
        if "canonical" in what:
            address = address or values.get("href", "")
        elif {"license", "licence", "dcterms.license", "dcterms.rights", "rights"} & set(what):
            licence = licence or name_of(values.get("href", "") or values.get("content", ""))
    return licence, address


def read_page(path: Path, source: str, tally: Tally) -> Iterator[Document]:
    """The document of an HTML file. Raises as `page_document` and `read_whole` do."""
    data = read_whole(path)
    document = page_document(data, source)
    tally.changed("unknown bytes", document, unknown(data, document.text))
    yield document
