"""How many processes train: the number that the user gives, or the one that is fastest here."""

from __future__ import annotations

import os
from pathlib import Path

from tensorlite import parallel
from tensorlite.device import count_gpus
from tensorlite.parallel import Team

from .. import checkpoint
from .folder import choose_run, read_run, resumed_settings
from .metrics import finished
from .settings import RunSettings, Settings

FEW = 2e11  # multiplications of a run that is too short for more processes to pay


def choose_workers(
    given: dict, team: Team, is_script: bool = True, kind: type[RunSettings] = Settings
) -> tuple[int, str]:
    """How many processes train, and a line about it. Raises ValueError for an impossible number.

    Auto takes one process for each physical core (with --device cuda: each GPU), or the largest
    smaller number among which the rows of a step divide evenly. It takes a single one for a run
    that is over within seconds, and where a program calls `main`, which may expect the training to
    happen in its own process. `given` are settings of the class `kind`.
    """
    settings, processes = kind(**given), os.environ.get("WORLD_SIZE", "1")
    if "RANK" in os.environ and processes != "1" and not parallel.launched():
        raise ValueError(
            f"torchrun, or another launcher of PyTorch's, has started {processes} processes, which "
            "do not know of each other here: python train.py --workers N starts N that do"
        )
    out = Path(settings.out_dir)
    resume = choose_run(given, out, kind)
    if resume:
        settings = resumed_settings(given, read_run(out)["settings"], out, kind)
    s, asked = settings, settings.workers
    if team.size > 1 or parallel.launched():  # mpiexec has started them, and decides
        if "workers" in given and asked not in ("auto", str(team.size)):
            raise ValueError(f"--workers {asked}, but mpiexec has started {team.size}")
        if team.size == 1:
            return 1, "one process, as mpiexec has started"
        return team.size, f"{team.size} workers, {team.local_size} on this machine"
    if resume and finished(out) and checkpoint.load_step(out) == s.max_iters:
        return 1, ""
    places, unit = parallel.physical_cores(), "core"
    if s.device == "cuda":
        places, unit = max(1, count_gpus()), "GPU"
    if "workers" not in given and asked != "auto" and (int(asked) > places or parallel.fault()):
        asked = "auto"  # the number is from a run that was started on another machine
    if asked != "auto":
        n = int(asked)
        if n > places:
            raise ValueError(
                f"--workers {n} is more than the {places} {unit}s here: waiting for each other, "
                f"they would take the {unit}s from each other (mpiexec -n {n} does it nevertheless)"
            )
        if n > 1 and (fault := parallel.fault()):
            raise ValueError(f"--workers {n} does not work here: {fault}")
        return n, f"starting {n} workers" if n > 1 else "one process, as --workers says"
    rows = s.batch_size * s.gradient_accumulation_steps
    n = max(n for n in range(1, places + 1) if rows % n == 0)
    if places == 1:
        why = f"there is one {unit}"
    elif s.multiplications() < FEW:
        n, why = 1, "more would not pay in so short a run"
    elif not is_script:
        n, why = 1, "train.main was called from Python; --workers N starts others"
    elif n == 1:
        why = f"a batch of {rows} does not divide among {places} {unit}s"
    elif fault := parallel.fault():
        n, why = 1, fault
    if n > 1:
        even = "" if n == places else f", for a batch of {rows} divides among them evenly"
        return n, f"starting {n} workers on {places} {unit}s{even}"
    return n, f"one process: {why}"
