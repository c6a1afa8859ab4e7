"""The update, divided among the ranks: gradients are added, each rank updates its share."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np

from ..device import place
from ..optim import Optimizer, check_distinct, load_state
from ..tensor import Tensor
from ..writing import check_writeable
from .team import MPITeam, part_of, shared_array, shared_arrays

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
        self.parts = [part_of(b, self.local.rank, self.local.size) for b in self.buckets]
        self.shares = [part_of(part, at, of) for part in self.parts]
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
                len(part_of(self.parts[k], i, self.across.size)) for i in range(self.across.size)
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
                shares = [part_of(part, i, self.across.size) for i in range(self.across.size)]
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
