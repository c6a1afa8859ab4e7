"""Compile the kernels that kernel_bits.json names, before the tests need them.

    python -m tests.emulator.ahead

This takes about two minutes of one core, which can be one that the tests leave idle.
"""

import json
from pathlib import Path

from tensorlite.kernels.launch import source

from . import build

BITS = Path(__file__).parents[1] / "kernel_bits.json"


def main() -> None:
    cases = json.loads(BITS.read_text()).values()
    for text in sorted({kernel for case in cases for kernel in case["kernels"]}):
        file, _, name = text.partition(" ")
        build.kernel(source(file), name)


if __name__ == "__main__":
    main()
