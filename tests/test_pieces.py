"""Cutting into pieces and looking them up by NumPy: equal to the regular expressions and a loop."""

import random
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenizer import BPETokenizer, bpe, counting, pieces, table
from tokenizer import texts as texts_module
from tokenizer.texts import replace_surrogates

CORPUS = """It's low, lower, lowest: 1234 low prices!  He'll lower them, WE'RE told.

\tif lows:\r
        lows += 1  # ä, é, ﬁ, 語, Ünder
Enough different words, in another order, for a vocabulary of three hundred ids.
"""

# What the patterns tell apart: contractions in both cases and with a long s, blanks, line ends,
# signs, digits, marks, letters with and without a case, characters of four bytes.
AWKWARD = [*"aBsStTrReElLvVmMdD'  \t\n\r!/(1234567é", "''", "'s", "'ll", "ſ", "Ł", "\xa0", "\u0301"]
AWKWARD += [
    "語",
    "٣",
    "½",
    "’",
    "\x1c",
    "\x85",
    "\u2028",
    "ǅ",
    "ʰ",
    "\x0b",
    "\0",
    "𝔄",
    "😀",
    "   ",
    "\n/",
]
awkward_text = st.lists(st.sampled_from(AWKWARD), max_size=20).map("".join)
any_text = st.text(st.characters(exclude_categories=("Cs",)), max_size=40)
texts = st.one_of(awkward_text, any_text, st.text(" \n!/'sA1", max_size=20))


def starts(text, pattern):
    """Where the pieces begin by the regular expression."""
    sizes = [len(piece) for piece in pieces.splitter(pattern)(text)]
    return np.cumsum([0, *sizes])[:-1].tolist()


@settings(max_examples=2000)
@given(text=texts)
@pytest.mark.parametrize("pattern", pieces.PATTERNS)
def test_numpy_cuts_as_the_regular_expression_does(pattern, text):
    found = pieces.piece_starts(text, pattern)
    if found is None:
        assert pattern == "o200k"
    else:
        assert found.tolist() == starts(text, pattern)


@pytest.mark.parametrize("pattern", pieces.PATTERNS)
def test_every_character_in_every_place(pattern):
    """Each character there is, alone and next to letters, digits, blanks, signs and line ends."""
    every = [chr(i) for i in range(0x110000) if not 0xD800 <= i < 0xE000]
    random.Random(0).shuffle(every)
    places = ("a{0}b", " {0}b", "1{0}1", "\n{0}!", "!{0}\n", "{0}'s")
    for i in range(0, len(every), 5000):
        text = " ".join(places[k % 6].format(c) for k, c in enumerate(every[i : i + 5000], i))
        if pattern == "o200k":  # it leaves these to the regular expression
            letters = pieces._kind_of(pattern, 0x110000)
            hard = pieces.MARK, pieces.LETTER
            text = "".join(c for c in text if letters[ord(c)] not in hard)
        found = pieces.piece_starts(text, pattern)
        assert found is None or found.tolist() == starts(text, pattern)


def test_what_o200k_leaves_to_the_regular_expression():
    for text in ("語", "e\u0301", "it's's", "!\n/"):
        assert pieces.piece_starts(text, "o200k") is None
    for text in ("", "naïve Ärger", "it's 's", "x\n/", "a/b\n"):
        assert pieces.piece_starts(text, "o200k").tolist() == starts(text, "o200k")


@settings(max_examples=500)
@given(text=texts, more=texts, size=st.integers(1, 30))
@pytest.mark.parametrize("pattern", pieces.PATTERNS)
def test_blocks_are_cut_where_no_piece_notices(pattern, text, more, size):
    text = f"{text}x {more}1\n{text}"
    parts = list(pieces.blocks(text, size, pattern))
    assert "".join(parts) == text and all(parts)
    split = pieces.splitter(pattern)
    assert [piece for part in parts for piece in split(part)] == split(text)


def test_blocks_of_other_patterns_are_the_whole_text():
    assert list(pieces.blocks("one two", 1, r"\w+")) == ["one two"]
    assert list(pieces.blocks("one two", 1, None)) == ["one two"]
    assert list(pieces.blocks("", 1, "gpt2")) == []
    assert list(pieces.blocks("a" * 50, 5, "gpt2")) == ["a" * 50]  # nowhere to cut


# ---- the table ----


@pytest.fixture(scope="module")
def trained():
    return {pattern: BPETokenizer.train(CORPUS, 300, pattern) for pattern in pieces.PATTERNS}


SIZES = pytest.mark.parametrize(
    "bits, room", [(18, 2**20), (2, 2**20), (4, 64)], ids=["roomy", "collisions", "little room"]
)


