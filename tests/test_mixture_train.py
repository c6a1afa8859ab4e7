"""`train.py` on shards, on mixtures and on documents that do not see each other; resuming too."""

import json
import shutil
import signal
import subprocess

import numpy as np
import pytest

import train
from gpt import GPT, data
from gpt.evaluate import loss_and_error
from gpt.training import loop

from .test_data_shards import some_documents, write_shards
from .test_parallel import mpi, two_cores
from .test_resume import SLOW, assert_same, outcome, start, wait_for
from .test_train import TINY, corpus, ok, refused, short_end

__all__ = ["mpi", "short_end", "two_cores"]  # fixtures

MIX = """
[[source]]
dataset = "web"
weight = 0.6

[[source]]
dataset = "code"
weights = [[20, 0], [100, 0.4]]
epochs = 30
"""


def write_mixture(folder) -> str:
    """Two sources of shards with indexes, and mix.toml; returns its path."""
    web = {"train": some_documents(60, 40), "val": some_documents(9, 9, seed=1)}
    code = {"train": some_documents(30, 3, seed=2), "val": some_documents(15, seed=3)}
    write_shards(folder / "web", **web)
    write_shards(folder / "code", **code)
    (folder / "mix.toml").write_text(MIX)
    return str(folder / "mix.toml")


def test_a_mixture_killed_and_resumed_is_the_run_left_alone(tmp_path):
    path, out = write_mixture(tmp_path), tmp_path / "out"
    argv = ["--dataset=mix.toml", *SLOW, "--documents=packed", "--max_iters=90"]
    process = start(tmp_path / "whole", *argv)
    stdout, err = process.communicate()
    assert process.returncode == 0 and err == ""
    assert "passes over web: " in stdout
    for lines, number in ((12, signal.SIGKILL), (38, signal.SIGTERM), (66, signal.SIGKILL)):
        process = start(out, *argv)
        wait_for(process, out, lines)
        process.send_signal(number)
        process.communicate()
        assert process.returncode == (0 if number == signal.SIGTERM else -number)
        argv = ["--init_from=resume"]
    (tmp_path / "elsewhere").mkdir()  # the sources are where mix.toml is
    process = start(out, *argv, cwd=tmp_path / "elsewhere")
    stdout, err = process.communicate()
    assert process.returncode == 0 and err == "" and "resuming" in stdout
    assert_same(out, tmp_path / "whole")
    with open(path, "a") as file:
        file.write("weight = 1\n")
    process = start(out, "--init_from=resume", "--max_iters=99")
    assert "has either weight = W or weights" in process.communicate()[1]
    (tmp_path / "mix.toml").write_text(MIX.replace("0.6", "0.5"))
    process = start(out, "--init_from=resume", "--max_iters=99")
    assert "the data is not what the run in" in process.communicate()[1]


@pytest.mark.parametrize("documents", ["flat", "packed"])
def test_shards_are_trained_on_as_one_file_is(documents, tmp_path, capsys):
    splits = {"train": some_documents(50, 60, 5), "val": some_documents(20, 20, seed=1)}
    ids = write_shards(tmp_path / "shards", **splits)
    one = tmp_path / "one"
    one.mkdir()
    for split, parts in splits.items():
        data.write_tokens(one / f"{split}.bin", np.concatenate(ids[split]), 257)
        offsets = np.cumsum([0, *(len(document) for part in parts for document in part)])
        (one / f"{split}.idx").write_bytes(offsets.astype("<u8").tobytes())
    shutil.copy(tmp_path / "shards" / "tensorlite-tokenizer.json", one)
    argv = [*TINY, "--documents", documents]
    ok(train.main, capsys, "--dataset", tmp_path / "shards", *argv, "--out_dir", tmp_path / "a")
    argv += ["--tokenizer", one]
    ok(train.main, capsys, "--dataset", one, *argv, "--out_dir", tmp_path / "b")
    (lines, kept), (expected_lines, expected) = outcome(tmp_path / "a"), outcome(tmp_path / "b")
    assert lines == expected_lines and kept == expected
    assert lines[-1]["bits_per_byte"] > 0
    model = GPT.from_pretrained(tmp_path / "a")
    assert model.config.vocab_size == 257 and model.config.eos_token_id == 256
    _, val = data.open_tokens(str(tmp_path / "shards"), 257, documents=True)
    expected = loss_and_error(model, val, 4, documents=documents == "packed")[0]
    assert lines[-1]["val_loss_full"] == pytest.approx(expected, abs=1e-6)


