"""Vocabularies of other projects: read, refused with one clear error, written; files in and out."""

import base64
import hashlib
import json
import pickle
import random
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tokenizer
from tokenizer import (
    BPETokenizer,
    CharTokenizer,
    StreamDecoder,
    base,
    byte_characters,
    checks,
    counting,
    export,
    fast_bpe,
    fetch,
    formats,
    huggingface_files,
    pieces,
)
from tokenizer import texts as texts_module
from tokenizer.__main__ import main

from .test_pieces import CORPUS, texts

EOS = "<|endoftext|>"
HF_FILE = "tokenizer.json"


@pytest.fixture(scope="module")
def trained():
    return BPETokenizer.train(CORPUS, 300, "cl100k", [EOS, "<|end|>"])


def gpt2_files(tokens, folder, names=("encoder.json", "vocab.bpe")):
    """A vocabulary as GPT-2's is written: ids in the order of `BYTE_OF`, then of the merges."""
    order = [bytes([b]) for b in byte_characters.BYTE_OF.values()] + list(tokens.tokens.values())[
        256:
    ]
    ids = {byte_characters.to_characters(token): i for i, token in enumerate(order)}
    ids |= {name: len(order) + i for i, name in enumerate(tokens.special_tokens)}
    lines = [
        " ".join(byte_characters.to_characters(tokens.tokens[part]) for part in pair)
        for pair in tokens.merges
    ]
    (folder / names[0]).write_text(json.dumps(ids))
    (folder / names[1]).write_text("\n".join(["#version: 0.2", *lines, ""]), encoding="utf-8")
    return ids


def same_pieces(a, b, text):
    """Both cut `text` into the same tokens, whatever their ids."""
    return [a.decode_bytes([i]) for i in a.encode_ordinary(text)] == [
        b.decode_bytes([i]) for i in b.encode_ordinary(text)
    ]


# ---- what is read --------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [("encoder.json", "vocab.bpe"), ("vocab.json", "merges.txt")])
def test_gpt2_and_transformers_pairs_of_files(tmp_path, names):
    ours = BPETokenizer.train(CORPUS, 300, "gpt2", [EOS])
    ids = gpt2_files(ours, tmp_path, names)
    for path in (tmp_path, tmp_path / names[0], str(tmp_path / names[1])):
        theirs = tokenizer.load(path)
        assert theirs.special_tokens == {EOS: 299} and theirs.vocab_size == 300
        assert same_pieces(ours, theirs, CORPUS)
        assert [theirs.decode_bytes([i]) for i in theirs.encode(" low")] == [b" low"]
        assert theirs.encode(" low") == [ids["Ġlow"]]
        assert theirs.decode(theirs.encode(CORPUS + EOS, "all")) == CORPUS + EOS
    assert theirs.encode("!") == [0]  # as GPT-2 numbers bytes


@pytest.mark.parametrize("pattern", ["gpt2", "cl100k", "o200k", None, r"\w+|\W"])
def test_exported_and_saved_vocabularies_come_back(tmp_path, pattern):
    ours = BPETokenizer.train(CORPUS, 290, pattern, [EOS])
    by_ranks = BPETokenizer(None, pattern, ours.special_tokens, ours.tokens)
    gpt2_files(ours, tmp_path)
    other_ids = tokenizer.load(tmp_path)
    for i, tokens in enumerate((ours, by_ranks, other_ids)):
        tokens.export(tmp_path / f"hf{i}", "huggingface")
        tokens.save(tmp_path / f"ours{i}")
        folders = [tmp_path / f"hf{i}", tmp_path / f"ours{i}"]
        if tokens is not other_ids:
            tokens.export(tmp_path / f"ranks{i}", "tiktoken")
            folders += [tmp_path / f"ranks{i}", tmp_path / f"ranks{i}" / "vocab.tiktoken"]
        for folder in folders:
            again = tokenizer.load(folder)
            assert again.vocabulary == tokens.vocabulary
            assert again.pattern == tokens.pattern
            assert again.special_tokens == tokens.special_tokens
            assert again.ignore_merges or not tokens.ignore_merges
            for text in (CORPUS, "low lower ß", EOS):
                assert again.encode(text, "all") == tokens.encode(text, "all")


def test_merges_as_one_string_or_two():
    tokens = BPETokenizer.train(CORPUS, 270)
    description = json.loads(export.write_huggingface(tokens)["tokenizer.json"])
    merges = description["model"]["merges"]
    description["model"]["merges"] = [" ".join(pair) for pair in merges]
    del description["model"]["type"]  # as old files
    assert huggingface_files.read_huggingface(description).encode(CORPUS) == tokens.encode(CORPUS)


@pytest.mark.parametrize(
    "name, pattern", [("cl100k_mine", "cl100k"), ("o200k_mine", "o200k"), ("r50k_mine", "gpt2")]
)
def test_the_name_of_a_rank_file_tells_the_pattern(tmp_path, trained, name, pattern):
    trained.export(tmp_path, "tiktoken")
    (tmp_path / "tiktoken.json").unlink()
    (tmp_path / "vocab.tiktoken").rename(tmp_path / f"{name}.tiktoken")
    tokens = tokenizer.load(tmp_path)
    assert tokens.pattern == pattern
    assert tokens.special_tokens == {}  # cl100k's belong to 100,256 ranks
    (tmp_path / f"{name}.tiktoken").rename(tmp_path / "mine.tiktoken")
    with pytest.warns(UserWarning, match="by which pattern .* cl100k is assumed"):
        assert tokenizer.load(tmp_path).pattern == "cl100k"


def test_tiktokens_rule():
    """Whole pieces that are tokens, and any two neighbours that make one, lowest id first."""
    words = [b"bc", b"ab", b"abc", b"xyz"]
    tokens = BPETokenizer(None, "gpt2", {}, dict(enumerate([*checks.BYTES, *words])))
    assert tokens.merges is None
    assert tokens.encode("abc") == [258]  # by the merges it would be "a", "bc"
    assert tokens.encode("aabc") == [97, 258]  # "a" and "bc" join as "ab" and "c" would
    assert tokens.encode("xyz") == [259] and tokens.encode("wxyz") == [*b"wxyz"]


def test_ids_with_gaps_for_special_tokens(tmp_path):
    tokens = BPETokenizer(None, "gpt2", {EOS: 300}, dict(enumerate(checks.BYTES)))
    assert tokens.vocab_size == 301 and tokens.dtype == np.uint16
    with pytest.raises(
        ValueError,
        match=r"id 256 is not in the vocabulary of 257 tokens \(0 to 300, of which 44 are no "
        r"token, 256 among them\)",
    ):
        tokens.decode([256])
    with pytest.raises(ValueError, match=r"id 301 .* \(0 to 300, of which 44 are no token\)$"):
        tokens.decode([301])
    tokens.save(tmp_path)
    assert tokenizer.load(tmp_path).special_tokens == {EOS: 300}


@pytest.mark.parametrize("name", ["é", "a", "persona", "Ġlow", "ĠÃ©"])
def test_a_special_token_named_as_a_token_is_written(tmp_path, name):
    """tokenizer.json names tokens and special tokens in one object, which cannot hold both."""
    text = "persona persona low low é é " * 9
    tokens = BPETokenizer.train(text, 270, "gpt2", [name, EOS])
    assert name in map(byte_characters.to_characters, tokens.tokens.values())
    with pytest.raises(ValueError, match=f"special token {name!r} is also how these files write"):
        tokens.export(tmp_path, "huggingface")
    assert list(tmp_path.iterdir()) == []
    tokens.save(tmp_path)
    tokens.export(tmp_path / "ranks", "tiktoken")  # which keeps them apart
    for again in (tokenizer.load(tmp_path), tokenizer.load(tmp_path / "ranks")):
        for allowed in ("all", ()):
            assert again.encode(text, allowed, ()) == tokens.encode(text, allowed, ())
    with pytest.raises(ValueError, match=f"special token {name!r} is a token of plain text too"):
        description = json.loads(export.write_huggingface(BPETokenizer(tokens.merges))[HF_FILE])
        huggingface_files.read_huggingface(
            description | {"added_tokens": [{"id": 268, "content": name, "special": True}]}
        )


