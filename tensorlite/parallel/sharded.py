"""An optimizer whose work is divided among the ranks: each updates its share of the parameters."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ..device import place
from ..optim import Optimizer, check_distinct, load_state
from ..tensor import Tensor
from ..writing import check_writeable
from .division import cut_into_buckets, divide, members
from .team import MPITeam, shared_array, shared_arrays

BUCKET = 2**20  # numbers in a bucket, whose gradients are exchanged at a time


class Sharded:
    """An optimizer whose work is divided among the ranks, with the interface of `Optimizer`.

    `params` are a model's parameters, in the order in which the model uses them; all ranks start
    from the values of rank 0. `make` is called with a list of pairs, a parameter and the piece of
    it that this rank updates, and returns the optimizer of the pieces. A piece is flat and may be
    any part of its parameter, except for those in `whole`, which has the cost of their update in
    multiplications: one rank updates such a parameter, in its own shape. Gradients must be computed
    by `backward` of this class, which leaves `.grad` of the parameters alone. A step does not
    change a parameter that got no gradient on any rank. All ranks must call the same methods in the
    same order. Raises ValueError unless all parameters are float32.
    """

    def __init__(
        self,
        params: Sequence[Tensor],
        make: Callable[[list], Optimizer],
        team: MPITeam,
        whole: Mapping[Tensor, float] | None = None,
    ):
        self.params = list(params)
        if any(p.dtype != np.float32 for p in self.params):
            raise ValueError("the ranks exchange float32: keep the parameters in float32")
        self.names = [f"parameter {i}" for i in range(len(self.params))]
        check_distinct(self.names, self.params)
        self.updates = [0] * len(self.params)  # for each parameter, as `Optimizer.updates`
        self.team = team
        self.number = {p: i for i, p in enumerate(self.params)}
        ends = list(itertools.accumulate(p.size for p in self.params))
        self.ranges = [range(end - p.size, end) for end, p in zip(ends, self.params)]
        self.uncut = {self.number[p]: cost for p, cost in (whole or {}).items()}
        n = ends[-1]
        self.buckets = cut_into_buckets(self.ranges, self.uncut, BUCKET)
        self.members = [members(bucket, self.ranges) for bucket in self.buckets]

        # A machine holds the parameters once. Each rank has two buckets in shared memory, in which
        # it shows gradients to the other ranks.
        exchanged = 2 * max(len(bucket) for bucket in self.buckets)
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

        # This rank sums a part of every bucket for its machine, and updates a share of that part.
        loads = np.zeros(self.local.size)
        self.parts = [
            divide(b, self.ranges, self.uncut, loads)[self.local.rank] for b in self.buckets
        ]
        loads = np.zeros(self.across.size)  # of this rank and those of its number elsewhere
        self.divided = [divide(part, self.ranges, self.uncut, loads) for part in self.parts]
        self.shares = [shares[self.across.rank] for shares in self.divided]
        self.sums = [members(part, self.ranges) for part in self.parts]
        self.pieces = [members(share, self.ranges) for share in self.shares]
        self.others = [  # what this rank shows to the other ranks of its machine, per bucket
            members(range(bucket.start, part.start), self.ranges)
            + members(range(part.stop, bucket.stop), self.ranges)
            for bucket, part in zip(self.buckets, self.parts)
        ]
        pieces = [pair for bucket in self.pieces for pair in bucket] or [(0, range(0))]
        self.tensors = [(i, r, Tensor(self._piece(self.weights, i, r), True)) for i, r in pieces]
        self.own = make([(self.params[i], tensor) for i, _, tensor in self.tensors])
        self.slots, self.groups = self.own.slots, self.own.groups

        # The optimizer's state is in shared memory too, so that one rank can save all of it.
        self.state = {slot: shared_array(self.local, n, np.float32) for slot in self.slots}
        place_of = {tensor: (i, r) for i, r, tensor in self.tensors}
        kept = np.zeros((len(self.slots), len(self.params)))  # whether a parameter has that slot
        for slot, row in zip(self.slots, kept):
            arrays = self.own.state[slot]
            for k, tensor in enumerate(self.own.params):
                if arrays[k].shape == tensor.shape:
                    i, r = place_of[tensor]
                    arrays[k], row[i] = self._piece(self.state[slot], i, r), 1
        self.kept = dict(zip(self.slots, team.sum(kept)))
        self._begin()

    def _piece(self, vector: np.ndarray, i: int, piece: range) -> np.ndarray:
        """A piece of parameter i in a vector of all: flat, or in its shape where it is not cut."""
        if i not in self.uncut:
            return _of(vector, piece)
        shape = self.params[i].shape
        return np.reshape(_of(vector, piece), shape if piece else (0, *shape[1:]))

    # ---------------------------------------------------------------------------------------------
    # Gradients
    # ---------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Reset what is known of the gradients, for a new step."""
        self.gradient = {}  # number of a parameter -> its gradient, flat
        self.used = None  # for each parameter, how many ranks have a gradient of it
        self.missing = [{i for i, _ in members} for members in self.members]  # per bucket
        self.exchanged = 0  # how many buckets this rank has shown to the others
        self.arrived = None  # MPI's request, done when all ranks have shown the last of these
        self.between = []  # sums between machines: (bucket, array sent, array received, request)

    def backward(self, loss: Tensor, last: bool = True) -> None:
        """Add the gradients of `loss` to those of the step.

        `last` says that this rank will add no more in this step, so that buckets can be exchanged
        while the backward pass goes on.
        """

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
        """Show and sum the buckets whose gradients are complete, as far as other ranks are ready.

        With `wait`, all gradients must be complete; then it waits for the other ranks of the
        machine and sums all buckets. Buckets are exchanged in order, so that all ranks start MPI's
        collectives in the same order. When all ranks have shown bucket k, all have summed bucket
        k - 1, so its memory is free for bucket k + 1.
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
        """Add what the other ranks of the machine show to this rank's part of bucket `k`.

        Then start the sum between machines.
        """
        here = self.local.rank
        for i, piece in self.sums[k]:
            g = self._gradient(i, piece)
            for buckets in self.shown[:here] + self.shown[here + 1 :]:
                g += _of(buckets[k % 2], piece, self.buckets[k].start)
        if self.across.size > 1:
            pieces = [pair for share in self.divided[k] for pair in members(share, self.ranges)]
            total = [self._gradient(i, piece) for i, piece in pieces] or [np.empty(0)]
            total, share = (
                np.concatenate(total, dtype=np.float32),
                np.empty(len(self.shares[k]), np.float32),
            )
            counts = [len(other) for other in self.divided[k]]
            request = self.across.Ireduce_scatter(total, share, counts)
            self.between.append((k, total, share, request))

    def _gradient(self, i: int, piece: range) -> np.ndarray:
        """A piece of the gradient of parameter i."""
        return _of(self.gradient[i], piece, self.ranges[i].start)

    def _finish(self) -> None:
        """Sum the remaining buckets, and give this rank's optimizer the gradients of its share."""
        used = np.zeros(len(self.params))
        used[list(self.gradient)] = 1
        for i, p in enumerate(self.params):
            if i not in self.gradient:  # this rank had no row of the batch that uses the parameter
                self.gradient[i] = np.zeros(p.size, np.float32)
            self._complete(i)
        self._exchange(wait=True)
        for k, _, share, request in self.between:
            request.Wait()
            for i, piece in self.pieces[k]:
                self._gradient(i, piece)[...] = _of(share, piece, self.shares[k].start)
        for i, piece, tensor in self.tensors:
            tensor.grad = Tensor(np.reshape(self._gradient(i, piece), tensor.shape))
        self.used = self.team.sum(used)

    def clip_grad_norm(self, max_norm: float):
        """Clip the gradients of all parameters, as `Optimizer.clip_grad_norm`; returns their norm.

        No `backward` may follow in the same step.
        """
        self._finish()
        return self.own.clip_grad_norm(max_norm, total=self.team.sum)

    # ---------------------------------------------------------------------------------------------
    # The update
    # ---------------------------------------------------------------------------------------------

    def step(self) -> None:
        """Update this rank's share and wait for the other ranks. Raises as `Optimizer.step`."""
        if self.used is None:
            self._finish()
        # The optimizer writes through its own views, which stay writeable even if a graph needs the
        # parameters, so the memory below them is checked here.
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
        """Copy each rank's share of `vector` to all machines."""
        if self.across.size > 1:
            from mpi4py import MPI

            requests = []
            for part, shares in zip(self.parts, self.divided):
                counts = [len(share) for share in shares]
                starts = [share.start - part.start for share in shares]
                spec = [_of(vector, part), counts, starts, MPI.FLOAT]
                requests.append(self.across.Iallgatherv(MPI.IN_PLACE, spec))
            MPI.Request.Waitall(requests)
        self.local.Barrier()

    def _load_gpu(self) -> None:
        """Copy the updated parameters from the host's memory to those that are on a GPU."""
        for p, part in zip(self.params, self.ranges):
            if not isinstance(p.data, np.ndarray):
                p.data[...] = np.asarray(np.reshape(_of(self.weights, part), p.shape), like=p.data)

    # ---------------------------------------------------------------------------------------------
    # The state of all parameters
    # ---------------------------------------------------------------------------------------------

    @property
    def steps(self) -> int:
        return self.own.steps

    def gather(self) -> None:
        """Copy the whole state to every machine; all ranks must call this before `state_dict`."""
        for slot in self.slots:
            self._publish(self.state[slot])

    def state_dict(self) -> dict:
        """The state that an `Optimizer` of all the parameters would return, without copies."""
        slots = {slot: self._whole(slot) for slot in self.slots}
        return {"steps": self.steps, "updates": np.array(self.updates), **slots}

    def _whole(self, slot: str) -> list[np.ndarray]:
        vector, kept = self.state[slot], self.kept[slot]
        return [
            np.reshape(_of(vector, r), p.shape) if has else np.zeros(0, np.float32)
            for p, r, has in zip(self.params, self.ranges, kept)
        ]

    def load_state_dict(self, state: dict) -> None:
        """Copy the state from a dictionary such as `state_dict` returns, the same one on all ranks.

        All ranks must call this. Raises as `Optimizer.load_state_dict` does.
        """
        slots = {slot: self._whole(slot) for slot in self.slots}
        # All ranks of a machine write the same numbers to the shared memory.
        self.own.steps, self.updates = load_state(state, slots, self.names)
        count_of = {tensor: self.updates[i] for i, _, tensor in self.tensors}
        self.own.updates = [count_of[tensor] for tensor in self.own.params]
        self.team.wait()


def _of(array: np.ndarray, part: range, first: int = 0) -> np.ndarray:
    """A part of the vector of all parameters, from an array that begins at its index `first`."""
    return array[part.start - first : part.stop - first]
