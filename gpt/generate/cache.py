"""The keys and values of the positions that a model has read, so that they are computed once.

A token attends to all positions before it, but their keys and values do not depend on it. So when
a text grows by a token, the model computes that token's only, and finds the others here.

B texts, nkv heads of keys and values of size hs, S positions of room, T of which are new.
"""

from __future__ import annotations

import numpy as np

import tensorlite as tl
from tensorlite.arraylike import array_of


class Cache:
    """Room for the keys and values of `rows` texts of up to `size` positions, allocated once.

    Texts of different lengths end at the same position: `pads` (B,) says how many positions at the
    left of each are empty. `length` positions are filled; making it smaller forgets the last ones.
    """

    def __init__(self, model, rows: int, size: int, pads: np.ndarray):
        config = model.config
        heads, head_size = config.kv_shape
        shape = (config.n_layer, rows, heads, size, head_size)
        first = model.parameters()[:1]  # none, where all weights have few bits
        like = first[0].data if first else np.empty(0, np.float32)
        dtype = dtype_beside(like)
        self.keys = np.empty_like(like, dtype, shape=shape)
        self.values = np.empty_like(like, dtype, shape=shape)
        self.ids = np.empty_like(like, np.int64, shape=(rows, size))  # for `seen`
        self.size, self.length = size, 0
        self.set_pads(pads)

    def set_pads(self, pads: np.ndarray) -> None:
        self.pads, self.mask = pads, None  # the pads stay in the CPU's memory
        if pads.any():  # -inf is added to the scores of positions that are empty
            self.begin = np.asarray(pads, like=self.keys)[:, None]  # (B, 1)
            empty = np.arange(self.size, like=self.keys) < self.begin  # (B, S)
            self.mask = np.where(empty, -np.inf, 0).astype(np.float32)[:, None, None]

    def places(self, T: int):
        """Where in their texts the next T tokens stand: (T,), or (B, T) with pads."""
        places = np.arange(self.length, self.length + T, like=self.keys)
        if self.mask is None:
            return places
        return np.maximum(places - self.begin, 0)

    def seen(self, ids):
        """Keep the new ids (B, T), and give all of the texts so far, with pads: (B, length + T).

        A model that needs the ids of earlier readings calls this at every reading: the ids of one
        in which it was not called are missing.
        """
        end = self.length + ids.shape[1]
        self.ids[:, self.length : end] = ids
        return self.ids[:, :end]

    def keep(self, rows: list[int]) -> None:
        """Keep these texts only, in this order; one may be there several times.

        Positions that are empty in all of them are left out.
        """
        self.keys, self.values = self.keys[:, rows], self.values[:, rows]
        self.ids = self.ids[rows]
        pads = self.pads[rows]
        if empty := int(pads.min()):
            for kept in (self.keys, self.values):
                kept[..., : self.length - empty, :] = kept[..., empty : self.length, :].copy()
            self.ids[:, : self.length - empty] = self.ids[:, empty : self.length].copy()
            self.length -= empty
        self.set_pads(pads - empty)

    def __getitem__(self, layer: int) -> Past:
        return Past(self, layer)


def dtype_beside(weight) -> np.dtype:
    """The dtype that keys and values have where the model's weights are like this one."""
    if isinstance(weight, np.ndarray):
        return weight.dtype
    from tensorlite.kernels.precision import low

    return low(weight)


class Past:
    """The part of a cache that belongs to one layer."""

    def __init__(self, cache: Cache, layer: int):
        self.cache, self.layer = cache, layer

    def self_attention(self, qkv, n_head: int, dropout_p: float = 0.0, rng=None):
        """`attend` for the projections of all heads side by side: (B, T, 3C) -> (B, T, C).

        Texts grow without dropout and gradients.
        """
        B, T, C3 = qkv.shape
        qkv = qkv.data.reshape(B, T, 3, n_head, -1)  # (B, T, 3, nh, hs)
        y = self.attend(*qkv.transpose(2, 0, 3, 1, 4))  # 3 x (B, nh, T, hs) -> (B, nh, T, hs)
        return y.transpose(0, 2, 1, 3).reshape(B, T, C3 // 3)  # (B, T, C)

    def attend(self, q, k, v, window: int | None = None, dropout_p: float = 0.0, rng=None):
        """Attention of new positions to themselves and all before: q (B, nh, T, hs) -> the same.

        k and v (B, nkv, T, hs) are kept; all three are arrays or tensors, the result is a tensor.
        With a `window`, a position sees the last `window` only.
        """
        cache, (B, nh, T, hs) = self.cache, q.shape
        begin, end = cache.length, cache.length + T
        keys, values = cache.keys[self.layer], cache.values[self.layer]  # (B, nkv, S, hs)
        keys[:, :, begin:end], values[:, :, begin:end] = array_of(k), array_of(v)
        first = max(0, begin - window + 1) if window else 0
        keys, values = keys[:, :, first:end], values[:, :, first:end]
        mask = None if cache.mask is None else cache.mask[..., first:end]  # (B, 1, 1, end - first)
        if T > 1:
            return tl.scaled_dot_product_attention(
                q, keys, values, mask, True, 0.0, None, None, True, window, begin - first
            )  # (B, nh, T, hs)
        q = q.reshape(B, -1, nh // keys.shape[1], hs)  # (B, nkv, a group of heads, hs)
        y = tl.scaled_dot_product_attention(q, keys, values, mask)
        return y.reshape(B, nh, 1, hs)