def test_export_says_what_it_cannot(tmp_path):
    swapped = BPETokenizer([(98, 99), (97, 98), (257, 99)], "gpt2")  # "abc" is never reached
    with pytest.raises(ValueError, match="not in the order of the merges"):
        swapped.export(tmp_path, "tiktoken")
    gpt2_files(BPETokenizer.train(CORPUS, 270), tmp_path)
    other = {i + 1: token for i, token in enumerate(checks.BYTES)}
    with pytest.raises(ValueError, match="these have gaps"):
        BPETokenizer([], "gpt2", {EOS: 0}, other).export(tmp_path, "tiktoken")
    with pytest.raises(ValueError, match="huggingface, tiktoken, not 'onnx'"):
        swapped.export(tmp_path, "onnx")


# ---- what other files say of a vocabulary --------------------------------------------------------


def pair(folder, **beside) -> BPETokenizer:
    """A vocab.json and a merges.txt, and JSON files beside them."""
    folder.mkdir(exist_ok=True)
    tokens = BPETokenizer.train(CORPUS, 290, "gpt2")
    gpt2_files(tokens, folder, ("vocab.json", "merges.txt"))
    for name, content in beside.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return tokens


def test_tokens_that_the_files_beside_a_vocabulary_add(tmp_path):
    token = {"content": "<|im_end|>", "lstrip": False, "special": True}
    ways = [
        {"added_tokens": {"<|im_end|>": 291, EOS: 290}},
        {"tokenizer_config": {"added_tokens_decoder": {"290": {"content": EOS}, "291": token}}},
        {
            "added_tokens": {"<|im_end|>": 291, EOS: 290},
            "tokenizer_config": {"eos_token": token, "tokenizer_class": "GPT2TokenizerFast"},
        },
        {
            "added_tokens": {"<|im_end|>": 291, EOS: 290},
            "special_tokens_map": {"eos_token": "<|im_end|>", "additional_special_tokens": [EOS]},
        },
    ]
    for i, beside in enumerate(ways):
        ours = pair(tmp_path / str(i), **beside)
        for path in (tmp_path / str(i), tmp_path / str(i) / "vocab.json"):
            tokens = tokenizer.load(path)
            assert tokens.special_tokens == {EOS: 290, "<|im_end|>": 291}
            assert tokens.eos_token_id == (290 if i < 2 else 291)
            assert tokens.encode(f"x{EOS}<|im_end|>", "all")[-2:] == [290, 291]
            assert same_pieces(ours, tokens, CORPUS)
    # The end of a text stays what it is through all our own files, and in other processes.
    tokens.save(tmp_path / "ours")
    tokens.export(tmp_path / "hf", "huggingface")
    ranks = BPETokenizer(None, "gpt2", {"</s>": 256}, dict(enumerate(checks.BYTES)), True, "</s>")
    ranks.export(tmp_path / "ranks", "tiktoken")
    assert tokenizer.load(tmp_path / "ranks").eos_token_id == 256
    for again in (
        tokenizer.load(tmp_path / "ours"),
        tokenizer.load(tmp_path / "hf"),
        pickle.loads(pickle.dumps(tokens)),
    ):
        assert again.eos_token_id == 291 and again.eos_token == "<|im_end|>"


def test_special_tokens_of_the_vocabulary_that_only_a_file_beside_it_names(tmp_path):
    pair(tmp_path, special_tokens_map={"pad_token": "[PAD]", "unk_token": {"content": EOS}})
    ids = json.loads((tmp_path / "vocab.json").read_text()) | {"[PAD]": 290, EOS: 291}
    (tmp_path / "vocab.json").write_text(json.dumps(ids))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert tokenizer.load(tmp_path).special_tokens == {"[PAD]": 290, EOS: 291}
    (tmp_path / "special_tokens_map.json").unlink()
    with pytest.warns(UserWarning, match=r"1 of the 292 tokens are made by no merge, '\[PAD\]'"):
        assert tokenizer.load(tmp_path).special_tokens == {EOS: 291}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"sep_token": "[SEP]"}))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        tokenizer.load(tmp_path)
    assert "'[SEP]': named as a special token" in str(said[0].message) and len(said) == 2


@pytest.mark.parametrize(
    "beside, message",
    [
        (
            {"tokenizer_config": {"tokenizer_class": "Qwen2Tokenizer"}},
            "names 'Qwen2Tokenizer', who",
        ),
        (
            {"tokenizer_config": {"tokenizer_class": "RobertaTokenizerFast"}},
            "'RobertaTokenizerFast'",
        ),
        ({"tokenizer_config": {"add_prefix_space": True}}, r"a space .* \(add_prefix_space\)"),
        ({"tokenizer_config": [1]}, "tokenizer_config.json beside it: expected an object"),
        ({"tokenizer_config": {"added_tokens_decoder": [1]}}, "must be an object, not"),
        (
            {"tokenizer_config": {"added_tokens_decoder": {"x": {"content": "y"}}}},
            "id of 'y' is 'x'",
        ),
        (
            {
                "tokenizer_config": {
                    "added_tokens_decoder": {"290": {"content": "y", "lstrip": True}}
                }
            },
            "added token 'y' has lstrip",
        ),
        (
            {
                "tokenizer_config": {
                    "added_tokens_decoder": {"9": {"content": "y", "single_word": True}}
                }
            },
            "added token 'y' has single_word, .* where no word goes on beside it",
        ),
        ({"added_tokens": {"<m>": "290"}}, "an id must be from 0 to 16,777,215, not '290'"),
        ({"added_tokens": {"<m>": 3}}, "id 3 is given to"),
        ({"added_tokens": {"!": 0}}, "the special token '!' is a token of plain text too"),
        (
            {"special_tokens_map": {"mask_token": {"content": "<mask>", "lstrip": True}}},
            "added token '<mask>' has lstrip",
        ),
        ({"special_tokens_map": {"pad_token": "!"}}, "the special token '!' is a token of plain"),
        ({"special_tokens_map": {"pad_token": "ow"}}, "the special token 'ow' is a token of plain"),
        (
            {
                "added_tokens": {"<m>": 290},
                "tokenizer_config": {"added_tokens_decoder": {"291": {"content": "<m>"}}},
            },
            "'<m>' has ids 290, 291",
        ),
    ],
)
def test_what_the_files_beside_a_vocabulary_ask_for_and_is_not_done(tmp_path, beside, message):
    pair(tmp_path, **beside)
    with pytest.raises(ValueError, match=message) as error:
        tokenizer.load(tmp_path)
    assert str(error.value).startswith(f"{tmp_path / 'merges.txt'}: ")


def test_a_space_that_the_file_beside_a_tokenizer_json_adds(tmp_path, trained):
    trained.export(tmp_path, "huggingface")
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config | {"add_prefix_space": True}))
    with pytest.raises(ValueError, match=r"adds a space before the text \(add_prefix_space\)"):
        tokenizer.load(tmp_path)


def template(*pieces, **ids) -> dict:
    """A TemplateProcessing; None in `pieces` is where the text goes."""
    single = [
        {"Sequence": {"id": "A", "type_id": 0}}
        if piece is None
        else {"SpecialToken": {"id": piece, "type_id": 0}}
        for piece in pieces
    ]
    tokens = {name: {"id": name, "ids": [i], "tokens": [name]} for name, i in ids.items()}
    return {"type": "TemplateProcessing", "single": single, "special_tokens": tokens}


