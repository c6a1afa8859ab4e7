"""How to say PyTorch's operations with ours and with NumPy's functions of tensors."""

from collections.abc import Callable

from . import elementwise, networks, products, reductions, scattered, shapes
from .compare import Difference, difference, full_name
from .reasons import ROOM, reason_missing

NAMES: dict[str, Callable] = (
    elementwise.NAMES
    | networks.NAMES
    | products.NAMES
    | reductions.NAMES
    | scattered.NAMES
    | shapes.NAMES
)


# Results that are not unique are compared by what is: a factor of -1 of a singular vector does not
# change its absolute values, and the residuals of least squares are empty in one library only.
def _sizes(values: list) -> list:
    return [abs(y) for y in values]


def _rows(values: list, transposed: bool) -> list:
    """Of singular vectors those that belong to a singular value; the others are any basis."""
    if len(values) < 3:
        return values
    u, s, v = values
    k = s.shape[-1]
    return _sizes([u[..., :k], s, v[..., :k, :] if transposed else v[..., :k]])


def _first(values: list) -> list:
    return values[:1]


COMPARED: dict[str, Callable[[list], list]] = {
    "linalg.eigh": _sizes,
    "linalg.lstsq": _first,
    "linalg.qr": _sizes,
    "linalg.svd": lambda values: _rows(values, True),
    "qr": _sizes,
    "svd": lambda values: _rows(values, False),
    "triangular_solve": _first,
}


def _symmetric(x):
    return (x + x.swapaxes(-1, -2)) / 2


# What is done to the first argument in both libraries: NumPy's functions of symmetric matrices read
# one triangle, which gets the whole gradient of ours, while PyTorch's is spread over both.
PREPARED: dict[str, Callable] = {
    "cholesky": _symmetric,
    "linalg.cholesky": _symmetric,
    "linalg.cholesky_ex": _symmetric,
    "linalg.eigh": _symmetric,
    "linalg.eigvalsh": _symmetric,
    "linalg.pinv|hermitian": _symmetric,
}


def how_to_say(op) -> Callable | None:
    """Our function of an entry's arguments, a variant's own first, or None if there is none."""
    name = full_name(op)
    return None if reason_missing(name) else NAMES.get(name, NAMES.get(op.name))


def judge(op, sample, orders: int = 3) -> Difference | None:
    """The first difference between PyTorch's entry and ours for a sample; see `difference`."""
    name = full_name(op)
    return difference(
        op,
        sample,
        how_to_say(op),
        orders,
        PREPARED.get(name, lambda x: x),
        COMPARED.get(op.name, list),
        ROOM.get(op.name, (1, ""))[0],
    )
