"""Workers on several GPUs: NCCL adds their gradients up, from GPU to GPU.

Each rank has all parameters and the optimizer's whole state on its own GPU, and updates all of
them. The sums are the same bits on all ranks, so the parameters stay the same too.
"""

from __future__ import annotations

import math
import warnings

import numpy as np

from ..optim import AdamW
from ..tensor import Tensor
from .team import MPITeam


def has_nccl() -> bool:
    """Whether CuPy finds NCCL."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # CuPy warns where the library is missing
        try:
            from cupy.cuda import nccl
        except ImportError:
            return False
    return bool(nccl.available)


class Replicated(AdamW):
    """AdamW on a GPU of each rank of `team`, for the sum of the gradients of all ranks.

    Has the interface of `Sharded`. Raises ImportError if CuPy was built without NCCL.
    """

    def __init__(self, params_or_groups, team: MPITeam, **options):
        super().__init__(params_or_groups, **options)
        from cupy.cuda import nccl

        name = team.same(nccl.get_unique_id().hex() if team.rank == 0 else None)  # of 128 bytes
        self.communicator = nccl.NcclCommunicator(team.size, bytes.fromhex(name), team.rank)
        self.nccl = nccl

    def add_up(self, gradients: list) -> None:
        """Replace each array, contiguous float32 on the GPU, by its sum over all ranks."""
        import cupy

        stream = cupy.cuda.get_current_stream().ptr
        kind = self.nccl.NCCL_FLOAT32, self.nccl.NCCL_SUM
        self.nccl.groupStart()
        for g in gradients:
            self.communicator.allReduce(g.data.ptr, g.data.ptr, g.size, *kind, stream)
        self.nccl.groupEnd()

    def clip_grad_norm(self, max_norm: float = math.inf):
        """Add up the gradients of all ranks, and clip the sum; returns its norm.

        All ranks call this once a step, before `step`. A parameter without a gradient on this rank
        counts as one with zeros.
        """
        from ..kernels.launch import contiguous

        for p in self.params:
            g = np.zeros_like(p.data) if p.grad is None else contiguous(p.grad.data)
            p.grad = Tensor(g)
        self.add_up([p.grad.data for p in self.params])
        return super().clip_grad_norm(max_norm)

    def gather(self) -> None:
        """Nothing: each rank has the whole state."""
