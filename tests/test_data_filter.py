"""The step "filter": which documents it leaves out, for which rule, and what it counts."""

import json
import re

import pytest

from gpt.data.pipeline.document import Document
from gpt.data.pipeline.filter import Filter, FilterSettings, gopher
from gpt.data.pipeline.filter.blocklist import Domains, Words, host_of, read_list
from gpt.data.pipeline.filter.measures import Measures
from gpt.data.pipeline.shards import read_documents, write_shards
from gpt.data.pipeline.steps import run
from gpt.data.pipeline.tally import Tally

PROSE = """\
The harbour was quiet in the early morning, and the fishermen mended their nets without haste.
Nobody could have known that a storm would come before the evening bells were rung.
A sailor with a red scarf told stories of islands where birds sleep on open water.
Children listened to him, though their mothers had asked them to be home by noon.
Farther up the hill, the baker counted loaves and wondered who would buy the last of them.
Some people believe that weather is written in the behaviour of cats and swallows.
On market days there were apples to sell, pears, and jars of dark honey from the valley.
When rain finally fell, it drummed on every roof until midnight had long passed."""


WORDS = re.findall(r"\w+", PROSE)
SHORT_LINES = ".\n".join(
    "\n".join(" ".join(WORDS[j : j + 4]) for j in range(i, i + 12, 4)) for i in range(0, 120, 12)
)


def judged(document: Document, **settings) -> tuple[str | None, dict]:
    """The text that is kept, or None, and the tally."""
    tally = Tally()
    kept = Filter(FilterSettings(**settings)).judge(document, tally)
    return kept and kept.text, tally.as_json()


def test_good_prose_stays_as_it_is():
    text, tally = judged(Document(PROSE, "a.txt"))
    assert text == PROSE and tally["removed"] == tally["changed"] == {}


@pytest.mark.parametrize(
    "text, rule",
    [
        ("Too short. It is. Is it? Yes! No.", "gopher: too few words"),
        (PROSE.replace(" the ", " ### the "), "gopher: hash signs"),
        (PROSE + "\n" + PROSE, "gopher: repeated lines"),
        (PROSE + "\nif (x) { return; }", "c4: curly bracket"),
        (SHORT_LINES, "fineweb: short lines"),
    ],
)
def test_a_document_is_left_out_by_name(text, rule):
    kept, tally = judged(Document(text, "a.txt"))
    assert kept is None and tally["removed"] == {rule: 1}
    assert tally["examples"][rule][0][1] == "a.txt"


def test_a_family_that_is_off_leaves_nothing_out():
    off = dict(gopher=False, repetition=False, c4=False, fineweb=False)
    assert judged(Document("x {", "a"), **off)[0] == "x {"
    for name in off:
        only = off | {name: True}
        family = "gopher" if name == "repetition" else name
        (rule,) = judged(Document("go go go go {" * 9, "a"), **only)[1]["removed"]
        assert rule.startswith(family + ":"), name


def test_lines_are_cut_and_counted_but_not_of_pages_that_go():
    text = PROSE + "\nPlease enable JavaScript to see this.\nWe uses cookies on the site."
    kept, tally = judged(Document(text, "a"))
    assert kept == PROSE
    assert tally["changed"] == {"c4: line on JavaScript": 1, "c4: line on policies": 1}
    assert tally["examples"]["c4: line on policies"][0][2] == "We uses cookies on the site."
    kept, tally = judged(Document(text + "\nA line with a { in it.", "a"))
    assert kept is None and tally["changed"] == {}
    assert judged(Document(PROSE + "\nNo end of it here", "a"))[0].endswith("here")
    assert judged(Document(PROSE + "\nNo end of it here", "a"), c4_terminal=True)[0] == PROSE


@pytest.mark.parametrize(
    "text, rule",
    [
        (f"{'x' * 1000}\n" + "y = 1;\n" * 20, ""),
        (f"{'x' * 1001}\n" + "y = 1;\n" * 20, "codex: long line"),
        (f"{'x' * 100}\n{'y' * 99}", ""),  # 100 characters a line, with the line feed
        (f"{'x' * 100}\n{'y' * 100}", "codex: lines long on average"),
        ("a===\n" * 3, "codex: few letters and digits"),
        ("a==\n" * 3, ""),
        ("", "codex: few letters and digits"),
    ],
)
def test_source_code_that_a_program_wrote_is_left_out(text, rule):
    kept, tally = judged(Document(text, "index.js"))
    assert kept == (None if rule else text)
    assert tally["removed"] == ({rule: 1} if rule else {})
    assert judged(Document(text, "index.js"), codex=False)[0] == text


def test_source_code_is_judged_if_asked_for_alone():
    code = Document("int main() { return 0; }\n", "src/main.c")
    assert judged(code)[0] == code.text
    assert judged(code, code=True)[0] is None
    assert judged(Document(code.text, "dump.xml#main.c"))[0] is None  # an article's title


