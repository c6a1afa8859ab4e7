"""A run that is stopped, in whatever way, and resumed is the run that was left alone."""

import functools
import itertools
import json
import math
import os
import random
import resource
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import tensorlite as tl
import train
from gpt import GPT, GPTConfig, checkpoint, data
from gpt.training import command as commands
from gpt.training.optimizer import make_optimizer
from gpt.training.settings import Settings
from tensorlite.optim import AdamW

from .test_train import (
    ENVIRONMENT,
    ROOT,
    TINY,
    cli,
    command,
    corpus,
    files,
    ok,
    on_hangup,
    refused,
    short_end,
    text,
)

__all__ = ["short_end", "text"]  # fixtures

# Slow enough to be caught in the middle, dropout on; saves fall on other steps than evaluations.
SLOW = (
    "--n_layer=2 --n_head=2 --n_embd=32 --block_size=32 --batch_size=16 --max_iters=150 "
    "--eval_interval=20 --eval_iters=2 --log_interval=1 --save_interval=7 --warmup_iters=5 "
    "--learning_rate=1e-2 --dropout=0.2 --gradient_accumulation_steps=2 --overwrite=False"
).split()


def outcome(out: Path):
    """All that a run learned: its metrics without the times, its checkpoints as bytes."""
    lines = [json.loads(line) for line in open(out / "metrics.jsonl")]
    for line in lines:
        line.pop("tokens_per_second", None)
        line.pop("seconds", None)
    kept = {name: data for name, data in files(out).items() if name.endswith(".safetensors")}
    return lines, kept


def assert_same(a: Path, b: Path) -> None:
    (lines, kept), (expected_lines, expected) = outcome(a), outcome(b)
    assert lines == expected_lines
    assert kept.keys() == expected.keys()
    assert [name for name in kept if kept[name] != expected[name]] == []


def start(out: Path, *argv, **more) -> subprocess.Popen:
    how = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    how |= dict(cwd=out.parent, preexec_fn=on_hangup) | more
    return subprocess.Popen(command("train.py", "--out_dir", out, *argv), **how)


def wait_for(process: subprocess.Popen, out: Path, n: int) -> None:
    """Wait until metrics.jsonl has n lines."""
    metrics, deadline = out / "metrics.jsonl", time.monotonic() + 60
    while not metrics.exists() or metrics.read_bytes().count(b"\n") < n:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run that was left alone; its text beside it."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "corpus.txt").write_text(corpus(), encoding="utf-8")
    process = start(folder / "out", "--dataset=corpus.txt", *SLOW)
    _, err = process.communicate()
    assert process.returncode == 0 and err == ""
    return folder / "out"


def test_killed_at_random_moments(whole, tmp_path):
    shutil.copy(whole.parent / "corpus.txt", tmp_path)
    out, rng = tmp_path / "out", random.Random(1)
    argv = ["--dataset=corpus.txt", *SLOW]
    for lines in (2, 25, 55, 90, 125):
        process = start(out, *argv)
        wait_for(process, out, lines + rng.randrange(15))
        time.sleep(rng.random() * 0.02)
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL  # it was not done
        argv = ["--init_from=resume"]
    process = start(out, *argv)
    stdout, err = process.communicate()
    assert process.returncode == 0 and err == ""
    assert f"resuming {out} at step" in stdout
    assert_same(out, whole)


def test_two_processes_do_not_share_a_folder(whole, tmp_path):
    shutil.copy(whole.parent / "corpus.txt", tmp_path)
    out = tmp_path / "out"
    first = start(out, "--dataset=corpus.txt", *SLOW)
    wait_for(first, out, 5)
    for argv in (["--init_from=resume"], ["--dataset=corpus.txt", *SLOW, "--overwrite"]):
        second = start(out, *argv)
        _, err = second.communicate()
        assert second.returncode == 2
        assert err == f"train.py: error: another process is training in {out}\n"
    _, err = first.communicate()
    assert first.returncode == 0 and err == ""
    assert_same(out, whole)


