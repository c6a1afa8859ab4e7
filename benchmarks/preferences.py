"""Does a small model learn which of two answers people prefer? DPO and a reward model, measured.

    python benchmarks/preferences.py --dataset instructions.json --out_dir out-preferences

The dataset has `instruction`, `input`, `output`, `chosen` and `rejected`; in the one that the
figures in docs/benchmarks.md are for, chosen and rejected answers differ in politeness. A fifth of
the prompts is held out for the figures, a tenth to have chosen the settings by. Of the rest, the
training part, a model of 1 M parameters learns in this order, each step a command that is printed:
to continue text (Python's documentation and the training part), to answer, and to prefer the chosen
answers. Needs no download; takes minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
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
COPIES = 8  # of the training part's conversations, among the text to continue

PRETRAIN = (
    "--tokenizer bpe:1024 --block_size 256 --n_layer 4 --n_head 4 --n_embd 128 --batch_size 8 "
    "--max_iters 1000 --learning_rate 2e-3 --skip_final_eval True"
)
INSTRUCT = (
    "--template alpaca --epochs 4 --batch_size 16 --learning_rate 1e-3 --dropout 0.1 "
    "--val_fraction 0.1 --test_fraction 0"
)
# Chosen by the validation part: the first for its accuracy, the second for the loss on chosen
# answers too.
METHODS = {
    "before": "dpo --max_iters 0",
    "dpo": "dpo --epochs 1 --beta 0.1",
    "dpo, chosen answers kept": "dpo --epochs 1 --beta 0.1 --sft_weight 1",
    "reward": "reward --epochs 3 --learning_rate 3e-4",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--dataset", required=True, type=Path)
    parser.add_argument("--out_dir", required=True, type=Path)
    parser.add_argument("--seed", type=int, default=1337, help="of the split, and of all that runs")
    args = parser.parse_args()
    began, out = time.monotonic(), args.out_dir
    out.mkdir(parents=True, exist_ok=True)
    write_parts(read_records(args.dataset), out, args.seed)

    seed = f"--seed {args.seed} --overwrite True"
    run(f"train.py --dataset {out}/text.txt --out_dir {out}/pretrained {PRETRAIN} {seed}")
    tune = "-m gpt.finetune {} --init_from {} --dataset {} --out_dir {} " + seed
    to = f"{out}/pretrained", f"{out}/instructions.json", f"{out}/instructed"
    run(tune.format("instruct " + INSTRUCT, *map(shlex.quote, to)))
    parts = " ".join(f"--{name} {part}" for name, part in PARTS.items())
    for name, method in METHODS.items():
        folder = out / name.replace(", ", "-").replace(" ", "-")
        run(tune.format(f"{method} {parts}", f"{out}/instructed", f"{out}/pairs.json", folder))

    print(f"\n{'':<26}accuracy   margin   likelier   loss on chosen answers (held-out pairs)")
    for name in METHODS:
        final = read_metrics(out / name.replace(", ", "-").replace(" ", "-") / "metrics.jsonl")[-1]
        line = f"{name:<26}{final['test_accuracy']:>8.1%} {final['test_margin']:>8.2f}"
        if "test_likelier" in final:
            line += f"   {final['test_likelier']:>8.1%}   {final['test_chosen_loss']:.3f}"
            line += f" ({final['test_chosen_rise']:+.1%})"
        print(line)
    print(f"{time.monotonic() - began:.0f} s in all")


def write_parts(records: list[dict], out: Path, seed: int) -> None:
    """Write what each step learns from: the pairs; of their training part, instructions and text.

    Equal answers are no pair. The split is the one that `dpo` and `reward` make of the same file.
    """
    pairs = [r for r in records if r["chosen"] != r["rejected"]]
    conversations = [conversation(r, "chosen") for r in pairs]
    train, *_ = split_by_question(Settings(seed=seed, **PARTS), conversations)
    learned = [pairs[i] for i in train]
    texts = [render(TEMPLATES["alpaca"], messages_of(r), eos_token="") for r in learned]
    (out / "pairs.json").write_text(json.dumps(pairs))
    (out / "instructions.json").write_text(json.dumps(learned))
    (out / "text.txt").write_text("\n\n".join([*texts * COPIES, CORPORA["python-docs"]()]))


def run(command: str) -> None:
    print(f"\npython {command}", flush=True)
    subprocess.run([sys.executable, *shlex.split(command)], cwd=ROOT, check=True)


if __name__ == "__main__":
    main()
