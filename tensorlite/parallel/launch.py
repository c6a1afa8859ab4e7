"""Starting processes as ranks, joining the ranks that were started together, and ending them."""

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
    """How many cores this process may use.

    The hyperthreads of a core count as one, and the CPU quota of a container is respected.
    """
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
    """Whether mpiexec (of MPICH, Intel MPI or Open MPI) or srun has started this process."""
    return any(name in os.environ for name in ("PMI_RANK", "OMPI_COMM_WORLD_RANK", "PMIX_RANK"))


def join() -> Team:
    """The team of ranks that mpiexec started this process in, or ALONE without mpiexec.

    The number of BLAS threads is set so that the ranks divide the cores of their machine. An
    uncaught exception in one rank ends all ranks. Raises RuntimeError if mpiexec started this
    process and mpi4py is not installed.
    """
    if not launched():
        return ALONE
    if importlib.util.find_spec("mpi4py") is None:
        raise RuntimeError("under mpiexec, mpi4py is needed: pip install 'tensorlite[mpi]'")
    from mpi4py import MPI

    if MPI.COMM_WORLD.size == 1:
        return ALONE
    team = MPITeam(MPI.COMM_WORLD)
    asked = [pool["num_threads"] for pool in threadpool_info()]  # the user may have set fewer
    threadpool_limits(min([max(1, physical_cores() // team.local_size), *asked]))

    def end(kind, error, trace):
        team.give_way()
        sys.__excepthook__(kind, error, trace)
        team.end(1)

    sys.excepthook = end
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(line_buffering=True)  # it is a pipe, but a person reads the output
    if team.rank == 0 and "TENSORLITE_TERMINAL" in os.environ:
        sys.stderr.isatty = lambda: True  # mpiexec writes to a terminal: show progress bars
    return team


def mpiexec() -> str | None:
    """The path of the mpiexec of this Python's environment, else of the first on PATH, or None."""
    here = Path(sysconfig.get_path("scripts")) / "mpiexec"
    return str(here) if here.exists() else shutil.which("mpiexec")


@functools.cache
def fault() -> str | None:
    """Why `start` would fail, or None if it works. Takes a second, because it starts two ranks."""
    if importlib.util.find_spec("mpi4py") is None or mpiexec() is None:
        return "the extra 'mpi' is not installed (pip install 'tensorlite[mpi]')"
    check = "from mpi4py import MPI; assert MPI.COMM_WORLD.size == 2"
    command = [mpiexec(), "-n", "2", sys.executable, "-c", check]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"mpiexec does not work here ({error})"
    if done.returncode:
        lines = (done.stderr + done.stdout).strip().splitlines() or ["no output"]
        return f"mpiexec does not work here ({lines[-1].strip()})"
    return None


def start(n: int, command: Sequence[str]) -> int:
    """Run a Python script, with its arguments, as n ranks on this machine; returns the exit status.

    SIGINT and SIGTERM are passed on to the ranks, and if this process dies the ranks are ended. If
    SIGHUP arrives (and is not ignored, as under nohup), or the reader of the output closes the
    pipe, the ranks get SIGTERM instead, because mpiexec itself would die from SIGHUP or SIGPIPE.
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
        start_new_session=True,  # otherwise Ctrl-C in the terminal would send SIGINT twice
        preexec_fn=die_with_parent,
    )
    passed_on = {signal.SIGINT: signal.SIGINT, signal.SIGTERM: signal.SIGTERM}
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        passed_on[signal.SIGHUP] = signal.SIGTERM
    # Locked once mpiexec was told to stop, because a second signal makes it end the ranks at once.
    told = threading.Lock()

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
            reader.join(5)  # it ends sooner unless some process outlives mpiexec and holds the pipe
        return status
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def pass_on(source, target: int, nobody_reads: Callable[[], None]) -> None:
    """Copy a pipe to the file descriptor `target` until the pipe ends.

    Calls `nobody_reads` if writing raises BrokenPipeError, because the reader has gone.
    """
    while block := source.read(2**16):
        try:
            while block:
                block = block[os.write(target, block) :]
        except BrokenPipeError:
            nobody_reads()
        except OSError:  # a full disk or a closed terminal: training continues without the output
            pass


def die_with_parent() -> None:
    """Ask Linux to send this process SIGTERM when its parent process dies."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)
