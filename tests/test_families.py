"""The tokenizers of published families give the ids that Hugging Face's libraries give.

For each family a small tokenizer is trained here, by `tokenizers`, with the steps that its
published tokenizer.json has. Needs `tokenizers`, and is skipped without; `transformers` for some
tests.
"""

import json
import pickle
import warnings
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import tensorlite as tl
import tokenizer
from gpt import GPTConfig
from gpt.generate import generate
from tokenizer import BPETokenizer, SentencePieceBPE, StreamDecoder, pieces
from tokenizer import texts as texts_module
from tokenizer.huggingface_files import read_huggingface

hf = pytest.importorskip("tokenizers", reason="Hugging Face's tokenizers are compared with")
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors  # noqa: E402

ROOT = Path(__file__).parents[1]
MARK = "▁"
QWEN_TOOLS = ["<think>", "</think>", "<tool_call>"]
DEEPSEEK = [
    r"\p{N}{1,3}",
    r"[一-龥\u3040-ゟ゠-ヿ]+",
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
]


@cache
def corpus() -> str:
    source = "".join(p.read_text() for p in sorted((ROOT / "tokenizer").glob("*.py"))[:4])
    return source + "naïve café cafe\u0301 語学 한국어 1999 12345 😀 \u0915\u093c,\n" * 20


def split(expression: str):
    return pre_tokenizers.Split(hf.Regex(expression), "isolated")


def level(use_regex: bool = False):
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)


def byte_level(special, steps, added=(), **model):
    """A byte-level tokenizer of `tokenizers`, trained with the steps of a family."""
    made = hf.Tokenizer(models.BPE(**model))
    made.pre_tokenizer = pre_tokenizers.Sequence(steps) if len(steps) > 1 else steps[0]
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = hf.trainers.BpeTrainer(vocab_size=700, initial_alphabet=alphabet, show_progress=False)
    made.train_from_iterator([corpus()], trainer)
    made.add_special_tokens(list(special))
    for token in added:
        made.add_tokens([hf.AddedToken(token, normalized=False) if type(token) is str else token])
    return made


def sentencepiece(
    normalizer, pre_tokenizer, strip=True, byte_fallback=True, fuse=True, crossing=False, late=False
):
    """A tokenizer as those that were converted from SentencePiece's models."""
    made = hf.Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=fuse, byte_fallback=byte_fallback))
    first = ["<unk>", "<s>", "</s>"]
    bytes_ = [f"<0x{b:02X}>" for b in range(256)] if byte_fallback else []
    trainer = hf.trainers.BpeTrainer(
        vocab_size=800, special_tokens=first + bytes_, limit_alphabet=60, show_progress=False
    )
    # SentencePiece trains on words, so that no token goes on behind them.
    words = [MARK + word for word in corpus().split(" ")]
    made.train_from_iterator(["".join(words)] if crossing else words, trainer)
    made.normalizer, made.pre_tokenizer = normalizer, pre_tokenizer
    steps = [decoders.Replace(MARK, " ")]
    steps += [decoders.ByteFallback()] if byte_fallback else []
    steps += [decoders.Fuse(), *([decoders.Strip(" ", 1, 0)] if strip else [])]
    made.decoder = decoders.Sequence(steps)
    description = json.loads(made.to_str())
    description["added_tokens"] = description["added_tokens"][:3]  # bytes are no added tokens
    for token in description["added_tokens"]:
        token["normalized"] = late
    made = hf.Tokenizer.from_str(json.dumps(description))
    made.add_tokens([hf.AddedToken("<extra>", special=False, normalized=False)])
    made.post_processor = processors.TemplateProcessing("<s> $A", None, [("<s>", 1)])
    return made


def llama3():
    names = ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"]
    steps = [split(pieces.PATTERNS["cl100k"]), level()]
    made = byte_level(names, steps, ignore_merges=True)
    begin = [(names[0], made.token_to_id(names[0]))]
    made.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(f"{names[0]} $A", None, begin),
        ]
    )
    return with_lost_merges(made)


def with_lost_merges(made):
    """The same with words that no merges lead to: only `ignore_merges` gives their ids."""
    model = (description := json.loads(made.to_str()))["model"]
    model["merges"] = model["merges"][:-60]
    return hf.Tokenizer.from_str(
        json.dumps(description | {"model": model | {"ignore_merges": True}})
    )


