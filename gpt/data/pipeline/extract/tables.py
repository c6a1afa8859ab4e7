"""Records whose columns are texts: JSON lines and Parquet, a record at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from ..document import MAX_TEXT, Document
from ..libraries import library
from ..tally import Tally
from .faults import NoText, TooLarge, count
from .streams import opened

MAX_LINE = 8 * MAX_TEXT  # bytes: JSON writes a control character as six
MAX_VALUES = 5_000_000  # in a line: JSON grows about 25-fold when it is read
MAX_GROUP = 2**30  # bytes of the columns of a row group of Parquet, decompressed
ROWS = 256  # of Parquet that become Python objects at a time


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


def read_parquet(
    path: Path, source: str, tally: Tally, columns: dict[str, str]
) -> Iterator[Document]:
    """The documents of a Parquet file, by row group.

    Raises ValueError for a file without the column of the text; a row group that is too large is
    counted and left out.
    """
    parquet = library("pyarrow.parquet", "reading Parquet")
    with parquet.ParquetFile(path) as file:
        there = file.schema_arrow.names
        if columns["text"] not in there:
            raise ValueError(
                f"it has no column {columns['text']!r}, but {', '.join(there)[:200]}: name the "
                "column of the text with --text_column"
            )
        wanted = [name for name in there if name in columns.values()]
        number = 0
        for group in range(file.num_row_groups):
            about = file.metadata.row_group(group)
            sizes = [about.column(i) for i in range(about.num_columns)]
            size = sum(c.total_uncompressed_size for c in sizes if c.path_in_schema in wanted)
            if size > MAX_GROUP:
                error = TooLarge(f"its rows have {size:,} bytes; at most {MAX_GROUP:,} are read")
                count(error, f"{source}#group {group}", tally)
                number += about.num_rows
                continue
            for batch in file.iter_batches(ROWS, row_groups=[group], columns=wanted):
                for record in batch.to_pylist():
                    number += 1
                    try:
                        document = record_document(record, f"{source}#{number}", columns)
                    except ValueError as error:
                        count(error, f"{source}#{number}", tally)
                        continue
                    yield document
