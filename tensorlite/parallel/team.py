"""Who trains together: the ranks of MPI, and memory that the ranks of a machine share."""

from __future__ import annotations

import json
import math
import os
import sys
import time

import numpy as np


class Team:
    """The processes that train together. This one is for a process alone, where all is trivial."""

    rank, size = 0, 1  # of all ranks on all machines
    local_rank, local_size = 0, 1  # of those on this machine

    def share(self, n: int) -> range:
        """This rank's part of n things, as even as can be, in the order of the ranks."""
        return part_of(range(n), self.rank, self.size)

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


def part_of(whole, i: int, n: int):
    """The i-th of n even parts of a range."""
    start, stop = (whole.start + len(whole) * k // n for k in (i, i + 1))
    return range(start, stop)
