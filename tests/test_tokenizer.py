"""The tokenizers: exact both ways, fast equal to simple, safe against hostile text and files."""

import doctest
import json
import os
import random
import subprocess
import sys
import time
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tokenizer
from tokenizer import BPETokenizer, CharTokenizer, base, bpe, char, fast_bpe, files, simple_bpe
from tokenizer.pieces import splitter
from tokenizer.texts import replace_surrogates

EOS = "<|endoftext|>"
CORPUS = """It's low, lower, lowest: 1234 low prices!  He'll lower them.

\tif lows:
        lows += 1
Enough different words, in another order, for a vocabulary of three hundred ids.
"""

# st.text() leaves surrogates out unless asked; both kinds of strings reach a tokenizer.
any_text = st.text(st.characters(exclude_categories=()), max_size=60)
few_letters = st.text("ab", max_size=30)  # makes runs, overlaps and equal counts

PATTERNS = ["gpt2", "cl100k", "o200k", None, r"\w+", r"(\w)(\w)?", r"x*", r"(?r)\w+", r"a\Kb"]


@pytest.fixture(scope="module")
def trained():
    return BPETokenizer.train(CORPUS, 300, special_tokens=[EOS, "<|end|>"])


# ---- BPE by the book ----


def test_simple_train_on_the_example_of_wikipedia():
    # "aaabdaaabac": aa -> Z, then ab -> Y (or Za; the smaller pair goes first), then ZY -> X.
    a, b = ord("a"), ord("b")
    merges = simple_bpe.simple_train([b"aaabdaaabac"], 259)
    assert merges == [(a, a), (a, b), (256, 257)]
    ranks, merged = {pair: i for i, pair in enumerate(merges)}, [256, 257, 258]
    assert simple_bpe.simple_encode(list(b"aaabdaaabac"), ranks, merged) == [258, 100, 258, 97, 99]


def test_ties_go_to_the_smallest_pair():
    assert simple_bpe.simple_train([b"zy", b"ba", b"bc"], 259) == [(98, 97), (98, 99), (122, 121)]


@settings(max_examples=1000)
@given(st.lists(st.one_of(st.binary(max_size=8), few_letters.map(str.encode)), max_size=8))
def test_fast_train_equals_simple_train(corpus):
    merges = fast_bpe.fast_train(Counter(corpus), 256 + 40)
    assert merges == simple_bpe.simple_train(corpus, 256 + 40)
    tokens = BPETokenizer(merges, pattern=None)
    assert tokens.vocab_size == 256 + len(merges)  # no two of them make the same bytes
    if tokens.vocab_size < 256 + 40:  # every piece has become one token
        assert all(len(tokens.encode(p.decode())) <= 1 for p in corpus if p.isascii())


@settings(max_examples=100)
@given(st.lists(few_letters.map(str.encode), max_size=6), st.binary(max_size=40), few_letters)
def test_fast_encode_equals_simple_encode(corpus, data, letters):
    tokens = BPETokenizer(fast_bpe.fast_train(Counter(corpus), 256 + 40), pattern=None)
    for piece in (data, letters.encode()):
        expected = simple_bpe.simple_encode(list(piece), tokens._ranks, tokens._merged)
        for encode in (fast_bpe.short_encode, fast_bpe.fast_encode):
            assert encode(list(piece), tokens._ranks, tokens._merged) == expected
        assert tokens.decode_bytes(expected) == piece


@pytest.mark.parametrize("text", ["a" * 999, "ab" * 500, "aab" * 300, CORPUS * 2, "語" * 300])
def test_long_pieces_are_encoded_as_simple_encode_does(text):
    tokens = BPETokenizer.train([text[:200], CORPUS], 300, pattern=None)
    expected = simple_bpe.simple_encode(list(text.encode()), tokens._ranks, tokens._merged)
    assert tokens.encode(text) == expected
    assert tokens.decode(expected) == text


def test_a_long_piece_takes_no_quadratic_time():
    tokens = BPETokenizer.train("a" * 256, 264, pattern=None)
    start = time.perf_counter()
    ids = tokens.encode("a" * 200_000)
    assert time.perf_counter() - start < 10  # 0.5 s, or hours
    assert tokens.decode(ids) == "a" * 200_000
    assert len(ids) < 200_000 / 200


# ---- cutting into pieces ----


