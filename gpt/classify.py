"""The labels of texts, by a model that `python -m gpt.finetune classify` has made.

    python -m gpt.classify out-sms "You have won" "See you at six"
    python -m gpt.classify out-sms --file messages.txt       a text a line
    tail -f messages.txt | python -m gpt.classify out-sms
    python -m gpt.classify hf:OWNER/NAME "A fine film"

Each text gives a line: its label and the probability of the label, with a tab between them; of a
model for several labels at once, all that are more probable than not, or "-"; the number, in a
regression. --all shows every label. --average DIR2 takes the mean of two models' probabilities, and
may be repeated: models that read texts in different ways make different mistakes, and a few
together make fewer (Dietterich, 2000). A folder may also be one of transformers' classifiers
(GPT2ForSequenceClassification, LlamaForSequenceClassification, ...), or that of an adapter.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np

import tokenizer as tokenizers
from tokenizer.texts import read_text

from . import checkpoint
from .commandline import Parser, run_program
from .finetune.scores import scores, text_ids
from .models import Classifier, load_classifier

PROGRAM = "gpt.classify"
AT_A_TIME = 512  # texts of a file that are sorted by length and read together


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    return run_program(PROGRAM, lambda: classify(parse(sys.argv[1:] if argv is None else argv)))


def parse(argv: list[str]) -> argparse.Namespace:
    raw = argparse.RawDescriptionHelpFormatter
    parser = Parser(f"python -m {PROGRAM}", None, __doc__, formatter_class=raw, allow_abbrev=False)
    add = parser.add_argument
    add(
        "model", type=os.path.expanduser, metavar="DIR", help="the model's folder, or hf:OWNER/NAME"
    )
    add("texts", nargs="*", metavar="TEXT", help="what to classify (-, or none: lines of stdin)")
    add("--file", type=os.path.expanduser, metavar="FILE", help="a text a line; - is stdin")
    add(
        "--average",
        type=os.path.expanduser,
        metavar="DIR",
        action="append",
        default=[],
        help="another model for the same labels; the mean of the probabilities counts",
    )
    add("--all", action="store_true", help="show the probability of every label")
    add("--tokenizer", type=os.path.expanduser, help="a name or path, if DIR holds none")
    add("--encoding", default="utf-8", help="of the file (utf-8)")
    add("--device", choices=("cpu", "cuda"), default="cpu", help="where to compute (cpu)")
    if not argv:
        parser.error("DIR is missing: the folder of a classifier; see --help")
    options = parser.parse_intermixed_args(argv)
    if options.file is not None and options.texts:
        parser.error("texts are given here, or in a --file: not both")
    return options


def classify(options: argparse.Namespace) -> None:
    """Do what the options say."""
    opened = [open_model(folder, options) for folder in (options.model, *options.average)]
    first, _ = opened[0]
    for (model, _), folder in zip(opened[1:], options.average):
        if (model.labels, model.problem) != (first.labels, first.problem):
            raise ValueError(
                f"--average {folder}: its labels are {', '.join(model.labels)} ({model.problem}), "
                f"those of {options.model} {', '.join(first.labels)} ({first.problem})"
            )
    for texts in portions_of_texts(options):
        for row in mean_probabilities(opened, texts):
            print(line(first, row, options.all), flush=True)


def open_model(folder: str, options: argparse.Namespace):
    """(the classifier, its tokenizer) in a folder. Raises ValueError if they do not fit."""
    path = checkpoint.local_folder(folder)
    model = load_classifier(path).to(options.device)
    tokenizer = tokenizers.find(options.tokenizer or str(path))
    if tokenizer.vocab_size > model.config.vocab_size:
        raise ValueError(
            f"the tokenizer has {tokenizer.vocab_size} ids, and the model in {folder} knows "
            f"{model.config.vocab_size}: it is another model's"
        )
    return model, tokenizer


def mean_probabilities(opened: list[tuple], texts: list[str]) -> np.ndarray:
    """The mean over some (classifier, tokenizer) of the probabilities of the labels, (N, n)."""
    return np.mean(
        [
            model.probabilities(scores(model, text_ids(model, tokenizer, texts)[0]))
            for model, tokenizer in opened
        ],
        axis=0,
    )


def portions_of_texts(options: argparse.Namespace) -> Iterator[list[str]]:
    """The texts that the options name, some at a time; those of a terminal or a pipe one by one."""
    if options.texts and options.texts != ["-"]:
        yield options.texts
    elif options.file not in (None, "-"):
        text = read_text(Path(options.file), options.encoding)
        lines = iter(text.replace("\r\n", "\n").removesuffix("\n").split("\n") if text else [])
        while texts := list(islice(lines, AT_A_TIME)):
            yield texts
    else:
        for text in sys.stdin:
            yield [text.rstrip("\r\n")]


def line(model: Classifier, probabilities: np.ndarray, every: bool = False) -> str:
    """What is printed for a text, of the probabilities of its labels (n,), likeliest first.

    >>> line(model, np.array([0.02, 0.98]))  # doctest: +SKIP
    'spam\\t0.9800'
    """
    if model.problem == checkpoint.REGRESSION:
        return "\t".join(f"{value:.6g}" for value in probabilities)
    order = np.argsort(-probabilities, kind="stable")
    if model.problem == checkpoint.SINGLE and not every:
        order = order[:1]
    elif not every:
        order = order[probabilities[order] > 0.5]
    return "\t".join(f"{model.labels[i]}\t{probabilities[i]:.4f}" for i in order) or "-"


if __name__ == "__main__":
    sys.exit(main())
