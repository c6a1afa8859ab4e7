"""`train.py` as a user drives it: files, settings, presets, data, faults; resuming is apart.

Most command lines run in this process, which saves a second each; the helpers here serve the
other files too.
"""

import dataclasses
import itertools
import json
import math
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import tensorlite as tl
import tokenizer as tokenizers
import train
from gpt import GPT, GPTConfig, data, evaluate
from gpt.training import loop, metrics, presets
from gpt.training import run as runs
from gpt.training.dataset import read_data
from gpt.training.optimizer import learning_rate, make_optimizer
from gpt.training.prepare import first_model
from gpt.training.presets import PRESET_HELP, PRESETS, parse
from gpt.training.pretrain import Pretraining
from gpt.training.settings import Settings

ROOT = Path(train.__file__).parent
TINY = (
    "--n_layer=1 --n_head=2 --n_embd=16 --block_size=16 --batch_size=4 --max_iters=25 "
    "--eval_interval=10 --eval_iters=2 --log_interval=5 --warmup_iters=5 --learning_rate=1e-2"
).split()
LOG_KEYS = {"step", "train_loss", "lr", "grad_norm", "tokens_per_second"}
FINAL_KEYS = {
    "event",
    "step",
    "val_loss_full",
    "val_loss_full_error",
    "bits_per_byte",
    "seconds",
    "tokens_per_second",
}


def corpus(n: int = 600) -> str:
    """A text of n words, always the same, ASCII but for one letter."""
    words = "the a café dog cat tree sees hears finds under over and but then now".split()
    rng = random.Random(0)
    return "".join(rng.choice(words) + (".\n" if rng.random() < 0.1 else " ") for _ in range(n))


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "corpus.txt"
    path.write_text(corpus(), encoding="utf-8")
    return path


@pytest.fixture(autouse=True)
def short_end(monkeypatch):
    """The picture and the sample at the end take longer than these runs."""
    monkeypatch.setattr(runs, "plot_losses", lambda out: True)
    monkeypatch.setattr(train, "generate", lambda *args, **settings: "a sample")


def cli(main, capsys, *argv) -> tuple[int, str, str]:
    """The exit status, stdout and stderr of a command line."""
    capsys.readouterr()
    try:
        status = main([str(a) for a in argv])
    except SystemExit as error:  # argparse
        status = error.code
    return status, *capsys.readouterr()


def ok(main, capsys, *argv) -> str:
    status, out, err = cli(main, capsys, *argv)
    assert status == 0, err
    return out


def refused(main, capsys, *argv) -> str:
    """The one line on stderr with which a command line is refused."""
    status, _, err = cli(main, capsys, *argv)
    assert status == 2, err
    assert err.count("\n") == 1 and err.endswith("\n") and "Traceback" not in err, err
    assert re.match(r"(train|sample)\.py: error: \S", err), err
    return err


def command(script: str, *argv) -> list[str]:
    return [sys.executable, str(ROOT / script), *(str(a) for a in argv)]


def on_hangup(how=signal.SIG_DFL) -> None:
    """In a process to be: what SIGHUP does, whether or not the tests run under nohup."""
    signal.signal(signal.SIGHUP, how)


ENVIRONMENT = os.environ | {"OPENBLAS_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


def files(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


def weights(folder: Path) -> dict[str, np.ndarray]:
    return GPT.from_pretrained(folder).state_dict()


# ---- a run ---------------------------------------------------------------------------------------


def test_a_run_from_the_shell_and_a_sample_from_its_folder_alone(text, tmp_path):
    def shell(script, *argv):
        return subprocess.run(
            command(script, *argv), cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True
        )

    done = shell("train.py", "--dataset", text, *TINY)
    assert done.returncode == 0 and done.stderr == ""
    assert re.search(
        r"validation loss \d\.\d{4} on the whole split, \d\.\d{3} bits per", done.stdout
    )
    assert f"{ROOT / 'sample.py'} --out_dir out\n" in done.stdout
    out = tmp_path / "out"
    expected = {"model.safetensors", "config.json", "run.json", "metrics.jsonl", "README.md"}
    tokenizer = {tokenizers.base.FILE_NAME, "tokenizer.json", "tokenizer_config.json"}
    expected |= {"optimizer-25.safetensors"} | tokenizer
    best = {f"best/{n}" for n in {"model.safetensors", "config.json", "README.md"} | tokenizer}
    assert files(out).keys() - {"loss.png"} == expected | best

    text.unlink()
    out.rename(tmp_path / "moved")
    sampled = shell("sample.py", "--out_dir=moved", "--start", "the ", "--max_new_tokens=20")
    assert sampled.returncode == 0 and re.fullmatch(r"20 tokens, .* a second\n", sampled.stderr)
    assert sampled.stdout.startswith("the ") and len(sampled.stdout) == 4 + 20 + 1
    assert shell("sample.py", "--out_dir=moved/best").returncode == 0


def test_metrics_have_the_promised_lines(text, tmp_path, capsys):
    out = tmp_path / "out"
    ok(train.main, capsys, "--dataset", text, *TINY, "--out_dir", out)
    *lines, final = [json.loads(line) for line in open(out / "metrics.jsonl")]
    evaluations = [line for line in lines if "val_loss" in line]
    logs = [line for line in lines if "train_loss" in line]
    assert len(evaluations) + len(logs) == len(lines)
    assert all(line.keys() == {"step", "val_loss"} for line in evaluations)
    assert [line["step"] for line in evaluations] == [0, 10, 20, 25]
    assert all(line.keys() == LOG_KEYS for line in logs)
    assert [line["step"] for line in logs] == [5, 10, 15, 20, 25]
    assert final.keys() == FINAL_KEYS and final["event"] == "final" and final["step"] == 25
    assert final["seconds"] > 0 and final["tokens_per_second"] > 0
    assert logs[-1]["train_loss"] < evaluations[0]["val_loss"]
    # The learning rate of a line is that of the update it counts: the fifth is still warming up.
    assert logs[0]["lr"] == pytest.approx(1e-2 * 5 / 6)
    assert logs[-1]["lr"] == pytest.approx(1e-3, rel=0.1)


def test_the_best_checkpoint_is_that_of_the_lowest_validation_loss(text, tmp_path, capsys):
    out = tmp_path / "out"
    ok(train.main, capsys, "--dataset", text, *TINY, "--out_dir", out, "--learning_rate=0.5")
    lines = [json.loads(line) for line in open(out / "metrics.jsonl")]
    losses = {line["step"]: line["val_loss"] for line in lines if line.get("val_loss")}
    del losses[0]
    best = min(losses, key=losses.get)
    from gpt.checkpoint import load_step

    assert load_step(out / "best") == best and load_step(out) == 25
    tokens = char_validation(text)[1]
    again = evaluate.estimate_loss(GPT.from_pretrained(out / "best"), tokens, 4, 2, 1337)
    assert again == losses[best]


def char_validation(text: Path):
    """(tokenizer, validation ids) of a character run on that file."""
    whole = text.read_text(encoding="utf-8")
    tokenizer = tokenizers.CharTokenizer.train(whole)
    return tokenizer, np.array(tokenizer.encode(whole[int(0.9 * len(whole)) :]))


@pytest.mark.parametrize("kind", ["char", "bpe:300"])
def test_full_loss_and_bits_per_byte_equal_a_plain_computation(kind, text, tmp_path, capsys):
    out = tmp_path / "out"
    argv = ["--dataset", text, *TINY, "--tokenizer", kind, "--out_dir", out]
    stdout = ok(train.main, capsys, *argv)
    final = json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])

    whole = text.read_text(encoding="utf-8")
    tokenizer = tokenizers.load(out)
    ids = tokenizer.encode_ordinary(whole[int(0.9 * len(whole)) :])
    model = GPT.from_pretrained(out)
    nats, predicted = [], []
    for start in range(0, len(ids) - 16, 16):
        window, targets = ids[start : start + 16], ids[start + 1 : start + 17]
        with tl.no_grad():
            logits = model.eval()(np.array([window]))[0].numpy()[0].astype(np.float64)
        nats += [math.log(np.exp(row - row[t]).sum()) for row, t in zip(logits, targets)]
        predicted += targets
    assert len(predicted) == (len(ids) - 1) // 16 * 16
    n_bytes = len(tokenizer.decode_bytes(predicted))
    assert final["val_loss_full"] == pytest.approx(np.mean(nats), rel=1e-5)
    assert final["bits_per_byte"] == pytest.approx(sum(nats) / math.log(2) / n_bytes, rel=1e-5)
    assert f"validation loss {final['val_loss_full']:.4f}" in stdout
    if kind == "bpe:300":
        assert tokenizer.vocab_size == model.config.vocab_size == 300


