"""The functions of tensorlite/numpy_ops/order.py in PyTorch."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")


def sort(x, axis=-1, kind=None):
    return torch.sort(x.reshape(-1)).values if axis is None else torch.sort(x, axis).values


def reduced_last(x, axis):
    """The reduced axes as one last axis, and the shapes of the result without and with keepdims."""
    reduced = range(x.ndim) if axis is None else [axis] if isinstance(axis, int) else axis
    reduced = [a % x.ndim for a in reduced]
    kept = [a for a in range(x.ndim) if a not in reduced]
    shape = [x.shape[a] for a in kept]
    rows = x.permute(*kept, *reduced).reshape((*shape, -1)) if x.ndim else x.reshape(1)
    return rows, shape, [1 if a in reduced else n for a, n in enumerate(x.shape)]


def quantile(function, scale=1):
    def compute(x, q, axis=None, method="linear", keepdims=False):
        rows, shape, ones = reduced_last(x, axis)
        q = np.asarray(q) / scale
        if method in ("linear", "lower", "higher", "midpoint", "nearest"):
            flat = torch.tensor(q.reshape(-1), dtype=x.dtype)
            y = function(rows, flat, dim=-1, interpolation=method)
        else:  # which torch lacks: NumPy's quantiles of 0, 1, ... are the positions themselves
            position = np.quantile(np.arange(rows.shape[-1]), q.reshape(-1), method=method)
            below = np.floor(position)
            weight, ordered = torch.tensor(position - below, dtype=x.dtype), torch.sort(rows).values
            low, high = (ordered[..., p.astype(int)] for p in (below, np.ceil(position)))
            y = torch.movedim(torch.lerp(low, high, weight), -1, 0)
        return y.reshape((*q.shape, *(ones if keepdims else shape)))

    return compute


def median(function):
    return lambda x, axis=None, keepdims=False: quantile(function)(x, 0.5, axis, keepdims=keepdims)


THEIRS = {
    "sort": sort,
    "median": median(torch.quantile),
    "nanmedian": median(torch.nanquantile),
    "quantile": quantile(torch.quantile),
    "nanquantile": quantile(torch.nanquantile),
    "percentile": quantile(torch.quantile, 100),
    "nanpercentile": quantile(torch.nanquantile, 100),
}
EXCEPTIONS = {"partition": "torch has no such function; a sort differs in the order within parts"}
DIFFERENCES = {
    "median": "the mean of two elements in the middle, as in NumPy; torch.median is the lower one",
    "quantile": "takes all methods of NumPy; torch has five. Beside infinities, an element that is "
    "a quantile is given; torch's interpolation gives NaN",
}
