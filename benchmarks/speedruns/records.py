"""The records of the speedrun: their files, the rules for them, and the tables of docs/speedrun.md.

A record is a TOML file in records/, such as this one:

    track = "speed"  # or "loss"; "start": where both tracks begin
    what = "Muon for the matrices of the blocks, 500 steps"
    date = "2026-11-27"
    commit = "b33ede36fc4065e42c9db5afa18f30d91a724633"  # the code, and with it the presets
    arguments = "--preset speedrun"  # of train.py
    machine = "2 cores of an AMD EPYC"
    seeds = [1001, 1002, 1003]

    [own]  # what the run of each seed gave
    seconds = [24.1, 23.8, 24.4]
    losses = [1.8721, 1.8694, 1.8733]
    tokens = 384000  # that each run was trained on

Two more tables, [before] and [pytorch], hold the same of the record before and of the PyTorch
script with nanoGPT's recipe, which ran in the same rounds: machines and hours differ, so that
seconds are compared within a round alone. A file with track, what and arguments alone is an entry
that was not measured yet; speedrun.py --record makes a record of it.
"""

from __future__ import annotations

import json
import re
import statistics
import tomllib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from .runs import Runs
from .student import p_below_zero, p_text

RECORDS = Path(__file__).parent / "records"
TRACKS = ("start", "speed", "loss")
TARGET = 1.90  # nats per character: what nanoGPT's recipe for a CPU nearly reaches
SURE = 0.01  # a claim is believed if chance alone would show it less often than this


@dataclass(frozen=True)
class Entry:
    """What is measured. `name` is that of the file, without .toml: "002-muon" for a record."""

    name: str
    track: str
    what: str
    arguments: str

    def __post_init__(self):
        for key, value in vars(self).items():
            if self.__dataclass_fields__[key].type == "str" and not isinstance(value, str):
                raise ValueError(f"{key} is a text, not {value!r}")
        if self.track not in TRACKS:
            raise ValueError(f"track is {' or '.join(TRACKS)}, not {self.track!r}")
        if not self.what.strip() or set("|\r\n") & set(self.what):
            raise ValueError(f"what is one line of text without |, not {self.what!r}")


@dataclass(frozen=True)
class Record(Entry):
    """One record, as its file has it. Raises ValueError for values that cannot be.

    Only a start has no record before it.
    """

    date: str
    commit: str
    machine: str
    seeds: list[int]
    own: Runs
    pytorch: Runs
    before: Runs | None = None

    def __post_init__(self):
        super().__post_init__()
        if not re.fullmatch("[0-9a-f]{7,40}", self.commit):
            raise ValueError(f"commit is 7 to 40 hexadecimal digits, not {self.commit!r}")
        if not all(type(seed) is int for seed in self.seeds):
            raise ValueError(f"seeds are whole numbers, not {self.seeds}")
        if (self.before is None) != (self.track == "start"):
            raise ValueError("every record has [before], except a start")
        for runs in (self.own, self.pytorch, self.before):
            if runs and not len(self.seeds) == len(runs.seconds) == len(runs.losses) > 0:
                raise ValueError("seconds and losses have one number for each of the seeds")
            if runs and not all(x > 0 for x in [*runs.seconds, *runs.losses]):  # NaN is refused too
                raise ValueError("seconds and losses are above 0")

    @property
    def p_target(self) -> float:
        """How likely chance alone would show losses so far below the target."""
        return p_below_zero(np.subtract(self.own.losses, TARGET))

    @property
    def p_before(self) -> float:
        """How likely chance alone would show such an advantage over the record before.

        That is the loss in the track of that name, and otherwise the time.
        """
        if self.track == "loss":
            return p_below_zero(np.subtract(self.own.losses, self.before.losses))
        return p_below_zero(np.log(np.divide(self.own.seconds, self.before.seconds)))


def ratio(runs: Runs, others: Runs) -> float:
    """The median over the rounds of the time of one recipe divided by that of another."""
    return float(np.median(np.divide(runs.seconds, others.seconds)))


# ---- the rules -----------------------------------------------------------------------------------


def faults(record: Record) -> list[str]:
    """Which rules the figures of a record break, in words; [] for a record that stands."""
    found = []
    if record.track == "speed" and not record.p_target < SURE:
        mean, p = statistics.mean(record.own.losses), p_text(record.p_target)
        found.append(f"the mean loss, {mean:.4f}, is not surely below {TARGET:.2f}: p {p}")
    if record.track == "loss" and (part := ratio(record.own, record.pytorch)) > 1:
        found.append(f"it takes {part:.2f} of the PyTorch script's time, more than 1")
    if record.track != "start" and not record.p_before < SURE:
        p = p_text(record.p_before)
        found.append(f"it is not surely better than the record before: p {p}")
    return found


