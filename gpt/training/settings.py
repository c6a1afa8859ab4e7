"""The settings of a training run: one typed block of defaults, the presets, and the command line.

Names, meaning and presets are nanoGPT's, so that its command lines run unchanged. The defaults are
those of the demo.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import operator
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data.corpora import CORPORA


def _option(default, text: str):
    return dataclasses.field(default=default, metadata={"help": text})


@dataclass
class Settings:
    """Every setting, with its default. Raises ValueError for values that cannot work."""

    # what to learn
    dataset: str = _option(
        "python-docs", f"one of {', '.join(CORPORA)}; a text file or folder; nanoGPT's .bin files"
    )
    encoding: str = _option("utf-8", "the encoding of text files")
    tokenizer: str | None = _option(
        None, "char (the default for text), bpe:N (trained to N ids), gpt2, or a saved tokenizer"
    )
    separator: str | None = _option(
        None, "file or line: each one of the text ends with the end-of-text token"
    )
    vocab_size: int | None = _option(None, "ids in .bin data (50304 if there is no tokenizer)")
    # the model
    block_size: int = _option(64, "the context, in tokens")
    n_layer: int = _option(4, "blocks")
    n_head: int = _option(4, "attention heads in a block")
    n_embd: int = _option(128, "width")
    dropout: float = _option(0.0, "probability of dropping an activation in training")
    bias: bool = _option(False, "biases in linear layers and layer norms")
    # how to learn
    batch_size: int = _option(12, "windows of block_size tokens in a batch")
    gradient_accumulation_steps: int = _option(1, "so many batches make a step")
    max_iters: int = _option(2000, "steps")
    learning_rate: float = _option(2e-3, "at its highest")
    decay_lr: bool = _option(True, "lower it along a cosine")
    warmup_iters: int = _option(100, "steps of linear warm-up")
    lr_decay_iters: int | None = _option(None, "where the cosine ends (max_iters)")
    min_lr: float | None = _option(None, "the learning rate there (learning_rate / 10)")
    weight_decay: float = _option(0.1, "on matrices and embeddings")
    beta1: float = _option(0.9, "AdamW: memory of the gradient")
    beta2: float = _option(0.99, "AdamW: memory of its square")
    grad_clip: float = _option(1.0, "largest norm of the gradient (0: any)")
    seed: int = _option(1337, "of weights, batches and dropout")
    # what to report and keep
    out_dir: str = _option("out", "the folder of the run")
    init_from: str = _option(
        "scratch",
        "scratch; resume the run in out_dir; auto: resume if there is one to resume; "
        "or a folder with a model to fine-tune",
    )
    overwrite: bool = _option(False, "delete the run that is in out_dir")
    eval_interval: int = _option(250, "steps between estimates of the validation loss")
    eval_iters: int = _option(20, "batches in an estimate")
    log_interval: int = _option(10, "steps between lines of metrics.jsonl")
    save_interval: int | None = _option(None, "steps between checkpoints (eval_interval)")
    skip_final_eval: bool = _option(False, "do not go over the whole validation split at the end")
    eval_only: bool = _option(False, "estimate the validation loss and stop")
    # where to compute
    device: str = _option("cpu", "cpu or cuda")
    dtype: str = _option("float32", "float32 is what there is; others are noted and ignored")
    workers: str = _option(
        "auto",
        "processes that share each batch: a number, or auto: one for each physical core (or GPU), "
        "as far as they divide the batch evenly; a single one for a run of seconds, or without the "
        "extra mpi",
    )
    recompute: bool = _option(
        False, "keep less in memory: compute each block again in the backward pass"
    )

    def __post_init__(self):
        for field in dataclasses.fields(self):  # a command line is typed, a run.json may be not
            value = getattr(self, field.name)
            if not isinstance(value, tuple(_KINDS[kind] for kind in field.type.split(" | "))):
                raise ValueError(f"--{field.name} is {field.type}, not {value!r}")
        positive = "block_size n_layer n_head n_embd batch_size gradient_accumulation_steps "
        positive += "eval_interval eval_iters log_interval"
        for name in positive.split():
            if getattr(self, name) < 1:
                raise ValueError(f"--{name} is at least 1, not {getattr(self, name)}")
        for name in ("max_iters", "warmup_iters", "weight_decay", "grad_clip", "seed"):
            if not getattr(self, name) >= 0:  # NaN too
                raise ValueError(f"--{name} is at least 0, not {getattr(self, name)}")
        for name in ("lr_decay_iters", "save_interval", "vocab_size"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"--{name} is at least 1, not {getattr(self, name)}")
        for name in ("beta1", "beta2", "dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"--{name} is at least 0 and below 1, not {getattr(self, name)}")
        if not self.learning_rate > 0:
            raise ValueError(f"--learning_rate is above 0, not {self.learning_rate}")
        if self.separator not in (None, "file", "line"):
            raise ValueError(f"--separator is file or line, not {self.separator!r}")
        if self.device not in ("cpu", "cuda"):
            raise ValueError(f"--device is cpu or cuda, not {self.device!r}")
        if self.workers != "auto" and not (self.workers.isdecimal() and int(self.workers) > 0):
            raise ValueError(f"--workers is auto or a number, at least 1, not {self.workers!r}")


_KINDS = {"int": int, "float": (int, float), "bool": bool, "str": str, "None": type(None)}

# =================================================================================================
# Presets: what they change of the defaults above
# =================================================================================================

_SHAKESPEARE = dict(
    dataset="shakespeare",
    tokenizer="char",
    learning_rate=1e-3,
    min_lr=1e-4,
    beta2=0.99,
    warmup_iters=100,
    weight_decay=0.1,
    eval_interval=250,
)
_CHAR_CPU = _SHAKESPEARE | dict(
    block_size=64,
    batch_size=12,
    n_layer=4,
    n_head=4,
    n_embd=128,
    max_iters=2000,
    lr_decay_iters=2000,
    dropout=0.0,
    eval_iters=20,
    log_interval=1,
)
_CHAR_GPU = _SHAKESPEARE | dict(
    block_size=256,
    batch_size=64,
    n_layer=6,
    n_head=6,
    n_embd=384,
    max_iters=5000,
    lr_decay_iters=5000,
    dropout=0.2,
    eval_iters=200,
    log_interval=10,
)
_GPT2 = dict(
    dataset="openwebtext",
    block_size=1024,
    batch_size=12,
    gradient_accumulation_steps=40,
    n_layer=12,
    n_head=12,
    n_embd=768,
    max_iters=600_000,
    lr_decay_iters=600_000,
    learning_rate=6e-4,
    min_lr=6e-5,
    warmup_iters=2000,
    weight_decay=0.1,
    beta2=0.95,
    eval_interval=1000,
    eval_iters=200,
    log_interval=10,
)
_FINETUNE = dict(
    dataset="shakespeare",
    init_from="gpt2-xl",
    out_dir="out-shakespeare",
    block_size=1024,
    batch_size=1,
    gradient_accumulation_steps=32,
    max_iters=20,
    learning_rate=3e-5,
    decay_lr=False,
    beta2=0.95,
    eval_interval=5,
    eval_iters=40,
    log_interval=10,
)
PRESETS: dict[str, dict[str, Any]] = {
    "demo": {},
    "shakespeare-char": _CHAR_CPU,
    "baby-gpt": _CHAR_GPU,
    "gpt2": _GPT2,
    # nanoGPT's configuration files by their names
    "train_shakespeare_char": _CHAR_GPU | {"out_dir": "out-shakespeare-char"},
    "train_gpt2": _GPT2,
    "finetune_shakespeare": _FINETUNE,
}
PRESET_HELP = """\
presets (2 cores, by parameters and time):
  demo              0.80 M, 2 minutes: Python's own documentation, character by character
  shakespeare-char  0.80 M, 2 minutes: nanoGPT's recipe for a CPU
  baby-gpt          10.65 M, half a day: nanoGPT's recipe for a GPU, train_shakespeare_char.py
  gpt2              124 M, years: GPT-2's size, nanoGPT's train_gpt2.py (data/openwebtext)
  finetune_shakespeare  nanoGPT's; give --init_from the folder of a model
