"""The files of an adapter, which are PEFT's: `adapter_config.json`, `adapter_model.safetensors`.

An adapter holds a small change to a model (LoRA) and names the folder of that model, its base. The
arrays are (out, in) for every family, and their names are those of the layers in the base, between
"base_model.model." and ".lora_A.weight" or the like. Nothing in these files is trusted.

The config.json of the model with its adapter is in the folder `adapted` beside them: one next to
adapter_config.json would tell transformers that the folder holds a whole model.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .classifier import SCORE
from .files import CONFIG, INDEX, MODEL, read_json, write_json, write_tensors
from .hub import local_folder
from .layout import check_keys
from .tensors import FLOATS, TensorFiles, some

ADAPTER, ADAPTER_CONFIG = "adapter_model.safetensors", "adapter_config.json"
ADAPTED = "adapted"
MARKS = "base"  # in the metadata of the tensors
PREFIX = "base_model.model."
NEW_ROWS = ".token_adapter.trainable_tokens_delta"  # ends the names of rows of embeddings
BASE = "base_model_name_or_path"
# The keys that are read, and those that do not change what an adapter computes once it is trained.
READ = ["r", "lora_alpha", "lora_dropout", "use_dora", "use_rslora", BASE, "revision"]
READ += ["trainable_token_indices"]
HARMLESS = """
    target_modules modules_to_save exclude_modules layers_to_transform layers_pattern
    fan_in_fan_out inference_mode peft_version megatron_core qalora_group_size ensure_weight_tying
    runtime_config eva_config
    """.split()
ONLY = {
    "peft_type": ("LORA",),
    "task_type": ("CAUSAL_LM", "SEQ_CLS", None),
    "bias": ("none",),
    "lora_bias": (False,),
    # Others (PiSSA, OLoRA, LoftQ, ...) have changed the weights of the base too.
    "init_lora_weights": (True, False, "gaussian", "orthogonal", "eva"),
}
HUB_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII)


def is_adapter(directory: str | Path) -> bool:
    """Whether a folder holds an adapter rather than a whole model."""
    folder = Path(directory)
    whole = (folder / MODEL).exists() or (folder / INDEX).exists()
    return (folder / ADAPTER_CONFIG).exists() and not whole


def write_adapter(
    directory: str | Path, settings: dict, arrays: dict, step: int, marks: Sequence[float]
) -> None:
    """Write both files, of what `read_adapter` gives and of arrays by their names in the base.

    `marks` are numbers by which the base is known again; their order counts.
    The rename of `adapter_model.safetensors`, whose metadata holds `step`, is what commits.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    fixed = {"peft_type": "LORA", "bias": "none", "inference_mode": True, "init_lora_weights": True}
    write_json(directory / ADAPTER_CONFIG, dict(sorted((fixed | settings).items())))
    tensors = {PREFIX + name: array for name, array in arrays.items()}
    known_by = json.dumps([float(f"{mark:.6g}") for mark in marks])
    said = {"format": "pt", "step": str(step), MARKS: known_by}
    write_tensors(directory / ADAPTER, tensors, said)


def read_adapter(directory: str | Path) -> tuple[dict, TensorFiles]:
    """What an adapter_config.json says, and the tensors beside it.

    Raises FileNotFoundError where one of them is missing; ValueError for another kind of adapter,
    for a setting that is not supported, by its name, and for a damaged file.
    """
    path = Path(directory) / ADAPTER_CONFIG
    if not path.exists():
        raise FileNotFoundError(f"{directory} holds no adapter: there is no {ADAPTER_CONFIG} in it")
    settings = read_json(path)
    check_keys(path, settings, {*READ, *HARMLESS}, ONLY)
    for key in ("use_dora", "use_rslora"):
        if settings.setdefault(key, False) not in (False, True):
            raise ValueError(f"{path}: {key} is true or false, not {settings[key]!r}")
    if settings.get("lora_alpha", 8) is None:
        raise ValueError(f"{path}: lora_alpha is a number, not None")
    settings = {"r": 8, "lora_alpha": 8, "lora_dropout": 0.0, "task_type": None} | settings
    return settings, TensorFiles(directory, ADAPTER)