def test_skip_final_eval_and_eval_only(text, tmp_path, capsys):
    out, other = tmp_path / "out", tmp_path / "other"
    run = ["--dataset", text, *TINY]
    stdout = ok(train.main, capsys, *run, "--out_dir", out, "--skip_final_eval")
    final = json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])
    assert final["val_loss_full"] is None and final["bits_per_byte"] is None
    assert final["step"] == 25 and "on the whole split" not in stdout
    last = json.loads((out / "metrics.jsonl").read_text().splitlines()[-2])
    before = files(out)
    stdout = ok(train.main, capsys, *run, "--out_dir", other, "--init_from", out, "--eval_only")
    assert f"validation loss {last['val_loss']:.4f}" in stdout
    assert not other.exists() and files(out) == before


def test_no_steps_at_all(text, tmp_path, capsys):
    out = tmp_path / "out"
    ok(train.main, capsys, "--dataset", text, *TINY, "--out_dir", out, "--max_iters=0")
    lines = [json.loads(line) for line in open(out / "metrics.jsonl")]
    assert [line["step"] for line in lines] == [0, 0] and lines[-1]["val_loss_full"] > 0


def test_loss_picture(text, tmp_path, capsys, monkeypatch):
    pytest.importorskip("matplotlib")
    out = tmp_path / "out"
    monkeypatch.setattr(runs, "plot_losses", metrics.plot_losses)
    ok(train.main, capsys, "--dataset", text, *TINY, "--out_dir", out)
    assert (out / "loss.png").read_bytes().startswith(b"\x89PNG")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    argv = ["--dataset", text, *TINY, "--out_dir", tmp_path / "bare"]
    assert "tensorlite[plot]" in ok(train.main, capsys, *argv)
    assert not (tmp_path / "bare" / "loss.png").exists()


# ---- nothing after training costs the result -----------------------------------------------------


def in_shell(*argv, cwd: Path, **more) -> subprocess.CompletedProcess:
    """train.py as a process of its own, whose result must be there whatever its surroundings."""
    environment = ENVIRONMENT | more.pop("env", {})
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE) | more
    done = subprocess.run(command("train.py", *argv), cwd=cwd, env=environment, **pipes)
    last = json.loads((cwd / "out" / "metrics.jsonl").read_text().splitlines()[-1])
    assert done.returncode == 0, done.stderr
    assert last["event"] == "final" and (cwd / "out" / "model.safetensors").exists()
    return done


