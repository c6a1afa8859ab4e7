"""Make docs/from-text-to-chat.md: run its commands, and put what they print under them.

    python benchmarks/text_to_chat.py --spam sms_spam.tsv --instructions instructions.json

`PAGE` is the page without the output. A block that begins with "$ " is run in a folder of its own, by
the shell, and what it prints follows it; long output is shortened in the middle. The two files are
the SMS Spam Collection (label and text, no header line) and records with instruction, input, output,
chosen and rejected. Takes about a quarter of an hour on two cores; needs no download.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PICTURES = {"pretrained/loss.png": "text-to-chat-loss.png", "spam/confusion.png": "spam.png"}
SHOWN = 14  # lines of output that are shown of each command, at most

PAGE = """\
# From text to chat

This page takes a model from raw text to one that classifies, answers, and answers politely. Every
command was run in this order, and what it printed stands below it, shortened where you see dots. All
of it is made by one command, which takes about a quarter of an hour on two cores:

```sh
python benchmarks/text_to_chat.py --spam sms_spam.tsv --instructions instructions.json
```

The model has about a million parameters, a thousandth of what a useful assistant has. It learns the
forms that the methods teach, and almost none of the knowledge: that takes more text and more
parameters, with the same commands.

## Pretraining

First the model learns to continue text: Python's documentation, which every installation of Python
has. A token is a piece of a word here, one of 1,024 pieces that were found in the same text.

```console
$ python train.py --dataset python-docs --tokenizer bpe:1024 --separator file --block_size 256 --max_iters 1000 --learning_rate 2e-3 --out_dir pretrained
```

![The loss in training and on held-out text](text-to-chat-loss.png)

It continues what you begin, in the manner of the documentation:

```console
$ python sample.py --out_dir pretrained --start "Return the" --max_new_tokens 60 --temperature 0.7
```

How much of the text does it know by heart? Of pieces of the training text, this is how often the
model continues one word for word:

```console
$ python -m gpt.evaluate pretrained --task memorisation --train_text python-docs --pieces 50
```

## Classification

The same model, with a head in the place of its output, learns to tell spam from other messages. The
test messages, a fifth, are measured once, at the end.

```console
$ python -m gpt.finetune classify --init_from pretrained --dataset sms.tsv --columns label,text --balance --val_fraction 0.1 --test_fraction 0.2 --lowercase --mask_digits --epochs 6 --dropout 0.1 --token_dropout 0.1 --learning_rate 1e-3 --out_dir spam
$ python -m gpt.classify spam "WINNER! Call 09061701461 now to claim your prize" "Are you home? I will call you at six"
```

![How many messages of each kind were taken for which](spam.png)

## Answers

The pretrained model has never seen a question. Instruction tuning shows it a thousand of them with
their answers, in the form that a template gives them. The loss counts the answers alone.

```console
$ python -m gpt.finetune instruct --init_from pretrained --dataset answers.json --template alpaca --epochs 12 --batch_size 4 --dropout 0.1 --learning_rate 1e-3 --out_dir chat
```

Now it answers, and knows where an answer ends. What it says is another matter:

```console
$ printf '%s\\n' "Convert 5 kilometers to meters." "What is the past tense of 'run'?" | python sample.py --out_dir chat --chat --temperature 0
```

With `--lora 8` it learns nearly the same from changes that are a small part of its size:

```console
$ python -m gpt.finetune instruct --init_from pretrained --dataset answers.json --template alpaca --epochs 12 --batch_size 4 --learning_rate 3e-3 --lora 8 --out_dir chat-lora
```

## Preferences

Each record also has a polite answer and one that is not. DPO makes the polite ones likelier, compared
with the model that it begins with. The loss begins at ln 2, because at first the two models are one.

```console
$ python -m gpt.finetune dpo --init_from chat --dataset answers.json --val_fraction 0.1 --test_fraction 0.2 --epochs 2 --out_dir polite
```

`accuracy` is how often the polite answer of a held-out pair has gained more, `chosen rise` by how much
the loss on polite answers has risen: what the gain has cost.

```console
$ printf '%s\\n' "Convert 5 kilometers to meters." | python sample.py --out_dir polite --chat --temperature 0
```

## What was made

Each folder has a model card, which says how the model came to be:

```console
$ head -40 polite/README.md
```

[Fine-tuning](finetuning.md) explains the methods and their settings, [Evaluation](evaluation.md) the
figures.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--spam", required=True, type=Path)
    parser.add_argument("--instructions", required=True, type=Path)
    parser.add_argument("--out", type=Path, default=DOCS / "from-text-to-chat.md")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        shutil.copy(args.spam, work / "sms.tsv")
        shutil.copy(args.instructions, work / "answers.json")
        page = re.sub(r"(?<=```console\n).*?(?=```)", lambda m: ran(m[0], work), PAGE, flags=re.S)
        args.out.write_text(page)
        for source, name in PICTURES.items():
            shutil.copy(work / source, args.out.parent / name)


def ran(block: str, work: Path) -> str:
    """The commands of a block, each with what it printed."""
    text = ""
    for line in block.splitlines():
        command = line.removeprefix("$ ")
        print(command, flush=True)
        run = re.sub(r"\bpython (?=\w+\.py)", f"python {ROOT}/", command)
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        environment = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)}
        pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        done = subprocess.run(run, shell=True, cwd=work, env=environment, **pipes)
        output = done.stdout.replace(f"{ROOT}/", "").replace(f"{work}/", "")
        output = output.replace(sys.executable, "python")
        print(output, flush=True)
        if done.returncode:
            sys.exit(f"it ended with status {done.returncode}")
        text += wrapped(line) + "\n" + shortened(output) + "\n"
    return text.removesuffix("\n")


def wrapped(line: str, width: int = 98) -> str:
    """A long command over several lines, as the shell reads them."""
    if len(line) <= width:
        return line
    rows = [""]
    for word in re.split(r" (?=--|\| |\"[A-Z])", line):
        if len(rows[-1]) + len(word) + 3 > width:
            rows.append("   ")
        rows[-1] += f" {word}" if rows[-1] else word
    return " \\\n".join(rows)


def shortened(output: str) -> str:
    """At most SHOWN lines: the first, dots, and the last."""
    lines = [line.rstrip() for line in output.strip("\n").splitlines()]
    if len(lines) > SHOWN:
        half = SHOWN // 2
        lines = [*lines[: half - 1], "...", *lines[-half:]]
    return "".join(f"{line}\n" for line in lines)


if __name__ == "__main__":
    main()
