"""The walk of gpu.py: value and gradients of every operation on the card against the CPU's.

The arguments are those that tests/op_cases.py draws: small arrays of odd shapes, for all there is.
The operations that have a kernel are then checked on the shapes of models, in each precision.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

import tensorlite as tl
from benchmarks.gpu_card import Table
from benchmarks.gpu_kernels import check_all

TOLERANCE = 1e-4  # absolute and relative: the arrays hold numbers near 1


def run(options) -> Iterator[Table]:
    names = sorted(tl.OPS)[::9] if options.strict else sorted(tl.OPS)
    wrong, drawn = [], 0
    for name in names:
        count, error = check_drawn(name, most=2 if options.strict else 25)
        drawn += count
        wrong += [{"operation": name, "error": error}] if error else []
    note = (
        f"{len(names)} operations with {drawn} drawn arguments, value and gradients in float32 on "
        f"the card against float64 on the CPU: {len(names) - len(wrong)} right, {len(wrong)} wrong."
    )
    yield Table("Every operation", wrong, note, len(wrong))
    rows = [row for precision in options.precisions for row in check_all(precision)]
    bad = sum(row["right"] != "yes" for row in rows)
    note = (
        "The largest difference from float64 on the CPU, relative to the largest number, of values "
        f"and gradients: {len(rows) - bad} right, {bad} wrong."
    )
    yield Table("Operations that have kernels", rows, note, bad)


def check_drawn(name: str, most: int) -> tuple[int, str]:
    """How many arguments were drawn for an operation, and what was wrong, "" for nothing."""
    from hypothesis import HealthCheck, Phase, given, settings

    from tests.cases import function_of
    from tests.op_cases import CASES
    from tests.test_strict import run as run_on

    drawn = 0

    @settings(
        max_examples=most,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(CASES[name])
    def walk(arguments):
        nonlocal drawn
        drawn += 1
        with np.errstate(all="ignore"):
            expected = run_on(function_of(name), arguments, np.float64, "cpu", True, 1)
            results = run_on(function_of(name), arguments, np.float32, "cuda", True, 1)
        for result, value in zip(results, expected, strict=True):
            np.testing.assert_allclose(result, value, rtol=TOLERANCE, atol=TOLERANCE)

    try:
        walk()
    except Exception as error:
        return drawn, " ".join(f"{type(error).__name__}: {error}".split())[:300]
    return drawn, ""
