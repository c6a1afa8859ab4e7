"""Several short texts in one row, so that no place is left empty: what a model must know of them.

Each text has positions of its own, and its tokens see those of the same text only. So the model
computes for each what it would compute for it alone, and padding, which would cost as much as the
tokens, is needed at the end of a row at most (packing without cross-contamination: Krell et al.,
2021). gpt/data/packing.py makes such rows.

B rows, T time (positions), nh heads of queries, nkv of keys and values, hs the size of a head.
"""

from __future__ import annotations

import numpy as np

import tensorlite as tl


class Packed:
    """What stands for a cache in `model.hidden`, which keeps the texts of a row apart.

    `segments` (B, T) numbers the texts of each row: ids that follow each other with one number are
    one text. Padding is a text like any other, whose targets no loss counts.

    >>> packed = Packed(np.array([[0, 0, 0, 1, 1, 2]]))
    >>> packed.places(6)
    array([[0, 1, 2, 0, 1, 0]])
    """

    length = 0  # nothing was read before

    def __init__(self, segments: np.ndarray):
        T = segments.shape[1]
        begins = np.diff(segments, axis=1, prepend=segments[:, :1] - 1) != 0  # (B, T)
        places = np.arange(T, like=segments)
        self.positions = places - np.maximum.accumulate(np.where(begins, places, 0), axis=1)
        text = np.cumsum(begins, axis=1)[:, None]  # (B, 1, T)
        self.mask = text[..., None] == text[..., None, :]  # (B, 1, T, T): within one text

    def __getitem__(self, layer: int) -> Packed:
        return self

    def places(self, T: int):
        """Where in their texts the ids stand: (B, T)."""
        return self.positions

    def seen(self, ids):
        """All ids of the texts so far (B, T): the given ones."""
        return ids

    def self_attention(self, qkv, n_head: int, dropout_p: float = 0.0, rng=None):
        """The attention of GPT-2: qkv (B, T, 3C) -> (B, T, C)."""
        mask = np.asarray(self.mask, like=qkv.data)
        return tl.causal_self_attention(qkv, n_head, dropout_p, rng, mask)

    def attend(self, q, k, v, window: int | None = None, dropout_p: float = 0.0, rng=None):
        """That of the others: q (B, nh, T, hs), k and v (B, nkv, T, hs) -> (B, nh, T, hs)."""
        mask = np.asarray(self.mask, like=q.data)
        return tl.scaled_dot_product_attention(
            q, k, v, mask, True, dropout_p, rng=rng, enable_gqa=True, window=window
        )
