"""benchmarks/data_quality.py in the small: what is held out, what is left to train on, a run."""

import random
import shutil

import numpy as np
import pytest

from benchmarks import data_quality
from benchmarks.data_quality import Apart, ApartSettings, HeldOut, bits_per_byte, verdict
from gpt.data import open_tokens
from gpt.data.pipeline import read_documents
from gpt.data.pipeline.steps import totals
from tokenizer import load

WORDS = "the of and to that with have be river stone garden letter winter morning paper".split()
MENU = "Home | Search | Index"


def prose(seed: int, lines: int = 30) -> str:
    """Sentences that pass all rules: no two seeds have much in common."""
    draw = random.Random(seed)
    own = ["".join(draw.choices("abcdefgiklmnoprstuvz", k=draw.randint(3, 8))) for _ in range(300)]
    drawn = [[draw.choice(own + 20 * WORDS[:8]) for _ in range(9)] for _ in range(lines)]
    return "\n".join(f"{' '.join(words).capitalize()}." for words in drawn)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Forty texts, a copy of each with a menu and a note, and twenty pages without sentences."""
    folder = tmp_path_factory.mktemp("quality")
    pages = folder / "pages" / "site"
    pages.mkdir(parents=True)
    for k in range(40):
        (pages / f"{k:02}.txt").write_text(prose(k))
        (pages / f"{k:02}-copy.txt").write_text(f"{MENU}\n{prose(k)}\nA note for page {k}.")
    for k in range(20):
        table = "\n".join(f"{k * i} | {i} | {i + k}" for i in range(60))
        (pages / f"table-{k:02}.txt").write_text(table)
    data_quality.prepare([str(folder / "pages")], folder / "out", 0.2, progress=lambda line: None)
    return folder / "out"


def sources(folder, split):
    return sorted(d.source for d in read_documents(folder) if d.split == split)


def test_the_cleaned_text_has_neither_copies_nor_tables(prepared):
    raw = sources(prepared / "extract-apart", "train")
    cleaned = sources(prepared / "dedup-apart", "train")
    held_out = sources(prepared / "split", "val")
    assert len(held_out) >= 4 and len(cleaned) == 40 - len(held_out)
    assert len(raw) == 2 * len(cleaned) + 20
    assert sum("table" in name for name in raw) == 20
    assert not [name for name in cleaned if "table" in name]


def test_no_text_has_a_copy_of_what_is_held_out(prepared):
    pages = {name.split("/")[1][:2] for name in sources(prepared / "split", "val")}
    for name in data_quality.STEPS:
        folder = prepared / f"{name}-apart"
        found = [d for d in read_documents(folder) if d.split == "train"]
        assert found and not pages & {d.source.split("/")[1][:2] for d in found}
        copies = 1 if name == "dedup" else 2
        counted = totals(folder)[1].removed_counts[data_quality.ALIKE]
        assert counted == copies * len(pages)


def test_all_texts_are_measured_on_the_same_tokens(prepared):
    tokenizer = load(prepared / "extract-tokens")
    folders = (str(prepared / f"{name}-tokens") for name in data_quality.STEPS)
    first, *others = (open_tokens(folder, tokenizer.vocab_size)[1][:] for folder in folders)
    assert len(others) == 3 and all(np.array_equal(first, other) for other in others)
    texts = [d.text for d in read_documents(prepared / "split") if d.split == "val"]
    assert np.array_equal(first, tokenizer.encode_ended(texts))


def test_other_held_out_documents_are_seen(prepared, tmp_path):
    folder = tmp_path / "changed"
    shutil.copytree(prepared, folder)
    before = totals(folder / "extract-apart")[0]
    pages = str(prepared.parent / "pages")
    data_quality.prepare([pages], folder, 0.5, progress=lambda line: None)
    after = totals(folder / "extract-apart")[0]
    assert before["shards"][0]["made_of"] != after["shards"][0]["made_of"]
    assert sources(folder / "extract-apart", "val") == sources(folder / "split", "val")


def test_overlap_is_that_of_the_sets_of_sequences():
    held_out = HeldOut(["a b c d e f g", "k l m n o p q r"])
    assert held_out.overlap("a b c d e f g") == 1
    assert held_out.overlap("x y z A B C D E f h i") == 2 / 3  # two of the first text's three
    assert held_out.overlap("k l m n o") == 1  # a part of the second
    assert held_out.overlap("u v w x y z") == held_out.overlap("") == 0
    long = "k l m n o p u v w x y z"
    assert held_out.overlap(long) == 2 / 4  # of the four sequences of the second text


def test_a_folder_of_which_nothing_is_held_out_is_refused(prepared):
    step = Apart(ApartSettings())
    with pytest.raises(ValueError, match="no document of .* is held out: give a larger"):
        step.units([str(prepared / "extract"), str(prepared / "dedup")])


def test_a_run_and_its_row(prepared, monkeypatch):
    tiny = "--n_layer 1 --n_head 1 --n_embd 8 --warmup_iters 0".split()
    monkeypatch.setattr(data_quality, "RECIPE", data_quality.RECIPE + tiny)
    arguments = data_quality.arguments_of(prepared, "dedup", 3, 2)
    bits = bits_per_byte(arguments)
    assert 0 < bits < 20
    assert bits_per_byte(arguments) == bits  # the run is not made again
    held_out = sum(len(d.text) for d in read_documents(prepared / "split") if d.split == "val")
    row = data_quality.row(prepared, "dedup", 2, held_out, {3: bits})
    cells = [cell.strip() for cell in row.split("|")]
    assert cells[1] == "`dedup`" and cells[-2] == f"{bits:.4f}"
    with pytest.raises(RuntimeError, match="failed"):
        bits_per_byte([*arguments[:-2], "--n_embd", "7", *arguments[-2:]])


def test_one_seed_that_is_not_better_is_enough():
    said, better = verdict({1: 2.0, 2: 2.0}, {1: 1.9, 2: 1.8})
    assert said.endswith("-0.1000, -0.2000; mean -0.1500 bits per byte, -7.5%") and better
    assert not verdict({1: 2.0, 2: 2.0}, {1: 1.0, 2: 2.0})[1]
