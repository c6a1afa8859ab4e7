"""Kernels for a GPU: what the operations of functional/ do there, in CUDA C++.

On a CPU nothing of this folder is imported. Each idea has a .cu file, whose head explains it, and a
.py file, which launches it:

- launch.py compiles and launches; device.cuh and arrays.cuh are what the .cu files share.
- precision.py says in which dtype products are computed. products.py are the matrix products,
  layouts.py says how their matrices lie in memory, cublaslt.py asks NVIDIA's library for them, and
  linear.py is the layer made of one.
- attention, norm, activations, rope, loss and embedding are the operations of those names; softmax
  is a part of attention in float32; elementwise adds, converts and drops; random draws the masks
  of dropout; total sums what is left of a sum.
- update.py updates all parameters in one launch; decode.py reads a token of each of
  a few texts, draw.py draws the next.

An operation that is declared with `gpu="norm"` has a body of its own name in norm.py, with the
parameters and the results of its ordinary body. It returns NotImplemented for what it leaves to the
ordinary body, which runs on a GPU too.
"""

from __future__ import annotations

import functools
import importlib
import warnings

from ..arraylike import on_gpu
from ..modes import mode
from .launch import CannotCompile


@functools.cache
def _body(module: str, name: str):
    return getattr(importlib.import_module(f"{__name__}.{module}"), name)


_warned = set()  # operations whose kernels do not compile here; ALL stands for every one
ALL = "all operations"


def run(module: str, name: str, values: list, static: dict):
    """What the GPU body `name` returns.

    NotImplemented also where its kernels do not compile, for operands that are numbers or on the
    CPU, and for those of several dtypes outside of `autocast`, which NumPy's rules promote.
    """
    if name in _warned or ALL in _warned or not all(v is None or on_gpu((v,)) for v in values):
        return NotImplemented
    if mode.get().products is None and len({v.dtype for v in values if v is not None}) > 1:
        return NotImplemented
    try:
        return _body(module, name)(*values, **static)
    except CannotCompile as error:
        _warned.add(name)
        warnings.warn(f"{name} is computed by simpler operations: {error}", stacklevel=4)
        return NotImplemented


def do_without(error: CannotCompile) -> None:
    """From now on compute all operations by their ordinary bodies; the warning says why.

    This is for a kernel of a backward pass: it is missed when it is too late for another body.
    """
    _warned.add(ALL)
    warnings.warn(f"all operations are computed by simpler ones: {error}", stacklevel=3)