@SIZES
@settings(max_examples=60)
@given(data=st.data())
@pytest.mark.parametrize("pattern", pieces.PATTERNS)
def test_the_table_gives_what_a_loop_gives(trained, pattern, bits, room, data):
    tokens = trained[pattern]
    lookup = table.PieceTable(pattern, tokens._cache.__getitem__, np.uint16, bits, room)
    part = st.one_of(texts, st.just(CORPUS), st.just("z" * 99))
    for text in data.draw(st.lists(part, max_size=6)):
        for _ in range(2):  # when it is new, and when it is known
            if not text:
                continue
            ids = lookup.ids([text])
            if ids is None:
                assert pattern == "o200k"
            else:
                assert ids[0].dtype == np.uint16
                assert ids[0].tolist() == tokens._encode_plainly(text)


@SIZES
def test_pieces_of_one_hash_or_one_beginning_are_told_apart(trained, bits, room):
    tokens = trained["gpt2"]
    lookup = table.PieceTable("gpt2", tokens._cache.__getitem__, np.uint16, bits, room)
    words = ["a" * n for n in range(1, 40)] + ["\0" * n for n in range(1, 20)]
    words += [f"x{n}" for n in range(99)]
    for text in [" ".join(words), *words, " ".join(words[::-1])]:
        assert lookup.ids([text])[0].tolist() == tokens._encode_plainly(text)


def test_long_texts_are_encoded_as_short_ones(monkeypatch):
    """Through the table in blocks, or by the loop: the same ids."""
    rng = random.Random(0)
    text = "".join(rng.choice(AWKWARD) + rng.choice(("", "", " word", "low")) for _ in range(5000))
    for pattern in (*pieces.PATTERNS, None, r"\w+"):
        tokens = BPETokenizer.train(CORPUS, 300, pattern)
        expected = tokens._encode_plainly(text)
        for size in (50, 2**16):
            monkeypatch.setattr(bpe, "BLOCK", size)
            assert tokens.encode_ordinary(text) == expected
            assert tokens.encode_to_numpy(text).tolist() == expected
        assert tokens.decode(expected) == replace_surrogates(text)


def test_while_a_thread_has_the_table_others_do_without():
    tokens = BPETokenizer.train(CORPUS, 300)
    expected = tokens.encode(CORPUS * 9)
    with tokens._table.lock:
        assert tokens.encode(CORPUS * 9) == expected
    answers = []
    threads = [
        threading.Thread(target=lambda: answers.append(tokens.encode(CORPUS * 9))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [expected] * 8


@SIZES
@settings(max_examples=60)
@given(parts=st.lists(st.one_of(texts, st.sampled_from(["\0", "a\0", " ", "\n", "'s", "a'"]))))
@pytest.mark.parametrize("pattern", pieces.PATTERNS)
def test_texts_together_are_as_apart(trained, pattern, bits, room, parts):
    """What is beside a text does not change its pieces, nor do characters like the joints'."""
    tokens = trained[pattern]
    lookup = table.PieceTable(pattern, tokens._cache.__getitem__, np.uint16, bits, room)
    full = [text for text in parts if text] or ["x"]
    for _ in range(2):
        ids = lookup.ids(full)
        if ids is None:
            assert pattern == "o200k"
        else:
            assert [one.tolist() for one in ids] == [tokens._encode_plainly(t) for t in full]
    many = (parts + ["", CORPUS, "low"]) * 20
    assert tokens.encode_batch(many) == [tokens.encode(text) for text in many]


# ---- counting ----


@settings(max_examples=100)
@given(st.lists(st.one_of(texts, st.just(CORPUS * 20)), max_size=5))
@pytest.mark.parametrize("pattern", [*pieces.PATTERNS, None, r"\w+"])
def test_pieces_are_counted(pattern, parts):
    split = pieces.splitter(pattern)
    expected = {}
    for text in parts:
        for piece in split(text):
            expected[piece.encode()] = expected.get(piece.encode(), 0) + 1
    assert counting.count_pieces(parts, pattern) == expected


def test_pieces_are_counted_in_files_and_processes(tmp_path, monkeypatch):
    monkeypatch.setattr(texts_module, "FILE_BLOCK", 40)
    monkeypatch.setattr(counting, "GROUP", 100)
    path = tmp_path / "corpus.txt"
    path.write_bytes(b"\xef\xbb\xbf" + CORPUS.encode())
    for pattern in ("gpt2", "o200k", None):
        expected = counting.count_pieces([CORPUS] * 3, pattern)
        assert counting.count_pieces([path, CORPUS, path], pattern) == expected
        assert counting.count_pieces([path, CORPUS, path], pattern, workers=2) == expected
    assert counting.count_pieces(path, "gpt2") == counting.count_pieces(CORPUS, "gpt2")
    merges = BPETokenizer.train(CORPUS, 300).merges
    assert BPETokenizer.train([path], 300, workers=2).merges == merges
