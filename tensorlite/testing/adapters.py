"""Gradients of other frameworks as a pair (value, vjp) of functions of NumPy arrays, for check_vjp.

    check_vjp(*of_torch(MyFunction.apply), [x, y])

Each adapter imports its framework when it is called. The functions that it returns take NumPy
arrays in the dtype in which they are to be judged, bfloat16 (of the package ml_dtypes) among them.
The vjp takes `needs`, a tuple of bools that says for which arguments a gradient is needed.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from ..arraylike import is_float
from ..device import place
from ..modes import no_grad
from ..tensor import Tensor, grad
from .subject import not_one


def of_tensors(f: Callable, device: str | None = None) -> tuple[Callable, Callable]:
    """(value, vjp) of a function of tensors, or of an operation, computed on `device`.

    >>> value, vjp = of_tensors(lambda x, y: x * y)
    >>> vjp(np.ones(2), np.array([1.0, 2.0]), np.array([3.0, 4.0]), needs=(True, False))
    (array([3., 4.]), None)
    """

    def moved(x, need=False):
        x = place(x, device) if isinstance(x, np.ndarray) else x
        return Tensor(x, need) if hasattr(x, "dtype") and is_float(x.dtype) else x

    def value(*args):
        with no_grad():
            return _one("tensor", Tensor, f(*map(moved, args))).numpy()

    def vjp(g, *args, needs=None):
        needs = _needs(args, needs)
        inputs = list(map(moved, args, needs))
        y = f(*inputs)
        leaves = [x for x, need in zip(inputs, needs) if need]
        if not y.requires_grad:  # the value does not depend on the arguments
            return _in_places((np.zeros(x.shape, x.dtype) for x in leaves), needs)
        return _in_places((t.numpy() for t in grad(y, leaves, gradient=place(g, device))), needs)

    return value, vjp


def of_torch(f: Callable, device: str = "cpu") -> tuple[Callable, Callable]:
    """(value, vjp) of a function of PyTorch's tensors, such as `apply` of an autograd.Function.

    Its value is one tensor. An argument that the value does not depend on gets zeros. Raises
    TypeError if `f` is an autograd.Function itself.
    """
    import torch

    if isinstance(f, type) and issubclass(f, torch.autograd.Function):
        raise TypeError(f"{f.__name__} is a class: give its function, of_torch({f.__name__}.apply)")

    def tensor(x):
        if not isinstance(x, np.ndarray):
            return x
        if not x.flags.writeable or any(stride < 0 for stride in x.strides):
            x = x.copy()  # PyTorch has no such tensors
        if x.dtype.name == "bfloat16":  # which PyTorch does not take from NumPy
            return torch.from_numpy(x.view(np.int16)).view(torch.bfloat16).to(device)
        return torch.from_numpy(x).to(device)

    def array(t):
        t = t.detach().cpu()
        if t.dtype == torch.bfloat16:
            import ml_dtypes

            return t.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
        return t.numpy()

    def value(*args):
        with torch.no_grad():
            return array(_one("tensor", torch.Tensor, f(*map(tensor, args))))

    def vjp(g, *args, needs=None):
        needs = _needs(args, needs)
        inputs = [tensor(x).requires_grad_() if n else tensor(x) for x, n in zip(args, needs)]
        leaves = [x for x, need in zip(inputs, needs) if need]
        y = f(*inputs)
        found = [None] * len(leaves)
        if y.requires_grad:
            found = torch.autograd.grad(y, leaves, tensor(g), allow_unused=True)
        zeros = (torch.zeros_like(x) if t is None else t for x, t in zip(leaves, found))
        return _in_places(map(array, zeros), needs)

    return value, vjp


def of_jax(f: Callable) -> tuple[Callable, Callable]:
    """(value, vjp) of a function of JAX's arrays, such as one with a `jax.custom_vjp`.

    JAX computes in float32 unless it is told otherwise. So float64 arrays are refused with
    ValueError until `jax.config.update("jax_enable_x64", True)` was called.
    """
    import jax
    import jax.numpy as jnp

    def array(x):
        if isinstance(x, np.ndarray) and x.dtype == np.float64 and not jax.config.jax_enable_x64:
            raise ValueError(
                "JAX would turn this float64 array into float32: call "
                'jax.config.update("jax_enable_x64", True) first, or pass float32 arrays'
            )
        return jnp.array(x) if isinstance(x, np.ndarray) else x

    def value(*args):
        return np.asarray(_one("array", jax.Array, f(*map(array, args))))

    def vjp(g, *args, needs=None):
        needs = _needs(args, needs)
        inputs = list(map(array, args))

        def of_needed(*needed):
            return f(*_in_places(needed, needs, inputs))

        _, pull = jax.vjp(of_needed, *(x for x, need in zip(inputs, needs) if need))
        return _in_places(map(np.asarray, pull(array(g))), needs)

    return value, vjp


def of_cupy(value: Callable, vjp: Callable) -> tuple[Callable, Callable]:
    """The same for functions of CuPy arrays, such as calls of kernels of one's own.

    Arrays in C or Fortran order keep it on the GPU; others become views with strides there. What
    the functions write into their arguments is copied back, so that it is noticed.
    """

    def on_gpu(function):
        @functools.wraps(function)  # so that one sees whether it has a parameter `needs`
        def call(*args, **needs):
            moved = [_to_gpu(x) if isinstance(x, np.ndarray) else x for x in args]
            result = function(*moved, **needs)
            for x, there in zip(args, moved):
                if isinstance(x, np.ndarray) and x.flags.writeable:
                    x[...] = place(there, "cpu")
            if isinstance(result, (tuple, list)):
                return tuple(None if r is None else place(r, "cpu") for r in result)
            return place(result, "cpu")

        return call

    return on_gpu(value), on_gpu(vjp)


def _to_gpu(x: np.ndarray):
    if x.flags.forc:
        return place(x, "cuda")
    if x.strides[0] < 0:
        return place(x[::-1].copy(), "cuda")[::-1]
    return np.repeat(place(x, "cuda"), 2, axis=-1)[..., ::2]


def _one(what: str, kind: type, value):
    if not isinstance(value, kind):
        raise not_one(what, value)
    return value


def _needs(args, needs) -> tuple[bool, ...]:
    """For which arguments a gradient is computed: for floating-point arrays, if it is needed."""
    real = [isinstance(x, np.ndarray) and is_float(x.dtype) for x in args]
    return tuple(real) if needs is None else tuple(a and bool(b) for a, b in zip(real, needs))


def _in_places(found, needs, others=None) -> tuple:
    """One object for each argument: of `found` where it is needed, else of `others` or None."""
    found = iter(found)
    others = others or [None] * len(needs)
    return tuple(next(found) if need else other for need, other in zip(needs, others))