@pytest.mark.parametrize(
    "pattern, pieces",
    [
        ("gpt2", ["I", "'ll", " pay", " 1234", "!!", "  ", " OK", "'", "S", "\n\n", " é"]),
        ("cl100k", ["I", "'ll", " pay", " ", "123", "4", "!!", "  ", " OK", "'S", "\n\n", " é"]),
        ("o200k", ["I'll", " pay", " ", "123", "4", "!!", "  ", " OK'S", "\n\n", " é"]),
        (None, ["I'll pay 1234!!   OK'S\n\n é"]),
        (r"\d+", ["I'll pay ", "1234", "!!   OK'S\n\n é"]),
        (r"(p)(a)", ["I'll ", "pa", "y 1234!!   OK'S\n\n é"]),
    ],
)
def test_pieces(pattern, pieces):
    assert splitter(pattern)("I'll pay 1234!!   OK'S\n\n é") == pieces


def test_o200k_cuts_between_small_and_capital_letters():
    assert splitter("o200k")("camelCase HTTPServer") == ["camel", "Case", " HTTPServer"]
    assert splitter("cl100k")("camelCase") == ["camelCase"]


@settings(max_examples=60)
@given(text=any_text.map(replace_surrogates), letters=few_letters)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_pieces_joined_are_the_text(pattern, text, letters):
    split = splitter(pattern)
    for part in (text, letters, text + letters):
        assert "".join(split(part)) == part


def test_no_merge_crosses_pieces():
    tokens = BPETokenizer.train("a b " * 50, 258, pattern=r"\S+\s*")
    assert {tokens.decode([i]) for i in range(256, tokens.vocab_size)} == {"a ", "b "}


# ---- there and back ----


@settings(max_examples=60)
@given(text=any_text)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_round_trip_of_any_text(pattern, text):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tokens = BPETokenizer.train([CORPUS, text], 270, pattern)
    expected = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    ids = tokens.encode_ordinary(text)
    assert tokens.decode(ids) == expected
    assert tokens.decode_bytes(ids) == expected.encode()
    assert all(type(i) is int and 0 <= i < tokens.vocab_size for i in ids)


def test_surrogates_pairs_join_and_lone_ones_become_u_fffd(trained):
    assert trained.decode(trained.encode_ordinary("\ud83d\ude00")) == "😀"
    assert trained.decode(trained.encode_ordinary("x\ud83d y\udc00")) == "x\ufffd y\ufffd"
    assert trained.decode(trained.encode("\ud800" + EOS, allowed_special="all")) == "\ufffd" + EOS
    characters = CharTokenizer.train("ab\ud800")
    assert characters.characters == "ab\ufffd"
    assert characters.encode_ordinary("a\udfff") == [0, 2]


def test_decode_replaces_invalid_utf8(trained):
    assert trained.decode([0xE2, 0x82]) == "\ufffd"
    assert trained.decode_bytes([0xE2, 0x82]) == b"\xe2\x82"


@pytest.mark.parametrize("dtype", [np.int64, np.uint16, np.int32])
def test_decode_takes_numpy_integers(trained, dtype):
    ids = trained.encode("low prices")
    assert trained.decode(np.array(ids, dtype=dtype)) == "low prices"
    assert trained.decode([dtype(i) for i in ids]) == "low prices"
    assert trained.decode(iter(ids)) == "low prices"


@pytest.mark.parametrize("bad", [-1, 300, 10**30])
def test_decode_refuses_ids_outside_the_vocabulary(trained, bad):
    with pytest.raises(ValueError, match=rf"id {bad} is not in the vocabulary of 300 tokens"):
        trained.decode([65, bad])
    with pytest.raises(ValueError, match=rf"id {bad} .* of 4 tokens \(0 to 3\)"):
        CharTokenizer("abc").decode([bad])


def test_decode_refuses_nested_ids(trained):
    with pytest.raises(TypeError, match="one flat sequence of integers"):
        trained.decode(np.zeros((2, 2), dtype=int))


@pytest.mark.parametrize("method", ["encode", "encode_ordinary"])
def test_only_str_is_text(trained, method):
    for tokens in (trained, CharTokenizer("abc")):
        with pytest.raises(TypeError, match="a text must be a str, not bytes"):
            getattr(tokens, method)(b"abc")


# ---- special tokens ----


def test_special_tokens_are_the_last_ids(trained):
    assert trained.special_tokens == {EOS: 298, "<|end|>": 299}
    assert trained.vocab_size == 300
    assert trained.eos_token_id == 298
    assert trained.decode([298]) == EOS
    assert BPETokenizer([]).eos_token_id is None


