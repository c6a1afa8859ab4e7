"""From raw pages to clean token files: python -m gpt.data STEP INPUT... --out DIR"""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path

from tensorlite import parallel
from tensorlite.parallel import Team

from ..commandline import Parser, run_in_team
from .pipeline.recipe import STEPS, make_step, read_recipe, run_recipe, step_class
from .pipeline.report import write_report
from .pipeline.steps import Unfinished, run, totals
from .token_folder import SPLITS

PROGRAM = "gpt.data"
OTHERS = {
    "pipeline": "all the steps that a TOML file names, one after another",
    "stats": "what each rule removed, with examples, as a page for a browser",
}
ABOUT = f"""\
usage: python -m {PROGRAM} STEP INPUT... --out DIR [settings]
       python -m {PROGRAM} pipeline FILE.toml
       python -m {PROGRAM} stats DIR... --out report.html

Each step reads a folder of documents (extract: any files) and writes another:
""" + "".join(f"  {name:<10}{text}\n" for name, text in (STEPS | OTHERS).items())
ABOUT += f"""
A step that was stopped goes on where it was when the same command is given again. It uses all
cores. Across machines: mpiexec -n 64 python -m {PROGRAM} ..., or --shard I/N in each of N jobs.
python -m {PROGRAM} STEP --help shows the settings of a step. docs/data.md explains them all.
"""


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    name = next(iter(argv), "--help")
    if name in ("-h", "--help"):
        print(ABOUT, end="")
        return 0

    def work(team: Team) -> int:
        if team.rank == 0:
            warnings.showwarning = lambda text, *_: print(f"{PROGRAM}: {text}", file=sys.stderr)
        else:
            warnings.simplefilter("ignore")  # rank 0 has the same ones
        given = parser_of(name).parse_args(argv[1:])
        if name == "stats":
            if team.rank == 0:
                write_report(given.inputs, given.out)
                print(f"wrote {given.out}: open it in a browser")
            return 0
        workers = count_workers(given.workers, team)
        if workers > team.size:
            return parallel.start(workers, ["-m", PROGRAM, *argv])
        return do(name, given, team)

    return run_in_team(PROGRAM, work, "interrupted; the same command goes on where it was")


def parser_of(name: str) -> Parser:
    """The command line of a step, of `pipeline` or of `stats`. Raises ValueError for another."""
    if name not in STEPS | OTHERS:
        raise ValueError(f"STEP is {', '.join(STEPS | OTHERS)}, not {name!r}")
    parser = Parser(
        prog=f"{PROGRAM} {name}",
        description=(STEPS | OTHERS)[name],
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    if name == "pipeline":
        parser.add_argument("file", help="a TOML file: inputs, out, and a table for each step")
    else:
        what = "files and folders" if name == "extract" else "a folder of documents"
        parser.add_argument("inputs", nargs="+", metavar="INPUT", help=what)
        parser.add_argument(
            "--out", required=True, help="the folder that is written (stats: the page)"
        )
    if name == "stats":
        return parser
    parser.add_argument(
        "--workers", type=int, default=None, help="processes on this machine (all cores)"
    )
    parser.add_argument(
        "--shard", type=part, default=(0, 1), metavar="I/N", help="do the part I of N, from 0"
    )
    if name in STEPS:
        parser.add_settings(step_class(name).Settings)
    return parser


def part(text: str) -> tuple[int, int]:
    """The numbers of `--shard`, such as 3/64. Raises argparse's error.

    >>> part("3/64")
    (3, 64)
    """
    i, slash, n = text.partition("/")
    if not (slash and i.isdecimal() and n.isdecimal() and int(i) < int(n)):
        raise argparse.ArgumentTypeError(f"is I/N with I from 0 to N - 1, not {text!r}")
    return int(i), int(n)


def count_workers(asked: int | None, team: Team) -> int:
    """How many processes divide the work on this machine.

    Raises ValueError for a number that cannot be started here.
    """
    if team.size > 1 or parallel.launched():  # mpiexec has started them
        return team.size
    if asked is None:
        cores = parallel.physical_cores()
        return cores if cores > 1 and not parallel.fault() else 1
    if asked < 1:
        raise ValueError(f"--workers {asked}: it must be 1 or more")
    if asked > 1 and (fault := parallel.fault()):
        raise ValueError(f"--workers {asked} does not work here: {fault}")
    return asked


def do(name: str, given: argparse.Namespace, team: Team) -> int:
    """Do a step or a pipeline, and say on rank 0 what came of it.

    A part (`--shard`) that waits for others has done its work, so that the status is 0 too.
    """
    complete, folders = False, []
    waits = "this part is done: the last of the other parts completes the folder"
    try:
        if name == "pipeline":
            steps = len(read_recipe(given.file)[2])
            folders = run_recipe(given.file, team, given.shard)
            complete = len(folders) == steps
        else:
            common = ("inputs", "out", "workers", "shard")
            settings = {key: value for key, value in vars(given).items() if key not in common}
            step = make_step(name, settings)
            complete = run(step, given.inputs, given.out, team, given.shard) is not None
            folders = [Path(given.out)] if complete else []
    except Unfinished as reason:
        waits = str(reason)
    if team.rank == 0:
        for folder in folders:
            print(summary(folder))
        if not complete:
            print(waits)
    return 0


def summary(folder: Path) -> str:
    """A line about a complete folder: what it holds, and how much each rule removed."""
    manifest, tally = totals(folder)
    documents = sum(shard.get("documents", 0) for shard in manifest["shards"])
    characters = sum(shard.get("characters", 0) for shard in manifest["shards"])
    line = f"{folder}: {documents:,} documents, {characters:,} characters"
    if manifest["step"] == "tokenize":
        tokens = [sum(shard[split]["tokens"] for shard in manifest["shards"]) for split in SPLITS]
        line += ", {:,} tokens to train on and {:,} to validate".format(*tokens)
    removed = ", ".join(f"{rule} {n:,}" for rule, n in tally.removed_counts.most_common(5))
    return f"{line}; removed: {removed}" if removed else line


if __name__ == "__main__":
    sys.exit(main())
