"""What the real CuPy offers, and what raises there for a dtype, a keyword or a number of arguments.

cupy_api.json is written from the real package by benchmarks/cupy_api.py.
"""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import numpy as np

API = json.loads(Path(__file__).with_name("cupy_api.json").read_text())


def parse(text: str | None):
    """What binds arguments as the function of these parameters would; None: any."""
    if text is None:
        return None
    text = "".join(
        f"{part}None, " if part.endswith("=") else f"{part}, " for part in text.split(", ") if part
    )
    return inspect.signature(eval(f"lambda {text}: None"))


SIGNATURES = {name: parse(text) for name, text in API["functions"].items()}


def check(name: str, signature, args, kwargs) -> None:
    if signature is not None:
        try:
            signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"cupy.{name}{signature}: {error}") from None
    if name.endswith("sort") and kwargs.get("kind") not in (None, "stable"):
        raise ValueError(f"cupy.{name} takes kind None or 'stable', not {kwargs['kind']!r}")
    if name == "astype" and kwargs.get("casting") is not None:
        raise TypeError("casting is not supported yet")


def keywords(name: str, method: str) -> set[str]:
    """What the method of a ufunc takes; sum, product and their like exist for few."""
    if method in ("reduce", "accumulate") and name in ("add", "multiply"):
        return {"axis", "dtype"} | ({"keepdims"} if method == "reduce" else set())
    if method == "reduceat" and name == "add":
        return {"axis", "dtype"}
    if method == "__call__":
        return {"dtype", "casting"}
    if method in ("outer", "at"):
        return set()
    raise TypeError(f"cupy.{name}.{method} is not supported yet")


def check_types(name: str, values) -> None:
    """Raise TypeError unless a loop of CuPy's ufunc takes the dtypes of all arrays."""
    dtypes = [(i, v.dtype) for i, v in enumerate(values) if hasattr(v, "dtype")]
    for loop in API["ufuncs"][name].split():
        if all(_casts(dtype, loop[i]) for i, dtype in dtypes):
            return
    raise TypeError(f"cupy.{name} has no loop for {[str(dtype) for _, dtype in dtypes]}")


def _casts(dtype, char: str) -> bool:
    if char == "E":  # bfloat16, which NumPy does not know by its character
        return dtype.name == "bfloat16"
    return np.can_cast(dtype, char)