def test_the_folder_is_taken_before_the_text_is_read(text, tmp_path, capsys):
    """One process waits for its text, from a pipe; another would be done meanwhile."""
    out, pipe = tmp_path / "out", tmp_path / "pipe"
    os.mkfifo(pipe)
    first = start(out, "--dataset", pipe, *TINY)
    with open(pipe, "wb") as file:  # returns when the other end is open, too
        for more in ([], ["--init_from=auto"], ["--overwrite"]):
            argv = ["--dataset", text, *TINY, "--out_dir", out, *more]
            assert "another process is training in" in refused(train.main, capsys, *argv)
        file.write(text.read_bytes())
    _, err = first.communicate()
    assert first.returncode == 0 and err == ""
    assert outcome(out)[0][-1]["event"] == "final"


@pytest.mark.parametrize("steps", [25, 10])
def test_a_run_that_has_appeared_meanwhile_is_left_alone(
    steps, text, tmp_path, capsys, monkeypatch
):
    """Another process makes its run after this one has seen an empty folder."""
    out, choose = tmp_path / "out", commands.choose_workers
    run = ["--dataset", str(text), *TINY, "--out_dir", str(out), "--lr_decay_iters=25"]

    def choose_slowly(*args):
        chosen = choose(*args)
        with monkeypatch.context() as patch:
            patch.setattr(commands, "choose_workers", choose)
            assert train.main([*run, f"--max_iters={steps}"]) == 0
        return chosen

    monkeypatch.setattr(commands, "choose_workers", choose_slowly)
    assert "holds another run" in refused(train.main, capsys, *run)
    assert outcome(out)[0][-1] == outcome(out)[0][-1] | {"event": "final", "step": steps}
    shutil.rmtree(out)
    if steps == 25:
        assert "is finished, at step 25" in ok(train.main, capsys, *run, "--init_from=auto")
    else:
        assert "max_iters differ" in refused(train.main, capsys, *run, "--init_from=auto")
    assert outcome(out)[0][-1]["step"] == steps


def test_a_folder_made_for_a_refused_run_is_removed(tmp_path, capsys):
    (tmp_path / "there").mkdir()
    for out in ("there", "new", "there/a/b"):
        refused(train.main, capsys, "--dataset=nowhere", *TINY, "--out_dir", tmp_path / out)
    assert [p.name for p in tmp_path.rglob("*")] == ["there"]


def test_stopped_by_signals(whole, tmp_path):
    shutil.copy(whole.parent / "corpus.txt", tmp_path)
    out = tmp_path / "out"
    argv = ["--dataset=corpus.txt", *SLOW]
    for lines, number in ((33, signal.SIGINT), (83, signal.SIGTERM), (113, signal.SIGHUP)):
        process = start(out, *argv)
        wait_for(process, out, lines)
        process.send_signal(number)
        stdout, err = process.communicate()
        assert process.returncode == 0 and err == ""
        last = stdout.splitlines()[-1]
        assert last.endswith(f"{ROOT / 'train.py'} --out_dir {out} --init_from resume")
        step = int(last.split()[3].rstrip(","))
        assert f"optimizer-{step}.safetensors" in files(out)
        assert outcome(out)[0][-1]["step"] == step < 150  # nothing is lost
        argv = ["--init_from=auto", "--dataset=corpus.txt", *SLOW]
    process = start(out, "--init_from=resume")
    stdout, _ = process.communicate()
    assert process.returncode == 0 and f"resuming {out} at step {step}" in stdout
    assert_same(out, whole)


def test_a_reader_that_goes_away_stops_it_as_a_signal_does(whole, tmp_path):
    shutil.copy(whole.parent / "corpus.txt", tmp_path)
    out = tmp_path / "out"
    process = start(out, "--dataset=corpus.txt", *SLOW)
    wait_for(process, out, 33)
    process.stdout.close()
    assert process.stderr.read() == "" and process.wait() == 0
    lines, kept = outcome(out)
    step = lines[-1]["step"]
    assert 20 < step < 150 and f"optimizer-{step}.safetensors" in kept  # nothing is lost
    process = start(out, "--init_from=resume")
    process.communicate()
    assert process.returncode == 0
    assert_same(out, whole)
    process = start(out, "--init_from=resume")
    process.stdout.close()  # it is finished, and says so to nobody
    assert process.stderr.read() == "" and process.wait() == 0


