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

from .launch import fault, join, launched, mpiexec, physical_cores, start
from .sharded import Sharded
from .team import ALONE, MPITeam, Team
