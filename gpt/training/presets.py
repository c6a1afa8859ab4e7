"""The presets, and the command line of train.py.

Presets are what nanoGPT's configuration files set, under names of ours and of theirs, so that a
command line of nanoGPT's runs unchanged: `python train.py config/train_shakespeare_char.py` too.
The demo is a preset as well: that of a command line without --preset and --dataset.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import operator
import os
from pathlib import Path
from typing import Any

from ..checkpoint import local_folder
from ..commandline import Parser, whole_number
from ..models import name_parts, read_parts
from .depth import describe, settings_of_depth
from .settings import NEW, NO_MODEL, Settings, ignored

# What each of them changes in the defaults of settings.py

_DEMO = dict(
    dataset="python-docs",
    tokenizer="bpe:4096",
    model="modern",
    block_size=128,
    batch_size=12,
    max_iters=600,
    optimizer="muon",
    muon_lr=0.03,
    learning_rate=2e-2,
    schedule="wsd",
    warmup_iters=20,
    eval_interval=100,
    eval_iters=10,
)
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
_MODERN = _SHAKESPEARE | dict(
    model="modern",
    block_size=64,
    optimizer="muon",
    learning_rate=2e-2,
    schedule="wsd",
    min_lr=0.0,
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
    "demo": _DEMO,
    "shakespeare-char": _CHAR_CPU,
    "baby-gpt": _CHAR_GPU,
    "speedrun": _MODERN
    | dict(
        parts="rotary,qk_norm,relu2,zero_init,embedding_norm,ngrams=2+3+4",
        batch_size=32,
        n_layer=1,
        n_head=2,
        n_embd=64,
        max_iters=64,
        warmup_iters=2,
        muon_lr=0.04,
        muon_momentum=0.85,
        ngram_lr=0.1,
        eval_interval=64,
        eval_iters=1,
    ),
    "modern": _MODERN
    | dict(
        parts="rotary,qk_norm,relu2,zero_init,embedding_norm",
        batch_size=24,
        n_layer=4,
        n_head=4,
        n_embd=128,
        max_iters=1150,
        warmup_iters=20,
        muon_lr=0.03,
        muon_momentum=0.9,
        decay_fraction=0.9,
        weight_decay=0.03,
        eval_interval=575,
        eval_iters=5,
    ),
    "gpt2": _GPT2,
    # nanoGPT's configuration files by their names
    "train_shakespeare_char": _CHAR_GPU | {"out_dir": "out-shakespeare-char"},
    "train_gpt2": _GPT2,
    "finetune_shakespeare": _FINETUNE,
}
PRESET_HELP = """\
presets (parameters, and the time on 2 cores); without --preset and --dataset it is the demo:
  demo              1.84 M, 2 minutes: Python's own documentation, or another --dataset
  shakespeare-char  0.80 M, 2 minutes: nanoGPT's recipe for a CPU
  speedrun          2.4 M, 4 seconds: the loss of shakespeare-char or less, after 64 steps
  modern            0.80 M, 2 minutes: a loss of 1.57, where shakespeare-char ends at 1.90
  baby-gpt          10.65 M, half a day: nanoGPT's recipe for a GPU, train_shakespeare_char.py
  gpt2              124 M, years: GPT-2's size, nanoGPT's train_gpt2.py (data/openwebtext)
  finetune_shakespeare  nanoGPT's; give --init_from the folder of a model
"""

# Settings of a preset that are for new models, and not for one that --init_from names
OF_A_NEW_MODEL = (
    "model parts tokenizer vocab_size block_size n_layer n_head n_kv_head n_embd bias".split()
)

# nanoGPT's flags that have no meaning here, and why
IGNORED = {
    "backend": "processes are not started this way",
    "wandb_log": "metrics go to metrics.jsonl",
    "wandb_project": "metrics go to metrics.jsonl",
    "wandb_run_name": "metrics go to metrics.jsonl",
    "always_save_checkpoint": "the latest and the best checkpoint are both kept",
}


def parse(argv: list[str]) -> tuple[dict[str, Any], list[str]]:
    """The settings that a command line names, presets included, and notes on what it ignores.

    Flags may be written with dashes or with underscores, as `--name value` or `--name=value`. Exits
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
    parser.add_argument(
        "--depth",
        type=whole_number,
        metavar="INT",
        help="in place of a preset: a new modern model of so many layers, whose width, heads, "
        "context, batch, steps, learning rates and weight decay follow; other flags override them",
    )
    parser.add_settings(Settings)
    for name in IGNORED:
        parser.add_argument(f"--{name}", nargs="?", help=argparse.SUPPRESS)
    given = vars(parser.parse_args(argv))
    if "parts" in given:
        try:
            given["parts"] = name_parts(read_parts(given["parts"]))
        except ValueError as error:
            parser.error(str(error))
    if "init_from" in given:  # hf:OWNER/NAME becomes the folder of the model, once it is fetched
        given["init_from"] = str(local_folder(given["init_from"]))

    depth, name, values = given.pop("depth", None), given.pop("preset", None), {}
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
    new = "dataset" not in given and given.get("init_from", "auto") in NEW
    if name is None and depth is None and new:
        name = "demo"
    values = PRESETS.get(name, {}) | {n: v for n, v in values.items() if n in names}
    init_from = (values | given).get("init_from", "scratch")
    if init_from == "resume" and name is not None:
        notes.append(f"{config or name} is ignored: a resumed run keeps its settings")
        values = {n: v for n, v in values.items() if n == "out_dir"}
    elif init_from not in NO_MODEL:  # the model to start from has these
        values = {n: v for n, v in values.items() if n not in OF_A_NEW_MODEL}
    notes += [f"--{n} is ignored: {IGNORED[n]}" for n in given if n in IGNORED]
    given = {n: v for n, v in given.items() if n not in IGNORED}
    if depth is not None:
        if name is not None:
            parser.error(f"both --depth {depth} and the preset {name}: give one of them")
        if init_from == "resume":
            notes.append("--depth is ignored: a resumed run keeps its settings")
        elif init_from not in NO_MODEL:
            parser.error(f"--depth is for a new model: leave it out, for {init_from} has its size")
        else:
            values = settings_of_depth(depth, given)
            notes.append(describe(depth, values))
    else:
        values = fitted(values, given)
    given = values | given
    return given, notes + ignored(given)


def fitted(preset: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """The settings of a preset that fit the given ones.

    A preset's parts are for its own kind of model. With `--schedule wsd`, a warm-up has at most a
    fifth of the steps, and what the decay leaves of them.

    >>> fitted(PRESETS["speedrun"], {"max_iters": 5})["warmup_iters"]
    1
    """
    both, fitting = preset | given, dict(preset)
    if both.get("model") != preset.get("model"):
        fitting.pop("parts", None)
    if both.get("schedule") == "wsd" and "warmup_iters" in preset:
        steps = both.get("lr_decay_iters") or both["max_iters"]
        decay = round(both.get("decay_fraction", Settings.decay_fraction) * steps)
        fitting["warmup_iters"] = max(0, min(preset["warmup_iters"], steps // 5, steps - decay))
    return fitting


def read_config_file(path: Path) -> dict[str, Any]:
    """What a configuration file of nanoGPT's sets, without running it.

    Its lines are `NAME = VALUE`, where a value is a constant, a name that was set before, or a sum
    or product of these. Other values are left out where the name is not a setting, and raise
    ValueError where it is one.
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
