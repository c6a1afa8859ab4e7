"""Matrices of 8 or 4 bits a weight: integers, and the scales that make weights of them.

Int8 has one scale for each row; Int4 one for each group of weights that follow each other in a row,
as the `Q8` and `Q4_0` types of llama.cpp, whose groups are 32 in both. Zero is exact in either.

m rows (outputs), n columns (inputs), R vectors.
"""

from __future__ import annotations

import numpy as np

from ..checkpoint import check_bits
from .product import product

WEIGHTS = 2**20  # that are quantised at a time
SHRINK = np.linspace(0.7, 1.05, 15)  # of the range of 4 bits: clipping a few can help the others


class Int8:
    """W (m, n) as `values` (m, n) int8 times `scale` (m,) float32: 8 bits a weight.

    The largest weight of a row becomes 127 or -127; no weight moves by more than half a scale.
    """

    bits, group_size = 8, None

    def __init__(self, m: int, n: int):
        self.shape = m, n
        self.values = np.empty((m, n), np.int8)
        self.scale = np.empty(m, np.float32)

    def set(self, rows: slice, weight: np.ndarray) -> None:
        """Quantise rows: weight (r, n)."""
        largest = np.abs(weight).max(axis=1, initial=0)  # (r,)
        scale = np.where(largest > 0, largest / 127, 1).astype(np.float32)
        self.scale[rows] = scale
        self.values[rows] = np.rint(weight / scale[:, None])

    def take(self, ids) -> np.ndarray:
        """The rows of these ids, or of a slice: ids (...) -> (..., n) float32."""
        return self.values[ids] * self.scale[ids][..., None]

    def times(self, x: np.ndarray) -> np.ndarray:
        """x @ W.T: x (R, n) -> (R, m)."""
        y = product(x, self.shape, lambda rows, out: np.copyto(out, self.values[rows]))
        y *= self.scale
        return y


class Int4:
    """W (m, n) as 4-bit integers, -8 to 7, times the scales of groups: 4.5 bits a weight.

    values  (m, N / 2) uint8, N being n rounded up to whole groups. Byte j holds the integers of
            columns j (low bits) and N / 2 + j, plus 8: halves of a row are unpacked at once.
    scale   (m, N / group_size), numbers that float16 holds, in float32

    A group's scale is the one with the least squared error among several. The first that is tried
    makes the largest weight -8; the scale is negative where that weight is positive.
    """

    bits = 4

    def __init__(self, m: int, n: int, group_size: int):
        self.shape, self.group_size = (m, n), group_size
        self.groups = -(-n // group_size)
        self.values = np.empty((m, self.groups * group_size // 2), np.uint8)
        self.scale = np.empty((m, self.groups), np.float32)

    def set(self, rows: slice, weight: np.ndarray) -> None:
        """Quantise rows: weight (r, n). Raises ValueError for weights beyond 500,000."""
        if np.abs(weight).max(initial=0) > 500_000:
            raise ValueError("a weight above 500,000 has no float16 scale: take 8 bits")
        r, n = weight.shape
        w = np.zeros((r, self.groups, self.group_size), np.float32)  # g groups of s: (r, g, s)
        w.reshape(r, -1)[:, :n] = weight
        largest = np.take_along_axis(w, np.abs(w).argmax(axis=-1)[..., None], axis=-1)  # (r, g, 1)
        best = np.zeros_like(w), np.zeros_like(largest), np.full_like(largest, np.inf)
        for shrink in SHRINK:
            q = np.clip(np.rint(w / np.where(largest, largest / -8 * shrink, 1)), -8, 7)
            squares = (q * q).sum(axis=-1, keepdims=True)
            scale = (q * w).sum(axis=-1, keepdims=True) / np.maximum(squares, 1)  # least squares
            scale = scale.astype(np.float16).astype(np.float32)  # (r, g, 1)
            error = np.square(q * scale - w).sum(axis=-1, keepdims=True)
            better = error < best[2]
            best = tuple(np.where(better, *pair) for pair in zip((q, scale, error), best))
        low, high = np.split((best[0] + 8).astype(np.uint8).reshape(r, -1), 2, axis=1)
        self.values[rows] = low | high << 4
        self.scale[rows] = best[1][..., 0]

    def take(self, ids) -> np.ndarray:
        """The rows of these ids, or of a slice: ids (...) -> (..., n) float32."""
        values, scale = self.values[ids], self.scale[ids]
        out = np.empty((*values.shape[:-1], 2 * values.shape[-1]), np.float32)  # (..., N)
        unpack4(values, scale, out)
        return out[..., : self.shape[1]]

    def times(self, x: np.ndarray) -> np.ndarray:
        """x @ W.T: x (R, n) -> (R, m)."""
        m, n = self.shape
        if more := 2 * self.values.shape[1] - n:
            x = np.pad(x, ((0, 0), (0, more)))
        whole = m, n + more
        return product(
            x, whole, lambda rows, out: unpack4(self.values[rows], self.scale[rows], out)
        )


def unpack4(values: np.ndarray, scale: np.ndarray, out: np.ndarray) -> None:
    """Fill out (..., N) from the values (..., N / 2) and scales (..., groups) of an Int4."""
    halves = np.split(out, 2, axis=-1)
    for half, integers in zip(halves, (values & 15, values >> 4)):
        integers -= 8  # as int8: 255 is -1
        np.copyto(half, integers.view(np.int8))
    groups = out.reshape(*scale.shape, -1)
    groups *= scale[..., None]


def quantize_matrix(weight: np.ndarray, bits: int, group_size: int | None) -> Int8 | Int4:
    """A matrix (m, n) of 8 or 4 bits a weight. Raises ValueError for weights that are not finite.

    >>> matrix = quantize_matrix(np.array([[1, 0.5, -1.27]]), 8, None)
    >>> matrix.values, matrix.take(0).round(3)
    (array([[ 100,   50, -127]], dtype=int8), array([ 1.  ,  0.5 , -1.27], dtype=float32))
    """
    matrix = empty_matrix(*weight.shape, bits, group_size)
    m, n = weight.shape
    step = max(1, WEIGHTS // n)
    for rows in (slice(i, i + step) for i in range(0, m, step)):
        block = np.asarray(weight[rows], np.float32)
        if not np.isfinite(block).all():
            raise ValueError("the weights are not finite: there is nothing to quantise")
        matrix.set(rows, block)
    return matrix


def empty_matrix(m: int, n: int, bits: int, group_size: int | None) -> Int8 | Int4:
    """A matrix (m, n) of any value. Raises ValueError for bits or groups that are not supported."""
    check_bits(bits, group_size)
    return Int8(m, n) if bits == 8 else Int4(m, n, group_size)
