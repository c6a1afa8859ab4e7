"""Many workers, one training: the ranks of MPI share the batch, the gradients and the update.

A worker is a process of its own, a *rank*, with a BLAS thread of its own. Each computes gradients
for its rows of the batch; the gradients are added; each updates its share of the parameters, for
which it alone has the optimizer's state (ZeRO-1; Rajbhandari et al., 2020). One mechanism serves
two cores and many machines:

- The parameters are one long vector, cut into *buckets*, and every bucket into one share for each
  rank.
- The ranks of a machine show each other their gradients in shared memory, and each sums its part
  of every bucket. Parameters and the optimizer's state are there once for the machine.
- Between machines, MPI's collectives add what each machine has summed and pass the updated shares
  on. Both sums go bucket by bucket, while the backward pass still computes the next one.

Without room for shared memory every rank is treated as a machine of its own.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib.util
import itertools
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_info, threadpool_limits

from .device import place
from .optim import Optimizer, check_distinct, load_state
from .tensor import Tensor
from .writing import check_writeable

# =================================================================================================
# Who is there
# =================================================================================================


class Team:
    """The processes that train together. This one is for a process alone, where all is trivial."""

    rank, size = 0, 1  # of all ranks on all machines
    local_rank, local_size = 0, 1  # of those on this machine

    def share(self, n: int) -> range:
        """This rank's part of n things, as even as can be, in the order of the ranks."""
        return _part(range(n), self.rank, self.size)

    def sum(self, x):
        """The sum over all ranks of a number, or of a float64 array of one shape."""
        return x

    def same(self, x):
        """What rank 0 gives: JSON values, or an array, which is held once a machine."""
        return x

    def wait(self) -> None:
        """Return when every rank has come here."""

    def give_way(self) -> None:
        """Before telling of a fault: if rank 0 has it too, it tells, and ends the others."""

    def end(self, status: int) -> int:
        """End all ranks with this exit status, which a process alone is to return."""
        return status


ALONE = Team()


class MPITeam(Team):
    """The ranks of the communicator `world`; `machine`, found out if not given, is those of them
    that can share memory with this one.
    """

    def __init__(self, world, machine=None):
        from mpi4py import MPI

        machine = machine or world.Split_type(MPI.COMM_TYPE_SHARED)
        self.rank, self.size = world.rank, world.size
        self.local_rank, self.local_size = machine.rank, machine.size
        # Shares are cut alike on all machines: if their ranks are not as many, each stands alone.
        if len(set(world.allgather(machine.size))) > 1:
            machine = world.Split(world.rank)
        self.world, self.machine = world, machine

    def sum(self, x):
        total = np.empty(np.shape(x))
        self.world.Allreduce(np.asarray(x, np.float64, order="C"), total)
        return total if total.ndim else total.item()

    def same(self, x):
        is_array = isinstance(x, np.ndarray)
        about = [x.dtype.str, x.shape] if is_array else [None, x]
        text = np.frombuffer(json.dumps(about).encode(), np.uint8)
        size = np.array([len(text)])
        self.world.Bcast(size)
        text = text.copy() if self.rank == 0 else np.empty(size[0], np.uint8)
        self.world.Bcast(text)
        dtype, shape = json.loads(text.tobytes())
        if dtype is None:
            return shape
        local, across = self.split(math.prod(shape) * np.dtype(dtype).itemsize)
        array = shared_array(local, math.prod(shape), dtype)
        if self.rank == 0:
            array[...] = np.reshape(x, -1)
        if local.rank == 0:
            across.Bcast(array.view(np.uint8))
        self.wait()
        return np.reshape(array, shape)

    def wait(self) -> None:
        self.world.Barrier()

    def give_way(self) -> None:
        if self.rank:
            time.sleep(1)

    def end(self, status: int) -> int:
        """MPI would let the other ranks wait for this one for ever: Abort ends them."""
        sys.stdout.flush()
        sys.stderr.flush()
        time.sleep(0.5)  # mpiexec drops what it has not read by then
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what is to be said has been said
        self.world.Abort(status)

    def split(self, nbytes: int):
        """(the ranks to share `nbytes` of memory with, those in this one's place elsewhere).

        Where one machine lacks the room, for all: this rank alone, and everybody. Memory that
        outgrows /dev/shm would end in a bus error.
        """
        room = self.machine.size == 1 or shared_memory_room() > 1.02 * nbytes + 2**20
        if not all(self.world.allgather(room)):
            return self.world.Split(self.rank), self.world
        return self.machine, self.world.Split(self.machine.rank)


