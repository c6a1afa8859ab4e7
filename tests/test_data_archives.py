"""Web archives: their records become documents, and damaged ones are counted and cost no other."""

import gzip
import io
import random
import struct
import zlib

import pytest
import zstandard

from gpt.data.pipeline.extract import archives, streams

from .test_data_extract import COMPRESSORS, PAGE, PROSE, extracted, write


def warc(kind, body, more="", length=None):
    head = f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Target-URI: https://example.org/x\r\n{more}"
    length = len(body) if length is None else length
    return f"{head}Content-Length: {length}\r\n\r\n".encode() + body + b"\r\n\r\n"


def response(body, kind="text/html", status="200 OK"):
    return f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\n\r\n".encode() + body


HTTP = "Content-Type: application/http; msgtype=response\r\n"


def test_web_archives(tmp_path):
    page = PAGE.replace("fox", "Füchslein").encode("latin-1")
    records = [
        warc("warcinfo", b"software: x"),
        warc("response", response(page, "text/html; charset=iso-8859-1"), HTTP),
        warc("response", response(b"gone", status="404 Not Found"), HTTP),
        warc("response", response(b"\x89PNG\0", "image/png"), HTTP),
        warc("response", response(PROSE.encode(), "text/plain"), HTTP),
    ]
    (tmp_path / "a.warc.gz").write_bytes(b"".join(map(gzip.compress, records)))
    (tmp_path / "b.wet").write_bytes(warc("conversion", PROSE.encode()))
    documents, tally = extracted(tmp_path)
    assert sorted(documents) == ["a.warc.gz#1", "a.warc.gz#4", "b.wet#1"]
    assert "quick brown Füchslein" in documents["a.warc.gz#1"].text
    assert documents["b.wet#1"].url == "https://example.org/x"
    assert tally.removed_counts == {"not text": 2}


TEXT = "Content-Type: text/plain\r\n"
BY_RECORD = {"plain": bytes} | COMPRESSORS  # how one record is compressed
WHOLE = {f"{kind}-whole": compress for kind, compress in COMPRESSORS.items()}


def archive(path, kind, records) -> str:
    """Write an archive whose records are compressed one by one, or all together; its name."""
    compress = (BY_RECORD | WHOLE)[kind]
    blocks = [b"".join(records)] if kind in WHOLE else records
    if kind != "plain":
        path = path.with_name(f"{path.name}.{kind.removesuffix('-whole')}")
    path.write_bytes(b"".join(map(compress, blocks)))
    return path.name


@pytest.mark.parametrize("kind", [*BY_RECORD, *WHOLE])
def test_any_compression(tmp_path, kind):
    long = PROSE.encode() * 20_000  # more than a block of any buffer
    texts = [PROSE.encode(), long, b"last. " + PROSE.encode()]
    records = [warc("conversion", text, TEXT) for text in texts]
    archive(tmp_path / "a.wet", kind, [warc("warcinfo", b"x"), *records])
    pages = [warc("response", response(PAGE.encode()), HTTP)] * 2
    archive(tmp_path / "b.warc", kind, pages)
    documents, tally = extracted(tmp_path, identify=False)
    assert [d.text.encode() for d in documents.values()][:3] == texts
    assert [d.text.split()[0] for d in documents.values()][3:] == ["Foxes", "Foxes"]
    assert not tally.removed_counts


def test_records_with_a_dictionary(tmp_path):
    """The form of .warc.zst: a frame that is skipped holds the dictionary of the records."""
    rng = random.Random(0)
    texts = [" ".join(rng.choices(PROSE.split(), k=300)) for _ in range(100)]
    records = [warc("conversion", text.encode(), TEXT) for text in texts]
    dictionary = zstandard.train_dictionary(4000, records)
    raw = dictionary.as_bytes()
    compress = zstandard.ZstdCompressor(dict_data=dictionary).compress
    data = struct.pack("<II", 0x184D2A5D, len(raw)) + raw + b"".join(map(compress, records))
    (tmp_path / "a.wet.zst").write_bytes(data)
    documents, tally = extracted(tmp_path, identify=False)
    assert [d.text for d in documents.values()] == texts and not tally.removed_counts


@pytest.mark.parametrize("kind", BY_RECORD)
def test_a_record_that_lies_about_its_length_costs_no_other(tmp_path, kind):
    names = []
    for name, length in (("long", 10**6), ("short", 5)):
        records = [
            warc("conversion", b"first. " + PROSE.encode(), TEXT),
            warc("conversion", b"liar. " + PROSE.encode(), TEXT, length),
            warc("conversion", b"last. " + PROSE.encode(), TEXT),
        ]
        names.append(archive(tmp_path / f"{name}.wet", kind, records))
    write(tmp_path, cut_wet=warc("conversion", PROSE.encode(), TEXT, 10**6))
    write(tmp_path, empty_warc="", noise_warc="this is no archive\n" * 100)
    documents, tally = extracted(tmp_path)
    firsts = {source: document.text.split()[0] for source, document in documents.items()}
    assert list(firsts.values()) == ["first.", "last.", "first.", "liar.", "last."]
    assert documents[f"{names[1]}#2"].text == "liar."  # what it says that it has
    assert tally.removed_counts == {"damaged": 4}
    sources = {source: why for _, source, why in tally.examples["damaged"]}
    liars = [f"{name}#2" for name in names]
    assert sorted(sources) == sorted(["cut.wet#1", "noise.warc", *liars])
    assert "says that it has 1,000,000" in sources["cut.wet#1"]


