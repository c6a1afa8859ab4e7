"""Derivatives of functions: gradients, products with Jacobians and Hessians, and whole matrices.

A transform is given a function `f` and the point `x` at which to differentiate it. `f` returns one
tensor. Write J for its Jacobian, the matrix of the derivatives of each entry of the value with
respect to each entry of x. Reverse mode computes u @ J for a vector u of the value's shape, in one
backward pass: that is `vjp`, and everything here is made of it.

- `x` is a tensor, an array or a number, or a dict or list of them, such as a network's parameters;
  `f` is then given the same dict or list of tensors. A tuple is several arguments: f(*x).
- Derivatives come in the form of x, and have its dtype. With a tuple, `argnums` (a number or a
  sequence of numbers) chooses the arguments to differentiate, and the others are passed to `f` as
  they are, which may be integers or None.
- Where the value does not depend on a part of x, the derivative is 0.
- Transforms can be nested: what one of them gives in the function of another can be differentiated
  again. So it can under `with higher_order():`, for a `backward` that comes later. For this, `f` is
  always run under `higher_order`, where the graph keeps the inputs of each operation; a plain
  `backward` needs less memory.

All transforms raise TypeError if `f` does not return one tensor of floating-point numbers and for
an `x` of integers, and ValueError for shapes that do not fit. The names and the meaning are those
of JAX and torch.func, but a transform returns the derivative at `x`, not a function.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from .arraylike import array_of, is_array, is_float, type_name, whole
from .modes import higher_order, mode
from .numpy_ops import stack
from .ops import astype, reshape
from .tensor import Tensor, grad, tensor


def value_and_grad(f: Callable, x, argnums=None) -> tuple:
    """The value of the scalar function `f` at `x`, and its gradient: (tensor, as x).

    One backward pass from the value with u = 1: the gradient is the only row of J.
    Raises ValueError if the value has several elements.

    >>> value_and_grad(lambda x: (x**2).sum(), [1.0, 2.0])
    (tensor(5.), tensor([2., 4.]))
    >>> value_and_grad(lambda w, x: (w * x).sum(), (3.0, np.array([1, 2])), argnums=0)
    (tensor(9.), tensor(3.))
    """
    y, inputs, tree = _evaluate(f, x, argnums)
    _check_scalar(y)
    return _result(y), _formed(tree, _gradients(y, inputs, None, create_graph=_nested()))


def vjp(f: Callable, x, argnums=None) -> tuple:
    """The value of `f` at `x`, and the function that takes u (of the value's shape) to u @ J.

    u @ J, the gradient of (u * value).sum(), has the form of x. The function may be called many
    times: `f` is run once, and its graph is kept as long as the function is.

    >>> value, pull = vjp(lambda x: x * x, [1.0, 2.0])
    >>> pull([1.0, 0.0]), pull([0.0, 1.0])
    (tensor([2., 0.]), tensor([0., 4.]))
    """
    y, inputs, tree = _evaluate(f, x, argnums)

    def pull(u):
        u = _fitting(u, y, "u", "the value")
        return _formed(tree, _gradients(y, inputs, u, create_graph=_nested()))

    return _result(y), pull


def jvp(f: Callable, x, v, argnums=None) -> tuple[Tensor, Tensor]:
    """The value of `f` at `x`, and J @ v, its derivative in the direction `v`, which is as x.

    Computed by two backward passes. The first gives u @ J, which is linear in u; the second
    differentiates (u @ J) @ v with respect to u, which gives J @ v whatever u is (here 0). The cost
    is that of a few evaluations of `f`, whatever the size of x.
    Raises ValueError if `v` is not of the form and shapes of x.

    >>> jvp(lambda x: x * x, [1.0, 2.0], [1.0, 10.0])
    (tensor([1., 4.]), tensor([ 2., 40.]))
    """
    y, inputs, tree = _evaluate(f, x, argnums)
    directions = _directions(tree, v, inputs)
    u = Tensor(np.zeros_like(y.data), requires_grad=True)
    with higher_order():
        slope = _inner(_gradients(y, inputs, u, create_graph=True), directions)  # (u @ J) @ v
    (product,) = _gradients(slope, [u], None, create_graph=_nested())
    return _result(y), product


def jacobian(f: Callable, x, argnums=None):
    """J: the derivative of each entry of the value by each of x, of shape value.shape + x.shape.

    It is computed by rows, one backward pass for each entry of the value, or by columns as in
    `jvp`, one pass for each entry of x, whichever are fewer. The columns ask that the vjps of the
    operations can be differentiated. The result has the form of x.

    >>> jacobian(lambda x: x[1:] * x[0], [2.0, 3.0, 5.0])
    tensor([[3., 2., 0.],
            [5., 0., 2.]])
    """
    y, inputs, tree = _evaluate(f, x, argnums)
    if y.size <= sum(x.size for x in inputs):
        return _formed(tree, _rows(y, inputs, _nested()))
    u = Tensor(np.zeros_like(y.data), requires_grad=True)
    with higher_order():
        gs = _gradients(y, inputs, u, create_graph=True)
    blocks = []
    for x, g in zip(inputs, gs):
        (columns,) = _rows(g, [u], _nested())  # x.shape + value.shape
        order = [*range(x.ndim, columns.ndim), *range(x.ndim)]
        blocks.append(astype(columns.transpose(order), x.dtype))
    return _formed(tree, blocks)


def hvp(f: Callable, x, v, argnums=None):
    """The Hessian of the scalar function `f` at `x`, times `v`: x (...), v (...) -> (...).

    It is computed as the gradient of gradient(x) @ v, at the cost of a few evaluations of `f` and
    without the whole Hessian (Pearlmutter, 1994). Raises ValueError if v is not of the form and
    shapes of x, or if the value has several elements.

    >>> hvp(lambda x: (x**3).sum(), tensor([1.0, 2.0]), tensor([1.0, 1.0]))
    tensor([ 6., 12.])
    """
    y, inputs, tree = _evaluate(f, x, argnums)
    _check_scalar(y)
    directions = _directions(tree, v, inputs)
    with higher_order():
        slope = _inner(_gradients(y, inputs, None, create_graph=True), directions)
    return _formed(tree, _gradients(slope, inputs, None, create_graph=_nested()))


def hessian(f: Callable, x, argnums=None):
    """All second derivatives of the scalar function `f` at `x`, of shape x.shape + x.shape.

    It is the Jacobian of the gradient, computed by rows: one backward pass for each entry of x.
    With a dict, list or tuple, result[a][b] has the shape x[a].shape + x[b].shape. Raises
    ValueError if the value has several elements.

    >>> hessian(lambda x: x[0] * x[1] ** 2, [3.0, 1.0])
    tensor([[0., 2.],
            [2., 6.]])
    """
    y, inputs, tree = _evaluate(f, x, argnums)
    _check_scalar(y)
    gs = _gradients(y, inputs, None, create_graph=True)
    return _formed(tree, [_formed(tree, _rows(g, inputs, _nested())) for g in gs])


# =================================================================================================
# One evaluation, and gradients of it
# =================================================================================================


def _evaluate(f: Callable, x, argnums) -> tuple[Tensor, list[Tensor], object]:
    """The value of f, the tensors that stood for x in it, and the form of x."""
    f, tree = _chosen(f, x, argnums)
    nested, inputs = _nested(), []
    with higher_order():
        for leaf in _leaves(tree, tree):
            if not is_array(array_of(leaf)):
                leaf = tensor(leaf, np.float32)
            data = whole(array_of(leaf))
            if not is_float(data.dtype):
                raise TypeError(
                    f"x has numbers of dtype {data.dtype}; derivatives are by floating-point "
                    "numbers: convert it by .astype, or choose other arguments by argnums="
                )
            if nested and isinstance(leaf, Tensor) and leaf.requires_grad:
                # A copy in the graph, so that `f` may also use the tensor itself, as a constant.
                inputs.append(astype(leaf, leaf.dtype))
            else:
                inputs.append(Tensor(data, requires_grad=True))
        y = f(_formed(tree, inputs))
    if not isinstance(y, Tensor) or not is_float(y.dtype):
        what = f"a tensor of dtype {y.dtype}" if isinstance(y, Tensor) else f"a {type_name(y)}"
        raise TypeError(f"the function must return one tensor of floating point, not {what}")
    return y, inputs, tree


def _nested() -> bool:
    """Whether what is computed now will be differentiated: it is in the function of another."""
    return mode.get().record and mode.get().keep_inputs


def _result(y: Tensor) -> Tensor:
    return y if _nested() else y.detach()


def _gradients(y: Tensor, inputs: list, u, create_graph: bool) -> Sequence[Tensor]:
    """u @ J for each input, zeros where y does not depend on it; u is 1 if it is None."""
    if not y.requires_grad:
        return [Tensor(np.zeros_like(x.data)) for x in inputs]
    return grad(y, inputs, gradient=u, create_graph=create_graph, retain_graph=True)


def _rows(y: Tensor, inputs: list, create_graph: bool) -> list[Tensor]:
    """The Jacobian of y for each input, of shape y.shape + x.shape, row by row."""
    if not y.requires_grad or not y.size:
        zeros = [np.zeros(y.shape + x.shape, x.dtype, like=x.data) for x in inputs]
        return [Tensor(z) for z in zeros]
    rows = []
    for i in range(y.size):
        u = np.zeros(y.size, y.dtype, like=y.data)
        u[i] = 1
        rows.append(_gradients(y, inputs, u.reshape(y.shape), create_graph))
    return [reshape(stack(row), y.shape + x.shape) for row, x in zip(zip(*rows), inputs)]


def _inner(gs: Sequence[Tensor], directions: list[Tensor]) -> Tensor:
    """The inner product of two lists of tensors."""
    products = [(g * v).sum() for g, v in zip(gs, directions)]
    return sum(products[1:], products[0]) if products else Tensor(np.zeros(()))


def _check_scalar(y: Tensor) -> None:
    if y.size != 1:
        raise ValueError(
            f"the function's value has the shape {y.shape}; it must be a single number: add it up "
            "with .sum(), or use tl.jacobian"
        )


def _directions(tree, v, inputs: list) -> list[Tensor]:
    return [_fitting(part, x, "v", "x") for part, x in zip(_leaves(tree, v), inputs)]


def _fitting(v, x: Tensor, name: str, other: str) -> Tensor:
    """`v` as a tensor of the dtype and on the device of `x`; its shape must be that of x."""
    if isinstance(v, Tensor) and _nested():
        v = v if v.dtype == x.dtype else astype(v, x.dtype)
    else:
        v = tensor(v, x.dtype, x.device)
    if v.shape != x.shape:
        raise ValueError(f"{name} has shape {v.shape}, {other} has {x.shape}")
    return v


# =================================================================================================
# Several arguments, and dicts and lists of tensors
# =================================================================================================


def _chosen(f: Callable, x, argnums) -> tuple[Callable, object]:
    """`f` as a function of the arguments that are differentiated, and these arguments."""
    if not isinstance(x, tuple):
        if argnums is not None:
            raise TypeError("argnums counts in a tuple of arguments; x is a single argument")
        return f, x
    if argnums is None:
        return lambda args: f(*args), x
    single = isinstance(argnums, int)
    try:
        numbers = [range(len(x))[i] for i in ([argnums] if single else argnums)]
    except IndexError:
        raise ValueError(f"argnums is {argnums!r}, but there are {len(x)} arguments") from None
    if len(set(numbers)) < len(numbers) or not numbers:
        raise ValueError(f"argnums is {argnums!r}; it must name arguments, each once")

    def function(chosen):
        given = dict(zip(numbers, [chosen] if single else chosen))
        return f(*(given.get(i, a) for i, a in enumerate(x)))

    return function, x[numbers[0]] if single else tuple(x[i] for i in numbers)


def _is_tree(x) -> bool:
    """Whether x holds tensors or arrays; a list of numbers is an array."""
    if isinstance(x, (dict, tuple)):
        return True
    return isinstance(x, list) and any(
        isinstance(part, Tensor) or _is_tree(part) or (is_array(part) and np.ndim(part))
        for part in x
    )


def _leaves(tree, other) -> list:
    """The leaves of `other`, which must be of the form of `tree`, in the order of `tree`."""
    if not _is_tree(tree):
        return [other]
    if isinstance(tree, dict):
        if not isinstance(other, dict) or other.keys() != tree.keys():
            raise ValueError(f"v must be a dict with the keys {list(tree)}, as x is")
        pairs = [(part, other[key]) for key, part in tree.items()]
    else:
        if not isinstance(other, (list, tuple)) or len(other) != len(tree):
            raise ValueError(f"v must be a {type(tree).__name__} of {len(tree)}, as x is")
        pairs = list(zip(tree, other))
    return [leaf for pair in pairs for leaf in _leaves(*pair)]


def _formed(tree, leaves: Sequence):
    """A tree of the form of `tree` with other leaves."""
    leaves = iter(leaves)

    def form(tree):
        if not _is_tree(tree):
            return next(leaves)
        if isinstance(tree, dict):
            return {key: form(part) for key, part in tree.items()}
        parts = [form(part) for part in tree]
        return type(tree)(*parts) if hasattr(tree, "_fields") else type(tree)(parts)

    return form(tree)