def qwen(added=()):
    names = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    made = byte_level(names, [split(pieces.PATTERNS["qwen2"]), level()], added)
    made.normalizer = normalizers.NFC()
    made.post_processor = processors.ByteLevel(trim_offsets=False)
    return made


def small_letters():
    made = byte_level(["<|endoftext|>"], [level(True)])
    digits = normalizers.Replace(hf.Regex(r"\p{Nd}"), "0")
    made.normalizer = normalizers.Sequence([normalizers.Lowercase(), digits])
    return made


def bert_around(made):
    made.post_processor = processors.RobertaProcessing(
        ("</s>", made.token_to_id("</s>")), ("<s>", made.token_to_id("<s>"))
    )
    return made


def legacy():
    return normalizers.Sequence([normalizers.Prepend(MARK), normalizers.Replace(" ", MARK)])


def metaspace(scheme: str, cut: bool):
    return pre_tokenizers.Metaspace(MARK, scheme, cut)


EOS = "<|endoftext|>"
FAMILIES = {
    "gpt2": lambda: byte_level([hf.AddedToken(EOS, normalized=True)], [level(True)]),
    "llama2": lambda: sentencepiece(legacy(), None),
    "mistral": lambda: sentencepiece(None, metaspace("first", False)),
    "metaspace": lambda: bert_around(sentencepiece(None, metaspace("always", True))),
    "never": lambda: sentencepiece(normalizers.NFKC(), metaspace("never", True), strip=False),
    "gemma": lambda: sentencepiece(
        normalizers.Replace(" ", MARK),
        pre_tokenizers.Split(" ", "merged_with_previous"),
        strip=False,
    ),
    "crossing": lambda: sentencepiece(legacy(), None, crossing=True),
    "whole_words": lambda: with_lost_merges(sentencepiece(None, metaspace("always", True))),
    "unknown": lambda: sentencepiece(legacy(), None, byte_fallback=False),
    "unknown_each": lambda: sentencepiece(legacy(), None, byte_fallback=False, fuse=False),
    "llama3": llama3,
    "small_letters": small_letters,
    "smollm": lambda: byte_level(
        [EOS, "<|im_start|>"], [pre_tokenizers.Digits(individual_digits=True), level(True)]
    ),
    "qwen2": qwen,
    "qwen3": lambda: qwen(QWEN_TOOLS),
    "deepseek": lambda: byte_level([EOS], [*map(split, DEEPSEEK), level()], ["<｜User｜>"]),
    "late_llama": lambda: sentencepiece(legacy(), None, late=True),
    "late_qwen": lambda: qwen([hf.AddedToken("<o\u0304>", normalized=True), "<think>"]),
    "spaces": lambda: byte_level([EOS], [level(True)], ["  ", "    ", "def"]),
}


@cache
def family(name: str):
    """A family's tokenizer, of `tokenizers`, and ours, read from its file."""
    theirs = FAMILIES[name]()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours = read_huggingface(json.loads(theirs.to_str()))
    return theirs, ours


words = st.sampled_from(
    [" ", "  ", "\n", "\n\n", "\t", "\r\n", MARK, "low", "The", "def", "self", "it's", "DON'T"]
    + ["e\u0301", "\u0301", "\u0958", "\u212b", "ﬁ", "각", "한", "語", "😀", "\x00", "<0x41>"]
    + [
        "1",
        "12345",
        "½",
        "٣",
        "<s>",
        "</s>",
        "<unk>",
        "<extra>",
        "<\u00e9>",
        "<e\u0301>",
        EOS,
        "<|im_start|>",
    ]
    + ["<|eot_id|>", "<｜User｜>", "<th", *QWEN_TOOLS, ".", "-", ">", "\u0338", "'", "x"]
)
any_text = st.text(st.characters(codec="utf-8", max_codepoint=0x2FFFF), max_size=8)
texts = st.lists(st.one_of(words, words, words, any_text), max_size=12).map("".join)