@settings(max_examples=60)
@given(st.lists(st.one_of(st.just(EOS), st.sampled_from([EOS[:5], EOS[5:]]), any_text)))
def test_plain_text_never_becomes_a_special_token(trained, parts):
    text = "".join(parts)
    assert max(trained.encode_ordinary(text), default=0) < 298
    if EOS in replace_surrogates(text):
        with pytest.raises(ValueError, match="contains the special token"):
            trained.encode(text)
    elif "<|end|>" not in text:
        assert trained.encode(text, "all") == trained.encode_ordinary(text)


def test_a_disallowed_special_token_raises_and_says_what_to_do(trained):
    with pytest.raises(ValueError) as error:
        trained.encode(f"low{EOS}", allowed_special={"<|end|>"})
    for words in (repr(EOS), f"allowed_special={{{EOS!r}}}", "encode_ordinary(text)"):
        assert words in str(error.value)


def test_allowed_special_tokens(trained):
    low = trained.encode("low")
    text = f"low{EOS}{EOS}low<|end|>"
    assert trained.encode(text, "all") == [*low, 298, 298, *low, 299]
    assert trained.encode(text, (EOS, "<|end|>", "<|unheard of|>")) == trained.encode(text, "all")
    assert trained.decode(trained.encode(text, "all")) == text
    assert trained.decode(trained.encode_ordinary(text)) == text


def test_allowed_special_as_one_name_raises(trained):
    with pytest.raises(ValueError, match='"all" or a set of names'):
        trained.encode("low", allowed_special=EOS)


def test_the_longest_special_token_counts_first():
    tokens = BPETokenizer([], special_tokens={"<a>": 256, "<a><b>": 257, "(?)": 258})
    assert tokens.encode("<a><b><a>(?)", allowed_special="all") == [257, 256, 258]
    # tiktoken's rule: a disallowed name raises wherever it occurs, inside an allowed one too.
    with pytest.raises(ValueError, match="'<a>'"):
        tokens.encode("<a><b>", allowed_special={"<a><b>"})


@pytest.mark.parametrize(
    "names, error, message",
    [
        (EOS, TypeError, "a list of names, not one str"),
        (["x", "x"], ValueError, "'x' is given twice"),
        ([""], ValueError, "must be a str of at least one character"),
        ([7], ValueError, "special token 7: it must be"),
        (["\ud800"], ValueError, "without surrogates"),
    ],
)
def test_bad_special_names(names, error, message):
    with pytest.raises(error, match=message):
        BPETokenizer.train(CORPUS, 300, special_tokens=names)


# ---- training ----


def test_training_takes_texts_one_at_a_time():
    alive = 0

    def texts():
        nonlocal alive
        for line in CORPUS.splitlines(keepends=True):
            alive += 1
            yield line

    tokens = BPETokenizer.train(texts(), 290)
    assert alive == len(CORPUS.splitlines())
    assert tokens.vocab_size == 290
    # The same pieces, however the text is divided between words.
    assert tokens.merges == BPETokenizer.train(CORPUS.splitlines(keepends=True), 290).merges


def test_training_is_deterministic_and_silent(capsys):
    merges = [BPETokenizer.train(CORPUS, 300, pattern).merges for pattern in ("gpt2", "gpt2")]
    assert merges[0] == merges[1]
    assert capsys.readouterr().err == ""  # no progress bar where stderr is no terminal


def test_a_corpus_too_small_gives_a_smaller_vocabulary_and_a_warning():
    with pytest.warns(UserWarning, match="gives only 259 tokens, not 1000"):
        tokens = BPETokenizer.train("abc", 1000, special_tokens=[EOS])
    assert tokens.vocab_size == 259
    assert tokens.special_tokens == {EOS: 258}
    assert tokens.encode("abc" + EOS, "all") == [257, 258]


def test_vocab_size_counts_bytes_merges_and_special_tokens():
    assert BPETokenizer.train("", 257, special_tokens=[EOS]).vocab_size == 257
    with pytest.raises(ValueError, match="vocab_size 256 is too small: .* need at least 257"):
        BPETokenizer.train(CORPUS, 256, special_tokens=[EOS])


def test_training_on_what_is_no_text():
    with pytest.raises(TypeError, match="a text must be a str, not int"):
        BPETokenizer.train(b"bytes are a sequence of integers", 300)


