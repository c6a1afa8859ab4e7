"""A suite: several data sets, and one number that sums up how far a model is above guessing.

A suite is a folder. Each task in it is a file of questions, and a description of the same name:

    arc.jsonl   arc.json: {"name": "ARC-Easy", "task": "multiple-choice", "source": "..."}

name, task, source   what it is called, "multiple-choice" or "exact-match", where it comes from
figure               which figure of the task counts: by default its first
chance               the share that guessing gets right; or `choices`, how many there are. By
                     default the mean over the questions, and 0 where an answer is written

The number is DCLM's CORE (Li et al., 2024): the mean over the tasks of (accuracy - chance) /
(1 - chance). It is 0 for guessing and 1 where all answers are right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..checkpoint import read_json
from ..data import read_records
from ..model import GPT
from .answers import Asking, exact_match
from .choices import multiple_choice, questions_of
from .estimate import Sample
from .loss import AT_A_TIME
from .result import Result

FIGURES = {"multiple-choice": ("acc", "acc_norm"), "exact-match": ("exact_match",)}


@dataclass(frozen=True)
class Task:
    """A task of a suite: a description, checked, and its records."""

    name: str
    task: str
    source: str
    figure: str
    chance: float | None
    records: list[dict]


def read_suite(folder: str | Path) -> list[Task]:
    """The tasks in a folder, by the names of their files.

    Raises FileNotFoundError without a folder or a task's questions, and ValueError for a wrong
    description.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"a suite is a folder, and there is none at {folder}")
    tasks = [_read_task(path) for path in sorted(folder.glob("*.json"))]
    if not tasks:
        raise ValueError(f"{folder} holds no NAME.json that describes a task")
    if len({task.name for task in tasks}) < len(tasks):
        raise ValueError(f"two tasks in {folder} have the same name")
    return tasks


def _read_task(path: Path) -> Task:
    said = read_json(path)
    kind, choices, chance = said.get("task"), said.get("choices"), said.get("chance")
    known = ("name", "task", "source", "figure", "chance", "choices")
    if wrong := said.keys() - set(known):
        raise ValueError(f"{path} has {', '.join(sorted(wrong))}: known are {', '.join(known)}")
    for name in ("name", "task", "source"):
        if not isinstance(said.get(name), str) or not said[name]:
            raise ValueError(f"{path} needs {name}, a text, and has {said.get(name)!r}")
    if kind not in FIGURES:
        raise ValueError(f"{path}: a task is {' or '.join(FIGURES)}, not {kind!r}")
    if choices is not None:
        if type(choices) is not int or choices < 2 or chance is not None:
            raise ValueError(f"{path}: choices is 2 or more, without chance, and not {choices!r}")
        chance = 1 / choices
    if chance is not None and not (type(chance) in (int, float) and 0 <= chance < 1):
        raise ValueError(f"{path}: chance is at least 0 and below 1, not {chance!r}")
    figure = said.get("figure", FIGURES[kind][0])
    if figure not in FIGURES[kind]:
        raise ValueError(f"{path}: a figure of {kind} is {' or '.join(FIGURES[kind])}: {figure!r}")
    found = [path.with_suffix(s) for s in (".jsonl", ".tsv", ".csv", ".parquet")]
    found = [data for data in found if data.is_file()]
    if len(found) != 1:
        raise FileNotFoundError(f"beside {path} there is one file {path.stem}.jsonl: {len(found)}")
    return Task(said["name"], kind, said["source"], figure, chance, read_records(found[0]))


def run_suite(
    model: GPT,
    tokenizer,
    tasks: Sequence[Task],
    asking: Asking | None = None,
    at_a_time: int = AT_A_TIME,
) -> Result:
    """The figure "core", and that of each task under its name. `asking` is for exact-match."""
    core, result = [], Result({"core": []})
    for task in tasks:
        if task.task == "multiple-choice":
            _, questions = questions_of(task.records)
            own = multiple_choice(model, tokenizer, questions, at_a_time)
        else:
            own = exact_match(model, tokenizer, task.records, asking or Asking())
        chance = own.settings.get("chance", 0.0) if task.chance is None else task.chance
        samples = own.figures[task.figure]
        core += [Sample((sample.values - chance) / (1 - chance)) for sample in samples]
        result.figures[task.name] = samples
        result.settings[task.name] = f"{task.figure}, chance {chance:.3f}"
        result.items += [{"task": task.name, **item} for item in own.items]
        result.left_out += own.left_out
        result.notes += [f"{task.name}: {note}" for note in own.notes]
    result.figures["core"] = core
    return result
