"""How well a small model learns which of two answers is preferred: DPO, and reward models.

    python benchmarks/preferences.py --dataset instructions.json --out_dir DIR

The dataset has instruction, input, output, chosen and rejected. Its pairs are divided by prompt:
20 % are held out for the figures, 10 % have served to choose the settings below, and 70 % are what
the models learn from:

1. A small model is pretrained on Python's documentation and the text of these 70 % (`train.py`).
2. It is tuned on their instructions and outputs (`python -m gpt.finetune instruct`).
3. It is tuned on their pairs, in several ways (`dpo`), or becomes a reward model (`reward`).

The table at the end has, of the held-out pairs, how often the chosen answer has the higher reward,
by how much, how often it is the likelier one, and the loss on chosen answers with its rise since
step 2.
"""

from __future__ import annotations

import argparse
import json
import resource
import shlex
import subprocess
import sys
import time
from pathlib import Path

from gpt.data import CORPORA, read_records
from gpt.data.chat import TEMPLATES
from gpt.data.conversations import messages_of
from gpt.data.template import render
from gpt.finetune.conversations import split_by_question
from gpt.finetune.dpo import Settings
from gpt.finetune.pairs import conversation
from gpt.training.metrics import read_metrics

ROOT = Path(__file__).resolve().parents[1]
PARTS = dict(val_fraction=0.1, test_fraction=0.2)
COPIES = 8  # of the conversations, in the text for pretraining

PRETRAINING = (
    "--tokenizer bpe:1024 --block_size 256 --n_layer 4 --n_head 4 --n_embd 128 --batch_size 8 "
    "--max_iters 1000 --learning_rate 2e-3 --skip_final_eval True"
)
INSTRUCTIONS = (
    "--template alpaca --epochs 6 --batch_size 4 --learning_rate 1e-3 --dropout 0.1 "
    "--weight_decay 0.1 --val_fraction 0.1 --test_fraction 0"
)
WAYS = {  # the folder: the method and its settings
    "before": "dpo --max_iters 0",
    "dpo": "dpo --epochs 1",
    "dpo-closer": "dpo --epochs 2 --beta 0.3",
    "dpo-sft": "dpo --epochs 1 --sft_weight 1",
    "kto": "dpo --loss kto --epochs 1 --beta 0.3",
    "reward": "reward --epochs 3",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--dataset", required=True, type=Path)
    parser.add_argument("--out_dir", required=True, type=Path, help="a folder for the models")
    parser.add_argument("--workers", default="2", help="processes that train")
    parser.add_argument("--seed", default=1337, type=int, help="of the split, and of the runs")
    args = parser.parse_args()
    out, more = args.out_dir.resolve(), f"--seed {args.seed} --workers {args.workers} "
    more = shlex.split(more + "--overwrite True")
    out.mkdir(parents=True, exist_ok=True)
    write_parts(read_records(args.dataset), out, args.seed)

    def tune(way: str, base: str, dataset: str, to: str) -> None:
        where = ["--init_from", out / base, "--dataset", out / dataset, "--out_dir", out / to]
        call("-m", "gpt.finetune", *way.split(), *where, *more)

    began = time.monotonic()
    where = ["--dataset", out / "text.txt", "--out_dir", out / "pretrained"]
    call("train.py", *where, *PRETRAINING.split(), *more)
    tune(f"instruct {INSTRUCTIONS}", "pretrained", "instructions.json", "instructed")
    parts = " ".join(f"--{name} {part}" for name, part in PARTS.items())
    for name, way in WAYS.items():
        tune(f"{way} {parts}", "instructed", "pairs.json", name)

    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds, of_cpu = time.monotonic() - began, used.ru_utime + used.ru_stime
    print(f"\n{seconds:.0f} s, {of_cpu:.0f} s of processor time. Of the held-out pairs:\n")
    print(f"{'':<12}{'accuracy':>8}{'margin':>8}{'likelier':>10}{'loss on chosen answers':>24}")
    for name, way in WAYS.items():
        final = read_metrics(out / name / "metrics.jsonl")[-1]
        line = f"{name:<12}{final['test_accuracy']:>8.1%}{final['test_margin']:>8.2f}"
        line += f"{final['test_likelier']:>10.1%}" if "test_likelier" in final else " " * 10
        if "test_chosen_loss" in final:
            line += f"{final['test_chosen_loss']:>15.3f} ({final['test_chosen_rise']:+.1%})"
        print(f"{line:<64}{way}")


def call(*command) -> None:
    subprocess.run([sys.executable, *map(str, command)], cwd=ROOT, check=True)


def write_parts(records: list[dict], out: Path, seed: int) -> None:
    """Write what the steps learn from: the pairs, and the instructions and text of the 70 %.

    The split is the one that `dpo` and `reward` make of the same pairs and seed. Equal answers,
    which they leave out, are no pairs.
    """
    pairs = [r for r in records if r["chosen"] != r["rejected"]]
    conversations = [conversation(r, "chosen") for r in pairs]
    training, *_ = split_by_question(Settings(seed=seed, **PARTS), conversations)
    learned = [pairs[i] for i in training]
    texts = [render(TEMPLATES["alpaca"], messages_of(r), eos_token="") for r in learned]
    (out / "pairs.json").write_text(json.dumps(pairs))
    (out / "instructions.json").write_text(json.dumps(learned))
    (out / "text.txt").write_text("\n\n".join([*texts * COPIES, CORPORA["python-docs"]()]))


if __name__ == "__main__":
    main()
