"""Files that appear whole or not at all: JSON, and tensors in the .safetensors format.

Every file is written under a temporary name, flushed to the disk and renamed, so a crash at any
moment leaves the file that was there before.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from tensorlite.device import place
from tokenizer.base import write_atomic

MODEL, CONFIG = "model.safetensors", "config.json"
INDEX = "model.safetensors.index.json"  # of a model in several files
# Files of checkpoints in other formats, which are not read, and what they hold.
OTHER_CHECKPOINTS = {
    INDEX: "a checkpoint in several parts (sharded)",
    "adapter_model.bin": "a pickled adapter, which could run code when it is read",
    "adapter_model.*": "an adapter (LoRA), which is only the changes to a model",
    "pytorch_model*.bin*": "a pickled checkpoint, which could run code when it is read",
    "*.pt": "a pickled checkpoint, which could run code when it is read",
    "*.pth": "a pickled checkpoint, which could run code when it is read",
    "*.gguf": "a model in llama.cpp's format (GGUF)",
    "tf_model.h5": "a checkpoint of TensorFlow's",
    "flax_model.msgpack": "a checkpoint of Flax's",
}


def write_json(path: str | Path, value) -> None:
    write_atomic(path, (json.dumps(value, indent=2) + "\n").encode())


def read_json(path: str | Path) -> dict:
    """A JSON object. Raises ValueError when the file holds anything else."""
    try:
        value = json.loads(Path(path).read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds no JSON object")
    return value


def write_tensors(path: Path, tensors: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    """Write a .safetensors file; it appears whole or not at all. Raises OSError on a full disk."""
    # The library would store a non-contiguous array's memory, not its values.
    tensors = {n: np.ascontiguousarray(place(array, "cpu")) for n, array in tensors.items()}
    temporary = path.with_name(path.name + ".tmp")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode
        save_file(tensors, temporary, metadata)
        temporary.chmod(mode)  # the library makes files that only their owner may read
        _sort_metadata(temporary)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except SafetensorError as error:
        raise OSError(f"{path} could not be written: {error}") from None
    finally:
        temporary.unlink(missing_ok=True)
    sync_directory(path.parent)


def _sort_metadata(path: Path) -> None:
    """The library writes metadata in random order; equal checkpoints should be equal files."""
    with open(path, "rb+") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        file.seek(8)
        file.write(text.ljust(size))


@contextlib.contextmanager
def open_tensors(path: Path) -> Iterator:
    """An open .safetensors file, to read tensors from.

    Raises FileNotFoundError where there is none, and ValueError for a damaged one.
    """
    if not path.exists():
        raise missing(path)
    try:
        with safe_open(path, framework="numpy") as file:
            yield file
    except (SafetensorError, TypeError) as error:  # TypeError: a dtype that NumPy lacks
        raise ValueError(f"{path} is damaged or no .safetensors file: {error}") from None


def missing(path: Path) -> FileNotFoundError | ValueError:
    """The error to raise where a checkpoint does not have the file `path`."""
    for pattern, what in OTHER_CHECKPOINTS.items():
        for other in sorted(path.parent.glob(pattern)):
            return ValueError(
                f"{other} is {what}, and there is no {path.name} beside it. {MODEL}, or {INDEX} "
                f"and the files that it names, is read together with {CONFIG}: with transformers, "
                "load the model where it was made and write it again by "
                "model.save_pretrained(FOLDER)"
            )
    return FileNotFoundError(f"{path.parent} holds no checkpoint: there is no {path.name} in it")


def sync_directory(directory: Path) -> None:
    """Make a rename outlast a power failure."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
