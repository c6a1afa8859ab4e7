"""GPT-2's layout, which every other project reads: `model.safetensors` and `config.json`.

The names are those of Hugging Face's GPT2LMHeadModel. This file knows the names and the arrays and
no model: `GPT.save_pretrained` and `GPT.from_pretrained` stand on it.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from ..config import GPTConfig
from .files import CONFIG, MODEL, missing, open_tensors, read_json, write_json, write_tensors

PREFIX = "transformer."
TOKEN_IDS = (
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
)  # fields of GPTConfig that config.json keeps
FLOATS = {
    "F16",
    "F32",
    "F64",
}  # the types of numbers that are read, as .safetensors files name them


def write_gpt2(directory: str | Path, config: GPTConfig, arrays: dict, step: int = 0) -> None:
    """Write `config.json` and `model.safetensors`, which GPT2LMHeadModel.from_pretrained reads.

    `arrays` are the parameters by their names in GPT-2; `step` is the number of updates that made
    them, which is kept in the file.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
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
    tensors = {PREFIX + name: array for name, array in arrays.items()}
    if not config.bias:  # GPT-2 has biases everywhere: zeros mean the same as none
        for name in [n for n in tensors if n.endswith(".weight") and ".wte." not in n]:
            if ".wpe." not in name:
                bias = np.zeros(tensors[name].shape[-1], np.float32)
                tensors[name.removesuffix("weight") + "bias"] = bias
    write_tensors(directory / MODEL, tensors, {"format": "pt", "step": str(step)})


def read_gpt2(directory: str | Path) -> tuple[GPTConfig, dict[str, np.ndarray]]:
    """The shape and the parameters of a model in GPT-2's layout, whoever wrote it.

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
        if any(
            state[n].any() for n in biases
        ):  # we write zeros; another program has trained them since
            config = dataclasses.replace(config, bias=True)
        else:
            state = {n: array for n, array in state.items() if n not in biases}
    if config.n_layer > len(state):  # checked before so many layers are made
        raise ValueError(
            f"{path} does not fit its config.json: it does not hold {config.n_layer} layers"
        )
    return config, state


def read_config(directory: str | Path) -> GPTConfig:
    """The shape of the model in a directory. Raises as `read_gpt2` does."""
    path = Path(directory) / CONFIG
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {path.parent}")
    if not path.exists():
        raise missing(path)
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
