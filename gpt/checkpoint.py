"""What is saved of a model and of a run, so that nothing is lost and everybody can read it.

A checkpoint is a directory in Hugging Face's GPT-2 layout: `model.safetensors` and `config.json`,
the tokenizer's file beside them. A run keeps two more: `run.json`, its settings, and the
optimizer's state under the number of its step.

A directory cannot be replaced in one go. So every file is written under a temporary name, flushed
to the disk and renamed; the optimizer's state first, and the rename of `model.safetensors`, which
holds the number of the step, is what commits. A crash at any moment leaves the checkpoint before.
Before the first one there is an empty file for step 0, so that a run that has lost its model is not
mistaken for one that has saved nothing yet.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from tensorlite.device import place
from tokenizer.base import write_atomic

from .config import GPTConfig
from .model import GPT

MODEL, CONFIG, RUN = "model.safetensors", "config.json", "run.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
PREFIX = "transformer."
UPDATES = "updates"  # in an optimizer's state: how many steps changed each parameter
TOKEN_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")  # of GPTConfig, kept in config.json
FLOATS = {"F16", "F32", "F64"}  # the numbers that are read, by their names in .safetensors files
# Files of checkpoints that are not read here, and what they hold.
OTHER_CHECKPOINTS = {
    "model.safetensors.index.json": "a checkpoint in several parts (sharded)",
    "adapter_model.*": "an adapter (LoRA), which is only the changes to a model",
    "pytorch_model*.bin*": "a pickled checkpoint, which could run code when it is read",
    "*.pt": "a pickled checkpoint, which could run code when it is read",
    "*.pth": "a pickled checkpoint, which could run code when it is read",
    "*.gguf": "a model in llama.cpp's format (GGUF)",
    "tf_model.h5": "a checkpoint of TensorFlow's",
    "flax_model.msgpack": "a checkpoint of Flax's",
}

# =================================================================================================
# Models
# =================================================================================================


def save_model(directory: str | Path, model: GPT, step: int = 0) -> None:
    """Write `config.json` and `model.safetensors`, which GPT2LMHeadModel.from_pretrained reads."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    config = model.config
    write_json(
        directory / CONFIG,
        {
            "model_type": "gpt2",
            "architectures": ["GPT2LMHeadModel"],
            "vocab_size": config.vocab_size,
            "n_positions": config.block_size,
            "n_embd": config.n_embd,
            "n_layer": config.n_layer,
            "n_head": config.n_head,
            "activation_function": "gelu_new",
            "layer_norm_epsilon": 1e-5,
            "embd_pdrop": config.dropout,
            "attn_pdrop": config.dropout,
            "resid_pdrop": config.dropout,
            "tie_word_embeddings": True,
            **{name: getattr(config, name) for name in TOKEN_IDS},
            "bias": config.bias,
        },
    )
    tensors = {PREFIX + name: p.data for name, p in model.named_parameters()}
    if not config.bias:  # GPT-2 has biases everywhere: zeros say the same
        for name in [n for n in tensors if n.endswith(".weight") and ".wte." not in n]:
            if ".wpe." not in name:
                bias = np.zeros(tensors[name].shape[-1], np.float32)
                tensors[name.removesuffix("weight") + "bias"] = bias
    write_tensors(directory / MODEL, tensors, {"format": "pt", "step": str(step)})


