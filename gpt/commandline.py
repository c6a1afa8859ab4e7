"""Command lines: each field of a dataclass of settings is a flag, and errors are one line.

This is argparse with nanoGPT's habits: `--name value` or `--name=value`, True and False written
out, whole numbers as 1e5 or 600_000. A mistake is one line on stderr, with exit status 2.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import sys
import warnings
from collections.abc import Callable

import tensorlite as tl
from tensorlite import parallel
from tensorlite.device import keep_freed_memory
from tensorlite.parallel import Team


def option(default, text: str):
    """A field of a class of settings: its default, and what --help says about it."""
    return dataclasses.field(default=default, metadata={"help": text})


class Parser(argparse.ArgumentParser):
    """argparse, but a mistake is one line on stderr, without the page of usage.

    Flags may be written with dashes instead of underscores: --out-dir=a-b is --out_dir=a-b.
    """

    def add_settings(self, settings: type) -> None:
        """A flag for every field of this dataclass of settings."""
        types = {"int": whole_number, "float": _float, "bool": _bool, "str": os.path.expanduser}
        for field in dataclasses.fields(settings):
            kind = field.type.removesuffix(" | None")
            shown = "" if field.default in (None, "") else f" ({field.default})"
            self.add_argument(
                f"--{field.name}",
                type=types[kind],
                metavar=kind.upper(),
                help=(field.metadata["help"] + shown).replace("%", "%%"),
                **({"nargs": "?", "const": True} if kind == "bool" else {}),
            )

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


def _bool(text: str) -> bool:
    try:
        return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
    except KeyError:
        raise argparse.ArgumentTypeError(f"is True or False, not {text!r}") from None


def whole_number(text: str) -> int:
    """The number that a flag gives, such as 100, 1e5 or 600_000. Raises argparse's error."""
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


def print_anything() -> None:
    """From now on, print characters that the output's encoding lacks as escapes, without errors."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def one_line(error: Exception) -> str:
    """What an error says, on one line."""
    if isinstance(error, MemoryError) and type(error).__module__.startswith("cupy"):
        return tl.cuda.memory_hint(error)
    return " ".join(str(error).split()) or "out of memory"


def allow_many_files() -> None:
    """Raise the number of files that may be open to the most allowed: a corpus is mapped whole."""
    with contextlib.suppress(ImportError, OSError, ValueError):  # Windows has no such limit
        import resource

        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def run_in_team(name: str, work: Callable[[Team], int], interrupted: str = "interrupted") -> int:
    """Join the ranks that were started together, and do `work(team)`; returns the exit status.

    What the user can mend is one line on stderr, which begins with `name`, from one of the ranks.
    """
    print_anything()
    allow_many_files()
    team = parallel.ALONE
    try:
        team = parallel.join()
        return work(team)
    except (ValueError, OSError, RuntimeError, ImportError, ArithmeticError, MemoryError) as error:
        text = one_line(error)
        team.give_way()
        print(f"{name}: error: {text}", file=sys.stderr)
        return team.end(2)
    except SystemExit as stop:  # the command line's: --help, or a fault in it
        if stop.code:
            team.give_way()
        raise
    except KeyboardInterrupt:
        team.give_way()
        print(f"{name}: {interrupted}", file=sys.stderr)
        return team.end(130)


def run_program(name: str, work: Callable[[], object]) -> int:
    """Do what a command line asks for; returns the exit status.

    Warnings, and what the user can mend, are a line each on stderr, which begins with `name`.
    """
    print_anything()
    warnings.showwarning = lambda message, *_: print(f"{name}: {message}", file=sys.stderr)
    keep_freed_memory()
    try:
        work()
        return 0
    except BrokenPipeError:
        sys.stderr.close()  # the reader has gone (| head): nothing to say, nobody to say it to
        return 0
    except (ValueError, OSError, RuntimeError, ImportError, ArithmeticError, MemoryError) as error:
        print(f"{name}: error: {one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
