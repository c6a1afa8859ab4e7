"""Make docs/from-text-to-chat.md: run its commands, and put what they print below them.

    python benchmarks/text_to_chat.py --spam sms_spam.tsv --instructions instructions.json

text_to_chat.md is the page without the output. The commands in its blocks, after "$ ", are run by
the shell in a folder of their own, and what they print follows them, shortened in the middle. The
two files are the SMS Spam Collection (label and text, no header line) and records with instruction,
input, output, chosen and rejected. Takes about a quarter of an hour on two cores.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PICTURES = {"pretrained/loss.png": "text-to-chat-loss.png", "spam/confusion.png": "spam.png"}
SHOWN = 26  # lines of output that are shown of each command, at most

PAGE = Path(__file__).with_suffix(".md")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--spam", required=True, type=Path)
    parser.add_argument("--instructions", required=True, type=Path)
    parser.add_argument("--out", type=Path, default=DOCS / "from-text-to-chat.md")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        shutil.copy(args.spam, work / "sms.tsv")
        shutil.copy(args.instructions, work / "answers.json")
        page = re.sub(
            r"(?<=```console\n).*?(?=```)", lambda m: ran(m[0], work), PAGE.read_text(), flags=re.S
        )
        args.out.write_text(page)
        for source, name in PICTURES.items():
            shutil.copy(work / source, args.out.parent / name)


def ran(block: str, work: Path) -> str:
    """The commands of a block, each with what it printed."""
    text = ""
    for line in block.splitlines():
        command = line.removeprefix("$ ")
        print(command, flush=True)
        run = re.sub(r"\bpython (?=\w+\.py)", f"python {ROOT}/", command)
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        environment = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)}
        pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        done = subprocess.run(run, shell=True, cwd=work, env=environment, **pipes)
        output = done.stdout.replace(f"{ROOT}/", "").replace(f"{work}/", "")
        output = output.replace(sys.executable, "python")
        print(output, flush=True)
        if done.returncode:
            sys.exit(f"it ended with status {done.returncode}")
        text += wrapped(line) + "\n" + shortened(output) + "\n"
    return text.removesuffix("\n")


def wrapped(line: str, width: int = 98) -> str:
    """A long command over several lines, as the shell reads them."""
    if len(line) <= width:
        return line
    rows = [""]
    for word in re.split(r" (?=--|\| |\"[A-Z])", line):
        if len(rows[-1]) + len(word) + 3 > width:
            rows.append("   ")
        rows[-1] += f" {word}" if rows[-1] else word
    return " \\\n".join(rows)


def shortened(output: str) -> str:
    """At most SHOWN lines: the first, dots, and the last."""
    lines = [line.rstrip() for line in output.strip("\n").splitlines()]
    if len(lines) > SHOWN:
        half = SHOWN // 2
        lines = [*lines[: half - 1], "...", *lines[-half:]]
    return "".join(f"{line}\n" for line in lines)


if __name__ == "__main__":
    main()