def check_same(theirs, ours, text: str) -> None:
    ids = theirs.encode(text, add_special_tokens=False).ids
    assert ours.encode(text, "all") == ids
    assert ours.encode_to_numpy(text, "all").tolist() == ids
    assert [*ours.prefix_ids, *ids, *ours.suffix_ids] == theirs.encode(text).ids
    assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=False)
    theirs.encode_special_tokens = True
    plain = theirs.encode(text, add_special_tokens=False).ids
    theirs.encode_special_tokens = False
    assert ours.encode_ordinary(text) == plain


@pytest.mark.parametrize("name", FAMILIES)
def test_ids_and_texts_are_those_of_hugging_face(name):
    theirs, ours = family(name)
    sentencepiece = isinstance(ours, SentencePieceBPE)
    assert sentencepiece or isinstance(ours, BPETokenizer)

    @settings(max_examples=80, deadline=None)
    @given(texts)
    @example("")
    @example("<o\u0304> a<\u014d><s> </s><unk>  <s>")
    @example("low lower  lowest\n 12345 <think>x</think> <s>a b</s> <extra> c" + EOS)
    def same(text):
        check_same(theirs, ours, text)

    same()
    check_same(theirs, ours, corpus()[:20_000] + "ab" * 500)


@pytest.mark.parametrize("name", FAMILIES)
def test_they_come_back_from_our_file_and_from_exported_ones(name, tmp_path):
    theirs, ours = family(name)
    ours.save(tmp_path / "ours")
    ours.export(tmp_path / "hf", "huggingface")
    exported = hf.Tokenizer.from_file(str(tmp_path / "hf" / "tokenizer.json"))
    others = [tokenizer.load(tmp_path / "ours"), tokenizer.load(tmp_path / "hf")]
    others.append(pickle.loads(pickle.dumps(ours)))
    for other in others:
        assert type(other) is type(ours) and other.vocabulary == ours.vocabulary
        assert other.conventions == ours.conventions
        assert other.describe() == ours.describe() or name in ("gemma", "smollm")

    @settings(max_examples=25, deadline=None)
    @given(texts)
    def same(text):
        check_same(exported, ours, text)
        for other in others:
            assert other.encode(text, "all") == ours.encode(text, "all")

    same()


@pytest.mark.parametrize("name", ["gpt2", "llama2", "mistral", "llama3", "smollm", "qwen3"])
def test_transformers_load_what_is_exported(name, tmp_path):
    transformers = pytest.importorskip("transformers")
    theirs, ours = family(name)
    names = list(ours.special_tokens)
    template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    roles = ours.conventions._replace(
        bos_token=names[0], eos_token=names[-1], pad_token=names[0], chat_template=template
    )
    ours = pickle.loads(pickle.dumps(ours))  # the family's own stays as it is
    ours.set_conventions(roles)
    ours.export(tmp_path, "huggingface")
    auto = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in ("low e\u0301 1999  x\n", "語😀 </s>", f" a{names[-1]} b <think>c", ""):
        ids = [*ours.prefix_ids, *ours.encode(text, "all"), *ours.suffix_ids]
        assert auto(text)["input_ids"] == ids == theirs.encode(text).ids
        assert auto.decode(ids) == ours.decode(ids)
    assert auto.eos_token_id == ours.eos_token_id == ours.special_tokens[names[-1]]
    assert auto.bos_token_id == auto.pad_token_id == ours.bos_token_id == ours.pad_token_id
    assert auto.chat_template == template
    auto.save_pretrained(tmp_path / "again")  # which writes the template to a file of its own
    ours.save(tmp_path / "ours")
    for folder in ("again", "ours"):
        again = tokenizer.load(tmp_path / folder)
        assert again.conventions == ours.conventions and again.vocabulary == ours.vocabulary


