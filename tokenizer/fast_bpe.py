"""The functions of simple_bpe.py with the same results, made fast enough for real corpora.

`fast_train` is `simple_train`. `simple_encode` has two versions: `short_encode` is the faster one
for a word, `fast_encode` for anything longer. All three avoid looking again at what a merge has not
changed.
"""

import heapq
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

from .simple_bpe import Pair

END = -1  # marks places in the linked lists that hold no symbol, and so are part of no pair


# ---- training ----


def fast_train(
    counts: Mapping[bytes, int],
    size: int,
    advance: Callable[[], object] = lambda: None,
    min_frequency: int = 1,
) -> list[Pair]:
    """`simple_train`, given how often each distinct piece occurs.

    >>> fast_train({b"low": 5, b"lower": 2}, size=258)
    [(108, 111), (256, 119)]

    Three things make it fast. Pieces are weighted, not repeated. A merge goes only to the places
    where its pair is, and changes only the counts of the pairs around them. The most frequent pair
    comes from a heap. All merges together take O(n log n), where n is the number of bytes in the
    distinct pieces. `advance` is called at each merge. Pairs that occur fewer than `min_frequency`
    times are not merged.
    """
    # All pieces end to end, with END before, between and behind them, as a doubly linked list: a
    # merge turns the left symbol into the new token and takes out the right one, marking it END.
    ids, weights = [END], [0]
    for piece, count in counts.items():
        if len(piece) > 1:
            ids += [*piece, END]
            weights += [count] * (len(piece) + 1)
    index = list(range(len(ids)))  # slices share its int objects, which take most of the memory
    following, preceding = index[1:] + [END], [END] + index[:-1]

    pair_counts: dict[Pair, int] = defaultdict(int)
    places: dict[Pair, list[int]] = defaultdict(list)  # of the left symbol; some are out of date
    for i, pair in zip(index, pairwise(ids), strict=False):
        if END not in pair:
            pair_counts[pair] += weights[i]
            places[pair].append(i)

    # Every pair has an entry at least as high as its count: one is added when the count grows, and
    # an entry that is too high, because the count fell, is put back with the new count when it is
    # found. Of pairs with equal counts, the smallest comes first.
    heap = [(-count, pair) for pair, count in pair_counts.items()]
    heapq.heapify(heap)

    merges: list[Pair] = []
    while heap and 256 + len(merges) < size:
        entry, pair = heapq.heappop(heap)
        count = pair_counts.get(pair, 0)
        if count != -entry:
            if 0 < count < -entry:
                heapq.heappush(heap, (-count, pair))
            continue
        if count < min_frequency:
            break
        (left, right), new = pair, 256 + len(merges)
        merges.append(pair)
        advance()

        grown = set()
        for i in sorted(places.pop(pair)):  # from left to right: of "aaa", the first two
            j = following[i]
            if ids[i] != left or ids[j] != right:
                continue  # another merge has changed this place since it was noted
            h, k, weight = preceding[i], following[j], weights[i]
            if ids[h] != END:
                pair_counts[ids[h], left] -= weight
                pair_counts[ids[h], new] += weight
                places[ids[h], new].append(h)
                grown.add((ids[h], new))
            if ids[k] != END:
                pair_counts[right, ids[k]] -= weight
                pair_counts[new, ids[k]] += weight
                places[new, ids[k]].append(i)
                grown.add((new, ids[k]))
            ids[i], ids[j] = new, END
            following[i], preceding[k] = k, i
        del pair_counts[pair]
        for changed in grown:
            if pair_counts[changed] > 0:  # not merged away again at the next place
                heapq.heappush(heap, (-pair_counts[changed], changed))
    return merges


# ---- encoding ----


def short_encode(ids: list[int], ranks: Mapping[Pair, int], merged: Sequence[int]) -> list[int]:
    """`simple_encode` that looks up only the two new pairs of a merge: the fastest for a word."""
    ids, get, never = list(ids), ranks.get, len(merged)
    found = [get(pair, never) for pair in pairwise(ids)]
    while found and (rank := min(found)) != never:
        i = found.index(rank)
        ids[i] = merged[rank]
        del ids[i + 1], found[i]
        if i:
            found[i - 1] = get((ids[i - 1], ids[i]), never)
        if i < len(found):
            found[i] = get((ids[i], ids[i + 1]), never)
    return ids


def fast_encode(ids: list[int], ranks: Mapping[Pair, int], merged: Sequence[int]) -> list[int]:
    """`simple_encode` in O(n log n), for long pieces: a megabyte without a space.

    The pairs that have a rank wait in a heap, lowest rank first and then leftmost, and the symbols
    are a doubly linked list.
    """
    n = len(ids)
    ids = [*ids, END]
    following, preceding = list(range(1, n + 1)), list(range(-1, n))
    # The integer rank * n + place sorts as the tuple (rank, place) does, and faster.
    found = map(ranks.get, pairwise(ids[:n]))
    heap = [rank * n + i for i, rank in enumerate(found) if rank is not None]
    heapq.heapify(heap)
    while heap:
        rank, i = divmod(heapq.heappop(heap), n)
        j = following[i]
        if ids[i] == END or ids[j] == END or ranks.get((ids[i], ids[j])) != rank:
            continue  # a merge beside it came first, and this pair no longer exists
        k = following[j]
        ids[i], ids[j] = merged[rank], END
        following[i], preceding[k] = k, i
        for left, right in ((preceding[i], i), (i, k)):
            if left >= 0 and right < n:
                new_rank = ranks.get((ids[left], ids[right]))
                if new_rank is not None:
                    heapq.heappush(heap, new_rank * n + left)
    return [token for token in ids if token != END]
