"""Times recipes in turns with PyTorch's script, and keeps the records of docs/speedrun.md.

    python benchmarks/speedrun.py tinyshakespeare.txt                      the two presets
    python benchmarks/speedrun.py tinyshakespeare.txt --arguments "--preset speedrun --muon_lr 0.04"
    python benchmarks/speedrun.py tinyshakespeare.txt --check 002          does a record hold?
    python benchmarks/speedrun.py tinyshakespeare.txt --record new.toml    a new one
    python benchmarks/speedrun.py --table                                  the records

For each seed, train.py is run with each recipe, and nanogpt_pytorch.py with nanoGPT's recipe for a
CPU, each from the command line to its end. The table has the median of the seconds, the median of
the time divided by PyTorch's in the same round, the mean loss over the whole validation split, its
standard deviation over the seeds, the p of a test that the mean is below 1.90, and the tokens that
a run was trained on. Needs PyTorch (extra `oracle`), unless --without_pytorch is given.

A recipe is a preset, or arguments of train.py. Without TEXT, tinyshakespeare is fetched once.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import hashlib
import importlib.util
import platform
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.speedruns.records import (
    FIGURES,
    Record,
    differences,
    faults,
    figures,
    markdown,
    read_entry,
    read_records,
    rival_of,
    tables,
    write_record,
)
from benchmarks.speedruns.runs import PYTORCH, ROOT, Recipe, Runs, files_of, rounds
from gpt.data import CORPORA, read_text
from gpt.data.corpora import SHAKESPEARE_SHA256
from gpt.training.presets import parse as parse_settings
from gpt.training.settings import Settings
from tensorlite.parallel import physical_cores

FIRST_SEED = 1001  # recipes are chosen on other seeds


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("text", nargs="?", default="shakespeare", metavar="TEXT", help="tinyshakespeare.txt")
    add("--presets", nargs="+", default=["speedrun", "modern"], help="presets to run (both)")
    add("--arguments", metavar="WORDS", help="arguments of train.py to run, and no preset")
    add("--seeds", type=int, default=3, metavar="N", help=f"seeds, from {FIRST_SEED} on (3)")
    add("--device", choices=["cpu", "cuda"], default="cpu")
    add("--without_pytorch", action="store_true", help="compare with nothing")
    add("--check", metavar="NNN", help="run this record and the one before it again")
    add("--present_code", action="store_true", help="--check: with the code that is here")
    add("--record", nargs="+", type=Path, metavar="FILE", help="measure entries; keep as records")
    add("--table", action="store_true", help="print the tables of docs/speedrun.md")
    options = parser.parse_args(argv)
    if options.seeds < 1:
        parser.error(f"--seeds is at least 1, not {options.seeds}")
    if options.text not in CORPORA:
        options.text = str(Path(options.text).resolve())
    return options


def main(argv: list[str] | None = None) -> int:
    """Do what the command line asks for; returns the exit status."""
    options = parse(argv)
    try:
        if options.table:
            print(tables(read_records()))
            return 0
        if not options.without_pytorch and importlib.util.find_spec("torch") is None:
            raise ValueError(
                "PyTorch is not installed: pip install 'tensorlite[oracle]', or compare with "
                "nothing, --without_pytorch"
            )
        if options.check:
            return check(options)
        return record(options) if options.record else compare(options)
    except (ValueError, OSError, RuntimeError) as error:
        print(f"speedrun.py: error: {error}", file=sys.stderr)
        return 2


# ---- what is asked for ---------------------------------------------------------------------------


def compare(options: argparse.Namespace) -> int:
    """Run recipes in turns with PyTorch's script, and print what they gave."""
    chosen = [options.arguments] if options.arguments else []
    recipes = {
        words: recipe(words) for words in chosen or [f"--preset {p}" for p in options.presets]
    }
    for broken in broken_rules(options):
        print(f"not under the rules of a record: {broken}")
    in_rounds(recipes, options, seeds(options))
    return 0


