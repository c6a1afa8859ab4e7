"""Training by several workers, the ranks of MPI, which divide the batch and the update.

A worker is a process, called a *rank*, with its own BLAS threads. Each rank computes gradients for
its rows of the batch. The gradients of all ranks are added, and each rank updates its share of the
parameters and that share's optimizer state (ZeRO-1; Rajbhandari et al., 2020). The same method
works for two cores and for many machines:

- The parameters form one long vector. It is cut into *buckets*, and each bucket into one share for
  each rank.
- The ranks of a machine exchange gradients through shared memory, and each sums its part of every
  bucket. A machine holds one copy of the parameters and of the optimizer's state.
- Between machines, MPI's collectives add the sums of all machines and distribute the updated
  shares. Both sums are computed bucket by bucket, while the backward pass continues.

If there is not enough room for shared memory, every rank is treated as a machine of its own.

team.py has the communication, sharded.py the divided optimizer, and launch.py starts and ends the
processes. On several GPUs, nccl.py adds the gradients instead.
"""

from .launch import fault, join, launched, mpiexec, physical_cores, start
from .nccl import Replicated, has_nccl
from .sharded import Sharded
from .team import ALONE, MPITeam, Team
