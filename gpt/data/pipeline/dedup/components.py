"""Groups of documents that hang together by pairs: each is known by its smallest number."""

from __future__ import annotations

import numpy as np


def join(labels: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The labels after the documents a[i] and b[i] have been joined, for all i.

    `labels` (n,) has the smallest number in each document's group: np.arange(n) to begin with. The
    result is the same in whatever order pairs are joined. This is union-find on whole arrays: the
    larger of two labels is hung below the smaller one, then every path is shortened to its end
    (Shiloach and Vishkin, 1982), until no pair has two labels.

    >>> join(np.arange(6), np.array([5, 4]), np.array([3, 5])).tolist()
    [0, 1, 2, 3, 3, 3]
    """
    labels = labels.copy()
    while True:
        one, other = labels[a], labels[b]
        apart = one != other
        if not apart.any():
            return labels
        a, b, one, other = a[apart], b[apart], one[apart], other[apart]
        np.minimum.at(labels, np.maximum(one, other), np.minimum(one, other))
        while not np.array_equal(labels, further := labels[labels]):
            labels = further
