"""Fine-tune a model: python -m gpt.finetune METHOD --init_from DIR --dataset FILE --out_dir DIR"""

from __future__ import annotations

import argparse
import functools
import importlib
import sys
from dataclasses import fields
from types import ModuleType

from ..checkpoint import local_folder
from ..commandline import Parser
from ..training.command import run_command
from ..training.settings import ignored
from .tune import tune

PROGRAM = "gpt.finetune"
METHODS = {
    "classify": "labels for texts: spam or not, a number, several labels at once",
    "instruct": "to answer, from conversations or from instructions and answers",
    "distill": "from a larger model's probabilities",
    "reward": "to say which of two answers is better",
    "dpo": "to prefer the better of two answers (DPO, IPO, KTO, SimPO)",
    "grpo": "from rewards for its own answers, which a Python function gives",
}
ABOUT = f"""\
usage: python -m {PROGRAM} METHOD --init_from DIR --dataset FILE --out_dir DIR ...

What a model learns, beyond continuing text:
""" + "".join(f"  {name:<10}{text}\n" for name, text in METHODS.items())
ABOUT += f"\npython -m {PROGRAM} METHOD --help shows the settings of a method.\n"


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    name = next(iter(sys.argv[1:] if argv is None else argv), "--help")
    if name in ("-h", "--help"):
        print(ABOUT, end="")
        return 0
    if name not in METHODS:
        print(f"{PROGRAM}: error: METHOD is {', '.join(METHODS)}, not {name!r}", file=sys.stderr)
        return 2
    method = importlib.import_module(f".{name}", __package__)
    parse_for, tune_with = functools.partial(parse, method), functools.partial(tune, method)
    return run_command(("-m", PROGRAM), argv, parse_for, tune_with, method.Settings)


def parse(method: ModuleType, argv: list[str]) -> tuple[dict, list[str]]:
    """The settings that a command line names, and notes on what it ignores."""
    parser = Parser(
        prog=f"{PROGRAM} {argv[0]}",
        description=method.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    parser.add_settings(method.Settings)
    help_of = {field.name: field.metadata["help"] for field in fields(method.Settings)}
    given = vars(parser.parse_args(argv[1:]))
    for name in ("dataset", "init_from"):
        if not given.get(name) and given.get("init_from") != "resume":
            parser.error(f"--{name} is missing: {help_of[name]}")
    given["init_from"] = str(local_folder(given["init_from"]))  # hf:OWNER/NAME is fetched
    return given, ignored(given)


if __name__ == "__main__":
    sys.exit(main())