@pytest.mark.parametrize("begin, end", [(True, False), (False, True), (False, False)])
def test_the_post_processor_says_what_is_put_around_a_text(begin, end, tmp_path):
    """It counts more than add_bos_token and add_eos_token, as in transformers 5."""
    transformers = pytest.importorskip("transformers")
    theirs, _ = family("mistral")
    theirs.save(str(tmp_path / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"}
    config |= {"add_bos_token": begin, "add_eos_token": end}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    auto = transformers.AutoTokenizer.from_pretrained(tmp_path)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        ours = tokenizer.load(tmp_path)
    assert [*ours.prefix_ids, *ours.encode("low"), *ours.suffix_ids] == auto("low")["input_ids"]
    assert (ours.prefix_ids, ours.suffix_ids) == ([1], [])
    assert len(said) == (not (begin and not end))
    assert all("it would be" in str(warning.message) for warning in said)


# ---- ids that come one at a time -----------------------------------------------------------------


@pytest.mark.parametrize("name", FAMILIES)
def test_ids_that_come_one_at_a_time(name):
    """A whole text loses the space at its start as `decode` does; a continuation keeps it."""
    _, ours = family(name)

    @settings(max_examples=30, deadline=None)
    @given(texts, texts)
    @example("low", " 語😀 x")
    def same(text, more):
        ids, then = ours.encode(text, "all"), ours.encode_ordinary(more)
        decoder = StreamDecoder(ours)
        assert "".join(map(decoder.push, ids)) + decoder.finish() == ours.decode(ids)
        decoder = StreamDecoder(ours, errors="strict", continues=True)
        told = "".join(map(decoder.push, then))
        assert told == ours.decode_bytes(then).decode()
        if text and text[0] != " ":
            assert ours.decode(ids) + told == ours.decode(ids + then)

    same()


def test_bytes_of_a_character_are_held_back():
    _, ours = family("llama2")
    decoder = StreamDecoder(ours)
    assert [decoder.push(i) for i in ours.encode("\u8a9f")][-3:] == ["", "", "\u8a9f"]
    assert ours.decode(ours.encode(" x")) == " x" and ours.decode_bytes(ours.encode("x")) == b" x"


class Repeats:
    """A model that says the ids it was given, one after the other."""

    training = False

    def __init__(self, ids, vocab_size):
        self.ids, self.config = list(ids), GPTConfig(vocab_size, 64, 1, 1, 4)

    def next_logits(self, idx, cache=None, last=1):
        logits = np.zeros((1, 1, self.config.vocab_size), np.float32)
        logits[0, 0, self.ids.pop(0)] = 1
        return tl.tensor(logits)

    def eval(self):
        pass

    def train(self, mode):
        pass


def test_what_is_generated_continues_the_prompt():
    _, ours = family("llama2")
    ids = ours.encode("lower語 x")
    for prompt, start in (("The", "The "), ("", "")):
        model = Repeats(ids, ours.vocab_size)
        ours_eos = pickle.loads(pickle.dumps(ours))
        ours_eos.eos_token = "</s>"
        text = generate(model, ours_eos, prompt, len(ids), temperature=0, use_cache=False)
        assert text == start + "lower語 x"


def test_words_one_by_one_give_the_ids_of_the_whole_text():
    """The fast way and its plain twin: all characters of a text merged together."""
    _, ours = family("llama2")
    plain = pickle.loads(pickle.dumps(ours))
    assert ours.by_words
    plain.by_words = False
    assert not family("crossing")[1].by_words

    @settings(max_examples=100, deadline=None)
    @given(texts)
    @example(corpus()[:30_000])
    def same(text):
        assert ours.encode_ordinary(text) == plain.encode_ordinary(text)

    same()


@pytest.mark.parametrize("name", ["llama2", "qwen2", "qwen3", "smollm"])
def test_files_and_batches_are_encoded_as_texts_are(name, tmp_path, monkeypatch):
    monkeypatch.setattr(texts_module, "FILE_BLOCK", 500)  # characters; many blocks
    _, ours = family(name)
    long = corpus()[:50_000] + " <think>e\u0301</think> 語" * 40
    # A letter that NFC makes a letter and a mark, which belongs to the comma.
    long += "".join("\u0958,\n" * (i % 7) + "x" * (i % 5) for i in range(400))
    (tmp_path / "text.txt").write_text(long, encoding="utf-8")
    ours.encode_file(tmp_path / "text.txt", tmp_path / "ids.bin")
    stored = (tmp_path / "ids.bin").read_bytes()
    assert stored == ours.encode_to_numpy(long, (), ()).tobytes()
    parts = ["", "low", "e\u0301 <think>", long[:3000], " x"]
    assert ours.encode_batch(parts, disallowed_special=()) == [
        ours.encode_ordinary(part) for part in parts
    ]
