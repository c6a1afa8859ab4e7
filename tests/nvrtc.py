"""NVIDIA's compiler for kernels, without a GPU and without CuPy: the library of its wheel.

`pip install nvidia-cuda-nvrtc-cu12` brings it; CuPy compiles with the same library.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import re
from pathlib import Path
from typing import NamedTuple

from tensorlite.kernels import launch


class Kernel(NamedTuple):
    """What a kernel takes: registers of a thread, and bytes that had no room in them."""

    registers: int
    spilled: int


@functools.cache
def library() -> ctypes.CDLL | None:
    """NVRTC, or None where its wheel is not installed."""
    spec = importlib.util.find_spec("nvidia")
    folders = spec.submodule_search_locations if spec else []
    found = [path for f in folders for path in sorted(Path(f).glob("*/lib/libnvrtc.so.1[0-9]"))]
    return ctypes.CDLL(str(found[-1])) if found else None


def compile_kernels(file: str, kernels: list[str], architecture: int) -> dict[str, Kernel]:
    """Compile kernels of a .cu file for sm_`architecture`; a warning is an error: RuntimeError."""
    nvrtc, program = library(), ctypes.c_void_p()
    source = launch.source(file).encode()
    _check(nvrtc.nvrtcCreateProgram(ctypes.byref(program), source, file.encode(), 0, None, None))
    for kernel in kernels:
        _check(nvrtc.nvrtcAddNameExpression(program, kernel.encode()))
    options = ["--std=c++17", f"--gpu-architecture=sm_{architecture}", "--ptxas-options=-v"]
    pointers = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
    failed = nvrtc.nvrtcCompileProgram(program, len(options), pointers)
    size = ctypes.c_size_t()
    nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    text = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetProgramLog(program, text)
    log = text.value.decode()
    if failed or "warning" in log:
        raise RuntimeError(f"{file} for sm_{architecture}: {log}")
    found = {}
    for kernel in kernels:
        name = ctypes.c_char_p()
        _check(nvrtc.nvrtcGetLoweredName(program, kernel.encode(), ctypes.byref(name)))
        found[kernel] = _resources(log, name.value.decode())
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    return found


def _check(error: int) -> None:
    if error:
        raise RuntimeError(f"NVRTC fails with error {error}")


def _resources(log: str, name: str) -> Kernel:
    """What the log says below the line that names the kernel."""
    text = log.split(f"Compiling entry function '{name}'", 1)[1].split("Compiling entry", 1)[0]
    spilled = re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", text)
    return Kernel(int(re.search(r"Used (\d+) registers", text)[1]), sum(map(int, spilled.groups())))
