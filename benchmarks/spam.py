"""Spam or not: how often small models of ours are right, and how often logistic regression is.

    python benchmarks/spam.py --dataset sms_spam.tsv --seeds 1 2 3 4 5 --out_dir out-spam

FILE is the SMS Spam Collection (Almeida and Hidalgo, 2011): label, tab, text, no header line. Needs
scikit-learn. For each seed, 747 messages of each label are drawn and split: 70% to train, 10% to
validate, 20% to test. "any" splits them as they come; "apart" keeps equal messages on one side,
since many of the collection's messages occur several times.

Ours are models of 150,000 weights, made by the commands that anybody would use: a tokenizer of the
training messages, which reads small letters and masks digits; train.py on python-docs, then on the
training messages; python -m gpt.finetune classify. Columns:

mean     the mean of both models' probabilities, as python -m gpt.classify DIR --average DIR2 gives
gpt2     a GPT-2 alone
llama    a model of the Llama family alone
lora     the Llama with adapters, which are trained in place of all weights
C = 1    logistic regression on character n-grams, as scikit-learn has it
tuned    the same, with the C that is best on the validation part

Settings were chosen on the held-out parts of seeds 11 to 16, and which models are averaged on the
validation parts of seeds 1 to 5; nothing on the test parts of seeds 1 to 5. The seconds are those
of all models of ours for one split of one seed, one process at a time.
"""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

import tokenizer as tokenizers
from gpt.classify import mean_probabilities
from gpt.data import read_records
from gpt.finetune.classify import Settings, divide
from gpt.models import load_classifier
from tensorlite.device import random
from tokenizer import BPETokenizer
from tokenizer.base import END_OF_TEXT
from tokenizer.normalizers import LOWERCASE, normalize, with_normalizer

ROOT = Path(__file__).resolve().parents[1]
STEPS = LOWERCASE, ("digits", "0")
FAMILIES = "gpt2", "llama"
IDS = 768  # of the tokenizer, and the end of a text
MODEL = "--n_layer=2 --n_head=4 --n_embd=64 --block_size=128 --batch_size=6".split()
PRETRAIN = "--max_iters=200 --warmup_iters=20 --learning_rate=2e-3 --eval_interval=200".split()
PRETRAIN += "--eval_iters=1 --skip_final_eval=True --workers=1 --overwrite=True".split()
CLASSIFY = "--epochs=8 --batch_size=16 --learning_rate=1e-3 --weight_decay=0.1".split()
CLASSIFY += "--warmup_iters=50 --dropout=0.1 --token_dropout=0.1 --workers=1".split()
CLASSIFY += ["--overwrite=True"]
LORA = "--lora=16 --token_dropout=0.05".split()
COPIES = 3  # of the training messages, in another order each, to pretrain on


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--dataset", required=True, type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--out_dir", required=True, type=Path)
    args = parser.parse_args()
    if importlib.util.find_spec("sklearn") is None:
        sys.exit("logistic regression is scikit-learn's here: pip install scikit-learn")
    dataset, table = args.dataset.resolve(), {}
    for split in ("any", "apart"):
        for seed in args.seeds:
            out = args.out_dir.resolve() / f"{split}-{seed}"
            table[split, seed] = row = measure(dataset, split, seed, out)
            if len(table) == 1:
                print("split  seed  " + "".join(f"{name:>15}" for name in row))
            print(f"{split:<7}{seed:<6}" + show(row.values()), flush=True)
    for split in ("any", "apart"):
        rows = [list(row.values()) for (name, _), row in table.items() if name == split]
        print(f"{split:<7}mean  " + show(np.mean(rows, axis=0)))
        error = np.std(rows, axis=0, ddof=min(1, len(rows) - 1)) / len(rows) ** 0.5
        print(f"{split:<7}error " + show(error))
    accuracy = np.mean([row["mean"] for (split, _), row in table.items() if split == "any"])
    print(f"mean test accuracy {accuracy:.1f}")


def show(values) -> str:
    return "".join(f"{value:15.2f}" for value in values)


