"""Is a gradient right? Checks for any function, and hypothesis strategies to draw its arguments.

A property test of an operation of your own:

    @given(arrays())
    def test_my_op(x):
        check_grads(my_op, [x])

`check_grads` needs NumPy alone; the strategies need hypothesis.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from .tensor import Tensor, grad, higher_order, no_grad


def check_grads(
    fn: Callable[..., Tensor],
    args: Sequence,
    order: int = 1,
    rtol: float = 1e-5,
    atol: float = 1e-7,
) -> None:
    """Compare the gradients of `fn(*args)` with central differences, in float64.

    Floating-point arrays and tensors among the arguments are checked, entry by entry; the others
    are passed on as they are. The value may have any shape: what is checked is the gradient of its
    sum weighted with fixed random numbers. `fn` must be smooth at `args`. `order` 2 checks second
    derivatives too, as gradients of a weighted sum of the first; 3 third ones, and so on.

    Raises AssertionError naming the argument and the index of the worst entry.

    >>> check_grads(lambda x: x * x, [np.array([1.0, 2.0])])
    """
    if order < 1:
        raise ValueError(f"order is at least 1, not {order}")
    args = [_float64(a) for a in args]
    checked = [i for i, a in enumerate(args) if isinstance(a, Tensor)]
    if not checked:
        raise ValueError("no argument is a floating-point array or tensor")
    value = fn(*args)
    if not isinstance(value, Tensor):
        raise AssertionError(f"the function gives {type(value).__name__}, not a Tensor")
    weight = np.random.default_rng(0).standard_normal(value.shape)
    gradients = grad(value, [args[i] for i in checked], gradient=weight)

    def objective(i, x) -> float:
        with no_grad():
            y = fn(*args[:i], Tensor(np.asarray(x)), *args[i + 1 :])
        return float(np.sum(y.data * weight))

    worst, message = 0.0, ""
    for i, gradient in zip(checked, gradients):
        x = np.array(args[i].data)
        if gradient.shape != x.shape:
            raise AssertionError(f"argument {i}: gradient {gradient.shape}, argument {x.shape}")
        for index in np.ndindex(x.shape):
            h = 6e-6 * max(1.0, abs(x[index]))  # balances truncation (h^2) and rounding (1 / h)
            step = np.zeros_like(x)
            step[index] = h
            expected = (objective(i, x + step) - objective(i, x - step)) / (2 * h)
            got = gradient.data[index]
            error = abs(got - expected) / (atol + rtol * max(abs(expected), abs(got)))
            if not error <= max(worst, 1.0):  # `not <=`: NaN is the worst of all
                worst = np.inf if np.isnan(error) else error
                message = (
                    f"argument {i} at {tuple(map(int, index))}: the gradient is {got:.10g}, "
                    f"differences give {expected:.10g}"
                )
    if message:
        raise AssertionError(message)
    if order > 1:
        try:
            check_grads(_weighted_gradient(fn, checked, weight), args, order - 1, rtol, atol)
        except AssertionError as error:
            raise AssertionError(f"differentiated once more: {error}") from None


def _weighted_gradient(fn, checked: list[int], weight):
    """A scalar function of the same arguments: the sum of all first derivatives, weighted."""

    def function(*args):
        args = [
            Tensor(a.data, True) if i in checked and not a.requires_grad else a
            for i, a in enumerate(args)
        ]
        inputs = [args[i] for i in checked]
        with higher_order():
            gradients = grad(fn(*args), inputs, gradient=weight, create_graph=True)
            total = Tensor(np.zeros(()))
            for i, (x, g) in enumerate(zip(inputs, gradients)):
                w = np.random.default_rng(i + 1).standard_normal(x.shape)
                total = total + (g * w).sum() + (x * 0.0).sum()  # g may not depend on x
            return total

    return function


def _float64(value):
    """Floating-point data as a float64 leaf with the same memory layout; anything else as it is."""
    data = value.data if isinstance(value, Tensor) else value
    if isinstance(data, float):
        data = np.asarray(data)
    if not hasattr(data, "dtype") or data.dtype.kind != "f":
        return value
    data = data if data.dtype == np.float64 else data.astype(np.float64)
    return Tensor(data, requires_grad=True)


# =================================================================================================
# Strategies
# =================================================================================================


def arrays(shape=None, kind: str = "nonzero", dtype=np.float64):
    """A hypothesis strategy for arrays of `shape` (a tuple, a strategy, or None: any small one).

    kind "nonzero": numbers of either sign, at least 0.2 from 0; "positive"; "distinct": no two
    nearer than 0.05. So functions may have a kink at 0, or where two entries are equal, and still
    be smooth at what is drawn. Axes may have size 0 or 1, and the memory may be in C order, in
    Fortran order, strided or reversed.
    """
    from hypothesis import strategies as st

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
        values = rng.permutation(n) * 0.1 - 0.05 * n + rng.uniform(-0.025, 0.025, n)
        values = values.reshape(shape)
    else:
        values = rng.uniform(0.2, 2.0, shape)
        if kind == "nonzero":
            values *= rng.choice([-1, 1], shape)
    values = np.asarray(values, dtype=dtype)
    if values.ndim == 0:
        return values
    if layout == "F":
        return np.asfortranarray(values)
    if layout == "strided":
        wide = np.zeros((*shape[:-1], 2 * shape[-1]), dtype)
        wide[..., ::2] = values
        return wide[..., ::2]
    if layout == "reversed":
        return np.ascontiguousarray(values[::-1])[::-1]
    return values
