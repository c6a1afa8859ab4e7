"""Planted bugs and right gradients, judged by three gradient checkers side by side.

    python benchmarks/gradient_checkers.py [--quick] [--float32] [--held_out] [--json FILE]
                                           [--only GROUP ...] [--checkers NAME ...] [--show]

It needs PyTorch, JAX and ml_dtypes.

200 bugs of ten kinds are planted in functions written in plain NumPy, as torch.autograd.Function
and as jax.custom_vjp, and 2,000 right gradients are drawn: at kinks, at scales from 1e-12 to 1e12,
near the edge of the domain, in float32 and in bfloat16. All are judged by

- `tensorlite.testing.examine_vjp`,
- `torch.autograd.gradcheck` with its defaults. It warns that it is made for double precision: what
  has another precision counts as refused;
- `jax.test_util.check_grads` with its defaults, in reverse mode, to first order, with 64 bits.

A function of another framework reaches a checker through NumPy: as a torch.autograd.Function that
calls it, or as a jax.custom_vjp that calls it back. `--float32` plants the bugs in float32.
docs/gradient_checkers.md contains the tables and says what they show.
"""

from __future__ import annotations

import argparse
import collections
import json
import re
import sys
import time
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import jax
import numpy as np
import torch
from jax.test_util import check_grads
from torch.autograd.gradcheck import GradcheckError
from tqdm import tqdm

from benchmarks.gradients.bugs import BUGS
from benchmarks.gradients.conduct import KEPT
from benchmarks.gradients.draws import Case, drawn, planted
from benchmarks.gradients.frameworks import as_jax, as_torch, in_framework
from benchmarks.gradients.held_out import HELD_OUT
from tensorlite.testing import examine_vjp

jax.config.update("jax_enable_x64", True)

# The kinds of tensorlite.testing.mistakes that name a planted bug. A sum left out is called a term
# left out where it is one, and so on: what a detached statistic leaves out is a term of the sum.
NAMES = {
    "factor": ("factor",),
    "sign": ("sign",),
    "transpose": ("transpose",),
    "broadcast sum left out": ("sum over a broadcast axis", "sum over repeated indices"),
    "term left out": ("term left out",),
    "index off by one": ("index off by one",),
    "detached path": ("detached path",),
}
# What complaints about conduct say.
WORDS = {
    "nondeterminism": r"Computed again",
    "writing into g or an argument": r"writes into",
    "depends on memory order or on needs": r"When (g|argument|gradients)",
}


def ours(case: Case) -> tuple[str, str]:
    """The verdict of examine_vjp, and the kind of mistake or the complaint."""
    value, vjp, args = in_framework(case)
    report = examine_vjp(value, vjp, args)
    kind = report.mistake.kind if report.mistake else ""
    if report.complaints:
        return "wrong", " / ".join([kind, *report.complaints])
    return report.verdict, f"{kind}: {report.mistake.words}" if report.mistake else ""


def pytorchs(case: Case) -> tuple[str, str]:
    if case.dtype != "float64":
        return "refused", ""
    function, args = as_torch(case)
    try:
        torch.autograd.gradcheck(function, args)
    except GradcheckError as error:
        return "wrong", str(error)
    return "right", ""


def jaxs(case: Case) -> tuple[str, str]:
    function, args = as_jax(case)
    try:
        check_grads(function, args, order=1, modes=["rev"])
    except AssertionError as error:
        return "wrong", str(error)
    return "right", ""


CHECKERS = {"tensorlite": ours, "gradcheck": pytorchs, "check_grads": jaxs}


def named(case: Case, words: str) -> bool:
    """Whether what is said about a planted bug is the right kind."""
    if case.group in WORDS:
        return bool(re.search(WORDS[case.group], words))
    return words.startswith(NAMES[case.group])


def judge(cases, checkers, show: bool) -> list[dict]:
    """One row for each case and checker: what the checker says, and the seconds it takes."""
    rows = []
    for n, case in enumerate(tqdm(cases, disable=None)):
        for name in checkers:
            KEPT.clear()
            start = time.perf_counter()
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")
                try:
                    verdict, words = CHECKERS[name](case)
                except Exception as error:
                    verdict, words = "error", f"{type(error).__name__}: {error}"
            seconds = time.perf_counter() - start
            row = {"n": n, "group": case.group, "function": case.name, "dtype": case.dtype}
            row |= {"framework": case.framework, "checker": name, "verdict": verdict}
            row |= {"words": words, "seconds": seconds}
            if case.group in BUGS:
                row["named"] = verdict == "wrong" and named(case, words)
            rows.append(row)
            if show and name == "tensorlite":
                print({k: v for k, v in row.items() if k != "checker"}, flush=True)
    return rows


def table(title: str, rows: list[dict], columns: dict[str, str]) -> str:
    """A table in Markdown: a line for each group, and for each checker how often it says what.

    `columns` has for each heading what is counted under it. Those with nothing to count are left
    out, except for the first.
    """
    checkers = list(dict.fromkeys(row["checker"] for row in rows))
    groups = list(dict.fromkeys(row["group"] for row in rows))
    counts = collections.Counter()
    for row in rows:
        for group in (row["group"], "all"):
            counts[group, row["checker"], row["verdict"]] += 1
            counts[group, row["checker"], "named"] += row.get("named", False)
    first = next(iter(columns.values()))
    shown = [
        (checker, heading, what)
        for checker in checkers
        for heading, what in columns.items()
        if what == first or counts["all", checker, what]
    ]
    lines = [[title, "cases", *(f"{checker}: {heading}" for checker, heading, _ in shown)]]
    lines.append(["---"] + ["---:"] * (len(shown) + 1))
    for group in [*groups, "all"]:
        n = sum(row["group"] == group or group == "all" for row in rows) // len(checkers)
        cells = [counts[group, checker, what] for checker, _, what in shown]
        lines.append([group, str(n), *map(str, cells)])
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    seconds = (
        f"{checker} {sum(row['seconds'] for row in rows if row['checker'] == checker):.0f}"
        for checker in checkers
    )
    return f"{text}\n\nSeconds: {', '.join(seconds)}.\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the cases")
    parser.add_argument("--float32", action="store_true", help="plant the bugs in float32")
    parser.add_argument("--held_out", action="store_true", help="plant those of held_out.py")
    parser.add_argument("--json", type=Path, help="write every verdict to this file")
    parser.add_argument("--only", nargs="*", help="these groups of cases")
    parser.add_argument("--checkers", nargs="*", default=list(CHECKERS), choices=CHECKERS)
    parser.add_argument("--show", action="store_true", help="print each verdict of ours")
    args = parser.parse_args()
    torch.set_num_threads(1)
    dtype = "float32" if args.float32 else "float64"
    lists = HELD_OUT if args.held_out else BUGS
    bugs = list(planted(2 if args.quick else 20, dtype, lists))
    right = list(drawn(200 if args.quick else 2000))
    results = []
    unsure = {"cannot tell": "cannot tell", "refused": "refused", "raises": "error"}
    for title, cases, columns in (
        ("planted bugs", bugs, {"found": "wrong", "named": "named", "missed": "right"} | unsure),
        ("right gradients", right, {"false alarms": "wrong"} | unsure),
    ):
        cases = [case for case in cases if not args.only or case.group in args.only]
        if cases:
            rows = judge(cases, args.checkers, args.show)
            print(table(title, rows, columns), flush=True)
            results += rows
    if args.json:
        args.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
