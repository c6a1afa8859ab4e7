"""The step `extract`: files of many kinds become documents, and what cannot be read is counted."""

import bz2
import errno
import gzip
import json
import lzma
import os
import zipfile
from contextlib import nullcontext

import pytest
import zstandard

from gpt.data.pipeline import Tally, read_documents, shards_in
from gpt.data.pipeline.clean import Clean
from gpt.data.pipeline.extract import Extract, Settings, inputs, system_docs_inputs
from gpt.data.pipeline.extract.faults import count
from gpt.data.pipeline.extract.inputs import units_of
from gpt.data.pipeline.extract.licences import name_of
from gpt.data.pipeline.extract.man import man_text
from gpt.data.pipeline.extract.pages import MAX_PAGE, MAX_TAGS, page_document
from gpt.data.pipeline.extract.plain import decode
from gpt.data.pipeline.extract.streams import MAX_FILE
from gpt.data.pipeline.shards import read_shard
from gpt.data.pipeline.steps import run

PROSE = "The quick brown fox jumps over the lazy dog, and nobody in the village is surprised. "
PAGE = f"""<!doctype html><html><head><title>A page</title>
<link rel="canonical" href="https://example.org/a"><link rel=license
href="https://creativecommons.org/licenses/by/4.0/"></head>
<body><nav><a href=/>Menu</a></nav><main><h1>Foxes</h1><p>{PROSE}<p>It barked.</main>
<footer>Imprint</footer></body></html>"""


def extracted(folder, **settings):
    """The documents of a folder by their source, and the tally of all its units."""
    step, tally = Extract(Settings(**settings)), Tally()
    units = step.units([str(folder)])
    found = [document for unit in units for document in step.documents(unit, tally)]
    assert len({document.source for document in found}) == len(found)
    return {document.source: document for document in found}, tally


def write(folder, **files):
    for name, data in files.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)


def test_a_page_gives_its_main_text_and_what_it_says_of_itself(tmp_path):
    write(tmp_path, a_html=PAGE)
    documents, tally = extracted(tmp_path)
    page = documents["a.html"]
    assert page.text.split() == ["Foxes", *PROSE.split(), "It", "barked."]
    assert (page.url, page.licence, page.language) == ("https://example.org/a", "CC-BY-4.0", "en")
    assert not tally.removed_counts and not tally.changed_counts


def test_main_text_is_what_trafilatura_finds():
    trafilatura = pytest.importorskip("trafilatura", exc_type=ImportError)
    paragraphs = [
        f"Paragraph {i}: {PROSE.replace('fox', name)}" for i, name in enumerate("abcdefgh")
    ]
    page = PAGE.replace("It barked.", "<p>".join(paragraphs))
    ours, theirs = page_document(page.encode(), "a").text.split(), trafilatura.extract(page).split()
    assert ours == ["Foxes", *theirs[theirs.index("The") :]]


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "cp1252", "utf-16", "utf-8-sig"])
@pytest.mark.parametrize("declared", ["", "utf-8", "iso-8859-1", "no-such-encoding"])
def test_a_declared_encoding_may_be_wrong(encoding, declared):
    text = "Größere Füchse überspringen träge Hunde, naïve Übersetzer wissen das schon länger. " * 4
    assert decode(text.encode(encoding), declared) == text


def test_bytes_that_no_encoding_explains_are_counted_and_the_rest_is_kept(tmp_path):
    text = "žluťoučký kůň ".encode() * 50
    write(tmp_path, a_txt=text + b"\x81\xff end" + PROSE.encode(), b_txt="\ufffd" + PROSE)
    documents, tally = extracted(tmp_path)
    assert documents["a.txt"].text == text.decode() + "\ufffd\ufffd end" + PROSE
    assert tally.changed_counts == {"unknown bytes": 2} and not tally.removed_counts


COMPRESSORS = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": zstandard.ZstdCompressor().compress,
}