@pytest.mark.parametrize("backend", ["module://absent.backend", "nosuch", "TkAgg"])
def test_the_picture_needs_no_backend(backend, text, tmp_path):
    pytest.importorskip("matplotlib")
    done = in_shell("--dataset", text, *TINY, cwd=tmp_path, env={"MPLBACKEND": backend})
    assert done.stderr == b"" and b"a sample of what it writes" in done.stdout
    assert (tmp_path / "out" / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_the_picture_leaves_the_callers_backend(text, tmp_path, capsys, monkeypatch):
    pytest.importorskip("matplotlib")
    from matplotlib import pyplot

    monkeypatch.setenv("MPLBACKEND", "svg")
    before = pyplot.get_backend()
    pyplot.switch_backend("svg")
    out = tmp_path / "out"
    ok(train.main, capsys, "--dataset", text, *TINY, "--out_dir", out)
    assert metrics.plot_losses(out) and (out / "loss.png").exists()
    assert pyplot.get_backend() == "svg" and os.environ["MPLBACKEND"] == "svg"
    assert pyplot.get_fignums() == []
    pyplot.switch_backend(before)


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-16", "utf-8"])
def test_what_stdout_cannot_say_is_escaped(encoding, tmp_path):
    letters = "ж漢é"  # of which cp1252 has one, ASCII none
    (tmp_path / "corpus.txt").write_text(corpus().replace("t", letters), encoding="utf-8")
    argv = ["--dataset=corpus.txt", *TINY]
    done = in_shell(*argv, cwd=tmp_path, env={"PYTHONIOENCODING": encoding})
    said = done.stdout.decode(encoding)
    assert done.stderr == b"" and "more of it: " in said
    for letter in letters:
        shown = letter.encode(encoding, "backslashreplace").decode(encoding)
        assert shown in said.partition("a sample of what it writes:")[2]
    sampled = subprocess.run(
        command("sample.py", "--start=é漢", "--max_new_tokens=1"),
        cwd=tmp_path,
        env=ENVIRONMENT | {"PYTHONIOENCODING": encoding},
        capture_output=True,
    )
    shown = "é漢".encode(encoding, "backslashreplace").decode(encoding)
    assert sampled.returncode == 0 and sampled.stdout.decode(encoding).startswith(shown)


@pytest.mark.parametrize("closed", ["stdout", "stderr", "both", "full", "both full"])
def test_nobody_need_listen(closed, text, tmp_path):
    def close():
        for number in (1, 2):
            if closed == "both" or closed == {1: "stdout", 2: "stderr"}[number]:
                os.close(number)

    with open("/dev/full", "w") as full:
        streams = {"full": {"stdout": full}, "both full": {"stdout": full, "stderr": full}}
        more = streams.get(closed, {})
        done = in_shell("--dataset", text, *TINY, cwd=tmp_path, preexec_fn=close, **more)
    assert not done.stderr
    assert closed != "stderr" or b"more of it" in done.stdout


@pytest.mark.parametrize(
    "error, words",
    [
        (OSError(28, "No space left on device"), "[Errno 28] No space left on device"),
        (RuntimeError("Failed to process string with tex"), "Failed to process string with tex"),
        (MemoryError(), "MemoryError"),
        (ImportError("numpy.core.multiarray\nfailed to import"), "multiarray failed to import"),
    ],
)
@pytest.mark.parametrize("part", ["plot_losses", "generate", "command"])
def test_what_fails_at_the_end_is_a_line(part, error, words, text, tmp_path, capsys, monkeypatch):
    def fail(*args, **settings):
        raise error

    monkeypatch.setattr(runs if part == "plot_losses" else train, part, fail)
    out = tmp_path / "out"
    stdout = ok(train.main, capsys, "--dataset", text, *TINY, "--out_dir", out)
    missing = {"plot_losses": "loss.png", "generate": "sample", "command": "more of it"}
    (line,) = [line for line in stdout.splitlines() if line.startswith("no ")]
    assert line.startswith(f"no {missing[part]}: ") and line.endswith(words)
    assert "on the whole split" in stdout
    assert ("a sample" in stdout) == (part != "generate")
    assert ("\nmore of it: " in stdout) == (part != "command")


def test_a_disk_without_room_for_the_picture(text, tmp_path, capsys, monkeypatch):
    pytest.importorskip("matplotlib")
    out, fsync = tmp_path / "out", os.fsync
    ok(train.main, capsys, "--dataset", text, *TINY, "--out_dir", out)
    before = files(out)

    def full(number):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        metrics.plot_losses(out)
    monkeypatch.setattr(os, "fsync", fsync)
    assert files(out) == before  # no half a picture either


def test_ids_that_the_tokenizer_lacks_cost_the_bits_per_byte_alone(tmp_path, capsys):
    tokenizers.CharTokenizer.train("abcdef ").save(tmp_path / "tok")  # 8 ids
    data.write_tokens(tmp_path / "all.bin", np.arange(2000) % 20, 20)
    argv = ["--dataset", tmp_path / "all.bin", "--tokenizer", tmp_path / "tok", *TINY]
    stdout = ok(train.main, capsys, *argv, "--vocab_size=20", "--out_dir", tmp_path / "out")
    assert "no bits per byte: " in stdout
    final = json.loads((tmp_path / "out" / "metrics.jsonl").read_text().splitlines()[-1])
    assert final["bits_per_byte"] is None and final["val_loss_full"] > 0


# ---- the whole validation split ------------------------------------------------------------------


@pytest.mark.parametrize("n", [17, 16 * 64 + 1, 5000])
@pytest.mark.parametrize("batch_size", [1, 5, 64, 100])
def test_the_full_loss_does_not_depend_on_the_batch(n, batch_size):
    model, tokens = GPT(GPTConfig(11, 16, 1, 2, 16)), np.random.default_rng(0).integers(0, 11, n)
    windows = [tokens[i : i + 17][None] for i in range(0, n - 16, 16)]
    with tl.no_grad():
        losses = [model.loss(w[:, :-1], w[:, 1:]).item() for w in windows]
    assert evaluate.full_loss(model, tokens, batch_size) == pytest.approx(np.mean(losses), 1e-6)


def test_a_long_evaluation_shows_its_progress_without_a_terminal(monkeypatch):
    clock = itertools.count(0, 3)  # seconds: three pass with each look
    monkeypatch.setattr(evaluate.loss.time, "monotonic", lambda: next(clock))
    model, tokens, said = GPT(GPTConfig(11, 16, 1, 2, 16)), np.arange(16 * 64 * 10 + 1) % 11, []
    evaluate.full_loss(model, tokens, 4, say=said.append)
    assert len(said) > 2
    assert re.fullmatch(r"validation: 20% of 640 windows, 0 min \d+ s left", said[0]), said
    assert [int(line.split()[1].rstrip("%")) for line in said] == sorted(
        {int(line.split()[1].rstrip("%")) for line in said}
    )


def test_about_how_much_there_is_to_validate(tmp_path):
    folder, tokens = tmp_path / "texts", tmp_path / "tokens"
    (folder / "more").mkdir(parents=True)
    (folder / "a.txt").write_bytes(b"x" * 3000)
    (folder / "more" / "b.txt").write_bytes(b"x" * 1000)
    tokens.mkdir()
    (tokens / "train.bin").write_bytes(b"x" * 9000)
    (tokens / "val.bin").write_bytes(b"x" * 800)
    for path, n in (
        (folder / "a.txt", 300),
        (folder, 400),
        (tokens, 400),
        (tokens / "train.bin", 450),
        ("python-docs", 0),
        (tmp_path / "nowhere", 0),
    ):
        assert data.validation_size(str(path)) == n


# ---- what is learned -----------------------------------------------------------------------------


def test_training_never_draws_from_the_validation_split(text, tmp_path, capsys):
    whole = text.read_text(encoding="utf-8")
    n = int(0.9 * len(whole))
    other = tmp_path / "other.txt"
    # The same characters in another order, so that the ids stay what they are.
    other.write_text(whole[:n] + "".join(sorted(whole[n:])), encoding="utf-8")
    a, b = tmp_path / "a", tmp_path / "b"
    ok(train.main, capsys, "--dataset", text, *TINY, "--out_dir", a, "--dropout=0.1")
    ok(train.main, capsys, "--dataset", other, *TINY, "--out_dir", b, "--dropout=0.1")
    assert files(a)["model.safetensors"] == files(b)["model.safetensors"]
    assert files(a)["metrics.jsonl"] != files(b)["metrics.jsonl"]


def test_accumulated_batches_equal_one_large_batch(text, tmp_path, capsys):
    argv = ["--dataset", text, *TINY, "--dropout=0.2", "--max_iters=8", "--learning_rate=1e-3"]
    a, b = tmp_path / "a", tmp_path / "b"
    ok(train.main, capsys, *argv, "--batch_size=8", "--out_dir", a)
    split = ["--batch_size=2", "--gradient_accumulation_steps=4"]
    ok(train.main, capsys, *argv, *split, "--out_dir", b)
    large, small = weights(a), weights(b)
    for name in large:
        np.testing.assert_allclose(small[name], large[name], rtol=0, atol=1e-6, err_msg=name)


def test_the_seed_decides(text, tmp_path, capsys):
    results = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        argv = ["--dataset", text, *TINY, "--out_dir", tmp_path / name, f"--seed={seed}"]
        ok(train.main, capsys, *argv, "--dropout=0.1")
        results.append(files(tmp_path / name)["model.safetensors"])
    assert results[0] == results[1] != results[2]


def test_weight_decay_is_on_matrices_and_embeddings_alone():
    model = GPT(GPTConfig(10, 8, 2, 2, 16, bias=True))
    optimizer = make_optimizer(model, Settings(weight_decay=0.3))
    decay = {id(p): g["weight_decay"] for g in optimizer.groups for p in g["params"]}
    assert len(decay) == len(model.parameters())
    for name, p in model.named_parameters():
        plain = name.endswith(".bias") or "ln_" in name
        assert decay[id(p)] == (0.0 if plain else 0.3), name


def test_learning_rate_follows_the_settings():
    s = Settings(learning_rate=1.0, min_lr=0.25, warmup_iters=4, lr_decay_iters=10, max_iters=20)
    rates = [learning_rate(s, step) for step in range(20)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert rates[7] == pytest.approx(0.625) and set(rates[10:]) == {0.25}
    flat = replace(s, decay_lr=False)
    assert {learning_rate(flat, step) for step in range(20)} == {1.0}
    assert learning_rate(replace(s, min_lr=None), 19) == pytest.approx(0.1)


# ---- settings ------------------------------------------------------------------------------------


def resolve(*argv) -> Settings:
    return Settings(**parse(list(argv))[0])


def test_flags_in_every_spelling():
    plain = resolve("--n_layer", "3", "--bias", "True", "--max_iters", "60000", "--out_dir", "a_b")
    assert (plain.n_layer, plain.bias, plain.max_iters, plain.out_dir) == (3, True, 60000, "a_b")
    assert resolve("--n-layer=3", "--bias", "--max-iters=6e4", "--out-dir=a_b") == plain
    assert resolve("--out_dir=a-b=c-d").out_dir == "a-b=c-d"
    for text in ("False", "false", "0"):
        assert resolve(f"--decay_lr={text}").decay_lr is False
    assert resolve("--preset", "gpt2", "--batch_size=3").batch_size == 3
    assert resolve("--dataset=a.txt") == Settings(dataset="a.txt")
    assert resolve("--learning_rate=6e-4").learning_rate == 6e-4


def test_nanogpt_readme_command_is_the_preset():
    argv = (
        "config/train_shakespeare_char.py --device=cpu --compile=False --eval_iters=20 "
        "--log_interval=1 --block_size=64 --batch_size=12 --n_layer=4 --n_head=4 --n_embd=128 "
        "--max_iters=2000 --lr_decay_iters=2000 --dropout=0.0"
    ).split()
    given, notes = parse(argv)
    assert not notes
    assert replace(Settings(**given), out_dir="out", compile=True) == resolve(
        "--preset", "shakespeare-char"
    )
    baby = replace(resolve("config/train_shakespeare_char.py"), out_dir="out")
    assert baby == resolve("--preset=baby-gpt") == resolve("baby-gpt")


def test_the_demo_is_what_trains_without_a_dataset(tmp_path):
    demo = Settings(**PRESETS["demo"])
    assert resolve() == resolve("--preset=demo") == resolve("--init_from=scratch") == demo
    assert resolve("--init_from=auto") == replace(demo, init_from="auto")
    assert resolve("--seed=3", "--n_layer=2") == replace(demo, seed=3, n_layer=2)
    assert resolve("--preset=demo", "--dataset=a.txt") == replace(demo, dataset="a.txt")
    assert resolve("--model=gpt2") == replace(demo, model="gpt2", parts=None)
    assert resolve("--depth=2") == resolve("--depth=2", "--dataset=python-docs") != demo
    for argv in (["--dataset=python-docs"], ["--init_from=resume"], ["--init_from", tmp_path]):
        given, notes = parse([str(a) for a in argv])
        assert len(given) == 1 and not notes


def test_ignored_flags_are_noted(text, tmp_path, capsys):
    ignored = "--wandb_log=True --always_save_checkpoint=True --backend=nccl".split()
    argv = ["--dataset", text, *TINY, "--out_dir", tmp_path / "out", "--max_iters=1", *ignored]
    status, _, err = cli(train.main, capsys, *argv, "--dtype=bfloat16")
    assert status == 0
    assert len(err.splitlines()) == 4
    for name in ("wandb_log", "always_save_checkpoint", "backend", "dtype bfloat16"):
        assert f"--{name} is ignored: " in err


def count(config: GPTConfig) -> int:
    """nanoGPT's count of parameters, for a model too large to make: it is linear in both sizes."""
    small = replace(config, vocab_size=1, n_layer=1, block_size=1)
    one = GPT(small).num_params(non_embedding=True)
    two = GPT(replace(small, n_layer=2)).num_params(non_embedding=True)
    return one + (config.n_layer - 1) * (two - one) + (config.vocab_size - 1) * config.n_embd


def test_each_file_or_line_ends_with_the_end_of_text(tmp_path, capsys):
    """--separator: what a model learns to end with, and sampling stops at."""
    folder = tmp_path / "texts"
    folder.mkdir()
    words = corpus().split()
    poem = "\r\n".join(" ".join(words[i : i + 4]) for i in range(0, 200, 4))
    prose = "\n\n".join(" ".join(words[i : i + 7]) for i in range(200, 597, 7)) + "\n"
    literal = "<|endoftext|> in a text is text\n"
    for name, content in {"a": poem, "b": prose, "c": "", "d": literal}.items():
        (folder / name).write_bytes(content.encode())
    out = tmp_path / "out"
    argv = ["--dataset", folder, *TINY, "--tokenizer=bpe:300", "--out_dir", out]
    texts = {
        "file": [poem, prose, literal],
        "line": [
            line
            for text in (poem.replace("\r\n", "\n"), prose, literal)
            for line in text.split("\n")
            if line
        ],
    }
    for separator, expected in texts.items():
        given = Settings(dataset=str(folder), tokenizer="bpe:300", separator=separator)
        tokenizer, found = read_data(given, None, [given.dataset])
        train_ids, val_ids, _ = found[given.dataset]
        assert tokenizer.vocab_size == 300 and tokenizer.eos_token_id == 299
        ids = np.concatenate([train_ids, val_ids])
        assert len(train_ids) == int(0.9 * len(ids))
        plain = [tokenizer.encode_ordinary(text) for text in expected]
        assert ids.tolist() == [i for text in plain for i in [*text, 299]]
        assert max(map(max, plain)) < 299
    ok(train.main, capsys, *argv, "--separator=line")
    final = json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])
    predicted = val_ids[1 : (len(val_ids) - 1) // 16 * 16 + 1]
    n_bytes = len(tokenizer.decode_bytes(predicted[predicted != 299]))
    expected = final["val_loss_full"] / math.log(2) * len(predicted) / n_bytes
    assert final["bits_per_byte"] == pytest.approx(expected, rel=1e-6)
    ok(train.main, capsys, "--init_from=resume", "--out_dir", out, "--max_iters=30")
    err = refused(train.main, capsys, "--init_from=resume", "--out_dir", out, "--separator=file")
    assert "--separator line, which cannot be file now" in err
    ok(train.main, capsys, *argv[:-2], "--out_dir", tmp_path / "whole", "--separator=file")

    data.write_tokens(tmp_path / "ids.bin", [1, 2, 3] * 99, 4)
    for more, words in (
        (["--separator=word"], "--separator is file or line, not 'word'"),
        (["--separator=line", "--tokenizer=char"], "--tokenizer bpe:N makes one"),
        (["--separator=line", "--dataset", tmp_path / "ids.bin"], "is for text, and .*ids.bin"),
    ):
        argv = ["--dataset", folder, *TINY, "--out_dir", tmp_path / "no", *more]
        assert re.search(words, refused(train.main, capsys, *argv))
    assert not (tmp_path / "no").exists()


def test_help_shows_the_presets_with_their_sizes(capsys):
    shown = ok(train.main, capsys, "--help")
    stated = dict(re.findall(r"^  (\S+) +([\d.]+) M\b", shown, re.MULTILINE))
    sizes = {"demo": 4096, "shakespeare-char": 66, "speedrun": 66, "modern": 66, "baby-gpt": 66}
    sizes |= {"gpt2": 50304}
    assert stated.keys() == sizes.keys() < PRESETS.keys()
    for name, number in stated.items():
        s, digits = Settings(**PRESETS[name]), len(number.partition(".")[2])
        if s.model == "modern":
            n = first_model(s, {}, sizes[name], 0)[0].num_params(non_embedding=True)
        else:
            shape = s.block_size, s.n_layer, s.n_head, s.n_embd
            n = count(GPTConfig(sizes[name], *shape, bias=s.bias))
        assert f"{n / 1e6:.{digits}f}" == number, name
    for field in (field.name for field in dataclasses.fields(Settings)):
        assert f"--{field} " in shown or f"--{field}\n" in shown, field
    assert PRESET_HELP.count("\n") < 10


def test_the_count_that_is_printed_is_that_of_the_help(text, tmp_path, capsys):
    argv = ["--dataset", text, "--max_iters=0", "--eval_iters=1", "--skip_final_eval"]
    stdout = ok(train.main, capsys, *argv, "--out_dir", tmp_path / "out")
    s = Settings()
    ids = tokenizers.CharTokenizer.train(corpus()).vocab_size
    config = GPTConfig(ids, s.block_size, s.n_layer, s.n_head, s.n_embd, bias=s.bias)
    assert stdout.startswith(f"{count(config) / 1e6:.2f} M parameters; ")


@pytest.mark.parametrize(
    "argv, words",
    [
        ("--n_layer=two", "--n_layer whole number 'two'"),
        ("--n_layer=1.5", "--n_layer whole number"),
        ("--bias=maybe", "--bias True or False"),
        ("--no_such_flag=1", "--no_such_flag"),
        ("--preset=huge", "huge baby-gpt"),
        ("config/train_huge.py", "train_huge baby-gpt"),
        ("gpt2 --preset=demo", "gpt2 demo"),
        ("--batch_size=0", "--batch_size at least 1"),
        ("--dropout=1", "--dropout below 1"),
        ("--dropout=nan", "--dropout nan"),
        ("--weight_decay=nan", "--weight_decay nan"),
        ("--grad_clip=nan", "--grad_clip nan"),
        ("--learning_rate=0", "--learning_rate above 0"),
        ("--learning_rate=nan", "--learning_rate nan"),
        ("--max_iters=-1", "--max_iters at least 0"),
        ("--max_iters=inf", "--max_iters whole number"),
        ("--seed=-1", "--seed at least 0"),
        ("--device=tpu", "--device cpu or cuda tpu"),
        ("--workers=4000", "--workers 4000"),
        ("--n_embd=18 --n_head=4", "n_embd n_head divisible 18 4"),
        ("--tokenizer=bpe:many", "bpe:N many"),
        ("--tokenizer=nowhere", "--tokenizer nowhere"),
        ("--vocab_size=5", "--vocab_size 5"),
        ("--init_from=nowhere", "--init_from nowhere"),
        ("--init_from=resume", "no run to resume"),
        ("--encoding=klingon", "--encoding klingon"),
        ("--dataset=nowhere", "nowhere python-docs"),
        ("--block_size=5000", "--block_size 5001 split"),
    ],
)
def test_settings_that_cannot_work_are_refused(argv, words, text, tmp_path, capsys):
    out = tmp_path / "out"
    err = refused(train.main, capsys, "--dataset", text, *TINY, "--out_dir", out, *argv.split())
    for word in words.split():
        assert word in err
    assert not out.exists()


def test_cuda_without_a_gpu_is_refused(text, tmp_path, capsys):
    if tl.cuda.is_available():
        pytest.skip("there is a GPU")
    argv = ["--dataset", text, *TINY, "--out_dir", tmp_path / "out", "--device=cuda"]
    assert "cuda" in refused(train.main, capsys, *argv)
    assert not (tmp_path / "out").exists()


# ---- data ----------------------------------------------------------------------------------------


def test_bad_text_is_refused(tmp_path, capsys):
    bad, out = tmp_path / "bad.txt", tmp_path / "out"
    for content, words in (
        (b"", ("no text",)),
        (b"hello", ("tokens", "--block_size")),
        (b"fine\n" * 99 + b"caf\xe9\n", ("utf-8", "byte 498", "line 100", "--encoding")),
    ):
        bad.write_bytes(content)
        err = refused(train.main, capsys, "--dataset", bad, *TINY, "--out_dir", out)
        assert all(word in err for word in words), err
    assert not out.exists()
    ok(train.main, capsys, "--dataset", bad, *TINY, "--out_dir", out, "--encoding=latin-1")
    assert "é" in tokenizers.load(out).characters


def test_a_folder_of_texts(tmp_path, capsys):
    folder, out = tmp_path / "texts", tmp_path / "out"
    folder.mkdir()
    (folder / "b.txt").write_text(corpus())
    (folder / "a.txt").write_text("A" + corpus())
    ok(train.main, capsys, "--dataset", folder, *TINY, "--out_dir", out)
    assert "A" in tokenizers.load(out).characters


def test_token_files(tmp_path, capsys):
    folder, single, out = tmp_path / "tokens", tmp_path / "all.bin", tmp_path / "out"
    folder.mkdir()
    ids = np.random.default_rng(0).integers(0, 50, 3000)
    ids[7] = 49
    data.write_tokens(folder / "train.bin", ids[:2500], 50)
    assert (folder / "train.bin").stat().st_size == 5000
    err = refused(train.main, capsys, "--dataset", folder, *TINY, "--out_dir", out)
    assert "val.bin" in err
    data.write_tokens(folder / "val.bin", ids[2500:], 50)
    data.write_tokens(single, ids, 50)
    for dataset in (folder, single):
        argv = ["--dataset", dataset, *TINY, "--out_dir", out]
        err = refused(train.main, capsys, *argv, "--vocab_size=49")
        assert "49" in err and "--vocab_size" in err and "position 7" in err
    assert not out.exists()

    argv = ["--dataset", folder, *TINY, "--out_dir", out, "--vocab_size=50"]
    ok(train.main, capsys, *argv)
    assert GPT.from_pretrained(out).config.vocab_size == 50
    final = json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])
    assert final["bits_per_byte"] is None and final["val_loss_full"] > 0
    assert not (out / tokenizers.base.FILE_NAME).exists()


