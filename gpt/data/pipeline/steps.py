"""Steps from a folder to the next: each shard is a task that is done once, and by one rank.

What a shard becomes depends on the shard, the settings, and what a step found out about all shards
before, and on nothing else. So the bytes are the same whatever number of ranks divide the shards,
and a run that was killed goes on with the shards that are missing.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import importlib.metadata
import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from tensorlite.parallel import ALONE, Team
from tokenizer.files import write_atomic

from .document import Document
from .shards import read_manifest, shards_in, write_shards
from .tally import Tally


@dataclass(frozen=True)
class Unit:
    """What one task reads.

    `name` is that of the shard it becomes, `key` tells this input from another (a hash, or paths
    with sizes and times), tasks are dealt to ranks by their `weight` in bytes, and `source` is a
    `Shard` of the step before, or what a step's `units` says.
    """

    name: str
    key: str
    weight: int
    source: Any


class Step:
    """One step: subclasses say what becomes of a unit's documents.

    `Settings` is a dataclass whose fields are made by `gpt.commandline.option`. `version` is raised
    when the step gives other results for the same input and settings. `libraries` are those whose
    versions may change the results.
    """

    name = ""
    version = 2
    libraries = ""
    Settings: type
    team: Team = ALONE  # of the run that the step is in

    def __init__(self, settings):
        self.settings = settings

    def units(self, inputs: list[str]) -> list[Unit]:
        """The tasks: by default the shards of one folder of documents."""
        if len(inputs) != 1:
            raise ValueError(f"{self.name} takes one folder of documents, not {len(inputs)}")
        return [Unit(s.name, s.key, s.size, s) for s in shards_in(inputs[0])]

    def extra_key(self) -> str:
        """What else than settings and units the results depend on: the content of a file, say."""
        return ""

    def scan(self, units: list[Unit], work: Work) -> None:
        """Find out what has to be known of all units before `documents` is called: nothing here."""

    def documents(self, unit: Unit, tally: Tally) -> Iterator[Document]:
        """The documents that a unit becomes, one at a time."""
        raise ValueError(f"the step {self.name} makes no documents")

    def write(self, unit: Unit, stem: Path, tally: Tally) -> dict:
        """Write the files of a unit, whose paths begin with `stem`; returns what to state of them.

        That is "files", from names to hashes, and whatever else the next step has to know.
        """
        return write_shards(stem, self.watched(unit, tally))

    def watched(self, unit: Unit, tally: Tally) -> Iterator[Document]:
        """`documents`, with a bar of their own where a unit takes long: a large file, say."""
        return progress(self.documents(unit, tally), unit.name, self.team, " documents", delay=4)

    def finish(self, manifest: dict, out: Path) -> None:
        """Called with the complete manifest before it is written: nothing to do here."""


class Unfinished(RuntimeError):
    """Raised where a part (`--shard`) has done what it can, and needs what others have not yet."""


@dataclass(frozen=True)
class Work:
    """The passes over all units that a step makes before it writes: see `Step.scan`.

    Their results are files in OUT/.scan, made once, as the shards are.
    """

    folder: Path
    mine: list[Unit]
    team: Team
    parts: int

    def map(
        self, phase: str, units: list[Unit], function: Callable[[Unit, Path], None]
    ) -> list[Path]:
        """Call `function(unit, path)`, which writes the file `path`, for the units of this rank.

        Returns the paths of all units, in their order, once all ranks have written theirs. Raises
        `Unfinished`, on all ranks, if other parts have not.
        """
        paths = {unit.name: self.folder / f"{phase}-{unit.name}.npy" for unit in units}
        mine = {unit.name for unit in self.mine}
        todo = [u for u in units if u.name in mine and not paths[u.name].is_file()]
        for unit in progress(todo, phase, self.team):
            function(unit, paths[unit.name])
        self.team.wait()
        missing = self.team.same(sum(not path.is_file() for path in paths.values()))
        if missing:
            raise Unfinished(
                f"this part has done what it can: of the pass {phase!r}, {missing} of {len(units)} "
                "tasks of other parts are missing. When all parts have ended, run the same command "
                "for each part again"
            )
        return list(paths.values())

    def once(self, phase: str, function: Callable[[Path], None]) -> Path:
        """Call `function(path)`, which writes the file `path`, on rank 0; all get the path."""
        path = self.folder / f"{phase}.npy"
        if self.team.rank == 0 and not path.is_file():
            function(path)
        self.team.wait()
        return path


@contextmanager
def explained() -> Iterator[None]:
    """Where a disk is full, an OSError that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise OSError(
            f"{error.strerror}: the disk, or what you may write to it, is full. Make room and give "
            "the same command again: it goes on where it was"
        ) from error


