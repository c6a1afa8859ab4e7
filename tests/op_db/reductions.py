"""PyTorch's reductions, running sums, sorting and statistics, said with NumPy's functions."""

import math

import numpy as np

import tensorlite as tl

from .compare import CannotSay


def axes(x, dim):
    """The axis of a reduction: None for no axes, (), and for a 0-d array."""
    return None if dim == () or x.ndim == 0 else tuple(dim) if isinstance(dim, list) else dim


def over_axes(name: str):
    """NumPy's reduction of a name with torch's arguments; no axes, (), mean all axes."""

    def reduced(x, dim=None, keepdim=False, dtype=None):
        return getattr(np, name)(x, axis=axes(x, dim), keepdims=keepdim)

    return reduced


def statistic(name: str):
    """NumPy's var or std with torch's arguments, whose ddof is 1 unless it is given."""

    def reduced(x, dim=None, unbiased=True, keepdim=False, correction=None):
        if isinstance(dim, bool):  # torch.var(x, unbiased)
            dim, unbiased = None, dim
        ddof = int(unbiased) if correction is None else correction
        return getattr(np, name)(x, axis=axes(x, dim), ddof=ddof, keepdims=keepdim)

    return reduced


def with_mean(name: str):
    spread, mean = statistic(name), over_axes("mean")

    def both(x, dim=None, unbiased=True, keepdim=False, correction=None):
        y = spread(x, dim, unbiased, keepdim, correction)
        return y, mean(x, None if isinstance(dim, bool) else dim, keepdim)

    return both


def extreme(name: str):
    """NumPy's max or min; along one axis torch gives the gradient to the first of several."""
    return lambda x, dim=None, keepdim=False: getattr(np, name)(x, axis=dim, keepdims=keepdim)


def median(name: str):
    def middle(x, dim=None, keepdim=False):
        n = x.size if dim is None or x.ndim == 0 else x.shape[dim]
        if n % 2 == 0 or np.isnan(getattr(x, "data", x)).any():
            raise CannotSay("torch gives the lower of two middle elements, NumPy their mean")
        return getattr(np, name)(x, axis=axes(x, dim), keepdims=keepdim)

    return middle


def quantile(name: str):
    def of(x, q, dim=None, keepdim=False, interpolation="linear"):
        return getattr(np, name)(x, q, axis=axes(x, dim), keepdims=keepdim, method=interpolation)

    return of


def prod(x, dim=None, keepdim=False, dtype=None):
    return np.prod(x, axis=dim, keepdims=keepdim)


def running(name: str):
    return lambda x, dim, dtype=None: getattr(np, name)(x, axis=dim).reshape(x.shape)


def sort(x, dim=-1, descending=False, stable=False):
    y = np.sort(np.atleast_1d(x), axis=dim)
    return np.reshape(np.flip(y, dim) if descending else y, x.shape)


def topk(x, k, dim=-1, largest=True, sorted=True):
    y = np.sort(np.atleast_1d(x), axis=dim)
    y = np.flip(y, dim) if largest else y
    return np.reshape(np.take(y, np.arange(k), axis=dim), None if x.ndim else ())


def kthvalue(x, k, dim=-1, keepdim=False):
    y = np.take(np.sort(np.atleast_1d(x), axis=dim), [k - 1], axis=dim)
    return y if keepdim and x.ndim else np.squeeze(y, dim)


def diff(x, n=1, dim=-1, prepend=None, append=None):
    ends = {"prepend": prepend, "append": append}
    return np.diff(x, n, axis=dim, **{name: y for name, y in ends.items() if y is not None})


def gradient(x, dim=None, spacing=None, edge_order=1):
    spacing = (
        () if spacing is None else spacing if isinstance(spacing, (tuple, list)) else (spacing,)
    )
    return np.gradient(x, *spacing, axis=dim, edge_order=edge_order)


def trapezoid(y, x=None, dx=1.0, dim=-1):
    return np.trapezoid(y, x, dx=dx, axis=dim)


def cumulative_trapezoid(y, x=None, dx=1.0, dim=-1):
    x = x if x is None or x.ndim == 1 else np.moveaxis(x, dim, -1)
    y = np.moveaxis(y, dim, -1)
    steps = dx if x is None else np.diff(x)
    return np.moveaxis(np.cumsum(steps * (y[..., 1:] + y[..., :-1]) / 2, axis=-1), -1, dim)


def cov(x, correction=1, fweights=None, aweights=None):
    if aweights is not None:
        raise CannotSay("weights of float32, with which torch computes in float32")
    return np.cov(x, ddof=correction, fweights=fweights, aweights=aweights)


def logsumexp(x, dim, keepdim=False):
    return tl.logsumexp(x, axis=axes(x, dim), keepdims=keepdim)


def aminmax(x, dim=None, keepdim=False):
    return tuple(
        getattr(np, name)(x, axis=axes(x, dim), keepdims=keepdim) for name in ("min", "max")
    )


def renorm(x, p, dim, maxnorm):
    others = tuple(a for a in range(x.ndim) if a != dim % x.ndim)
    norms = vector_norm(x, p, others, keepdim=True)
    return x * np.where(norms > maxnorm, maxnorm / (norms + 1e-7), 1)


def vector_norm(x, ord=2, dim=None, keepdim=False, dtype=None):
    """torch's vector_norm takes any number of axes, NumPy's norm one."""
    axis = axes(x, dim)
    size = np.abs(x)
    if math.isinf(ord):
        return (np.max if ord > 0 else np.min)(size, axis=axis, keepdims=keepdim)
    if ord == 0:
        return np.sum((x != 0) + 0.0 * x, axis=axis, keepdims=keepdim)
    if ord == 1:
        return np.sum(size, axis=axis, keepdims=keepdim)
    if ord == 2:
        return np.sqrt(np.sum(x * x, axis=axis, keepdims=keepdim))
    return np.sum(size**ord, axis=axis, keepdims=keepdim) ** (1 / ord)


NAMES = {name: over_axes(name) for name in "sum mean amax amin nansum nanmean".split()} | {
    "aminmax": aminmax,
    "corrcoef": lambda x: np.corrcoef(x),
    "cov": cov,
    "cumprod": running("cumprod"),
    "cumsum": running("cumsum"),
    "cumulative_trapezoid": cumulative_trapezoid,
    "diff": diff,
    "gradient": gradient,
    "kthvalue": kthvalue,
    "linalg.vector_norm": vector_norm,
    "logsumexp": logsumexp,
    "max|reduction_no_dim": extreme("max"),
    "max|reduction_with_dim": extreme("max"),
    "median": median("median"),
    "min|reduction_no_dim": extreme("min"),
    "min|reduction_with_dim": extreme("min"),
    "msort": lambda x: np.sort(x, axis=0),
    "nanmedian": median("nanmedian"),
    "nanquantile": quantile("nanquantile"),
    "prod": prod,
    "quantile": quantile("quantile"),
    "renorm": renorm,
    "sort": sort,
    "std": statistic("std"),
    "std_mean": with_mean("std"),
    "topk": topk,
    "trapezoid": trapezoid,
    "trapz": trapezoid,
    "var": statistic("var"),
    "var_mean": with_mean("var"),
}