def record(options: argparse.Namespace) -> int:
    """Run entries in turns with the records before them and PyTorch's script; keep them as records.

    Of several entries, each is compared with the one before it. The first that breaks a rule, and
    those after it, are not kept.
    """
    obey_rules(options)
    if git("status", "--porcelain", "--untracked-files=no"):
        raise ValueError("a record belongs to a commit: commit your changes first")
    records, new, rivals, recipes = read_records(), [], {}, {}
    for path in options.record:
        entry = read_entry(path)
        name = f"{len(records) + len(new) + 1:03}-{entry.name}"
        rivals[name] = rival_of([*records, *new], entry.track)
        recipes[name] = recipe(entry.arguments)
        new.append(dataclasses.replace(entry, name=name))
    with tempfile.TemporaryDirectory() as folder:
        for rival in rivals.values():
            if rival and rival.name not in recipes:
                recipes[rival.name] = of_record(rival, options, Path(folder))
        results = in_rounds(recipes, options, seeds(options))
    for entry in new:
        rival = rivals[entry.name]
        made = Record(
            **vars(entry),
            date=datetime.date.today().isoformat(),
            commit=git("rev-parse", "HEAD"),
            machine=machine(),
            seeds=seeds(options),
            own=results[entry.name],
            pytorch=results[PYTORCH.name],
            before=results[rival.name] if rival else None,
        )
        if found := faults(made):
            print(f"{entry.name} is no record: {'; '.join(found)}")
            return 1
        print(f"written: {write_record(made)}")
    print("--table prints what docs/speedrun.md shows of it")
    return 0


def check(options: argparse.Namespace) -> int:
    """Run a record again, in turns with the one before it and PyTorch's script, and compare."""
    obey_rules(options)
    records = read_records()
    found = [i for i, r in enumerate(records) if r.name.startswith(f"{options.check}-")]
    if not found:
        raise ValueError(f"there is no record {options.check}: --table shows those that there are")
    claimed = records[found[0]]
    rival = rival_of(records[: found[0]], claimed.track)
    with tempfile.TemporaryDirectory() as folder:
        sides = [claimed, rival] if rival else [claimed]
        recipes = {side.name: of_record(side, options, Path(folder)) for side in sides}
        results = in_rounds(recipes, options, claimed.seeds)
    again = dataclasses.replace(
        claimed,
        own=results[claimed.name],
        pytorch=results[PYTORCH.name],
        before=results[rival.name] if rival else None,
    )
    wrong = faults(again) + differences(claimed, again)
    print(f"{claimed.name} " + ("fails: " + "; ".join(wrong) if wrong else "passes"))
    return 1 if wrong else 0


# ---- and what that takes -------------------------------------------------------------------------


def recipe(arguments: str) -> Recipe:
    """That of arguments of train.py; exits, or raises ValueError, where it would refuse them."""
    words = shlex.split(arguments)
    Settings(**parse_settings(words)[0])
    return Recipe(arguments, tuple(words))


def of_record(record: Record, options: argparse.Namespace, folder: Path) -> Recipe:
    """The recipe of a record, with the code of its commit, which is put below `folder`."""
    tree = ROOT if options.present_code else files_of(record.commit, folder / record.name)
    return Recipe(record.name, tuple(shlex.split(record.arguments)), tree=tree)


def in_rounds(
    recipes: dict[str, Recipe], options: argparse.Namespace, seeds: Sequence[int]
) -> dict[str, Runs]:
    """Print, and return by their names, what the recipes and PyTorch's script gave."""
    if options.without_pytorch:
        print("compared with nothing: --without_pytorch")
    else:
        recipes = {**recipes, PYTORCH.name: PYTORCH}
    runs = rounds(list(recipes.values()), options.text, seeds, options.device)
    results = dict(zip(recipes, runs))
    pytorch = results.get(PYTORCH.name)
    rows = [[f"`{name}`", *figures(runs, pytorch)] for name, runs in results.items()]
    print("\n" + markdown(["", *FIGURES], rows) + "\n")
    return results


def seeds(options: argparse.Namespace) -> list[int]:
    return list(range(FIRST_SEED, FIRST_SEED + options.seeds))


def broken_rules(options: argparse.Namespace) -> list[str]:
    """What a record would need, and this run does not have. Fetches the text, if it must be."""
    found, digest = [], hashlib.sha256(read_text(options.text).encode()).hexdigest()
    if digest != SHAKESPEARE_SHA256:
        found.append(f"{options.text} is not tinyshakespeare")
    if options.device != "cpu":
        found.append("records are of a CPU")
    elif physical_cores() != 2:
        found.append(
            f"there are {physical_cores()} cores here, not 2 (taskset --cpu-list gives a program 2)"
        )
    return found


def obey_rules(options: argparse.Namespace) -> None:
    """Raise ValueError where a run breaks a rule of records."""
    broken = broken_rules(options)
    if options.without_pytorch:
        broken.append("a record is run in turns with PyTorch's script")
    if broken:
        raise ValueError("; ".join(broken))


def git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"git {arguments[0]}: {done.stderr.strip()}")
    return done.stdout.strip()


def machine() -> str:
    """The processor, as Linux names it, and the versions of the libraries."""
    import torch

    info = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.*)", info.read_text()) if info.exists() else []
    name = names[0] if names else platform.processor()
    return f"2 cores of {name}; NumPy {np.__version__}, PyTorch {torch.__version__}"


if __name__ == "__main__":
    sys.exit(main())
