"""A second task, of another shape than pretraining, trains through the same loop.

It has a label for each sequence, a loss and a measure of its own, and no stream of tokens. Run as a
program, this file is its command: `python -m tests.test_task --out_dir DIR ...`.
"""

import inspect
import json
import signal
import subprocess
import sys

import numpy as np
import pytest

import tensorlite as tl
from gpt import GPT, GPTConfig, checkpoint
from gpt.training.command import run_command
from gpt.training.loop import train
from gpt.training.optimizer import make_optimizer
from gpt.training.presets import parse
from gpt.training.run import open_run
from gpt.training.task import Batch
from tensorlite import parallel
from tensorlite.device import random
from tensorlite.parallel import ALONE

from .test_resume import assert_same, wait_for
from .test_train import ENVIRONMENT, ROOT

LENGTH = 9


class Rarer:
    """Which of two tokens is the rarer one in a sequence? That is the label of the sequence."""

    tokens_per_example = LENGTH

    def __init__(self, settings):
        self.settings = settings

    def draw(self, n, *key):
        x = random(self.settings.seed, *key).integers(0, 2, (n, LENGTH))  # (n, T)
        return Batch(x, (x.sum(axis=1) < LENGTH / 2).astype(np.int64))  # (n, T), (n,)

    def batch(self, step, model, team):
        s = self.settings
        return self.draw(s.batch_size * s.gradient_accumulation_steps, "batch", step)

    def logits(self, model, x, rng=None):
        mean = model.hidden(x, rng).mean(axis=1)  # (B, T) -> (B, T, C) -> (B, C)
        return mean @ model.wte.weight.T  # (B, C) @ (C, 2) -> (B, 2)

    def loss(self, model, examples, rng):
        x, labels = examples.arrays
        return tl.cross_entropy(self.logits(model, x, rng), labels) * examples.share

    def evaluate(self, model, team):
        x, labels = self.draw(200, "held out").arrays
        model.eval()
        with tl.no_grad():
            logits = self.logits(model, x)
            loss = tl.cross_entropy(logits, labels).item()
        model.train()
        return {"val_loss": loss, "val_accuracy": float((logits.data.argmax(1) == labels).mean())}


def learn(given, team=ALONE, why=""):
    """The command: a run of the task."""
    with open_run(given, team) as run:
        s = run.settings
        shape = GPTConfig(2, LENGTH, s.n_layer, s.n_head, s.n_embd, s.dropout, s.bias)
        model = GPT(shape, seed=s.seed)
        run.load_weights(model)
        optimizer = make_optimizer(model, s, team)
        run.load_optimizer(model, optimizer)
        task = Rarer(s)
        run.begin(task, model)
        if train(run, task, model, optimizer):
            run.finish(model, task.evaluate(model, team))
    return 0


ARGV = (
    "--n_layer=1 --n_head=2 --n_embd=16 --batch_size=8 --gradient_accumulation_steps=3 "
    "--max_iters=150 --eval_interval=20 --save_interval=9 --log_interval=1 --warmup_iters=5 "
    "--learning_rate=1e-3 --decay_lr=False --dropout=0.1 --overwrite=False "
    "--dataset=python-docs"  # without it, they would be changes of the demo's recipe
).split()


def start(out, *argv, ranks=1):
    return launch([sys.executable, "-m", "tests.test_task", "--out_dir", str(out), *argv], ranks)


def launch(command, ranks=1):
    """Start a command, as so many processes."""
    if ranks > 1:
        command = [parallel.mpiexec(), "-n", str(ranks), *command]
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    return subprocess.Popen(command, cwd=ROOT, env=ENVIRONMENT, **pipes)


def finish(process):
    stdout, err = process.communicate(timeout=100)
    assert process.returncode == 0 and err == "", err
    return stdout


def lines_of(out):
    return [json.loads(line) for line in open(out / "metrics.jsonl")]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run that was left alone."""
    out = tmp_path_factory.mktemp("task") / "out"
    stdout = finish(start(out, *ARGV, "--workers=1"))
    assert "step    150  validation loss 0." in stdout and ", validation accuracy 0." in stdout
    return out


def test_the_task_takes_at_most_40_lines():
    assert len(inspect.getsource(Rarer).splitlines()) <= 40


def test_it_learns_and_writes_metrics_and_best(whole):
    *lines, final = lines_of(whole)
    measured = [line for line in lines if "val_loss" in line]
    assert [line["step"] for line in measured] == [*range(0, 141, 20), 150]
    assert all(line.keys() == {"step", "val_loss", "val_accuracy"} for line in measured)
    logs = [line for line in lines if "train_loss" in line]
    assert [line["step"] for line in logs] == list(range(1, 151))
    assert final["event"] == "final" and final["step"] == 150 and final["tokens_per_second"] > 0
    assert measured[0]["val_accuracy"] < 0.1 < 0.8 < final["val_accuracy"]
    losses = {line["step"]: line["val_loss"] for line in measured if line["step"] > 0}
    assert checkpoint.load_step(whole / "best") == min(losses, key=losses.get)
    assert checkpoint.load_step(whole) == 150


def test_killed_and_resumed_it_is_the_same_bit_for_bit(whole, tmp_path):
    out, argv = tmp_path / "out", [*ARGV, "--workers=1"]
    for lines in (40, 110):
        process = start(out, *argv)
        wait_for(process, out, lines)
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL  # it was not done
        argv = ["--init_from=resume"]
    assert f"resuming {out} at step " in finish(start(out, *argv))
    assert_same(out, whole)


@pytest.mark.skipif(parallel.fault() is not None, reason="the extra mpi is not installed")
def test_two_workers_give_the_same_curve(whole, tmp_path):
    finish(start(tmp_path / "out", *ARGV, ranks=2))
    for line, expected in zip(lines_of(tmp_path / "out"), lines_of(whole), strict=True):
        assert line.keys() == expected.keys() and line["step"] == expected["step"]
        for name in ("train_loss", "val_loss"):
            assert line.get(name) == pytest.approx(expected.get(name), abs=1e-5)


if __name__ == "__main__":
    sys.exit(run_command(__file__, None, parse, learn))
