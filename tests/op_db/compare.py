"""Judges one sample of PyTorch's table of operations: are value and gradients the same as ours?

The leaves are the tensors of the sample that need a gradient. Every floating-point result is given
a weight, cos(0), cos(1), ..., and the first gradients are those of the weighted sum. The second
gradients are those of the weighted sum of the first, with respect to the leaves and to the weights.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.testing._internal.common_methods_invocations import op_db

import tensorlite as tl

TOLERANCE = 1e-9  # relative to the largest number of an array
ORDERS = "value", "first gradient", "second gradient"


class CannotSay(Exception):
    """Raised by a table's function for a sample that NumPy's function does not take by design."""


class Difference(NamedTuple):
    """Where a sample differs: in "value", "first gradient" or "second gradient", and how."""

    what: str
    words: str


def entries() -> list:
    """The entries of PyTorch's table that take real numbers and are differentiable."""
    return [op for op in op_db if op.supports_autograd and torch.float64 in op.dtypes]


def full_name(op) -> str:
    """The name of an entry and of its variant, as in "round|decimals_3"."""
    return f"{op.name}|{op.variant_test_name}".rstrip("|")


def samples(op) -> Iterator:
    """The sample inputs of an entry in float64, the same in every run."""
    random.seed(0)
    np.random.seed(0)
    torch.default_generator.manual_seed(0)
    # op.sample_inputs would draw from a seed made of the name of the function that runs the test.
    return iter(op.sample_inputs_func(op, "cpu", torch.float64, requires_grad=True))


def difference(
    op,
    sample,
    ours: Callable,
    orders: int = 3,
    prepared: Callable = lambda x: x,
    compared: Callable = list,
    room: float = 1,
) -> Difference | None:
    """The first difference between `ours` and PyTorch's entry `op` for a sample, or None.

    `orders` is how far to compare: 1 the values, 2 the first gradients too, 3 the second too.
    `prepared` is applied to the first argument in both libraries, and `compared` chooses from a
    list of results what is compared. `room` multiplies the tolerance.
    Raises CannotSay for a sample that NumPy's function does not take by design.
    """

    def results(function, first, *args, **kwargs) -> list:
        values = flattened(function(prepared(first), *args, **kwargs))
        return compared([y for y in values if is_float(y)])

    args = [sample.input, *sample.args]
    converted: dict[int, tl.Tensor] = {}
    our_args, our_kwargs = mapped(lambda a: to_ours(a, converted), [args, sample.kwargs])
    leaves = [t for t in flattened([args, sample.kwargs]) if needs_gradient(t)]
    leaves = list({id(t): t for t in leaves}.values())
    orders = min(orders, 2 + op.supports_gradgrad)
    with sdpa_kernel(SDPBackend.MATH):  # the attention that has second derivatives too
        theirs = torchs_results(lambda: results(op, *args, **sample.kwargs), leaves, orders)
    try:
        our_leaves = [converted[id(t)] for t in leaves]
        found = our_results(lambda: results(ours, *our_args, **our_kwargs), our_leaves, orders)
    except (TypeError, ValueError, AttributeError, IndexError) as error:
        return Difference("raises", f"{type(error).__name__}: {str(error).splitlines()[0]}")
    for what, a, b in zip(ORDERS, found, theirs):
        if words := first_difference(a, b, TOLERANCE * room):
            return Difference(what, words)
    return None


def needs_gradient(value) -> bool:
    return isinstance(value, torch.Tensor) and value.requires_grad


def mapped(function, value):
    """Lists, tuples and dicts with `function` applied to what is in them."""
    if isinstance(value, dict):
        return {key: mapped(function, v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        items = [mapped(function, v) for v in value]
        return items if isinstance(value, list) else tuple(items)
    return function(value)


def flattened(value) -> list:
    """What is in nested lists, tuples and dicts, in order."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return [v for item in value for v in flattened(item)]
    return [value]


def to_ours(value, converted: dict[int, tl.Tensor]):
    """A tensor of torch as one of ours, with the same strides; a tensor of integers as an array."""
    if isinstance(value, torch.dtype):
        return torch.empty(0, dtype=value).numpy().dtype
    if not isinstance(value, torch.Tensor):
        return value
    array = value.detach().numpy()
    if array.dtype.kind != "f":
        return array
    if id(value) not in converted:
        converted[id(value)] = tl.Tensor(array, value.requires_grad)
    return converted[id(value)]


def weight(y) -> np.ndarray:
    return np.cos(np.arange(math.prod(y.shape))).reshape(y.shape)


def torchs_results(call: Callable, leaves: list, orders: int) -> list[list[np.ndarray]]:
    """Values, first gradients and second gradients of torch."""

    def gradients(values, inputs, weights, create):
        values = [(y, w) for y, w in zip(values, weights) if y.requires_grad]
        found = [None] * len(inputs)
        if values:
            outputs, weights = zip(*values)
            found = torch.autograd.grad(
                outputs, inputs, weights, create_graph=create, allow_unused=True
            )
        return [torch.zeros_like(x) if g is None else g for g, x in zip(found, inputs)]

    values = call()
    results = [values]
    if orders > 1:
        weights = [torch.tensor(weight(y), requires_grad=orders > 2) for y in values]
        results.append(gradients(values, leaves, weights, orders > 2))
    if orders > 2:
        inputs = [*leaves, *weights]
        weights = [torch.tensor(weight(g)) for g in results[1]]
        results.append(gradients(results[1], inputs, weights, False))
    return [[y.detach().numpy(force=True) for y in ys] for ys in results]


def our_results(call: Callable, leaves: list, orders: int) -> list[list[np.ndarray]]:
    """Values, first gradients and second gradients of tensorlite."""

    def gradients(values, inputs, weights, create):
        total = sum((y * w).sum() for y, w in zip(values, weights) if y.requires_grad)
        if not isinstance(total, tl.Tensor):
            return [tl.Tensor(np.zeros_like(x.data)) for x in inputs]
        return list(tl.grad(total, inputs, create_graph=create))

    with tl.higher_order():
        values = call()
        results = [values]
        if orders > 1:
            weights = [tl.Tensor(weight(y), orders > 2) for y in values]
            results.append(gradients(values, leaves, weights, orders > 2))
        if orders > 2:
            inputs = [*leaves, *weights]
            weights = [weight(g) for g in results[1]]
            results.append(gradients(results[1], inputs, weights, False))
    return [[y.data for y in ys] for ys in results]


def is_float(value) -> bool:
    """Whether `value` is a tensor of floating-point numbers, of torch or of ours."""
    if isinstance(value, torch.Tensor):
        return value.dtype.is_floating_point
    return isinstance(value, tl.Tensor) and value.dtype.kind == "f"


def first_difference(ours: list, theirs: list, tolerance: float) -> str:
    """What differs between two lists of arrays, or an empty string."""
    if len(ours) != len(theirs):
        return f"{len(ours)} arrays, PyTorch has {len(theirs)}"
    for i, (a, b) in enumerate(zip(ours, theirs)):
        if (a.shape, a.dtype) != (b.shape, b.dtype):
            return f"array {i} is {a.dtype} {a.shape}, PyTorch's is {b.dtype} {b.shape}"
        finite = np.abs(b[np.isfinite(b)])
        near = np.isclose(a, b, tolerance, tolerance * max([1, *finite.ravel()]), equal_nan=True)
        if not near.all():
            at = tuple(map(int, np.argwhere(~near)[0]))
            n = near.size - near.sum()
            return f"{n} of {near.size} in array {i}: at {at} {a[at]:.6g}, PyTorch's {b[at]:.6g}"
    return ""