def test_token_files_with_a_tokenizer(text, tmp_path, capsys):
    tokenizer, _ = char_validation(text)
    tokenizer.save(tmp_path / "tok")
    ids = tokenizer.encode(corpus())
    data.write_tokens(tmp_path / "all.bin", ids, tokenizer.vocab_size)
    a, b = tmp_path / "a", tmp_path / "b"
    argv = ["--dataset", tmp_path / "all.bin", "--tokenizer", tmp_path / "tok"]
    ok(train.main, capsys, *argv, *TINY, "--out_dir", a)
    assert tokenizers.load(a).characters == tokenizer.characters
    ok(train.main, capsys, "--dataset", text, *TINY, "--out_dir", b)
    # The same tokens as a text and as a file are the same run, but for where the split falls.
    n = int(0.9 * len(ids))
    assert data.split(corpus())[0] == tokenizer.decode(ids[:n])
    assert files(a)["model.safetensors"] == files(b)["model.safetensors"]


def test_vocab_size_is_50304_where_nothing_says_otherwise(tmp_path, capsys):
    data.write_tokens(tmp_path / "all.bin", np.arange(2000) % 300, 300)
    argv = ["--dataset", tmp_path / "all.bin", *TINY, "--max_iters=1", "--eval_iters=1"]
    ok(train.main, capsys, *argv, "--n_embd=2", "--out_dir", tmp_path / "out", "--skip_final_eval")
    assert GPT.from_pretrained(tmp_path / "out").config.vocab_size == 50304


