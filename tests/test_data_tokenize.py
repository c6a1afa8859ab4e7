"""The step `tokenize`: from shards of documents to token files."""

import json
from pathlib import Path

import numpy as np
import pytest

import tokenizer as tokenizers
from gpt import data
from gpt.data.__main__ import summary
from gpt.data.pipeline.document import Document
from gpt.data.pipeline.recipe import make_step
from gpt.data.pipeline.shards import read_documents, write_shards
from gpt.data.pipeline.steps import run
from gpt.data.pipeline.tokenize import groups

TEXTS = ["low lower lowest", "", "a café\nnewer", "<|endoftext|> is plain text", "x" * 999]


@pytest.fixture(scope="module")
def bpe(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bpe")
    special = ["<|endoftext|>"]
    tokenizers.BPETokenizer.train("low lower newer " * 9, 266, special_tokens=special).save(folder)
    return folder


def some_documents(n: int) -> list[Document]:
    return [
        Document(f"{i} {TEXTS[i % 5]}" if i % 5 != 1 else "", f"file-{i}", split=split)
        for i in range(n)
        for split in ["val" if i % 3 == 2 else ["train", ""][i % 2]]
    ]


def write_documents(folder: Path, *shards: list[Document]) -> list[str]:
    """A complete folder of documents; returns it as the inputs of a step."""
    folder.mkdir(exist_ok=True)
    stated = [
        {"name": f"{i:05}", **write_shards(folder / f"{i:05}", documents)}
        for i, documents in enumerate(shards)
    ]
    (folder / "manifest.json").write_text(json.dumps({"shards": stated}))
    return [str(folder)]


def files(folder: Path) -> dict[str, bytes]:
    """What a finished folder holds, without what each run writes anew."""
    kept = (".bin", ".idx")
    return {
        path.name: path.read_bytes()
        for path in sorted(folder.iterdir())
        if path.suffix in kept or path.name in ("tokens.json", "tensorlite-tokenizer.json")
    }


def plain(documents: list[Document], tokenizer, split: str) -> tuple[list[int], list[int]]:
    """(ids, offsets) of a split, document by document."""
    ids, offsets = [], [0]
    for document in documents:
        if (document.split or "train") == split:
            ids += [*tokenizer.encode(document.text, disallowed_special=()), tokenizer.eos_token_id]
            offsets.append(len(ids))
    return ids, offsets


def test_token_files_equal_a_plain_computation(bpe, tmp_path, monkeypatch):
    monkeypatch.setattr("gpt.data.pipeline.tokenize.GROUP", 50)
    shards = some_documents(40), some_documents(2), some_documents(7)[2:3]
    inputs = write_documents(tmp_path / "split", *shards)
    manifest = run(make_step("tokenize", {"tokenizer": str(bpe)}), inputs, tmp_path / "tokens")
    tokenizer, out = tokenizers.load(bpe), tmp_path / "tokens"
    for number, documents in enumerate(shards):
        for split in "train", "val":
            ids, offsets = plain(documents, tokenizer, split)
            name = f"{split}-{number:05}"
            if not ids:  # nothing is written for a split without documents
                assert not (out / f"{name}.bin").exists() and not (out / f"{name}.idx").exists()
                continue
            assert np.fromfile(out / f"{name}.bin", "<u2").tolist() == ids
            assert np.fromfile(out / f"{name}.idx", "<u8").tolist() == offsets
            assert {f"{name}.bin", f"{name}.idx"} <= manifest["shards"][number]["files"].keys()
    texts = [[document.text for document in documents] for documents in shards]
    found = [(entry["documents"], entry["characters"]) for entry in manifest["shards"]]
    assert found == [(len(own), sum(map(len, own))) for own in texts]
    about = data.read_about(out)
    assert about.documents == {"train": 29, "val": 14}
    assert list(about.shards["train"]) == ["train-00000", "train-00001"]
    assert list(about.shards["val"]) == ["val-00000", "val-00002"]
    assert about.vocab_size == 266 and about.end_of_text == tokenizer.eos_token_id
    train, val = data.open_tokens(str(out), 266, documents=True)
    assert train[:].tolist() == plain([d for s in shards for d in s], tokenizer, "train")[0]
    data.check_tokenizer(out, tokenizer)
    assert tokenizers.load(out).vocabulary == tokenizer.vocabulary


def test_tokens_of_a_large_file_are_opened(bpe, tmp_path):
    texts = [f"{i} low lower" for i in range(40)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in texts))
    extract = make_step("extract", {"shard_mb": 200 / 2**20, "identify": False})
    run(extract, [str(tmp_path / "in.jsonl")], tmp_path / "extract")
    step = make_step("tokenize", {"tokenizer": str(bpe)})
    run(make_step("split", {"val_fraction": 0.3}), [str(tmp_path / "extract")], tmp_path / "split")
    run(step, [str(tmp_path / "split")], tmp_path / "out")
    assert list(data.read_about(tmp_path / "out").shards["train"])[1] == "train-00000-0001"
    opened = data.open_tokens(str(tmp_path / "out"), 266, documents=True)
    for tokens, split in zip(opened, ("train", "val")):
        own = [d.text for d in read_documents(tmp_path / "split") if d.split == split]
        assert tokens[:].tolist() == tokenizers.load(bpe).encode_ended(own).tolist()