def test_under_nohup_a_hangup_stops_nothing(whole, tmp_path):
    shutil.copy(whole.parent / "corpus.txt", tmp_path)
    out = tmp_path / "out"
    nohup = functools.partial(on_hangup, signal.SIG_IGN)
    process = start(out, "--dataset=corpus.txt", *SLOW, preexec_fn=nohup)
    wait_for(process, out, 33)
    process.send_signal(signal.SIGHUP)
    _, err = process.communicate()
    assert process.returncode == 0 and err == ""
    assert_same(out, whole)


def test_a_second_interrupt_ends_it_at_once(text, tmp_path):
    out = tmp_path / "out"
    slow_step = ["--max_iters=9", "--gradient_accumulation_steps=5000"]
    process = start(out, "--dataset", text, *TINY, *slow_step)
    wait_for(process, out, 1)
    for _ in range(2):
        time.sleep(0.3)  # into the step; into its rest
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
    began = time.monotonic()
    process.communicate()
    assert process.returncode == 130 and time.monotonic() - began < 2
    assert not (out / "model.safetensors").exists()


class Crash(BaseException):
    """A power failure, as far as `except` is concerned."""


def test_a_crash_at_any_rename_loses_nothing(text, tmp_path, capsys, monkeypatch):
    run = ["--dataset", text, *TINY, "--max_iters=9", "--eval_interval=6", "--save_interval=3"]
    run += ["--dropout=0.1", "--log_interval=1"]
    whole = tmp_path / "whole"
    ok(train.main, capsys, *run, "--out_dir", whole)
    replace, crashes = os.replace, 0
    while True:
        out, left = tmp_path / f"crash-{crashes}", crashes

        def crash(*paths):
            nonlocal left
            if left == 0:
                raise Crash
            left -= 1
            replace(*paths)

        monkeypatch.setattr(os, "replace", crash)
        try:
            ok(train.main, capsys, *run, "--out_dir", out)
        except Crash:
            pass
        else:
            break
        finally:
            monkeypatch.setattr(os, "replace", replace)
        if (out / "model.safetensors").exists():
            GPT.from_pretrained(out)
        ok(train.main, capsys, *run, "--out_dir", out, "--init_from=auto")
        assert_same(out, whole)
        crashes += 1
    # the tokenizer, run.json, metrics.jsonl, three checkpoints of three files and a card, twice the
    # best, the card of the finished run
    assert crashes == 3 + 1 + 1 + 3 * 4 + 2 * 6 + 1


def test_the_best_is_the_same_when_the_start_was_better(text, tmp_path, capsys):
    # Step 0 has the lowest validation loss here, and is no candidate for the best.
    base, a, b = tmp_path / "base", tmp_path / "a", tmp_path / "b"
    ok(train.main, capsys, "--dataset", text, *TINY, "--max_iters=100", "--out_dir", base)
    run = ["--dataset", text, *TINY, "--init_from", base, "--learning_rate=0.3", "--dropout=0.5"]
    run += [
        "--max_iters=12",
        "--warmup_iters=0",
        "--lr_decay_iters=12",
        "--min_lr=1e-3",
        "--eval_interval=1",
    ]
    ok(train.main, capsys, *run, "--out_dir", a)
    losses = [line["val_loss"] for line in outcome(a)[0] if "val_loss" in line]
    assert min(losses) == losses[0] and min(losses[5:]) < min(losses[1:5])
    ok(train.main, capsys, *run, "--out_dir", b, "--max_iters=4")
    shutil.rmtree(base)  # not needed any more
    ok(train.main, capsys, "--out_dir", b, "--init_from=resume", "--max_iters=12")
    assert outcome(a)[1] == outcome(b)[1]


def test_fine_tuning_with_a_smaller_context_resumes(text, tmp_path, capsys):
    base, a, b = tmp_path / "base", tmp_path / "a", tmp_path / "b"
    ok(train.main, capsys, "--dataset", text, *TINY, "--out_dir", base)
    run = ["--dataset", text, *TINY, "--block_size=8", "--lr_decay_iters=25", "--dropout=0.1"]
    ok(train.main, capsys, *run, "--init_from", base, "--out_dir", a)
    # Interrupted before anything was saved, and behind step 10.
    ok(train.main, capsys, *run, "--init_from", base, "--out_dir", b, "--max_iters=0")
    assert not (b / "model.safetensors").exists()
    for steps in (10, 25):
        ok(train.main, capsys, "--out_dir", b, "--init_from=resume", f"--max_iters={steps}")
    assert_same(a, b)


