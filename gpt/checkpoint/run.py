"""The state of a run, saved so that a crash at any moment loses nothing that was saved before.

A run's folder is that of a model, with the tokenizer's files in it, and two files more: `run.json`,
its settings, and the optimizer's state under the number of its step.

A folder cannot be replaced in one go. So the optimizer's state is written first, and the rename of
`model.safetensors` (or an adapter's file), which holds the number of the step, is what commits:
until then the earlier checkpoint is whole. Before the first checkpoint there is an empty file for
step 0, so that a run that has lost its model is not mistaken for one that has saved nothing yet.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .adapter import ADAPTER
from .files import MODEL, open_tensors, read_json, sync_directory, write_json, write_tensors

RUN = "run.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
UPDATES = "updates"  # in an optimizer's state: how many steps changed each parameter


def save_tokenizer(directory: str | Path, tokenizer) -> None:
    """Write a tokenizer's file, and beside it what transformers' AutoTokenizer reads.

    Without these files AutoTokenizer would silently make an empty tokenizer of the model's type.
    Where there is no tokenizer (None, for a model of token files), and where the format cannot
    express what the tokenizer does, the files make it raise an error instead.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    if tokenizer:
        tokenizer.save(directory)
        try:
            tokenizer.export(directory, "huggingface")
            return
        except ValueError:  # a pattern that only Python knows
            pass
    if tokenizer or not (directory / TOKENIZER_CONFIG).exists():
        # This class needs a tokenizer.json, which is not there.
        write_json(directory / TOKENIZER_CONFIG, {"tokenizer_class": "PreTrainedTokenizerFast"})


def weights_of(directory: str | Path) -> Path | None:
    """The file that commits a run's checkpoint, of a whole model or an adapter; None before."""
    paths = (Path(directory) / name for name in (MODEL, ADAPTER))
    return next((path for path in paths if path.exists()), None)


def load_step(directory: str | Path) -> int | None:
    """The step at which a run's checkpoint was saved; None when nothing has been saved yet."""
    path = weights_of(directory)
    if path is None:
        return None
    with open_tensors(path) as file:
        step = (file.metadata() or {}).get("step", "")
    if not step.isdigit():
        raise ValueError(f"{path} is no checkpoint of a run: it names no step")
    return int(step)


def begin_run(directory: str | Path) -> None:
    """Note that nothing has been saved yet: an empty file, which the first `save_run` removes."""
    _optimizer_path(Path(directory), 0).touch()
    sync_directory(Path(directory))


def is_lost(directory: str | Path) -> bool:
    """Whether a run has saved a model that is not there any more."""
    # Look in this order: another process may be in the middle of its first save_run.
    return not (_optimizer_path(Path(directory), 0).exists() or weights_of(directory))


def save_run(
    directory: str | Path, model, optimizer, step: int, gpu_state: dict | None = None
) -> None:
    """Save the state after `step` updates; the earlier checkpoint stays whole until this one is."""
    directory = Path(directory)
    state = optimizer.state_dict()
    tensors = {
        f"{slot}.{name}": np.asarray(array) if slot == UPDATES else array
        for slot in (UPDATES, *optimizer.slots)
        for name, array in zip(_names(model, optimizer), state[slot])
    }
    path, gpu_path = _optimizer_path(directory, step), _gpu_path(directory, step)
    if gpu_state is not None:
        write_json(gpu_path, gpu_state)
    write_tensors(path, tensors, {"step": str(step)})
    model.save_pretrained(directory, step)
    for old in (*directory.glob("optimizer-*.safetensors"), *directory.glob("gpu-*.json")):
        if old != path and (old != gpu_path or gpu_state is None):
            old.unlink()


def load_gpu_state(directory: str | Path, step: int) -> dict | None:
    """What `save_run` was given at that step; None where that was nothing."""
    path = _gpu_path(Path(directory), step)
    return read_json(path) if path.exists() else None


def load_optimizer(directory: str | Path, model, optimizer, step: int) -> None:
    """Load the optimizer's state of that step. Raises as `read_gpt2` does."""
    path = _optimizer_path(Path(directory), step)
    names = _names(model, optimizer)
    with open_tensors(path) as file:
        # Earlier versions did not count the updates of each parameter: every step was one.
        counted = [UPDATES] if f"{UPDATES}.{names[0]}" in file.keys() else []
        slots = [*counted, *optimizer.slots]
        if set(file.keys()) != {f"{slot}.{name}" for slot in slots for name in names}:
            raise ValueError(f"{path} is not the state of this model's optimizer")
        state = {s: [file.get_tensor(f"{s}.{n}") for n in names] for s in slots}
    if counted:
        state[UPDATES] = [count.item() for count in state[UPDATES]]
    optimizer.load_state_dict({"steps": step, **state})


def _optimizer_path(directory: Path, step: int) -> Path:
    return directory / f"optimizer-{step}.safetensors"


def _gpu_path(directory: Path, step: int) -> Path:
    return directory / f"gpu-{step}.json"


def _names(model, optimizer) -> list[str]:
    """The names of the optimizer's parameters, in its order."""
    names = {id(p): name for name, p in model.named_parameters()}
    return [names[id(p)] for p in optimizer.params]
