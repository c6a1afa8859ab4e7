"""Two ways to use a card from end to end, for gpu.py: writing text, and a whole training run."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import tensorlite as tl
import train
from benchmarks.gpu_card import ROOT, Table, is_strict
from gpt import GPT, GPTConfig, generate_ids
from tensorlite.device import random

GPT2 = GPTConfig(50304, 1024, 12, 12, 768)  # 124 M
TINY = GPTConfig(65, 32, 2, 2, 64)
PROMPT, SHORT, LONG = 16, 64, 320  # tokens: of a prompt, and of two texts that are written
CASES = [  # texts at once, and how they are drawn
    (1, {"temperature": 0.0}),
    (1, {"temperature": 0.8, "top_k": 50}),
    (8, {"temperature": 0.0}),
    (64, {"temperature": 0.0}),
]
GOOD = 1.47  # nanoGPT's validation loss with config/train_shakespeare_char.py


def generation(options) -> Iterator[Table]:
    """Tokens a second of a model of GPT-2's shape, and whether they are the CPU's."""
    config, short, long = (TINY, 2, 4) if options.strict else (GPT2, SHORT, LONG)
    precision = options.precisions[0]
    on_cpu = GPT(config).eval()
    model, rows, wrong = GPT(config).to("cuda").eval(), [], 0
    for batch, how in [(1, CASES[0][1]), (2, CASES[1][1])] if options.strict else CASES:
        ids = random(0, "prompts").integers(0, config.vocab_size, (batch, PROMPT))
        prompts = ids.tolist()
        with tl.autocast(precision):
            seconds = {n: seconds_for(model, prompts, n, how) for n in (short, long)}
        row = {"texts": batch, **how, "precision": precision}
        each = (seconds[long] - seconds[short]) / (long - short)
        row |= {"tokens/s": round(batch / each), "ms a token": each * 1e3}
        row["ms at the start"] = (seconds[short] - short * each) * 1e3
        if how["temperature"] == 0 and batch == 1:
            row["as the CPU's"] = share_as_on_cpu(on_cpu, model, prompts)
            wrong += row["as the CPU's"] == 0  # later ones may be close to one another
        rows.append(row)
    note = (
        f"After a prompt of {PROMPT} tokens. The time of a token is that of {LONG} new tokens less "
        f"that of {SHORT}; the start, in which the step is recorded, is the rest. The CPU's greedy "
        "tokens are compared with those of the card in float32."
    )
    yield Table("Writing text, GPT-2's shape (124 M)", rows, note, wrong)


def seconds_for(model, prompts, n: int, how: dict) -> float:
    """The shortest time to write n tokens, after one that is not timed."""
    times = []
    for _ in range(1 if is_strict() else 4):
        start = time.perf_counter()
        generate_ids(model, prompts, n, seed=1, **how)
        times.append(time.perf_counter() - start)
    return min(times[1:] or times)


def share_as_on_cpu(on_cpu, model, prompts) -> float:
    """The share of greedy tokens, up to the first that differs, which are the CPU's."""
    n = 4 if is_strict() else 32
    expected = generate_ids(on_cpu, prompts, n, 0.0)[0]
    with tl.autocast("float32"):
        results = generate_ids(model, prompts, n, 0.0)[0]
    same = np.cumprod([a == b for a, b in zip(results, expected, strict=True)])
    return float(same.mean())


def training(options) -> Iterator[Table]:
    """nanoGPT's command for a GPU, as it is: config/train_shakespeare_char.py."""
    with tempfile.TemporaryDirectory() as folder:
        dataset = options.train or "shakespeare"
        arguments = [f"--dataset={dataset}", f"--out_dir={folder}/out", "--device=cuda"]
        if options.strict:
            text = Path(folder, "text.txt")
            text.write_text((ROOT / "README.md").read_text() * 2)
            arguments = [f"--dataset={text}", *arguments[1:], "--max_iters=2", "--n_layer=1"]
            arguments += ["--n_embd=32", "--n_head=1", "--block_size=16", "--batch_size=2"]
            arguments += ["--eval_iters=1", "--skip_final_eval=True", "--workers=1"]
            train.generate = lambda *_, **__: ""  # the sample takes the emulator too long
        start = time.perf_counter()
        status = train.main(["config/train_shakespeare_char.py", *arguments])
        seconds = time.perf_counter() - start
        if status:
            raise RuntimeError(f"train.py ended with status {status}")
        lines = Path(folder, "out", "metrics.jsonl").read_text().splitlines()
    metrics = [json.loads(line) for line in lines]
    best = min(m["val_loss"] for m in metrics if "val_loss" in m)
    row = {"seconds": round(seconds), "lowest validation loss": best}
    row |= {"steps": max(m["step"] for m in metrics)}
    wrong = int(best > GOOD and not options.strict)
    yield Table("train.py config/train_shakespeare_char.py", [row], f"nanoGPT's: {GOOD}.", wrong)