def test_rules_for_english_are_not_for_others():
    german = re.sub(r"\b(the|be|to|of|and|that|have|with)\b", "und", PROSE)
    assert judged(Document(german, "a", language="de"))[0] == german
    assert judged(Document(german, "a"))[1]["removed"] == {"gopher: few stop words": 1}
    chinese = "\n".join(
        f"这是第{i}个句子，它说明了市场上有很多苹果和梨子可以买，价格也不贵。" for i in range(9)
    )
    assert judged(Document(chinese, "a", language="zh"))[0] == chinese


@pytest.mark.parametrize("language, kept", [("en", True), ("de", True), ("fr", False), ("", False)])
def test_languages_are_kept_by_name(language, kept):
    text, tally = judged(Document(PROSE, "a", language=language), languages="en, de")
    assert (text is not None) == kept
    assert tally["removed"] == ({} if kept else {"language": 1})


def test_lists_of_the_user(tmp_path):
    words, domains = tmp_path / "words", tmp_path / "domains"
    words.write_text("# mine\nsailor\n\nApples to Sell\n")
    domains.write_text("bad.example\nwww.worse.example\n")
    given = dict(blocked_words=str(words), blocked_domains=str(domains))
    assert judged(Document(PROSE, "a"), **given)[1]["removed"] == {"blocked word": 1}
    clean = PROSE.replace("sailor", "sailors").replace("apples", "plums")
    assert judged(Document(clean, "a", "https://good.example/bad.example"), **given)[0] == clean
    for url in ("http://bad.example", "https://a.BAD.example:80/x", "http://worse.example/"):
        assert judged(Document(clean, "a", url), **given)[1]["removed"] == {"blocked domain": 1}
    one = Filter(FilterSettings(**given)).extra_key()
    words.write_text("another\n")
    assert Filter(FilterSettings(**given)).extra_key() != one  # the step's results are made anew


def test_words_stand_alone_where_a_language_sets_spaces():
    words = Words(["ass", "c++", "no way"])
    found = {
        text: words.found_in(Document(text, ""))
        for text in ("a class", "An ASS.", "use C++!", "c++11", "no way", "no  way", "c++ ass")
    }
    assert list(found.values()) == ["", "ass", "c++", "", "no way", "", "ass"]
    assert Words(["性"]).found_in(Document("可能性很大", "", language="zh")) == "性"
    assert Domains(["org"]).found_in(Document("", "", "http://[broken")) == host_of("x/y") == ""


def test_lists_that_cannot_be_read(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="of words to block, one a line"):
        Filter(FilterSettings(blocked_words=str(tmp_path / "none")))
    bad = tmp_path / "bad"
    bad.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="the list of domains, is not UTF-8"):
        read_list(str(bad), "domains")
    bad.write_text("# nothing\n")
    with pytest.raises(ValueError, match="is empty; a list of words to block has one a line"):
        read_list(str(bad), "words")
    monkeypatch.setattr("gpt.data.pipeline.filter.blocklist.MAX_BYTES", 5)
    with pytest.raises(ValueError, match="has 10 bytes; a list of words has at most 5"):
        read_list(str(bad), "words")


def test_no_rule_fails_on_a_text_without_words():
    rules = gopher.QUALITY | gopher.STOP_WORDS_RULE | gopher.REPETITION
    for text in ("", " ", "\n\n", "\x00", "…", "\ud800", "\u200b" * 1000):
        for rule in rules.values():
            rule(Measures(text))
        assert judged(Document(text, "a"))[0] is None


def test_texts_without_end_are_judged():
    for text in ("a" * 2_000_000, "a " * 500_000, "-" * 1_000_000, "x\n" * 300_000, "[" * 500_000):
        kept, tally = judged(Document(text, "a"), gopher=False)
        assert kept is None and sum(tally["removed"].values()) == 1


def test_a_folder_is_filtered(tmp_path):
    (tmp_path / "in").mkdir()
    documents = [Document(PROSE, "a", "http://a.org"), Document("x", "b"), Document(PROSE, "c")]
    stated = write_shards(tmp_path / "in" / "00000", documents)
    entries = {"shards": [{"name": "00000"} | stated]}
    (tmp_path / "in" / "manifest.json").write_text(json.dumps(entries))
    (tmp_path / "list").write_text("a.org\n")
    step = Filter(FilterSettings(blocked_domains=str(tmp_path / "list")))
    manifest = run(step, [str(tmp_path / "in")], tmp_path / "out")
    assert [document.source for document in read_documents(tmp_path / "out")] == ["c"]
    removed = manifest["shards"][0]["tally"]["removed"]
    assert removed == {"blocked domain": 1, "gopher: too few words": 1}
