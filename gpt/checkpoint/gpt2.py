"""GPT-2's layout, which every other project reads: `model.safetensors` and `config.json`.

The names are those of Hugging Face's GPT2LMHeadModel. This file knows the names and the arrays and
no model: `GPT.save_pretrained` and `GPT.from_pretrained` stand on it.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from ..config import GPTConfig
from .classifier import SCORE
from .files import CONFIG, MODEL, write_tensors
from .layout import QUANTIZATION, TOKEN_IDS, Tensors, check_keys, read_settings, write_settings
from .tensors import TensorFiles

PREFIX = "transformer."
WTE, WPE, HEAD = PREFIX + "wte.weight", PREFIX + "wpe.weight", "lm_head.weight"


def write_gpt2(
    directory: str | Path,
    config: GPTConfig,
    arrays: dict | None,
    step: int = 0,
    more: dict | None = None,
) -> None:
    """Write `config.json` and `model.safetensors`, which GPT2LMHeadModel.from_pretrained reads.

    `arrays` are the parameters by their names in GPT-2, or None for config.json alone; `step` is
    the number of updates that made them, which is kept in the file. `more` is written into
    config.json as well: what a classifier says of itself, or how matrices are quantised, which only
    `gpt.load` reads.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    settings = {
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
        "tie_word_embeddings": config.tied,
        "bias": config.bias,
    }
    settings |= more or {}
    write_settings(directory, settings, config)
    if arrays is None:
        return
    tensors = dict(arrays)
    if not config.bias and QUANTIZATION not in settings:
        # GPT-2 has biases everywhere in the body: zeros mean the same as none.
        for name in [n for n in tensors if n.endswith(".weight") and n.startswith(PREFIX)]:
            if name not in (WTE, WPE):
                bias = np.zeros(tensors[name].shape[-1], np.float32)
                tensors[name.removesuffix("weight") + "bias"] = bias
    write_tensors(directory / MODEL, tensors, {"format": "pt", "step": str(step)})


def read_gpt2(directory: str | Path) -> tuple[GPTConfig, Tensors]:
    """The shape and the tensors of a model in GPT-2's layout, whoever wrote it.

    Raises FileNotFoundError when there is none, ValueError for one that is damaged, of another
    architecture or in another form (pickled, quantised).
    """
    config, path = read_config(directory), Path(directory)
    files = TensorFiles(directory)
    tensors = Tensors(files, path, _prefixed)
    masks = (".attn.bias", ".attn.masked_bias")  # buffers of older versions of transformers
    tensors.drop(*(name for name in list(tensors.theirs) if name.endswith(masks)))
    tensors.tie(config.tied, HEAD, WTE)
    if not config.bias:
        biases = [n for n in tensors.theirs if n.endswith(".bias")]
        if any(tensors.read(n).any() for n in biases):
            # We write zeros; another program has trained them since.
            config = dataclasses.replace(config, bias=True)
        else:
            tensors.drop(*biases)
    if config.n_layer > len(tensors.theirs):  # checked before so many layers are made
        raise ValueError(f"{path} does not fit its {CONFIG}: it holds no {config.n_layer} layers")
    return config, tensors


def _prefixed(name: str) -> str:
    """The name with the prefix that the files of GPT2Model lack."""
    return name if name.startswith((HEAD, SCORE, PREFIX)) else PREFIX + name


def read_config(directory: str | Path) -> GPTConfig:
    """The shape of the GPT-2 in a directory. Raises as `read_gpt2` does."""
    path, raw = Path(directory) / CONFIG, read_settings(directory, ["gpt2"])
    inner = 4 * raw["n_embd"] if isinstance(raw.get("n_embd"), int) else 0
    only = {
        "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
        "layer_norm_epsilon": (1e-5,),
        "n_inner": (None, inner),
        "scale_attn_weights": (True,),
        "scale_attn_by_inverse_layer_idx": (False,),
        "tie_word_embeddings": (True, False),
        "bias": (True, False),
    }
    sizes = ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head")
    check_keys(path, raw, sizes, only)
    # transformers takes GPT-2's end of text where nothing is said.
    absent = 50256 if isinstance(raw.get("vocab_size"), int) and raw["vocab_size"] > 50256 else None
    defaults = {"bos_token_id": absent, "eos_token_id": absent, "pad_token_id": None}
    try:
        return GPTConfig(
            vocab_size=raw["vocab_size"],
            block_size=raw["n_positions"],
            n_layer=raw["n_layer"],
            n_head=raw["n_head"],
            n_embd=raw["n_embd"],
            dropout=raw.get("resid_pdrop", 0.1),
            bias=raw.get("bias", True),
            tied=raw.get("tie_word_embeddings", True),
            generation=raw["generation"],
            **{name: raw.get(name, defaults[name]) for name in TOKEN_IDS},
        )
    except KeyError as error:
        raise ValueError(f"{path} is incomplete: {error} is missing") from None
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None