"""

NO_MODEL = ("scratch", "resume", "auto")  # what --init_from says where it names no model's folder

# What a preset says of a new model, and not of one to start from
OF_A_NEW_MODEL = "tokenizer vocab_size block_size n_layer n_head n_embd bias".split()

# nanoGPT's flags that mean nothing here, and why
IGNORED = {
    "compile": "there is nothing to compile",
    "backend": "processes are not started this way",
    "wandb_log": "metrics go to metrics.jsonl",
    "wandb_project": "metrics go to metrics.jsonl",
    "wandb_run_name": "metrics go to metrics.jsonl",
    "always_save_checkpoint": "the latest and the best checkpoint are both kept",
}

# =================================================================================================
# The command line
# =================================================================================================


class Parser(argparse.ArgumentParser):
    """argparse, with mistakes told in one line and not below a page of usage.

    Flags may be written with dashes for underscores: --out-dir=a-b is --out_dir=a-b.
    """

    def parse_args(self, argv: list[str]) -> argparse.Namespace:
        return super().parse_args([self._underscored(argument) for argument in argv])

    def _underscored(self, argument: str) -> str:
        name, equals, value = argument.partition("=")
        flag = name.replace("-", "_").replace("__", "--", 1)
        return flag + equals + value if flag in self._option_string_actions else argument

    def error(self, message: str):
        if message.endswith("expected one argument"):
            message += " (one that begins with a dash is given as --NAME=VALUE)"
        self.exit(2, f"{self.prog}: error: {' '.join(message.split())}\n")


def parse(argv: list[str]) -> tuple[dict[str, Any], list[str]]:
    """The settings that a command line names, presets included, and notes on what it ignores.

    Flags may be written with dashes or underscores, as `--name value` or `--name=value`. Exits
    with status 2 and a line on stderr where argparse finds a mistake.
    """
    parser = Parser(
        prog="train.py",
        description="Train a GPT on text, on your own CPU.",
        epilog=PRESET_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    parser.add_argument(
        "config", nargs="?", help="a preset, or the name of one of nanoGPT's configuration files"
    )
    parser.add_argument("--preset", choices=PRESETS, metavar="NAME", help="see below")
    for field in dataclasses.fields(Settings):
        kind = field.type.removesuffix(" | None")
        shown = "" if field.default is None else f" ({field.default})"
        parser.add_argument(
            f"--{field.name}",
            type={"int": _int, "float": _float, "bool": _bool, "str": os.path.expanduser}[kind],
            metavar=kind.upper(),
            help=(field.metadata["help"] + shown).replace("%", "%%"),
            **({"nargs": "?", "const": True} if kind == "bool" else {}),
        )
    for name in IGNORED:
        parser.add_argument(f"--{name}", nargs="?", help=argparse.SUPPRESS)
    given = vars(parser.parse_args(argv))

    name, values = given.pop("preset", None), {}
    if (config := given.pop("config", None)) is not None:
        if name is not None:
            parser.error(f"both {config} and --preset {name}: give one of them")
        name = Path(config).name.removesuffix(".py")
        if name not in PRESETS:
            parser.error(f"there is no preset {name!r}; there are {', '.join(PRESETS)}")
        if Path(config).is_file():  # the user's copy, which may have been changed
            try:
                values = read_config_file(Path(config))
            except (SyntaxError, UnicodeDecodeError, ValueError) as error:
                parser.error(f"{config}: {error}")
    names = {field.name for field in dataclasses.fields(Settings)}
    notes = [
        f"{config} sets {n}, which is ignored: {IGNORED.get(n, 'there is no such setting')}"
        for n, value in values.items()
        if n not in names and not (n in IGNORED and (not value or n.startswith("wandb")))
    ]
    values = PRESETS[name or "demo"] | {n: v for n, v in values.items() if n in names}
    init_from = (values | given).get("init_from", "scratch")
    if init_from == "resume" and name is not None:
        notes.append(f"{config or name} is ignored: a resumed run keeps its settings")
        values = {n: v for n, v in values.items() if n == "out_dir"}
    elif init_from not in NO_MODEL:  # the model to start from has these
        values = {n: v for n, v in values.items() if n not in OF_A_NEW_MODEL}
    notes += [f"--{n} is ignored: {IGNORED[n]}" for n in given if n in IGNORED]
    given = values | {n: v for n, v in given.items() if n not in IGNORED}
    if given.get("dtype", "float32") != "float32":
        notes.append(f"--dtype {given.pop('dtype')} is ignored: this computes in float32")
    return given, notes


def read_config_file(path: Path) -> dict[str, Any]:
    """What a configuration file of nanoGPT's sets, without running it.

    Its lines are `NAME = VALUE`; a value is a constant, a name set before, or a sum or product of
    such. Other values are left out if they are for names that mean nothing here. Raises ValueError
    for a setting whose value is something else.
    """
    operations = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul}
    operations |= {ast.Div: operator.truediv, ast.FloorDiv: operator.floordiv}
    values = {}

    def value_of(node: ast.expr):
        if isinstance(node, ast.BinOp) and type(node.op) in operations:
            return operations[type(node.op)](value_of(node.left), value_of(node.right))
        if isinstance(node, ast.Name):
            return values[node.id]
        return ast.literal_eval(node)

    names = {field.name for field in dataclasses.fields(Settings)}
    for line in ast.parse(path.read_bytes()).body:
        if not isinstance(line, ast.Assign):
            if isinstance(line, (ast.Import, ast.ImportFrom, ast.Expr)):
                continue
            raise ValueError(f"line {line.lineno} is not NAME = VALUE, and is not run")
        for target in line.targets:
            name = ast.unparse(target)
            try:
                values[name] = value_of(line.value)
            except (ValueError, TypeError, ArithmeticError, KeyError):
                if name in names:
                    raise ValueError(
                        f"line {line.lineno} is not run: give --{name} on the command line instead"
                    ) from None
    return {n: os.path.expanduser(v) if isinstance(v, str) else v for n, v in values.items()}


def print_anything() -> None:
    """From now on, print characters that the output's encoding lacks as escapes, without errors."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _bool(text: str) -> bool:
    try:
        return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
    except KeyError:
        raise argparse.ArgumentTypeError(f"is True or False, not {text!r}") from None


def _int(text: str) -> int:
    try:
        value = float(text)  # 1e5, 600_000
        if value != int(value):
            raise ValueError
        return int(value)
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(f"is a whole number, not {text!r}") from None


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"is a number, not {text!r}") from None
