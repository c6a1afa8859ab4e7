"""Records with named columns, from a file; and their division into training, validation and test.

.tsv .csv       a header line names the columns; for a file without one, the caller does
.jsonl          an object a line
.json           a list of objects
.parquet        a table (pip install 'tensorlite[parquet]')
.txt            one record, whose column `text` is all of it
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tensorlite.device import random
from tokenizer.texts import read_text

FORMATS = (".tsv", ".csv", ".jsonl", ".json", ".parquet", ".txt")


def read_records(
    path: str | Path, columns: Sequence[str] = (), encoding: str = "utf-8"
) -> list[dict[str, Any]]:
    """The records of a file, each a dictionary from the names of its columns to values.

    `columns` names those of a .tsv or .csv file that has no header line. A .tsv file has no quotes:
    a quotation mark in it is one of the text. Values of .tsv and .csv files are text; others have
    the types that JSON or Parquet gives them.

    Raises FileNotFoundError, and ValueError for another kind of file, for one without records, and
    for a line that is wrong, by its number.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    kind = path.suffix.lower()
    if kind not in FORMATS:
        raise ValueError(f"records are read from {', '.join(FORMATS)} files, and not from {path}")
    if columns and kind not in (".tsv", ".csv"):
        raise ValueError(f"columns are named for a .tsv or .csv file; {path} names its own")
    if kind == ".parquet":
        records = _read_parquet(path)
    else:
        text = read_text(path, encoding)
        read = {".json": _read_json, ".jsonl": _read_jsonl, ".txt": _read_txt}.get(kind)
        records = read(path, text) if read else _read_table(path, text, list(columns))
    if not records:
        raise ValueError(f"{path} holds no records")
    return records


def _read_table(path: Path, text: str, columns: list[str]) -> list[dict]:
    if path.suffix.lower() == ".tsv":
        lines = enumerate(text.split("\n"), 1)
        rows = ((number, line.removesuffix("\r").split("\t")) for number, line in lines)
    else:
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        rows = ((reader.line_num, row) for row in reader)
    records = []
    try:
        for number, row in rows:
            if not any(row):
                continue  # an empty line
            if not columns:
                columns = row
                if len(set(columns)) < len(columns):
                    raise ValueError(f"{path}: two columns have the same name: {columns}")
                continue
            if len(row) != len(columns):
                raise ValueError(
                    f"line {number} of {path} has {len(row)} columns, not {len(columns)} "
                    f"({', '.join(columns)}): name those of a file without a header line"
                )
            records.append(dict(zip(columns, row)))
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num} of {path}: {error}") from None
    return records


def _read_jsonl(path: Path, text: str) -> list[dict]:
    records = []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            records.append(_parsed(f"line {number} of {path}", line))
            _check_object(f"line {number} of {path}", records[-1])
    return records


def _read_json(path: Path, text: str) -> list[dict]:
    records = _parsed(str(path), text)
    if not isinstance(records, list):
        raise ValueError(f"{path} holds no list of records; objects on lines are for .jsonl")
    for number, record in enumerate(records, 1):
        _check_object(f"record {number} of {path}", record)
    return records


def _read_txt(path: Path, text: str) -> list[dict]:
    return [{"text": text}] if text.strip() else []


def _parsed(where: str, text: str):
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where} is not JSON: {error}") from None


def _check_object(where: str, record) -> None:
    if not isinstance(record, dict):
        raise ValueError(f"{where} is not an object with named columns, but {record!r:.50}")


def _read_parquet(path: Path) -> list[dict]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise ValueError(
            f"{path} is read with pyarrow, which is missing: pip install 'tensorlite[parquet]'"
        ) from None
    try:
        return parquet.read_table(path).to_pylist()
    except (ArrowException, OSError) as error:
        raise ValueError(f"{path} is no Parquet file: {error}") from None


def column(records: Sequence[dict], name: str) -> list:
    """The values of a column. Raises ValueError where a record has none, with the names it has."""
    for number, record in enumerate(records, 1):
        if name not in record:
            raise ValueError(
                f"record {number} has no column {name!r}; it has {', '.join(map(str, record))} "
                "(--columns names those of a table without a header line)"
            )
    return [record[name] for record in records]


def texts_in(records: Sequence[dict], name: str) -> list[str]:
    """The texts in a column. Raises as `column` does, and where a value is no text."""
    texts = column(records, name)
    for number, text in enumerate(texts, 1):
        if not isinstance(text, str):
            raise ValueError(f"record {number} has no text in {name!r}, but {text!r:.50}")
    return texts


def split(
    n: int, fractions: Sequence[float], seed: int, groups: Sequence[Hashable] | None = None
) -> list[np.ndarray]:
    """The row numbers 0 to n - 1, shuffled by `seed` and divided: a (rows,) array for each part.

    Rows with equal values in `groups` (n values) stay in one part. Each part but the first, which
    has what is left, has `fractions[i] * n` rows, rounded, or slightly more with groups.

    Raises ValueError for fractions that do not add up to 1.

    >>> [part.size for part in split(1494, (0.7, 0.1, 0.2), seed=1)]
    [1046, 149, 299]
    """
    if not np.isclose(sum(fractions), 1) or min(fractions) < 0:
        raise ValueError(f"the parts of a split add up to 1: {tuple(fractions)} do not")
    order = random(seed, "split").permutation(n)
    keys = order if groups is None else [groups[row] for row in order]
    rows_of: dict[Hashable, list[int]] = {}
    for key, row in zip(keys, order.tolist()):
        rows_of.setdefault(key, []).append(row)
    parts: list[list[int]] = [[] for _ in fractions]
    place = len(fractions) - 1  # the last part is filled first
    for rows in rows_of.values():
        while place and len(parts[place]) >= round(fractions[place] * n):
            place -= 1
        parts[place] += rows
    return [np.array(part, np.int64) for part in parts]