CLS_SEP = {"type": "RobertaProcessing", "sep": ["</s>", 2], "cls": ["<s>", 1]}
LEVEL_ONLY = {"type": "ByteLevel", "trim_offsets": False}
BEGIN = template("b", None, b=7)


@pytest.mark.parametrize(
    "processor, prefix, suffix",
    [
        (BEGIN, [7], []),
        (template("b", "b", None, "e", b=7, e=8), [7, 7], [8]),
        (CLS_SEP, [1], [2]),
        (CLS_SEP | {"type": "BertProcessing"}, [1], [2]),
        ({"type": "Sequence", "processors": [LEVEL_ONLY, BEGIN]}, [7], []),
        ({"type": "Sequence", "processors": [BEGIN, CLS_SEP]}, [1, 7], [2]),
        (LEVEL_ONLY, [], []),
        (template(None), [], []),
        (None, [], []),
    ],
)
def test_ids_that_are_put_around_a_text_are_kept_and_not_added(processor, prefix, suffix):
    description = json.loads(huggingface(post_processor=processor))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tokens = huggingface_files.read_huggingface(description)
    assert (tokens.prefix_ids, tokens.suffix_ids) == (prefix, suffix)
    plain = huggingface_files.read_huggingface(json.loads(huggingface()))
    assert tokens.encode("low") == plain.encode("low")


def test_a_token_that_the_config_puts_around_a_text(tmp_path):
    pair(tmp_path, added_tokens={EOS: 290}, tokenizer_config={"add_bos_token": True})
    tokens = tokenizer.load(tmp_path)
    assert (tokens.prefix_ids, tokens.suffix_ids) == ([290], [])
    assert tokens.bos_token_id == 290 and tokens.pad_token_id is None


def test_the_chat_template_is_read_wherever_it_stands(tmp_path, trained):
    trained.export(tmp_path, "huggingface")
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    several = [{"name": "default", "template": "d"}, {"name": "tool_use", "template": "t"}]
    path = tmp_path / "tokenizer_config.json"
    path.write_text(json.dumps(config | {"chat_template": several}))
    with pytest.warns(UserWarning, match="only the one named default is kept, and not 'tool_use'"):
        assert tokenizer.load(tmp_path).chat_template == "d"
    path.write_text(json.dumps(config | {"chat_template": 3}))
    with pytest.raises(ValueError, match="chat_template must be a str, not 3"):
        tokenizer.load(tmp_path)
    path.write_text(json.dumps(config | {"chat_template": "c"}))
    assert tokenizer.load(tmp_path).chat_template == "c"
    (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": "json"}))
    assert tokenizer.load(tmp_path).chat_template == "json"
    (tmp_path / "chat_template.jinja").write_text("{{ 語 }}", encoding="utf-8")
    tokens = tokenizer.load(tmp_path)
    assert tokens.chat_template == "{{ 語 }}"
    tokens.save(tmp_path / "ours")
    assert tokenizer.load(tmp_path / "ours").chat_template == "{{ 語 }}"
    (tmp_path / "chat_template.jinja").write_bytes(b"\xff")
    with pytest.raises(ValueError, match="chat_template.jinja beside it"):
        tokenizer.load(tmp_path)


# ---- files that are cut short --------------------------------------------------------------------


@pytest.mark.parametrize("lost", [1, 2, 20])
@pytest.mark.parametrize("names", [("encoder.json", "vocab.bpe"), ("vocab.json", "merges.txt")])
def test_merges_that_are_cut_at_a_line_end(tmp_path, names, lost):
    gpt2_files(BPETokenizer.train(CORPUS, 290, "gpt2", [EOS]), tmp_path, names)
    lines = (tmp_path / names[1]).read_text().splitlines(keepends=True)
    (tmp_path / names[1]).write_text("".join(lines[:-lost]))
    with pytest.warns(UserWarning, match=f"^{lost} of the 290 tokens are made by no merge, .*cut"):
        tokenizer.load(tmp_path)


def test_merges_of_a_tokenizer_json_that_are_missing(trained):
    description = json.loads(export.write_huggingface(trained)["tokenizer.json"])
    del description["model"]["merges"][-7:]
    with pytest.warns(UserWarning, match="^7 of the 300 tokens are made by no merge"):
        huggingface_files.read_huggingface(description)
    description["model"]["ignore_merges"] = True  # then such a token is reached without merges
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        huggingface_files.read_huggingface(description)


@pytest.mark.parametrize(
    "name", ["cl100k_base", "o200k_base", "r50k_base", "p50k_base", "gpt2", "cl100k_base (1)"]
)
def test_a_published_name_with_another_number_of_tokens(tmp_path, name):
    file = tmp_path / f"{name}.tiktoken"
    file.write_bytes(ranks())
    with pytest.raises(
        ValueError, match="has [0-9,]+ tokens, and this file has 256: it is cut short"
    ):
        tokenizer.load(file)


def test_exported_ranks_that_are_cut_at_a_line_end(tmp_path, trained):
    trained.export(tmp_path, "tiktoken")
    file = tmp_path / "vocab.tiktoken"
    file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:-5]))
    with pytest.raises(ValueError, match="293 tokens, and tiktoken.json beside it says 298"):
        tokenizer.load(tmp_path)


# ---- names of files ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "names",
    [
        ("gpt2-vocab.json", "gpt2-merges.txt"),
        ("roberta.large.encoder.json", "roberta.large.vocab.bpe"),
        ("encoder.json", "merges.txt"),
        ("my_vocab.json", "my_vocab.bpe"),
    ],
)
def test_names_of_gpt2s_files_as_others_save_them(tmp_path, names):
    ours = BPETokenizer.train(CORPUS, 300, "gpt2", [EOS])
    gpt2_files(ours, tmp_path, names)
    for path in (tmp_path, tmp_path / names[0], tmp_path / names[1]):
        theirs = tokenizer.load(path)
        assert theirs.special_tokens == {EOS: 299} and same_pieces(ours, theirs, CORPUS)
    gpt2_files(ours, tmp_path, ("two-vocab.json", "two-merges.txt"))
    if names[1] not in formats.MERGES:
        with pytest.raises(ValueError, match="several vocabularies, .*two-merges.txt"):
            tokenizer.load(tmp_path)
    assert tokenizer.load(tmp_path / "two-vocab.json").special_tokens == {EOS: 299}


@pytest.mark.parametrize("name", ["tokenizer.model", "9b5ad71b2ce5302211f9c61530b329a4922fc6a4"])
def test_a_rank_file_is_known_by_its_content(tmp_path, trained, name):
    """Llama 3's tokenizer.model is one; tiktoken's cache names its files by a hash."""
    trained.export(tmp_path, "tiktoken")
    (tmp_path / "tiktoken.json").unlink()
    (tmp_path / "vocab.tiktoken").rename(tmp_path / name)
    for path in (tmp_path / name, tmp_path)[: 1 + (name == "tokenizer.model")]:
        with pytest.warns(UserWarning, match="cl100k is assumed, and no special tokens"):
            tokens = tokenizer.load(path)
        assert tokens.encode(CORPUS) == trained.encode(CORPUS) and tokens.special_tokens == {}
    (tmp_path / "tokenizer.model").write_bytes(b"\n\x0e\n\x05<unk>\x15\0\0\0\0\x18\x02")
    with pytest.raises(ValueError, match="not a rank file of tiktoken.*SentencePiece"):
        tokenizer.load(tmp_path / "tokenizer.model")


# ---- what is refused -----------------------------------------------------------------------------


def ranks(changes=(), tokens=checks.BYTES) -> bytes:
    lines = [base64.b64encode(token) + b" %d" % i for i, token in enumerate(tokens)]
    for i, line in dict(changes).items():
        lines[i : i + 1] = line
    return b"\n".join(lines) + b"\n"


