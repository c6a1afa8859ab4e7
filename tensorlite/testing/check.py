"""`check_grads`, which checks a function's gradients, and what its vjps do to their arguments."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from ..arraylike import is_float
from ..modes import higher_order, no_grad
from ..tensor import Tensor, grad
from .directions import judge_along
from .judge import Tolerance, judge
from .mistakes import likely_mistake
from .probe import Probe, precision, start
from .report import CannotTell, Report, WrongGradient, misconduct
from .subject import check_listed
from .supervise import nodes_of, supervised
from .ways import FACTORS, Way, arranged, ways_of


def check_grads(
    fn: Callable[..., Tensor],
    args: Sequence,
    order: int = 1,
    rtol: float = 1e-5,
    atol: float = 1e-14,
    directions: int | None = None,
) -> None:
    """Compare the gradients of `fn(*args)` with differences of its values, in float64.

    Floating-point arrays and tensors among the arguments are checked, entry by entry; the others
    are passed on unchanged. The value of `fn` may have any shape: the gradient that is checked is
    that of a sum of the value's entries, weighted with fixed random numbers. `order` 2 checks
    second derivatives too, as gradients of a weighted sum of the first; 3 also checks third ones,
    and so on.

    An entry is wrong if its distance from the difference exceeds `atol`, plus `rtol` times its
    size, plus the error of the difference itself. That error is estimated by comparing many step
    sizes; gradients too small to change the rounded value of `fn` cannot be judged. The default of
    `atol` allows for the rounding error of a gradient that is 0; if all gradients are smaller than
    that, pass 0. Where `fn` has a kink, every number between the two one-sided slopes is right.

    The first derivatives are then computed again, with the arguments and the gradients that the
    vjps are given in other memory orders, and with gradients needed for some of the arguments only:
    for every choice of them if there are at most four, otherwise for each one alone and for all but
    one. The gradient that a vjp is given is read-only here, because a vjp must not write into it,
    and the vjp of an operation declared `fresh` must return arrays of its own.

    With `directions`, a number, the gradient is compared along so many random directions instead of
    entry by entry, and in the plain way alone: for large arguments, because each direction takes
    three evaluations of `fn`, whatever their size (directions.py says what may be missed). Where
    the gradient is wrong, the worst entry is found by bisection.

    Raises WrongGradient, an AssertionError, that names the argument and the index of a wrong entry,
    what the mistake looks like, or the operation whose vjp breaks a rule, or that says that `fn`
    returns no tensor, is random or changes its arguments. Warns CannotTell where the values show
    nothing at any step size. Raises ValueError if there is nothing to check or `order` is below 1,
    and TypeError for an array in place of the list of arguments.

    >>> check_grads(lambda x: x * x, [np.array([1.0, 2.0])])
    """
    if order < 1:
        raise ValueError(f"order is at least 1, not {order}")
    if directions is not None and directions < 1:
        raise ValueError(f"directions is at least 1, or None for every entry, not {directions}")
    check_listed(args)
    points = {i: x for i, a in enumerate(args) if (x := _float64(a)) is not None}
    if not points:
        given = ", ".join(str(getattr(a, "dtype", type(a).__name__)) for a in args)
        raise ValueError(f"no argument is a floating-point array or tensor; given are: {given}")
    for derivative in range(order):
        # Only the first derivatives are checked in all ways; higher ones use the same operations.
        plain = derivative > 0 or directions
        ways = [next(ways_of(points))] if plain else list(ways_of(points))
        try:
            weight = _check(fn, args, points, ways, Settings(rtol, atol, directions))
        except WrongGradient as error:
            if derivative == 0:
                raise
            words = "differentiated once more: " * derivative + str(error)
            raise WrongGradient(error.report, words) from None
        fn = _weighted_gradient(fn, list(points), weight)


class Settings(NamedTuple):
    """What `check_grads` was told about tolerances and directions."""

    rtol: float
    atol: float
    directions: int | None


def _check(fn, args: Sequence, points: dict, ways: list[Way], settings: Settings):
    """Check first derivatives in all of `ways`; returns the weight of each entry of the value."""

    def call(points: dict, needs=()) -> tuple[Tensor, list[Tensor]]:
        """The value at `points` (argument -> array), and the leaves that need a gradient."""
        leaves = {i: Tensor(x, i in needs) for i, x in points.items()}
        value = fn(*(leaves.get(i, a) for i, a in enumerate(args)))
        if not isinstance(value, Tensor):
            raise misconduct(f"the function gives {type(value).__name__}, not a Tensor")
        return value, [leaves[i] for i in needs]

    weight = first = last = None
    for way in ways:
        try:
            if last is None or last[:2] != way[:2]:  # otherwise the last graph is used again
                laid_out = way.arranged(points)
                value, leaves = call(laid_out, way.needs)
                _check_unchanged(laid_out, points)
            last = way
            weight = start(value.shape) if weight is None else weight
            found = value.data, dict(zip(way.needs, _gradients(value, leaves, weight, way.g_order)))
        except Exception as error:
            if first is None or isinstance(error, AssertionError):
                raise
            raise misconduct(f"{way}: {type(error).__name__}: {error}") from error
        if first is None or not _same(found, first, settings):
            _compare(call, points, way, weight, value, found[1], settings)
        first = found if first is None else first
    return weight


def _check_unchanged(laid_out: dict, points: dict) -> None:
    for i, x in points.items():
        if not np.array_equal(laid_out[i], x, equal_nan=True):
            raise misconduct(f"the function changes argument {i}: it must work on a copy of it")


def _float64(value) -> np.ndarray | None:
    """A float64 copy of `value` if it is of floating point, otherwise None."""
    data = value.data if isinstance(value, Tensor) else value
    if not hasattr(data, "dtype"):
        data = np.asarray(data) if isinstance(data, float) else None
    if data is None or data.dtype.kind != "f":
        return None
    return np.array(data, dtype=np.float64)  # this keeps the memory order


def _same(found, first, settings: Settings) -> bool:
    """Whether value and gradients equal `first`, which was compared with differences already."""
    pairs = [(found[0], first[0]), *((g, first[1][i]) for i, g in found[1].items())]
    return all(_close(a, b, settings.rtol, settings.atol) for a, b in pairs)


def _weighted_gradient(fn, checked: list[int], weight):
    """A scalar function of the same arguments: the weighted sum of all first derivatives."""

    def function(*args):
        args = [
            Tensor(a.data, True) if i in checked and not a.requires_grad else a
            for i, a in enumerate(args)
        ]
        inputs = [args[i] for i in checked]
        with higher_order():
            value = fn(*args)
            total = Tensor(np.zeros(()))
            if not value.requires_grad:  # fn does not depend on its arguments
                return total
            gradients = grad(value, inputs, gradient=weight, create_graph=True)
            for i, (x, g) in enumerate(zip(inputs, gradients)):
                w = np.random.default_rng(i + 1).standard_normal(x.shape)
                total = total + (g * w).sum()
            return total

    return function


def _gradients(value: Tensor, leaves: list[Tensor], weight, g_order: str) -> list[np.ndarray]:
    """The gradients of the weighted sum of `value`, zeros for leaves that it does not depend on."""
    if not value.requires_grad:
        return [np.zeros(leaf.shape) for leaf in leaves]
    start = arranged(weight * FACTORS[g_order], g_order)
    with supervised(value, g_order):
        gradients = grad(value, leaves, gradient=start, retain_graph=True)
    return [g.data / FACTORS[g_order] for g in gradients]


def _close(a, b, rtol: float, atol: float = 0.0) -> bool:
    """Whether all entries agree to `rtol`, or to the rounding error of the largest finite one."""
    atol += 1e-12 * np.max(np.abs(b), initial=0.0, where=np.isfinite(b))
    return np.allclose(a, b, rtol, atol, equal_nan=True)


def _compare(
    call, points: dict, way: Way, weight, value: Tensor, gradients: dict, settings: Settings
) -> None:
    """Raise WrongGradient if a gradient differs from the differences of the values."""
    prefix = f"{way}: " if str(way) else ""
    laid_out = way.arranged(points)

    def at(moved: dict) -> np.ndarray:
        moved = {i: arranged(x, way.orders[i]) for i, x in moved.items()}
        with no_grad():
            return call(laid_out | moved)[0].data.astype(np.float64)

    y = at({})
    if not _close(y, value.data, settings.rtol):
        raise misconduct(
            f"{prefix}the function gives other values when it is called again with the same "
            "arguments, without recording gradients: does it draw random numbers?"
        )
    # The precision of the values is that of the least precise dtype in the graph.
    dtypes = [node.dtype for node in nodes_of(value)] + [value.dtype, np.dtype(np.float64)]
    eps = max(precision(dtype) for dtype in dtypes if is_float(dtype))
    probe = Probe(at, points, weight, y, eps, floor=1.0 if settings.atol else 0.0)
    tolerance = Tolerance(settings.rtol, settings.atol, eps)
    if settings.directions:
        found = judge_along(probe, gradients, tolerance, settings.directions, seed=0)
    else:
        found = judge(probe, gradients, tolerance)
    if not found.wrong:
        blind = [
            entry
            for entry in found.unknown
            if not np.isfinite([entry.got, entry.expected.error]).all()
        ]
        report = Report("cannot tell" if blind else "right", blind, precision=found.precision)
        if blind:
            warnings.warn(CannotTell(f"{prefix}{blind[0]}"), stacklevel=4)
        return
    mistake = None
    if found.expected:
        got, expected, error = (
            [x.get(i) for i in points] for x in (gradients, found.expected, found.error)
        )
        here = list(points.values())
        mistake = likely_mistake(got, expected, error, g=weight, args=here, value=y)
    report = Report("wrong", found.wrong, mistake=mistake, counts=found.counts)
    words = f"; {mistake.words}" if mistake else ""
    raise WrongGradient(report, f"{prefix}{found.wrong[0]}{words}")