def test_a_stopped_run_goes_on_and_parts_make_the_same(bpe, tmp_path, monkeypatch):
    inputs = write_documents(tmp_path / "split", *(some_documents(n) for n in (9, 6, 12)))
    step = make_step("tokenize", {"tokenizer": str(bpe)})
    run(step, inputs, tmp_path / "whole")
    expected = files(tmp_path / "whole")

    with monkeypatch.context() as patch:
        encode, left = type(step).encode, iter(range(9))

        def encode_and_stop(self, texts):
            if next(left) == 8:
                raise KeyboardInterrupt
            return encode(self, texts)

        patch.setattr(type(step), "encode", encode_and_stop)
        with pytest.raises(KeyboardInterrupt):
            run(step, inputs, tmp_path / "stopped")
    stopped = files(tmp_path / "stopped")
    assert 0 < len(stopped) < len(expected) and "tokens.json" not in stopped
    assert all(expected[name] == content for name, content in stopped.items())
    with pytest.raises(ValueError, match="there is no .*tokens.json"):
        data.open_tokens(str(tmp_path / "stopped"), 266)
    run(step, inputs, tmp_path / "stopped")
    assert files(tmp_path / "stopped") == expected

    assert run(step, inputs, tmp_path / "parts", part=(0, 2)) is None
    assert run(step, inputs, tmp_path / "parts", part=(1, 2)) is not None
    assert files(tmp_path / "parts") == expected


def test_what_an_earlier_run_has_left_is_removed(bpe, tmp_path):
    step, out = make_step("tokenize", {"tokenizer": str(bpe)}), tmp_path / "tokens"
    run(step, write_documents(tmp_path / "split", some_documents(9), some_documents(6)), out)
    only_train = [Document("new", "new")]
    held_out = [Document("other", "other", split="val")]
    run(step, write_documents(tmp_path / "split", only_train + held_out), out)
    names = ["tensorlite-tokenizer.json", "tokens.json"]
    names += ["train-00000.bin", "train-00000.idx", "val-00000.bin", "val-00000.idx"]
    assert sorted(files(out)) == names
    assert data.read_about(out).documents == {"train": 1, "val": 1}


def test_another_tokenizer_in_the_same_folder_makes_it_anew(bpe, tmp_path):
    inputs, out = write_documents(tmp_path / "split", some_documents(9)), tmp_path / "tokens"
    tokenizers.load(bpe).save(tmp_path / "words")
    settings = {"tokenizer": str(tmp_path / "words")}
    run(make_step("tokenize", settings), inputs, out)
    before = files(out)
    special = ["<|endoftext|>"]
    other = tokenizers.BPETokenizer.train("new " * 9, 260, special_tokens=special)
    other.save(tmp_path / "words")
    run(make_step("tokenize", settings), inputs, out)
    assert files(out)["train-00000.bin"] != before["train-00000.bin"]
    data.check_tokenizer(out, other)