def count_labels(directory: str | Path) -> int:
    """How many labels the head has that an adapter of a classifier brings; 0 for other adapters.

    Raises as `read_adapter` does.
    """
    return _count_rows(directory, "." + SCORE)


def count_tokens(directory: str | Path) -> int:
    """How many rows of embeddings an adapter brings. Raises as `read_adapter` does."""
    return _count_rows(directory, NEW_ROWS)


def _count_rows(directory: str | Path, ending: str) -> int:
    _, files = read_adapter(directory)
    shapes = [files.shape(name) for name in files.names if name.endswith(ending)]
    return max((shape[0] for shape in shapes if len(shape) == 2 and shape[1]), default=0)


def check_adapter(
    files: TensorFiles, shapes: dict[str, tuple], marks: Sequence[float], base: str | Path
) -> None:
    """Raise ValueError unless the tensors are those of an adapter with these names and shapes.

    The names are those in the base, which is in the folder `base`, and has these `marks`: an
    adapter that we wrote knows those of its own base.
    """
    names = {name.removeprefix(PREFIX): name for name in files.names}
    faults = [] if shapes else ["it changes no layer of it"]
    if lost := shapes.keys() - names.keys():
        faults.append(f"it lacks {some(lost)}")
    if more := names.keys() - shapes.keys():
        faults.append(f"the model has nothing for {some(more)}")
    for name in sorted(shapes.keys() & names.keys()):
        if (shape := files.shape(names[name])) != shapes[name]:
            faults.append(f"{name} is {shape}, not {shapes[name]}")
        elif files.dtype(names[name]) not in FLOATS:
            faults.append(f"{name} holds numbers of type {files.dtype(names[name])}")
    if faults:
        raise ValueError(
            f"the adapter in {files.directory} does not fit the model in {base}: "
            f"{'; '.join(faults[:5])}"
        )
    try:
        known = json.loads(files.metadata.get(MARKS, "null"))
        changed = known is not None and not np.allclose(known, marks, rtol=1e-3)
    except (ValueError, TypeError, RecursionError):  # other types, or another number of them
        changed = True
    if changed:
        raise ValueError(
            f"the model in {base} has other weights than the one that the adapter in "
            f"{files.directory} was trained on: it may have been trained since, or replaced"
        )


def base_folder(directory: str | Path) -> Path:
    """The folder of the model that an adapter changes; one of the Hub is fetched.

    Raises FileNotFoundError where it is not there, ValueError where it is the adapter itself.
    """
    base = path = _named_base(Path(directory))
    seen = {Path(directory).resolve()}
    while is_adapter(path):  # its base is changed by an adapter too
        if path.resolve() in seen:
            raise ValueError(f"{directory} names itself as the model that it changes, by {BASE}")
        seen.add(path.resolve())
        path = _named_base(path)
    return base


def config_folder(directory: str | Path) -> Path:
    """The folder of the config.json that describes an adapter's model: its own, or the base's."""
    path = Path(directory)
    while is_adapter(path):
        path = path / ADAPTED if (path / ADAPTED / CONFIG).exists() else base_folder(path)
    return path


def _named_base(directory: Path) -> Path:
    path = directory / ADAPTER_CONFIG
    settings = read_json(path)
    name, revision = settings.get(BASE), settings.get("revision")
    if not isinstance(name, str) or not name:
        raise ValueError(f"{path} names no model in {BASE}: write the folder of its base there")
    for folder in (Path(name), directory / name):
        if os.path.isdir(folder):
            return folder
    if not HUB_NAME.fullmatch(name):
        raise FileNotFoundError(
            f"the adapter in {directory} changes the model in {name}, and there is no such folder: "
            f"write where it is now into {path}, as {BASE}"
        )
    at = f"@{revision}" if isinstance(revision, str) and revision else ""
    return local_folder(f"hf:{name}{at}")
