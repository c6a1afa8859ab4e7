"""PyTorch's operations that write into a copy, said with scatter_add, the gradient of indexing."""

import numpy as np

import tensorlite as tl

from .shapes import gather, select, slices, strided


def positions(x):
    """The flat position of every element, in the shape of x."""
    return np.arange(x.size).reshape(x.shape)


def written(x, places, values, accumulate=False):
    """x with `values` at the flat positions `places`, or with the values added there."""
    kept = np.ones(x.size)
    if not accumulate:
        kept[places.ravel()] = 0
    values = np.broadcast_to(values, places.shape)
    added = tl.scatter_add(np.reshape(values, -1), (x.size,), places.ravel())
    return np.reshape(np.reshape(x, -1) * kept + added, x.shape)


def as_strided_scatter(x, values, size, stride, storage_offset=0):
    return written(x, strided(size, stride, storage_offset), values)


def diagonal_scatter(x, values, offset=0, dim1=0, dim2=1):
    return written(x, np.diagonal(positions(x), offset, dim1, dim2), values)


def index_add(x, dim, index, values, alpha=1):
    return written(x, index_places(x, dim, index), alpha * values, accumulate=True)


def index_copy(x, dim, index, values):
    return written(x, index_places(x, dim, index), values)


def index_places(x, dim, index):
    return positions(x) if x.ndim == 0 else np.take(positions(x), index, axis=dim)


def index_put(x, indices, values, accumulate=False):
    return written(x, positions(x)[tuple(indices)], values, accumulate)


def masked_scatter(x, mask, source):
    shape = np.broadcast_shapes(x.shape, mask.shape)
    x, places = np.broadcast_to(x, shape), np.flatnonzero(np.broadcast_to(mask, shape))
    return written(x, places, np.reshape(source, -1)[: places.size])


def put(x, index, source, accumulate=False):
    return written(x, index.astype(int), np.reshape(source, index.shape), accumulate)


def scatter(accumulate: bool):
    def scattered(x, dim, index, source):
        places = gather(positions(x), dim, index)
        if isinstance(source, tl.Tensor):
            source = source[tuple(slice(n) for n in index.shape)]
        return written(x, places, source, accumulate)

    return scattered


def select_scatter(x, values, dim, index):
    return written(x, select(positions(x), dim, index), values)


def slice_scatter(x, values, dim=0, start=None, end=None, step=1):
    return written(x, slices(positions(x), dim, start, end, step), values)


NAMES = {
    "as_strided_scatter": as_strided_scatter,
    "diagonal_scatter": diagonal_scatter,
    "index_add": index_add,
    "index_copy": index_copy,
    "index_fill": lambda x, dim, index, value: index_copy(x, dim, np.unique(index), value),
    "index_put": index_put,
    "masked_scatter": masked_scatter,
    "put": put,
    "scatter": scatter(accumulate=False),
    "scatter_add": scatter(accumulate=True),
    "select_scatter": select_scatter,
    "slice_scatter": slice_scatter,
}
