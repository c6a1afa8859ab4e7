"""Teams of processes that train together, and memory that the ranks of a machine share."""

from __future__ import annotations

import json
import math
import os
import sys
import time

import numpy as np


class Team:
    """The processes that train together. This base class is the team of a single process."""

    rank, size = 0, 1  # this process's number among all ranks, and how many there are
    local_rank, local_size = 0, 1  # the same among the ranks on this machine

    def share(self, n: int) -> range:
        """This rank's part of range(n), which the ranks divide evenly, in their order."""
        return part_of(range(n), self.rank, self.size)

    def sum(self, x):
        """The sum over all ranks of a number, or of a float64 array whose shape is the same on all.

        All ranks must call this.
        """
        return x

    def same(self, x):
        """The `x` of rank 0, on every rank: a JSON value, or an array in memory that is shared.

        All ranks must call this; only rank 0's `x` matters. A machine holds the array once, unless
        it lacks room for shared memory.
        """
        return x

    def gather(self, x) -> list:
        """The JSON values `x` of all ranks, in their order, on every rank. All must call this."""
        return [x]

    def wait(self) -> None:
        """Return when all ranks have called this."""

    def give_way(self) -> None:
        """Called before an error is reported: ranks other than 0 wait a second.

        If rank 0 has the same error, it reports it and ends the others in that time, so that the
        error is printed once.
        """

    def end(self, status: int) -> int:
        """End all ranks with this exit status; a single process gets it back, to exit with it."""
        return status


ALONE = Team()


class MPITeam(Team):
    """The ranks of the MPI communicator `world`.

    `machine` is the communicator of the ranks that can share memory with this one; if it is not
    given, MPI finds them.
    """

    def __init__(self, world, machine=None):
        from mpi4py import MPI

        machine = machine or world.Split_type(MPI.COMM_TYPE_SHARED)
        self.rank, self.size = world.rank, world.size
        self.local_rank, self.local_size = machine.rank, machine.size
        # Shares are cut the same way on all machines. If these differ in their number of ranks,
        # each rank is treated as a machine of its own.
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

    def gather(self, x) -> list:
        mine = np.frombuffer(json.dumps(x).encode(), np.uint8)
        sizes = np.empty(self.size, np.int64)
        self.world.Allgather(np.array([len(mine)]), sizes)
        texts = np.empty(sizes.sum(), np.uint8)
        self.world.Allgatherv(mine, (texts, sizes))
        return [json.loads(t.tobytes()) for t in np.split(texts, np.cumsum(sizes)[:-1])]

    def wait(self) -> None:
        self.world.Barrier()

    def give_way(self) -> None:
        if self.rank:
            time.sleep(1)

    def end(self, status: int) -> int:
        """End all ranks by Abort, since otherwise the others would wait for this one forever."""
        sys.stdout.flush()
        sys.stderr.flush()
        time.sleep(0.5)  # after Abort, mpiexec drops output that it has not read yet
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # hides what Abort prints
        self.world.Abort(status)

    def split(self, nbytes: int):
        """Two communicators: of the ranks to share `nbytes` of memory with, and to exchange with.

        The second has this rank and those of the same number on the other machines. If any machine
        lacks room in /dev/shm, where too large an allocation would end in a bus error, no ranks
        share memory: the first has this rank alone, and the second all ranks.
        """
        room = self.machine.size == 1 or shared_memory_room() > 1.02 * nbytes + 2**20
        if not all(self.world.allgather(room)):
            return self.world.Split(self.rank), self.world
        return self.machine, self.world.Split(self.machine.rank)


def shared_memory_room() -> int:
    """How many bytes are free for shared memory on this machine."""
    try:
        disk = os.statvfs("/dev/shm")
    except OSError:
        return 0
    return disk.f_bavail * disk.f_frsize


def shared_arrays(comm, n: int, dtype) -> list[np.ndarray]:
    """One array per rank of `comm`, of the size (n,) that this rank gave, in shared memory."""
    if comm.size == 1:
        return [np.zeros(n, dtype)]
    from mpi4py import MPI

    size = np.dtype(dtype).itemsize
    window = MPI.Win.Allocate_shared(n * size, size, comm=comm)
    return [np.frombuffer(window.Shared_query(rank)[0], dtype) for rank in range(comm.size)]


def shared_array(comm, n: int, dtype) -> np.ndarray:
    """One array (n,) in memory that all ranks of `comm` share."""
    return shared_arrays(comm, n if comm.rank == 0 else 0, dtype)[0]


def part_of(whole, i: int, n: int):
    """Part i of n parts of a range, which differ in length by at most 1."""
    start, stop = (whole.start + len(whole) * k // n for k in (i, i + 1))
    return range(start, stop)
