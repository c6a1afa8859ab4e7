"""Parquet files: records become documents, within limits of memory whatever a file says."""

import io
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gpt.data.pipeline.extract import parquet

from .test_data_extract import PROSE, extracted, write
from .test_train import ENVIRONMENT, ROOT


def test_records(tmp_path):
    texts = [f"{i}. {PROSE}" for i in range(1000)] + [None]
    table = pa.table({"content": texts, "url": [f"u{i}" for i in range(1001)], "n": range(1001)})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=300)
    write(tmp_path, b_parquet="PAR1 no table")
    documents, tally = extracted(tmp_path, text_column="content", identify=False)
    assert len(documents) == 1000 and documents["a.parquet#1000"].url == "u999"
    assert tally.removed_counts == {"no text": 1, "damaged": 1}
    documents, tally = extracted(tmp_path)
    assert not documents and tally.removed_counts == {"damaged": 2}
    assert any("no column 'text', but content, url, n" in e[2] for e in tally.examples["damaged"])


def test_a_file_without_rows_is_no_damage(tmp_path):
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "a.parquet")
    documents, tally = extracted(tmp_path)
    assert not documents and not tally.removed_counts


TEXTS = ["one", "two", None, "four", "two"]
FORMS = {
    "string": pa.array(TEXTS),
    "large": pa.array(TEXTS, pa.large_string()),
    "view": pa.array(TEXTS, pa.string_view()),
    "categories": pa.array(TEXTS).dictionary_encode(),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("more", [{}, {"data_page_version": "2.0"}, {"data_page_size": 1}])
def test_forms_of_texts(tmp_path, form, more):
    pq.write_table(
        pa.table({"text": FORMS[form], "url": FORMS[form]}), tmp_path / "a.parquet", **more
    )
    documents, tally = extracted(tmp_path, identify=False)
    assert [(d.text, d.url) for d in documents.values()] == [(t, t) for t in TEXTS if t]
    assert list(documents)[2] == "a.parquet#4" and tally.removed_counts == {"no text": 1}


NO_TEXTS = {
    "list<element: string>": pa.array([["a"], ["b", "c"]]),
    "struct<text: string>": pa.array([{"text": "a"}, {"text": "b"}]),
    "binary": pa.array([b"a", b"b"]),
    "int64": pa.array([1, 2]),
    "null": pa.array([None, None]),
}


@pytest.mark.parametrize("kind", NO_TEXTS)
def test_a_column_without_texts_is_refused(tmp_path, kind):
    pq.write_table(pa.table({"text": NO_TEXTS[kind]}), tmp_path / "a.parquet")
    # A column beside the text is not looked at.
    pq.write_table(pa.table({"text": [PROSE] * 2, "url": NO_TEXTS[kind]}), tmp_path / "b.parquet")
    documents, tally = extracted(tmp_path)
    assert [d.text for d in documents.values()] == [PROSE] * 2
    assert tally.removed_counts == {"damaged": 1}
    assert f"'text' holds {kind}, not texts: name the" in tally.examples["damaged"][0][2]


def lying(data: bytes, size: int) -> bytes:
    """The file with another number where its last part says that pages have `size` bytes."""

    def varint(number: int, length: int) -> bytes:
        parts = [number >> 7 * i & 127 | 128 for i in range(length)]
        return bytes(parts[:-1]) + bytes([parts[-1] & 127])

    length = (2 * size).bit_length() // 7 + 1
    begin = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    end = data[begin:]
    assert end.count(varint(2 * size, length)) == 1
    return data[:begin] + end.replace(varint(2 * size, length), varint(2, length))


def test_pages_that_are_too_large_are_counted_whatever_the_file_says(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "MAX_PAGE", 2**20)
    tables = [pa.table({"text": [text], "text.more": [PROSE]}) for text in ("a" * 2**21, PROSE)]
    tables.append(tables[1].rename_columns(["text.more", "text"]))
    file = io.BytesIO()
    with pq.ParquetWriter(file, tables[0].schema, use_dictionary=False) as writer:
        writer.write_table(tables[0])
        writer.write_table(tables[1])
    about = pq.read_metadata(file).row_group(0).column(0)
    lie = lying(file.getvalue(), about.total_uncompressed_size)
    assert pq.read_metadata(io.BytesIO(lie)).row_group(0).column(0).total_uncompressed_size == 1
    write(tmp_path, honest_parquet=file.getvalue(), liar_parquet=lie)
    more = pa.table({"text": [PROSE], "text.more": ["a" * 2**21]})  # pyarrow reads both
    pq.write_table(more, tmp_path / "more.parquet")
    documents, tally = extracted(tmp_path)
    assert list(documents) == ["honest.parquet#2", "liar.parquet#2"]
    assert tally.removed_counts == {"too large": 3}


def test_headers_of_pages_are_those_that_pyarrow_has_written(tmp_path):
    texts = [PROSE * (1 + i % 50) for i in range(2000)]
    for more in (
        {},
        {"use_dictionary": False},
        {"use_dictionary": False, "data_page_version": "2.0"},
    ):
        for compression in ("zstd", "none"):
            path = tmp_path / "a.parquet"
            given = dict(compression=compression, data_page_size=10_000, write_batch_size=100)
            pq.write_table(pa.table({"text": texts}), path, **given, **more)
            column = pq.read_metadata(path).row_group(0).column(0)
            with open(path, "rb") as file:
                sizes = [size for size, _ in parquet.page_sizes(file, column)]
            # The rest are the headers themselves.
            assert 0 < column.total_uncompressed_size - sum(sizes) < 300 * len(sizes)
            assert len(sizes) > 15 or not more


@pytest.mark.parametrize("byte", [0x00, 0x19, 0x2C, 0x80, 0xFF])
def test_damaged_headers_of_pages(tmp_path, byte):
    pq.write_table(pa.table({"text": [PROSE]}), tmp_path / "a.parquet")
    data = bytearray((tmp_path / "a.parquet").read_bytes())
    data[4:16] = bytes([byte]) * 12  # the first page stands behind the first four bytes
    (tmp_path / "a.parquet").write_bytes(data)
    documents, tally = extracted(tmp_path)
    assert not documents and tally.removed_counts == {"damaged": 1}


def test_texts_that_grow_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr("gpt.data.pipeline.extract.streams.ALLOWANCE", 2**20)
    pq.write_table(pa.table({"text": ["fox " * 2**16] * 100}), tmp_path / "a.parquet")
    size = (tmp_path / "a.parquet").stat().st_size
    documents, tally = extracted(tmp_path, identify=False)
    assert len(documents) == (2**20 + 250 * size) // (2**18 + 1) < 100
    assert tally.removed_counts == {"too large": 1}


CHILD = """
import re, sys
from pathlib import Path
from gpt.data.pipeline import Tally
from gpt.data.pipeline.extract import Extract, Settings
step, tally = Extract(Settings(identify=False)), Tally()
[unit] = step.units([sys.argv[1]])
found = sum(len(document.text) for document in step.documents(unit, tally))
most = re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]
print(int(most) // 1024, found, tally.removed_counts)
"""


def most_memory(path) -> tuple[int, int]:
    """The MB that reading a file takes at most, and the characters that it gives."""
    child = [sys.executable, "-c", CHILD, str(path)]
    done = subprocess.run(child, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0 and "{'too large': 1}" in done.stdout, done.stderr
    return tuple(map(int, done.stdout.split()[:2]))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="it is read from /proc")
@pytest.mark.parametrize("size, least", [(2**22, 2**25), (80 * 2**20, 0)])
def test_a_dictionary_that_holds_a_text_once_does_not_fill_the_memory(tmp_path, size, least):
    """256 times 4 MB, or twelve times 80 MB, in a file of a few kilobytes."""
    rows = pa.array([0] * (2**32 // size // 4), pa.int32())
    column = pa.DictionaryArray.from_arrays(rows, ["a" * size])
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": column}), path, compression="zstd", store_schema=False)
    assert path.stat().st_size < 10_000
    most, found = most_memory(path)
    assert most < 500 and least <= found < 2**27