def test_resuming_with_more_steps_goes_on(text, tmp_path, capsys):
    a, b = tmp_path / "a", tmp_path / "b"
    run = ["--dataset", text, *TINY, "--lr_decay_iters=20", "--dropout=0.1", "--max_iters=20"]
    ok(train.main, capsys, *run, "--out_dir", a)
    ok(train.main, capsys, *run, "--out_dir", b, "--max_iters=10")
    assert outcome(b)[0][-1]["event"] == "final"
    before = files(b)
    stdout = ok(train.main, capsys, "--out_dir", b, "--init_from=resume")
    assert "finished, at step 10" in stdout and files(b) == before
    ok(train.main, capsys, "--out_dir", b, "--init_from=resume", "--max_iters=20")
    assert_same(a, b)
    before = files(b)
    err = refused(train.main, capsys, "--out_dir", b, "--init_from=resume", "--max_iters=15")
    assert "step 20" in err and "15" in err and files(b) == before


@pytest.mark.parametrize("preset", ["", "shakespeare-char"])
def test_the_learning_rate_follows_the_longer_run(preset, text, tmp_path, capsys):
    """The cosine of a preset, as any that ended with the run, ends with the longer one."""
    out = tmp_path / "out"
    run = ["--dataset", text, *TINY, "--out_dir", out, "--max_iters=20", "--log_interval=1"]
    if preset:
        run += ["--preset", preset, "--lr_decay_iters=20"]
    ok(train.main, capsys, *run)
    more = ["--out_dir", out, "--init_from=resume", "--max_iters=40"]
    status, stdout, err = cli(train.main, capsys, *more, *(["--preset", preset] if preset else []))
    assert status == 0 and (f"{preset} is ignored: a resumed run keeps" in err) == bool(preset)
    assert ("decay ends at step 40" in stdout) == bool(preset)
    low = 1e-4 if preset else 1e-3
    rates = {line["step"]: line["lr"] for line in outcome(out)[0] if "lr" in line}
    for step in range(20, 40):  # finished steps before the update, behind 5 of warm-up
        cosine = (1 + math.cos(math.pi * (step - 5) / (40 - 5))) / 2
        assert rates[step + 1] == pytest.approx(low + cosine * (1e-2 - low), rel=1e-6)
    # What is asked for counts.
    ok(train.main, capsys, *more[:3], "--max_iters=42", "--lr_decay_iters=30")
    assert outcome(out)[0][-3]["lr"] == pytest.approx(low)


def test_a_preset_changes_nothing_of_a_resumed_run(text, tmp_path, capsys):
    out = tmp_path / "out"
    run = ["--dataset", text, *TINY, "--preset=shakespeare-char", "--out_dir", out]
    ok(train.main, capsys, *run, "--max_iters=5", "--weight_decay=0.3")
    more = ["--preset=shakespeare-char", "--out_dir", out, "--init_from=resume", "--max_iters=6"]
    status, _, err = cli(train.main, capsys, *more)
    assert status == 0 and err.count("\n") == 1
    saved = json.loads((out / "run.json").read_text())["settings"]
    assert saved["weight_decay"] == 0.3 and saved["n_layer"] == 1 and saved["max_iters"] == 6


def test_a_finished_run_can_be_evaluated(text, tmp_path, capsys):
    out = tmp_path / "out"
    run = ["--dataset", text, *TINY, "--out_dir", out, "--skip_final_eval"]
    ok(train.main, capsys, *run)
    before, last = files(out), outcome(out)[0][-2]
    for start in ("resume", "auto"):
        stdout = ok(train.main, capsys, *run, f"--init_from={start}", "--eval_only")
        assert f"validation loss {last['val_loss']:.4f}" in stdout and files(out) == before
    stdout = ok(train.main, capsys, "--out_dir", out, "--init_from=resume", "--eval_iters=3")
    assert "finished, at step 25; --max_iters goes on" in stdout and files(out) == before


