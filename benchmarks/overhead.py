"""The overhead of the engine, measured on a long chain of operations on a single number.

    python benchmarks/overhead.py        compares with autograd after `pip install autograd`

Times the forward and backward pass of a chain of 2,000 multiplications of one number, and prints
the time per multiplication for tensorlite, for HIPS autograd, and for a loop of the same NumPy
calls alone. Then prints how long `import numpy` and `import tensorlite` take. All times are medians
of several rounds; in each round, all candidates run one after the other.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

import numpy as np

import tensorlite as tl

LENGTH, ROUNDS, FACTOR = 2000, 31, 1.0001


def ours() -> None:
    x = tl.tensor(1.0, dtype=np.float64, requires_grad=True)
    y = x
    for _ in range(LENGTH):
        y = y * FACTOR
    y.backward()


def bare() -> None:
    y = np.asarray(1.0)
    values = []
    for _ in range(LENGTH):
        y = np.multiply(y, FACTOR)
        values.append(y)
    g = np.asarray(1.0)
    for _ in values:
        g = np.multiply(g, FACTOR)


def chain(x):
    for _ in range(LENGTH):
        x = x * FACTOR
    return x


def median_times(sides: dict) -> dict[str, float]:
    """The median microseconds per multiplication of each side."""
    times = {name: [] for name in sides}
    for _ in range(ROUNDS):
        for name, run in sides.items():
            start = time.perf_counter()
            run()
            times[name].append((time.perf_counter() - start) / LENGTH * 1e6)
    return {name: statistics.median(values) for name, values in times.items()}


def import_seconds(module: str) -> float:
    command = (
        f"import time; t = time.perf_counter(); import {module}; print(time.perf_counter() - t)"
    )
    runs = [subprocess.check_output([sys.executable, "-c", command]) for _ in range(7)]
    return statistics.median(map(float, runs))


def main() -> None:
    sides = {"bare NumPy": bare, "tensorlite": ours}
    try:
        import autograd

        gradient = autograd.grad(chain)
        sides["HIPS autograd"] = lambda: gradient(1.0)
    except ImportError:
        print("(pip install autograd to compare with it)")
    times = median_times(sides)
    for name, value in times.items():
        print(f"{name:15} {value:6.2f} microseconds a multiplication, forward and backward")
    if "HIPS autograd" in times:
        print(f"ratio to HIPS autograd: {times['tensorlite'] / times['HIPS autograd']:.2f}")
    numpy, tensorlite = import_seconds("numpy"), import_seconds("tensorlite")
    print(f"import numpy {numpy:.3f} s, import tensorlite {tensorlite:.3f} s")


if __name__ == "__main__":
    main()
