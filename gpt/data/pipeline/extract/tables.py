"""Records whose columns are texts, and JSON lines, a record at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from ..document import MAX_TEXT, Document
from ..tally import Tally
from .faults import NoText, TooLarge, count
from .streams import opened

MAX_LINE = 8 * MAX_TEXT  # bytes: JSON writes a control character as six
MAX_VALUES = 5_000_000  # in a line: JSON grows about 25-fold when it is read


def record_document(record: dict, source: str, columns: dict[str, str]) -> Document:
    """The document of a record, from whose `columns` the fields are taken.

    `columns` gives the names of the columns for "text", "url", "licence" and "language"; "" takes
    none. Raises NoText for a record that has no text there.
    """
    text = record.get(columns["text"])
    if not isinstance(text, str):
        names = ", ".join(map(str, record))[:100]
        raise NoText(f"it has no text in {columns['text']!r}; its columns are {names or 'none'}")
    fields = {field: record.get(name) for field, name in columns.items() if name}
    return Document(source=source, **{f: v for f, v in fields.items() if isinstance(v, str)})


def read_json_lines(
    path: Path, source: str, tally: Tally, columns: dict[str, str]
) -> Iterator[Document]:
    """The documents of a file of JSON objects, one a line, compressed or not."""
    with opened(path) as stream:
        number = 0
        while line := stream.readline(MAX_LINE):
            number += 1
            where = f"{source}#{number}"
            try:
                if len(line) == MAX_LINE:
                    _skip_line(stream, line)
                    raise TooLarge(f"the line has more than {MAX_LINE:,} bytes")
                if not line.strip():
                    continue
                if sum(map(line.count, (b",", b"[", b"{"))) > MAX_VALUES:
                    raise TooLarge(f"the line has more than {MAX_VALUES:,} values")
                record = json.loads(line)
                if not isinstance(record, dict):
                    raise ValueError(f"it is not an object with named columns, but {record!r:.50}")
                document = record_document(record, where, columns)
            except (ValueError, RecursionError) as error:
                count(error, where, tally)
                continue
            yield document


def _skip_line(stream, line: bytes) -> None:
    while line and not line.endswith(b"\n"):
        line = stream.readline(2**20)
