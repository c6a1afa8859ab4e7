"""NVIDIA's own compiler takes every kernel, without a warning, and with as few registers as before.

The kernels are those that the cases of tests/kernel_cases.py launch. tests/kernel_registers.json
holds their registers, which decide how many threads a GPU has room for, and what did not fit into
them. `python -m tests.test_kernels_compile` writes it anew, and prints what changed.
"""

import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from tests import nvrtc
from tests.kernel_cases import BITS

REGISTERS = Path(__file__).with_name("kernel_registers.json")
ARCHITECTURES = [75, 80, 90, 100]
GROWTH = 1.1  # registers may be so many times those that are held


def kernels(architecture: int) -> dict[str, list[str]]:
    """{file: kernels} for this architecture: before 8.0 there is neither bfloat16 nor attention."""
    found = {}
    for case in json.loads(BITS.read_text()).values():
        for file, kernel in (line.split(" ", 1) for line in case["kernels"]):
            if architecture >= 80 or not ("bf16" in kernel or file == "attention.cu"):
                found.setdefault(file, set()).add(kernel)
    return {file: sorted(names) for file, names in sorted(found.items())}


def compiled(architectures: list[int]) -> dict[int, dict[str, list[int]]]:
    """{architecture: {"norm.cu norm_forward<...>": [registers of a thread, spilled bytes]}}."""
    jobs, found = {}, {architecture: {} for architecture in architectures}
    # Processes, because the compiler does one thing at a time in each.
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        for architecture in architectures:
            for file, names in kernels(architecture).items():
                job = pool.submit(nvrtc.compile_kernels, file, names, architecture)
                jobs[architecture, file] = job
        for (architecture, file), job in jobs.items():
            for name, numbers in job.result().items():
                found[architecture][f"{file} {name}"] = list(numbers)
    return found


def grown(held: dict, now: dict) -> list[str]:
    """The kernels that take more registers than they did, or have more that does not fit."""
    found = []
    for kernel, (registers, spilled) in now.items():
        before = held.get(kernel)
        if before is None:
            found.append(f"{kernel} is not in {REGISTERS.name}")
        elif registers > GROWTH * before[0] or spilled > before[1]:
            found.append(f"{kernel}: {[registers, spilled]} instead of {before}")
    return found


def held(architecture: int) -> dict[str, list[int]]:
    """What `compiled` gave when the file was written."""
    lines = json.loads(REGISTERS.read_text()) if REGISTERS.exists() else {}
    name = f"sm_{architecture}"
    return {kernel: numbers[name] for kernel, numbers in lines.items() if name in numbers}


def test_every_kernel_compiles_with_as_few_registers():
    if nvrtc.library() is None:
        pytest.skip("pip install nvidia-cuda-nvrtc-cu12 brings the compiler")
    for architecture, now in compiled(ARCHITECTURES).items():
        assert len(now) >= 50
        assert grown(held(architecture), now) == [], f"sm_{architecture}"


def test_growth_is_found():
    before = {"a.cu k<1>": [100, 0], "a.cu k<2>": [100, 8]}
    assert grown(before, {"a.cu k<1>": [110, 0], "a.cu k<2>": [90, 8]}) == []
    for kernel, numbers in [("k<1>", [111, 0]), ("k<1>", [100, 4]), ("k<3>", [1, 0])]:
        (found,) = grown(before, {f"a.cu {kernel}": numbers})
        assert kernel in found


def main() -> None:
    lines = {}
    for architecture, now in compiled(ARCHITECTURES).items():
        for line in grown(held(architecture), now):
            print(f"sm_{architecture}: {line}")
        for kernel, numbers in now.items():
            lines.setdefault(kernel, {})[f"sm_{architecture}"] = numbers
    text = ",\n".join(f"{json.dumps(k)}: {json.dumps(numbers)}" for k, numbers in lines.items())
    REGISTERS.write_text(f"{{\n{text}\n}}\n")


if __name__ == "__main__":
    main()
