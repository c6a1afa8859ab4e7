"""The rules of quality give the verdicts of datatrove, if it is given our words and sentences."""

import pydoc_data.topics
import sysconfig
from functools import partial
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt.data.pipeline.document import Document
from gpt.data.pipeline.filter import c4, fineweb, gopher
from gpt.data.pipeline.filter.blocklist import Words
from gpt.data.pipeline.filter.measures import SYMBOLS, TERMINAL, WORD, Measures, sentences, words_of
from gpt.data.pipeline.filter.ngrams import duplicate_characters, suspects, top_characters

COMMON = "the be to of and that have with a in is it for on as was he she at by an this from or one"
RARE = "Turing machine paper river mountain holiday kitchen yellow quickly seven painted station's"
SIGNS = "... … # ## - • * | => 12 3.14 2024 $ ( ) -- 、 ［１］ \u0966\u0967 [1] [edit] { } @ ~ ►"
LONG = "supercalifragilisticexpialidocious internationalization antidisestablishmentarianism"
PHRASES = ["lorem ipsum dolor sit", "enable JavaScript now", "our cookie policy", "Terms of Use"]
ENDS = [".", ".", "?", "!", '."', "...", "…", ",", "", "", "。", "։"]
BREAKS = ["\n", "\n", "\n", "\n\n", "\n\n\n", "\r\n", "\x0b", "\u2028", "\x1c", " \n ", "\x85"]


