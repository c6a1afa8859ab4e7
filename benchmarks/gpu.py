"""All that is worth knowing about tensorlite on a GPU: whether it is right there, and how fast.

    python benchmarks/gpu.py                              all but a training run: ten minutes
    python benchmarks/gpu.py --steps --configs A C2       some parts alone
    python benchmarks/gpu.py --train shakespeare          nanoGPT's recipe for a GPU
    python benchmarks/gpu.py --strict                     without a GPU, and without times

Needs the extra cuda12 or cuda13, and for the walk the extra test. Where PyTorch is installed with
CUDA, everything is compared with it. The report is written as report.md and report.json to the
folder --out (out-gpu-report). Each part runs in a process of its own, so that an error in one is
reported and the others go on.

    --walk       value and gradients of all operations on the card against float64 on the CPU
    --kernels    operations, updates and products: GB/s and TFLOP/s
    --attention  attention against cuDNN's
    --steps      training steps against PyTorch, eager and compiled: times, launches, memory, losses
    --generate   tokens a second
    --train      train.py config/train_shakespeare_char.py to its end

With --strict all of this runs on the strict device of the tests, at tiny sizes: an emulator
executes the kernels, and the clock stands still. It shows mistakes in this program before a card is
at hand.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:] = [  # of this folder, tokenizers.py must not be found in place of the library
    str(ROOT),
    *(p for p in sys.path if Path(p or ".").resolve() != Path(__file__).parent),
]

import numpy as np  # noqa: E402

from benchmarks.gpu_card import (  # noqa: E402
    Table,
    describe,
    errors,
    possible,
    use_strict_device,
)
from tensorlite.device import place  # noqa: E402

CONFIGS = "A", "B", "C2", "C16", "D8"
PRECISIONS = "bfloat16", "float32", "tf32", "float16"
LIMIT = 900  # seconds for one part
PARTS = {
    "--walk": "check every operation against the CPU",
    "--kernels": "time operations, updates and products",
    "--attention": "time attention",
    "--steps": "time training steps",
    "--generate": "time the writing of text",
}


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for flag, text in PARTS.items():
        parser.add_argument(flag, action="store_true", help=text)
    parser.add_argument("--train", metavar="DATASET", help="train nanoGPT's model on this text")
    parser.add_argument("--strict", action="store_true", help="on the strict device, without times")
    parser.add_argument("--out", type=Path, default=Path("out-gpu-report"), metavar="FOLDER")
    parser.add_argument("--configs", nargs="+", choices=CONFIGS, default=CONFIGS)
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS)
    parser.add_argument(
        "--compiled",
        choices=("none", *PRECISIONS),
        default="bfloat16",
        help="the precision in which PyTorch's compiled model takes part (bfloat16)",
    )
    parser.add_argument("--turns", type=int, default=5, help="of each side, of 0.2 s each (5)")
    parser.add_argument("--part", help=argparse.SUPPRESS)  # run this one in this process
    options = parser.parse_args(argv)
    options.precisions = options.precisions or PRECISIONS[: 1 if options.strict else None]
    return options


def chosen(options) -> list[str]:
    """The parts to run; each configuration of --steps is one."""
    names = [flag[2:] for flag in PARTS if getattr(options, flag[2:])]
    train = ["train"] if options.train else []
    if not names and not train:
        names = [flag[2:] for flag in PARTS]
        train = ["train"] if options.strict else []
    configs = ["tiny"] if options.strict else options.configs
    parts = []
    for name in names:
        parts += [f"steps-{config}" for config in configs] if name == "steps" else [name]
    return parts + train


# =================================================================================================
# One part, in a process of its own
# =================================================================================================


def tables(part: str, options) -> Iterator[Table]:
    """The tables of a part, one after the other."""
    name, _, config = part.partition("-")
    module, function = {
        "generate": ("gpu_generate", "generation"),
        "train": ("gpu_generate", "training"),
    }.get(name, (f"gpu_{name}", "run"))
    run = getattr(importlib.import_module(f"benchmarks.{module}"), function)
    return run(config, options) if config else run(options)


def run_part(part: str, options) -> None:
    """Run a part, print its tables, and write them to a file, after each table and at the end."""
    if options.strict:
        use_strict_device()
    options.precisions = possible(options.precisions)
    warnings.showwarning = note_warning
    found = {"machine": describe(), "tables": [], "error": ""}
    start = time.perf_counter()

    def save() -> None:
        found["seconds"] = round(time.perf_counter() - start, 1)
        (options.out / f"{part}.json").write_text(json.dumps(found, indent=1))

    try:
        for table in tables(part, options):
            print(table.markdown(), flush=True)
            found["tables"].append(table._asdict())
            save()
    except Exception:
        errors.append(traceback.format_exc())
        print(errors[-1], file=sys.stderr)
    found["error"] = "\n".join(errors)
    save()


def note_warning(message, category, filename, lineno, file=None, line=None) -> None:
    """Print a warning; that an operation goes without its kernel is an error of this part."""
    print(f"{category.__name__}: {message}", file=sys.stderr)
    if "simpler operations" in str(message) or "nvmath" in str(message):
        errors.append(str(message))


# =================================================================================================
# All parts, and the report
# =================================================================================================


def start_part(part: str, argv: list[str], options) -> dict:
    """What a part has found, in a new process."""
    file = options.out / f"{part}.json"
    file.unlink(missing_ok=True)
    command = [sys.executable, __file__, *argv, f"--part={part}"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    try:
        status = subprocess.run(command, env=environment, timeout=LIMIT).returncode
        why = f"the process ended with status {status}"
    except subprocess.TimeoutExpired:
        status, why = 1, f"the process was stopped after {LIMIT} s"
    found = {"machine": {}, "tables": [], "seconds": None, "error": ""}
    if file.exists():
        found |= json.loads(file.read_text())
        file.unlink()
    if status and not found["error"]:
        found["error"] = why
    return {"part": part} | found


def report(parts: list[dict], options) -> str:
    """The report as Markdown."""
    machine = next((p["machine"] for p in parts if p["machine"]), {})
    lines = ["# tensorlite on a GPU", "", ", ".join(f"{k} {v}" for k, v in machine.items()), ""]
    if options.strict:
        lines += ["This was the strict device: there was no GPU, and the times mean nothing.", ""]
    for part in parts:
        lines += [Table(**table).markdown() for table in part["tables"]]
        if part["error"]:
            lines += [f"## {part['part']} ended with an error", "", "```"]
            lines += [part["error"].strip(), "```", ""]
    seconds = ", ".join(f"{part['part']} {part['seconds']}" for part in parts)
    return "\n".join([*lines, f"Seconds: {seconds}.", ""])


def main(argv: list[str] | None = None) -> int:
    """Run the chosen parts. Returns 0 if all ended without an error and with right results.

    1 if not, and 2 where there is no GPU.
    """
    argv = sys.argv[1:] if argv is None else argv
    options = parse(argv)
    options.out.mkdir(parents=True, exist_ok=True)
    if options.part:
        run_part(options.part, options)
        return 0
    if not options.strict:
        try:
            place(np.zeros(1), "cuda")
        except RuntimeError as error:
            print(f"gpu.py: {error}; --strict needs none", file=sys.stderr)
            return 2
    parts = []
    for part in chosen(options):
        parts.append(start_part(part, argv, options))
        (options.out / "report.md").write_text(report(parts, options))
        (options.out / "report.json").write_text(json.dumps(parts, indent=1))
    failed = [part["part"] for part in parts if part["error"]]
    wrong = sum(table["wrong"] for part in parts for table in part["tables"])
    print(f"{options.out / 'report.md'}: {len(failed)} parts failed, {wrong} wrong results")
    return int(bool(failed or wrong))


if __name__ == "__main__":
    sys.exit(main())