# ---- fine-tuning and the folder of a run ---------------------------------------------------------


@pytest.mark.parametrize("block_size", [16, 8])
def test_fine_tuning_starts_from_the_model(block_size, text, tmp_path, capsys):
    base, out = tmp_path / "base", tmp_path / "out"
    ok(train.main, capsys, "--dataset", text, *TINY, "--out_dir", base)
    argv = ["--dataset", text, "--init_from", base, "--out_dir", out, "--batch_size=4"]
    argv += ["--max_iters=10", "--eval_iters=2", f"--block_size={block_size}", "--dropout=0.1"]
    ok(train.main, capsys, *argv)
    lines = [json.loads(line) for line in open(out / "metrics.jsonl")]
    last = json.loads((base / "metrics.jsonl").read_text().splitlines()[-2])
    if block_size == 16:
        assert lines[0] == {"step": 0, "val_loss": last["val_loss"]}
    config = GPT.from_pretrained(out).config
    assert config == replace(GPT.from_pretrained(base).config, block_size=block_size, dropout=0.1)
    assert tokenizers.load(out).characters == tokenizers.load(base).characters
    assert weights(out)["wpe.weight"].shape == (block_size, 16)

    refusal = refused(train.main, capsys, *argv, "--block_size=17", "--overwrite")
    assert "--block_size 17" in refusal and "16" in refusal


def test_the_models_context_counts_when_fine_tuning(text, tmp_path, capsys):
    base, short, out = tmp_path / "base", tmp_path / "short.txt", tmp_path / "out"
    ok(train.main, capsys, "--dataset", text, *TINY, "--out_dir", base, "--block_size=80")
    short.write_text(corpus()[:700])  # a validation split of 70 characters
    argv = ["--dataset", short, "--init_from", base, "--out_dir", out, "--batch_size=4"]
    assert "block_size 80" in refused(train.main, capsys, *argv)
    assert not out.exists()