def huggingface(**changes) -> bytes:
    files = export.write_huggingface(BPETokenizer.train(CORPUS, 270, "cl100k", [EOS]))
    description = json.loads(files["tokenizer.json"])
    for path, value in changes.items():
        *parents, name = path.split("__")
        place = description
        for parent in parents:
            place = place[parent]
        place[name] = value
    return json.dumps(description).encode()


def vocabulary(**changes) -> dict:
    return {c: i for i, c in enumerate(byte_characters.BYTE_OF)} | {"ab": 256, EOS: 257} | changes


LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
SPLIT = {"type": "Split", "pattern": {"Regex": "x"}, "behavior": "Removed", "invert": True}


def cut(expression) -> dict:
    split = {"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated"}
    return {"type": "Sequence", "pretokenizers": [split | {"invert": False}, LEVEL]}


HOSTILE = [
    # .tiktoken
    ("a.tiktoken", b"", "holds no tokens"),
    ("a.tiktoken", ranks({3: [b"Aw== 2"]}), "line 4: rank 2 is given twice"),
    ("a.tiktoken", ranks({3: [b"Ag== 3"]}), r"b'\\x02' is token 2 and token 3"),
    ("a.tiktoken", ranks({3: []}), r"1 of the 256 bytes are not tokens, b'\\x03'"),
    (
        "a.tiktoken",
        ranks(tokens=[*checks.BYTES, b"ab", b"cd"], changes={256: []}),
        "no token 256.* have a gap",
    ),
    ("a.tiktoken", ranks({3: [b"Aw= 3"]}), "line 4: expected a token in base64"),
    ("a.tiktoken", ranks({3: [b"A*== 3"]}), "line 4: expected a token in base64"),
    ("a.tiktoken", ranks({3: [b"Aw== three"]}), "line 4: .* not b'Aw== three'"),
    ("a.tiktoken", ranks({3: [b"Aw=="]}), "line 4: expected a token in base64"),
    ("a.tiktoken", ranks({3: [b"Aw== 3 3"]}), "line 4: expected a token in base64"),
    ("a.tiktoken", ranks({3: [b"Aw== -3"]}), "an id must be from 0 to 16,777,215, not -3"),
    ("a.tiktoken", ranks({3: [b"Aw== " + b"9" * 5000]}), "line 4"),
    ("a.tiktoken", ranks({3: [b" 3"]}), "line 4: expected a token in base64"),
    ("a.tiktoken", ranks()[:-9], "line 255|not tokens"),
    ("a.tiktoken", b"x" * 10**6, "line 1: .{,120}$"),
    ("a.tiktoken", bytes(range(256)), "line 1"),
    # tokenizer.json
    ("tokenizer.json", b'{"model": {"vocab": {"a": 0, "a": 1}}}', "'a' occurs twice in one object"),
    ("tokenizer.json", huggingface()[:-9], "not JSON, or it is cut short"),
    ("tokenizer.json", b'{"a":' * 100_000, "not JSON"),
    ("tokenizer.json", huggingface(model__type="Unigram"), "of type 'Unigram'; only BPE"),
    ("tokenizer.json", huggingface(model__merges={"a": 1}), "merges must be a list"),
    ("tokenizer.json", huggingface(model__merges=[["a"]]), "merge 0 must be two tokens"),
    ("tokenizer.json", huggingface(model__merges=["a b c"]), "merge 0 must be two tokens"),
    ("tokenizer.json", huggingface(model__merges=[["a", 3]]), "merge 0 must be two tokens"),
    ("tokenizer.json", huggingface(model__merges=[["a", "qq"]]), "has 'qq', which is not a token"),
    ("tokenizer.json", huggingface(model__merges=[["q", "z"]]), "makes b'qz', which is not a tok"),
    (
        "tokenizer.json",
        huggingface(model__merges=[["o", "w"], ["o", "w"]]),
        "merge 1 is .* merge 0",
    ),
    ("tokenizer.json", huggingface(model__vocab=[1]), "object of token: id, not"),
    ("tokenizer.json", huggingface(model__vocab={"a": "b"}), "the id of 'a' is 'b'"),
    ("tokenizer.json", huggingface(model__vocab={"a": 0, "b": 0}), "id 0 is given to 'a' and 'b'"),
    (
        "tokenizer.json",
        huggingface(model__vocab={"a": 10**9}),
        "is not a token|an id must be from 0",
    ),
    ("tokenizer.json", huggingface(model__byte_fallback=True), "byte_fallback True"),
    ("tokenizer.json", huggingface(model__end_of_word_suffix="</w>"), "end_of_word_suffix '</w>'"),
    ("tokenizer.json", huggingface(normalizer={"type": "Nmt"}), "changes the text first .*'Nmt'"),
    ("tokenizer.json", huggingface(normalizer={"type": "Prepend"}), "a step of a normalizer must"),
    (
        "tokenizer.json",
        huggingface(normalizer={"type": "Replace", "pattern": {"Regex": "a"}, "content": "b"}),
        "changes the text first .*'Replace'",
    ),
    ("tokenizer.json", huggingface(decoder={"type": "WordPiece"}), "decoder .*WordPiece.* cannot"),
    ("tokenizer.json", huggingface(post_processor={"type": "X"}), "post_processor 'X' cannot be"),
    (
        "tokenizer.json",
        huggingface(post_processor=template("b", None)),
        "the post_processor has .* which has no ids",
    ),
    (
        "tokenizer.json",
        huggingface(post_processor=template("b", None, b=999)),
        "prefix_ids has id 999, which is not in the vocabulary",
    ),
    (
        "tokenizer.json",
        huggingface(post_processor=template(None, None)),
        "puts 2 texts in place of one",
    ),
    *(
        ("tokenizer.json", huggingface(pre_tokenizer=cut(regex)), message)
        for regex, message in [
            ("^a", "means something else"),
            (r"a{1,3}+", "means something else"),
            (r"(?=\d)", "matches the empty text"),
            ("(", "not a regular expression"),
            (7, "the pattern .* of a Split cannot be read"),
        ]
    ),
    ("tokenizer.json", huggingface(pre_tokenizer=None), "pre_tokenizer .* cannot be read"),
    (
        "tokenizer.json",
        huggingface(pre_tokenizer={"type": "Metaspace"}),
        "decoder .'ByteLevel'. cannot",
    ),
    (
        "tokenizer.json",
        huggingface(pre_tokenizer=LEVEL | {"add_prefix_space": True}),
        "adds a space",
    ),
    (
        "tokenizer.json",
        huggingface(pre_tokenizer={"type": "Sequence", "pretokenizers": [SPLIT, LEVEL]}),
        "a Split with behavior 'Removed' and invert True cannot be read; only Isolated",
    ),
    ("tokenizer.json", huggingface(pre_tokenizer={"type": "Sequence"}), "cannot be read"),
    ("tokenizer.json", huggingface(added_tokens=[{"id": 3}]), "which has no name"),
    ("tokenizer.json", huggingface(added_tokens=7), "no name"),
    (
        "tokenizer.json",
        huggingface(added_tokens=[{"id": "3", "content": "xyz"}]),
        "an id must be from 0",
    ),
    ("tokenizer.json", huggingface(added_tokens=[{"id": 3, "content": "xyz"}]), "id 3 is given to"),
    ("tokenizer.json", huggingface(added_tokens=[{"id": 5, "content": EOS}]), "has ids 269, 5"),
    (
        "tokenizer.json",
        huggingface(added_tokens=[{"id": 270, "content": "  ", "rstrip": True}]),
        "the added token '  ' has rstrip, .* take the white space behind it",
    ),
    (
        "tokenizer.json",
        huggingface(added_tokens=[{"id": 270, "content": "<m>", "lstrip": True}]),
        "the added token '<m>' has lstrip",
    ),
    (
        "tokenizer.json",
        b"[" + b"0," * 6_000_000 + b"0]",
        "about 6,000,001 values; a tokenizer has at",
    ),
    # pairs of files
    ("merges.txt", ({"at</w>": 0}, b"a t</w>\n"), "'at</w>' ends a word: this is not a byte-level"),
    ("merges.txt", (vocabulary(語=258), b"a b\n"), "'語' has a character that stands for no byte"),
    ("vocab.json", (vocabulary(), None), "a tensorlite tokenizer"),
    ("merges.txt", (None, b"a b\n"), "there is no vocab.json beside it"),
    (
        "merges.txt",
        (vocabulary(), b"#version: 0.2\na b\na\n"),
        "line 3: expected two tokens with a space",
    ),
    ("merges.txt", (vocabulary(), b"a b c\n"), "line 1: expected two tokens"),
    ("merges.txt", (vocabulary(), b"a  b\n"), "line 1: expected two tokens"),
    ("merges.txt", (vocabulary(), b"a \xff\n"), "merges.txt is not text"),
    ("merges.txt", (vocabulary(), b"a b\nab zz\n"), "has 'zz', which is not a token"),
    ("merges.txt", (vocabulary(), b"a b\nb b\n"), "makes b'bb', which is not a token"),
    ("merges.txt", (vocabulary(), b"a b\na b\n"), "merge 1 is .* merge 0"),
    ("merges.txt", (vocabulary(ab=3), b"a b\n"), "id 3 is given to '.' and 'ab'"),
    ("merges.txt", (vocabulary(ab=300), b"a b\n"), "no token 256.* have a gap"),
    ("merges.txt", (vocabulary(ab=True), b"a b\n"), "the id of 'ab' is True"),
    ("merges.txt", ([1], b"a b\n"), "object of token: id"),
    ("merges.txt", (vocabulary(**{"<\ud800>": 258}), b"a b\n"), "without surrogates"),
    # ours
    (base.FILE_NAME, dict(tokens="ab"), "tokens must be a list, not str"),
    (base.FILE_NAME, dict(tokens=[3]), "token 0 must be a str of characters up to U.00FF, not 3"),
    (base.FILE_NAME, dict(tokens=["語"]), "token 0 must be a str of characters"),
    (base.FILE_NAME, dict(tokens=["a"], merges=None), "255 of the 256 bytes are not tokens"),
    (base.FILE_NAME, dict(merges=None), "merges must be a list of pairs, not NoneType"),
]


