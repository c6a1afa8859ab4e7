"""A function and its vjp under examination: calls that are watched, and results that are kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from .comparing import copies, distinct, is_real, largest, unit, wide


def check_listed(args: Sequence) -> None:
    """Raise TypeError for an array in place of a list of arguments."""
    if hasattr(args, "dtype") or not isinstance(args, Sequence):
        raise TypeError(
            "args is a list with one entry for each argument, [x] for one, not an object of type "
            f"{type(args).__name__}"
        )


def not_one(what: str, value) -> TypeError:
    """The exception for a function that gives something else than one array or tensor."""
    return TypeError(
        f"the function gives an object of type {type(value).__name__}; a gradient can be "
        f"checked for a function that gives one {what}: wrap it in a function that does"
    )


def gradients_of(result) -> list:
    """What a vjp returns, in a list, with arrays in place of floats."""
    gradients = result if isinstance(result, (tuple, list)) else [result]
    return [np.asarray(x) if isinstance(x, float) else x for x in gradients]


class Subject:
    """A function and its vjp; each call is given copies of the arrays, and is watched."""

    def __init__(
        self, value: Callable, vjp: Callable, args: Sequence, g: np.ndarray, unit: float = 2.0**-23
    ):
        self.functions = {"value": value, "vjp": vjp}
        self.unit = unit  # of the numbers with which the functions compute, as far as one knows
        self.args, self.g = copies(args), np.array(g)
        self.writes: dict[tuple, str] = {}  # (function, array) -> the complaint

    def keep(self) -> None:
        """Keep the value and the gradients, which those of later calls are compared with."""
        self.kept_value, self.kept = copies(self.value()), copies(self.vjp())

    def value(self, args: Sequence | None = None) -> list:
        """The value, in a list."""
        args = copies(self.args) if args is None else args
        return [np.asarray(self._call("value", args, [f"argument {i}" for i in range(len(args))]))]

    def vjp(self, g=None, args: Sequence | None = None, **needs) -> list:
        """The gradients as they are returned, in a list."""
        args = copies(self.args) if args is None else args
        g = np.array(self.g) if g is None else g
        names = ["g", *(f"argument {i}" for i in range(len(args)))]
        result = self._call("vjp", [g, *args], names, **needs)
        return gradients_of(result)

    def _call(self, what: str, arrays: list, names: list, **needs):
        """Call one of the functions, and write down which of `arrays` it changes."""
        arrays = [np.asarray(a) if isinstance(a, np.generic) else a for a in arrays]
        before = copies(arrays)
        result = self.functions[what](*arrays, **needs)
        for name, old, new in zip(names, before, arrays):
            if not isinstance(new, np.ndarray) or np.array_equal(new, old):
                continue
            changed = np.argwhere((new != old) & ((new == new) | (old == old)))  # not NaN to NaN
            if len(changed):
                at = tuple(map(int, changed[0]))
                was, now = distinct(old[at], new[at])
                self.writes.setdefault(
                    (what, name),
                    f"The {what} writes into {name}: entry {at} was {was} before the call "
                    f"and {now} after it. Copy it first.",
                )
        return result

    def nearby(self, size: float, seed: int = 0) -> list:
        """g and the arguments, with each number made smaller by up to `size` times itself."""
        rng = np.random.default_rng(seed)
        return [
            (a * (1 - size * rng.uniform(0, 1, a.shape))).astype(a.dtype) if is_real(a) else a
            for a in copies([self.g, *self.args])
        ]

    def noise(self, i: int | None) -> float:
        """By how much rounding may change the gradient of argument i, or the value for None.

        Where large terms cancel, this is far more than a unit in the last place of the result.
        So it is measured: a change of g and of the arguments in the last places rounds everything
        in between differently.
        """
        arrays = [a for a in [self.g, *self.args] if is_real(a)]
        least = max(self.unit, *map(unit, arrays))
        kept = self.kept_value[0] if i is None else self.kept[i]
        # If the terms cancel to exactly 0 each time, their rounding is that of g.
        single = np.array_equal(wide(kept).astype(np.float32), wide(kept))
        change = max(self.unit if single else 0.0, unit(kept)) * largest(self.g)
        for seed in range(6):
            g, *args = self.nearby(least * 2**seed, seed)
            found = self.value(args)[0] if i is None else self.vjp(g, args)[i]
            change = max(change, largest(wide(found) - wide(kept)))
        return 64 * max(a.size for a in arrays) ** 0.5 * change