def test_a_folder_with_another_run_is_left_alone(text, tmp_path, capsys):
    out = tmp_path / "out"
    argv = ["--dataset", text, *TINY, "--out_dir", out]
    ok(train.main, capsys, *argv)
    before = files(out)
    err = refused(train.main, capsys, *argv)
    assert "resume" in err and "--overwrite" in err and files(out) == before
    (out / "notes.txt").write_text("mine")
    ok(train.main, capsys, *argv, "--overwrite", "--max_iters=5")
    assert (out / "optimizer-5.safetensors").exists()
    assert not (out / "optimizer-25.safetensors").exists()
    assert (out / "notes.txt").read_text() == "mine"

    # Token files bring no tokenizer: that of the old run must not stay for sample.py to find.
    data.write_tokens(tmp_path / "all.bin", np.arange(2000) % 50, 50)
    argv = ["--dataset", tmp_path / "all.bin", *TINY, "--vocab_size=50", "--out_dir", out]
    ok(train.main, capsys, *argv, "--overwrite")
    assert not (out / tokenizers.base.FILE_NAME).exists()
    assert not (out / "tokenizer.json").exists()

    assert "is a file" in refused(train.main, capsys, *argv[:-1], text)


def test_overwriting_deletes_links_and_not_what_they_lead_to(text, tmp_path, capsys):
    out, real, elsewhere = tmp_path / "out", tmp_path / "real", tmp_path / "elsewhere"
    argv = ["--dataset", text, *TINY, "--out_dir", out]
    real.mkdir()
    out.symlink_to(real)
    ok(train.main, capsys, *argv, "--max_iters=10")
    elsewhere.mkdir()
    for name in ("best", "model.safetensors", "metrics.jsonl"):
        (out / name).rename(elsewhere / name)
        (out / name).symlink_to(elsewhere / name)
    before = files(elsewhere)
    ok(train.main, capsys, *argv, "--overwrite")
    assert files(elsewhere) == before and len(before) == 8
    assert not any(path.is_symlink() for path in out.iterdir()) and out.is_symlink()
    assert GPT.from_pretrained(out / "best") and (out / "optimizer-25.safetensors").exists()
    # Links that lead nowhere, to a disk that is not mounted for example, are not written over.
    for path in real.iterdir():
        if path.name != "model.safetensors":
            path.unlink() if path.is_file() else shutil.rmtree(path)
    (out / "model.safetensors").unlink()
    (out / "best").symlink_to(tmp_path / "nowhere")
    assert "holds another run" in refused(train.main, capsys, *argv)
    ok(train.main, capsys, *argv, "--overwrite")


@pytest.mark.parametrize("fault", ["rmtree", "access"])
def test_overwriting_deletes_all_or_nothing(fault, text, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    argv = ["--dataset", text, *TINY, "--out_dir", out]
    ok(train.main, capsys, *argv, "--max_iters=10")
    before = files(out)

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    if fault == "rmtree":
        monkeypatch.setattr(shutil, "rmtree", refuse)
    else:
        monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert str(out) in refused(train.main, capsys, *argv, "--overwrite")
    monkeypatch.undo()
    assert files(out) == before


@pytest.mark.parametrize("kind", ["char", "bpe:300", "with an end", "only Python's"])
def test_transformers_has_the_tokenizer_of_a_run(kind, text, tmp_path, capsys):
    transformers = pytest.importorskip("transformers")
    out, whole = tmp_path / "out", text.read_text(encoding="utf-8")
    if kind not in ("char", "bpe:300"):
        end = {"special_tokens": ["<|endoftext|>"]} if kind == "with an end" else {}
        pattern = "gpt2" if end else r"\w+(?V1)|\W+"
        bpe = tokenizers.BPETokenizer.train(whole, 280, pattern, **end)
        bpe.save(tmp_path / "tok")
        kind = tmp_path / "tok"
    argv = ["--dataset", text, *TINY, "--max_iters=1", "--tokenizer", kind, "--out_dir", out]
    ok(train.main, capsys, *argv)
    for folder in (out, out / "best"):
        ours = tokenizers.load(folder)
        if "V1" in str(getattr(ours, "pattern", "")):  # what cannot be written is not made up
            with pytest.raises(ValueError):
                transformers.AutoTokenizer.from_pretrained(folder)
            continue
        theirs = transformers.AutoTokenizer.from_pretrained(folder)
        sentence = whole[:200] + "\n\n , .\r\n\té" + ("" if kind == "char" else "😀 <unknown>")
        ids = ours.encode_ordinary(sentence)
        assert theirs(sentence)["input_ids"] == ids and theirs.decode(ids) == ours.decode(ids)
        assert len(theirs) == ours.vocab_size and theirs.eos_token_id == ours.eos_token_id
        config = json.loads((folder / "config.json").read_text())
        assert config["eos_token_id"] == config["bos_token_id"] == ours.eos_token_id


def test_transformers_makes_up_no_tokenizer_for_a_run_of_token_files(tmp_path, capsys):
    transformers = pytest.importorskip("transformers")
    out = tmp_path / "out"
    data.write_tokens(tmp_path / "all.bin", np.arange(2000) % 50, 50)
    argv = ["--dataset", tmp_path / "all.bin", *TINY, "--max_iters=1", "--vocab_size=50"]
    ok(train.main, capsys, *argv, "--out_dir", out)
    for folder in (out, out / "best"):
        with pytest.raises(ValueError, match="tokenizer"):
            transformers.AutoTokenizer.from_pretrained(folder)


def test_a_run_keeps_the_ids_of_the_model_that_it_starts_from(text, tmp_path, capsys):
    base, out = tmp_path / "base", tmp_path / "out"
    ok(train.main, capsys, "--dataset", text, *TINY, "--max_iters=1", "--out_dir", base)
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"eos_token_id": 3, "pad_token_id": 0}))
    ok(train.main, capsys, "--dataset", text, *TINY, "--init_from", base, "--out_dir", out)
    ok(train.main, capsys, "--init_from=resume", "--out_dir", out, "--max_iters=27")
    for folder in (out, out / "best"):
        config = json.loads((folder / "config.json").read_text())
        assert [config[f"{name}_token_id"] for name in ("bos", "eos", "pad")] == [None, 3, 0]


# ---- a loss that is no number --------------------------------------------------------------------


def test_a_diverging_run_stops_and_says_where(text, tmp_path, capsys):
    out = tmp_path / "out"
    argv = ["--dataset", text, *TINY, "--out_dir", out]
    err = refused(train.main, capsys, *argv, "--learning_rate=1e30", "--warmup_iters=0")
    assert "at step 1;" in err and "nan" in err and "nothing was saved" in err
    assert not (out / "model.safetensors").exists()


def test_a_diverging_run_keeps_its_last_good_checkpoint(text, tmp_path, capsys):
    out = tmp_path / "out"
    ok(train.main, capsys, "--dataset", text, *TINY, "--out_dir", out, "--max_iters=10")
    before = files(out)
    more = ["--out_dir", out, "--init_from=resume", "--max_iters=40"]
    err = refused(train.main, capsys, *more, "--learning_rate=1e30")
    assert "at step 11;" in err and "step 10 is in" in err
    after = files(out)
    for name in ("model.safetensors", "optimizer-10.safetensors", "best/model.safetensors"):
        assert after[name] == before[name]
    ok(train.main, capsys, *more, "--learning_rate=1e-2")
    last = json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["step"] == 40 and math.isfinite(last["val_loss_full"])


