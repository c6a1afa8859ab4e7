"""Starting ranks, joining those that were started, and ending them."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib.util
import math
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from threadpoolctl import threadpool_info, threadpool_limits

from .team import ALONE, MPITeam, Team


def physical_cores() -> int:
    """The cores that this process may use, hyperthreads and a container's quota considered."""
    cores = set()
    everywhere = range(os.cpu_count() or 1)
    for cpu in os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else everywhere:
        path = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        cores.add(path.read_text() if path.exists() else str(cpu))
    count = len(cores)
    with contextlib.suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        count = min(count, math.ceil(int(quota) / int(period)))
    return max(1, count)


def launched() -> bool:
    """Whether mpiexec (MPICH's, Intel's, Open MPI's) or srun has started this process."""
    return any(name in os.environ for name in ("PMI_RANK", "OMPI_COMM_WORLD_RANK", "PMIX_RANK"))


def join() -> Team:
    """The team that this process was started in by mpiexec; ALONE if by nobody of the kind.

    The cores of the machine are divided among its ranks, as BLAS threads. A rank that raises ends
    all. Raises RuntimeError without mpi4py.
    """
    if not launched():
        return ALONE
    if importlib.util.find_spec("mpi4py") is None:
        raise RuntimeError("under mpiexec mpi4py is needed: pip install 'tensorlite[mpi]'")
    from mpi4py import MPI

    if MPI.COMM_WORLD.size == 1:
        return ALONE
    team = MPITeam(MPI.COMM_WORLD)
    asked = [pool["num_threads"] for pool in threadpool_info()]  # fewer, where the user says so
    threadpool_limits(min([max(1, physical_cores() // team.local_size), *asked]))

    def end(kind, error, trace):
        team.give_way()
        sys.__excepthook__(kind, error, trace)
        team.end(1)

    sys.excepthook = end
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(line_buffering=True)  # a pipe to mpiexec, read by a person
    if team.rank == 0 and "TENSORLITE_TERMINAL" in os.environ:
        sys.stderr.isatty = lambda: True  # behind mpiexec there is one: progress bars may move
    return team


def mpiexec() -> str | None:
    """The mpiexec that belongs to this Python, or the first one there is."""
    here = Path(sysconfig.get_path("scripts")) / "mpiexec"
    return str(here) if here.exists() else shutil.which("mpiexec")


@functools.cache
def fault() -> str | None:
    """Why `start` would not work; None when it does. Takes a second, for it tries."""
    if importlib.util.find_spec("mpi4py") is None or mpiexec() is None:
        return "the extra 'mpi' is not installed (pip install 'tensorlite[mpi]')"
    check = "from mpi4py import MPI; assert MPI.COMM_WORLD.size == 2"
    command = [mpiexec(), "-n", "2", sys.executable, "-c", check]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"mpiexec does not work here ({error})"
    if done.returncode:
        lines = (done.stderr + done.stdout).strip().splitlines() or ["it says nothing"]
        return f"mpiexec does not work here ({lines[-1].strip()})"
    return None


def start(n: int, command: Sequence[str]) -> int:
    """Run a Python script, with its arguments, as n ranks on this machine; returns the exit status.

    SIGINT and SIGTERM are passed on to the ranks, which are ended when this process dies. SIGHUP
    (not under nohup) and a reader of the output who goes away reach them as SIGTERM: mpiexec would
    die of either.
    """
    environment = dict(os.environ)
    if sys.stderr.isatty():
        size = shutil.get_terminal_size()
        environment |= {"TENSORLITE_TERMINAL": "1"}
        environment |= {"COLUMNS": str(size.columns), "LINES": str(size.lines)}
    child = subprocess.Popen(
        [mpiexec(), "-n", str(n), sys.executable, *command],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
        start_new_session=True,  # or the terminal's Ctrl-C would come twice
        preexec_fn=die_with_parent,
    )
    passed_on = {signal.SIGINT: signal.SIGINT, signal.SIGTERM: signal.SIGTERM}
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        passed_on[signal.SIGHUP] = signal.SIGTERM
    told = threading.Lock()  # taken by the first who tells mpiexec to stop: twice means at once

    def tell(number, frame):
        told.acquire(blocking=False)
        child.send_signal(passed_on[number])

    def nobody_reads():
        if told.acquire(blocking=False):
            child.terminate()

    previous = {number: signal.signal(number, tell) for number in passed_on}
    readers = [
        threading.Thread(target=pass_on, args=(source, target, nobody_reads), daemon=True)
        for source, target in ((child.stdout, 1), (child.stderr, 2))
    ]
    try:
        for reader in readers:
            reader.start()
        status = child.wait()
        for reader in readers:
            reader.join(5)  # longer only where something outlives mpiexec and holds the pipe
        return status
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def pass_on(source, target: int, nobody_reads: Callable[[], None]) -> None:
    """Copy a pipe to a file descriptor until its end; call `nobody_reads` if nobody reads it."""
    while block := source.read(2**16):
        try:
            while block:
                block = block[os.write(target, block) :]
        except BrokenPipeError:
            nobody_reads()
        except OSError:  # a full disk, a terminal that is closed: the work goes on without words
            pass


def die_with_parent() -> None:
    """Have Linux end this process, by SIGTERM, when the one that started it dies."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)
