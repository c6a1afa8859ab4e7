"""Differences of a function's values beside its gradient, with an estimate of their own error."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from ..graph import Node
from ..modes import no_grad
from ..tensor import Tensor
from .ways import Way, arranged

RATIO = 2.6  # of a step to the next smaller one; not an integer, which could hide a period


def compare(call, points: dict, way: Way, weight, value: Tensor, gradients: dict, rtol, atol):
    """Raise AssertionError if a gradient is not what the differences of the values say.

    One central difference clears most entries. Those that it does not clear are judged with many
    steps, the worst first.
    """
    prefix = f"{way}: " if str(way) else ""
    laid_out = way.arranged(points)
    # The digits that a function keeps which computes in float32 on the way.
    dtypes = [node.dtype for node in nodes_of(value)] + [value.dtype, np.dtype(np.float64)]
    eps = max(np.finfo(dtype).eps for dtype in dtypes if dtype.kind == "f")

    def at(i: int, index: tuple, x: float) -> np.ndarray:
        """The value where one entry is changed to `x`; NaN outside the domain."""
        moved = np.array(points[i])
        moved[index] = x
        try:
            with no_grad(), np.errstate(all="ignore"):
                y = call(laid_out | {i: arranged(moved, way.orders[i])})[0].data
        except (ArithmeticError, ValueError):
            return np.full(weight.shape, np.nan)
        return y.astype(np.float64) if y.shape == weight.shape else np.full(weight.shape, np.nan)

    def central(i: int, index: tuple, x: float, step: float) -> float:
        up, down = x + step, x - step
        return np.sum(weight * _change(at(i, index, down), at(i, index, up))) / (up - down)

    with no_grad():
        y = call(laid_out)[0].data.astype(np.float64)
    if not close(y, value.data, rtol):
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


def close(a, b, rtol: float, atol: float = 0.0) -> bool:
    """Equal to `rtol` of each entry, or to rounding of the largest finite one."""
    atol += 1e-12 * np.max(np.abs(b), initial=0.0, where=np.isfinite(b))
    return np.allclose(a, b, rtol, atol, equal_nan=True)


def nodes_of(value: Tensor) -> list[Node]:
    """All nodes that `value` was computed by, but those that are freed."""
    found, stack = {}, [value.node]
    while stack:
        node = stack.pop()
        if isinstance(node, Node) and node.vjps is not None and node not in found:
            found[node] = None
            stack.extend(node.parents)
    return list(found)
