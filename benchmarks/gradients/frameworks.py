"""Puts a case of draws.py before a checker: as a function of NumPy arrays, as a
torch.autograd.Function or as a jax.custom_vjp.
"""

from __future__ import annotations

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import torch

from benchmarks.gradients.draws import Case, arguments, in_numpy, is_float
from tensorlite.testing.adapters import of_jax, of_torch


def in_framework(case: Case):
    """(value, vjp, args) for NumPy arrays, whatever the framework is that computes."""
    args = arguments(case)
    if case.framework == "n":
        return (*in_numpy(case), args)
    if case.framework == "t":
        return (*of_torch(torch_function(case)), args)
    return (*of_jax(compiled(case, jax_function(case))), args)


# ---- PyTorch ----


def torch_function(case: Case):
    """The case as a torch.autograd.Function."""
    with_needs = "needs" in inspect.signature(case.vjp).parameters
    low = case.dtype == "bfloat16"
    dtype = getattr(torch, case.dtype)

    def wide(x):
        return x.float() if low and x.is_floating_point() else x

    class Function(torch.autograd.Function):
        @staticmethod
        def forward(ctx, *args):
            ctx.save_for_backward(*args)
            return case.value(torch, *map(wide, args)).to(dtype)

        @staticmethod
        def backward(ctx, g):
            args = ctx.saved_tensors
            if with_needs:
                gs = case.vjp(torch, g, *args, needs=ctx.needs_input_grad[: len(args)])
            else:
                gs = case.vjp(torch, wide(g), *map(wide, args))
            return tuple(None if x is None else x.to(dtype) for x in gs)

    return Function.apply


def as_torch(case: Case):
    """(function, args) for gradcheck; what is not PyTorch's is called through NumPy."""
    args = [torch.from_numpy(x) for x in arguments(case)]
    args = [x.requires_grad_() if x.is_floating_point() else x for x in args]
    if case.framework == "t":
        return torch_function(case), args
    value, vjp, _ = in_framework(case)

    def tensor(x):  # PyTorch has no negative strides
        return torch.from_numpy(np.array(x, order="C"))

    with_needs = "needs" in inspect.signature(vjp).parameters

    class Function(torch.autograd.Function):
        @staticmethod
        def forward(ctx, *args):
            ctx.save_for_backward(*args)
            return tensor(value(*(x.detach().numpy() for x in args)))

        @staticmethod
        def backward(ctx, g):
            options = {"needs": ctx.needs_input_grad} if with_needs else {}
            gs = vjp(g.numpy(), *(x.detach().numpy() for x in ctx.saved_tensors), **options)
            return tuple(None if x is None else tensor(x) for x in gs)

    return Function.apply, args


# ---- JAX ----


def jax_function(case: Case):
    """The case as a jax.custom_vjp."""
    low = case.dtype == "bfloat16"
    dtype = getattr(jnp, case.dtype)

    def wide(x):
        return x.astype(jnp.float32) if low and jnp.issubdtype(x.dtype, jnp.floating) else x

    @jax.custom_vjp
    def function(*args):
        return case.value(jnp, *map(wide, args)).astype(dtype)

    def forward(*args):
        return function(*args), args

    def backward(args, g):
        gs = case.vjp(jnp, wide(g), *map(wide, args))
        return tuple(None if x is None else x.astype(dtype) for x in gs)

    function.defvjp(forward, backward)
    return function


def compiled(case: Case, function):
    """The function compiled, unless it draws random numbers: it would draw them once."""
    return function if case.group == "nondeterminism" else jax.jit(function)


def as_jax(case: Case):
    """(function, args) for check_grads; what is not JAX's is called back through NumPy."""
    args = arguments(case)
    function = jax_function(case) if case.framework == "j" else _called_back(case, args)
    function = compiled(case, function)
    moved = [jnp.asarray(x) for x in args]
    floats = [i for i, x in enumerate(args) if is_float(x)]

    def of_floats(*given):
        given = iter(given)
        return function(*(next(given) if i in floats else x for i, x in enumerate(moved)))

    return of_floats, [moved[i] for i in floats]


def _called_back(case: Case, args: list):
    value, vjp, _ = in_framework(case)
    y = value(*map(np.copy, args))
    result = jax.ShapeDtypeStruct(y.shape, y.dtype)
    results = tuple(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in args if is_float(x))

    def copied(f):  # JAX's arrays are read-only
        return lambda *args: f(*(np.array(x) for x in args))

    def floats_of(g, *args):
        gs = copied(vjp)(g, *args)
        return tuple(gx for gx, x in zip(gs, args) if is_float(x))

    @jax.custom_vjp
    def function(*args):
        return jax.pure_callback(copied(value), result, *args)

    def forward(*args):
        return function(*args), args

    def backward(args, g):
        found = iter(jax.pure_callback(floats_of, results, g, *args))
        return tuple(next(found) if jnp.issubdtype(x.dtype, jnp.floating) else None for x in args)

    function.defvjp(forward, backward)
    return function