def test_a_step_that_diverges_changes_nothing():
    model = GPT(GPTConfig(10, 8, 1, 2, 16))
    s = Settings(block_size=8, batch_size=2)
    optimizer, tokens = make_optimizer(model, s), np.arange(100) % 10
    task = Pretraining(s, tokens, tokens)
    model.ln_f.weight.data[3] = np.nan
    before = {name: array.copy() for name, array in model.state_dict().items()}
    with pytest.raises(FloatingPointError, match="nan"):
        loop.train_step(model, optimizer, task, s, 0)
    assert optimizer.steps == 0 and all(p.grad is None for p in optimizer.params)
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def test_all_settings_are_typed():
    fields = dataclasses.fields(Settings)
    assert {f.type.removesuffix(" | None") for f in fields} == {"int", "float", "bool", "str"}
    assert all(f.metadata["help"] for f in fields)
    assert presets.IGNORED.keys().isdisjoint(Settings.__dataclass_fields__)


def test_a_model_with_a_damaged_config_on_token_files(tmp_path, capsys):
    """Its vocabulary is asked for before anything else of it."""
    tokens, folder, out = tmp_path / "a.bin", tmp_path / "model", tmp_path / "out"
    data.write_tokens(tokens, np.arange(400) % 11, 11)
    GPT(GPTConfig(11, 16, 1, 1, 16)).save_pretrained(folder)
    arguments = ["--dataset", tokens, "--init_from", folder, "--out_dir", out, "--max_iters", 2]
    ok(train.main, capsys, *arguments, "--skip_final_eval")
    (folder / "config.json").write_text('{"model_type": "gpt2"}')
    assert "vocab_size" in refused(train.main, capsys, *arguments, "--overwrite")


# ---- after training ------------------------------------------------------------------------------


@pytest.mark.parametrize("broken", ["module://absent_backend", "no_such_backend"])
def test_a_backend_or_an_encoding_that_is_absent_costs_nothing(broken, text, tmp_path):
    pytest.importorskip("matplotlib")
    text.write_text(corpus() + "Ω" * 9 + corpus()[:500], encoding="utf-8")
    out = tmp_path / "out"
    done = subprocess.run(
        command("train.py", "--dataset", text, *TINY, "--max_iters=2", "--out_dir", out),
        env=ENVIRONMENT | {"MPLBACKEND": broken, "PYTHONIOENCODING": "cp1252"},
        capture_output=True,
    )
    assert done.returncode == 0 and done.stderr == b""
    assert (out / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert b"a sample of what it writes:" in done.stdout and b"more of it: " in done.stdout


@pytest.mark.parametrize("name, what", [("plot_losses", "loss.png"), ("generate", "sample")])
def test_a_fault_after_training_costs_itself_alone(name, what, text, tmp_path, capsys, monkeypatch):
    def fault(*args, **settings):
        raise MemoryError("no memory\nleft")

    monkeypatch.setattr(runs if name == "plot_losses" else train, name, fault)
    out = tmp_path / "out"
    stdout = ok(train.main, capsys, "--dataset", text, *TINY, "--out_dir", out)
    assert f"\nno {what}: no memory left\n" in stdout
    assert "on the whole split" in stdout and "more of it: " in stdout


def test_the_picture_leaves_the_backend_alone(text, tmp_path, monkeypatch):
    matplotlib = pytest.importorskip("matplotlib")
    monkeypatch.setenv("MPLBACKEND", "svg")
    before = matplotlib.rcParams["backend"]
    (tmp_path / "metrics.jsonl").write_text('{"step": 0, "val_loss": 2.0}\n')
    assert metrics.plot_losses(tmp_path) and (tmp_path / "loss.png").exists()
    assert matplotlib.rcParams["backend"] == before and os.environ["MPLBACKEND"] == "svg"


def test_the_command_for_more_works_from_anywhere(text, tmp_path, capsys, monkeypatch):
    for folder, name in ((tmp_path, str(ROOT / "sample.py")), (ROOT, "sample.py")):
        monkeypatch.chdir(folder)
        words = shlex.split(train.command("sample", tmp_path / "an out"))
        assert words[1:] == [name, "--out_dir", str(tmp_path / "an out")]
        done = subprocess.run(
            [words[0], "-c", "import sys; print(sys.prefix)"], capture_output=True
        )
        assert done.stdout.decode().strip() == sys.prefix
    python = tmp_path / "bin" / "python"  # one of another installation
    python.parent.mkdir()
    python.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(python.parent))
    monkeypatch.chdir(tmp_path)
    assert shlex.split(train.command("sample", Path("out")))[0] == sys.executable
    monkeypatch.setattr(sys, "executable", str(python.with_name("python3")))
    assert shlex.split(train.command("sample", Path("out")))[0] == "python"


# ---- bits per byte -------------------------------------------------------------------------------


def bits_by_hand(out: Path, predicted: str) -> float:
    """The bits per byte of a run whose last loss is the mean over these characters."""
    final = json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])
    nats = final["val_loss_full"] * len(predicted)
    return nats / math.log(2) / len(predicted.encode("utf-8"))


def test_bits_per_byte_count_the_bytes_of_unknown_characters(text, tmp_path, capsys):
    base, out, other = tmp_path / "base", tmp_path / "out", tmp_path / "other.txt"
    ok(train.main, capsys, "--dataset", text, *TINY, "--max_iters=1", "--out_dir", base)
    # Unknown are characters of 1, 2 and 4 bytes; at the start, in the middle and behind the end.
    whole = corpus()[:900] + "Xß😀 the cat ß😀" * 5 + corpus()[:9] + "ZZ"
    other.write_text(whole, encoding="utf-8")
    argv = ["--dataset", other, *TINY, "--max_iters=1", "--init_from", base, "--out_dir", out]
    with pytest.warns(UserWarning, match="not in the tokenizer's vocabulary"):
        warnings.simplefilter("always")
        train.pretrain(parse([str(a) for a in argv])[0])
    validation = whole[int(0.9 * len(whole)) :]
    n = (len(validation) - 1) // 16 * 16
    assert {len(c.encode()) for c in validation[1 : n + 1]} == {1, 2, 4}
    final = json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])
    assert final["bits_per_byte"] == pytest.approx(bits_by_hand(out, validation[1 : n + 1]))


def test_bits_per_byte_of_token_files_with_ids_that_are_no_text(text, tmp_path, capsys):
    characters, _ = char_validation(text)
    characters.save(tmp_path / "tok")
    ids = np.array(characters.encode(corpus()))
    for name, number, word in (
        ("unknown", characters.unknown_id, ""),  # which characters they were is lost
        ("beyond", characters.vocab_size, f"id {characters.vocab_size} is not in the vocabulary"),
    ):
        ids[-20] = number
        data.write_tokens(tmp_path / "all.bin", ids, 50)
        argv = ["--dataset", tmp_path / "all.bin", "--tokenizer", tmp_path / "tok", *TINY]
        argv += ["--vocab_size=50", "--max_iters=1", "--out_dir", tmp_path / name]
        assert word in ok(train.main, capsys, *argv)
        final = json.loads((tmp_path / name / "metrics.jsonl").read_text().splitlines()[-1])
        assert final["bits_per_byte"] is None and final["val_loss_full"] > 0


# ---- what a command line does not say ------------------------------------------------------------