def test_bad_patterns():
    with pytest.raises(ValueError, match=r"'gpt\(' is neither one of gpt2.*missing \)"):
        BPETokenizer.train(CORPUS, 300, pattern="gpt(")
    with pytest.raises(ValueError, match="recursion"):
        BPETokenizer([], pattern="(" * 5000 + ")" * 5000)
    with pytest.raises(TypeError, match="pattern must be a str or None, not int"):
        BPETokenizer([], pattern=7)


# ---- the constructor's checks ----


@pytest.mark.parametrize(
    "merges, message",
    [
        ([(97, 256)], "merge 0 is .* but only ids 0 to 255 exist yet"),
        ([(97, 98), (256, 257)], "merge 1 is .* but only ids 0 to 256 exist yet"),
        ([(-1, 98)], "merge 0 is"),
        ([(97, 98), (97, 98)], "merge 1 is .*, the same as merge 0"),
        ([(97, 98, 99)], "merge 0 must be a pair of ids"),
        (["ab"], "merge 0 must be a pair of ids"),
        ([(97, True)], "merge 0 must be a pair of ids"),
        ([(97, 1.0)], "merge 0 must be a pair of ids"),
        ([(97, 97), *((i, i) for i in range(256, 300))], "more than 67,108,864 bytes"),
    ],
)
def test_bad_merges(merges, message):
    with pytest.raises(ValueError, match=message):
        BPETokenizer(merges)


@pytest.mark.parametrize("ids", [{"x": 0}, {"x": 257}, {"x": 256, "y": 256}, {"x": "256"}])
def test_bad_special_ids(ids):
    with pytest.raises(ValueError, match="ids from 256 on, each once"):
        BPETokenizer([], special_tokens=ids)


def test_merges_to_the_same_bytes_share_an_id():
    a, b, c = b"abc"
    tokens = BPETokenizer([(a, b), (b, c), (256, c), (a, 257)], special_tokens={EOS: 259})
    assert tokens.vocab_size == 260
    assert tokens.encode("abc") == [258]
    assert len(set(tokens.vocabulary.values())) == tokens.vocab_size


# ---- the cache ----


def test_the_cache_is_bounded_and_changes_nothing(monkeypatch):
    monkeypatch.setattr(bpe.PieceCache, "MAX_PIECES", 10)
    monkeypatch.setattr(bpe.PieceCache, "MAX_LENGTH", 5)
    tokens = BPETokenizer.train(CORPUS, 300)
    expected = tokens.encode(CORPUS)
    for i in range(50):
        tokens.encode(f"word{i} {i}" + "z" * 20)
        assert len(tokens._cache) <= 10
        assert max(map(len, tokens._cache), default=0) <= 5
    assert tokens.encode(CORPUS) == expected


def test_answers_do_not_share_a_list_with_the_cache(trained):
    ids = trained.encode("low")
    ids.append(0)
    assert trained.encode("low") == ids[:-1]


# ---- many texts ----


@pytest.mark.parametrize("workers, group", [(None, 1), (1, 1), (2, 1), (2, 20), (2, 2**20)])
def test_encode_batch(trained, workers, group, monkeypatch):
    monkeypatch.setattr(base, "GROUP", group)  # characters that make a process worth its start
    texts = ["low", "", "lower é", f"x{EOS}"] * 5
    expected = [trained.encode(text, "all") for text in texts]
    assert trained.encode_batch(iter(texts), workers, allowed_special="all") == expected
    with pytest.raises(ValueError, match="contains the special token"):
        trained.encode_batch(texts, workers)


def test_encode_batch_of_characters():
    assert CharTokenizer("abc").encode_batch(["ab", "c", ""], workers=2) == [[0, 1], [2], []]


def test_encode_batch_refuses(trained):
    with pytest.raises(TypeError, match="several texts, not one str"):
        trained.encode_batch("low")
    with pytest.raises(ValueError, match="workers must be at least 1, or None, not 0"):
        trained.encode_batch(["low"], workers=0)


# ---- characters ----


def test_characters_are_numbered_in_code_point_order():
    tokens = CharTokenizer.train("ba\nßa😀")
    assert tokens.characters == "\nabß😀"
    assert tokens.vocab_size == 6
    assert tokens.unknown_id == 5
    assert tokens.special_tokens == {}
    assert tokens.eos_token_id is None
    assert tokens.decode([4, 0, 5]) == "😀\n\ufffd"
    assert tokens.decode_bytes([3]) == "ß".encode()