def measure(dataset: Path, split: str, seed: int, out: Path) -> dict[str, float]:
    """Test accuracies in per cent of one seed and split, by the names of the columns."""
    given = dict(columns="label,text", balance=True, val_fraction=0.1, test_fraction=0.2, seed=seed)
    if split == "apart":
        given["group_column"] = "text"
    records = read_records(dataset, ["label", "text"])
    labelled, (train, val, test) = divide(Settings(**given), records)
    messages = [labelled.texts[row] for row in train]
    out.mkdir(parents=True, exist_ok=True)
    orders = [random(seed, "order", copy).permutation(len(train)) for copy in range(COPIES)]
    text = "\n".join(messages[i] for order in orders for i in order)
    (out / "messages.txt").write_text(text + "\n", encoding="utf-8")

    began, places = time.perf_counter(), {}
    tokenizer = make_tokenizer(messages)
    for family in FAMILIES:
        folder = out / family
        tokenizer.save(folder / "tokenizer")
        pretrain(family, folder, seed)
        places[family] = folder / "tuned"
        classify(dataset, given, folder, places[family])
    if split == "any":
        places["lora"] = out / "llama" / "lora"
        classify(dataset, given, out / "llama", places["lora"], LORA)
    seconds = time.perf_counter() - began

    texts, right = [labelled.texts[row] for row in test], labelled.targets[test]
    p = {
        name: mean_probabilities([(load_classifier(place), tokenizers.load(place))], texts)
        for name, place in places.items()
    }
    p = {"mean": np.mean([p[name] for name in FAMILIES], axis=0)} | p
    row = {name: 100 * (q.argmax(axis=1) == right).mean() for name, q in p.items()}
    row.setdefault("lora", np.nan)
    return row | logistic_regression(labelled, train, val, test) | {"seconds": seconds}


def make_tokenizer(messages: list[str]):
    read = [normalize(message, STEPS) for message in messages]
    tokenizer = BPETokenizer.train(read, IDS + 1, special_tokens=[END_OF_TEXT])
    return with_normalizer(tokenizer, STEPS)


def pretrain(family: str, folder: Path, seed: int) -> None:
    """A model of python-docs, and then of the training messages."""
    docs, both = folder / "docs", folder / "pretrained"
    how = [*PRETRAIN, f"--seed={seed}"]
    shape = [f"--tokenizer={folder / 'tokenizer'}", f"--model={family}", *MODEL]
    run("train.py", f"--out_dir={docs}", *shape, *how)
    text = [f"--dataset={folder.parent / 'messages.txt'}", "--separator=line", "--batch_size=6"]
    run("train.py", f"--out_dir={both}", f"--init_from={docs}", *text, *how)


def classify(dataset: Path, given: dict, folder: Path, out: Path, more=()) -> None:
    """The pretrained model of a folder, tuned to tell spam."""
    settings = [f"--{name}={value}" for name, value in given.items()]
    paths = [f"--init_from={folder / 'pretrained'}", f"--dataset={dataset}", f"--out_dir={out}"]
    run("-m", "gpt.finetune", "classify", *paths, *settings, *CLASSIFY, *more)


def run(*argv: str) -> None:
    """Run a command of ours. Ends this program, with what the command said, if it fails."""
    command = [sys.executable, *argv]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stdout[-500:]}{done.stderr}")


def logistic_regression(labelled, train, val, test) -> dict[str, float]:
    """Accuracies of scikit-learn's model, of TF-IDF of n-grams of 2 to 5 characters in words."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    vectorizer = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True)
    texts = np.array(labelled.texts, object)
    x = (
        vectorizer.fit_transform(texts[train]),
        *map(vectorizer.transform, (texts[val], texts[test])),
    )
    y = [labelled.targets[part] for part in (train, val, test)]
    scored = {}
    for C in (1, 0.1, 10, 100, 1000):
        model = LogisticRegression(C=C, max_iter=1000).fit(x[0], y[0])
        scored[C] = [100 * model.score(x[i], y[i]) for i in (1, 2)]
    return {"C = 1": scored[1][1], "tuned": max(scored.values(), key=lambda pair: pair[0])[1]}


if __name__ == "__main__":
    main()
