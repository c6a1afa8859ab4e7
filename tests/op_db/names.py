"""How to say PyTorch's operations with ours and with NumPy's functions of tensors."""

from collections.abc import Callable

from . import elementwise, networks, products, reductions, shapes
from .compare import full_name

NAMES: dict[str, Callable | None] = (
    elementwise.NAMES | networks.NAMES | products.NAMES | reductions.NAMES | shapes.NAMES
)


def how_to_say(op) -> Callable | None:
    """Our function of an entry's arguments, or None; a variant's own comes first."""
    name = full_name(op)
    return NAMES[name] if name in NAMES else NAMES.get(op.name)
