"""The page of what became of the documents: its figures, and that hostile text stays text."""

import json
import re
from collections import Counter
from dataclasses import dataclass
from html.parser import HTMLParser

import pytest

from gpt.data.pipeline.charts import histogram
from gpt.data.pipeline.document import Document
from gpt.data.pipeline.markup import Html, escaped, table
from gpt.data.pipeline.report import report, shares, write_report
from gpt.data.pipeline.shards import read_shard
from gpt.data.pipeline.steps import Step, Unit, run

EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>\u202e\x00&lt;"


@dataclass
class Settings:
    limit: int = 3
    words: str = EVIL


class Extract(Step):
    name, Settings = "extract", Settings

    def units(self, inputs):
        return [Unit(f"{i:05}", str(i), 1, i) for i in range(2)]

    def documents(self, unit, tally):
        tally.failed("not <b>read</b>", EVIL, EVIL)
        for i in range(10):
            site = f"https://site{i % 3}.example/{EVIL}" if i else EVIL
            source = f"{EVIL}/a/b#{i}"
            yield Document("x" * 2**i + EVIL, source, site, EVIL if i % 2 else "", "en")


class Filter(Step):
    name, Settings = "filter", Settings

    def documents(self, unit, tally):
        for i, document in enumerate(read_shard(unit.source)):
            if i < 4:
                tally.removed(EVIL, document)
            else:
                tally.changed("mask: e-mail", document, 2, EVIL)
                yield document


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    base = tmp_path_factory.mktemp("<i>corpus")
    first, second = base / "extract", base / "filter"
    run(Extract(Settings()), ["raw"], first)
    run(Filter(Settings()), [str(first)], second)
    return [first, second]


class Tags(HTMLParser):
    """Which tags and attributes a page has, and the text that a reader sees."""

    def __init__(self, page: str):
        super().__init__()
        self.tags, self.attributes, self.text, self.open = set(), set(), [], []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.attributes.update(name for name, _ in attributes)
        if tag not in ("meta", "rect"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag != "rect":
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_hostile_text_is_shown_as_text(folders):
    page = Tags(report(folders))
    assert page.open == []  # every tag is closed, in its order
    allowed = "html head meta title style body h1 h2 section div table thead tbody tr th td a p "
    allowed += "details summary dl dt dd pre svg rect text"
    assert page.tags <= set(allowed.split())
    assert not any(name.startswith("on") or name == "src" for name in page.attributes)
    text = "".join(page.text)
    assert text.count("<script>alert(1)</script>") > 20
    assert "[U+202E][U+0000]&lt;" in text and "\u202e" not in text


def test_the_page_asks_nothing_of_a_network_and_runs_nothing(folders):
    page = report(folders)
    assert "default-src 'none'" in page and "@import" not in page and "url(" not in page
    assert set(re.findall(r'href="([^"]*)"', page)) == {"#step-0", "#step-1"}
    assert 'id="step-0"' in page and 'id="step-1"' in page


def test_figures(folders):
    text = " ".join(Tags(report(folders)).text)
    assert "From 22 to 12 documents" in text
    characters = sum(2**i + len(EVIL) for i in range(10)) * 2
    assert f"{characters:,}" in text
    assert "36.36%" not in text and "40.00%" in text  # 8 of 20 were left out by the filter
    assert "1,200.0" in text  # 24 places in 20 documents
    for site in ("site0.example", "site1.example", "site2.example"):
        assert site in text
    assert re.search(r"en\s+12\s+100.00%", text)
    assert "50.00%" in text  # the licence, and the unknown one


def test_tokens(tmp_path):
    tally = {"removed": {}, "changed": {}, "examples": {}}
    shards = [
        {"name": f"0000{i}", "documents": 3, "tally": tally, "files": {}}
        | {"train": {"documents": 2, "tokens": 1000 + i}, "val": {"documents": 1, "tokens": 7}}
        for i in range(2)
    ]
    manifest = {"step": "tokenize", "settings": {}, "libraries": {}, "shards": shards}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    page = report([tmp_path])
    assert "2,001 tokens to train on, and 14 to validate." in page
    assert "The documents of" not in page  # it holds none


def test_the_same_bytes_each_time(folders, tmp_path):
    for name in ("a.html", "b.html"):
        write_report([str(folder) for folder in folders], tmp_path / name)
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()
    assert (tmp_path / "a.html").read_text() == report(folders)


def test_folders_that_cannot_be_shown(folders, tmp_path):
    with pytest.raises(ValueError, match="takes the folders of the steps"):
        write_report([], tmp_path / "a.html")
    with pytest.raises(FileNotFoundError, match=r"there is no .*manifest\.json"):
        write_report([str(tmp_path)], tmp_path / "a.html")
    manifest = json.loads((folders[0] / "manifest.json").read_text())
    for bad in ({"tally": 3}, {"tally": {"removed": {}}}, {"characters": "many"}):
        shards = [shard | bad for shard in manifest["shards"]]
        (tmp_path / "manifest.json").write_text(json.dumps(manifest | {"shards": shards}))
        with pytest.raises(ValueError, match=r"manifest\.json is damaged"):
            write_report([str(tmp_path)], tmp_path / "a.html")
    assert not (tmp_path / "a.html").exists()


def test_html_is_escaped_unless_it_is_marked():
    assert escaped("<b>") == "&lt;b&gt;" and escaped(Html("<b>")) == "<b>"
    assert "<i>" in table(["<b>"], [[Html("<i></i>"), "<u>"]])
    assert "<b>" not in table(["<b>"], [[Html("<i></i>"), "<u>"]])
    assert Html("<i>") + "<b>" == "<i>&lt;b&gt;"


def test_long_tables_and_empty_ones():
    rows = shares("source", Counter({f"site{i:03}": 1 for i in range(100)}))
    assert rows.count("<tr>") == 32 and "70 others" in rows
    assert "no documents" in histogram(Counter())
    assert histogram(Counter({0: 1, 3: 2})).count("<rect") == 4