def test_workers_share_a_mixture(two_cores, tmp_path):
    write_mixture(tmp_path)
    (tmp_path / "text.txt").write_text(corpus())
    with open(tmp_path / "mix.toml", "a") as file:
        file.write('[[source]]\ndataset = "text.txt"\nweight = 0.3\n')
    losses = []
    for workers in 1, 2:
        out = tmp_path / f"out-{workers}"
        more = ["--max_iters=12", "--eval_interval=6", "--documents=packed", "--separator=line"]
        argv = ["--dataset=mix.toml", *SLOW, *more, f"--workers={workers}"]
        process = start(out, *argv, stdin=subprocess.DEVNULL)
        _, err = process.communicate()
        assert process.returncode == 0, err
        lines = outcome(out)[0]
        names = ("train_loss", "val_loss", "val_loss/code", "val_loss/text.txt", "val_loss_full")
        losses.append([line[k] for k in names for line in lines if k in line])
    np.testing.assert_allclose(*losses, atol=1e-5)


def test_text_with_a_separator_is_packed(tmp_path, capsys, monkeypatch):
    (tmp_path / "lines.txt").write_text(corpus(2000).replace(". ", ".\n"))
    argv = ["--dataset", tmp_path / "lines.txt", "--separator=line", "--tokenizer=bpe:270", *TINY]
    argv += ["--documents=packed", "--out_dir", tmp_path / "out"]
    seen, step = [], loop.train_step

    def look(model, optimizer, task, *args):
        seen.append(task)
        return step(model, optimizer, task, *args)

    monkeypatch.setattr(loop, "train_step", look)
    ok(train.main, capsys, *argv)
    tokens = seen[0].train_tokens
    ends = np.cumsum(tokens[:] == 269) - (tokens[:] == 269)
    assert len(np.unique(ends)) > 50
    assert np.array_equal(tokens.documents(np.arange(len(tokens))), ends)
    assert json.loads((tmp_path / "out" / "run.json").read_text())["settings"]["documents"] == (
        "packed"
    )


def test_refused(tmp_path, capsys):
    path = write_mixture(tmp_path)
    argv = ["--dataset", path, *TINY, "--out_dir", tmp_path / "out"]

    def fault(*more) -> str:
        return refused(train.main, capsys, *argv, *more)

    assert "--documents is flat or packed, not 'mixed'" in fault("--documents=mixed")
    (tmp_path / "mix.toml").write_text(MIX.replace("weight = 0.6", "weight = 0.6\nepochs = 0.1"))
    assert "no source of the mixture has both a weight above 0" in fault("--max_iters=500")
    (tmp_path / "mix.toml").write_text(MIX)
    (tmp_path / "code" / "val-00000.idx").unlink()
    assert "needs the index of documents" in fault("--documents=packed")
    about = tmp_path / "code" / "tokens.json"
    changed = json.loads(about.read_text())
    about.write_text(json.dumps(changed | {"tokenizer": "another"}))
    assert "web and code were made with different tokenizers" in fault()
    text = tmp_path / "text.txt"
    text.write_text(corpus())
    fault = refused(train.main, capsys, "--dataset", text, *TINY, "--documents=packed")
    assert "--documents packed needs to know where documents end: --separator" in fault
