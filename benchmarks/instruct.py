"""What instruction tuning gains, and what pretraining is worth to it, in five minutes on two cores.

    python benchmarks/instruct.py --dataset instructions.json --out_dir DIR [--workers 2]

1. A small model is pretrained on Python's documentation, which needs no download (`train.py`).
2. It is tuned on 85 % of the conversations in the dataset (`python -m gpt.finetune instruct`); 5 %
   say which epoch was the best one.
3. A model of the same shape with random weights is tuned in the same way.

The last two lines are, of the loss on the answers of the other 10 %: by how much tuning lowers it,
and how much lower it is than without pretraining.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from pathlib import Path

import tokenizer as tokenizers
from gpt import load, models
from gpt.data import read_records
from gpt.finetune.instruct import Settings, prepare

ROOT = Path(__file__).resolve().parent.parent

PRETRAINING = (
    "--dataset python-docs --tokenizer bpe:1024 --model llama --n_layer 4 --n_head 4 --n_embd 128 "
    "--block_size 256 --batch_size 4 --max_iters 1400 --learning_rate 2e-3 --warmup_iters 60 "
    "--eval_interval 350 --eval_iters 8 --skip_final_eval True"
).split()
TEMPLATE = "chatml"
TUNING = (
    f"--template {TEMPLATE} --epochs 5 --batch_size 2 --dropout 0.1 --learning_rate 1e-3 "
    "--weight_decay 0.1"
).split()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--dataset", required=True, help="conversations, as instruct reads them")
    parser.add_argument("--out_dir", required=True, type=Path, help="a folder for the models")
    parser.add_argument("--workers", default="2", help="processes that train")
    options = parser.parse_args()
    out, more = options.out_dir, ["--workers", options.workers, "--overwrite", "True"]

    def tune(base: Path, to: Path) -> None:
        where = ["--init_from", str(base), "--dataset", options.dataset, "--out_dir", str(to)]
        call("-m", "gpt.finetune", "instruct", *where, *TUNING, *more)

    began = time.monotonic()
    call("train.py", *PRETRAINING, "--out_dir", str(out / "base"), *more)
    tune(out / "base", out / "tuned")
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = used.ru_utime + used.ru_stime
    print(f"\npretraining and tuning: {time.monotonic() - began:.0f} s, {cpu:.0f} s of CPU")

    base, tokenizer = load(out / "base"), tokenizers.load(out / "base")
    models.make(base.config).save_pretrained(out / "random")
    tokenizer.save(out / "random")
    tune(out / "random", out / "without")

    names = "base", "tuned/best", "without/best"
    before, after, without = (held_out_loss(out / name, options.dataset) for name in names)
    print("\nloss on held-out answers, in nats a token:")
    print(f"{before:.3f} pretrained, {after:.3f} tuned, {without:.3f} tuned from random weights")
    print(f"tuning lowers it by {1 - after / before:.1%}")
    print(f"pretraining lowers it by {without - after:.2f} nats")


def call(*command: str) -> None:
    subprocess.run([sys.executable, *command], cwd=ROOT, check=True)


def held_out_loss(folder: Path, dataset: str) -> float:
    """The loss of a model on the answers of the test part."""

    class Run:
        settings = Settings(init_from=str(folder), dataset=dataset, template=TEMPLATE)

    task, model, _ = prepare(Run, read_records(dataset), tokenizers.load(folder), load(folder))
    return task.final(model)["test_loss"]


if __name__ == "__main__":
    main()
