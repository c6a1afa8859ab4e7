"""The step "clean": encodings mended, hidden characters and boilerplate gone, values masked."""

import json
import unicodedata

import numpy as np
import pytest

from gpt.data.pipeline.clean import Clean, CleanSettings, boilerplate
from gpt.data.pipeline.clean.boilerplate import Counts, count_lines, cut, frequent, look_up, site_of
from gpt.data.pipeline.clean.unicode import compose, mend, tidy
from gpt.data.pipeline.document import Document
from gpt.data.pipeline.shards import read_documents, write_shards
from gpt.data.pipeline.steps import run
from gpt.data.pipeline.tally import Tally


def tidied(text: str) -> tuple[str, dict]:
    tally = Tally()
    return tidy(Document(text, "a"), text, tally), tally.as_json()


@pytest.mark.parametrize(
    "text, expected",
    [
        ("schÃ¶n, â€œyesâ€\x9d", "schön, “yes”"),
        ("naïve café — “quoted” ﬁne Ａ", "naïve café — “quoted” ﬁne Ａ"),
        ("&amp; it's &lt;", "&amp; it's &lt;"),
    ],
)
def test_mojibake_is_mended_and_nothing_else(text, expected):
    assert mend(text) == expected


@pytest.mark.parametrize(
    "text, expected",
    [
        ("a\r\nb\rc\x0bd\x0ce\x85f\u2028g\u2029h", "a\nb\nc\nd\ne\nf\ng\nh"),
        ("a\xa0b\u2009c\u3000d", "a b c\u3000d"),
        ("e\u0301", "é"),
        ("a  \nb\t\n\n \n\n\nc ", "a\nb\n\n\nc"),
        ("  def f():\n\n\n    pass", "  def f():\n\n\n    pass"),
        ("نمی\u200cخواهم 👩\u200d🚀 क्\u200dष", "نمی\u200cخواهم 👩\u200d🚀 क्\u200dष"),
    ],
)
def test_text_is_tidied(text, expected):
    result, tally = tidied(text)
    assert result == expected and tally["changed"] == {}
    assert tidied(result)[0] == result


def test_a_long_run_of_marks_is_left_as_it_is():
    """Sorting 200,000 marks would take minutes."""
    marks = "\u0301\u0323" * 100_000
    assert compose(f"e\u0301 e{marks} e\u0301") == f"\u00e9 e{marks} \u00e9"
    text = "e" + "\u0301\u0323" * 15
    assert compose(text) == unicodedata.normalize("NFC", text) != text


def test_hidden_characters_are_counted_and_shown():
    text = "a\u200bb\x00c\ufeffd\xade\u202ef\ud800g\U000e0041h"
    result, tally = tidied(text)
    assert result == "abcdefgh" and tally["changed"] == {"hidden characters": 7}
    assert tally["examples"]["hidden characters"][0][2] == ascii(text)[1:-1]
    result.encode()


# ---- boilerplate ---------------------------------------------------------------------------------


def site(n: int, name: str = "a.org", menu: str = "Home | About") -> list[Document]:
    return [
        Document(f"  {menu}\nText {i} of its own.\n\n(c) {name}", f"{i}.html", f"http://{name}/{i}")
        for i in range(n)
    ]


def save_and_load(counts: Counts, path) -> Counts:
    counts.save(path)
    return Counts.load(path)


def test_lines_of_many_documents_of_a_site_are_cut(tmp_path):
    documents = site(12) + site(9, "b.org") + [Document("(c) a.org\nmine", "x", "http://c.org")]
    count_lines(documents).save(tmp_path / "0.npy")
    table = frequent([tmp_path / "0.npy"], 10)
    text, gone = cut(documents[3], table, 10, 0.2)
    assert text == "Text 3 of its own.\n" and gone == ["  Home | About", "(c) a.org"]
    for document in documents[12:]:  # of sites that are too small
        assert cut(document, table, 10, 0.2) == (document.text, [])
    other = Document("Home | About", "z", "http://a.org/z")
    assert cut(other, table, 10, 0.2)[1] == ["Home | About"]


def test_a_line_is_cut_by_the_share_of_documents_that_have_it(tmp_path):
    documents = site(100, menu="Menu") + [
        Document(f"only here {i % 4}", "", "http://a.org") for i in range(80)
    ]
    count_lines(documents).save(tmp_path / "0.npy")
    table = frequent([tmp_path / "0.npy"], 10)
    rare = Document("only here 1", "", "http://a.org")  # in 20 of 180
    assert cut(rare, table, 10, 0.2)[1] == [] and cut(rare, table, 10, 0.11)[1] == ["only here 1"]