@pytest.mark.parametrize("kind", COMPRESSORS)
def test_compressed_files(tmp_path, kind):
    compress = COMPRESSORS[kind]
    lines = "".join(json.dumps({"text": f"{i}. {PROSE}"}) + "\n" for i in range(3000)).encode()
    (tmp_path / f"a.txt.{kind}").write_bytes(compress(PROSE.encode()) + compress(b"It goes on."))
    (tmp_path / f"cut.jsonl.{kind}").write_bytes(compress(lines)[:-20])
    (tmp_path / f"whole.jsonl.{kind}").write_bytes(compress(lines))
    documents, tally = extracted(tmp_path, identify=False)
    assert documents[f"a.txt.{kind}"].text == PROSE + "It goes on."
    assert sum(source.startswith("whole") for source in documents) == 3000
    assert tally.removed_counts == {"damaged": 1}
    [[_, source, why]] = tally.examples["damaged"]
    assert source == f"cut.jsonl.{kind}" and "damaged or cut off" in why


@pytest.mark.parametrize("kind", COMPRESSORS)
def test_bombs_are_counted(tmp_path, kind, monkeypatch):
    monkeypatch.setattr("gpt.data.pipeline.extract.streams.ALLOWANCE", 2**20)
    bomb = COMPRESSORS[kind](bytes(MAX_FILE + 2**20))
    for name in ("a.txt", "b.jsonl", "c.xml", "d.html"):
        (tmp_path / f"{name}.{kind}").write_bytes(bomb)
    write(tmp_path, good_txt=PROSE)
    documents, tally = extracted(tmp_path)
    assert list(documents) == ["good.txt"]
    assert sum(tally.removed_counts.values()) == 4 and tally.removed_counts["too large"] >= 3