@pytest.mark.parametrize("name, content, message", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_files_give_one_clear_error(tmp_path, name, content, message):
    if isinstance(content, dict):
        good = {"format": "tensorlite-tokenizer", "version": 1, "type": "bpe", "pattern": "gpt2"}
        content = json.dumps(good | {"special_tokens": {}, "merges": []} | content).encode()
    if isinstance(content, tuple):
        other, content = content
        if other is not None:
            (tmp_path / "vocab.json").write_text(json.dumps(other))
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with warnings.catch_warnings(), pytest.raises(ValueError, match=message) as error:
        warnings.simplefilter("ignore")
        tokenizer.load(tmp_path / name)
    assert str(error.value).startswith(f"{tmp_path / name}: ")
    assert len(str(error.value)) < len(str(tmp_path)) + 400


def test_a_token_that_no_merge_makes_is_no_special_token(tmp_path):
    description = json.loads(huggingface())
    description["model"]["vocab"]["Ġunreachable"] = 270
    with pytest.warns(UserWarning, match="^1 of the 271 tokens are made by no merge, 'Ġunreach"):
        tokens = huggingface_files.read_huggingface(description)
    assert tokens.decode([270]) == " unreachable" and tokens.special_tokens == {EOS: 269}
    assert 270 not in tokens.encode("x Ġunreachable unreachable")
    gpt2_files(BPETokenizer.train(CORPUS, 270), tmp_path)
    ids = json.loads((tmp_path / "encoder.json").read_text())
    ids |= {"Ġunreachable": 270, "<|end|>": 271, "<": ids["<"]}
    (tmp_path / "encoder.json").write_text(json.dumps(ids))
    with pytest.warns(UserWarning, match="^1 of the 272 tokens are made by no merge, 'Ġunreach"):
        tokens = tokenizer.load(tmp_path)
    assert tokens.decode([270]) == " unreachable" and tokens.special_tokens == {"<|end|>": 271}


def test_byte_order_marks_and_line_ends_of_other_systems(tmp_path, trained):
    gpt2_files(trained, tmp_path)
    expected = tokenizer.load(tmp_path).encode(CORPUS)
    for name in ("encoder.json", "vocab.bpe"):
        data = (tmp_path / name).read_bytes().replace(b"\n", b"\r\n").rstrip()
        (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + data)
    assert tokenizer.load(tmp_path).encode(CORPUS) == expected
    trained.export(tmp_path / "ranks", "tiktoken")
    file = tmp_path / "ranks" / "vocab.tiktoken"
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b" \r\n"))
    assert tokenizer.load(file).encode(CORPUS) == trained.encode(CORPUS)


def test_split_that_removes_what_is_not_a_piece():
    split = {"type": "Split", "behavior": "Removed", "invert": True}
    split["pattern"] = {"Regex": pieces.PATTERNS["cl100k"]}
    level = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
    steps = {"type": "Sequence", "pretokenizers": [split, level]}
    assert (
        huggingface_files.read_huggingface(json.loads(huggingface(pre_tokenizer=steps))).pattern
        == "cl100k"
    )


def test_the_file_beside_a_rank_file_is_for_that_one_only(tmp_path, trained):
    trained.export(tmp_path, "tiktoken")
    other = BPETokenizer.train(CORPUS, 280, "gpt2")
    other.export(tmp_path / "other", "tiktoken")
    (tmp_path / "other" / "vocab.tiktoken").rename(tmp_path / "o200k_mine.tiktoken")
    assert tokenizer.load(tmp_path / "o200k_mine.tiktoken").pattern == "o200k"
    assert tokenizer.load(tmp_path / "vocab.tiktoken").special_tokens == trained.special_tokens
    with pytest.raises(
        ValueError, match="several vocabularies, o200k_mine.tiktoken, vocab.tiktoken"
    ):
        tokenizer.load(tmp_path)


@pytest.mark.parametrize("pattern", [r"(?r)\w+", "x*", r"a\Kb", "(?V1)[[a-z]--[b]]+", r"(a)|b*"])
def test_patterns_that_only_python_knows_are_not_exported(tmp_path, pattern):
    tokens = BPETokenizer([], pattern)
    for name in ("huggingface", "tiktoken"):
        with pytest.raises(
            ValueError, match="the pattern .* (only Python's|matches the empty text)"
        ):
            tokens.export(tmp_path, name)


def test_json_bombs_and_giants_are_refused_at_once(tmp_path):
    for name in ("tokenizer.json", "a.tiktoken", "merges.txt", base.FILE_NAME):
        path = tmp_path / name
        with open(path, "wb") as file:
            file.truncate(2**30)  # a sparse file, one line of a gigabyte
        (tmp_path / "vocab.json").write_text("{}")
        with pytest.raises(ValueError, match="1,073,741,824 bytes; a tokenizer has at most"):
            tokenizer.load(path)
    for bomb in (b"[" * 2**22, b'{"model":' * 2**20, b"[" + b"[]," * 2**20 + b"[]]", b"1" * 10**6):
        (tmp_path / "tokenizer.json").write_bytes(bomb)
        with pytest.raises(ValueError, match="not JSON|not a tensorlite"):
            tokenizer.load(tmp_path / "tokenizer.json")


