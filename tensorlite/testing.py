"""Is a gradient right? Checks for any function, and hypothesis strategies to draw its arguments.

A property test of an operation of your own:

    @given(arrays())
    def test_my_op(x):
        check_grads(my_op, [x])

`check_grads` needs NumPy alone; the strategies need hypothesis.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from .tensor import Node, Tensor, grad, higher_order, no_grad

# =================================================================================================
# The check
# =================================================================================================


def check_grads(
    fn: Callable[..., Tensor],
    args: Sequence,
    order: int = 1,
    rtol: float = 1e-5,
    atol: float = 1e-14,
) -> None:
    """Compare the gradients of `fn(*args)` with differences of its values, in float64.

    Floating-point arrays and tensors among the arguments are checked, entry by entry; the others
    are passed on as they are. The value may have any shape: what is checked is the gradient of its
    sum weighted with fixed random numbers. `order` 2 checks second derivatives too, as gradients of
    a weighted sum of the first; 3 third ones, and so on.

    An entry is wrong if it is further from the differences than `atol`, plus `rtol` times its size,
    plus the error of the differences themselves. That error is estimated by comparing many steps;
    what lies below the rounding of `fn`'s value cannot be judged. The default of `atol` is what
    rounding leaves of a zero; for gradients that are smaller throughout, pass 0. Where `fn` has a
    kink, every number between the slopes on the two sides is right.

    The first derivatives are then computed again with the arguments, and the gradients that the
    vjps are given, in other memory orders, and with gradients needed for some of the arguments
    only: every choice of up to four arguments; of more, each one alone and all but one. What a vjp
    is given is read-only here, because it belongs to the engine, and a vjp that is declared `fresh`
    must give arrays of its own.

    Raises AssertionError that names the argument and the index of a wrong entry, or the operation
    whose vjp does what it must not. Raises ValueError if there is nothing to check.

    >>> check_grads(lambda x: x * x, [np.array([1.0, 2.0])])
    """
    if order < 1:
        raise ValueError(f"order is at least 1, not {order}")
    points = {i: x for i, a in enumerate(args) if (x := _float64(a)) is not None}
    if not points:
        raise ValueError("no argument is a floating-point array or tensor")
    for derivative in range(order):
        # Derivatives are made of operations that have been tried in every way where they began.
        ways = list(_ways(points)) if derivative == 0 else [next(_ways(points))]
        try:
            weight = _check(fn, args, points, ways, rtol, atol)
        except AssertionError as error:
            if derivative == 0:
                raise
            raise AssertionError("differentiated once more: " * derivative + str(error)) from None
        fn = _weighted_gradient(fn, list(points), weight)


def _check(fn, args: Sequence, points: dict, ways: list[_Way], rtol: float, atol: float):
    """Check first derivatives in those ways; returns the weight of each entry of the value."""

    def call(points: dict, needs=()) -> tuple[Tensor, list[Tensor]]:
        """The value at `points` (argument -> array), and the leaves that need a gradient."""
        leaves = {i: Tensor(x, i in needs) for i, x in points.items()}
        value = fn(*(leaves.get(i, a) for i, a in enumerate(args)))
        if not isinstance(value, Tensor):
            raise AssertionError(f"the function gives {type(value).__name__}, not a Tensor")
        return value, [leaves[i] for i in needs]

    weight = first = last = None
    for way in ways:
        try:
            if last is None or last[:2] != way[:2]:  # else the same graph serves again
                value, leaves = call(way.arranged(points), way.needs)
            last = way
            weight = _weight(value.shape) if weight is None else weight
            found = value.data, dict(zip(way.needs, _gradients(value, leaves, weight, way.g_order)))
        except Exception as error:
            if first is None or isinstance(error, AssertionError):
                raise
            raise AssertionError(f"{way}: {type(error).__name__}: {error}") from error
        if first is None or not _same(found, first, rtol, atol):
            _compare(call, points, way, weight, value, found[1], rtol, atol)
        first = found if first is None else first
    return weight


def _float64(value) -> np.ndarray | None:
    """A float64 copy of floating-point data, None of anything else."""
    data = value.data if isinstance(value, Tensor) else value
    if not hasattr(data, "dtype"):
        data = np.asarray(data) if isinstance(data, float) else None
    if data is None or data.dtype.kind != "f":
        return None
    return np.array(data, dtype=np.float64)  # in the memory order that it has


def _weight(shape) -> np.ndarray:
    """Fixed random numbers of either sign, none of them near 0."""
    rng = np.random.default_rng(0)
    return np.asarray(rng.uniform(0.5, 1.5, shape) * rng.choice([-1.0, 1.0], shape))


def _same(found, first, rtol: float, atol: float) -> bool:
    """Whether value and gradients are those that have been compared with differences already."""
    pairs = [(found[0], first[0]), *((g, first[1][i]) for i, g in found[1].items())]
    return all(_close(a, b, rtol, atol) for a, b in pairs)


def _close(a, b, rtol: float, atol: float = 0.0) -> bool:
    """Equal to `rtol` of each entry, or to rounding of the largest finite one."""
    atol += 1e-12 * np.max(np.abs(b), initial=0.0, where=np.isfinite(b))
    return np.allclose(a, b, rtol, atol, equal_nan=True)


def _weighted_gradient(fn, checked: list[int], weight):
    """A scalar function of the same arguments: the sum of all first derivatives, weighted."""

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


# =================================================================================================
# Other ways to compute the same gradients
# =================================================================================================

# The gradient of the value goes in with a factor of its own in each order of memory, and what comes
# out is divided by it: a vjp is linear.
FACTORS = {"C": 1.0, "F": -2.0, "strided": 0.5, "reversed": -1.0}
NAMES = {"C": "C order", "F": "Fortran order", "strided": "strided memory",
         "reversed": "reversed memory", "given": "the order given"}  # fmt: skip


class _Way(NamedTuple):
    """Which arguments need a gradient, and how arguments and gradients lie in memory."""

    needs: tuple[int, ...]
    orders: dict[int, str]
    g_order: str

    def arranged(self, points: dict) -> dict:
        return {i: _arranged(x, self.orders[i]) for i, x in points.items()}

    def __str__(self) -> str:
        orders = {i: NAMES[o] for i, o in self.orders.items() if o != "given"}
        words = [f"argument {i} in {name}" for i, name in orders.items()]
        if self.g_order != "C":
            words.append(f"the gradient of the value in {NAMES[self.g_order]}")
        if len(self.needs) < len(self.orders):
            words.append(f"gradients for argument {', '.join(map(str, self.needs))} alone")
        return "with " + ", ".join(words) if words else ""


def _ways(points: dict) -> Iterator[_Way]:
    """The plain way, then others; what differs in nothing from an earlier one is left out."""
    everything, orders = tuple(points), list(FACTORS)
    given = dict.fromkeys(points, "given")
    yield from (_Way(everything, given, g_order) for g_order in orders)
    uniform = [dict.fromkeys(points, order) for order in orders]
    mixed = [{i: orders[(k + n) % 4] for n, i in enumerate(points)} for k in (0, 2)]
    seen = {tuple(x.strides for x in points.values())}
    for laid in uniform + mixed:
        way = _Way(everything, laid, "C")
        strides = tuple(x.strides for x in way.arranged(points).values())
        if strides not in seen:
            seen.add(strides)
            yield from (way, way._replace(g_order=laid[everything[0]]))
    n = len(points)
    sizes = range(1, n) if n <= 4 else (1, n - 1)
    for needs in itertools.chain(*(itertools.combinations(points, size) for size in sizes)):
        yield _Way(needs, given, "C")


def _arranged(values: np.ndarray, order: str) -> np.ndarray:
    """A copy of `values` that lies in memory in another way."""
    if order == "given" or values.ndim == 0:
        return np.array(values)
    if order == "strided":
        wide = np.zeros((*values.shape[:-1], 2 * values.shape[-1]), values.dtype)
        wide[..., ::2] = values
        return wide[..., ::2]
    if order == "reversed":
        return np.array(values[::-1], order="C")[::-1]
    return np.array(values, order=order)


def _gradients(value: Tensor, leaves: list[Tensor], weight, g_order: str) -> list[np.ndarray]:
    """The gradients of the weighted sum of `value`; what it does not depend on has zeros."""
    if not value.requires_grad:
        return [np.zeros(leaf.shape) for leaf in leaves]
    start = _arranged(weight * FACTORS[g_order], g_order)
    with _supervised(value, g_order):
        gradients = grad(value, leaves, gradient=start, retain_graph=True)
    return [g.data / FACTORS[g_order] for g in gradients]


def _nodes(value: Tensor) -> list[Node]:
    """All nodes that `value` was computed by, but those that are freed."""
    found, stack = {}, [value.node]
    while stack:
        node = stack.pop()
        if isinstance(node, Node) and node.vjps is not None and node not in found:
            found[node] = None
            stack.extend(node.parents)
    return list(found)


@contextlib.contextmanager
def _supervised(value: Tensor, g_order: str) -> Iterator[None]:
    """A block in which the vjps below `value` are watched and given gradients in that order."""
    vjps = {node: node.vjps for node in _nodes(value)}
    for node in vjps:
        node.vjps = _watched(node, node.vjps, g_order)
    try:
        yield
    finally:
        for node in vjps:  # it may be a graph that goes on to live
            node.vjps = vjps[node]


def _watched(node: Node, vjps, g_order: str) -> Callable:
    """The vjps of a node as one function, which raises AssertionError if they break a promise."""

    def call(g):
        try:
            if callable(vjps):
                return vjps(g)
            return [None if p is None else vjp(g) for p, vjp in zip(node.parents, vjps)]
        except ValueError as error:
            if "read-only" not in str(error):
                raise
            raise AssertionError(
                f"a vjp of '{node.op}' writes into an array that is not its own, either the "
                f"gradient that it is given or one that the forward pass keeps: copy it first "
                f"({error})"
            ) from error

    def watched(g):
        g = _arranged(np.asarray(g), g_order)
        g.flags.writeable = False
        gradients = call(g)
        if node.fresh:
            _check_fresh(node, g, gradients, call(g))
        return gradients

    return watched


def _check_fresh(node: Node, g, *calls) -> None:
    """What the vjps of an operation declared `fresh` gave, in two calls, must be arrays of its own.

    An array that is kept somewhere is the same one in both calls.
    """
    others = [g]
    for i, new in ((i, new) for gradients in calls for i, new in enumerate(gradients)):
        if not isinstance(new, np.ndarray) or not new.size:  # the engine adds to arrays alone
            continue
        if not new.flags.writeable or any(np.shares_memory(new, other) for other in others):
            raise AssertionError(
                f"'{node.op}' is declared fresh=True, but its gradient for input {i} shares memory "
                "with the gradient that the vjp was given, with another gradient, or with an array "
                "that is kept, which the engine would add to in place: copy it, or leave fresh out"
            )
        others.append(new)


# =================================================================================================
# Differences
# =================================================================================================

RATIO = 2.6  # of a step to the next smaller one; not an integer, which could hide a period


def _compare(call, points: dict, way: _Way, weight, value: Tensor, gradients: dict, rtol, atol):
    """Raise AssertionError if a gradient is not what the differences of the values say.

    One central difference clears most entries. Those that it does not clear are judged with many
    steps, the worst first.
    """
    prefix = f"{way}: " if str(way) else ""
    arranged = way.arranged(points)
    # The digits that a function keeps which computes in float32 on the way.
    dtypes = [node.dtype for node in _nodes(value)] + [value.dtype, np.dtype(np.float64)]
    eps = max(np.finfo(dtype).eps for dtype in dtypes if dtype.kind == "f")

    def at(i: int, index: tuple, x: float) -> np.ndarray:
        """The value where one entry is changed to `x`; NaN outside the domain."""
        moved = np.array(points[i])
        moved[index] = x
        try:
            with no_grad(), np.errstate(all="ignore"):
                y = call(arranged | {i: _arranged(moved, way.orders[i])})[0].data
        except (ArithmeticError, ValueError):
            return np.full(weight.shape, np.nan)
        return y.astype(np.float64) if y.shape == weight.shape else np.full(weight.shape, np.nan)

    def central(i: int, index: tuple, x: float, step: float) -> float:
        up, down = x + step, x - step
        return np.sum(weight * _change(at(i, index, down), at(i, index, up))) / (up - down)

    with no_grad():
        y = call(arranged)[0].data.astype(np.float64)
    if not _close(y, value.data, rtol):
        raise AssertionError(
            f"{prefix}the function gives other values when it is called again with the same "
            "arguments, without recording gradients: does it draw random numbers?"
        )
    # What the last place of the values is worth, or of numbers around 1 that they may have been
    # computed from. A gradient that is smaller than the sum does not show at any step.
    rounding = eps * np.abs(weight) * np.maximum(np.abs(y), 1.0 if atol else 0.0)
    rounding = np.nan_to_num(rounding, posinf=0.0)  # infinite values do not change
    lost = np.sum(rounding)
    # Where large terms cancel, rounding leaves this of a gradient that is 0.
    sizes = [np.abs(g[np.isfinite(g)]) for g in gradients.values()]
    atol += 64 * np.finfo(np.float64).eps * max(np.max(size, initial=0.0) for size in sizes)
    suspects = []
    for i, gradient in gradients.items():
        for index in np.ndindex(gradient.shape):
            x, got = float(points[i][index]), float(gradient[index])
            if not np.isfinite(x):  # nothing is near infinity
                continue
            size = max(1.0, abs(x))
            step = 6e-6 * _unit(x)  # balances truncation (step^2) and rounding (1 / step)
            slope = central(i, index, x, step)
            error, allowed = abs(got - slope), atol + rtol * max(abs(got), abs(slope))
            clear = error <= allowed  # not so for NaN
            if abs(got) <= lost / size:  # it says 0: a small step may be lost in rounding
                coarse = 1e-3 * size
                clear = abs(slope) <= 4 * lost / step and (
                    abs(central(i, index, x, coarse)) <= 4 * lost / coarse
                )
            if not clear:
                badness = error / allowed if allowed else np.inf
                suspects.append((np.nan_to_num(badness, nan=np.inf), i, index, x, got))
    for _, i, index, x, got in sorted(suspects, reverse=True):
        f = functools.partial(at, i, index)
        low, high, error = _slopes(f, x, y, weight, rounding, eps)
        slack = atol + rtol * max(abs(got), abs(low), abs(high)) + 3 * error
        if not (np.isfinite(got) and low - slack <= got <= high + slack):
            expected = f"{low:.10g}" if low == high else f"from {low:.10g} to {high:.10g}"
            sure = f" +/- {error:.1g}" if np.isfinite(error) else " at every step"
            raise AssertionError(
                f"{prefix}argument {i} at {tuple(map(int, index))}: the gradient is {got:.10g}, "
                f"differences give {expected}{sure}"
            )


def _unit(x: float) -> float:
    """What steps from `x` are measured in."""
    return abs(x) if abs(x) > 1e-100 else 1.0


def _change(before, after):
    """after - before; 0 also between equal infinities, such as masked outputs."""
    with np.errstate(invalid="ignore"):
        return np.where(before == after, 0.0, after - before)


@np.errstate(all="ignore")
def _slopes(f: Callable, x: float, y, weight, rounding, eps: float) -> tuple[float, float, float]:
    """The derivative of sum(weight * f(x)), where y is f(x), and the error it may have.

    As a lowest and a highest slope, which differ where f has a kink at x. The steps go from some
    units in the last place of x up to the size of x; where f is defined on one side of x alone,
    the slope on that side counts.
    """
    least = max(1e-10, eps) * _unit(x) if x else max(1e-12, eps)
    n = int(np.log(0.3 * max(1.0, abs(x)) / least) / np.log(RATIO))
    steps = least * RATIO ** np.arange(n)
    left, right, central = [], [], []
    last_up = last_down = visible = np.zeros(y.shape)
    for step in steps:
        above, below = x + step, x - step
        up, down = weight * _change(y, f(above)), weight * _change(f(below), y)
        right.append(np.sum(up) / (above - x))
        left.append(np.sum(down) / (x - below))
        central.append(np.sum(up + down) / (above - below))
        # A small change may be lost in the rounding of what f computes on the way. Where one first
        # does not grow as the step does shows how coarse that is.
        if step > steps[0]:
            jump = np.maximum(np.abs(up - RATIO * last_up), np.abs(down - RATIO * last_down))
            near = step < 1e-5 * max(1.0, abs(x))  # from further away it may be a kink
            visible = np.where((visible == 0) & near, np.nan_to_num(jump, posinf=0.0), visible)
        last_up, last_down = up, down
    rounding = float(np.sum(np.maximum(rounding, visible)))
    from_left, from_right, both = (
        _limit(steps, np.array(slopes), rounding, power)
        for slopes, power in ((left, 1), (right, 1), (central, 2))
    )
    gap, error = abs(from_left[0] - from_right[0]), from_left[1] + from_right[1]
    if gap > 4 * error:
        return *sorted((from_left[0], from_right[0])), error
    one_sided = min(from_left, from_right, key=lambda limit: limit[1])
    slope, error = both if np.isfinite(both[1]) else one_sided
    return slope, slope, error


def _limit(steps, slopes, rounding: float, power: int) -> tuple[float, float]:
    """What the slopes tend to as the steps, in ascending order, become smaller; and the error.

    Richardson's extrapolation of three neighbouring steps, where the error of a slope begins with
    step**power. Small steps suffer from rounding, large ones leave the range in which f is like a
    polynomial; so, from the smallest on, the best is taken of those that do not contradict it.
    """
    smallest = np.abs(np.diff(slopes[:5])) * steps[:4]
    rounding = max(rounding, np.max(np.nan_to_num(smallest, posinf=0.0), initial=0.0))
    best, best_error = np.nan, np.inf
    for step, a, b, c in zip(steps, slopes, slopes[1:], slopes[2:]):
        r = RATIO**power
        ab, bc = a + (a - b) / (r - 1), b + (b - c) / (r - 1)
        limit = ab + (ab - bc) / (r * r - 1)
        error = 2 * rounding / step + max(abs(limit - ab), abs(limit - bc))
        if not np.isfinite(error):
            break
        if np.isfinite(best) and abs(limit - best) > 3 * (error + best_error):
            break
        if error < best_error:
            best, best_error = limit, error
    return float(best), float(best_error)


# =================================================================================================
# Strategies
# =================================================================================================


KINDS = "nonzero", "positive", "distinct"


def arrays(shape=None, kind: str = "nonzero", dtype=np.float64):
    """A hypothesis strategy for arrays of `shape` (a tuple, a strategy, or None: any small one).

    kind "nonzero": numbers of either sign, at least 0.2 from 0; "positive": these without their
    signs; "distinct": no two nearer than 0.05. So functions may have a kink at 0, or where two
    entries are equal, and still be smooth at what is drawn. Integers are 1 or more in size, and
    different where they are distinct; unsigned ones have no sign. Axes may have size 0 or 1, and
    the memory may be in C order, in Fortran order, strided or reversed.

    Raises ValueError for another kind, TypeError for a dtype that holds no integers or floats.
    """
    from hypothesis import strategies as st

    if kind not in KINDS:
        raise ValueError(f"kind is one of {', '.join(map(repr, KINDS))}, not {kind!r}")
    dtype = np.dtype(dtype)
    if dtype.kind not in "iuf":
        raise TypeError(f"arrays of integers or floats are drawn, not of {dtype}")
    shape = shapes() if shape is None else shape
    shape = shape if hasattr(shape, "flatmap") else st.just(tuple(shape))
    layouts = st.sampled_from(["C", "F", "strided", "reversed"])
    seeds = st.integers(0, 2**32 - 1)
    return st.builds(_array, shape, st.just(kind), st.just(dtype), layouts, seeds)


def shapes(min_dims: int = 0, max_dims: int = 3, min_side: int = 0, max_side: int = 4):
    """A strategy for shapes."""
    from hypothesis import strategies as st

    sides = st.integers(min_side, max_side)
    return st.lists(sides, min_size=min_dims, max_size=max_dims).map(tuple)


def broadcastable(n: int, **limits):
    """A strategy for `n` shapes that broadcast with each other."""
    from hypothesis.extra.numpy import mutually_broadcastable_shapes

    limits = {"min_side": 0, "max_side": 3, "max_dims": 3} | limits
    return mutually_broadcastable_shapes(num_shapes=n, **limits).map(lambda r: r.input_shapes)


def _array(shape, kind, dtype, layout, seed):
    rng = np.random.default_rng(seed)
    if kind == "distinct":
        n = int(np.prod(shape))
        values = rng.permutation(n).reshape(shape)
        if dtype.kind == "f":
            values = values * 0.1 - 0.05 * n + rng.uniform(-0.025, 0.025, shape)
        elif dtype.kind == "i":
            values = values - n // 2
        if dtype.kind != "f" and n > np.iinfo(dtype).max:
            raise ValueError(f"{dtype} has no {n} distinct numbers: draw fewer, or a wider dtype")
    else:
        values = rng.uniform(0.2, 2.0, shape) if dtype.kind == "f" else rng.integers(1, 10, shape)
        if kind == "nonzero" and dtype.kind != "u":
            values = values * rng.choice([-1, 1], shape)
    return _arranged(np.asarray(values, dtype=dtype), layout)
