"""Puts a case of benchmarks/gradient_draws.py before a checker: as a function of NumPy arrays, as a
torch.autograd.Function or as a jax.custom_vjp.
"""

from __future__ import annotations

import inspect

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import torch

from benchmarks.gradient_draws import Case

DTYPES = {"float64": np.float64, "float32": np.float32, "bfloat16": ml_dtypes.bfloat16}


def arguments(case: Case) -> list[np.ndarray]:
    """The arguments as NumPy arrays, those of floating point in the case's dtype."""
    dtype = DTYPES[case.dtype]
    return [x.astype(dtype) if x.dtype.kind == "f" else x for x in map(np.array, case.args)]


def is_float(x) -> bool:
    return np.asarray(x).dtype.kind not in "iub"


def in_framework(case: Case):
    """(value, vjp, args) for NumPy arrays, whatever the framework is that computes."""
    args = arguments(case)
    if case.framework == "n":
        return (*in_numpy(case), args)
    return (*in_torch(case), args) if case.framework == "t" else (*in_jax(case), args)


def in_numpy(case: Case):
    dtype = DTYPES[case.dtype]

    def wide(x):
        """bfloat16 is computed in float32, as kernels do it."""
        return x.astype(np.float32) if case.dtype == "bfloat16" and is_float(x) else x

    def value(*args):
        return np.asarray(case.value(np, *map(wide, args)), dtype)

    if "needs" in inspect.signature(case.vjp).parameters:

        def vjp(g, *args, needs=None):
            return case.vjp(np, g, *args, needs=needs)
    else:

        def vjp(g, *args):
            gs = case.vjp(np, wide(g), *map(wide, args))
            return tuple(None if x is None else np.asarray(x, dtype) for x in gs)

    return value, vjp


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


def to_torch(x) -> torch.Tensor:
    """A tensor that shares the memory of an array, with its strides."""
    if x.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(x.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(x)


def from_torch(x) -> np.ndarray:
    if x.dtype == torch.bfloat16:
        return x.detach().contiguous().view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return x.detach().numpy()
