"""Mixtures of whatever `--dataset` takes: one tokenizer for all, and each source is measured."""

import json
import math

import numpy as np
import pytest

import tokenizer as tokenizers
import train
from gpt import GPT, checkpoint, data
from gpt.data.corpora import CORPORA
from gpt.evaluate import bits_per_byte, loss_and_error
from gpt.training.card import CARD
from gpt.training.dataset import load_tokens
from gpt.training.pretrain import Pretraining
from gpt.training.run import Run
from gpt.training.settings import Settings

from .test_data_shards import TOKENIZER, some_documents, write_shards
from .test_mixture_train import write_mixture
from .test_train import TINY, corpus, ok, refused, short_end

__all__ = ["short_end"]  # a fixture


def write_mix(folder, *names: str) -> str:
    tables = [f'[[source]]\ndataset = "{name}"\nweight = 1\n' for name in names]
    (folder / "mix.toml").write_text("\n".join(tables))
    return str(folder / "mix.toml")


def load(dataset: str, **settings):
    return load_tokens(Run(Settings(dataset=dataset, **settings), {}))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A text, a folder of texts, token files with a tokenizer, and token files without one."""
    (tmp_path / "one.txt").write_text(corpus(300), "utf-8")
    (tmp_path / "texts").mkdir()
    for name in "ab":
        (tmp_path / "texts" / name).write_text(f"{name} is another text, and it is short\n" * 9)
    write_shards(tmp_path / "web", train=some_documents(20), val=some_documents(9, seed=1))
    data.write_tokens(tmp_path / "ids.bin", np.arange(999) % 99, 257)
    monkeypatch.setitem(CORPORA, "python-docs", lambda: "bisect.insort(a, x)\n" * 40)
    return tmp_path


# ---- whose ids they are --------------------------------------------------------------------------


@pytest.mark.parametrize("tokenizer", [None, "char", "bpe:280"])
def test_texts_alone_get_a_new_tokenizer(folder, tokenizer):
    names = ["one.txt", "texts", "python-docs"]
    tokens = load(write_mix(folder, *names), tokenizer=tokenizer)
    one = tokens.tokenizer
    assert one.vocab_size == tokens.vocab_size
    assert tokenizer != "bpe:280" or one.vocab_size == 280
    paths = [str(folder / "one.txt"), str(folder / "texts"), "python-docs"]
    for path, train_part, val_part in zip(paths, tokens.train.parts, tokens.val.parts):
        train_text, val_text = data.split(data.read_text(path))
        assert one.decode(train_part[:].tolist()) == train_text
        assert one.decode(val_part[:].tolist()) == val_text
    assert tokens.val_texts == [None] * 3


def test_one_text_is_what_it_is_alone(folder):
    mixed = load(write_mix(folder, "one.txt"), tokenizer="bpe:300")
    alone = load(str(folder / "one.txt"), tokenizer="bpe:300")
    assert mixed.tokenizer.vocabulary == alone.tokenizer.vocabulary
    assert mixed.vocab_size == alone.vocab_size == 300
    assert np.array_equal(mixed.train[:], alone.train)
    assert np.array_equal(mixed.val[:], alone.val)


@pytest.mark.parametrize("names", [("one.txt", "web"), ("web", "one.txt", "ids.bin")])
def test_a_text_takes_the_tokenizer_of_token_files(folder, names):
    tokens = load(write_mix(folder, *names), tokenizer="char")  # as a preset may say it
    part = tokens.train.parts[names.index("one.txt")]
    expected, _ = data.split(data.read_text(str(folder / "one.txt")))
    assert part[:].tolist() == TOKENIZER.encode_ordinary(expected)
    assert tokens.vocab_size == 257 and tokens.tokenizer.vocabulary == TOKENIZER.vocabulary


def test_ids_of_an_unknown_tokenizer_are_not_mixed_with_those_of_a_new_one(folder):
    path = write_mix(folder, "ids.bin", "one.txt")
    with pytest.raises(ValueError, match=r"of the ids in .*ids\.bin is not beside them, and .*one"):
        load(path)
    TOKENIZER.save(folder / "saved")
    tokens = load(path, tokenizer=str(folder / "saved"))
    assert len(tokens.train.parts[0]) == 899 and tokens.tokenizer.vocabulary == TOKENIZER.vocabulary
    with pytest.raises(ValueError, match="is not beside them, and tinystories needs it"):
        load(write_mix(folder, "ids.bin", "tinystories"))


def test_documents_of_texts_and_of_token_files_are_packed(folder):
    path = write_mix(folder, "texts", "web")
    tokens = load(path, documents="packed", separator="file")
    assert tokens.val.offsets and len(tokens.train.parts[0].offsets[0]) == 3  # of two documents
    with pytest.raises(ValueError, match="--separator says it of text"):
        load(path, documents="packed")
    with pytest.raises(ValueError, match="--separator file is for text, and .*mix.toml is token"):
        load(write_mix(folder, "web"), separator="file")


@pytest.mark.filterwarnings("ignore:.*encoded as unknown")
def test_characters_that_the_tokenizer_does_not_know(folder):
    tokenizers.CharTokenizer.train("abc is another text, and short\n").save(folder / "saved")
    tokens = load(write_mix(folder, "texts", "one.txt"), tokenizer=str(folder / "saved"))
    assert tokens.val_texts == [None, data.split(data.read_text(str(folder / "one.txt")))[1]]


# ---- what is measured ----------------------------------------------------------------------------


def test_each_source_is_measured(tmp_path, capsys):
    path, out = write_mixture(tmp_path), tmp_path / "out"
    argv = [*TINY, "--dataset", path, "--out_dir", out]
    shown = ok(train.main, capsys, *argv)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    settings = Settings(**json.loads((out / "run.json").read_text())["settings"])
    tokens = load_tokens(Run(settings, {}))
    web, code = shares = Pretraining(settings, tokens.train, tokens.val).shares
    assert web + code == 1 and 0 < code < 0.1  # whose weight is 0 until step 20

    measured = [line for line in lines if "val_loss" in line]
    assert [line["step"] for line in measured] == [0, 10, 20, 25]
    for line in measured:
        each = line["val_loss/web"], line["val_loss/code"]
        assert line["val_loss"] == pytest.approx(np.dot(shares, each), rel=1e-12)
        words = f"validation loss {line['val_loss']:.4f} (web {each[0]:.4f}, code {each[1]:.4f})"
        assert words in shown

    model, final = GPT.from_pretrained(out), lines[-1]
    expected = [loss_and_error(model, part, 4) for part in tokens.val.parts]
    bits = []
    for name, part, (loss, error) in zip(("web", "code"), tokens.val.parts, expected):
        bits.append(bits_per_byte(loss, part, 16, tokens.tokenizer))
        assert final[f"val_loss_full/{name}"] == pytest.approx(loss, rel=1e-5)
        assert final[f"bits_per_byte/{name}"] == pytest.approx(bits[-1], rel=1e-5)
        told = final[f"val_loss_full_error/{name}"]
        assert told is None if math.isnan(error) else told == pytest.approx(error, rel=1e-4)
    assert final["val_loss_full"] == pytest.approx(np.dot(shares, expected)[0], rel=1e-5)
    assert min(bits) < final["bits_per_byte"] < max(bits)
    full = [final[f"val_loss_full{name}"] for name in ("", "/web", "/code")]
    assert "validation loss {:.4f} (web {:.4f}, code {:.4f}) on the whole split".format(*full) in (
        shown
    )
    assert f"| val loss full/web | {full[1]:.4f} | " in (out / CARD).read_text()
    assert " (web " in ok(train.main, capsys, *argv[:-1], tmp_path / "none", "--eval_only")


def test_a_source_of_weight_0_is_measured_alone(tmp_path, capsys):
    path = write_mixture(tmp_path)
    text = (tmp_path / "mix.toml").read_text().replace("[[20, 0], [100, 0.4]]", "[[0, 0]]")
    (tmp_path / "mix.toml").write_text(text)
    out = tmp_path / "out"
    argv = ["--dataset", path, *TINY, "--out_dir", out, "--skip_final_eval"]
    ok(train.main, capsys, *argv)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    measured = [line for line in lines if "val_loss" in line]
    for line in measured:
        assert line["val_loss"] == line["val_loss/web"] > 0 < line["val_loss/code"]
    assert lines[-1]["val_loss_full"] is None and "val_loss_full/web" not in lines[-1]


def test_a_validation_split_that_is_too_short_is_named(tmp_path, capsys):
    (tmp_path / "short.txt").write_text("a text of a few words. " * 6)
    (tmp_path / "long.txt").write_text(corpus(300), "utf-8")
    tokens = load(write_mix(tmp_path, "long.txt", "short.txt"))
    with pytest.raises(ValueError, match=r"the short\.txt validation split has 14 tokens"):
        Pretraining(Settings(block_size=16), tokens.train, tokens.val)


def test_the_best_model_of_a_mixture_is_measured_by_the_weights_of_now(tmp_path, capsys):
    path, out = write_mixture(tmp_path), tmp_path / "out"
    argv = ["--dataset", path, *TINY, "--out_dir", out, "--skip_final_eval"]
    ok(train.main, capsys, *argv)
    before = checkpoint.load_step(out / "best")
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    each = next(line for line in lines if line["step"] == before and "val_loss/web" in line)
    found = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "keep_if_best", lambda run, *_: found.append(run.best))
        ok(train.main, capsys, "--init_from=resume", "--out_dir", out, "--max_iters=200")
    settings = Settings(**json.loads((out / "run.json").read_text())["settings"])
    tokens = load_tokens(Run(settings, {}))
    shares = Pretraining(settings, tokens.train, tokens.val).shares
    expected = np.dot(shares, [each["val_loss/web"], each["val_loss/code"]])
    assert found[0] == pytest.approx(expected, rel=1e-5) != pytest.approx(each["val_loss"])


def test_ids_are_those_of_the_model_to_start_from(folder, capsys):
    argv = ["--dataset", folder / "one.txt", "--tokenizer", "bpe:300", *TINY]
    ok(train.main, capsys, *argv, "--out_dir", folder / "model")
    argv = ["--dataset", folder / "web", "--init_from", folder / "model", "--tokenizer", "char"]
    fault = refused(train.main, capsys, *argv, "--out_dir", folder / "tuned")
    assert "tokenizer" in fault and str(folder / "web") in fault