@settings(max_examples=60)
@given(any_text)
def test_characters_round_trip(text):
    tokens = CharTokenizer.train(text)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing is unknown
        assert tokens.decode(tokens.encode(text)) == replace_surrogates(text)


def test_unknown_characters_are_named_once():
    tokens = CharTokenizer("abc")
    with pytest.warns(UserWarning, match=r"6 characters .*\(id 3\): 'u', 'v', 'w', 'x', 'y', \.\."):
        assert tokens.encode("azyxwvu") == [0, 3, 3, 3, 3, 3, 3]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert tokens.encode("q" + EOS) == [3] * 14
    assert tokens.decode([0, 3]) == "a\ufffd"


def test_bad_characters():
    with pytest.raises(ValueError, match="distinct, but 'a' occurs more than once"):
        CharTokenizer("aba")
    with pytest.raises(ValueError, match="surrogates"):
        CharTokenizer("a\ud800")
    with pytest.raises(TypeError, match="one str, not list"):
        CharTokenizer(["a"])


# ---- saving and loading ----


@pytest.mark.parametrize(
    "tokens",
    [
        CharTokenizer.train('héllo\n\x00"\\😀'),
        CharTokenizer(""),
        BPETokenizer([]),
        BPETokenizer.train(CORPUS, 290, "cl100k", [EOS, "é 😀"]),
        BPETokenizer.train(CORPUS, 290, None),
        BPETokenizer.train(CORPUS, 290, r"(\w+)\s*"),
    ],
)
def test_save_and_load(tmp_path, tokens):
    directory = tmp_path / "new" / "directory"
    tokens.save(directory)
    tokens.save(directory)  # over itself
    assert [path.name for path in directory.iterdir()] == [base.FILE_NAME]
    for path in (directory, str(directory), directory / base.FILE_NAME):
        again = tokenizer.load(path)
        assert type(again) is type(tokens)
        assert again.describe() == tokens.describe()
        assert again.vocabulary == tokens.vocabulary
        assert again.special_tokens == tokens.special_tokens
        text = CORPUS if isinstance(tokens, BPETokenizer) else "hello"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert again.encode(text) == tokens.encode(text)


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    CharTokenizer("abc").save(tmp_path)

    def full_disk(_):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="no space"):
        CharTokenizer("xyz").save(tmp_path)
    assert tokenizer.load(tmp_path).characters == "abc"
    assert len(list(tmp_path.iterdir())) == 1


def test_load_of_nothing(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"there is no {base.FILE_NAME} in it"):
        tokenizer.load(tmp_path)
    with pytest.raises(FileNotFoundError, match="there is no such file or directory"):
        tokenizer.load(tmp_path / "nowhere")


def test_load_of_what_is_no_file(tmp_path):
    (tmp_path / base.FILE_NAME).mkdir()
    with pytest.raises(ValueError, match="not a regular file"):
        tokenizer.load(tmp_path)


def test_load_of_a_file_too_large(tmp_path):
    with open(tmp_path / base.FILE_NAME, "wb") as file:
        file.truncate(files.MAX_FILE_BYTES + 1)  # a sparse file
    with pytest.raises(ValueError, match="67,108,865 bytes; a tokenizer has at most"):
        tokenizer.load(tmp_path)


def described(**changes) -> bytes:
    good = {"format": "tensorlite-tokenizer", "version": 1, "type": "bpe", "pattern": "gpt2"}
    content = good | {"special_tokens": {EOS: 257}, "merges": [[97, 98]]} | changes
    return json.dumps({k: v for k, v in content.items() if v != "absent"}).encode()


