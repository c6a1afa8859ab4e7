"""What the parts of gpu.py share: the card, times on it, tables, and PyTorch where it is installed.

With `use_strict_device` there is no card: the stand-in of the tests runs everything, and all times
are 1.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib.metadata
import platform
import statistics
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

import tensorlite as tl
from tensorlite.arraylike import bfloat16
from tensorlite.kernels.precision import usable

ROOT = Path(__file__).parents[1]
DTYPES = {"float32": "float32", "tf32": "float32", "float16": "float16"}
_without_card = False

# =================================================================================================
# The card
# =================================================================================================


def use_strict_device() -> None:
    """Let "cuda" be the strict device of the tests for the rest of this process."""
    import pytest

    import tests.test_strict  # noqa: F401 (now, since it looks for the real CuPy)
    from tests import strict

    global _without_card
    _without_card = True
    strict.install(pytest.MonkeyPatch())


def is_strict() -> bool:
    """Whether there is no card, but the strict device."""
    return _without_card


def describe() -> dict[str, str]:
    """The card, the versions of what computes, and the commit; "?" for what cannot be found out."""
    import cupy

    def version(number: int) -> str:
        return f"{number // 1000}.{number % 1000 // 10}"

    runtime = cupy.cuda.runtime
    found = {
        "card": lambda: runtime.getDeviceProperties(0)["name"].decode(),
        "memory": lambda: f"{runtime.memGetInfo()[1] / 2**30:.0f} GiB",
        "CUDA": lambda: version(runtime.runtimeGetVersion()),
        "CUDA of the driver": lambda: version(runtime.driverGetVersion()),
        "CuPy": lambda: cupy.__version__,
        "nvmath-python": lambda: importlib.metadata.version("nvmath-python"),
        "NumPy": lambda: np.__version__,
        "PyTorch": lambda: importlib.metadata.version("torch"),
        "Python": platform.python_version,
        "commit": lambda: (
            git("rev-parse", "HEAD") + ("-dirty" if git("status", "-s", "-uno") else "")
        ),
    }
    described = {}
    for name, ask in found.items():
        described[name] = "?"
        with contextlib.suppress(Exception):
            described[name] = ask()
    return described


def git(*words: str) -> str:
    return subprocess.check_output(["git", *words], cwd=ROOT, text=True).strip()


def used_memory(give_back: bool) -> int:
    """Bytes of the card that are in use; first give back what is only kept for later."""
    import cupy

    if give_back:
        gc.collect()
        cupy.get_default_memory_pool().free_all_blocks()
        torch, device = torch_and_device()
        if device == "cuda":
            torch.cuda.empty_cache()
    free, total = cupy.cuda.runtime.memGetInfo()
    return total - free


def dtype_of(precision: str) -> np.dtype:
    """The dtype in which activations are stored where products are computed in `precision`."""
    return bfloat16() if precision == "bfloat16" else np.dtype(DTYPES[precision])


def possible(precisions: Sequence[str]) -> list[str]:
    """Those of the precisions that the card has; a line on stderr for each of the others."""
    found = []
    for precision in precisions:
        try:
            found.append(usable(precision))
        except ValueError as error:
            print(error, file=sys.stderr)
    return found


def torch_and_device():
    """(the module torch, its device), or (None, "") where it is not installed or sees no card.

    On the strict device it computes on the CPU.
    """
    try:
        import torch
    except ImportError:
        return None, ""
    if is_strict():
        return torch, "cpu"
    return (torch, "cuda") if torch.cuda.is_available() else (None, "")


# =================================================================================================
# Times and launches
# =================================================================================================

CALLS = 10  # of one function between two looks at the clock


def milliseconds(run: Callable, calls: int = 1, repeats: int = 15) -> float:
    """The median of the time on the card of one of the `calls` that `run` makes."""
    import cupy

    run()
    times = []
    for _ in range(1 if is_strict() else repeats):
        start, end = cupy.cuda.Event(), cupy.cuda.Event()
        start.record()
        run()
        end.record()
        end.synchronize()
        times.append(cupy.cuda.get_elapsed_time(start, end) / calls)
    return statistics.median(times)


def captured_milliseconds(function: Callable) -> float:
    """The time of one call of `function` without its Python: of a graph that has ten of them."""
    several, calls = _repeated(function)
    return milliseconds(tl.cuda.capture(several), calls)


def queued_milliseconds(function: Callable) -> float:
    """The time of one call where ten are made at once, for code that is not captured.

    That is the time on the card if each call takes longer there than Python takes to start it.
    """
    return milliseconds(*_repeated(function))


def _repeated(function: Callable) -> tuple[Callable, int]:
    """A function that makes several calls of `function`, and how many."""
    calls = 1 if is_strict() else CALLS

    def several():
        for _ in range(calls):
            function()

    return several, calls


errors: list[str] = []  # of what this process has tried


def attempt(function: Callable, *args, ours: bool = True):
    """What the function returns; None where it raises.

    The error is printed, and added to `errors` if it is `ours`: others may lack what they need.
    """
    try:
        return function(*args)
    except Exception:
        error = traceback.format_exc()
        print(error, file=sys.stderr)
        if ours or is_strict():
            errors.append(error)
        return None


class CountLaunches:
    """A function, to be captured, that counts what it launches: the nodes of its graph.

    `number` has the count after the capture, None if the driver does not tell.
    """

    def __init__(self, function: Callable):
        self.function, self.number = function, None
        self.__name__ = function.__name__

    def __call__(self, *inputs):
        before = _strict_launches()
        result = self.function(*inputs)
        self.number = _strict_launches() - before if is_strict() else _nodes_of_capture()
        return result


def waits_of(function: Callable) -> int:
    """How often a call of `function` waits for the strict device. A card does not tell."""
    from tests import strict

    before = len(strict.waits)
    function()
    return len(strict.waits) - before


def _strict_launches() -> int:
    if not is_strict():
        return 0
    from tests import strict_streams

    return sum(strict_streams.launches.values())


def _nodes_of_capture() -> int | None:
    """How many nodes the graph has that the current stream records; CuPy does not offer it."""
    import cupy

    try:
        driver = ctypes.CDLL("libcuda.so.1")
        status, number, size = ctypes.c_int(), ctypes.c_uint64(), ctypes.c_size_t()
        graph, nodes = ctypes.c_void_p(), ctypes.c_void_p()
        stream = ctypes.c_void_p(cupy.cuda.get_current_stream().ptr)
        results = (ctypes.byref(x) for x in (status, number, graph, nodes, size))
        failed = driver.cuStreamGetCaptureInfo_v2(stream, *results)
        if failed or status.value != 1:  # not capturing
            return None
        failed = driver.cuGraphGetNodes(graph, None, ctypes.byref(size))
        return None if failed else size.value
    except (OSError, AttributeError):
        return None


# =================================================================================================
# Tables
# =================================================================================================


class Table(NamedTuple):
    """A part of the report: rows of named cells, and what is to be said about them.

    `wrong` is the number of results that are not right.
    """

    title: str
    rows: list[dict]
    note: str = ""
    wrong: int = 0

    def markdown(self) -> str:
        lines = [f"## {self.title}", ""]
        if self.rows:
            columns = list(dict.fromkeys(name for row in self.rows for name in row))
            lines += ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
            for row in self.rows:
                lines.append("| " + " | ".join(_cell(row.get(c)) for c in columns) + " |")
            lines.append("")
        return "\n".join([*lines, self.note, ""] if self.note else lines)


def _cell(value) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 100 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