def shared_memory_room() -> int:
    """The bytes that are free for shared memory on this machine."""
    try:
        disk = os.statvfs("/dev/shm")
    except OSError:
        return 0
    return disk.f_bavail * disk.f_frsize


def shared_arrays(comm, n: int, dtype) -> list[np.ndarray]:
    """An array (n,) for each rank of `comm`, in memory that all of them see; n may differ."""
    if comm.size == 1:
        return [np.zeros(n, dtype)]
    from mpi4py import MPI

    size = np.dtype(dtype).itemsize
    window = MPI.Win.Allocate_shared(n * size, size, comm=comm)
    return [np.frombuffer(window.Shared_query(rank)[0], dtype) for rank in range(comm.size)]


def shared_array(comm, n: int, dtype) -> np.ndarray:
    """One array (n,) that all ranks of `comm` see."""
    return shared_arrays(comm, n if comm.rank == 0 else 0, dtype)[0]


def _part(whole, i: int, n: int):
    """The i-th of n even parts of a range."""
    start, stop = (whole.start + len(whole) * k // n for k in (i, i + 1))
    return range(start, stop)


# =================================================================================================
# The update, divided
# =================================================================================================

BUCKET = 2**20  # parameters that are exchanged at a time


class Sharded:
    """An optimizer of which every rank does its share; to a trainer, an `Optimizer`.

    `params` are a model's parameters, in the order in which the model uses them; all ranks get the
    values that rank 0 has. `make` is given pairs of a parameter and a piece of it (a flat tensor)
    that this rank is to update, and makes the optimizer. Gradients pass through `backward`, which
    leaves none in `.grad` of the parameters. A parameter that gets none on any rank stays as it is
    in that step. All ranks call all methods, in the same order.
    """

    def __init__(self, params: Sequence[Tensor], make: Callable[[list], Optimizer], team: MPITeam):
        self.params = list(params)
        if any(p.dtype != np.float32 for p in self.params):
            raise ValueError("the ranks exchange float32: keep the parameters in it")
        self.names = [f"parameter {i}" for i in range(len(self.params))]
        check_distinct(self.names, self.params)
        self.updates = [0] * len(self.params)  # as an Optimizer of all the parameters counts them
        self.team = team
        self.number = {p: i for i, p in enumerate(self.params)}
        ends = list(itertools.accumulate(p.size for p in self.params))
        self.ranges = [range(end - p.size, end) for end, p in zip(ends, self.params)]
        n = ends[-1]
        # From the last parameter to the first: in this order backward completes their gradients.
        self.buckets = [range(max(0, end - BUCKET), end) for end in range(n, 0, -BUCKET)]
        self.members = [self._members(bucket) for bucket in self.buckets]

        # Parameters are held once a machine. Each rank shows the others two buckets of gradients.
        exchanged = 2 * min(n, BUCKET)
        self.local, self.across = team.split(4 * (3 * n + exchanged * team.machine.size))
        self.shown = [
            np.reshape(a, (2, -1)) for a in shared_arrays(self.local, exchanged, np.float32)
        ]
        self.weights = shared_array(self.local, n, np.float32)
        if team.rank == 0:
            for p, own in zip(self.params, self.ranges):
                _of(self.weights, own)[...] = np.reshape(place(p.data, "cpu"), -1)
        if self.local.rank == 0:
            self.across.Bcast(self.weights)
        team.wait()
        for p, own in zip(self.params, self.ranges):
            if isinstance(p.data, np.ndarray):
                p.data = np.reshape(_of(self.weights, own), p.shape)
        self._load_gpu()

        # Of every bucket this rank sums a part for its machine, and then has a share of that part.
        at, of = self.across.rank, self.across.size
        self.parts = [_part(b, self.local.rank, self.local.size) for b in self.buckets]
        self.shares = [_part(part, at, of) for part in self.parts]
        self.sums = [self._members(part) for part in self.parts]
        self.pieces = [self._members(share) for share in self.shares]
        self.others = [  # what the rank shows to the other ranks of the machine
            self._members(range(bucket.start, part.start))
            + self._members(range(part.stop, bucket.stop))
            for bucket, part in zip(self.buckets, self.parts)
        ]
        pieces = [pair for bucket in self.pieces for pair in bucket] or [(0, range(0))]
        self.tensors = [(i, r, Tensor(_of(self.weights, r), True)) for i, r in pieces]
        self.own = make([(self.params[i], tensor) for i, _, tensor in self.tensors])
        self.slots, self.groups = self.own.slots, self.own.groups

        # The optimizer's state lies beside the parameters, so that one rank can save all of it.
        self.state = {slot: shared_array(self.local, n, np.float32) for slot in self.slots}
        range_of = {tensor: r for _, r, tensor in self.tensors}
        for slot, vector in self.state.items():
            self.own.state[slot] = [_of(vector, range_of[tensor]) for tensor in self.own.params]
        self._begin()

    def _members(self, part: range) -> list[tuple[int, range]]:
        """(the number of a parameter, what it has of this part of the vector of all)."""
        return [(i, both) for i, own in enumerate(self.ranges) if (both := _overlap(own, part))]

    # ---------------------------------------------------------------------------------------------
    # Gradients
    # ---------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Wait for the gradients of a new step."""
        self.gradient = {}  # number of a parameter -> its gradient, flat
        self.used = None  # for each parameter: how many ranks have a gradient of it
        self.missing = [{i for i, _ in members} for members in self.members]  # per bucket
        self.exchanged = 0  # buckets, in their order, that this rank has shown to the others
        self.arrived = None  # the request that is done when all have shown the last of these
        self.between = []  # (bucket, what is sent, what is received, request) between machines

    def backward(self, loss: Tensor, last: bool = True) -> None:
        """Add the gradients of `loss` to the step's; `last`: no more will come from this rank."""

        def collect(p, g):
            i = self.number[p]
            g = np.reshape(place(g, "cpu"), -1)
            if i in self.gradient:
                self.gradient[i] += g
            else:
                self.gradient[i] = g
            if last:
                self._complete(i)
                self._exchange(wait=False)

        loss.backward(ready=collect)

    def _complete(self, i: int) -> None:
        for missing in self.missing:
            missing.discard(i)

    def _exchange(self, wait: bool) -> None:
        """Sum the buckets that are complete; `wait`: all, and for the other ranks of this machine.

        Buckets go one after the other, so that all ranks start MPI's collectives in one order.
        When all have shown bucket k, all have summed bucket k - 1: its place is free for k + 1.
        """
        while self.exchanged < len(self.buckets) or wait:
            k = self.exchanged
            if k < len(self.buckets) and self.missing[k]:
                return
            if k > 0:
                if wait:
                    self.arrived.Wait()
                elif not self.arrived.Test():
                    return
                self._sum(k - 1)
            if k == len(self.buckets):
                return
            shown = self.shown[self.local.rank][k % 2]
            for i, piece in self.others[k]:
                _of(shown, piece, self.buckets[k].start)[...] = self._gradient(i, piece)
            self.arrived = self.local.Ibarrier()
            self.exchanged += 1

    def _sum(self, k: int) -> None:
        """Add to this rank's part of a bucket what the other ranks of the machine show of it."""
        here = self.local.rank
        for i, piece in self.sums[k]:
            g = self._gradient(i, piece)
            for buckets in self.shown[:here] + self.shown[here + 1 :]:
                g += _of(buckets[k % 2], piece, self.buckets[k].start)
        if self.across.size > 1:
            total = [self._gradient(i, piece) for i, piece in self.sums[k]] or [np.empty(0)]
            total, share = (
                np.concatenate(total, dtype=np.float32),
                np.empty(len(self.shares[k]), np.float32),
            )
            counts = [
                len(_part(self.parts[k], i, self.across.size)) for i in range(self.across.size)
            ]
            request = self.across.Ireduce_scatter(total, share, counts)
            self.between.append((k, total, share, request))

    def _gradient(self, i: int, piece: range) -> np.ndarray:
        """A piece of the gradient of parameter i."""
        return _of(self.gradient[i], piece, self.ranges[i].start)

    def _finish(self) -> None:
        """Sum what is left, and give this rank's optimizer its share."""
        used = np.zeros(len(self.params))
        used[list(self.gradient)] = 1
        for i, p in enumerate(self.params):
            if i not in self.gradient:  # no row of the batch came here, or none that uses it
                self.gradient[i] = np.zeros(p.size, np.float32)
            self._complete(i)
        self._exchange(wait=True)
        for k, _, share, request in self.between:
            request.Wait()
            for i, piece in self.pieces[k]:
                self._gradient(i, piece)[...] = _of(share, piece, self.shares[k].start)
        for i, piece, tensor in self.tensors:
            tensor.grad = Tensor(self._gradient(i, piece))
        self.used = self.team.sum(used)

    def clip_grad_norm(self, max_norm: float):
        """As the function of that name does for all parameters; no `backward` comes behind it."""
        self._finish()
        return self.own.clip_grad_norm(max_norm, total=self.team.sum)

    # ---------------------------------------------------------------------------------------------
    # The update
    # ---------------------------------------------------------------------------------------------

    def step(self) -> None:
        """Update this rank's share, and wait for the others'. Raises as an `Optimizer` does."""
        if self.used is None:
            self._finish()
        # The optimizer writes through views of its own, whose permission nothing takes away.
        check_writeable("the memory of all parameters", self.weights)
        for i, _, tensor in self.tensors:
            if not self.used[i]:
                tensor.grad = None
        self.own.step()
        self.updates = [n + bool(used) for n, used in zip(self.updates, self.used)]
        self._publish(self.weights)
        self._load_gpu()

    def zero_grad(self) -> None:
        self.own.zero_grad()
        self._begin()

    def _publish(self, vector: np.ndarray) -> None:
        """Bring the shares of all ranks to all machines."""
        if self.across.size > 1:
            from mpi4py import MPI

            requests = []
            for part in self.parts:
                shares = [_part(part, i, self.across.size) for i in range(self.across.size)]
                counts = [len(share) for share in shares]
                starts = [share.start - part.start for share in shares]
                spec = [_of(vector, part), counts, starts, MPI.FLOAT]
                requests.append(self.across.Iallgatherv(MPI.IN_PLACE, spec))
            MPI.Request.Waitall(requests)
        self.local.Barrier()

    def _load_gpu(self) -> None:
        """Parameters on a GPU are copies of those in the host's memory, which are updated."""
        for p, part in zip(self.params, self.ranges):
            if not isinstance(p.data, np.ndarray):
                p.data[...] = np.asarray(np.reshape(_of(self.weights, part), p.shape), like=p.data)

    # ---------------------------------------------------------------------------------------------
    # The state, whole
    # ---------------------------------------------------------------------------------------------

    @property
    def steps(self) -> int:
        return self.own.steps

    def gather(self) -> None:
        """Bring the whole state to every machine: called by all ranks before `state_dict`."""
        for slot in self.slots:
            self._publish(self.state[slot])

    def state_dict(self) -> dict:
        """As an `Optimizer` of all the parameters gives it (no copies)."""
        slots = {slot: self._whole(slot) for slot in self.slots}
        return {"steps": self.steps, "updates": np.array(self.updates), **slots}

    def _whole(self, slot: str) -> list[np.ndarray]:
        vector = self.state[slot]
        return [np.reshape(_of(vector, r), p.shape) for p, r in zip(self.params, self.ranges)]

    def load_state_dict(self, state: dict) -> None:
        """Copy in the state that an `Optimizer` of all the parameters, on all ranks, would load."""
        slots = {slot: self._whole(slot) for slot in self.slots}
        # The ranks of a machine all write the same.
        self.own.steps, self.updates = load_state(state, slots, self.names)
        count_of = {tensor: self.updates[i] for i, _, tensor in self.tensors}
        self.own.updates = [count_of[tensor] for tensor in self.own.params]
        self.team.wait()


def _overlap(a: range, b: range) -> range:
    """What two ranges have in common: empty, and so false, if nothing."""
    start = max(a.start, b.start)
    return range(start, max(start, min(a.stop, b.stop)))


def _of(array: np.ndarray, part: range, first: int = 0) -> np.ndarray:
    """A part of the vector of all parameters, in an array that begins with number `first`."""
    return array[part.start - first : part.stop - first]


# =================================================================================================
# Starting and stopping
# =================================================================================================


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
