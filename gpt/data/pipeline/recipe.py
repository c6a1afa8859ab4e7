"""A pipeline as a TOML file: the steps in their order, each with its settings.

    out = "corpus"                  # a folder below it for each step
    inputs = ["pages", "dump.xml.bz2"]

    [extract]
    languages = "en"

    [clean]
    [filter]
    [dedup]
    paragraphs = 100

    [split]
    [tokenize]
    tokenizer = "gpt2"

The tables are done in the order in which they stand. Paths are relative to the file's folder.
"""

from __future__ import annotations

import dataclasses
import importlib
import tomllib
from collections.abc import Mapping
from pathlib import Path

from tensorlite.parallel import ALONE, Team

from .steps import Step, run

STEPS = {
    "extract": "documents from pages, archives, dumps, books, tables, source trees and text files",
    "clean": "mend encodings, mask personal data and secrets, cut boilerplate lines",
    "filter": "leave out documents that published rules of quality refuse",
    "dedup": "leave out copies, near copies, and paragraphs that were there before",
    "split": "hold some documents out for validation, together with those nearly equal",
    "tokenize": "token files that train.py reads, with an index of the documents",
}
PATHS = {"tokenizer", "blocked_words", "blocked_domains"}  # settings that may name a file
KINDS = {"int": int, "float": (int, float), "bool": bool, "str": str}


def step_class(name: str) -> type[Step]:
    """The class of a step, by its name. Raises ValueError for another name."""
    if name not in STEPS:
        raise ValueError(f"there is no step {name!r}; the steps are {', '.join(STEPS)}")
    module = importlib.import_module(f".{name}", __package__)
    return getattr(module, name.capitalize())


def make_step(name: str, given: Mapping) -> Step:
    """The step with these settings; the others have their defaults.

    Raises ValueError for a setting that it does not have, or whose value is of another type.
    """
    kind = step_class(name)
    fields = {field.name: field for field in dataclasses.fields(kind.Settings)}
    for key, value in given.items():
        if key not in fields:
            raise ValueError(f"{name} has no setting {key!r}; it has {', '.join(fields)}")
        wanted = fields[key].type.removesuffix(" | None")
        right = isinstance(value, KINDS[wanted])
        if not right or (isinstance(value, bool) and wanted != "bool"):
            raise ValueError(f"the setting {key} of {name} is {value!r}; it must be of {wanted}")
    return kind(kind.Settings(**given))


def read_recipe(path: str | Path) -> tuple[list[str], Path, list[Step]]:
    """The inputs, the folder and the steps of a TOML file.

    Raises FileNotFoundError without the file, ValueError for one that says something else.
    """
    path = Path(path)
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no file {path} with the steps of a pipeline") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not TOML: {error}") from None
    inputs, out = content.pop("inputs", None), content.pop("out", None)
    if not isinstance(out, str) or not out:
        raise ValueError(f'{path} must name the folder of its results: out = "corpus"')
    if not isinstance(inputs, list) or not inputs or not all(isinstance(i, str) for i in inputs):
        raise ValueError(f'{path} must name what is read: inputs = ["pages", "dump.xml.bz2"]')
    for name, table in content.items():
        if not isinstance(table, dict):
            raise ValueError(f"{path} says {name} = {table!r:.50}, and has inputs, out and tables")
    if not content:
        raise ValueError(f"{path} names no step: its tables are [{'], ['.join(STEPS)}]")
    folder = path.parent
    try:
        steps = [make_step(name, located(table, folder)) for name, table in content.items()]
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return [str(folder / Path(i).expanduser()) for i in inputs], folder / out, steps


def located(table: dict, folder: Path) -> dict:
    """The settings of a table, those that are names of files relative to `folder`."""
    given = {key: table[key] for key in PATHS & table.keys() if isinstance(table[key], str)}
    paths = {key: folder / Path(name).expanduser() for key, name in given.items() if name}
    return table | {key: str(path) for key, path in paths.items() if path.exists()}


def run_recipe(path: str | Path, team: Team = ALONE, part=(0, 1)) -> list[Path]:
    """Do the steps of a TOML file; returns the folder of each that is complete.

    A step that is complete already is not done again. With `part`, it ends at the first step that
    other parts have not done yet. Raises as `read_recipe` and `steps.run`.
    """
    inputs, out, steps = read_recipe(path)
    done: list[Path] = []
    for step in steps:
        folder = out / step.name
        if run(step, inputs, folder, team, part) is None:
            break
        done.append(folder)
        inputs = [str(folder)]
    return done
