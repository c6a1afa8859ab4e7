"""A real run of the pipeline of documents: from a machine's pages to token files.

    python benchmarks/data.py FOLDER... [--ranks 1 2 4] [--kills 3] [--copies 1] [--every 1]

The folders hold pages of documentation, manual pages and source. On Debian, these packages give
more than 300 MB; `dpkg -x PACKAGE.deb FOLDER` unpacks each without installing it:

    apt-get download python3.11-doc postgresql-doc-15 openjdk-17-doc libstdc++-12-doc git-doc \\
        glibc-doc perl-doc sqlite3-doc python-scipy-doc maxima-doc manpages-dev debian-reference-en

All steps are run one after another with each number of ranks. Then the whole pipeline is run again
with two ranks and killed with SIGKILL, all of its processes, as often as --kills says, at times
spread over the run, and goes on each time. The bytes of all files must always be the same: the
program ends with an error otherwise.

The first table has, for each step, what it read and wrote in megabytes of text (`extract` reads
files), and for each number of ranks its seconds, its megabytes read a second, and the memory of the
process that took most. With --copies, the files are read so many times, and in each copy but the
first one word of 20 is replaced by another of the same file; with --every 8, each eighth file is
read. That is how the growth of time and memory with the amount of text is measured:

    python benchmarks/data.py FOLDER... --ranks 2 --kills 0 --every 8
    python benchmarks/data.py FOLDER... --ranks 2 --kills 0 --copies 13
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from gpt.data.pipeline.recipe import STEPS
from gpt.data.pipeline.steps import totals

MB = 1e6
ROOT = Path(__file__).resolve().parent.parent
WORD = re.compile(rb"(?<=[ \n])[a-z]{4,}(?=[ .,\n])")


def start(words: list[str], ranks: int) -> subprocess.Popen:
    """`python -m gpt.data` with these arguments, in a session of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "gpt.data", *words, "--workers", str(ranks)],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )


def timed(words: list[str], ranks: int) -> tuple[float, float]:
    """The seconds of a command, and the memory in MB of the largest of its processes."""
    begin = time.perf_counter()
    child = start(words, ranks)
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        raise SystemExit(f"python -m gpt.data {' '.join(words)} failed: see above")
    return time.perf_counter() - begin, usage.ru_maxrss * 1024 / MB


def by_steps(
    inputs: list[str], out: Path, ranks: int, tokenizer: str
) -> list[tuple[str, float, float]]:
    """(step, seconds, memory in MB) for each step, one after another."""
    rows = []
    for name in STEPS:
        words = [name, *inputs, "--out", str(out / name)]
        words += ["--tokenizer", tokenizer] if name == "tokenize" else []
        rows.append((name, *timed(words, ranks)))
        print(f"  {ranks} ranks  {name:<9} {rows[-1][1]:8.1f} s  {rows[-1][2]:6.0f} MB", flush=True)
        inputs = [str(out / name)]
    return rows


def kill_and_resume(
    inputs: list[str], out: Path, tokenizer: str, kills: int, seconds: float
) -> int:
    """Run the pipeline, killed so many times within `seconds`; returns how many hit it."""
    recipe = "".join(f"[{name}]\n" for name in STEPS) + f"tokenizer = {json.dumps(tokenizer)}\n"
    out.mkdir()
    file = out / "pipeline.toml"
    file.write_text(f'out = "."\ninputs = {json.dumps(inputs)}\n{recipe}')
    hits = 0
    for _ in range(kills):
        child = start(["pipeline", str(file)], 2)
        try:
            child.wait(seconds / (kills + 1))
        except subprocess.TimeoutExpired:
            hits += 1
            kill_all(child.pid)
            child.wait()
    if start(["pipeline", str(file)], 2).wait():
        raise SystemExit("the pipeline failed after it was killed: see above")
    file.unlink()
    return hits


def kill_all(pid: int) -> None:
    """Send SIGKILL to a process and to all that it has started, itself first."""
    found = [pid]
    for parent in found:
        for children in Path(f"/proc/{parent}/task").glob("*/children"):
            found += map(int, children.read_text().split())
    for process in found:
        try:
            os.kill(process, signal.SIGKILL)
        except ProcessLookupError:
            continue


