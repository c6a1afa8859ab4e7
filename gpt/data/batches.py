"""From a flat array of ids, (N,), to batches of windows: what the model reads, and what follows.

    tokens       5 8 2 9 4 7
    x (start 1)    8 2 9         block_size 3: what the model reads
    y                2 9 4       what it should say next, at each place

The random windows are nanoGPT's `get_batch`. `full_windows` goes beyond it: it measures a whole
split and not a random part of it.
"""

from collections.abc import Iterator

import numpy as np

from .token_shards import ShardedTokens


def check_length(tokens: np.ndarray, block_size: int, what: str) -> None:
    """Raise ValueError when a split (`what`: "training", say) is too short for one window."""
    if len(tokens) < block_size + 1:
        raise ValueError(
            f"the {what} split has {len(tokens)} tokens, and one window of block_size "
            f"{block_size} takes {block_size + 1}: give a smaller --block_size or more text"
        )


def draw_starts(
    rng: np.random.Generator, tokens_len: int, batch_size: int, block_size: int
) -> np.ndarray:
    """Where batch_size random windows start, (B,) int64, uniform in [0, tokens_len - block_size).

    The last window starts at tokens_len - block_size - 1: y reaches one token further than x.
    """
    return rng.integers(0, tokens_len - block_size, size=batch_size)


def draw_batch(
    tokens: np.ndarray, starts: np.ndarray, block_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """The windows at `starts`, (B,): x, and y, which is one token further on; (B, T) int64 each.

    >>> draw_batch(np.array([5, 8, 2, 9, 4, 7]), np.array([1]), 3)
    (array([[8, 2, 9]]), array([[2, 9, 4]]))
    """
    places = starts[:, None] + np.arange(block_size + 1)  # (B, 1) + (T + 1,) -> (B, T + 1)
    # asarray: what is computed from a memmap would be a memmap too.
    windows = np.asarray(tokens[places])  # (B, T + 1)
    return windows[:, :-1].astype(np.int64), windows[:, 1:].astype(np.int64)


def draw_documents(tokens: ShardedTokens, starts: np.ndarray, block_size: int) -> np.ndarray:
    """Which document each place of the windows at `starts`, (B,), belongs to: (B, T) int64.

    A place belongs to the document of the id that is predicted there. So the end-of-text id that
    ends a document begins the next one, as in GPT-2, and each id is predicted once, from what
    stands before it in its own document. These are the segments that `gpt.models.Packed` takes.

        x           5  8  0  2  9  0       0 is the id that ends a text
        y           8  0  2  9  0  4
        documents   3  3  4  4  4  5
    """
    places = starts[:, None] + np.arange(1, block_size + 1)  # (B, 1) + (T,) -> (B, T)
    return tokens.documents(places)


def documents_ended(ids: np.ndarray, end: int) -> np.ndarray:
    """Where the documents in ids (N,) begin, and N, if the id `end` ends each but maybe the last.

    >>> documents_ended(np.array([5, 8, 0, 2, 0, 7]), end=0)
    array([0, 3, 5, 6], dtype=uint64)
    """
    begins = np.flatnonzero(ids == end) + 1
    return np.unique(np.concatenate([[0], begins, [len(ids)]])).astype(np.uint64)


def full_starts(tokens_len: int, block_size: int, batch_size: int) -> Iterator[np.ndarray]:
    """Where the windows of `full_windows` start, (B,) for each batch."""
    windows = (tokens_len - 1) // block_size
    for first in range(0, windows, batch_size):
        yield np.arange(first, min(first + batch_size, windows)) * block_size


def full_windows(
    tokens: np.ndarray, block_size: int, batch_size: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """All floor((N - 1) / block_size) windows that do not overlap, batch_size at a time, in order.

    Every token but the first (and fewer than block_size at the end) is predicted exactly once,
    so the mean loss over them belongs to the split, and not to a random draw. The last batch may be
    smaller.
    """
    for starts in full_starts(len(tokens), block_size, batch_size):
        yield draw_batch(tokens, starts, block_size)