def test_a_presets_shape_is_that_of_a_new_model(text, tmp_path, capsys):
    base, out = tmp_path / "base", tmp_path / "out"
    ok(train.main, capsys, "--dataset", text, *TINY, "--tokenizer=bpe:280", "--out_dir", base)
    argv = ["--preset=shakespeare-char", "--dataset", text, "--init_from", base, "--max_iters=2"]
    argv += ["--eval_iters=1", "--out_dir", out]
    ok(train.main, capsys, *argv)
    assert GPT.from_pretrained(out).config == GPT.from_pretrained(base).config
    assert tokenizers.load(out).merges == tokenizers.load(base).merges
    assert json.loads((out / "run.json").read_text())["settings"]["learning_rate"] == 1e-3
    for flag, word in (("n_layer=3", "1"), ("n_head=4", "2"), ("n_embd=32", "16"), ("bias", "F")):
        err = refused(train.main, capsys, *argv, "--overwrite", f"--{flag}")
        assert f"--{flag.split('=')[0]} {word}" in err and "cannot be" in err
    for kind in ("char", "bpe:280"):
        err = refused(train.main, capsys, *argv, "--overwrite", f"--tokenizer={kind}")
        assert "leave it out" in err and "has no tokenizer" not in err


def test_fine_tuning_a_model_of_another_project(text, tmp_path, capsys):
    """Whose tokenizer is in a tokenizer.json, or in GPT-2's pair of files."""
    base, bare = tmp_path / "base", tmp_path / "bare"
    bpe = tokenizers.BPETokenizer.train(corpus(), 280, special_tokens=["<|endoftext|>"])
    GPT(GPTConfig(280, 16, 1, 1, 16)).save_pretrained(base)
    GPT(GPTConfig(280, 16, 1, 1, 16)).save_pretrained(bare)
    bpe.export(base, "huggingface")
    argv = ["--dataset", text, "--max_iters=1", "--eval_iters=1"]
    ok(train.main, capsys, *argv, "--init_from", base, "--out_dir", tmp_path / "a")
    assert tokenizers.load(tmp_path / "a").encode(corpus()) == bpe.encode(corpus())
    assert "has no tokenizer" in refused(
        train.main, capsys, *argv, "--init_from", bare, "--out_dir", tmp_path / "b"
    )
    model = json.loads((base / "tokenizer.json").read_text())["model"]
    (bare / "vocab.json").write_text(json.dumps(model["vocab"]))
    (bare / "merges.txt").write_text("".join(f"{a} {b}\n" for a, b in model["merges"]))
    ok(train.main, capsys, *argv, "--init_from", bare, "--out_dir", tmp_path / "b")
    assert tokenizers.load(tmp_path / "b").encode(corpus()) == bpe.encode(corpus())
    # One that cannot be read stops what needs it, and nothing else.
    (base / "tokenizer.json").write_text('{"model": {"type": "Unigram"}}')
    argv += ["--init_from", base, "--out_dir", tmp_path / "c"]
    assert "Unigram" in refused(train.main, capsys, *argv)
    data.write_tokens(tmp_path / "all.bin", np.arange(2000) % 280, 280)
    status, _, err = cli(train.main, capsys, *argv, "--dataset", tmp_path / "all.bin")
    assert status == 0 and "going on without a tokenizer" in err and "Unigram" in err


@pytest.mark.parametrize("single", [False, True])
def test_a_pickle_beside_the_data_is_not_read(single, tmp_path, capsys):
    folder = tmp_path / "tokens"
    folder.mkdir()
    for name in ("train.bin", "val.bin"):
        data.write_tokens(folder / name, np.arange(500) % 59, 59)
    (folder / "meta.pkl").write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    dataset = folder / "train.bin" if single else folder
    argv = ["--dataset", dataset, *TINY, "--n_embd=2", "--max_iters=0", "--skip_final_eval"]
    argv += ["--eval_iters=1", "--out_dir", tmp_path / "out"]
    status, stdout, err = cli(train.main, capsys, *argv)
    assert status == 0 and "50,304 ids" in stdout
    assert err.count("\n") == 1 and "meta.pkl is not read" in err and "--vocab_size 59 " in err
    status, stdout, err = cli(train.main, capsys, *argv, "--vocab_size=59", "--overwrite")
    assert status == 0 and " 59 ids" in stdout and err == ""


NANOGPT = """
# train a miniature character-level shakespeare model
import time
out_dir = 'out-shakespeare-char'
eval_interval = 250 # keep frequent because we'll overfit
always_save_checkpoint = False
wandb_log = False
wandb_run_name = 'mini-gpt' + str(time.time())
dataset = 'shakespeare_char'
gradient_accumulation_steps = 1
learning_rate = 1e-3 # with baby networks can afford to go a bit higher
max_iters = 5000
lr_decay_iters = 5000 # make equal to max_iters usually
"""


def test_a_configuration_file_that_was_edited(tmp_path, capsys):
    path = tmp_path / "train_shakespeare_char.py"
    path.write_text(NANOGPT)
    given, notes = parse([str(path)])
    preset = Settings(**PRESETS["train_shakespeare_char"] | {"dataset": "shakespeare_char"})
    assert Settings(**given) == preset and notes == []
    lines = "batch_size = 3 * 8\nmax_iters = lr_decay_iters = 900\nmin_lr = learning_rate / 10\n"
    path.write_text(NANOGPT + lines + "compile = True\ngrad_klip = 2\nout_dir = '~/x'\n")
    given, notes = parse([str(path), "--max_iters=7"])
    edited = dict(batch_size=24, max_iters=7, lr_decay_iters=900, min_lr=1e-4)
    edited |= dict(out_dir=os.path.expanduser("~/x"))
    assert Settings(**given) == replace(preset, **edited)
    assert len(notes) == 1 and "no such setting" in notes[0]
    for line, words in (
        ("n_layer = len('abc')", "line 14 --n_layer"),
        ("n_layer = unknown", "line 14 --n_layer"),
        ("n_layer = 3 / 0", "line 14 --n_layer"),
        ("n_layer += 1", "line 14"),
        ("if True: n_layer = 3", "line 14"),
        ("n_layer = ", "line 14"),
        ("n_layer = 'three'", "--n_layer three"),
    ):
        path.write_text(NANOGPT + line + "\n")
        err = refused(train.main, capsys, path, "--out_dir", tmp_path / "out")
        assert all(word in err for word in words.split()), err
    assert not (tmp_path / "out").exists()


def test_paths_in_the_home_folder(text, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    argv = ["--dataset=~/corpus.txt", *TINY, "--max_iters=1"]
    ok(train.main, capsys, *argv, "--out_dir=~/out")
    ok(train.main, capsys, *argv, "--init_from=~/out", "--out_dir", "~/b", "--tokenizer=~/out")
    assert {p.name for p in tmp_path.iterdir()} == {"corpus.txt", "out", "b"}


def test_processes_of_torchruns_are_refused(text, tmp_path, capsys, monkeypatch):
    for name, value in (("RANK", "1"), ("LOCAL_RANK", "1"), ("WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    argv = ["--dataset", text, *TINY, "--max_iters=1", "--out_dir", tmp_path / "out"]
    err = refused(train.main, capsys, *argv)
    assert "torchrun" in err and "2 processes" in err and "--workers N" in err
    assert not (tmp_path / "out").exists()
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setenv("RANK", "0")
    ok(train.main, capsys, *argv)


@pytest.mark.parametrize("script", ["train.py", "sample.py"])
def test_an_interrupt_while_modules_are_loaded(script, tmp_path):
    """A module that sends the signal stands in for NumPy's, which take a while to load."""
    (tmp_path / "tokenizer.py").write_text(
        "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(30)\n"
    )
    code = (
        f"import runpy, sys; sys.path[:0] = [{str(tmp_path)!r}]; sys.argv = [{script!r}]; "
        f"runpy.run_path({str(ROOT / script)!r}, run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=ENVIRONMENT)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")