def test_a_run_goes_on_from_another_folder(text, tmp_path, capsys, monkeypatch):
    """Its paths are relative to where it was started, whatever is there now."""
    home, away, out = tmp_path / "home", tmp_path / "away", tmp_path / "out"
    home.mkdir()
    away.mkdir()
    monkeypatch.chdir(home)
    run = [*TINY, "--out_dir", out, "--dataset=../corpus.txt"]
    ok(train.main, capsys, *run, "--max_iters=5")
    monkeypatch.chdir(away / "..")
    stdout = ok(train.main, capsys, "--out_dir", out, "--init_from=resume", "--max_iters=6")
    assert "at step 5" in stdout
    monkeypatch.chdir(away)
    (tmp_path / "away" / "corpus.txt").write_text("another text", encoding="utf-8")
    ok(train.main, capsys, "--out_dir", out, "--init_from=resume", "--max_iters=7")
    argv = [*TINY, "--out_dir", out, "--max_iters=7", "--init_from=auto"]
    assert "finished" in ok(train.main, capsys, *argv, "--dataset", text)
    assert "dataset" in refused(train.main, capsys, *argv, "--dataset=corpus.txt")


def test_what_a_run_starts_from_is_found_from_another_folder(tmp_path, capsys, monkeypatch):
    """nanoGPT's data/NAME, and a model that is needed as long as nothing is saved."""
    home, away, out = tmp_path / "home", tmp_path / "away", tmp_path / "out"
    (home / "data" / "mine").mkdir(parents=True)
    away.mkdir()
    for name in ("train.bin", "val.bin"):
        data.write_tokens(home / "data" / "mine" / name, np.arange(400) % 11, 11)
    GPT(GPTConfig(11, 16, 1, 1, 16)).save_pretrained(home / "model")
    monkeypatch.chdir(home)
    argv = ["--dataset=mine", "--init_from=model", "--out_dir", out, "--max_iters=0"]
    ok(train.main, capsys, *argv, "--eval_iters=1")
    monkeypatch.chdir(away)
    more = ["--out_dir", out, "--init_from=resume", "--max_iters=2", "--batch_size=2"]
    assert "no checkpoint yet" in ok(train.main, capsys, *more)
    ok(train.main, capsys, *more, "--max_iters=3")


def test_auto(text, tmp_path, capsys):
    out = tmp_path / "out"
    run = ["--dataset", text, *TINY, "--out_dir", out, "--init_from=auto"]
    stdout = ok(train.main, capsys, *run)
    assert "resuming" not in stdout and outcome(out)[0][-1]["step"] == 25
    before = files(out)
    stdout = ok(train.main, capsys, *run)
    loss = outcome(out)[0][-1]["val_loss_full"]
    assert "finished, at step 25" in stdout and f"validation loss {loss:.4f}" in stdout
    assert "sample.py --out_dir" in stdout and files(out) == before
    saved = json.loads((out / "run.json").read_text())
    for name in ("muon_momentum", "ngram_lr", "schedule"):  # as an earlier version wrote it
        del saved["settings"][name]
    (out / "run.json").write_text(json.dumps(saved))
    before = files(out)
    assert "finished, at step 25" in ok(train.main, capsys, *run) and files(out) == before
    assert "muon_lr differ" in refused(train.main, capsys, *run, "--muon_lr=0.5")
    for changed in ("--n_embd=32", "--max_iters=30", "--learning_rate=0.5", "--dropout=0.1"):
        err = refused(train.main, capsys, *run, changed)
        assert changed[2:].split("=")[0] in err and files(out) == before
    (out / "run.json").unlink()
    assert "holds another run" in refused(train.main, capsys, *run)


@pytest.mark.parametrize(
    "changed",
    "tokenizer=bpe:300 vocab_size=90 block_size=8 n_layer=2 n_head=1 n_embd=32 bias".split(),
)
def test_what_a_resumed_run_cannot_change(changed, text, tmp_path, capsys):
    out = tmp_path / "out"
    ok(train.main, capsys, "--dataset", text, *TINY, "--out_dir", out, "--max_iters=5")
    before = files(out)
    argv = ["--out_dir", out, "--init_from=resume", f"--{changed}", "--max_iters=10"]
    err = refused(train.main, capsys, *argv)
    assert "--" + changed.split("=")[0] in err and files(out) == before