def test_pages_that_take_a_parser_down_are_counted(tmp_path):
    write(
        tmp_path,
        deep_html="<div>" * 100_000 + "x",
        closers_html="<div></b>" * 100_000,
        attributes_html="<p " + " ".join(f"a{i}=1" for i in range(10_000)) + ">x",
        binary_html=b"<html>\0",
        empty_html="",
        huge_html=b"<p>" + b"word " * (MAX_FILE // 5) + b"end",
        large_html=b"<p>" + b"word " * (MAX_PAGE // 5) + b"end",
        tags_html="<p>" * (MAX_TAGS + 1),
        drawing_html=PAGE.replace("<p>", "<svg>" + "<path d='M 0'/>" * 1000 + "</svg><p>", 1),
        open_html="<html><body><p>" + PROSE * 4 + "<ul><li>One<li>Two<b>bold",
    )
    documents, tally = extracted(tmp_path)
    assert sorted(documents) == ["drawing.html", "open.html"]
    assert documents["open.html"].text.startswith(PROSE.strip())
    assert tally.removed_counts == {"too large": 6, "not text": 1, "no text": 1}


DUMP = """<mediawiki xml:lang="en"><siteinfo><sitename>W</sitename>
<base>https://simple.wikipedia.org/wiki/Main_Page</base></siteinfo>%s</mediawiki>"""
ARTICLE = """<page><title>%s</title><ns>%d</ns>%s<revision><id>5</id><model>wikitext</model>
<text bytes="3">%s</text></revision></page>"""
MARKUP = """{{Infobox|a=b|c=[[x]]}}
'''Foxes''' are ''animals'' of [[France|the country]]&lt;ref&gt;Smith {{cite}}&lt;/ref&gt;.
[[File:x.jpg|thumb|A [[caption]] here]]
{| class=wikitable
| cell
|}
== History ==
* One
[[Category:Things]]"""


def test_wiki_dumps(tmp_path):
    pages = ARTICLE % ("Red fox", 0, "", MARKUP)
    pages += ARTICLE % ("Talk:Fox", 1, "", "chat")
    pages += ARTICLE % ("Vixen", 0, "<redirect title='F'/>", "")
    pages += ARTICLE % ("Bad", 0, "", "{{a|" * 5000) + ARTICLE % ("Last", 0, "", PROSE)
    (tmp_path / "w.xml.bz2").write_bytes(bz2.compress((DUMP % pages).encode()))
    (tmp_path / "cut.xml").write_text((DUMP % pages)[:-6])
    documents, tally = extracted(tmp_path)
    fox = documents["w.xml.bz2#Red fox"]
    assert fox.text == "Red fox\n\nFoxes are animals of the country.\n\nHistory\nOne"
    assert fox.url == "https://simple.wikipedia.org/wiki/Red_fox" and fox.licence == "CC-BY-SA-4.0"
    assert documents["w.xml.bz2#Last"].text.split() == ["Last", *PROSE.split()]
    assert documents["w.xml.bz2#Bad"].text == "Bad" and "cut.xml#Last" in documents
    assert len(documents) == 6
    assert tally.removed_counts == {"damaged": 1}
    assert tally.changed_counts == {"section too long to parse": 2}


def test_entities_are_refused(tmp_path):
    doctype = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]>'
    write(tmp_path, a_xml=doctype + DUMP % (ARTICLE % ("A", 0, "", "&b;")))
    documents, tally = extracted(tmp_path)
    assert not documents and tally.removed_counts == {"damaged": 1}
    assert "declares the entity 'a'" in tally.examples["damaged"][0][2]


@pytest.mark.parametrize(
    "start, again, why",
    [
        ("<!-- ", "fox " * 2**10, "tag or comment"),
        ("<page title='", "fox " * 2**10, "tag or comment"),
        ("<page ", "a%d='' " * 100, "tag or comment"),
        ("<![CDATA[", "fox " * 2**10, ""),
        ("", "<page>" * 2**10, "nested more than 100 deep"),
        ("", "<a%d/>" * 100, "names of elements"),
        ("", "<x b%d=''/>" * 100, "names of elements"),
    ],
)
def test_dumps_that_fill_the_memory_of_a_parser(tmp_path, start, again, why):
    numbers = iter(range(10**9))
    body = start
    while len(body) < 2**22:
        body += again % tuple(next(numbers) for _ in range(again.count("%d")))
    write(tmp_path, a_xml=DUMP % (ARTICLE % ("A", 0, "", PROSE) + body))
    documents, tally = extracted(tmp_path)
    assert list(documents) == ["a.xml#A"]
    assert tally.removed_counts == {"too large" if why else "damaged": 1}
    assert why in tally.examples["too large" if why else "damaged"][0][2]


def book(path, chapters, opf_more=""):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(
            "META-INF/container.xml",
            '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
            '<rootfile full-path="OEBPS/p.opf"/></rootfiles></container>',
        )
        items = "".join(f'<item id="{n}" href="{n}.xhtml"/>' for n in chapters)
        spine = "".join(f'<itemref idref="{n}"/>' for n in chapters)
        file.writestr(
            "OEBPS/p.opf",
            f'{opf_more}<package xmlns="http://www.idpf.org/2007/opf" '
            'xmlns:dc="http://purl.org/dc/elements/1.1/"><metadata><dc:rights>CC0 1.0 Universal'
            f"</dc:rights></metadata><manifest>{items}</manifest><spine>{spine}</spine></package>",
        )
        for name, content in chapters.items():
            if content is not None:
                file.writestr(f"OEBPS/{name}.xhtml", content)


def test_books(tmp_path):
    two = f"<html><body><h1>Two</h1><p>{PROSE}</p></body></html>"
    book(tmp_path / "a.epub", {"z1": f"<p>One. {PROSE}", "a2": two, "lost": None})
    book(tmp_path / "bomb.epub", {"one": bytes(MAX_FILE + 1), "two": two})
    book(tmp_path / "entity.epub", {"one": two}, '<!DOCTYPE p [<!ENTITY a "b">]>')
    (tmp_path / "cut.epub").write_bytes((tmp_path / "a.epub").read_bytes()[:-40])
    documents, tally = extracted(tmp_path)
    assert sorted(documents) == ["a.epub", "bomb.epub"]
    assert documents["a.epub"].text.split() == ["One.", *PROSE.split(), "Two", *PROSE.split()]
    assert documents["a.epub"].licence == "CC0-1.0"
    assert tally.removed_counts == {"damaged": 3, "too large": 1}


def test_a_book_that_grows_is_counted(tmp_path, monkeypatch):
    monkeypatch.setattr("gpt.data.pipeline.extract.streams.ALLOWANCE", 2**20)
    book(tmp_path / "a.epub", {f"c{i}": b"<p>" + b" " * 2**19 + b"fox" for i in range(20)})
    documents, tally = extracted(tmp_path)
    assert not documents and tally.removed_counts == {"too large": 1}
    assert "its chapters grow" in tally.examples["too large"][0][2]


def test_json_lines(tmp_path):
    lines = [
        {"text": PROSE, "url": "https://example.org", "license": "MIT", "id": 7},
        {"body": "no text"},
        {"text": 5},
        [1],
        {"text": "a half \ud83d of a pair " + PROSE, "language": "xx"},
        {"text": "  "},
    ]
    data = "\n".join(map(json.dumps, lines)).encode() + b'\n{"text": "\xff"}\nno JSON\n'
    data += b"[" * 100_000 + b"\n\n" + json.dumps({"text": "last " + PROSE}).encode()
    write(tmp_path, a_jsonl=data)
    documents, tally = extracted(tmp_path)
    assert list(documents) == ["a.jsonl#1", "a.jsonl#5", "a.jsonl#11"]
    first, half, last = documents.values()
    assert (first.url, first.licence, first.language) == ("https://example.org", "MIT", "en")
    assert half.text.startswith("a half \ufffd of") and half.language == "xx"
    half.line()  # can be written
    assert last.text == "last " + PROSE
    assert tally.removed_counts == {"no text": 3, "damaged": 4}


def test_plain_text_is_divided_by_the_separator(tmp_path):
    write(
        tmp_path, a_txt=f"One {PROSE}<|endoftext|>\nTwo\n<|endoftext|>\n", b_md="# Head\n\ntext\n"
    )
    write(tmp_path, c_py="# SPDX-License-Identifier: ISC\nx = 1\n", d_bin=b"\x7fELF\0\0", e_txt="")
    documents, tally = extracted(tmp_path)
    assert [d.text for d in documents.values()][:3] == [
        f"One {PROSE}",
        "\nTwo\n",
        "# Head\n\ntext\n",
    ]
    assert list(documents) == ["a.txt", "a.txt#2", "b.md", "c.py"]
    assert documents["c.py"].licence == "ISC"
    assert tally.removed_counts == {"not text": 1, "no text": 1}


def test_man_pages(tmp_path):
    page = r""".\" a comment
.TH LS 1 "2022"
.de XX
hidden
..
.SH NAME
ls \- list \fBdirectory\fR contents
.if t .hidden
.TP
\fB\-a\fR, \fB\-\-all\fR
do not ignore
.BR cat (1)
.nf
  code \e n
.fi
"""
    text = "NAME\n\nls - list directory contents\n\n-a, --all do not ignore cat(1)\n\n  code \\ n"
    assert man_text(page) == text
    mdoc = ".Dd 1\n.Sh NAME\n.Nm tar\n.Nd archive\n.Sh USE\n.Nm\n.Op Fl c Ar file .\n"
    mdoc += "See\n.Xr cat 1 ,\nhere"
    assert man_text(mdoc) == "NAME\n\ntar - archive\n\nUSE\n\ntar [-c file]. See cat(1), here"
    (tmp_path / "ls.1.gz").write_bytes(gzip.compress(page.encode()))
    write(tmp_path, alias_1=".so man1/ls.1\n")
    documents, tally = extracted(tmp_path)
    assert documents["ls.1.gz"].text == text and tally.removed_counts == {"no text": 1}


def test_licences_are_found_beside_and_above(tmp_path):
    mit = "Permission is hereby granted, free of charge, to any person obtaining a copy of"
    write(tmp_path, a__LICENSE=mit, a__b__x_txt=PROSE, c__y_txt=PROSE, c__d__z_txt=PROSE)
    write(tmp_path, c__d__copyright="Format: x\n\nFiles: *\nLicense: GPL-2+\n")
    documents, _ = extracted(tmp_path)
    licences = {d.source: d.licence for d in documents.values() if d.source.endswith(".txt")}
    assert licences == {"a/b/x.txt": "MIT", "c/y.txt": "", "c/d/z.txt": "GPL-2+"}


def test_the_licence_of_documents_for_which_none_is_found(tmp_path):
    write(tmp_path, a_py="# SPDX-License-Identifier: ISC\nx = 1\n", b_txt=PROSE)
    licences = [d.licence for d in extracted(tmp_path, licence="CC-BY-SA-3.0")[0].values()]
    assert licences == ["ISC", "CC-BY-SA-3.0"]


def test_names_of_licences():
    assert name_of("https://creativecommons.org/publicdomain/zero/1.0/") == "CC0-1.0"
    assert name_of("GNU GENERAL PUBLIC LICENSE\n   Version 3, 29 June 2007") == "GPL-3.0"
    bsd = "Redistribution and use in source and binary forms, " + "with or without " * 20
    assert name_of(bsd) == "BSD-2-Clause"
    assert name_of(bsd + "Neither the name of the copyright holder") == "BSD-3-Clause"
    assert name_of("All rights reserved.") == ""


def test_languages_are_kept_or_counted(tmp_path):
    german = "Der Fuchs springt über den faulen Hund, und niemand im Dorf wundert sich darüber. "
    write(tmp_path, en_txt=PROSE * 2, de_txt=german * 2)
    documents, tally = extracted(tmp_path, languages="de, fr")
    assert list(documents) == ["de.txt"] and tally.removed_counts == {"language": 1}
    assert [d.language for d in extracted(tmp_path, identify=False)[0].values()] == ["", ""]
    with pytest.raises(ValueError, match="no language xx"):
        Settings(languages="en,xx")
    with pytest.raises(ValueError, match="leave it on"):
        Settings(languages="en", identify=False)


def test_files_are_grouped_and_links_and_hidden_files_left_out(tmp_path):
    for i in range(6):
        write(tmp_path / "in", **{f"f{i}_txt": "x" * 400})
    write(tmp_path / "in", big_txt="x" * 3000, _hidden=PROSE)
    write(tmp_path, outside_txt=PROSE)
    (tmp_path / "in/link.txt").symlink_to(tmp_path / "outside.txt")
    units = units_of([str(tmp_path / "in")], 1000)
    assert [[file.source for file in unit.source] for unit in units] == [
        ["big.txt"], ["f0.txt", "f1.txt"], ["f2.txt", "f3.txt"], ["f4.txt", "f5.txt"],
    ]  # fmt: skip
    assert [unit.name for unit in units] == ["00000", "00001", "00002", "00003"]
    both = units_of([str(tmp_path / "in"), str(tmp_path / "outside.txt")], 10**6)
    assert both[0].source[0].source == "in/big.txt" and both[0].source[-1].source == "outside.txt"
    keys = [unit.key for unit in units]
    (tmp_path / "in/f2.txt").write_text("y" * 300)
    changed = [unit.key for unit in units_of([str(tmp_path / "in")], 1000)]
    assert [a == b for a, b in zip(keys, changed)] == [True, True, False, True]
    with pytest.raises(FileNotFoundError, match="there is no file or folder"):
        units_of([str(tmp_path / "none")], 1000)


def test_the_step_writes_shards_and_a_file_that_vanishes_is_counted(tmp_path, monkeypatch):
    write(tmp_path / "in", a_html=PAGE, b_txt=PROSE)
    manifest = run(Extract(Settings()), [str(tmp_path / "in")], tmp_path / "out")
    assert [shard["documents"] for shard in manifest["shards"]] == [2]
    step, tally = Extract(Settings()), Tally()
    [unit] = step.units([str(tmp_path / "in")])
    (tmp_path / "in/b.txt").unlink()
    assert [d.source for d in step.documents(unit, tally)] == ["a.html"]
    assert tally.removed_counts == {"damaged": 1}


def test_a_large_file_becomes_several_shards(tmp_path):
    texts = ["a" * 400, "b" * 700, "c" * 2000, "d" * 30, "e" * 30]
    lines = tmp_path / "in.jsonl"
    lines.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    settings = Settings(shard_mb=1000 / 2**20, identify=False)
    manifest = run(Extract(settings), [str(lines)], tmp_path / "out")
    names = ["00000", "00000-0001", "00000-0002", "00000-0003"]
    assert [shard.name for shard in shards_in(tmp_path / "out")] == names
    by_shard = [[d.text[0] for d in read_shard(s)] for s in shards_in(tmp_path / "out")]
    assert by_shard == [["a"], ["b"], ["c"], ["d", "e"]]
    [entry] = manifest["shards"]
    assert (entry["documents"], entry["characters"]) == (5, sum(map(len, texts)))
    again = run(Clean(Clean.Settings()), [str(tmp_path / "out")], tmp_path / "clean")
    assert [entry["name"] for entry in again["shards"]] == names
    assert [d.text for d in read_documents(tmp_path / "clean")] == texts
    # A smaller file leaves none of the shards behind, also if a run was killed before its entry.
    (tmp_path / "out/00000.json").unlink()
    lines.write_text(json.dumps({"text": "short"}) + "\n")
    run(Extract(settings), [str(lines)], tmp_path / "out")
    run(Clean(Clean.Settings()), [str(tmp_path / "out")], tmp_path / "clean")
    for folder in ("out", "clean"):
        assert [d.text for d in read_documents(tmp_path / folder)] == ["short"]
        assert len(list((tmp_path / folder).glob("*.zst"))) == 1


def test_a_missing_library_is_no_damage(tmp_path, monkeypatch):
    write(tmp_path, a_html=PAGE)

    def missing(name, purpose):
        raise ImportError("pip install 'tensorlite[data]'")

    monkeypatch.setattr("gpt.data.pipeline.extract.pages.library", missing)
    with pytest.raises(ImportError, match=r"tensorlite\[data\]"):
        extracted(tmp_path)


def test_what_the_machine_lacks_is_no_damage(tmp_path, monkeypatch):
    write(tmp_path, a_txt=PROSE)
    for number, is_fault in ((errno.ENOSPC, True), (errno.EIO, True), (errno.EACCES, False)):
        fault = OSError(number, os.strerror(number))

        def fails(text, fault=fault):
            raise fault

        monkeypatch.setattr("gpt.data.pipeline.extract.identified", fails)
        with pytest.raises(OSError) if is_fault else nullcontext():
            assert extracted(tmp_path)[1].removed_counts == {"damaged": 1}


def test_what_a_library_written_in_rust_raises_is_counted_and_an_interrupt_is_not():
    tally, panic = Tally(), type("PanicException", (BaseException,), {})
    count(panic("index out of bounds"), "a.html", tally)
    assert tally.removed_counts == {"damaged": 1}
    with pytest.raises(KeyboardInterrupt):
        count(KeyboardInterrupt(), "a.html", tally)


def test_system_docs_are_folders_that_are_there(tmp_path, monkeypatch):
    (tmp_path / "man").mkdir()
    (tmp_path / "info").write_text("a file")
    monkeypatch.setattr(inputs, "SYSTEM_DOCS", tmp_path)
    assert system_docs_inputs() == [tmp_path / "man"]