def drawn_text(number: int) -> str:
    """A text whose habits are drawn: its length, how it repeats itself, how its lines end."""
    rng = Random(number)
    shares = [rng.gammavariate(2, 1), rng.gammavariate(1.5, 1), 0.6 * rng.random() ** 3]
    shares.append(0.5 * rng.random() ** 4)
    vocabulary = rng.randint(2, 26)
    groups = [text.split()[:vocabulary] for text in (COMMON, RARE, SIGNS, LONG)]
    ends, breaks = rng.choices(ENDS, k=2), rng.choices(BREAKS, k=2)
    repeats, bullets, phrases = rng.random() ** 3, rng.random() ** 4, 0.1 * rng.random() ** 3
    longest, lines, text = max(1, int(2 ** rng.uniform(0, 8)) // 4), [], ""
    for _ in range(int(2 ** rng.uniform(0, 5.5))):
        if lines and rng.random() < repeats:
            line = rng.choice(lines)
        else:
            kinds = rng.choices(groups, shares, k=rng.randint(1, longest))
            words = [rng.choice(group) for group in kinds]
            if rng.random() < phrases:
                words.append(rng.choice(PHRASES))
            if rng.random() < 0.003:
                words.append("x" * 1001)
            line = "- " * (rng.random() < bullets) + " ".join(words) + rng.choice(ends)
        lines.append(line)
        text += line + rng.choice(breaks)
    return text


def real_texts() -> list[str]:
    """Python's documentation and some of its source, and what the system's packages say."""
    texts = list(pydoc_data.topics.topics.values())
    sources = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[:60]
    notes = sorted(Path("/usr/share/doc").glob("*/copyright"))[:60]
    for path in [*sources, *notes]:
        if path.is_file() and path.stat().st_size < 100_000:
            texts.append(path.read_text("utf-8", "replace"))
    return [text[:2500] for text in texts]


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return [drawn_text(i) for i in range(1000)] + real_texts() + ["", " \n", "x", "\u200b", "..."]


@pytest.fixture(scope="module")
def tokenizer():
    """datatrove's interface to words and sentences, with ours behind it."""
    pytest.importorskip("datatrove")
    from datatrove.utils.word_tokenizers import WordTokenizer

    class Ours(WordTokenizer):
        def word_tokenize(self, text):
            return words_of(text)

        def sent_tokenize(self, text):
            raise NotImplementedError

        def span_tokenize(self, text):
            return [(0, len(text))] * sentences(text)  # it is their number that counts

    return Ours("en")


def verdict(theirs, text: str) -> str:
    """The reason of one of their filters; "" where it keeps the text."""
    from datatrove.data import Document as Theirs

    result = theirs.filter(Theirs(text=text, id=""))
    return "" if result is True else result[1]


def test_symbols_and_ends_are_those_of_datatrove():
    text = pytest.importorskip("datatrove.utils.text")
    assert TERMINAL == text.TERMINAL_PUNCTUATION
    assert SYMBOLS == text.PUNCTUATION_SET
    assert not any(map(str.isalpha, SYMBOLS))


# Our rule -> the arguments of their filter that switch on that rule alone.
QUALITY_RULES = {
    gopher.too_few_words: ("min_doc_words", 50),
    gopher.too_many_words: ("max_doc_words", 100_000),
    gopher.short_words: ("min_avg_word_length", 3),
    gopher.long_words: ("max_avg_word_length", 10),
    gopher.bullet_lines: ("max_bullet_lines_ratio", 0.9),
    gopher.ellipsis_lines: ("max_ellipsis_lines_ratio", 0.3),
    gopher.few_letters: ("max_non_alpha_words_ratio", 0.8),
    gopher.few_stop_words: ("min_stop_words", 2),
}
QUALITY_ARGUMENTS = [
    *[name for name, _ in QUALITY_RULES.values()],
    "max_symbol_word_ratio",
]


def quality_filter(tokenizer, **given):
    from datatrove.pipeline.filters import GopherQualityFilter

    return GopherQualityFilter(**dict.fromkeys(QUALITY_ARGUMENTS) | given, language=tokenizer)


@pytest.mark.filterwarnings("ignore:Mean of empty slice", "ignore:invalid value")
@pytest.mark.parametrize("rule", QUALITY_RULES, ids=lambda rule: rule.__name__)
def test_a_rule_of_quality_is_theirs(rule, texts, tokenizer):
    name, limit = QUALITY_RULES[rule]
    theirs, ours = quality_filter(tokenizer, **{name: limit}), []
    for text in texts:
        if not text.strip():  # they divide by the number of words
            continue
        ours.append(rule(Measures(text)))
        assert ours[-1] == bool(verdict(theirs, text)), text
    if rule is not gopher.too_many_words:
        assert 3 <= sum(ours) <= len(ours) - 3
    else:
        long = "word " * 100_001
        assert rule(Measures(long)) and verdict(theirs, long) == "gopher_long_doc"
        assert not rule(Measures(long[5:]))


@pytest.mark.filterwarnings("ignore:Mean of empty slice", "ignore:invalid value")
def test_rules_of_symbols_are_theirs(texts, tokenizer):
    theirs, found = quality_filter(tokenizer, max_symbol_word_ratio=0.1), {}
    for text in filter(str.strip, texts):
        m = Measures(text)
        reason = "gopher_too_many_ellipsis" if gopher.ellipses(m) else ""
        reason = "gopher_too_many_hashes" if gopher.hashes(m) else reason
        assert reason == verdict(theirs, text), text
        found[reason] = found.get(reason, 0) + 1
    assert len(found) == 3 and min(found.values()) >= 3


@pytest.mark.filterwarnings("ignore:Mean of empty slice", "ignore:invalid value")
def test_all_of_gopher_is_theirs(texts, tokenizer):
    from datatrove.pipeline.filters import GopherQualityFilter, GopherRepetitionFilter

    quality = GopherQualityFilter(language=tokenizer)
    repetition = GopherRepetitionFilter(language=tokenizer)
    rules = gopher.QUALITY | gopher.STOP_WORDS_RULE
    for text in filter(None, texts):
        m = Measures(text)
        assert bool(gopher.first_broken(rules, m)) == bool(verdict(quality, text)), text
        assert bool(gopher.repetition(m)) == bool(verdict(repetition, text)), text


REPETITION_OFF = dict.fromkeys(
    ["dup_line_frac", "dup_para_frac", "dup_line_char_frac", "dup_para_char_frac"]
) | {"top_n_grams": (), "dup_n_grams": ()}
REPETITION_RULES = {
    "paragraphs": (gopher.duplicate_paragraphs, dict(dup_para_frac=0.3, dup_para_char_frac=0.2)),
    "lines": (gopher.duplicate_lines, dict(dup_line_frac=0.3, dup_line_char_frac=0.2)),
}


def ngram_rule(n: int, m: Measures) -> bool:
    """Whether `repeated_ngram` finds this n, when it is asked for no other."""
    table = gopher.TOP if n in gopher.TOP else gopher.DUPLICATE
    with pytest.MonkeyPatch.context() as patch:
        for name in ("TOP", "DUPLICATE"):
            patch.setattr(gopher, name, {n: table[n]} if getattr(gopher, name) is table else {})
        return bool(gopher.repeated_ngram(m))


REPETITION_RULES |= {
    f"{argument}: {n}": (partial(ngram_rule, n), {argument: ((n, share),)})
    for argument, table in (("top_n_grams", gopher.TOP), ("dup_n_grams", gopher.DUPLICATE))
    for n, share in table.items()
}


@pytest.mark.parametrize("name", REPETITION_RULES)
def test_a_rule_of_repetition_is_theirs(name, texts, tokenizer):
    from datatrove.pipeline.filters import GopherRepetitionFilter

    rule, arguments = REPETITION_RULES[name]
    theirs = GopherRepetitionFilter(**REPETITION_OFF | arguments, language=tokenizer)
    ours = []
    for text in filter(None, texts):  # they leave out the empty text by a rule of its own
        ours.append(rule(Measures(text)))
        assert ours[-1] == bool(verdict(theirs, text)), text
    assert 3 <= sum(ours) <= len(ours) - 3


@pytest.mark.parametrize("terminal", [True, False])
def test_c4_is_theirs_in_verdict_and_text(terminal, texts, tokenizer):
    from datatrove.data import Document as Theirs
    from datatrove.pipeline.filters import C4QualityFilter

    theirs = C4QualityFilter(filter_no_terminal_punct=terminal, language=tokenizer)
    reasons = {"c4: lorem ipsum": "lorem_ipsum", "c4: curly bracket": "curly_bracket", "": ""}
    reasons["c4: few sentences"] = "too_few_sentences"
    found, cuts = {}, set()
    for text in texts:
        ours, document = c4.judge(text, terminal), Theirs(text=text, id="")
        result = theirs.filter(document)
        assert reasons[ours.rule] == ("" if result is True else result[1]), text
        assert ours.text == document.text
        found[ours.rule] = found.get(ours.rule, 0) + 1
        cuts |= ours.cut.keys()
    assert found.keys() == reasons.keys() and min(found.values()) >= 3
    assert "c4: line of few words" in cuts and ("c4: line without an end" in cuts) == terminal
    for name in ("a very long word", "on JavaScript", "on policies"):
        assert any(cut.endswith(name) for cut in cuts), name


def test_fineweb_is_theirs_rule_by_rule(texts, tokenizer):
    from datatrove.pipeline.filters import FineWebQualityFilter

    reasons = {
        "": "",
        "fineweb: blank": "empty",
        "fineweb: lines without an end": "line_punct_ratio",
        "fineweb: short lines": "short_line_ratio",
        "fineweb: repeated lines": "char_dup_ratio",
        "fineweb: more lines than words allow": "list_ratio",
    }
    theirs, found = FineWebQualityFilter(language=tokenizer), {}
    for text in texts:
        rule = gopher.first_broken(fineweb.RULES | fineweb.WORD_RULES, Measures(text))
        assert reasons[rule] == verdict(theirs, text), text
        found[rule] = found.get(rule, 0) + 1
    assert found.keys() == reasons.keys()


def test_words_of_a_list_are_found_as_by_datatrove(texts, tokenizer):
    import re

    from datatrove.pipeline.filters import C4BadWordsFilter

    entries = ["holiday", "station's", "terms of use", "12", "c++", "turing machine"]
    theirs = C4BadWordsFilter()
    pattern = "|".join(map(re.escape, entries))
    theirs._badwords_regex["en"] = re.compile(rf"(?:\W|^)({pattern})(?:\W|$)")
    ours = Words(entries)
    found = [bool(ours.found_in(Document(text, ""))) for text in texts]
    assert found == [bool(verdict(theirs, text)) for text in texts]
    assert 3 <= sum(found) <= len(found) - 3


# ---- what needs no oracle ------------------------------------------------------------------------

lists_of_words = st.lists(st.text("ab", min_size=1, max_size=3), max_size=40)


@given(lists_of_words, st.floats(0.01, 0.9))
def test_every_ngram_beyond_its_limit_is_suspected(words, share):
    limit = share * len(" ".join(words))
    tables = dict.fromkeys(gopher.TOP, limit), dict.fromkeys(gopher.DUPLICATE, limit)
    found = suspects(words, *tables)
    beyond = [n for n in gopher.TOP if top_characters(words, n) > limit]
    beyond += [n for n in gopher.DUPLICATE if duplicate_characters(words, n) > limit]
    assert set(beyond) <= set(found)


def test_words_that_do_not_repeat_are_not_suspected():
    words = [f"word{i}" for i in range(400)]
    length = len(" ".join(words))
    limits = ({n: x * length for n, x in t.items()} for t in (gopher.TOP, gopher.DUPLICATE))
    assert suspects(words, *limits) == []


@given(st.text(st.characters(max_codepoint=127)))
def test_words_of_ascii_are_those_of_the_pattern_for_all(text):
    assert words_of(text) == WORD.findall(text)


def test_words_of_a_script_with_marks_are_whole():
    assert words_of("नमस्ते, दुनिया! don't 3.14 e\u0301té (a.b)") == [
        *("नमस्ते", ",", "दुनिया", "!", "don't", "3.14", "e\u0301té", "(", "a.b", ")")
    ]


@pytest.mark.parametrize(
    "text, count",
    [("", 1), ("One", 1), ("One. Two! Three?", 3), ('He said "go." Then 3.5 more', 2), ("a...", 1)],
)
def test_sentences_are_counted(text, count):
    assert sentences(text) == count


def test_words_of_hostile_texts_are_found_in_one_pass():
    for text in (
        "a." * 500_000,
        "-" * 1_000_000,
        "'" * 500_000 + "x",
        "a'" * 300_000 + " ",
        "." * 500_000 + "x",
    ):
        assert len(words_of(text)) <= 3
        assert len(words_of(text + "é")) <= 4
        sentences(text)