def test_source_code_keeps_its_lines():
    code = [Document("import numpy as np\nx", f"lib/{i}.py") for i in range(50)]
    assert len(count_lines(code).hashes) == 0
    table = count_lines([Document(d.text, d.source + ".html") for d in code])
    assert cut(code[0], table, 2, 0) == (code[0].text, [])


def test_counts_do_not_depend_on_shards_folds_or_parts(tmp_path, monkeypatch):
    documents = site(40) + site(30, "b.org") + site(5, "c.org")
    count_lines(documents).save(tmp_path / "all.npy")
    plain = frequent([tmp_path / "all.npy"], 3)
    monkeypatch.setattr(boilerplate, "FOLD", 7)
    monkeypatch.setattr(boilerplate, "PART", 11)
    paths = []
    for i in range(4):
        paths.append(tmp_path / f"{i}.npy")
        count_lines(documents[i::4]).save(paths[-1])
    divided = frequent(paths[::-1], 3)
    assert len(plain.hashes) >= 9
    np.testing.assert_array_equal(plain.hashes, divided.hashes)
    np.testing.assert_array_equal(plain.documents, divided.documents)
    assert set(plain.documents.tolist()) == {5, 30, 40}


def test_tables_may_be_empty(tmp_path):
    empty = save_and_load(count_lines([]), tmp_path / "0.npy")
    assert (
        len(empty.hashes) == 0 and look_up(empty, np.arange(3, dtype=np.uint64)).tolist() == [0] * 3
    )
    table = frequent([tmp_path / "0.npy"], 2)
    assert cut(site(1)[0], table, 2, 0.5)[1] == []


def test_sites():
    assert site_of(Document("", "dump.xml#A/B")) == "dump.xml"
    assert site_of(Document("", "", "http://[x")) == ""


# ---- the step ------------------------------------------------------------------------------------


def make_folder(folder, shards: list[list[Document]]) -> None:
    folder.mkdir()
    entries = []
    for i, documents in enumerate(shards):
        stated = write_shards(folder / f"{i:05d}", documents)
        entries.append({"name": f"{i:05d}"} | stated)
    (folder / "manifest.json").write_text(json.dumps({"shards": entries}))


def test_a_folder_is_cleaned(tmp_path):
    menu = site(12)
    last = [
        Document("Write to me@example.org\r\nschÃ¶n\u200b", "mail.txt"),
        Document('password = "8fK2pQ9xLm4Rz7vW"\n', "conf.py"),
        Document(" \u200b\n", "empty.txt"),
    ]
    make_folder(tmp_path / "in", [menu[:6], menu[6:], last])
    manifest = run(Clean(CleanSettings()), [str(tmp_path / "in")], tmp_path / "out")
    texts = [document.text for document in read_documents(tmp_path / "out")]
    assert texts[:12] == [f"Text {i} of its own." for i in range(12)]
    assert texts[12:] == ["Write to <email>\nschön", 'password = "<secret>"']
    tally = Tally()
    for shard in manifest["shards"]:
        tally.add(shard["tally"])
    counts = tally.as_json()
    assert counts["removed"] == {"empty after cleaning": 1}
    assert counts["changed"] == {
        "boilerplate": 24,
        "hidden characters": 2,
        "masked: email": 1,
        "masked: secret": 1,
        "mended encoding": 1,
    }
    shown = counts["examples"]["mended encoding"][0][2]
    assert shown.endswith("schÃ¶n\u200b") and shown.startswith("Write to")


def test_what_is_off_changes_nothing(tmp_path):
    text = "me@example.org\npassword = '8fK2pQ9xLm4Rz7vW'\nschÃ¶n"
    make_folder(tmp_path / "in", [[Document(text, "a")] * 20])
    off = CleanSettings(mend=False, personal=False, secrets=False, boilerplate=False)
    run(Clean(off), [str(tmp_path / "in")], tmp_path / "out")
    assert {document.text for document in read_documents(tmp_path / "out")} == {text}


@pytest.mark.parametrize("given", [dict(boilerplate_documents=1), dict(boilerplate_share=1.5)])
def test_settings_that_cannot_be(given):
    with pytest.raises(ValueError, match="boilerplate_documents is at least 2"):
        Clean(CleanSettings(**given))
