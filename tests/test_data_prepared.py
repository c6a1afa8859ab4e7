"""From the name of a corpus to token files and a training run; the network is never used."""

import json
import random

import numpy as np
import pytest

import tokenizer as tokenizers
import train
from gpt import data
from gpt.data import PREPARED, prepare, read_texts
from gpt.data.fetched import FETCHED, Corpus, hub_files
from gpt.data.pipeline import read_documents
from gpt.data.pipeline.tokenize import sample
from gpt.training.dataset import load_tokens
from gpt.training.run import Run
from gpt.training.settings import Settings
from tests.hub_server import Hub, serving

WORDS = "the a dog cat house tree red small runs sees finds under over and then Lily Tom".split()


def story(number: int) -> str:
    rng = random.Random(number)
    return " ".join(rng.choice(WORDS) for _ in range(60)) + f" {number}."


STORIES = [story(number) for number in range(400)]


def jsonl(stories) -> bytes:
    return b"".join(json.dumps({"text": text}).encode() + b"\n" for text in stories)


@pytest.fixture
def server(monkeypatch, tmp_path):
    files = {"a.jsonl": jsonl(STORIES[:250]), "b.jsonl": jsonl(STORIES[240:])}  # ten twice
    with serving(Hub("datasets", "me/stories", files), monkeypatch, tmp_path) as server:
        corpus = Corpus(
            "https://example.org/stories",
            "CC0-1.0",
            1,
            lambda: hub_files("me/stories", "", r"\w\.jsonl"),
            settings={"identify": False},
        )
        # In the place of another, since the names are known to the command line.
        monkeypatch.setitem(FETCHED, "tinystories", corpus)
        yield server


def quiet(*args, **kwargs):
    return prepare(*args, say=lambda text: None, **kwargs)


def contents(folder):
    return {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in folder.glob("*.bin")}


def test_documents_become_token_files_once(server, tmp_path):
    folder = quiet("tinystories", "bpe:300")
    assert folder.parent == tmp_path / "corpora" / "tinystories"
    made, asked = contents(folder), len(server.asked)
    assert made
    again = quiet("tinystories", "bpe:300")
    assert again == folder and contents(folder) == made and len(server.asked) == asked
    other = quiet("tinystories", "bpe:280")
    assert other != folder and other.parent == folder.parent and len(server.asked) == asked


def test_tokens_are_those_of_the_distinct_stories(server):
    folder = quiet("tinystories", "bpe:300")
    tokenizer = tokenizers.load(folder)
    texts = []
    for path in sorted(folder.glob("*.bin")):
        ids = np.fromfile(path, "<u2")
        texts += tokenizer.decode(ids.tolist()).split("<|endoftext|>")
    assert sorted(text for text in texts if text) == sorted(STORIES)


def test_a_new_tokenizer_is_of_what_is_not_held_out(server):
    folder = quiet("tinystories", "bpe:300")
    texts = list(sample(folder.parent / "split"))
    assert len(set(texts)) == len(texts) and set(texts) <= set(STORIES)
    split = list(read_documents(folder.parent / "split"))
    assert {document.licence for document in split} == {"CC0-1.0"}
    held_out = [document.text for document in split if document.split == "val"]
    assert held_out and not set(held_out) & set(texts) and len(held_out) + len(texts) == 400


def test_a_run_on_a_corpus_by_its_name(server, tmp_path, capsys):
    out = tmp_path / "out"
    flags = ["--dataset", "tinystories", "--tokenizer", "bpe:300", "--max_iters", "2"]
    flags += ["--block_size", "8", "--n_layer", "1", "--n_embd", "16", "--n_head", "2"]
    flags += ["--eval_iters", "1", "--out_dir", str(out), "--device", "cpu"]
    assert train.main(flags) == 0
    said = capsys.readouterr().out
    assert "tinystories is under the licence CC0-1.0" in said
    assert json.loads((out / "run.json").read_text())["settings"]["dataset"] == "tinystories"
    made = contents(next((tmp_path / "corpora/tinystories").glob("tokens-*")))
    before = sorted(p.name for p in (tmp_path / "corpora/tinystories").iterdir())
    assert train.main(["--init_from", "resume", "--out_dir", str(out), "--max_iters", "3"]) == 0
    after = sorted(p.name for p in (tmp_path / "corpora/tinystories").iterdir())
    assert before == after  # the run's own tokenizer is the same one: no other tokens are made
    assert contents(next((tmp_path / "corpora/tinystories").glob("tokens-*"))) == made


def test_a_mixture_of_a_corpus_and_a_text(server, tmp_path):
    (tmp_path / "my.txt").write_text(" ".join(STORIES[:9]))
    table = '[[source]]\ndataset = "{}"\nweight = 1\n'.format
    (tmp_path / "mix.toml").write_text(table("my.txt") + table("tinystories"))
    settings = Settings(dataset=str(tmp_path / "mix.toml"), tokenizer="bpe:300")
    tokens = load_tokens(Run(settings, {}))
    folder = quiet("tinystories", "bpe:300")
    alone, _ = data.open_tokens(str(folder), 300)
    assert np.array_equal(tokens.train.parts[1][:], alone[:])
    expected, _ = data.split(" ".join(STORIES[:9]))
    ids = tokens.train.parts[0][:].tolist()
    assert ids == tokenizers.load(folder).encode_ordinary(expected)


def test_the_names_are_shown_by_the_command_line(capsys):
    with pytest.raises(SystemExit):
        train.main(["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert all(name in shown for name in PREPARED)


def test_what_cannot_be_prepared(server):
    with pytest.raises(ValueError, match="'stories' is no corpus that is prepared: tinystories"):
        quiet("stories")
    with pytest.raises(ValueError, match="--tokenizer char has an id for each character"):
        quiet("tinystories", "char")
    with pytest.raises(ValueError, match="bpe:N takes a number of ids, not 'many'"):
        quiet("tinystories", "bpe:many")
    with pytest.raises(ValueError, match="corpus of documents, of which only training makes"):
        read_texts("tinystories")


def test_the_documentation_of_this_machine(server, tmp_path, monkeypatch):
    from gpt.data.pipeline import extract

    docs = tmp_path / "docs"
    docs.mkdir()
    for number, text in enumerate(STORIES[:30]):
        (docs / f"{number}.txt").write_text(text)
    monkeypatch.setattr(extract, "system_docs_inputs", lambda: [docs])
    folder = quiet("system-docs", "bpe:270")
    assert folder.parent.name == "system-docs" and contents(folder)
    assert server.asked == []
    monkeypatch.setattr(extract, "system_docs_inputs", lambda: [])
    with pytest.raises(FileNotFoundError, match="no manual pages and no documentation"):
        quiet("system-docs")
