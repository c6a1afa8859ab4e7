"""Byte-pair encoding (BPE) in a few lines: how a vocabulary is learned, and how a text is encoded.

BPE starts with the 256 bytes as tokens, finds the pair of neighbours that occurs most often, makes
it a new token, and repeats. Encoding replays those merges, in the same order, on a new text. Since
every text is made of bytes, no text is ever out of vocabulary.

Follows: Sennrich, Haddow and Birch 2016, "Neural Machine Translation of Rare Words with Subword
Units" (https://arxiv.org/abs/1508.07909); bytes instead of characters as in GPT-2 (Radford et al.
2019). Like Hugging Face tokenizers, it goes on to merge pairs that occur only once, if the
vocabulary has room for them.

These functions are here to be read: fast_bpe.py computes the same, much faster, and the tests hold
the two equal. bpe.py makes a tokenizer of it.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

Pair = tuple[int, int]


def simple_train(pieces: Iterable[bytes], size: int) -> list[Pair]:
    """The merges that grow the 256 bytes to `size` tokens, or fewer if no pair is left.

    >>> simple_train([b"low", b"lower", b"lot"], size=258)  # "lo", then "low"
    [(108, 111), (256, 119)]

    Of pairs that occur equally often, the one with the smallest (left id, right id) goes first.

    Can two merges make the same bytes, ab+c and a+bc? Not here. As long as no merge has crossed the
    ends of "abc", every occurrence of it has been merged in the same way, since each merge is made
    everywhere at once. So every merge makes a new token.
    """
    pieces = [list(piece) for piece in pieces]
    merges = []
    while 256 + len(merges) < size:
        counts = Counter(pair for ids in pieces for pair in pairwise(ids))
        if not counts:
            break
        pair = min(counts, key=lambda pair: (-counts[pair], pair))
        pieces = [replace_pair(ids, pair, 256 + len(merges)) for ids in pieces]
        merges.append(pair)
    return merges


def replace_pair(ids: list[int], pair: Pair, new: int) -> list[int]:
    """`ids` with every `pair` in it, from left to right, replaced by `new`.

    >>> replace_pair([1, 1, 1, 2], (1, 1), 9)
    [9, 1, 2]
    """
    result, i = [], 0
    while i < len(ids):
        if tuple(ids[i : i + 2]) == pair:
            result.append(new)
            i += 2
        else:
            result.append(ids[i])
            i += 1
    return result


def simple_encode(ids: list[int], ranks: Mapping[Pair, int], merged: Sequence[int]) -> list[int]:
    """The tokens of `ids`, the ids of bytes, by merging always the pair of the lowest rank.

    A pair's rank is its place in the list of merges; `merged[rank]` is the id it becomes. If the
    pair occurs several times, the leftmost is merged first.

    >>> simple_encode(list(b"lowlo"), ranks={(108, 111): 0, (256, 119): 1}, merged=[256, 257])
    [257, 256]

    Each merge looks at the whole piece, so this takes O(n^2).
    """
    ids, never = list(ids), len(merged)
    while len(ids) > 1:
        found = [ranks.get(pair, never) for pair in pairwise(ids)]
        rank = min(found)
        if rank == never:
            break
        i = found.index(rank)
        ids[i : i + 2] = [merged[rank]]
    return ids
