"""The folder of a run: which run is in it, and which process may write to it."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import shutil
from pathlib import Path

import tensorlite as tl
from tokenizer.base import FILE_NAME

from .. import checkpoint
from ..data import resolve
from .card import CARD, is_ours
from .settings import NO_MODEL, RunSettings, Settings, is_model

# The folder best/ comes first: only it may fail to be deleted, and then nothing has changed.
RUN_FILES = ("best", "run.json", "config.json", "model.safetensors", "metrics.jsonl", "loss.png")
RUN_FILES += (checkpoint.ADAPTED, checkpoint.ADAPTER_CONFIG, checkpoint.ADAPTER)
# Settings that do not change what is learned.
NEUTRAL = ("out_dir", "init_from", "overwrite", "device", "dtype", "compile", "workers")
NEUTRAL += ("recompute", "eval_only")


def choose_run(given: dict, out: Path, kind: type[RunSettings] = Settings) -> bool:
    """Whether to resume the run in `out`. Raises ValueError where it would be overwritten.

    `given` are settings of the class `kind`.
    """
    settings = kind(**given)
    parts = ("run.json", "model.safetensors", checkpoint.ADAPTER, "metrics.jsonl", "best")
    exists = any(os.path.lexists(out / name) for name in parts) or any(out.glob("optimizer-[1-9]*"))
    resumable = (out / checkpoint.RUN).exists()
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out_dir {out} is a file")
    if not settings.out_dir:
        raise ValueError("--out_dir is empty: name a folder")
    for name in ("init_from", "teacher") if settings.overwrite else ():
        needed = getattr(settings, name, "")
        folder = Path(needed).resolve()
        if needed and is_model(needed) and out.resolve() in (folder, *folder.parents):
            raise ValueError(f"--overwrite would delete the model of --{name}, in {out}")
    if settings.init_from == "resume":
        if not resumable:
            raise FileNotFoundError(f"there is no run to resume in {out}: no run.json in it")
        return True
    if not exists or settings.overwrite:
        return False
    if settings.init_from == "auto" and resumable:
        saved = saved_settings(read_run(out)["settings"], kind)
        asked = dataclasses.asdict(settings)
        changed = [n for n in asked if n not in NEUTRAL and asked[n] != saved[n]]
        if "dataset" in changed and same_dataset(asked["dataset"], saved["dataset"]):
            changed.remove("dataset")
        if not changed:
            return True
        raise ValueError(
            f"{out} holds a run with other settings ({', '.join(changed)} differ): "
            "give another --out_dir, or --overwrite to delete it"
        )
    way = "--init_from resume goes on with it, " if resumable else ""  # which needs run.json
    raise ValueError(
        f"{out} holds another run: {way}--overwrite deletes it, --out_dir puts this one elsewhere"
    )


def read_run(out: Path) -> dict:
    """The run.json of the run in `out`: {"settings": ..., "data": ...}.

    Paths in the settings are made to work from the present folder. Raises ValueError for a file
    that no run wrote.
    """
    saved = checkpoint.read_json(out / checkpoint.RUN)
    if not isinstance(saved.get("settings"), dict) or "data" not in saved:
        raise ValueError(f"{out / checkpoint.RUN} does not describe a run")
    if checkpoint.is_lost(out):
        file = checkpoint.ADAPTER if saved["settings"].get("lora") else checkpoint.MODEL
        raise FileNotFoundError(
            f"the run in {out} has lost its {file}: put it back (best/ may have an "
            "earlier one, for --init_from), or begin again with --overwrite"
        )
    folder, settings = saved.get("folder"), saved["settings"]
    if isinstance(folder, str) and folder != os.getcwd():  # paths are relative to that one
        if isinstance(dataset := settings.get("dataset"), str):
            settings["dataset"] = resolve(dataset, folder)
        for name in ("init_from", "teacher"):
            if isinstance(model := settings.get(name), str) and model not in NO_MODEL:
                model = os.path.join(folder, model)
                settings[name] = model if is_model(model) else settings[name]
    return saved


def saved_settings(saved: dict, kind: type[RunSettings]) -> dict:
    """All settings of the class `kind`, as a run.json says them.

    Those that it lacks, because they are newer, have their defaults. Raises ValueError for values
    that cannot work.
    """
    names = {field.name for field in dataclasses.fields(kind)}
    return dataclasses.asdict(kind(**{n: value for n, value in saved.items() if n in names}))


def same_dataset(a: str, b: str) -> bool:
    """Whether two names mean the same dataset: the same file under two paths, for example."""
    a, b = resolve(a), resolve(b)
    return a == b or (os.path.exists(a) and os.path.exists(b) and os.path.samefile(a, b))


def resumed_settings(
    given: dict, saved: dict, out: Path, kind: type[RunSettings] = Settings
) -> RunSettings:
    """The saved settings, with the given ones on top where that is possible."""
    saved = {name: value for name, value in saved.items() if name not in kind.unsaved}
    saved = saved_settings(saved, kind)
    if saved["device"] == "cuda" and not tl.cuda.is_available():
        saved["device"] = "cpu"  # the run was begun on another machine
    for name in kind.fixed:
        if name in given and given[name] not in (None, saved[name]):
            raise ValueError(
                f"the run in {out} has --{name} {saved[name]}, which cannot be {given[name]} now: "
                f"leave --{name} out, or begin another run in another --out_dir"
            )
    if "max_iters" in given and saved["lr_decay_iters"] == saved["max_iters"]:
        saved["lr_decay_iters"] = None  # where the run ends, as before
    if given.get("epochs") is not None and given.get("max_iters") is None:
        saved["max_iters"] = None  # as many as the epochs have
    given = {name: value for name, value in given.items() if name not in kind.fixed}
    return kind(**saved | given | {"init_from": saved["init_from"], "overwrite": False})


@contextlib.contextmanager
def only_process(out: Path):
    """Make the folder, and keep other processes from training in it while the block runs.

    A folder that was made here and is still empty at the end is removed.
    """
    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    out.mkdir(parents=True, exist_ok=True)
    handle = os.open(out, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not (out.exists() and os.path.samestat(os.fstat(handle), out.stat())):
            raise BlockingIOError  # it has just been removed
        yield
    except BlockingIOError:
        made = []
        raise ValueError(f"another process is training in {out}") from None
    finally:
        with contextlib.suppress(OSError):  # not empty
            for folder in made:
                folder.rmdir()
        os.close(handle)


def prepare_folder(out: Path, overwrite: bool) -> None:
    """With `overwrite`, delete what a run has left in its folder."""
    if overwrite:
        if not os.access(out, os.W_OK):  # before anything in best/ is deleted
            raise PermissionError(f"nothing can be deleted in {out}: it is not writable for you")
        names = [*RUN_FILES, FILE_NAME, "tokenizer.json"]
        names += [checkpoint.TOKENIZER_CONFIG]
        names += (p.name for p in out.glob("optimizer-*.safetensors"))
        names += (p.name for p in out.glob("gpu-*.json"))
        names += (p.name for p in out.glob("answers-*.json"))  # of gpt/finetune/answers.py
        names += [CARD] if is_ours(out / CARD) else []
        for path in (out / name for name in names):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
