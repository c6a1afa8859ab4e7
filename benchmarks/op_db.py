"""Compares tensorlite with PyTorch on PyTorch's own table of operations and their sample inputs.

    python benchmarks/op_db.py [NAME ...]     needs PyTorch and expecttest (extra `oracle`)

The table (`op_db`, inside the torch wheel) is what PyTorch tests itself with. Of its entries that
take real numbers and are differentiable, tests/op_db/ says each by NumPy's functions of tensors and
by ours, in the fewest words; here values, first and second gradients of all sample inputs are
compared in float64. With names, only these entries are compared, and every difference is printed.
"""

from __future__ import annotations

import argparse
import collections
import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # for tests/op_db

from tests.op_db.compare import CannotSay, entries, full_name, samples
from tests.op_db.names import how_to_say, judge
from tests.op_db.reasons import DIFFERENCES, MISSING, reason_missing


def compare(op, chosen: bool) -> collections.Counter:
    """Compare all samples of an entry, print those that differ, and count the outcomes."""
    counts, shown = collections.Counter(), set()
    known = DIFFERENCES.get(full_name(op), ("",))[0]
    for i, sample in enumerate(samples(op)):
        try:
            found = judge(op, sample)
        except CannotSay:
            counts["not said"] += 1
            continue
        counts["compared"] += 1
        if found:
            counts["known" if found.what == known else "wrong"] += 1
            if chosen or found.what not in {known, *shown}:
                print(f"{full_name(op)}, sample {i}: {found.what}: {found.words}")
            shown.add(found.what)
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="entries of the table, such as linalg.norm")
    names = parser.parse_args().names
    warnings.simplefilter("ignore")  # NumPy's about NaN, and PyTorch's about old names
    table = entries()
    if unknown := set(names) - {op.name for op in table}:
        parser.error(f"no entry is called {', '.join(sorted(unknown))}")
    said = [op for op in table if how_to_say(op) and (not names or op.name in names)]
    total, differing = collections.Counter(), {}
    for op in said:
        counts = compare(op, bool(names))
        total += counts
        if counts["wrong"] or counts["known"]:
            differing[full_name(op)] = counts
    print(
        f"\n{len(table)} entries, {len(said)} of them compared: {total['compared']} samples, "
        f"{total['wrong']} wrong, {total['known']} different on purpose; {total['not said']} "
        "samples left out"
    )
    for name, counts in differing.items():
        reason = DIFFERENCES.get(name, ("", ""))[1]
        print(f"  {name}: {counts['wrong']} wrong, {counts['known']} on purpose: {reason}")
    if names:
        return
    print(f"\n{len(table) - len(said)} entries are not compared:")
    for reason in MISSING:
        count = sum(reason_missing(full_name(op)) == reason for op in table)
        print(f"  {count:3} {reason}")


if __name__ == "__main__":
    main()
