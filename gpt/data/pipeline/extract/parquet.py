"""Records of Parquet files, whose columns are texts; by pyarrow.

A file of a few kilobytes can hold gigabytes: a page of it that is decompressed, or a long text that
a dictionary holds once and the column a million times. So what the pages of a file say about their
sizes, for which pyarrow asks for memory, is looked at first, and rows are read so many at a time
that they fit.

The layout of files and pages: https://github.com/apache/parquet-format, README.md and
src/main/thrift/parquet.thrift. Their headers are in Thrift's compact protocol:
https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from ..document import MAX_TEXT, Document
from ..libraries import library
from ..tally import Tally
from .faults import TooLarge, count
from .streams import RATIO, largest
from .tables import record_document

MAX_GROUP = 2**30  # bytes of the pages of a row group, decompressed
# Of a page, decompressed: pyarrow needs three to four times as much. Programs write a thousand
# books as one page, so that large pages are read where the file is large, too.
MAX_PAGE, PAGE_ALLOWANCE, PAGE_RATIO = 2**29, 2**26, 16
MAX_ROWS, MAX_READ = 256, 2**26  # rows that are read at a time, and the bytes of their texts
MAX_VALUE = 4 * MAX_TEXT  # bytes of a text in UTF-8


def read_parquet(
    path: Path, source: str, tally: Tally, columns: dict[str, str]
) -> Iterator[Document]:
    """The documents of a Parquet file, by row group.

    Raises ValueError for a file in which the column of the text is missing or holds no texts, and
    TooLarge where the texts grow to more than `RATIO` times the file's size. A row group that is
    too large, and a record that cannot be read, are counted and left out.
    """
    parquet = library("pyarrow.parquet", "reading Parquet")
    left, number = largest(path), 0
    with open(path, "rb") as data, parquet.ParquetFile(path, buffer_size=2**20) as file:
        names = _columns_of_texts(file.schema_arrow, columns)
        for group in range(file.num_row_groups):
            about = file.metadata.row_group(group)
            before, number = number, number + about.num_rows
            if not about.num_rows:
                continue
            try:
                rows = _rows_at_a_time(data, about, names)
            except ValueError as error:
                count(error, f"{source}#group {group}", tally)
                continue
            for place, values in enumerate(_records(file, group, names, rows), before + 1):
                where = f"{source}#{place}"
                left -= 1 + sum(value.as_buffer().size for value in values if value.is_valid)
                if left < 0:
                    raise TooLarge(f"its texts grow to more than {RATIO} times its size")
                try:
                    if any(v.is_valid and v.as_buffer().size > MAX_VALUE for v in values):
                        raise TooLarge(f"it has a text of more than {MAX_VALUE:,} bytes")
                    record = {name: value.as_py() for name, value in zip(names, values)}
                    document = record_document(record, where, columns)
                except ValueError as error:
                    count(error, where, tally)
                    continue
                yield document


def _columns_of_texts(schema, columns: dict[str, str]) -> list[str]:
    """The names of those of `columns` that hold texts. Raises ValueError if "text" does not."""
    types = library("pyarrow", "reading Parquet").types
    kinds = {field.name: field.type for field in schema}
    if columns["text"] not in kinds:
        raise ValueError(
            f"it has no column {columns['text']!r}, but {', '.join(kinds)[:200]}: name the column "
            "of the text with --text_column"
        )

    def is_text(kind) -> bool:
        kind = kind.value_type if types.is_dictionary(kind) else kind
        return types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)

    if not is_text(kinds[columns["text"]]):
        raise ValueError(
            f"its column {columns['text']!r} holds {str(kinds[columns['text']])[:100]}, not texts: "
            "name the column of the text with --text_column"
        )
    named = dict.fromkeys(filter(None, columns.values()))
    return [name for name in named if name in kinds and is_text(kinds[name])]


def _records(file, group: int, names: list[str], rows: int) -> Iterator[list]:
    """The values of each row of a row group, as scalars of pyarrow."""
    for batch in file.iter_batches(rows, row_groups=[group], columns=names, use_threads=False):
        values = [batch.column(name) for name in names]
        values = [v.dictionary_decode() if hasattr(v, "dictionary") else v for v in values]
        for row in range(batch.num_rows):
            yield [column[row] for column in values]


def _rows_at_a_time(data: BinaryIO, group, names: list[str]) -> int:
    """How many rows of a row group fit into `MAX_READ` bytes: a value is no longer than its page.

    Raises TooLarge for larger pages than are read, and ValueError for damaged ones.
    """
    there = [group.column(i) for i in range(group.num_columns)]
    # pyarrow takes a column named "text.more" for a part of "text", and reads it as well.
    read = [c for c in there if any(f"{c.path_in_schema}.".startswith(f"{n}.") for n in names)]
    total = longest = 1
    for size, stored in (page for column in read for page in page_sizes(data, column)):
        if size > min(MAX_PAGE, PAGE_ALLOWANCE + PAGE_RATIO * stored):
            raise TooLarge(f"a page of {stored:,} bytes grows to {size:,}")
        total, longest = total + size, max(longest, size)
    if total > MAX_GROUP:
        raise TooLarge(f"its pages have {total:,} bytes; at most {MAX_GROUP:,} are read")
    return max(1, min(MAX_ROWS, MAX_READ // longest // len(read)))


# ---- the headers of pages ------------------------------------------------------------------------


def page_sizes(data: BinaryIO, column) -> Iterator[tuple[int, int]]:
    """Of each page of a column of a row group, its bytes decompressed and as they are stored.

    Both are what the page's header states. The pages of a column are one after another, that of its
    dictionary first. Raises ValueError for a header that is damaged.
    """
    place = column.data_page_offset
    if column.has_dictionary_page and 0 < column.dictionary_page_offset < place:
        place = column.dictionary_page_offset
    end = place + column.total_compressed_size
    while place < end:
        data.seek(place)
        header = read_struct(data)
        size, stored = header.get(2, -1), header.get(3, -1)
        if size < 0 or stored < 0:
            raise ValueError(f"the page at byte {place:,} has a damaged header")
        yield size, stored
        place = data.tell() + stored


def read_struct(data: BinaryIO, levels: int = 4) -> dict[int, int]:
    """The whole numbers of a struct in Thrift's compact protocol, by the numbers of their fields.

    >>> import io
    >>> read_struct(io.BytesIO(bytes([0x15, 0x04, 0x15, 0xC8, 0x01, 0])))
    {1: 2, 2: 100}
    """
    fields, number = {}, 0
    while head := read_byte(data):
        step, kind = head >> 4, head & 15
        number = number + step if step else _signed(read_varint(data))
        if kind in (4, 5, 6):  # whole numbers of 16, 32 and 64 bits
            fields[number] = _signed(read_varint(data))
        elif kind == 8:  # bytes
            data.seek(read_varint(data), 1)
        elif kind == 12 and levels:
            read_struct(data, levels - 1)
        elif kind not in (1, 2):  # True and False, which have no more bytes
            raise ValueError(f"the header of a page has a field of the unknown type {kind}")
    return fields


def read_byte(data: BinaryIO) -> int:
    if not (byte := data.read(1)):
        raise ValueError("the file ends in the header of a page")
    return byte[0]


def read_varint(data: BinaryIO) -> int:
    """A number of 7 bits a byte, the lowest first, in at most ten bytes."""
    number = 0
    for shift in range(0, 70, 7):
        byte = read_byte(data)
        number |= (byte & 127) << shift
        if byte < 128:
            return number
    raise ValueError("the header of a page has a number of more than ten bytes")


def _signed(number: int) -> int:
    """Of 0, 1, 2, 3, ... the numbers 0, -1, 1, -2, ..."""
    return number >> 1 ^ -(number & 1)
