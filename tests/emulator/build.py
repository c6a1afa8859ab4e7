"""Compiling the emulator, and CUDA sources with it, by g++ into a folder that keeps the results."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
MACHINE = [HERE / name for name in ("machine.cpp", "together.cpp", "memory.cpp")]
HEADERS = [HERE / name for name in ("machine.h", "half.h", "cuda.h", "device.cuh", "kernel.h")]
COMMON = ["-std=c++17", "-w", "-fPIC", "-shared", "-g1", "-ffp-contract=off"]
# No kernel's functions and variables are seen by another library.
ALONE = ["-fvisibility=hidden", "-fno-gnu-unique"]
# The sanitizer's calls without its library: memory.cpp has its functions.
LOOKED_AT = ["-fsanitize=thread", "--param", "tsan-instrument-func-entry-exit=0"]
_FILE = re.compile(r"^// ---- (end of )?(\w+\.cuh)$")


class CompileError(RuntimeError):
    """g++ does not take the source; the message is its own."""


@functools.cache
def compiler() -> str | None:
    """g++, or None on a machine without one, where nothing can be emulated."""
    return shutil.which("g++")


def folder() -> Path:
    """Where compiled libraries are kept: TENSORLITE_EMULATOR or a folder in the temporary one.

    Raises PermissionError for one that others could write to.
    """
    default = Path(tempfile.gettempdir()) / f"tensorlite-emulator-{os.getuid()}"
    path = Path(os.environ.get("TENSORLITE_EMULATOR") or default)
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    info = path.stat()
    if info.st_uid != os.getuid() or info.st_mode & 0o022:
        raise PermissionError(f"{path} belongs to somebody else, or others may write to it")
    return path


@functools.cache
def machine() -> ctypes.PyDLL:
    """The emulator itself, whose functions the libraries of kernels find when they are loaded."""
    key = _key(*(path.read_text() for path in [*MACHINE, *HEADERS]))
    path = folder() / f"machine-{key}.so"
    if not path.exists():
        _compile([*COMMON, "-O2", *map(str, MACHINE)], path)
    return ctypes.PyDLL(str(path), mode=ctypes.RTLD_GLOBAL)


@functools.cache
def kernel(code: str, expression: str) -> tuple[ctypes.PyDLL, Path]:
    """The library with the kernel of this name of a CUDA source, and its file."""
    machine()
    key = _key(code, expression, *(path.read_text() for path in HEADERS))
    path = folder() / f"kernel-{key}.so"
    if not path.exists():
        source = path.with_suffix(f".{os.getpid()}.cpp")
        source.write_text(_with_lines(code) + '#line 1 "kernel.h"\n#include "kernel.h"\n')
        define = f"-DEMULATOR_EXPRESSION=({expression})"
        include = ["-I", str(HERE), "-include", "cuda.h"]
        try:
            _compile(
                [*COMMON, "-O1", *ALONE, *LOOKED_AT, "-c", *include, define, str(source)], path
            )
        finally:
            source.unlink()
    return ctypes.PyDLL(str(path)), path


def _key(*texts: str) -> str:
    command = [compiler(), *COMMON, *ALONE, *LOOKED_AT]
    return hashlib.sha256("\0".join([*command, *texts]).encode()).hexdigest()[:24]


def _compile(options: list[str], path: Path) -> None:
    """Compile, and link in a step of its own, which knows nothing of the sanitizer."""
    part = path.with_suffix(f".{os.getpid()}")
    try:
        if "-c" in options:
            compiling = [option for option in options if option != "-shared"]
            _run([*compiling, "-o", f"{part}.o"])
            options = ["-shared", f"{part}.o"]
        _run([*options, "-o", f"{part}.so"])
        os.replace(f"{part}.so", path)  # another process may do the same
    finally:
        Path(f"{part}.o").unlink(missing_ok=True)


def _run(options: list[str]) -> None:
    result = subprocess.run([compiler(), *options], capture_output=True, text=True)
    if result.returncode:
        raise CompileError(result.stderr)


def _with_lines(code: str) -> str:
    """The source with the emulator's device.cuh for the real one, and each line's file and number.

    tensorlite.kernels.launch puts included files in their places, between two comments.
    """
    lines, files, skip = ['#line 1 "kernel.cu"'], [["kernel.cu", 0]], False
    for line in code.splitlines():
        found = _FILE.match(line)
        if not found:
            files[-1][1] += 1
            if not skip:
                lines.append(line)
        elif found[1]:
            name, _ = files.pop()
            files[-1][1] += 1  # the line with the #include
            skip = skip and name != "device.cuh"
            lines.append(f'#line {files[-1][1] + 1} "{files[-1][0]}"')
        elif found[2] == "device.cuh":
            files.append(["device.cuh", 0])
            lines.append('#include "device.cuh"')
            skip = True
        else:
            files.append([found[2], 0])
            lines.append(f'#line 1 "{found[2]}"')
    return "\n".join(lines) + "\n"


def line_of(path: Path, offset: int) -> str:
    """Where in the source the code at these bytes from a library's beginning comes from, or ""."""
    tool = shutil.which("addr2line")
    if not tool or not offset:
        return ""
    command = [tool, "-i", "-s", "-e", str(path), hex(offset)]
    text = subprocess.run(command, capture_output=True, text=True).stdout
    text = re.sub(r"kernel-\w+\.\d+\.cpp", "kernel.cu", text)
    places = [line.split(" ")[0] for line in text.split("\n") if ".cu" in line]
    own = [place for place in places if not place.startswith(("cuda.h", "device.cuh"))]
    return ", from ".join(own or places)