def load_model(directory: str | Path) -> GPT:
    """The model in a directory of Hugging Face's GPT-2 layout, ours or anyone's.

    Raises FileNotFoundError when there is none, ValueError for one that is damaged, of another
    architecture or in another form (bfloat16 numbers, several files, pickled), or whose output
    layer is a matrix of its own: here it is the token embedding.
    """
    directory = Path(directory)
    path, config = directory / MODEL, read_config(directory)
    with open_tensors(path) as file:
        names = [n for n in file.keys() if not n.endswith((".attn.bias", ".attn.masked_bias"))]
        others = {file.get_slice(name).get_dtype() for name in names} - FLOATS
        if others:
            raise ValueError(
                f"{path} holds numbers of type {', '.join(sorted(others))}; float16, float32 and "
                "float64 are read. transformers' model.float().save_pretrained(FOLDER) converts "
                "the bfloat16 ones (BF16)"
            )
        state = {name.removeprefix(PREFIX): file.get_tensor(name) for name in names}
    if len(state) < len(names):
        raise ValueError(f"{path} holds some tensors twice, with and without {PREFIX!r}")
    tied = read_json(directory / CONFIG).get("tie_word_embeddings", True)
    head = state.pop("lm_head.weight", None)
    if tied and head is not None:  # of two names for one matrix, a file may hold either
        state.setdefault("wte.weight", head)
    if head is not None and not np.array_equal(head, state.get("wte.weight", head)):
        raise ValueError(
            f"{path}: lm_head.weight is another matrix than {PREFIX}wte.weight. A model with an "
            "output layer of its own (tie_word_embeddings false) cannot be loaded: here the token "
            "embedding is the output layer"
        )
    if head is None and not tied:
        raise ValueError(
            f"{path} holds no lm_head.weight, though tie_word_embeddings in {CONFIG} is false"
        )
    if not config.bias:
        biases = [n for n in state if n.endswith(".bias")]
        if any(state[n].any() for n in biases):  # zeros when we wrote them: trained on elsewhere
            config = dataclasses.replace(config, bias=True)
        else:
            state = {n: array for n, array in state.items() if n not in biases}
    try:
        if config.n_layer > len(state):  # before so many are made
            raise ValueError(f"it does not hold {config.n_layer} layers")
        model = GPT(config)
        model.load_state_dict(state)
    except ValueError as error:
        raise ValueError(f"{path} does not fit its config.json: {error}") from None
    return model


def save_tokenizer(directory: str | Path, tokenizer) -> None:
    """Write a tokenizer's file, and beside it what transformers' AutoTokenizer reads.

    AutoTokenizer would otherwise make an empty tokenizer of the model's type, without a word. It is
    made to raise an error where there is no tokenizer (None, for a model of token files) and where
    the format cannot say what the tokenizer does.
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
        # A class of tokenizers that needs a tokenizer.json.
        write_json(directory / TOKENIZER_CONFIG, {"tokenizer_class": "PreTrainedTokenizerFast"})


def load_step(directory: str | Path) -> int | None:
    """The step at which a run's checkpoint was saved; None when nothing has been saved yet."""
    path = Path(directory) / MODEL
    if not path.exists():
        return None
    with open_tensors(path) as file:
        step = (file.metadata() or {}).get("step", "")
    if not step.isdigit():
        raise ValueError(f"{path} is no checkpoint of a run: it names no step")
    return int(step)


def read_config(directory: str | Path) -> GPTConfig:
    """The shape of the model in a directory. Raises as `load_model` does."""
    path = Path(directory) / CONFIG
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {path.parent}")
    if not path.exists():
        raise _missing(path)
    raw = read_json(path)
    kind = raw.get("model_type")
    if kind != "gpt2":
        raise ValueError(f"{path} describes a model of type {kind!r}; only 'gpt2' can be loaded")
    expected = {
        "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
        "layer_norm_epsilon": (1e-5,),
        "n_inner": (None, 4 * raw.get("n_embd", 0) if isinstance(raw.get("n_embd"), int) else 0),
        "scale_attn_weights": (True,),
        "scale_attn_by_inverse_layer_idx": (False,),
    }
    for key, values in expected.items():
        if raw.get(key, values[0]) not in values:
            raise ValueError(f"{path}: {key} {raw[key]!r} is not supported, only {values[0]!r}")
    beside = path.with_name("generation_config.json")  # which counts first for transformers
    if beside.exists():
        raw |= {n: i for n, i in read_json(beside).items() if n in TOKEN_IDS and i is not None}
    # transformers takes GPT-2's end of text where nothing is said.
    absent = 50256 if isinstance(raw.get("vocab_size"), int) and raw["vocab_size"] > 50256 else None
    defaults = {"bos_token_id": absent, "eos_token_id": absent, "pad_token_id": None}
    ids = {name: raw.get(name, default) for name, default in defaults.items()}
    try:
        return GPTConfig(
            vocab_size=raw["vocab_size"],
            block_size=raw["n_positions"],
            n_layer=raw["n_layer"],
            n_head=raw["n_head"],
            n_embd=raw["n_embd"],
            dropout=float(raw.get("resid_pdrop", 0.0)),
            bias=bool(raw.get("bias", True)),
            **{n: tuple(i) if isinstance(i, list) else i for n, i in ids.items()},
        )
    except KeyError as error:
        raise ValueError(f"{path} is incomplete: {error} is missing") from None
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None


