"""How the vector of all parameters is cut: into buckets, and a bucket into the ranks' shares.

`ranges` are the places of the parameters in the vector, one after another. `uncut` has the numbers
of those that one rank must have whole, such as matrices for Muon, with the cost of their update.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from .team import part_of

NUMBER = 100  # the cost of updating a number of any other parameter, in multiplications by BLAS


def overlap(a: range, b: range) -> range:
    """The overlap of two ranges; an empty range, which is false, if there is none."""
    start = max(a.start, b.start)
    return range(start, max(start, min(a.stop, b.stop)))


def members(part: range, ranges: Sequence[range]) -> list[tuple[int, range]]:
    """The parameters that overlap a part of the vector, each as (number, the overlap)."""
    return [(i, both) for i, own in enumerate(ranges) if (both := overlap(own, part))]


def cut_into_buckets(ranges: Sequence[range], uncut: Mapping[int, float], size: int) -> list[range]:
    """From the last parameter to the first, the order in which backward completes gradients.

    A bucket has `size` numbers, the last one fewer, and more where it would cut one of `uncut`.
    """
    whole, buckets, end = [ranges[i] for i in uncut], [], ranges[-1].stop
    while end > 0:
        start = max(0, end - size)
        start = min([start, *(own.start for own in whole if start in own)])
        buckets.append(range(start, end))
        end = start
    return buckets


def divide(
    part: range, ranges: Sequence[range], uncut: Mapping[int, float], loads: np.ndarray
) -> list[range]:
    """A range of `part` for each rank; `loads` (ranks,) is the cost of what each has got so far.

    Numbers are divided evenly, as `part_of` does. A part with one of `uncut` is divided between
    parameters instead, where the costs come closest to even ones. The rank with the smallest load
    takes the largest share, and `loads` grows by what each takes.
    """
    n, pieces = len(loads), members(part, ranges)
    if not any(i in uncut for i, _ in pieces):
        return [part_of(part, k, n) for k in range(n)]
    ends = [part.start, *(piece.stop for _, piece in pieces)]
    total = np.cumsum([0, *(uncut.get(i, NUMBER * len(piece)) for i, piece in pieces)])
    cuts = [int(np.abs(total - total[-1] * k / n).argmin()) for k in range(n)] + [len(pieces)]
    shares = sorted(zip(cuts, cuts[1:]), key=lambda cut: total[cut[0]] - total[cut[1]])
    divided = [part] * n
    for rank, (first, last) in zip(np.argsort(loads, kind="stable"), shares):
        divided[rank] = range(ends[first], ends[last])
        loads[rank] += total[last] - total[first]
    return divided
