"""The model in a folder that holds all of it, and models of other shapes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from .. import checkpoint
from ..config import GPTConfig
from ..model import GPT
from .config import FAMILIES, LlamaConfig, config_of
from .llama import Llama
from .modern import Modern
from .modern_config import ModernConfig, modern_config_of
from .quantized import load_quantized


def load_whole(directory: str | Path) -> GPT | Llama:
    """The model in a folder with all of its weights. Raises as `gpt.load` does."""
    family = class_of(directory)
    refuse_classifier(directory)
    if few := checkpoint.read_quantization(directory):
        return load_quantized(directory, family, *few)
    return family.from_pretrained(directory)


def holds_classifier(directory: str | Path) -> bool:
    """Whether a folder says that its model, or the one that its adapter makes, is a classifier."""
    brings_head = checkpoint.is_adapter(directory) and checkpoint.count_labels(directory) > 0
    return brings_head or checkpoint.is_classifier(checkpoint.config_folder(directory))


def refuse_classifier(directory: str | Path) -> None:
    """Raise ValueError where a folder says that its model is a classifier."""
    if holds_classifier(directory):
        raise ValueError(
            f"{directory} holds a classifier of texts, not a language model: "
            "gpt.load_classifier opens it, python -m gpt.classify uses it"
        )


def class_of(directory: str | Path) -> type[GPT]:
    """The class of the model in a folder. Raises as `gpt.load` does."""
    kind = checkpoint.model_type(directory)
    classes = {"gpt2": GPT, **dict.fromkeys(FAMILIES, Llama)}
    classes |= {checkpoint.NANOCHAT: Modern, checkpoint.OURS: Modern}
    if kind not in [*classes]:  # a damaged file may say anything
        known = ", ".join(map(repr, classes))
        raise ValueError(
            f"{directory} holds a model of type {kind!r}; the types that can be loaded are {known}"
        )
    return classes[kind]


def read_config(directory: str | Path) -> GPTConfig | LlamaConfig:
    """The shape of the model in a folder. Raises as `gpt.load` does."""
    directory = checkpoint.config_folder(directory)
    kind = class_of(directory)
    if kind is GPT:
        return checkpoint.read_config(directory)
    if kind is Modern:
        return modern_config_of(directory, checkpoint.read_modern_fields(directory))
    return config_of(directory, checkpoint.read_fields(directory))


def make(config: GPTConfig | LlamaConfig, seed: int | None = 1337) -> GPT | Llama:
    """A new model of this shape; see `GPT` for the seed."""
    if isinstance(config, LlamaConfig):
        return Llama(config, seed)
    return (Modern if isinstance(config, ModernConfig) else GPT)(config, seed)


def with_config(model: GPT | Llama, **changes) -> GPT | Llama:
    """The model with another `dropout`, a shorter `block_size` or a larger `vocab_size`.

    Of the position embeddings, those in the shorter context remain. The embeddings of new ids are
    the mean of the others', as in transformers, so that none of them is likelier than the rest. The
    weights are copied, into the order in memory in which training is fastest.
    """
    config = dataclasses.replace(model.config, **changes)
    new, state = make(config, seed=None), model.state_dict()
    for name, p in new.named_parameters():
        rows = state[name]
        if len(p.data) > len(rows):
            mean = np.mean(rows, axis=0, keepdims=True)
            rows = np.concatenate([rows, np.repeat(mean, len(p.data) - len(rows), axis=0)])
        state[name] = rows[: len(p.data)]
    new.load_state_dict(state)
    new.recompute = model.recompute
    return new
