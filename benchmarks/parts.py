"""What each part of the modern family is worth: the loss with it and without it.

    python benchmarks/parts.py TEXT [TEXT ...] [--seeds 1 2 3] [--steps 200]

Trains a model with the parts of `--model modern` that are the default, and then models in which
one part is the other way round: one that is there is left out, one that is not is put in. All
else is the same: nanoGPT's small model (4 layers, 128 wide, windows of 64 characters), Muon, the
steps. A part's gain is the loss without it minus the loss with it, in nats per character over
the whole validation split, so that a part which helps has a positive one. It is paired by seed: the
table has the mean over the seeds and its standard error.

Each run is a process with one BLAS thread, and what it gave is kept in --out, so that a benchmark
that was interrupted goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from tqdm import tqdm

from gpt.models.modern_config import DEFAULT_PARTS, PARTS
from gpt.training.metrics import read_metrics

ROOT = Path(__file__).resolve().parent.parent
RECIPE = """--preset shakespeare-char --model modern --workers 1 --device cpu
--optimizer muon --muon_lr 0.03 --learning_rate 2e-2 --ngram_lr 0.1 --schedule wsd --min_lr 0
--warmup_iters 10 --eval_iters 1 --log_interval 100""".split()


def toggled(parts: list[str], part: str) -> list[str]:
    """The list of parts in which one is the other way round."""
    name = part.partition("=")[0]
    without = [p for p in parts if p.partition("=")[0] != name]
    return without if len(without) < len(parts) else [*parts, part]


def final_loss(text: str, parts: list[str], seed: int, steps: int) -> float:
    """Train with these parts; the loss over the whole validation split."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "train.py", *RECIPE, "--dataset", text, "--out_dir", folder]
        command += ["--parts", ",".join(parts), "--seed", str(seed), "--max_iters", str(steps)]
        command += ["--lr_decay_iters", str(steps), "--eval_interval", str(steps)]
        threads = os.environ | {"OMP_NUM_THREADS": "1"}
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL, env=threads)
        return read_metrics(Path(folder) / "metrics.jsonl")[-1]["val_loss_full"]


def gain(losses: dict[str, float], text: str, part: str, seeds: list[int]) -> str:
    """The gain of a part over the seeds, with its standard error."""
    sign = -1 if part in DEFAULT_PARTS.split(",") else 1
    gains = [
        sign * (losses[f"{text} {seed} all"] - losses[f"{text} {seed} {part}"]) for seed in seeds
    ]
    error = statistics.stdev(gains) / len(gains) ** 0.5 if len(gains) > 1 else float("nan")
    return f"{statistics.mean(gains):+.3f} ± {error:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("texts", nargs="+", metavar="TEXT", help="files, or python-docs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--parts", nargs="+", help="those to try (all)")
    parser.add_argument("--out", type=Path, default=Path("parts.jsonl"), help="parts.jsonl")
    options = parser.parse_args()
    names = [part.partition("=")[0] for part in DEFAULT_PARTS.split(",")]
    others = [part for part in PARTS if part not in names]
    tried = options.parts or [*DEFAULT_PARTS.split(","), *others]
    lines = options.out.read_text().splitlines() if options.out.exists() else []
    losses = dict(json.loads(line) for line in lines)
    runs = [
        (text, part, seed)
        for text in options.texts
        for part in ["all", *tried]
        for seed in options.seeds
    ]
    for text, part, seed in tqdm(runs, "runs"):
        key = f"{text} {seed} {part}"
        if key not in losses:
            parts = DEFAULT_PARTS.split(",")
            parts = parts if part == "all" else toggled(parts, part)
            losses[key] = final_loss(text, parts, seed, options.steps)
            with options.out.open("a") as file:
                file.write(json.dumps([key, losses[key]]) + "\n")
    texts = [Path(text).stem for text in options.texts]
    print(f"| part | default | {' | '.join(texts)} |\n|---|---|{'---|' * len(texts)}")
    for part in tried:
        gains = (gain(losses, text, part, options.seeds) for text in options.texts)
        default = "yes" if part in DEFAULT_PARTS.split(",") else "no"
        print(f"| `{part}` | {default} | {' | '.join(gains)} |")
    for text, name in zip(options.texts, texts):
        all_parts = [losses[f"{text} {seed} all"] for seed in options.seeds]
        print(f"{name}: {statistics.mean(all_parts):.4f} with the default parts")


if __name__ == "__main__":
    main()