def differences(claimed: Record, found: Record) -> list[str]:
    """What another run of a record's recipe does not confirm, in words."""
    texts = []
    before, now = (statistics.mean(record.own.losses) for record in (claimed, found))
    if abs(now - before) > 0.01:
        texts.append(f"the mean loss is {now:.4f}, the record says {before:.4f}")
    if claimed.track == "speed":
        before, now = (ratio(record.own, record.before) for record in (claimed, found))
        if now > 1.1 * before:
            texts.append(
                f"it takes {now:.3f} of the time of the record before, the record says {before:.3f}"
            )
    return texts


def rival_of(entries: Sequence[Entry], track: str) -> Entry | None:
    """The last of the entries, with which the next in that track is compared; None for a start."""
    rivals = [entry for entry in entries if entry.track in ("start", track)]
    return rivals[-1] if rivals and track != "start" else None


# ---- the files -----------------------------------------------------------------------------------


def read_records(folder: Path = RECORDS) -> list[Record]:
    """The records of a folder, oldest first. Raises ValueError for a file that is not as above."""
    return [read_entry(path, Record) for path in sorted(folder.glob("*.toml"))]


def read_entry(path: Path, kind: type[Entry] = Entry) -> Entry:
    """The entry, or the record, in a file. Raises ValueError for a file that is not as above."""
    try:
        values = tomllib.loads(path.read_text())
        for name in ("own", "before", "pytorch"):
            if name in values:
                values[name] = Runs(**values[name])
        return kind(path.stem, **values)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} is no {kind.__name__.lower()}: {error}") from None


def write_record(record: Record, folder: Path = RECORDS) -> Path:
    """Write the file of a record; returns its path."""
    lines, tables = [], []
    for key, value in asdict(record).items():
        if isinstance(value, dict):
            tables += ["", f"[{key}]", *(f"{k} = {json.dumps(v)}" for k, v in value.items())]
        elif key != "name" and value is not None:
            lines.append(f"{key} = {json.dumps(value, ensure_ascii=False)}")  # as TOML writes it
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{record.name}.toml"
    path.write_text("\n".join([*lines, *tables]) + "\n")
    return path


# ---- the tables ----------------------------------------------------------------------------------

FIGURES = ["seconds", "of PyTorch's", "loss", "spread", "p below 1.90", "tokens seen", "seeds"]


def figures(runs: Runs, pytorch: Runs | None) -> list[str]:
    """The cells of what the runs of a recipe gave, under the names in FIGURES.

    The median of the seconds, of the time divided by that of the PyTorch script, the mean of the
    losses, their standard deviation, and the p of a mean below the target.
    """
    losses, n = runs.losses, len(runs.losses)
    return [
        f"{statistics.median(runs.seconds):.1f}",
        f"{ratio(runs, pytorch):.3f}" if pytorch else "",
        f"{statistics.mean(losses):.4f}",
        f"{statistics.stdev(losses):.4f}" if n > 1 else "",
        p_text(p_below_zero(np.subtract(losses, TARGET))),
        f"{runs.tokens:,}",
        f"{n}",
    ]


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def table(records: Sequence[Record], track: str) -> str:
    """The records of a track in Markdown: the PyTorch script, the start, and what came after."""
    rows = []
    for record in records:
        if record.track not in ("start", track):
            continue
        if not rows:
            rows.append(["", "PyTorch, nanoGPT's recipe"])
            rows[0] += [*figures(record.pytorch, record.pytorch), "", ""]
        link = f"[{record.name[:3]}](../benchmarks/speedruns/records/{record.name}.toml)"
        better = "" if record.track == "start" else p_text(record.p_before)
        cells = figures(record.own, record.pytorch)
        rows.append([link, record.what, *cells, better, f"{record.date}, {record.commit[:7]}"])
    return markdown(
        ["", "what changed", *FIGURES, "p against the one before", "date, commit"], rows
    )


def tables(records: Sequence[Record]) -> str:
    """Both tables, as docs/speedrun.md has them."""
    speed, loss = (table(records, track) for track in ("speed", "loss"))
    return f"### Seconds to 1.90\n\n{speed}\n\n### Loss in the PyTorch script's time\n\n{loss}\n"