def test_a_new_tokenizer_is_of_the_documents_that_are_not_held_out(tmp_path):
    documents = [Document("low lower lowest " * 9, "a"), Document("xyzxyz" * 99, "b", split="val")]
    inputs, out = write_documents(tmp_path / "split", documents), tmp_path / "tokens"
    made = []
    for _ in range(2):  # the second time, nothing is left to do
        run(make_step("tokenize", {"tokenizer": "bpe:262"}), inputs, out)
        made.append({path.name: path.stat().st_mtime_ns for path in out.glob("*.bin")})
    assert made[0] == made[1]
    special = ["<|endoftext|>"]
    expected = tokenizers.BPETokenizer.train("low lower lowest " * 9, 262, special_tokens=special)
    data.check_tokenizer(out, expected)
    held_out = np.fromfile(out / "val-00000.bin", "<u2").tolist()
    sizes = [len(expected.encode_ordinary(document.text)) + 1 for document in documents]
    assert f"{sizes[0]} tokens to train on and {sizes[1]} to validate" in summary(out)
    assert expected.decode(held_out) == documents[1].text + "<|endoftext|>"


def test_documents_of_no_split_are_counted(bpe, tmp_path):
    documents = [*some_documents(6), Document("secret", "test-file", split="test")]
    inputs = write_documents(tmp_path / "split", documents)
    manifest = run(make_step("tokenize", {"tokenizer": str(bpe)}), inputs, tmp_path / "tokens")
    tally = manifest["shards"][0]["tally"]
    assert tally["removed"] == {"split: neither train nor val": 1}
    assert data.read_about(tmp_path / "tokens").documents == {"train": 4, "val": 2}


def test_documents_are_not_taken_for_text(tmp_path):
    (folder,) = write_documents(tmp_path / "split", some_documents(6))
    with pytest.raises(ValueError, match="is a folder of documents: python -m gpt.data tokenize"):
        data.read_texts(folder)
    with pytest.raises(ValueError, match="split is a folder of documents"):
        data.read_texts(str(tmp_path))
    (tmp_path / "tokens").mkdir()
    (tmp_path / "tokens" / "tokens.json").touch()
    with pytest.raises(ValueError, match="token files of them: --dataset .*tokens$"):
        data.read_texts(str(tmp_path))


def test_groups_are_of_one_split_and_bounded(monkeypatch):
    monkeypatch.setattr("gpt.data.pipeline.tokenize.GROUP", 4)
    made = [Document(t, "", split=s) for t, s in [("ab", ""), ("cde", "train"), ("f", "train")]]
    made += [Document("g", "", split="val"), Document("h", "")]
    expected = [("train", ["ab", "cde"]), ("train", ["f"]), ("val", ["g"]), ("train", ["h"])]
    assert list(groups(iter(made))) == expected


@pytest.mark.parametrize(
    "name, fault",
    [
        ("bpe:many", "--tokenizer bpe:N takes a number of ids, not 'many'"),
        ("char", "--tokenizer char has an id for each character of a text"),
        ("nowhere", "--tokenizer is a tokenizer's name or path: "),
    ],
)
def test_tokenizers_that_cannot_be(name, fault):
    with pytest.raises(ValueError, match=fault):
        make_step("tokenize", {"tokenizer": name})


def test_a_tokenizer_that_ends_no_text(tmp_path):
    tokenizers.CharTokenizer.train("abc").save(tmp_path)
    with pytest.raises(ValueError, match="has no end-of-text token, which has to follow each"):
        make_step("tokenize", {"tokenizer": str(tmp_path)})