def digests(folder: Path) -> dict[str, str]:
    """The SHA-256 of every file below a folder, by its path; hidden ones are left out."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not any(p.startswith(".") for p in path.relative_to(folder).parts)
    }


def copied(folders: list[str], to: Path, copies: int, every: int) -> list[str]:
    """Copies of each `every`-th file: the first as it is, in others one word of 20 is another."""
    for folder in map(Path, folders):
        paths = sorted(p for p in folder.rglob("*") if p.is_file() and not p.is_symlink())
        for path in paths[::every]:
            content = path.read_bytes()
            places = [found.span() for found in WORD.finditer(content)]
            for copy in range(copies):
                target = to / f"copy-{copy}" / folder.name / path.relative_to(folder)
                target.parent.mkdir(parents=True, exist_ok=True)
                draw = random.Random(f"{copy} {path}")
                target.write_bytes(changed(content, places, draw) if copy else content)
    return [str(to)]


def changed(content: bytes, places: list[tuple[int, int]], draw: random.Random) -> bytes:
    """The content with one of 20 of the words at these places replaced by another of them."""
    pieces, end = [], 0
    for i in sorted(draw.sample(range(len(places)), len(places) // 20)):
        begin, other = places[i][0], draw.choice(places)
        pieces += content[end:begin], content[slice(*other)]
        end = places[i][1]
    return b"".join([*pieces, content[end:]])


def sizes(inputs: list[str], out: Path) -> dict[str, tuple[float, float]]:
    """For each step, the MB that it read and wrote: of files, then of characters or tokens."""
    files = (p for i in inputs for p in Path(i).rglob("*") if p.is_file() and not p.is_symlink())
    read, found = sum(p.stat().st_size for p in files) / MB, {}
    for name in STEPS:
        shards = totals(out / name)[0]["shards"]
        wrote = sum(shard.get("characters", 0) for shard in shards) / MB
        found[name] = read, wrote
        read = wrote
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="The pipeline of documents on a machine's pages.")
    parser.add_argument("folders", nargs="+", help="what is read")
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--kills", type=int, default=3, help="how often a run is killed")
    parser.add_argument("--tokenizer", default="gpt2", help="its name, or a saved one's folder")
    parser.add_argument("--copies", type=int, default=1, help="read so many, with noise")
    parser.add_argument("--every", type=int, default=1, help="read each so-many-th file only")
    parser.add_argument("--keep", help="a folder for the results of the first run")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        scratch, inputs = Path(scratch), [str(Path(f).resolve()) for f in given.folders]
        if (given.copies, given.every) != (1, 1):
            inputs = copied(inputs, scratch / "copies", given.copies, given.every)
        runs, expected, seconds = {}, None, 0.0
        for ranks in given.ranks:
            out = scratch / f"ranks-{ranks}"
            runs[ranks] = by_steps(inputs, out, ranks, given.tokenizer)
            seconds = sum(row[1] for row in runs[ranks])
            made = digests(out)
            expected = expected or made
            if made != expected:
                names = [n for n in made.keys() | expected.keys() if made.get(n) != expected.get(n)]
                raise SystemExit(f"{ranks} ranks gave other bytes: {', '.join(sorted(names)[:5])}")
            if out.name != f"ranks-{given.ranks[0]}":
                shutil.rmtree(out)
        first = scratch / f"ranks-{given.ranks[0]}"
        print(table(sizes(inputs, first), runs))
        print(f"the bytes of {len(expected)} files are the same with {given.ranks} ranks")
        if given.kills:
            hits = kill_and_resume(
                inputs, scratch / "killed", given.tokenizer, given.kills, seconds
            )
            if digests(scratch / "killed") != expected:
                raise SystemExit("the run that was killed gave other bytes")
            print(f"and in a run that was killed {hits} times")
        if given.keep:
            shutil.copytree(first, given.keep)


def table(read_and_wrote: dict, runs: dict) -> str:
    """A Markdown table: a row for each step, and for each number of ranks its time and memory."""
    names = "".join(f" ranks: {n}, s | MB/s | memory, MB |" for n in runs)
    lines = [f"| step | read, MB | wrote, MB |{names}", "|---" * (3 + 3 * len(runs)) + "|"]
    for i, (name, (read, wrote)) in enumerate(read_and_wrote.items()):
        cells = ""
        for rows in runs.values():
            _, taken, memory = rows[i]
            cells += f" {taken:.1f} | {read / taken:.1f} | {memory:.0f} |"
        lines.append(f"| `{name}` | {read:.1f} | {wrote:.1f} |{cells}")
    read, wrote = read_and_wrote["extract"][0], read_and_wrote["tokenize"][1]
    cells = ""
    for rows in runs.values():
        taken, memory = sum(row[1] for row in rows), max(row[2] for row in rows)
        cells += f" {taken:.1f} | {read / taken:.1f} | {memory:.0f} |"
    lines.append(f"| all | {read:.1f} | {wrote:.1f} |{cells}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