# =================================================================================================
# Runs: a model, its optimizer and the settings
# =================================================================================================


def begin_run(directory: str | Path) -> None:
    """Say that nothing has been saved yet, by an empty file that the first `save_run` removes."""
    _optimizer_path(Path(directory), 0).touch()
    sync_directory(Path(directory))


def is_lost(directory: str | Path) -> bool:
    """Whether a run has saved a model, and this is not there any more."""
    # In this order: another process may be in its first save_run.
    return not (_optimizer_path(Path(directory), 0).exists() or (Path(directory) / MODEL).exists())


def save_run(directory: str | Path, model: GPT, optimizer, step: int) -> None:
    """Save the state after `step` updates; what was saved before stays whole until this is."""
    directory = Path(directory)
    state = optimizer.state_dict()
    tensors = {
        f"{slot}.{name}": np.asarray(array) if slot == UPDATES else array
        for slot in (UPDATES, *optimizer.slots)
        for name, array in zip(_names(model, optimizer), state[slot])
    }
    path = _optimizer_path(directory, step)
    write_tensors(path, tensors, {"step": str(step)})
    save_model(directory, model, step)
    for old in directory.glob("optimizer-*.safetensors"):
        if old != path:
            old.unlink()


def load_optimizer(directory: str | Path, model: GPT, optimizer, step: int) -> None:
    """Load the optimizer's state of that step. Raises as `load_model` does."""
    path = _optimizer_path(Path(directory), step)
    names = _names(model, optimizer)
    with open_tensors(path) as file:
        # Earlier versions did not count the updates of each parameter: then it is all the steps.
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


def _names(model: GPT, optimizer) -> list[str]:
    """The names of the optimizer's parameters, in its order."""
    names = {id(p): name for name, p in model.named_parameters()}
    return [names[id(p)] for p in optimizer.params]


# =================================================================================================
# Files
# =================================================================================================


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
        temporary.chmod(mode)  # the library makes files that their owner alone may read
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
    """A .safetensors file, to get tensors from. Raises FileNotFoundError or ValueError."""
    if not path.exists():
        raise _missing(path)
    try:
        with safe_open(path, framework="numpy") as file:
            yield file
    except (SafetensorError, TypeError) as error:  # TypeError: a dtype that NumPy lacks
        raise ValueError(f"{path} is damaged or no .safetensors file: {error}") from None


def _missing(path: Path) -> FileNotFoundError | ValueError:
    """What to raise where the checkpoint's file `path` is not there."""
    for pattern, what in OTHER_CHECKPOINTS.items():
        for other in sorted(path.parent.glob(pattern)):
            return ValueError(
                f"{other} is {what}. Only {MODEL} beside {CONFIG} is read: with transformers, "
                "load the model where it was made and write it again by "
                "model.float().save_pretrained(FOLDER, max_shard_size='100GB')"
            )
    return FileNotFoundError(f"{path.parent} holds no checkpoint: there is no {path.name} in it")


def sync_directory(directory: Path) -> None:
    """Make a rename outlast a power failure."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