def test_changed_bytes_raise_nothing_but_value_error(tmp_path, trained):
    """Of every format, many files with a byte changed, a part cut out or written twice."""
    trained.save(tmp_path / "ours")
    trained.export(tmp_path / "hf", "huggingface")
    trained.export(tmp_path / "ranks", "tiktoken")
    (tmp_path / "pair").mkdir()
    gpt2_files(trained, tmp_path / "pair")
    files = [p for folder in ("ours", "hf", "ranks", "pair") for p in (tmp_path / folder).iterdir()]
    rng = random.Random(0)
    for path in files:
        good = path.read_bytes()
        for _ in range(60):
            i, j = sorted(rng.randrange(len(good)) for _ in range(2))
            changed = rng.choice(
                [
                    good[:i] + bytes([rng.randrange(256)]) + good[i + 1 :],
                    good[:i] + good[j:],
                    good[:j] + good[i:],
                    good[:i],
                ]
            )
            path.write_bytes(changed)
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    tokens = tokenizer.load(path.parent)
            except ValueError as error:
                assert str(error).startswith(str(path.parent))
            else:
                assert tokens.decode(tokens.encode_ordinary("abc")) == "abc"
        path.write_bytes(good)


@pytest.mark.parametrize(
    "special, tokens, message",
    [
        ({"x": 3}, dict(enumerate(checks.BYTES)), "id 3 is given to"),
        ({"x": 256, "y": 256}, dict(enumerate(checks.BYTES)), "id 256 is given to 'x' and 'y'"),
        ({"x": -1}, dict(enumerate(checks.BYTES)), "an id must be from 0 to 16,777,215, not -1"),
        ({"x": True}, dict(enumerate(checks.BYTES)), "not True"),
        ({}, dict(enumerate([*checks.BYTES, b"", b"x"])), "token 256 must be bytes, at least one"),
        ({}, dict(enumerate([*checks.BYTES, "ab"])), "token 256 must be bytes"),
        ({}, dict(enumerate([*checks.BYTES, b"a" * 2**26])), "more than 67,108,864 bytes"),
    ],
)
def test_bad_vocabularies(special, tokens, message):
    with pytest.raises(ValueError, match=message):
        BPETokenizer(None, "gpt2", special, tokens)


# ---- published vocabularies ----------------------------------------------------------------------


def test_pretrained_fetches_once_and_checks(tmp_path, monkeypatch, trained):
    monkeypatch.setenv("TENSORLITE_CACHE", str(tmp_path / "cache"))
    gpt2_files(trained, tmp_path)
    asked = []

    def download(url, *_):
        asked.append(url)
        return (tmp_path / url.rpartition("/")[2]).read_bytes()

    monkeypatch.setattr(fetch, "_download", download)
    with pytest.raises(ConnectionError, match="SHA-256 .*vocabularies/gpt2/encoder.json$"):
        tokenizer.pretrained("gpt2")
    files = tokenizer.pretrained.__globals__["FILES"]["gpt2"]
    for name in files:
        digest = hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
        monkeypatch.setitem(files, name, (files[name][0], digest))
    del asked[:]
    for find in (tokenizer.pretrained, tokenizer.find):
        assert same_pieces(find("gpt2"), BPETokenizer(trained.merges, "gpt2"), CORPUS)
    address = "https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/"
    assert asked == [address + "encoder.json", address + "vocab.bpe"]
    with pytest.raises(ValueError, match="gpt2, cl100k_base, o200k_base; there is no 'gpt5'"):
        tokenizer.pretrained("gpt5")
    with pytest.raises(FileNotFoundError, match="'gpt5': it is no file or folder here and none of"):
        tokenizer.find("gpt5")


# ---- text files to token files -------------------------------------------------------------------


@settings(max_examples=60)
@given(text=st.lists(st.one_of(texts, st.sampled_from([EOS, "<|end|>", "x y. "])), max_size=12))
@pytest.mark.parametrize("pattern", ["gpt2", "cl100k", "o200k", None])
def test_a_file_gives_the_ids_of_its_text(pattern, text):
    tokens = BPETokenizer.train(CORPUS, 300, pattern, [EOS, "<|end|>"])
    text = "".join(text)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(texts_module, "FILE_BLOCK", 7)
        source, target = Path(folder, "text"), Path(folder, "ids.bin")
        source.write_bytes(text.encode())
        for allowed in ((), "all", {EOS}):
            expected = tokens.encode(text.removeprefix("\ufeff"), allowed, ())
            if not expected:
                with pytest.raises(ValueError, match="holds no text"):
                    tokens.encode_file(source, target, allowed)
                continue
            assert tokens.encode_file(source, target, allowed) == len(expected)
            assert np.fromfile(target, np.uint16).tolist() == expected


def test_encode_file_in_processes_and_of_characters(tmp_path, trained, monkeypatch):
    monkeypatch.setattr(texts_module, "FILE_BLOCK", 100)
    source, target = tmp_path / "text", tmp_path / "ids.bin"
    source.write_bytes(b"\xef\xbb\xbf" + (CORPUS * 30).encode())
    assert trained.encode_file(source, target, workers=2) == len(trained.encode(CORPUS * 30))
    assert np.fromfile(target, np.uint16).tolist() == trained.encode(CORPUS * 30)
    characters = CharTokenizer.train(CORPUS)
    characters.encode_file(source, target)
    assert characters.decode(np.fromfile(target, np.uint16)) == CORPUS * 30
    large = BPETokenizer(None, "gpt2", {EOS: 70_000}, dict(enumerate(checks.BYTES)))
    large.encode_file(source, target)
    assert np.fromfile(target, np.uint32).tolist() == list((CORPUS * 30).encode())
    source.write_text(CORPUS, encoding="utf-16")
    trained.encode_file(source, target, encoding="utf-16")
    assert trained.decode(np.fromfile(target, np.uint16)) == CORPUS


def test_encode_file_refuses_and_leaves_nothing_behind(tmp_path, trained):
    source, target = tmp_path / "text", tmp_path / "ids.bin"
    target.write_bytes(b"old")
    source.write_bytes(b"good, then \xff bad")
    with pytest.raises(ValueError, match="text is not utf-8 text: .*0xff"):
        trained.encode_file(source, target)
    with pytest.raises(ValueError, match="there is no text encoding 'klingon'"):
        trained.encode_file(source, target, encoding="klingon")
    with pytest.raises(ValueError, match="workers must be at least 1"):
        trained.encode_file(source, target, workers=-1)
    source.write_bytes(b"")
    with pytest.raises(ValueError, match="holds no text"):
        trained.encode_file(source, target)
    with pytest.raises(FileNotFoundError):
        trained.encode_file(tmp_path / "nowhere", target)
    assert target.read_bytes() == b"old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["ids.bin", "text"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-8-sig", "shift_jis"])
@pytest.mark.parametrize("size", [1, 7, 2**21])
def test_a_wrong_byte_is_named_by_its_place_in_the_file(tmp_path, trained, encoding, size):
    good = ("é語\n" if encoding != "shift_jis" else "語\n") * 5
    content = good.encode(encoding)
    bad = {"utf-16-le": b"\x00\xdc"}.get(encoding, b"\xff")
    (tmp_path / "text").write_bytes(content + bad + "a\n".encode(encoding) * 3)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(ValueError) as error:
        patch.setattr(texts_module, "FILE_BLOCK", size)
        trained.encode_file(tmp_path / "text", tmp_path / "ids.bin", encoding=encoding)
    message = f"text is not {encoding} text: byte {len(content)} ({bad[0]:#04x}), in line 6, "
    assert message in str(error.value)


def test_a_wrong_byte_behind_megabytes(tmp_path, capsys):
    (tmp_path / "text").write_bytes(b"ab\n" * 10**6 + b"\xe9 c\n" * 9)
    BPETokenizer([]).save(tmp_path / "words")
    words, text, out = (str(tmp_path / name) for name in ("words", "text", "x"))
    for command in (["encode", words, text, "--out", out], ["train", text, "--out", out]):
        assert main(command) == 2
        assert "byte 3000000 (0xe9), in line 1000001, " in capsys.readouterr().err