@explained()
def run(step: Step, inputs: list[str], out: str | Path, team=ALONE, part=(0, 1)) -> dict | None:
    """Do a step: from its inputs to the folder `out`, whose manifest is returned.

    The ranks of `team` divide the units. `part` (i, n) takes the i-th of n parts of them only, and
    returns None while the units of other parts are missing. All ranks must call this.

    Raises ValueError for inputs or settings that cannot be, and if another run works in `out`;
    OSError where the disk is full; and `Unfinished` where a part waits for passes of others.
    """
    out, (i, n) = Path(out), part
    check_apart(inputs, out)
    units, step.team = step.units(inputs), team
    if not units:
        raise ValueError(f"there is nothing to do for {step.name} in {', '.join(inputs)}")
    out.mkdir(parents=True, exist_ok=True)
    with locked(out, part) if team.rank == 0 else ExitStack():
        made_of = fingerprint(step, units)
        listed = sha256_of([made_of, *((unit.name, unit.key) for unit in units)])
        if len(set(team.gather(listed))) > 1:
            raise ValueError(
                "the ranks list other inputs or have other versions of libraries: run again when "
                "the inputs rest, with the same libraries on all machines"
            )
        mine = dealt(dealt(units, n)[i], team.size)[team.rank]  # parts may differ in their ranks
        scans = out / ".scan" / made_of[:16]
        scans.mkdir(parents=True, exist_ok=True)
        if team.rank == 0:
            remove_leftovers(out, units, whole=part == (0, 1))
        team.wait()
        todo = [unit for unit in mine if read_entry(out, unit, made_of) is None]
        left = sum(team.gather(len(todo)))
        if left:
            step.scan(units, Work(scans, mine, team, n))
        for unit in progress(todo, step.name, team):
            tally = Tally()
            remove_made(out / f"{unit.name}.json")  # of something else, and perhaps more files
            stated = step.write(unit, out / unit.name, tally)
            entry = {"name": unit.name, "made_of": made_of, "input": unit.key} | stated
            write_json(out / f"{unit.name}.json", entry | {"tally": tally.as_json()})
        team.wait()
        found = [read_entry(out, unit, made_of) for unit in units] if team.rank == 0 else None
        entries = team.same(found)
        if None in entries:
            if n == 1:
                raise ValueError(f"shards of {out} vanished: run the same command again")
            return None
        manifest = {
            "step": step.name,
            "version": step.version,
            "settings": asdict(step.settings),
            "libraries": versions(step),
            "shards": entries,
        }
        if team.rank == 0:
            step.finish(manifest, out)
            write_json(out / "manifest.json", manifest)
            shutil.rmtree(out / ".scan", ignore_errors=True)
        team.wait()
        return manifest


def fingerprint(step: Step, units: list[Unit]) -> str:
    """A hash of the step, its libraries, settings and inputs: what its results are made of.

    A step that makes no pass over all units depends on each unit alone: their keys are compared
    one by one, so that one new input does not redo the others.
    """
    alone = type(step).scan is Step.scan
    keys = [] if alone else [(unit.name, unit.key) for unit in units]
    made_by = [step.name, step.version, versions(step), asdict(step.settings)]
    return sha256_of([*made_by, step.extra_key(), keys])


