"""A function near its arguments: how far its value moves along a line through them."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

TINY = 1e-60  # the size of a complex step
OUTSIDE = ArithmeticError, ValueError, RuntimeError  # what a function raises outside its domain


class Line(NamedTuple):
    """A function along a line: one entry of an argument is changed, or all in a direction.

    `change(t)` gives (the step that was taken, by how much each entry of the weighted value
    changes): a step is rounded to the dtype of the argument. It gives NaN outside the domain.
    `rounding` has the rounding error of each entry of the weighted value, `start` the number from
    which steps are taken, `typical` the size of the numbers beside it, `eps` the precision of the
    values and `eps_steps` that of the steps. `complex_slope` gives the derivative by a complex
    step, or None.
    """

    change: Callable
    rounding: np.ndarray
    start: float
    typical: float
    eps: float
    eps_steps: float
    complex_slope: Callable

    @property
    def unit(self) -> float:
        """The unit of the smaller steps: the size of the number from which they are taken."""
        return abs(self.start) if abs(self.start) > 1e-100 else 1.0

    @property
    def size(self) -> float:
        """The unit of the larger steps."""
        return max(1.0, abs(self.start))


def start(shape: tuple, seed: int = 0) -> np.ndarray:
    """A gradient of the value to start from: numbers of both signs, none of them near 0."""
    rng = np.random.default_rng(seed)
    return np.asarray(rng.uniform(0.5, 1.5, shape) * rng.choice([-1.0, 1.0], shape))


class Probe:
    """A function at its arguments and near them.

    `points` has the arguments that are moved, by number. `call(moved)` gives the function's value
    in float64 for a dict of changed arguments. `weight` has the weight of each entry of the value,
    `y` is the value, and `eps` its precision. `call_complex(moved)` calls the function with complex
    arguments, and None says that it takes none. `floor` is the size below which numbers are thought
    to be rounded as if they had it, because they may be a difference of such.
    """

    def __init__(self, call, points: dict, weight, y, eps: float, call_complex=None, floor=1.0):
        self.call = call
        self.points = points
        self.weight = weight
        self.y = y
        self.eps = eps
        self.call_complex = call_complex
        rounding = eps * np.abs(weight) * np.maximum(np.abs(y), floor)
        self.rounding = np.nan_to_num(rounding, posinf=0.0)  # infinite values are not rounded
        self.sizes = {i: root_mean_square(x) for i, x in points.items()}
        self.lost = float(np.sum(self.rounding))

    def change(self, moved: dict) -> np.ndarray:
        """By how much each entry of the weighted value changes with the arguments `moved`."""
        try:
            with np.errstate(all="ignore"):
                y = self.call(moved)
        except OUTSIDE:
            return np.full(self.weight.shape, np.nan)
        if y.shape != self.weight.shape:
            return np.full(self.weight.shape, np.nan)
        with np.errstate(invalid="ignore"):  # equal infinities, which masked entries may be
            return self.weight * np.where(y == self.y, 0.0, y - self.y)

    def entry(self, i: int, index: tuple) -> Line:
        """The line along which one entry of argument `i` changes."""
        x = self.points[i]
        start = float(x[index])

        def change(t: float):
            moved = np.array(x)
            moved[index] = start + t
            return float(moved[index]) - start, self.change({i: moved})

        def complex_slope() -> float | None:
            if self.call_complex is None or x.dtype != np.float64:
                return None
            moved = x.astype(np.complex128)
            moved[index] += 1j * TINY
            try:
                with np.errstate(all="ignore"), warnings.catch_warnings():
                    warnings.simplefilter("error")  # a cast that loses the imaginary part
                    y = np.asarray(self.call_complex({i: moved}))
            except Exception:  # whatever a function says that takes no complex numbers
                return None
            if y.dtype.kind != "c" or y.shape != self.weight.shape:
                return None
            return float(np.sum(self.weight * (y.imag / TINY)))

        eps = precision(x.dtype)
        return Line(change, self.rounding, start, self.sizes[i], self.eps, eps, complex_slope)

    def direction(self, vectors: dict, gradients: dict) -> Line:
        """The line along which argument i moves by t * vectors[i].

        A step is rounded in each entry. The effect of this on the value is small, so it is
        subtracted as the gradients say. Entries whose part of a vector is 0 may be infinite.
        """

        def change(t: float):
            moved, shift = {}, 0.0
            for i, v in vectors.items():
                x = self.points[i].astype(np.float64)
                moved[i] = (x + t * v).astype(self.points[i].dtype)
                with np.errstate(invalid="ignore"):
                    rounded = np.where(v == 0, 0.0, moved[i].astype(np.float64) - x - t * v)
                shift += float(np.vdot(gradients[i], rounded))
            return t, np.asarray(np.sum(self.change(moved)) - shift)

        rounding = np.sqrt(np.sum(self.rounding**2))
        eps = max(precision(self.points[i].dtype) for i in vectors)
        return Line(change, np.asarray(rounding), 1.0, 1.0, self.eps, eps, lambda: None)


def root_mean_square(x: np.ndarray) -> float:
    x = x.astype(np.float64)
    x = x[np.isfinite(x)]
    return float(np.sqrt(np.mean(x * x))) if x.size else 0.0


@functools.cache
def precision(dtype: np.dtype) -> float:
    """The distance from 1 to the next larger number of a floating-point dtype."""
    if dtype.kind == "f":
        return float(np.finfo(dtype).eps)
    eps = 1.0
    while float(np.asarray(1 + eps / 2).astype(dtype)) > 1:  # bfloat16, which NumPy does not know
        eps /= 2
    return eps