PICTURE = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\1" + bytes(range(256))


def test_a_folder_is_encoded_as_it_is_trained_on(tmp_path, capsys, monkeypatch):
    """Its text files, joined by line ends; what is no text is left out, and that is said."""
    monkeypatch.chdir(tmp_path)
    files = {
        "a.txt": b"\xef\xbb\xbfone <|endo",
        "b/c.txt": b"ftext|>\r\ntwo",
        "d.txt": b"",
        "e": b"3",
    }
    files |= {"b/photo.png": PICTURE, ".hidden": b"x", "z.zip": b"PK\3\4\x14\0\0\0\xff\xfe"}
    for name, content in files.items():
        Path("folder", name).parent.mkdir(parents=True, exist_ok=True)
        Path("folder", name).write_bytes(content)
    text = "one <|endo\nftext|>\r\ntwo\n\n3"
    tokens = BPETokenizer.train(text, 270, special_tokens=[EOS])
    tokens.save("words")
    for size in (2**21, 3):
        monkeypatch.setattr(texts_module, "FILE_BLOCK", size)
        warnings.simplefilter("always")  # not only at the first of these calls
        assert main(["encode", "words", "folder", "--out", "ids.bin", "--special"]) == 0
        assert np.fromfile("ids.bin", "<u2").tolist() == tokens.encode(text, "all")
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert (
            "2 of the 6 files in folder are not text and are left out: b/photo.png, z.zip" in said
        )
    assert main(["train", "folder", "--out", "words2", "--vocab_size", "260"]) == 0
    assert "b/photo.png, z.zip" in capsys.readouterr().err
    expected = BPETokenizer.train(["one <|endo", "ftext|>\r\ntwo", "3"], 260, "gpt2", [EOS])
    assert tokenizer.load("words2").merges == expected.merges
    with pytest.warns(UserWarning, match="not text"):
        assert BPETokenizer.train(Path("folder"), 260, "gpt2", [EOS]).merges == expected.merges
    with pytest.warns(UserWarning, match="not text"):
        characters = CharTokenizer.train([Path("folder"), "xyz"])
    assert characters.characters == "".join(sorted(set("one <|endoftext|>\r\ntwo3xyz")))
    assert main(["encode", "words", "folder"]) == 0  # the word
    assert "'folder' is encoded as text; --out encodes the files" in capsys.readouterr().err
    CharTokenizer("abc").save("letters")
    assert main(["inspect", "letters", "abc", "--special"]) == 0
    assert "--special changes nothing: " in capsys.readouterr().err
    Path("folder", "a.txt").write_bytes("café ".encode("latin-1") * 20 + b"\x1a")
    (file,) = (f for f in texts_module.text_files("folder", "latin-1") if f.name == "a.txt")
    assert "photo.png" not in str(texts_module.text_files("folder", "latin-1"))
    assert texts_module.read_text(file, "latin-1") == "café " * 20 + "\x1a"
    Path("folder", "a.txt").write_bytes("one\n".encode("utf-16") * 2)
    assert file in texts_module.text_files("folder", "utf-16")
    Path("folder", "a.txt").write_bytes(b"")
    Path("folder", "latin.txt").write_bytes(b"caf\xe9")  # a text, which must not be missed
    assert main(["encode", "words", "folder", "--out", "ids.bin"]) == 2
    assert "latin.txt is not utf-8 text: byte 3 (0xe9)" in capsys.readouterr().err


