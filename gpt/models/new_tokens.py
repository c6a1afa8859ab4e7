"""Tokens that a model with adapters has and its base has not: their embeddings are learned.

A chat template brings tokens of its own. In a frozen model the embeddings of new tokens would stay
as they are at first, all the same, so that none of them could be told from another. So an adapter
holds these rows of the embedding, and of the output projection where that is a matrix of its own.
They are the last ones. The names are those of PEFT (its `trainable_token_indices`).
"""

from __future__ import annotations

import numpy as np

import tensorlite as tl
from tensorlite import nn


class NewTokens(nn.Module):
    """The last k rows of an embedding (V, C), as an adapter has them; at first, what they were."""

    def __init__(self, weight: np.ndarray, k: int):
        self.trainable_tokens_delta = tl.tensor(weight[-k:].copy(), requires_grad=True)

    def merged(self, weight: np.ndarray) -> np.ndarray:
        """The embedding (V, C) with these rows."""
        rows = self.trainable_tokens_delta.data
        return np.concatenate([weight[: -len(rows)], rows])


class AdaptedEmbedding(nn.Embedding):
    """An embedding of which an adapter may replace the last rows.

    It shares the weight with the one it is for, and `named_parameters` gives what that had.
    """

    def __init__(self, embedding: nn.Embedding):
        self.base, self.adapter, self.training = embedding.weight, None, embedding.training

    def named_parts(self):
        yield "weight", self.base

    @property
    def weight(self):
        """All rows (V, C)."""
        if self.adapter is None:
            return self.base
        rows = self.adapter.trainable_tokens_delta  # (k, C)
        return tl.concatenate([self.base[: -len(rows.data)], rows])

    def forward(self, ids):
        if self.adapter is None:
            return super().forward(ids)  # (...) -> (..., C)
        rows = self.adapter.trainable_tokens_delta  # (k, C)
        first = len(self.base.data) - len(rows.data)
        x = tl.embedding(self.base, ids)  # (...) -> (..., C)
        new = tl.embedding(rows, np.maximum(ids - first, 0))  # (...) -> (..., C)
        is_new = np.asarray(ids >= first, like=x.data)[..., None]  # (..., 1)
        return tl.where(is_new, new, x)

    def unembed(self, x):
        if self.adapter is None:
            return super().unembed(x)  # (..., C) -> (..., V)
        rows = self.adapter.trainable_tokens_delta  # (k, C)
        old = tl.linear(x, self.base[: -len(rows.data)].T)  # (..., C) -> (..., V - k)
        return tl.concatenate([old, tl.linear(x, rows.T)], axis=-1)  # (..., V)
