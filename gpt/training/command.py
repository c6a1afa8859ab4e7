"""What every command that trains does around the training.

It joins the other processes or starts them, lets one of them print, and turns what the user can
mend into one line on stderr.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

from tensorlite import parallel
from tensorlite.parallel import Team

from ..commandline import run_in_team
from .output import only_rank_0_prints
from .settings import RunSettings, Settings
from .workers import choose_workers


def run_command(
    script: str | Path | tuple[str, ...],
    argv: list[str] | None,
    parse: Callable[[list[str]], tuple[dict, list[str]]],
    train: Callable[[dict, Team, str], int],
    kind: type[RunSettings] = Settings,
) -> int:
    """Run the command line of a script that trains; returns the exit status.

    `script` is a path, or what starts a module: ("-m", "gpt.finetune"). `argv` None stands for the
    command line of this process. `parse` gives the settings that a command line names, of the class
    `kind`, and notes on what it ignores. `train` is called in each of the processes, with these
    settings and a line that says why there are so many processes. What the user can mend is one
    line on stderr.
    """
    is_script, argv = argv is None, sys.argv[1:] if argv is None else argv
    start = script if isinstance(script, tuple) else (str(script),)
    name = Path(start[-1]).name

    def work(team: Team) -> int:
        with only_rank_0_prints(team):
            warnings.showwarning = lambda text, *_: print(f"{name}: {text}", file=sys.stderr)
            given, notes = parse(argv)
            workers, why = choose_workers(given, team, is_script, kind)
            if workers > team.size:
                print(why, flush=True)
                return parallel.start(workers, [*start, *argv])
            for note in notes:
                print(note, file=sys.stderr)
            return train(given, team, why)

    return run_in_team(name, work, "interrupted; --init_from resume goes on")


def command(script: str, out: Path) -> str:
    """How to call train.py or sample.py, from this folder, with the Python that runs now.

    `script` is "train" or "sample", or begins with "-m" for a module with its first arguments.
    """
    path, here = Path(__file__).resolve().parents[2] / f"{script}.py", Path.cwd().resolve()
    found = shutil.which("python")
    if Path(sys.prefix).resolve().parent == here:  # a .venv in this folder
        python = os.path.relpath(sys.executable)
    elif found and Path(found).parent == Path(sys.executable).parent:
        python = "python"
    else:
        python = sys.executable
    words = [path.name if path.parent == here else str(path)]
    if script.startswith("-m"):
        words = script.split()
    return f"{shlex.join([python, *words])} --out_dir {shlex.quote(str(out))}"