def test_a_lie_of_a_record_that_is_not_read_costs_no_other(tmp_path):
    records = [warc("request", b"x", length=400), warc("conversion", PROSE.encode(), TEXT)]
    for kind in BY_RECORD:
        archive(tmp_path / "a.wet", kind, records)
    documents, tally = extracted(tmp_path)
    assert [d.text for d in documents.values()] == [PROSE] * len(BY_RECORD)
    assert tally.removed_counts == {"damaged": len(BY_RECORD)}


CODED = {
    "": response(PAGE.encode()),
    "Content-Encoding: gzip\r\n": response(gzip.compress(PAGE.encode())),
    "Content-Encoding: deflate\r\n": response(zlib.compress(PAGE.encode())),
    "Transfer-Encoding: chunked\r\n": response(f"{len(PAGE):x}\r\n{PAGE}\r\n0\r\n\r\n".encode()),
}


@pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["plain", "gz"])
@pytest.mark.parametrize("coding", CODED)
def test_a_page_that_is_cut_off_is_counted(tmp_path, coding, compress):
    answer = CODED[coding].replace(b"\r\n", f"\r\n{coding}".encode(), 1)
    whole = warc("response", answer, HTTP)
    (tmp_path / "cut.warc").write_bytes(compress(whole) + compress(whole[: -4 - len(PAGE) // 9]))
    longer = warc("response", answer, HTTP, len(answer) + 50)
    (tmp_path / "longer.warc").write_bytes(compress(whole) + compress(longer))
    documents, tally = extracted(tmp_path, identify=False)
    assert list(documents) == ["cut.warc#1", "longer.warc#1"]
    assert all(document.text.endswith("It barked.") for document in documents.values())
    assert tally.removed_counts == {"damaged": 2}
    assert all("says that it has" in why for _, _, why in tally.examples["damaged"])


def test_a_file_that_is_cut_off_in_the_head_of_a_record(tmp_path):
    record = warc("conversion", PROSE.encode(), TEXT)
    (tmp_path / "a.wet").write_bytes(record + record[:30])
    (tmp_path / "b.wet.gz").write_bytes(gzip.compress(record) + gzip.compress(record[:30]))
    documents, tally = extracted(tmp_path)
    assert list(documents) == ["a.wet#1", "b.wet.gz#1"]
    assert tally.removed_counts == {"damaged": 2}


def test_content_that_cannot_be_decoded_and_pages_that_a_crawler_cut(tmp_path):
    coded = response(b"no gzip").replace(b"\r\n", b"\r\nContent-Encoding: gzip\r\n", 1)
    records = [
        warc("response", coded, HTTP),
        warc("response", response(PAGE.encode()), HTTP + "WARC-Truncated: length\r\n"),
    ]
    archive(tmp_path / "a.warc", "gz-whole", records)
    documents, tally = extracted(tmp_path)
    assert list(documents) == ["a.warc.gz#2"]
    assert tally.removed_counts == {"damaged": 1}
    assert tally.changed_counts == {"page cut by the crawler": 1}


@pytest.mark.parametrize("kind", COMPRESSORS)
@pytest.mark.parametrize("type", ["conversion", "metadata"])
def test_archives_that_grow_are_counted(tmp_path, kind, type, monkeypatch):
    monkeypatch.setattr(streams, "ALLOWANCE", 2**20)
    records = [warc("conversion", PROSE.encode(), TEXT), warc(type, bytes(30 * 2**20), TEXT)]
    name = archive(tmp_path / "a.wet", kind, records)
    documents, tally = extracted(tmp_path)
    assert list(documents) == [f"{name}#1"] and tally.removed_counts.keys() == {"too large"}
    assert "it says that it has 31,457,280 bytes" in str(tally.examples["too large"])


def test_what_was_read_of_a_stream_can_be_read_again(monkeypatch):
    monkeypatch.setattr(archives, "KEPT", 100)
    data = bytes(range(256)) * 4
    stream = archives.Rewindable(io.BytesIO(data))
    for place, size in ((0, 50), (10, 150), (150, 7), (100, 400), (450, 60)):
        assert stream.seek(place) == place == stream.tell()
        assert stream.read(size) == data[place : place + size]
    assert stream.seek(0) == 400 and stream.read(10**6) == data[400:]
    assert stream.read(1) == b"" and stream.tell() == len(data)


@pytest.mark.parametrize("text", [PROSE, PROSE * 500])
def test_an_archive_that_is_cut_in_its_last_record_is_counted(text, tmp_path):
    members = [gzip.compress(warc("conversion", f"{i} {text}".encode())) for i in range(2)]
    whole = b"".join(members)
    for size in [len(members[0]) + k for k in (1, 2, 20, 60)] + [len(whole) - 1]:
        (tmp_path / "a.wet.gz").write_bytes(whole[:size])
        documents, tally = extracted(tmp_path)
        assert len(documents) == 1 + (size == len(whole) - 1)  # of that its check sum is cut
        assert tally.removed_counts.keys() == {"damaged"}, size
    (tmp_path / "a.wet.gz").write_bytes(whole[:4])
    assert extracted(tmp_path)[1].removed_counts == {"damaged": 1}
