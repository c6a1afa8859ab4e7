"""What each part of the modern family is worth: the loss with it and without it.

    python benchmarks/parts.py TEXT [TEXT ...] [--seeds 1 2 3] [--steps 200]

Trains a model with the parts of `--model modern` that are the default, and then models in which
one part is the other way round: one that is there is left out, one that is not is put in, such as
logit_cap=30 in place of logit_cap. All else is the same: nanoGPT's small model (4 layers, 128 wide,
windows of 64 characters), Muon, the steps. A part's gain is the loss without it minus the loss with
it, in nats per character over the whole validation split, so that a part which helps has a positive
one. It is paired by seed: the table has the mean over the seeds and its standard error.

Each run is a process with one BLAS thread. Its loss is kept in --out under the arguments that
train.py was given, so that a benchmark which was interrupted goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from tqdm import tqdm

from gpt.data import CORPORA, read_text
from gpt.models.modern_config import DEFAULT_PARTS, PARTS, read_parts
from gpt.training.metrics import read_metrics

ROOT = Path(__file__).resolve().parent.parent
RECIPE = """--preset shakespeare-char --model modern --workers 1 --device cpu
--optimizer muon --muon_lr 0.03 --learning_rate 2e-2 --ngram_lr 0.1 --schedule wsd --min_lr 0
--warmup_iters 10 --eval_iters 1 --log_interval 100""".split()


def has(parts: list[str], part: str) -> bool:
    """Whether a part, with its value, is among these."""
    return read_parts(part).items() <= read_parts(",".join(parts)).items()


def toggled(parts: list[str], part: str) -> list[str]:
    """The list of parts in which one is the other way round."""
    name = part.partition("=")[0]
    others = [p for p in parts if p.partition("=")[0] != name]
    return others if has(parts, part) else [*others, part]


def arguments_of(text: str, parts: list[str], seed: int, steps: int) -> list[str]:
    """What train.py is given for a run, without the folder of the run."""
    arguments = [*RECIPE, "--dataset", text, "--parts", ",".join(parts), "--seed", str(seed)]
    for name in ("--max_iters", "--lr_decay_iters", "--eval_interval"):
        arguments += [name, str(steps)]
    return arguments


def final_loss(arguments: list[str]) -> float:
    """Train with these arguments; the loss over the whole validation split."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "train.py", *arguments, "--out_dir", folder]
        threads = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, env=threads)
        if done.returncode:
            sys.exit(done.returncode)  # train.py has said why
        return read_metrics(Path(folder) / "metrics.jsonl")[-1]["val_loss_full"]


def gain(part: str, default: list[float], changed: list[float]) -> str:
    """The gain of a part over the seeds, with its standard error.

    `default` are the losses with the default parts, `changed` those with this part toggled, both in
    the order of the seeds.
    """
    sign = -1 if has(DEFAULT_PARTS.split(","), part) else 1
    gains = [sign * (a - b) for a, b in zip(default, changed, strict=True)]
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
    default = DEFAULT_PARTS.split(",")
    names = [part.partition("=")[0] for part in default]
    tried = options.parts or [*default, *(part for part in PARTS if part not in names)]
    texts = [text if text in CORPORA else str(Path(text).resolve()) for text in options.texts]
    try:
        read_parts(",".join(tried))
        for text in texts:
            read_text(text)
    except (OSError, ValueError) as error:
        parser.exit(2, f"parts.py: error: {error}\n")
    lines = options.out.read_text().splitlines() if options.out.exists() else []
    kept = dict(json.loads(line) for line in lines)

    sides = [("all", default), *((part, toggled(default, part)) for part in tried)]
    runs = [(text, *side, seed) for text in texts for side in sides for seed in options.seeds]
    losses = {}
    for text, side, parts, seed in tqdm(runs, "runs"):
        arguments = arguments_of(text, parts, seed, options.steps)
        key = shlex.join(arguments)
        if key not in kept:
            kept[key] = final_loss(arguments)
            with options.out.open("a") as file:
                file.write(json.dumps([key, kept[key]]) + "\n")
        losses[text, side, seed] = kept[key]

    def over_seeds(text: str, side: str) -> list[float]:
        return [losses[text, side, seed] for seed in options.seeds]

    stems = [Path(text).stem for text in texts]
    print(f"| part | default | {' | '.join(stems)} |\n|---|---|{'---|' * len(texts)}")
    for part in tried:
        gains = (gain(part, over_seeds(text, "all"), over_seeds(text, part)) for text in texts)
        print(f"| `{part}` | {'yes' if has(default, part) else 'no'} | {' | '.join(gains)} |")
    for text, stem in zip(texts, stems):
        print(f"{stem}: {statistics.mean(over_seeds(text, 'all')):.4f} with the default parts")


if __name__ == "__main__":
    main()
