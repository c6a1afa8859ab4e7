"""How much a small model learns from rewards alone, with GRPO: to sort the letters of a word.

    python benchmarks/grpo.py --out_dir DIR [--seeds 1]

A model of 0.1 M parameters first reads 4,000 lines as "sort dbca: abcd", too few times to be sure
of the task. Then it learns from rewards: for 1,700 other words, 1 where an answer is right and 0
where it is not. It is measured on 300 words that it has never seen: the mean reward of answers that
are drawn from the model, and the part of its likeliest answers that are right. The gap is what lies
between the mean reward before and the largest one, 1. Every step is a command of its own, which is
printed; two processes train.
"""

from __future__ import annotations

import argparse
import json
import random
import shlex
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from gpt.training.metrics import read_metrics

ROOT = Path(__file__).resolve().parent.parent
READING = (
    "train.py --separator line --tokenizer bpe:257 --block_size 32 --n_layer 2 --n_head 4 "
    "--n_embd 64 --batch_size 32 --max_iters 600 --eval_interval 200 --workers 2"
)
LEARNING = (
    "-m gpt.finetune grpo --reward gpt.finetune.rewards:sorted_letters --max_new_tokens 12 "
    "--batch_size 256 --group 8 --updates 2 --max_iters 600 --learning_rate 7e-4 "
    "--warmup_iters 60 --beta 0.01 --val_fraction 0.15 --test_fraction 0 --eval_interval 100 "
    "--workers 2"
)


def write_words(folder: Path) -> None:
    """The lines that the model reads, lines.txt, and the words that it is asked, prompts.jsonl."""
    rng = random.Random(1)
    words = []
    while len(words) < 6000:
        word = "".join(rng.choices("abcdefghij", k=rng.randint(4, 6)))
        if word not in words:
            words.append(word)
    lines = [f"sort {word}: {''.join(sorted(word))}\n" for word in words[:4000]]
    (folder / "lines.txt").write_text("".join(lines))
    asked = [json.dumps({"prompt": f"sort {word}:"}) + "\n" for word in words[4000:]]
    (folder / "prompts.jsonl").write_text("".join(asked))


def run(command: str, **settings: object) -> float:
    """Run a command with more settings; returns its seconds."""
    words = command.split() + [f"--{name}={value}" for name, value in settings.items()]
    print("\npython", shlex.join(words), flush=True)
    began = time.perf_counter()
    subprocess.run([sys.executable, *words], cwd=ROOT, check=True)
    return time.perf_counter() - began


def figures(out: Path, seconds: float) -> dict[str, float]:
    """What a run has come to, on the words that it was not trained on."""
    measured = [line for line in read_metrics(out / "metrics.jsonl") if "val_reward" in line]
    first, last = measured[0], measured[-1]
    before, after = first["val_reward"], last["val_reward"]
    return {
        "mean reward before": before,
        "mean reward after": after,
        "share of the gap closed": (after - before) / (1 - before),
        "greedy accuracy before": first["val_greedy_accuracy"],
        "greedy accuracy after": last["val_greedy_accuracy"],
        "KL from the start, nats a token": last["val_kl"],
        "seconds": seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out_dir", type=Path, required=True, help="a new folder for all files")
    parser.add_argument("--seeds", type=int, default=1, help="runs of GRPO (1)")
    options = parser.parse_args()
    folder = options.out_dir.resolve()
    folder.mkdir(parents=True)
    write_words(folder)
    run(READING, dataset=folder / "lines.txt", out_dir=folder / "base")
    columns = []
    for seed in range(1, options.seeds + 1):
        out = folder / f"seed-{seed}"
        files = dict(init_from=folder / "base", dataset=folder / "prompts.jsonl", out_dir=out)
        columns.append(figures(out, run(LEARNING, seed=seed, **files)))
    print()
    for name in columns[0]:
        values = [column[name] for column in columns]
        each = "  ".join(f"{value:7.3f}" for value in values)
        print(f"{name:<32}{each}" + (f"   mean {np.mean(values):.3f}" if len(values) > 1 else ""))


if __name__ == "__main__":
    main()
