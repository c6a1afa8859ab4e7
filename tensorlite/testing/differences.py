"""Compares a gradient with differences of the function's values, whose error is estimated."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from ..graph import Node
from ..modes import no_grad
from ..tensor import Tensor
from .ways import Way, arranged

RATIO = 2.6  # of a step size to the next smaller one; with an integer, periods of f could go unseen


def compare(call, points: dict, way: Way, weight, value: Tensor, gradients: dict, rtol, atol):
    """Raise AssertionError if a gradient differs from the differences of the values.

    For most entries one central difference shows that they are right. The others are compared with
    differences of many step sizes, the worst entry first.
    """
    prefix = f"{way}: " if str(way) else ""
    laid_out = way.arranged(points)
    # The precision of the values is that of the least precise dtype in the graph.
    dtypes = [node.dtype for node in nodes_of(value)] + [value.dtype, np.dtype(np.float64)]
    eps = max(np.finfo(dtype).eps for dtype in dtypes if dtype.kind == "f")

    def at(i: int, index: tuple, x: float) -> np.ndarray:
        """The value of the function with one entry changed to `x`; NaN outside its domain."""
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
    # One unit in the last place of the values, or of numbers around 1 from which they may have been
    # computed. A gradient smaller than the sum of these is invisible at every step size.
    rounding = eps * np.abs(weight) * np.maximum(np.abs(y), 1.0 if atol else 0.0)
    rounding = np.nan_to_num(rounding, posinf=0.0)  # infinite values have no rounding error
    lost = np.sum(rounding)
    # If large terms cancel, rounding errors of this size remain in a gradient that is 0.
    sizes = [np.abs(g[np.isfinite(g)]) for g in gradients.values()]
    atol += 64 * np.finfo(np.float64).eps * max(np.max(size, initial=0.0) for size in sizes)
    suspects = []
    for i, gradient in gradients.items():
        for index in np.ndindex(gradient.shape):
            x, got = float(points[i][index]), float(gradient[index])
            if not np.isfinite(x):  # there are no points near infinity to take differences from
                continue
            size = max(1.0, abs(x))
            # The step size balances the errors of truncation (step^2) and of rounding (1 / step).
            step = 6e-6 * _unit(x)
            slope = central(i, index, x, step)
            error, allowed = abs(got - slope), atol + rtol * max(abs(got), abs(slope))
            clear = error <= allowed  # False for NaN
            if abs(got) <= lost / size:  # almost 0, where the effect of a small step may be lost
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
    """The unit of step sizes at `x`."""
    return abs(x) if abs(x) > 1e-100 else 1.0


def _change(before, after):
    """after - before, and 0 for equal infinities, which masked outputs may be."""
    with np.errstate(invalid="ignore"):
        return np.where(before == after, 0.0, after - before)


@np.errstate(all="ignore")
def _slopes(f: Callable, x: float, y, weight, rounding, eps: float) -> tuple[float, float, float]:
    """The derivative of sum(weight * f(x)): (the lowest slope, the highest slope, their error).

    `y` is f(x). The two slopes differ if f has a kink at x. The step sizes go from some units in
    the last place of x up to the size of x. If f is defined on one side of x only, the slope on
    that side is returned.
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
        # A small change may be lost in the rounding of f's intermediate results. The first change
        # that is not proportional to the step shows how large that rounding is.
        if step > steps[0]:
            jump = np.maximum(np.abs(up - RATIO * last_up), np.abs(down - RATIO * last_down))
            near = step < 1e-5 * max(1.0, abs(x))  # with a larger step the cause may be a kink
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
    """The limit of the slopes as the step size goes to 0, and its error; steps are ascending.

    Uses Richardson extrapolation of three neighbouring steps, where the leading error of a slope is
    proportional to step**power. Small steps suffer from rounding, and large ones leave the range in
    which f is like a polynomial. So the steps are tried from the smallest on, the limit with the
    smallest error is kept, and the search ends at the first limit that contradicts it.
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
    """Whether all entries agree to `rtol`, or to the rounding error of the largest finite one."""
    atol += 1e-12 * np.max(np.abs(b), initial=0.0, where=np.isfinite(b))
    return np.allclose(a, b, rtol, atol, equal_nan=True)


def nodes_of(value: Tensor) -> list[Node]:
    """All nodes that `value` was computed by, except those that were freed."""
    found, stack = {}, [value.node]
    while stack:
        node = stack.pop()
        if isinstance(node, Node) and node.vjps is not None and node not in found:
            found[node] = None
            stack.extend(node.parents)
    return list(found)
