"""Runs recipes in turns, each from the command line to its end, and measures time and loss.

A recipe is the arguments of a program, in the tree of files that holds the program. Its time is
that of the whole process: imports, workers, text, training, evaluations, checkpoints, picture and
sample. The loss of a model of train.py is measured here, after the clock has stopped, in windows of
64 characters whatever the context of the model is, so that all models predict the same characters
from the same ones.
"""

from __future__ import annotations

import compileall
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

import gpt
import tensorlite as tl
from gpt.data import full_windows, read_text, split
from gpt.training.metrics import read_metrics
from tokenizer import load as load_tokenizer

ROOT = Path(__file__).resolve().parents[2]
WINDOW = 64  # characters: the context of nanoGPT's recipe for a CPU


@dataclass(frozen=True)
class Recipe:
    """What is run: `program` with `arguments`, in the tree of files `tree`."""

    name: str
    arguments: tuple[str, ...]
    program: tuple[str, ...] = ("train.py",)
    tree: Path = ROOT


@dataclass
class Runs:
    """What the runs of a recipe gave, in the order of the seeds. `tokens` were trained on in each.

    A loss is the mean over the whole validation split, in nats per character.
    """

    seconds: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    tokens: int = 0


OURS = Recipe("ours, nanoGPT's recipe", ("--preset", "shakespeare-char"))
PYTORCH = Recipe("PyTorch, nanoGPT's recipe", OURS.arguments, ("-m", "benchmarks.nanogpt_pytorch"))


def rounds(
    recipes: Sequence[Recipe], text: str, seeds: Sequence[int], device: str = "cpu"
) -> list[Runs]:
    """For each seed, all recipes one after another: what each of them gave.

    `text` is the path of the text. Prints a line for each run; a terminal shows the progress.
    Raises RuntimeError for a run that fails.
    """
    results = [Runs() for _ in recipes]
    bar = tqdm(total=len(seeds) * len(recipes), unit="run", disable=None, leave=False)
    with bar:
        for seed in seeds:
            for recipe, result in zip(recipes, results):
                bar.set_description(recipe.name)
                with tempfile.TemporaryDirectory() as folder:
                    out = Path(folder) / "out"
                    seconds = time_run(recipe, text, seed, device, out, bar.set_postfix_str)
                    loss = whole_loss(out, text)
                    result.tokens = tokens_seen(out)
                result.seconds.append(round(seconds, 2))
                result.losses.append(round(loss, 4))
                bar.update()
                line = f"seed {seed}  {seconds:7.1f} s  loss {loss:.4f}  {recipe.name}"
                bar.write(line, file=sys.stdout)
                sys.stdout.flush()
    return results


def time_run(
    recipe: Recipe, text: str, seed: int, device: str, out: Path, show: Callable[[str], None]
) -> float:
    """The seconds that a recipe takes; `show` is given each line that it prints.

    Raises RuntimeError, with the last line, where the program fails.
    """
    command = [sys.executable, *recipe.program, *recipe.arguments, "--dataset", text]
    command += ["--seed", str(seed), "--device", device, "--out_dir", str(out)]
    began, last = time.perf_counter(), ""
    with subprocess.Popen(
        command, cwd=recipe.tree, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        for line in process.stdout:
            last = line.strip() or last
            show(last[:60])
    seconds = time.perf_counter() - began
    if process.returncode:
        raise RuntimeError(f"{recipe.name} ended with status {process.returncode}: {last}")
    return seconds


def whole_loss(out: Path, text: str) -> float:
    """The mean loss of the model in a run's folder over the whole validation split, in nats.

    Measured in windows of WINDOW characters that do not overlap. For a folder of the PyTorch script
    it is the loss that the script has measured so. Raises ValueError for a run that has not
    measured its own loss at its end, that began with the weights of another, or whose ids are not
    characters.
    """
    if (start := settings_of(out)["init_from"]) != "scratch":
        raise ValueError(f"a recipe begins with random weights, not with --init_from {start}")
    reported = (read_metrics(out / "metrics.jsonl") or [{}])[-1].get("val_loss_full")
    if reported is None:
        raise ValueError("the run did not measure its loss on the whole validation split")
    if not (out / "config.json").exists():
        return reported
    model, tokenizer = gpt.load(out), load_tokenizer(out)
    val_text = split(read_text(text))[1]
    ids = np.asarray(tokenizer.encode_ordinary(val_text))
    if len(ids) != len(val_text):
        raise ValueError("a recipe predicts characters: it has --tokenizer char")
    total = count = 0
    with tl.no_grad():
        for x, y in full_windows(ids, WINDOW, batch_size=32):
            total += model.loss(x, y).item() * y.size
            count += y.size
    return total / count


def tokens_seen(out: Path) -> int:
    """How many tokens a run has trained on, as its settings say."""
    s = settings_of(out)
    return s["max_iters"] * s["batch_size"] * s["gradient_accumulation_steps"] * s["block_size"]


def settings_of(out: Path) -> dict:
    return json.loads((out / "run.json").read_text())["settings"]


def files_of(commit: str, folder: Path) -> Path:
    """The files of the project as they were at a commit, compiled, in `folder`.

    Raises ValueError for a commit that this clone does not have.
    """
    done = subprocess.run(["git", "archive", commit], cwd=ROOT, capture_output=True)
    if done.returncode:
        raise ValueError(
            f"this clone does not have the commit {commit}: git fetch --unshallow may bring it, "
            "and --present_code runs the recipe with the code that is here"
        )
    folder.mkdir(parents=True)
    subprocess.run(["tar", "-x", "-C", str(folder)], input=done.stdout, check=True)
    compileall.compile_dir(folder, quiet=2)  # the first run must not be slower than the others
    return folder