def test_changed_data_is_refused(text, tmp_path, capsys):
    out = tmp_path / "out"
    ok(train.main, capsys, "--dataset", text, *TINY, "--out_dir", out, "--max_iters=5")
    before = files(out)
    argv = ["--out_dir", out, "--init_from=resume", "--max_iters=10"]
    first, last = corpus()[0], corpus()[-1]
    for other in (corpus() + last, corpus()[1:] + first):
        text.write_text(other, encoding="utf-8")
        assert "not what the run" in refused(train.main, capsys, *argv)
        assert files(out) == before
    text.unlink()
    assert str(text) in refused(train.main, capsys, *argv)
    assert files(out) == before


def damaged(content: bytes):
    """Contents that a file should not have."""
    yield from (content[:n] for n in (0, 4, 9, len(content) // 2, len(content) - 1))
    yield np.random.default_rng(0).bytes(1000)
    yield b"[" * 100_000
    yield from (b"{}", b"[]", b"null")


def test_a_run_saved_before_updates_were_counted_resumes(text, tmp_path, capsys):
    a, b = tmp_path / "a", tmp_path / "b"
    for out in (a, b):
        ok(train.main, capsys, "--dataset", text, *TINY, "--out_dir", out, "--max_iters=5")
    path = b / "optimizer-5.safetensors"
    state = load_file(path)
    old = {name: x for name, x in state.items() if not name.startswith("updates.")}
    assert len(state) * 2 == len(old) * 3 and {n.split(".")[0] for n in old} == {"m", "v"}
    save_file(old, path, {"step": "5"})
    for out in (a, b):
        ok(train.main, capsys, "--out_dir", out, "--init_from=resume", "--max_iters=10")
    assert_same(a, b)


def test_the_updates_of_each_parameter_are_saved(tmp_path):
    """By name: the divided optimizer has another order of parameters than the one that is whole."""

    def begin():
        model = GPT(GPTConfig(vocab_size=5, block_size=4, n_layer=1, n_head=1, n_embd=4), seed=0)
        return model, make_optimizer(model, Settings())

    model, optimizer = begin()
    names = dict(model.named_parameters())
    late = "h.0.attn.c_attn.weight"
    for i in range(5):
        for name, p in names.items():
            p.grad = None if name == late and i < 3 else tl.tensor(np.ones(p.shape), np.float32)
        optimizer.step()
    checkpoint.save_run(tmp_path, model, optimizer, 5)
    again, other = begin()
    for optimizer in (other, AdamW(reversed(again.parameters()))):
        checkpoint.load_optimizer(tmp_path, again, optimizer, 5)
        found = dict(zip((id(p) for p in optimizer.params), optimizer.updates))
        assert {name: found[id(p)] for name, p in again.named_parameters()} == {
            name: 2 if name == late else 5 for name in names
        }


@pytest.mark.parametrize(
    "name", ["model.safetensors", "config.json", "run.json", "optimizer-5.safetensors"]
)
def test_resuming_from_damaged_files_is_refused(name, text, tmp_path, capsys):
    out = tmp_path / "out"
    ok(train.main, capsys, "--dataset", text, *TINY, "--out_dir", out, "--max_iters=5")
    content = (out / name).read_bytes()
    argv = ["--out_dir", out, "--init_from=resume", "--max_iters=10"]
    for other in damaged(content):
        if name.endswith(".json") and other == content[:-1]:
            continue  # a line end
        (out / name).write_bytes(other)
        before = files(out)
        refused(train.main, capsys, *argv)
        assert files(out) == before
    if name != "model.safetensors":  # without a model nothing was saved yet
        (out / name).unlink()
        before = files(out)
        refused(train.main, capsys, *argv)
        assert files(out) == before


PARTS = "run.json config.json model.safetensors optimizer-10.safetensors metrics.jsonl "
PARTS += "tensorlite-tokenizer.json best/model.safetensors best/config.json best"
LOST = [c for n in (1, 2) for c in itertools.combinations(PARTS.split(), n)]


@pytest.fixture(scope="module")
def part(tmp_path_factory):
    """A run of 10 steps, and the same of 20."""
    folder = tmp_path_factory.mktemp("part")
    (folder / "corpus.txt").write_text(corpus(), encoding="utf-8")
    run = ["--dataset=corpus.txt", *TINY, "--lr_decay_iters=20", "--dropout=0.1", "--workers=1"]
    for steps in (10, 20):
        process = start(folder / str(steps), *run, f"--max_iters={steps}", "--eval_interval=5")
        assert process.wait() == 0
    return folder


@pytest.mark.parametrize("lost", LOST, ids=" ".join)
def test_a_folder_that_has_lost_files_is_refused_or_goes_on_rightly(
    lost, part, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(part)  # where the text is
    out = tmp_path / "out"
    shutil.copytree(part / "10", out)
    for name in lost:
        path = out / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    before = files(out)
    for argv in (["--init_from=resume", "--max_iters=20"], ["--dataset=corpus.txt", *TINY]):
        status, stdout, err = cli(train.main, capsys, "--out_dir", out, *argv)
        if status == 0:
            break
        assert status == 2 and err.count("\n") == 1 and "Traceback" not in err
        assert files(out) == before
    needed = {"run.json", "config.json", "model.safetensors", "optimizer-10.safetensors"}
    assert status == (2 if needed.intersection(lost) else status)
    if status == 0:
        assert "resuming" in stdout
        (lines, kept), (expected_lines, expected) = outcome(out), outcome(part / "20")
        assert lines[-1] == expected_lines[-1]
        assert kept == expected if "best/model.safetensors" not in lost else kept.keys()
        assert ("was lost" in stdout) == ("metrics.jsonl" in lost)


@pytest.mark.parametrize("save", [7, 10])
def test_a_lost_model_is_told_from_none(save, text, tmp_path, capsys, monkeypatch):
    """Also where the optimizer's state, or all that was saved, is lost with it."""
    out = tmp_path / "out"
    run = ["--dataset", text, *TINY, "--out_dir", out, "--max_iters=10", f"--save_interval={save}"]
    ok(train.main, capsys, *run)
    for names in ("model.safetensors",), ("config.json", "optimizer-10.safetensors", "best"):
        for path in (out / name for name in names):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        before = files(out)
        for how in ("resume", "auto"):
            err = refused(train.main, capsys, *run, f"--init_from={how}")
            assert "lost its model.safetensors" in err and "--overwrite" in err
        assert "holds another run" in refused(train.main, capsys, *run)
        assert files(out) == before
    ok(train.main, capsys, *run, "--overwrite")
    assert (out / "model.safetensors").exists()


@pytest.mark.parametrize("left", ["metrics.jsonl", "optimizer-10.safetensors", "best"])
def test_the_rest_of_a_run_is_not_written_over(left, text, tmp_path, capsys):
    out = tmp_path / "out"
    run = ["--dataset", text, *TINY, "--out_dir", out, "--max_iters=10"]
    ok(train.main, capsys, *run)
    for path in out.iterdir():
        if path.name != left:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    before = files(out)
    for how in ("scratch", "auto"):
        err = refused(train.main, capsys, *run, f"--init_from={how}")
        assert "holds another run: --overwrite" in err  # without a run.json nothing is resumed
    assert files(out) == before


def test_the_best_is_kept_when_its_metrics_are_lost(text, tmp_path, capsys):
    out = tmp_path / "out"
    run = ["--dataset", text, *TINY, "--out_dir", out, "--max_iters=20"]
    ok(train.main, capsys, *run)
    best = files(out / "best")
    lines = (out / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    worse = ["--out_dir", out, "--init_from=resume", "--learning_rate=3", "--eval_interval=2"]
    for steps, metrics in (
        (24, None),
        (28, b"".join(lines[:2])),  # cut off
        (32, b"".join(lines).replace(b"val_loss", b"val_l\xffss")),
        (36, b'5\nnull\n{}\n{"step": "x"}\n\0\0\n' + b"[" * 100_000),
    ):
        (out / "metrics.jsonl").unlink()
        if metrics is not None:
            (out / "metrics.jsonl").write_bytes(metrics)
        stdout = ok(train.main, capsys, *worse, f"--max_iters={steps}")
        estimates = [line["val_loss"] for line in outcome(out)[0] if "val_loss" in line]
        assert min(estimates[-2:]) > 2.5  # all of them worse
        assert files(out / "best") == best
        assert ("was lost" in stdout) == (steps in (24, 36))
    # And one that is better than what is there replaces it, whatever metrics.jsonl said.
    shutil.rmtree(out / "best")
    ok(train.main, capsys, *worse, "--max_iters=40")
    assert GPT.from_pretrained(out / "best")


def test_a_damaged_line_of_metrics_does_not_cost_the_others(text, tmp_path, capsys):
    out = tmp_path / "out"
    ok(train.main, capsys, "--dataset", text, *TINY, "--out_dir", out, "--max_iters=10")
    lines = (out / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    (out / "metrics.jsonl").write_bytes(b"".join([lines[0], b"\xff{" + lines[1], *lines[2:]]))
    ok(train.main, capsys, "--out_dir", out, "--init_from=resume", "--max_iters=15")
    kept = (out / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    assert kept[:3] == [lines[0], *lines[2:4]]  # all but the damaged one, and the final one


@pytest.mark.parametrize(
    "ruin",
    [
        "--learning_rate=1e30 --save_interval=1",
        "--learning_rate=1e38 --save_interval=1 --grad_clip=0 --gradient_accumulation_steps=3",
        "--learning_rate=1e30 --max_iters=11",  # saved because it is the last
        "--learning_rate=1e20 --weight_decay=1e20 --save_interval=1",
    ],
)
def test_a_ruined_model_replaces_no_checkpoint(ruin, text, tmp_path, capsys):
    out = tmp_path / "out"
    run = ["--dataset", text, *TINY, "--out_dir", out, "--warmup_iters=0"]
    ok(train.main, capsys, *run, "--max_iters=10")
    before = files(out)
    more = ["--out_dir", out, "--init_from=resume", "--max_iters=20"]
    err = refused(train.main, capsys, *more, *ruin.split())
    assert "at step 11; stopped, the checkpoint of step 10 is in" in err
    after = files(out)
    for name in ("model.safetensors", "optimizer-10.safetensors", "best/model.safetensors"):
        assert after[name] == before[name]
    assert "optimizer-11.safetensors" not in after


@pytest.mark.parametrize(
    "settings", [5, [], {"block_size": "x"}, {"dataset": 5}, {"n_layer": 0}, {"bias": "yes"}]
)
def test_a_run_json_of_other_types_is_refused(settings, text, tmp_path, capsys):
    out = tmp_path / "out"
    ok(train.main, capsys, "--dataset", text, *TINY, "--out_dir", out, "--max_iters=5")
    saved = json.loads((out / "run.json").read_text())
    whole = saved["settings"] | settings if isinstance(settings, dict) else settings
    (out / "run.json").write_text(json.dumps(saved | {"settings": whole}))
    refused(train.main, capsys, "--out_dir", out, "--init_from=resume", "--max_iters=10")
    refused(train.main, capsys, "--dataset", text, *TINY, "--out_dir", out, "--init_from=auto")


@pytest.mark.parametrize("limit", [2_000, 15_000, 25_000])
def test_a_full_disk_leaves_the_previous_checkpoint(limit, text, tmp_path, capsys):
    """No file can grow beyond `limit` bytes; the model has 20,000, the optimizer 36,000."""
    a, b = tmp_path / "a", tmp_path / "b"
    run = ["--dataset", text, *TINY, "--dropout=0.1", "--max_iters=10", "--eval_interval=5"]
    run += ["--lr_decay_iters=10"]
    ok(train.main, capsys, *run, "--out_dir", a)
    ok(train.main, capsys, *run, "--out_dir", b, "--max_iters=5")
    before = files(b)
    more = ["--out_dir", b, "--init_from=resume", "--max_iters=10"]
    full = subprocess.run(
        command("train.py", *more),
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert full.returncode == 2
    assert full.stderr.count("\n") == 1 and "too large" in full.stderr, full.stderr
    after = files(b)
    assert after.keys() == before.keys()
    for name in ("model.safetensors", "optimizer-5.safetensors"):
        assert after[name] == before[name]
    ok(train.main, capsys, *more)
    assert_same(a, b)