def test_text_in_another_encoding(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = "\ufeff" + "café olé\n" * 3
    Path("u16").write_bytes(text[1:].encode("utf-16"))
    Path("u8").write_bytes(text.encode())
    for name, encoding in (("u16", "utf-16"), ("u8", "utf-8")):
        argv = ["--encoding", encoding]
        assert main(["train", name, "--out", name + "d", "--vocab_size", "262", *argv]) == 0
        tokens = tokenizer.load(name + "d")
        assert tokens.merges == BPETokenizer.train(text[1:], 261).merges
        assert main(["train", name, "--out", "chars", "--char", *argv]) == 0
        assert tokenizer.load("chars").characters == "\n acfloé"
        capsys.readouterr()
        assert main(["encode", name + "d", f"FILE:{name}", *argv]) == 0
        assert capsys.readouterr().out.split() == [str(i) for i in tokens.encode(text[1:])]
        assert main(["encode", name + "d", name, "--out", "ids.bin", *argv]) == 0
        assert tokens.decode(np.fromfile("ids.bin", "<u2")) == text[1:]
        assert main(["inspect", name + "d", f"FILE:{name}", *argv]) == 0
        assert "\ufeff" not in capsys.readouterr().out


@pytest.mark.parametrize("kind", [BPETokenizer, CharTokenizer])
def test_training_on_the_name_of_a_file_is_noticed(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    Path("file.txt").write_text("low lower")
    expected = kind.train(["low lower"], 258)
    for given_texts in (["file.txt"], "file.txt", iter(["file.txt", "more"])):
        with pytest.warns(UserWarning, match=r"'file.txt' is taken as a text .*Path\('file.txt'\)"):
            kind.train(given_texts, 258)
    for given_texts in (Path("file.txt"), [Path("file.txt")], ["low lower"], "low lower"):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert kind.train(given_texts, 258).describe() == expected.describe()


# ---- ids that come one at a time -----------------------------------------------------------------


@settings(max_examples=300)
@given(st.lists(st.integers(0, 299), max_size=30), texts)
def test_streamed_text_is_decoded_text(trained, ids, text):
    decoder = StreamDecoder(trained)
    assert "".join(map(decoder.push, ids)) + decoder.finish() == trained.decode(ids)
    decoder = StreamDecoder(trained, errors="strict")
    assert "".join(map(decoder.push, text.encode())) == text


def test_a_character_is_held_back_until_it_is_whole(trained):
    decoder = StreamDecoder(trained)
    assert [decoder.push(byte) for byte in "語".encode()] == ["", "", "語"]
    assert decoder.push(0xE8) == "" and decoder.finish() == "\ufffd"
    strict = StreamDecoder(trained, errors="strict")
    strict.push(0xE8)
    for byte in (0x41, 0xFF):
        with pytest.raises(UnicodeError):
            strict.push(byte)  # and it stays as it was
    assert [strict.push(0xAA), strict.push(0x9E)] == ["", "語"]
    strict.push(0xED)
    with pytest.raises(UnicodeError):
        strict.push(0xA0)  # would become a surrogate
    with pytest.raises(ValueError, match="id 999 is not in the vocabulary"):
        strict.push(999)


# ---- options of training -------------------------------------------------------------------------


def test_min_frequency_and_max_piece_length():
    text = "low low low rare " + "z" * 40
    with pytest.warns(UserWarning, match="no pair occurs 3 times any more"):
        tokens = BPETokenizer.train(text, 400, min_frequency=3, max_piece_length=20)
    assert {tokens.decode_bytes([i]) for i in range(256, tokens.vocab_size)} == {b"lo", b"low"}
    counts = counting.count_pieces(text, "gpt2")
    some, every = (
        fast_bpe.fast_train(counts, 400, min_frequency=2),
        fast_bpe.fast_train(counts, 400),
    )
    assert some == every[: len(some)] and len(some) < len(every)


def test_a_vocabulary_of_the_most_frequent_characters():
    tokens = CharTokenizer.train(["bbb", "cca", "cdd"], vocab_size=3)
    assert tokens.characters == "bc" and tokens.vocab_size == 3
    assert CharTokenizer.train("abc", vocab_size=100).characters == "abc"
    assert CharTokenizer.train("abc", vocab_size=1).vocab_size == 1
    with pytest.raises(ValueError, match="vocab_size must be at least 1, .* not 0"):
        CharTokenizer.train("abc", vocab_size=0)


def test_combining_marks_are_characters_of_their_own(tmp_path):
    text = "e\u0301 é क्षि 👩‍💻"
    tokens = CharTokenizer.train(text)
    assert len(tokens.encode(text)) == len(text)
    assert tokens.decode(tokens.encode(text)) == text
    tokens.save(tmp_path)
    assert tokenizer.load(tmp_path).encode(text) == tokens.encode(text)


@pytest.mark.parametrize("allowed", [(), {EOS}])
def test_disallowed_special(trained, allowed):
    text = f"low{EOS}<|end|>"
    with pytest.raises(ValueError, match=r"<\|end\|>"):
        trained.encode(text, allowed, {"<|end|>"})
    assert trained.encode(text, (), ()) == trained.encode_ordinary(text)
    assert trained.encode_to_numpy(text, {EOS}, ()).tolist() == trained.encode(text, {EOS}, ())
    with pytest.raises(ValueError, match="contains the special token 'foo'"):
        trained.encode("a foo", (), {"foo"})  # as tiktoken, also what is no special token here
    with pytest.raises(ValueError, match="disallowed_special must be"):
        trained.encode(text, allowed, EOS)


# ---- the command line ----------------------------------------------------------------------------


def test_train_encode_decode_inspect(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("corpus.txt").write_bytes(CORPUS.encode())
    assert main(["train", "corpus.txt", "--vocab_size", "300", "--out", "words"]) == 0
    assert "300 ids, saved in words" in capsys.readouterr().out
    assert tokenizer.load("words").merges == BPETokenizer.train(CORPUS, 300, "gpt2", [EOS]).merges
    assert main(["encode", "words", "corpus.txt", "--out", "ids.bin"]) == 0
    assert "tokens of uint16" in capsys.readouterr().out
    assert main(["decode", "words", "ids.bin"]) == 0
    assert capsys.readouterr().out == CORPUS
    assert main(["encode", "words", f"low {EOS}", "--special"]) == 0
    ids = capsys.readouterr().out.split()
    assert ids[-1] == "299"
    assert main(["decode", "words", *ids]) == 0
    assert capsys.readouterr().out == f"low {EOS}"
    assert main(["inspect", "words", "(é\n"]) == 0
    shown = capsys.readouterr().out
    assert "[\\xc3]195 [\\xa9]169" in shown and "bytes per token" in shown and "\x1b" not in shown
    assert (
        main(["inspect", "words", "FILE:corpus.txt", "--color", "always", "--max_tokens", "3"]) == 0
    )
    shown = capsys.readouterr().out
    assert shown.count("\x1b[30;48;5;") == 3 and "more (--max_tokens)" in shown
    assert main(["encode", "words", "corpus.txt"]) == 0
    assert "FILE:corpus.txt, or --out, encodes the file" in capsys.readouterr().err
    Path("folder", "inner").mkdir(parents=True)
    Path("folder", ".hidden").write_bytes(b"\xff")
    Path("folder", "inner", "a.txt").write_bytes(CORPUS.encode())
    assert main(["train", "folder", "--vocab_size", "300", "--out", "words2"]) == 0
    assert tokenizer.load("words2").merges == tokenizer.load("words").merges
    assert main(["train", "corpus.txt", "--char", "--out", "letters"]) == 0
    assert tokenizer.load("letters").characters == CharTokenizer.train(CORPUS).characters


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["inspect", "nowhere", "x"], "no tokenizer 'nowhere'"),
        (["decode", "words", "x"], "an id is a number, not 'x'"),
        (["decode", "words", "999"], "id 999 is not in the vocabulary"),
        (["decode", "words", "odd.bin"], "odd.bin has 3 bytes, which is not a whole number"),
        (["decode", "words", "none.bin"], "No such file"),
        (["encode", "words", "none.txt", "--out", "x.bin"], "No such file"),
        (["inspect", "words", "FILE:odd.bin"], "odd.bin is not utf-8 text: byte 1 (0xff)"),
        (["encode", "words", "text", "--out", "x.bin", "--encoding", "x"], "no text encoding 'x'"),
        (["train", "none.txt", "--out", "x"], "there is no file or folder none.txt"),
        (["train", "text", "--out", "x", "--vocab_size", "0"], "vocab_size 0 is too small"),
        (
            ["inspect", "words", "x", "--max_tokens", "-1"],
            "--max_tokens must be at least 0, not -1",
        ),
        (["train", "empty", "--out", "x"], "empty: no text to train on"),
        (
            ["train", "text", "--out", "x", "--min_frequency", "0"],
            "min_frequency must be at least 1",
        ),
        (
            ["encode", "words", "text", "--out", "no/x.bin"],
            "there is no folder no to write x.bin to",
        ),
        (["train", "odd.bin", "--out", "x"], "is not utf-8 text"),
        (["train", "text", "--out", "x", "--vocab_size", "9"], "vocab_size 9 is too small"),
        (["train", "text", "--out", "x", "--pattern", "("], "nor a regular expression"),
        (["train", "text", "--out", "x", "--workers", "0"], "workers must be at least 1"),
    ],
)
def test_faults_are_one_line(tmp_path, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    BPETokenizer([]).save("words")
    Path("odd.bin").write_bytes(b"a\xffb")
    Path("text").write_text("text")
    Path("empty").touch()
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("tokenizer: error: ") and message in error and error.count("\n") == 1


def test_as_a_module_with_a_pipe(tmp_path):
    BPETokenizer([]).save(tmp_path)
    run = [sys.executable, "-m", "tokenizer"]
    root = Path(tokenizer.__file__).parents[1]
    help_ = subprocess.run([*run, "--help"], cwd=root, capture_output=True, text=True, check=True)
    assert "inspect" in help_.stdout
    command = f"cat | {sys.executable} -m tokenizer encode {tmp_path} - --out {tmp_path}/ids.bin"
    subprocess.run(command, shell=True, cwd=root, input=CORPUS, text=True, check=True)
    assert bytes(np.fromfile(tmp_path / "ids.bin", np.uint16).tolist()) == CORPUS.encode()
    closed = subprocess.run(
        f"{sys.executable} -m tokenizer encode {tmp_path} hi >&-",
        shell=True,
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert closed.returncode == 2 and closed.stderr.count("\n") == 1
    script = f"{sys.executable} -m tokenizer inspect {tmp_path} - | head -c 5"
    text = "abc" * 10**6
    piped = subprocess.run(
        script, shell=True, cwd=root, input=text, capture_output=True, text=True, check=True
    )
    assert piped.stdout == "[a]97" and piped.stderr == ""


def test_characters_as_others_read_them(tmp_path):
    characters = CharTokenizer("\n\t aé<unk>ow😀\ufffd")
    with pytest.raises(ValueError, match="one of huggingface, not 'tiktoken'"):
        characters.export(tmp_path, "tiktoken")
    characters.export(tmp_path, "huggingface")
    theirs = pytest.importorskip("tokenizers").Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert theirs.get_vocab_size() == characters.vocab_size
    for text in ("", "a <unknown>\n\n\t  é\r\n😀", "\ufffdzz", "e\u0301", "<unk>" * 9):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ids = characters.encode(text)
        assert theirs.encode(text).ids == ids and theirs.decode(ids) == characters.decode(ids)
    transformers = pytest.importorskip("transformers")
    auto = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in ("a <unk>own\n\n é", "aé😀"):
        ids = characters.encode(text)
        assert auto(text)["input_ids"] == ids and auto.decode(ids) == characters.decode(ids)


@pytest.mark.parametrize("name", ["truncation", "padding"])
def test_truncation_and_padding_of_a_tokenizer_json_are_named(name, tmp_path):
    BPETokenizer.train("low lower lowest", 260).export(tmp_path, "huggingface")
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: {"max_length": 1}}))
    with pytest.warns(UserWarning, match=f"the {name} that tokenizer.json asks for is not done"):
        assert tokenizer.load(path).encode("low") == [257]
