"""How good is a model, and how sure is that?

    python -m gpt.evaluate out --task perplexity --dataset held-out.txt --stride 256
    python -m gpt.evaluate out-a out-b --task multiple-choice --dataset hellaswag.jsonl
    python -m gpt.evaluate out --task exact-match --dataset questions.jsonl --json report.json
    python -m gpt.evaluate out --task generate --dataset questions.jsonl --num_samples 10 --k 1,5
    python -m gpt.evaluate out --task suite --dataset FOLDER --picture suite.png
    python -m gpt.evaluate --task contamination --dataset arc.jsonl --train_text corpus.txt
    python -m gpt.evaluate out --task memorisation --train_text corpus.txt

DIR is the folder of a run of train.py, or any folder that gpt.load opens, or hf:OWNER/NAME, which
is fetched once. Several are measured on the same items and shown side by side.

perplexity        of a text, read in windows that slide by --stride tokens. --dataset is a text, a
bits-per-byte     folder of texts, or records with a column `text`. bits-per-byte is the same
                  measurement; it compares models with different tokenizers.
multiple-choice   the likeliest of some answers, on the files of HellaSwag (ctx, endings, label),
                  ARC (question, choices, answerKey), MMLU (question, choices, answer, subject), or
                  your own (question, choices, answer).
exact-match       the greedy answer to a question, compared with `answer`, a text or a list of them.
generate          several answers are drawn to each: pass@k, and how often the most frequent one is
                  right (self-consistency).
suite             a folder of data sets, each NAME.jsonl with a NAME.json that describes it. The
                  figure "core" sums them up: 0 for guessing, 1 for all right.
contamination     which items of --dataset are in --train_text: N words in a row (--ngram).
memorisation      how often the model continues pieces of --train_text word for word.

Every figure has a standard error and a 95 % interval. docs/evaluation.md says how they are made.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import tokenizer as tokenizers

from ..checkpoint import local_folder, write_json
from ..commandline import Parser, run_program
from ..data import read_records, read_texts, texts_in
from ..data.records import FORMATS
from ..models import load
from .answers import PROMPT, Asking, exact_match, sampled
from .choices import multiple_choice, questions_of
from .contamination import N, contamination, texts_of_items
from .loss import AT_A_TIME
from .memorisation import LENGTH, memorisation
from .perplexity import perplexity
from .report import draw, make_report, table
from .result import Result
from .suite import read_suite, run_suite

PROGRAM = "gpt.evaluate"
TASKS = ["perplexity", "bits-per-byte", "multiple-choice", "exact-match", "generate", "suite"]
TASKS += ["contamination", "memorisation"]
ASKING = ("exact-match", "generate", "suite")  # the tasks in which a model writes answers
FLAGS = {  # which tasks a flag says something about, and its type and help; all begin as None
    "stride": (TASKS[:2], int, "how far a window moves, in tokens (half of the context)"),
    "chat": (ASKING, None, "put the question into the tokenizer's chat template"),
    "prompt": (ASKING, str, f"what is read, with {{question}} in it ({PROMPT!r}; in chat, that)"),
    "pattern": (ASKING, str, "a regular expression: its last match in a text is the answer"),
    "max_new_tokens": (ASKING, int, "the longest answer (50)"),
    "num_samples": (["generate"], int, "answers to each question (5)"),
    "temperature": (["generate"], float, "of drawing them (0.8)"),
    "k": (["generate"], str, "of pass@k, several with commas (1)"),
    "train_text": (TASKS[-2:], os.path.expanduser, "the text that the model was trained on"),
    "ngram": (["contamination"], int, f"words in a row that count as seen ({N})"),
    "pieces": (["memorisation"], int, "pieces of the text that are tried (100)"),
    "length": (["memorisation"], int, f"tokens that are read, and continued ({LENGTH})"),
}


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    return run_program(PROGRAM, lambda: evaluate(parse(sys.argv[1:] if argv is None else argv)))


def parse(argv: list[str]) -> argparse.Namespace:
    raw = argparse.RawDescriptionHelpFormatter
    parser = Parser(f"python -m {PROGRAM}", None, __doc__, formatter_class=raw, allow_abbrev=False)
    add = parser.add_argument
    path = os.path.expanduser
    add("models", nargs="*", type=path, metavar="DIR", help="the folders of models")
    add("--task", choices=TASKS, required=True, help="what is measured")
    add("--dataset", type=path, metavar="FILE", help="what it is measured on")
    add("--json", type=path, metavar="FILE", help="write figures and items there")
    add("--picture", type=path, metavar="FILE", help="draw the figures there, as a PNG file")
    for name, (tasks, kind, text) in FLAGS.items():
        how = {"type": kind} if kind else {"action": "store_const", "const": True}
        add(f"--{name}", help=f"{text} [{', '.join(tasks)}]".replace("%", "%%"), **how)
    add(
        "--stop",
        action="append",
        metavar="TEXT",
        help="ends an answer; may be repeated (a line end)",
    )
    add("--batch_size", type=int, metavar="N", help="texts that are read together")
    add("--seed", type=int, default=1337, help="of what is drawn")
    add("--encoding", default="utf-8", help="of text files")
    add("--columns", default="", metavar="A,B", help="names of a table without a header line")
    add("--tokenizer", type=path, help="a name or path, if DIR holds none")
    add("--device", choices=("cpu", "cuda"), default="cpu")
    options = parser.parse_args(argv)
    check(parser, options)
    return options


def check(parser: Parser, options: argparse.Namespace) -> None:
    """Options that belong together, and those that are missing."""
    task = options.task
    for name, (tasks, _, _) in FLAGS.items():
        if getattr(options, name) is not None and task not in tasks:
            parser.error(f"--{name} says nothing about --task {task}")
    if options.stop is not None and task not in ASKING:
        parser.error(f"--stop says nothing about --task {task}")
    needed = "train_text" if task == "memorisation" else "dataset"
    for name in {needed, "train_text"} if task == "contamination" else {needed}:
        if not getattr(options, name):
            parser.error(f"--task {task} needs --{name}")
    if task == "memorisation" and options.dataset:
        parser.error("--task memorisation has a --train_text, and no --dataset")
    if task == "contamination" and options.models:
        parser.error("--task contamination is about texts: give no DIR")
    if task != "contamination" and not options.models:
        parser.error(f"--task {task} needs a DIR, the folder of a model")
    if len(set(options.models)) < len(options.models):
        parser.error("a DIR is there twice")
    if options.batch_size is not None and options.batch_size < 1:
        parser.error(f"--batch_size is at least 1, not {options.batch_size}")


def evaluate(options: argparse.Namespace) -> dict:
    """Do what the options say, print a table, and return the report."""
    for path in (options.json, options.picture):
        if path and not Path(path).absolute().parent.is_dir():
            raise FileNotFoundError(f"there is no folder {Path(path).parent} to write {path} to")
    if options.task == "contamination":
        results = {options.train_text: measure_contamination(options)}
    else:
        measure = prepare(options)
        results = {}
        for directory in options.models:
            model = load(local_folder(directory)).to(options.device)
            tokenizer = tokenizers.find(options.tokenizer or str(local_folder(directory)))
            results[directory] = measure(model, tokenizer)
    report = make_report(options.task, options.dataset or options.train_text, results)
    print(table(report))
    if options.json:
        write_json(options.json, report)
    if options.picture:
        draw(report, options.picture)
    return report


def prepare(options: argparse.Namespace):
    """The function of a model and a tokenizer that measures; the data is read and checked here."""
    given = {name: getattr(options, name) for name in FLAGS if getattr(options, name) is not None}
    task, rows = options.task, options.batch_size
    if task in TASKS[:2]:
        texts, stride = read_documents(options.dataset, options), options.stride
        return lambda m, t: headline(perplexity(m, t, texts, stride, at_a_time(m, rows)), task)
    if task == "memorisation":
        texts = read_documents(options.train_text, options)
        how = {n: given[n] for n in ("pieces", "length") if n in given}
        how |= dict(batch_size=rows or 8, seed=options.seed)
        return lambda m, t: memorisation(m, t, texts, **how)
    how = {n: given[n] for n in ("chat", "prompt", "pattern", "max_new_tokens") if n in given}
    asking = Asking(**how, stop=options.stop, batch_size=rows or 8, seed=options.seed)
    if task == "suite":
        tasks = read_suite(options.dataset)
        return lambda m, t: run_suite(m, t, tasks, asking, at_a_time(m, rows))
    columns = [name for name in options.columns.split(",") if name]
    records = read_records(options.dataset, columns, options.encoding)
    if task == "multiple-choice":
        form, questions = questions_of(records)
        print(f"{options.dataset} is read as {form}: {len(questions)} questions")
        return lambda m, t: multiple_choice(m, t, questions, at_a_time(m, rows))
    if task == "exact-match":
        return lambda m, t: exact_match(m, t, records, asking)
    how = {n: given[n] for n in ("num_samples", "temperature") if n in given}
    how["ks"] = whole_numbers(options.k or "1")
    return lambda m, t: sampled(m, t, records, asking, **how)


def whole_numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"--k is whole numbers with commas between them, not {text!r}") from None


def at_a_time(model, batch_size: int | None) -> int:
    """How many tokens are read together: those of so many contexts."""
    return batch_size * model.config.block_size if batch_size else AT_A_TIME


def headline(result: Result, task: str) -> Result:
    """With the figure that the task is named for in front."""
    name = task.replace("-", "_")
    result.figures = {name: result.figures[name]} | result.figures
    return result


def read_documents(path: str, options: argparse.Namespace) -> list[str]:
    """The texts of a file or folder, or the column `text` of records."""
    if Path(path).suffix.lower() in FORMATS and Path(path).is_file():
        return texts_in(read_records(path, (), options.encoding), "text")
    return read_texts(path, options.encoding)


def measure_contamination(options: argparse.Namespace) -> Result:
    columns = [name for name in options.columns.split(",") if name]
    items = texts_of_items(read_records(options.dataset, columns, options.encoding))
    texts = read_documents(options.train_text, options)
    return contamination(items, texts, N if options.ngram is None else options.ngram)


if __name__ == "__main__":
    sys.exit(main())
