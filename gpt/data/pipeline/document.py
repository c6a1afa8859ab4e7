"""A document on its way from a page to tokens: its text, and where it came from."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

MAX_TEXT = 2**24  # characters of a document; longer ones are counted and left out


@dataclass(slots=True)
class Document:
    """The text of a page, an article or a file.

    `source` says where it came from: the path of a file below the folder that was given, with the
    record's number or title after "#" where a file holds several. `url` is the page's address,
    `licence` what the source declares, `language` an ISO 639-1 code such as "en"; "" is unknown.
    `group` is the same for documents that are nearly equal, and `split` is "train" or "val": the
    steps `dedup` and `split` set them.
    """

    text: str
    source: str
    url: str = ""
    licence: str = ""
    language: str = ""
    group: str = ""
    split: str = ""

    def line(self) -> bytes:
        """The document as a line of JSON in UTF-8; fields that are empty are left out."""
        fields = {name: value for name, value in asdict(self).items() if value}
        fields = {"text": "", "source": ""} | fields
        line = json.dumps(fields, ensure_ascii=False)
        return line.encode("utf-8", "surrogatepass") + b"\n"  # halves of surrogates come back


def parse(line: bytes, where: str) -> Document:
    """The document of a line of JSON. Raises ValueError, which begins with `where`, for another."""
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where} is not JSON: {error}") from None
    if not isinstance(fields, dict) or not all(isinstance(v, str) for v in fields.values()):
        raise ValueError(f"{where} is not an object whose values are texts, but {fields!r:.50}")
    try:
        return Document(**fields)
    except TypeError:
        known = ", ".join(Document.__dataclass_fields__)
        raise ValueError(
            f"{where} has the fields {', '.join(fields)}; a document has a text and a source, and "
            f"may have the others of {known}"
        ) from None