HOSTILE = [
    (b"", "not JSON"),
    (described()[:-5], "not JSON, or it is cut short"),
    (b"\xff\xfe\x00", "not JSON"),
    (b"[" * 100_000, "not JSON"),
    (b"9" * 10_000, "not JSON"),
    (b"[]", "not a tensorlite tokenizer"),
    (b'{"model": {"type": "BPE"}}', "merges must be a list, not None"),
    (described(format=[1]), "not a tensorlite tokenizer"),
    (described(version=2), "version 2; this program reads version 1"),
    (described(version=True), "version True"),
    (described(version="absent"), "version None"),
    (described(type="wordpiece"), "the type is 'wordpiece'; it must be one of char, bpe"),
    (described(type=["bpe"]), "must be one of"),
    (described(merges="absent", pattern="absent"), "the file has no merges, pattern"),
    (described(merges={"a": "b"}), "merges must be a list of pairs, not dict"),
    (described(merges=None), "merges must be a list of pairs, not NoneType"),
    (described(merges=["a b"]), "merge 0 must be a pair of ids, not 'a b'"),
    (described(merges=[[97]]), "merge 0 must be a pair"),
    (described(merges=[[[[[[[[[97]]]]]]]]]), "merge 0 must be a pair"),
    (described(merges=[[97, None]]), "merge 0 must be a pair"),
    (described(merges=[[97, 300]]), "merge 0 is .* but only ids 0 to 255 exist yet"),
    (described(merges=[[97, 10**4000]]), "merge 0 is .{,80} but only"),
    (described(merges=[[97, 98], [97, 98]]), "merge 1 is .*, the same as merge 0"),
    (
        described(merges=[[97, 97], *([i, i] for i in range(256, 400))]),
        "more than 67,108,864 bytes",
    ),
    (described(pattern="("), "nor a regular expression"),
    (described(pattern=7), "pattern must be a str or None, not int"),
    (described(special_tokens=[EOS]), "special_tokens must be a dict of name: id, not list"),
    (described(special_tokens=None), "special_tokens must be a dict"),
    (described(special_tokens={EOS: 5}), "ids from 257 on"),
    (described(special_tokens={EOS: 10**9}), "ids from 257 on"),
    (described(special_tokens={EOS: "257"}), "ids from 257 on"),
    (described(special_tokens={"": 257}), "must be a str of at least one"),
    (described(special_tokens={"\ud800": 257}), "without surrogates"),
    (described(type="char"), "characters must be one str, not NoneType"),
    (described(type="char", characters=["a"]), "characters must be one str, not list"),
    (described(type="char", characters="aa"), "distinct, but 'a' occurs more than once"),
    (described(type="char", characters="\ud800"), "surrogates"),
]


@pytest.mark.parametrize("content, message", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_files_give_one_clear_error(tmp_path, content, message):
    file = tmp_path / base.FILE_NAME
    file.write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        tokenizer.load(tmp_path)
    assert str(error.value).startswith(f"{file}: ")
    assert len(str(error.value)) < len(str(file)) + 250


def test_every_truncation_and_many_changed_bytes_raise_nothing_but_value_error(tmp_path):
    file = tmp_path / base.FILE_NAME
    good = described(pattern=None)
    file.write_bytes(good)
    assert tokenizer.load(file).vocab_size == 258
    rng = random.Random(0)
    changed = [good[:i] for i in range(len(good))]
    for _ in range(500):
        content = bytearray(good)
        content[rng.randrange(len(good))] = rng.randrange(256)
        changed.append(bytes(content))
    for content in changed:
        file.write_bytes(content)
        try:
            tokens = tokenizer.load(file)
        except ValueError as error:
            assert str(error).startswith(str(file))
        else:
            assert tokens.decode(tokens.encode_ordinary("abc")) == "abc"


# ---- the package ----


def test_import_is_light():
    code = "import sys, tokenizer; print({'regex', 'tqdm', 'tensorlite'} & {*sys.modules})"
    root = Path(tokenizer.__file__).parents[1]
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False
    )
    assert run.stdout == "set()\n", run.stderr


@pytest.mark.parametrize("module", [tokenizer, base, char, simple_bpe, fast_bpe, bpe])
def test_the_examples_in_the_docstrings_are_true(tmp_path, monkeypatch, module):
    monkeypatch.chdir(tmp_path)
    Path("corpus.txt").write_text(CORPUS)
    names = vars(tokenizer) | vars(module)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = doctest.testmod(module, extraglobs=names)
    assert result.attempted > 0
    assert result.failed == 0


def test_tinyshakespeare(trained):
    directory = os.environ.get("TENSORLITE_DATA")
    if not directory:
        pytest.skip("TENSORLITE_DATA is not set; it names a directory with tinyshakespeare.txt")
    text = (Path(directory) / "tinyshakespeare.txt").read_text(encoding="utf-8")
    characters = CharTokenizer.train(text)
    assert characters.vocab_size == 66
    assert characters.decode(characters.encode(text)) == text
    tokens = BPETokenizer.train(text, 1024, special_tokens=[EOS])
    assert tokens.vocab_size == 1024
    assert tokens.decode(tokens.encode(text)) == text
