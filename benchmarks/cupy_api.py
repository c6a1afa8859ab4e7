"""Lists the functions of CuPy and their parameters in tests/cupy_api.json.

The strict device of the tests, which stands in for CuPy, allows only what is in this list. CuPy can
be imported without a GPU, so the list can be made on any machine:

    pip install cupy-cuda12x ml_dtypes
    python benchmarks/cupy_api.py            # write the file again
    python benchmarks/cupy_api.py --check    # exit code 1 if the package lacks something in it

Parameters are written "a, axis=, *, out=", where `=` marks a parameter that may be left out. An
entry is null for an attribute, and for a function whose parameters Python cannot see.
"""

from __future__ import annotations

import importlib.util
import inspect
import json
import re
import sys
from pathlib import Path

CLASSES = ("Stream", "Event", "Graph", "MemoryPool", "MemoryPointer", "Device")
FILE = Path(__file__).parents[1] / "tests" / "cupy_api.json"


def generate() -> dict:
    """The names that the installed CuPy has: ufuncs with their types, functions with parameters."""
    import cupy

    ufuncs, functions = {}, {}
    for prefix, module in ("", cupy), ("linalg.", cupy.linalg):
        for name, value in public(module):
            if isinstance(value, cupy.ufunc):
                ufuncs[prefix + name] = " ".join(value.types)
            elif callable(value) and not isinstance(value, type):
                functions[prefix + name] = parameters(value)
    return {
        "version": cupy.__version__,
        "ufuncs": ufuncs,
        "functions": functions,
        "ndarray": {name: parameters(value) for name, value in public(cupy.ndarray)},
        "random.Generator": {name: None for name, _ in public(cupy.random.Generator)},
        "cuda": cuda(cupy.cuda),
    }


def cuda(module) -> dict:
    """The names in cupy.cuda and its runtime, and what the classes have that graphs need."""
    found = {}
    for prefix, space in ("", module), ("runtime.", module.runtime), ("memory.", module.memory):
        for name, value in public(space):
            if isinstance(value, type):
                found[prefix + name] = None
            elif callable(value):
                found[prefix + name] = parameters(value)
    for name in CLASSES:
        found |= {f"{name}.{n}": parameters(v) for n, v in public(getattr(module, name))}
    return found


def public(space) -> list[tuple]:
    return [(n, getattr(space, n)) for n in sorted(dir(space)) if not n.startswith("_")]


def parameters(function) -> str | None:
    """The parameters of a function; for a compiled one, from the first line of its docstring."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        line = (getattr(function, "__doc__", None) or "").strip().split("\n")[0]
        found = re.search(r"\(self(?:, )?(.*)\)", line) if callable(function) else None
        if found is None:
            return None
        # "_ndarray_base b, axis=None" -> "b, axis="
        parts = [part.split(" ")[-1] for part in found[1].split(", ") if part]
        return ", ".join(re.sub("=.*", "=", part) for part in parts)
    parts = []
    for p in signature.parameters.values():
        if p.kind is p.KEYWORD_ONLY and not any(part.startswith("*") for part in parts):
            parts.append("*")
        if p.kind is p.VAR_KEYWORD:  # the names that the function reads from **kwargs
            names = re.findall(rf"{p.name}\.(?:pop|get)\(['\"](\w+)", source(function))
            parts += [f"{name}=" for name in dict.fromkeys(names)] or ["**" + p.name]
        elif p.name != "self":
            star = "*" if p.kind is p.VAR_POSITIONAL else ""
            parts.append(star + p.name + ("" if p.default is p.empty else "="))
    return ", ".join(parts)


def source(function) -> str:
    try:
        return inspect.getsource(function)
    except (OSError, TypeError):
        return ""


def differences(listed: dict, offered: dict) -> list[str]:
    """What is in the list, but missing from the installed CuPy or there with other parameters.

    The installed CuPy may have more: it passes on some functions that a newer NumPy has added, and
    its ufuncs have more loops if NumPy has more dtypes.
    """
    found = []
    for kind, names in listed.items():
        if kind == "version":
            continue
        for name, text in names.items():
            has = offered[kind].get(name, "nothing of that name")
            same = loops(text) <= loops(has) if kind == "ufuncs" else text == has
            if not same:
                found.append(f"{kind}: {name} is listed with {text!r}; CuPy has {has!r}")
    return found


def loops(types: str) -> set[str]:
    """The loops of a ufunc. CuPy has those of bfloat16, E, where ml_dtypes is installed."""
    bfloat16 = importlib.util.find_spec("ml_dtypes") is not None
    return {loop for loop in types.split() if bfloat16 or "E" not in loop}


def main() -> int:
    if sys.argv[1:] == ["--check"]:
        found = differences(json.loads(FILE.read_text()), generate())
        print(*found, sep="\n", file=sys.stderr, end="\n" if found else "")
        return 1 if found else 0
    FILE.write_text(json.dumps(generate(), indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