def sha256_of(content: list) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def check_apart(inputs: list[str], out: Path) -> None:
    """Raise ValueError for a folder of results that is read, or is in a folder that is read."""
    out = out.resolve()
    for path in map(Path, inputs):
        read = path.resolve()
        if read in (out, *out.parents) or (read.is_file() and read.parent == out):
            raise ValueError(
                f"{out} is in {path}, or holds it, and would be both read and written: give "
                "another folder with --out"
            )


def dealt(units: list[Unit], ranks: int) -> list[list[Unit]]:
    """The units of each rank: the largest first, each to the rank that has least so far."""
    hands, weights = [[] for _ in range(ranks)], [0] * ranks
    for unit in sorted(units, key=lambda unit: (-unit.weight, unit.name)):
        rank = weights.index(min(weights))
        hands[rank].append(unit)
        weights[rank] += unit.weight + 1
    return [sorted(hand, key=lambda unit: unit.name) for hand in hands]


def read_entry(out: Path, unit: Unit, made_of: str) -> dict | None:
    """What was stated of a unit that is done, or None: it is missing, or made of something else."""
    try:
        entry = json.loads((out / f"{unit.name}.json").read_bytes())
        same = entry["made_of"] == made_of and entry["input"] == unit.key
        return entry if same and all((out / name).is_file() for name in entry["files"]) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def remove_leftovers(out: Path, units: list[Unit], whole: bool) -> None:
    """Remove the manifest of what was there before and, in a whole run, files of other units."""
    (out / "manifest.json").unlink(missing_ok=True)
    if whole:
        names = {unit.name for unit in units}
        for path in out.iterdir():
            if path.name.startswith(".") and path.suffix == ".tmp":
                path.unlink(missing_ok=True)
            elif path.suffix == ".json" and path.stem not in names:
                remove_made(path)


def remove_made(entry: Path) -> None:
    """Remove an entry and the files that it vouches for; nothing for a file that is no entry."""
    for name in reversed(files_of(entry)):  # the entry first
        entry.with_name(name).unlink(missing_ok=True)


def files_of(path: Path) -> list[str]:
    """The files that an entry vouches for and its own name; [] for a file that is no entry."""
    try:
        entry = json.loads(path.read_bytes())
        names = [*entry["files"], path.name] if entry["name"] == path.stem else []
        return [name for name in names if Path(name).name == name]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return []


@contextmanager
def locked(out: Path, part: tuple[int, int]) -> Iterator[None]:
    """Hold a folder for this part of the work. Raises ValueError if another process does.

    Parts of one number share the folder, and a run of the whole has it alone.
    """
    own = out / f".lock-{part[0]}-of-{part[1]}"
    with open(out / ".lock", "w") as common, open(own, "w") as file:
        try:
            alone = fcntl.LOCK_EX if part == (0, 1) else fcntl.LOCK_SH
            fcntl.flock(common, alone | fcntl.LOCK_NB)
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"another run works in {out}: wait until it has ended, or give another --out"
            ) from None
        yield


def progress(tasks: Iterable, what: str, team: Team, unit: str = "shard", delay: float = 0):
    """A bar on rank 0, of its own tasks; none where the output is no terminal."""
    disable = None if team.rank == 0 else True
    return tqdm(tasks, desc=what, unit=unit, leave=False, disable=disable, delay=delay)


def versions(step: Step) -> dict[str, str]:
    """The versions of the libraries that a step uses, as far as they are installed."""
    found = {}
    for name in ["zstandard", *step.libraries.split()]:  # all of them write shards
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            pass
    return found


def write_json(path: Path, content: dict) -> None:
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    write_atomic(path, text.encode("utf-8", "surrogatepass"))  # names of files may hold any bytes


def totals(folder: Path) -> tuple[dict, Tally]:
    """The manifest of a complete folder, and the tally of all its shards."""
    manifest, tally = read_manifest(folder), Tally()
    for shard in manifest["shards"]:
        tally.add(shard["tally"])
    return manifest, tally
