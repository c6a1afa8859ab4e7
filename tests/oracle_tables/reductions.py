"""The functions of tensorlite/numpy_ops/reductions.py in PyTorch."""

import pytest

torch = pytest.importorskip("torch")


def dims(x, axis):
    if axis is None:
        return tuple(range(x.ndim))
    return axis if isinstance(axis, tuple) else (axis,)


def over_dims(function):
    return lambda x, axis=None, keepdims=False: function(x, dims(x, axis), keepdim=keepdims)


def std(x, axis=None, ddof=0, keepdims=False):
    return torch.std(x, dims(x, axis), correction=ddof, keepdim=keepdims)


def nanvar(x, axis=None, ddof=0, keepdims=False):
    """By its definition: the mean of what torch.nanmean has left."""
    axis = dims(x, axis)
    there = (~x.isnan()).sum(axis, keepdim=keepdims)
    centred = x - torch.nanmean(x, axis, keepdim=True)
    return torch.nansum(centred**2, axis, keepdim=keepdims) / (there - ddof)


def nanstd(x, axis=None, ddof=0, keepdims=False):
    return torch.sqrt(nanvar(x, axis, ddof, keepdims))


def average(x, weights, axis=None, returned=False, keepdims=False):
    if weights.shape != x.shape:
        shape = [
            n if a in [d % x.ndim for d in dims(x, axis)] else 1 for a, n in enumerate(x.shape)
        ]
        weights = weights.reshape(shape).expand(x.shape)
    total = weights.sum(dims(x, axis), keepdim=keepdims)
    y = (x * weights).sum(dims(x, axis), keepdim=keepdims) / total
    return (y, total) if returned else y


def running(function):
    return lambda x, axis=None: function(x.reshape(-1), 0) if axis is None else function(x, axis)


def cumulative(function, first):
    def compute(x, axis=None, include_initial=False):
        axis = 0 if axis is None else axis
        if include_initial:
            shape = list(x.shape)
            shape[axis] = 1
            x = torch.cat([torch.full(shape, first, dtype=x.dtype), x], axis)
        return function(x, axis)

    return compute


def prod(x, axis=None, keepdims=False):
    for dim in sorted((a % x.ndim for a in dims(x, axis)), reverse=True):
        x = torch.prod(x, dim, keepdim=keepdims)
    return x


THEIRS = {
    "amax": over_dims(torch.amax),
    "amin": over_dims(torch.amin),
    "ptp": lambda x, axis=None, keepdims=False: (
        torch.amax(x, dims(x, axis), keepdims) - torch.amin(x, dims(x, axis), keepdims)
    ),
    "std": std,
    "average": average,
    "cumprod": running(torch.cumprod),
    "cumulative_sum": cumulative(torch.cumsum, 0),
    "cumulative_prod": cumulative(torch.cumprod, 1),
    "nansum": over_dims(torch.nansum),
    "nanmean": over_dims(torch.nanmean),
    "nanvar": nanvar,
    "nanstd": nanstd,
    "nanprod": lambda x, axis=None, keepdims=False: prod(
        torch.nan_to_num(x, nan=1.0), axis, keepdims
    ),
    "nancumsum": running(lambda x, axis: torch.cumsum(torch.nan_to_num(x, nan=0.0), axis)),
    "nancumprod": running(lambda x, axis: torch.cumprod(torch.nan_to_num(x, nan=1.0), axis)),
    "nanmax": over_dims(torch.amax),  # of arrays without NaN; the others in test_numpy_reductions
    "nanmin": over_dims(torch.amin),
}
EXCEPTIONS = {}
DIFFERENCES = {
    "nanmax, nanmin": "NaN is left out; torch.amax and torch.amin give it",
    "average": "the weights may be those of some axes; torch has no such function",
}
