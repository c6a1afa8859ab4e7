"""What an adapter of a whole model consists of, its names in files, and reading it from one.

Layers are named by their paths in the model without the head of a classifier, such as
`h.0.attn.c_attn`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tensorlite import nn
from tensorlite.device import random

from .. import checkpoint
from ..model import GPT
from .classifier import Classifier
from .llama import Llama
from .lora import LoRA, LoraConfig
from .new_tokens import NewTokens
from .quantized import named_modules

HEAD = "score"  # of a classifier; it is new, so that an adapter holds it whole
TOKENS = ".token_adapter"  # stands behind the path of an embedding with new rows


class Adapter(nn.Module):
    """One adapter: by their paths, LoRA for layers, rows of embeddings, a classifier's head."""

    def __init__(self, config: LoraConfig, by_path: dict[str, nn.Module]):
        self.config, self.by_path = config, by_path

    def named_parts(self) -> Iterator[tuple[str, nn.Module]]:
        return iter(self.by_path.items())


def new_adapter(
    model: GPT | Classifier, config: LoraConfig, new_tokens: int = 0, seed: int | None = None
) -> Adapter:
    """An adapter that changes nothing yet; with `seed` None, its arrays hold anything.

    Raises ValueError for targets that no layer has.
    """
    by_path: dict[str, nn.Module] = {}
    for i, (path, linear) in enumerate(select(layers_of(model), config.targets).items()):
        rng = None if seed is None else random(seed, "lora", i)
        by_path[path] = LoRA(linear.weight.data, config, rng)
    for path, embedding in embeddings_of(model).items() if new_tokens else ():
        by_path[path + TOKENS] = NewTokens(embedding.weight.data, new_tokens)
    if (head := getattr(model, HEAD, None)) is not None:
        with nn.uninitialised():
            by_path[HEAD] = nn.Linear(*head.weight.shape, bias=False)
        by_path[HEAD].weight.data[...] = head.weight.data
    return Adapter(config, by_path)


# ---- the places in a model -----------------------------------------------------------------------


def body_of(model: GPT | Classifier) -> GPT:
    """A model without the head of a classifier."""
    return model.body if isinstance(model, Classifier) else model


def layers_of(model: GPT | Classifier) -> dict[str, nn.Linear]:
    """The linear layers of the blocks by their paths."""
    parts = named_modules(body_of(model))
    return {path: part for path, part in parts if isinstance(part, nn.Linear)}


def embeddings_of(model: GPT | Classifier) -> dict[str, nn.Embedding]:
    """The embedding of tokens, and the output projection where it is another matrix."""
    names = ("wte", "embed_tokens", "lm_head")
    return {name: part for name, part in body_of(model).named_parts() if name in names}


def select(layers: dict[str, nn.Linear], targets: tuple[str, ...]) -> dict[str, nn.Linear]:
    """The layers with these names, or all. Raises ValueError for a name that none has."""
    chosen = set() if targets else layers.keys()
    for target in targets:
        found = {path for path in layers if f".{path}".endswith(f".{target}")}
        if not found:
            there = ", ".join(sorted({path.rpartition(".")[2] for path in layers}))
            raise ValueError(f"no linear layer is named {target!r}; there are {there}")
        chosen |= found
    return {path: linear for path, linear in layers.items() if path in chosen}


def marks_of(model: GPT | Classifier) -> list[float]:
    """Numbers that differ after any training: the length of a row of each layer's weight."""
    return [float(np.sqrt((x.weight.data[0] ** 2).sum())) for x in layers_of(model).values()]


# ---- names in files ------------------------------------------------------------------------------


def published(adapter: Adapter, model: GPT | Classifier) -> dict[str, np.ndarray]:
    """The arrays of an adapter by their names in the base: views, matrices of LoRA (out, in)."""
    arrays = {}
    for name, p in adapter.named_parameters():
        own = name.startswith((HEAD, "lm_head"))
        arrays[name if own else prefix_of(model) + name] = p.data if TOKENS in name else p.data.T
    return arrays


def prefix_of(model: GPT | Classifier) -> str:
    """What stands before the paths of layers in published names."""
    return "model." if isinstance(body_of(model), Llama) else "transformer."


def description(adapter: Adapter, model: GPT | Classifier) -> dict:
    """What adapter_config.json says of an adapter, but for its base."""
    config, layers = adapter.config, layers_of(model)
    paths = adapter.by_path.keys() & layers.keys()
    names = {path.rpartition(".")[2] for path in paths}  # enough, if they mean no other layers
    tokens = {
        path.removesuffix(TOKENS): len(part.trainable_tokens_delta.data)
        for path, part in adapter.by_path.items()
        if path.endswith(TOKENS)
    }
    size = model.config.vocab_size
    return {
        "task_type": "SEQ_CLS" if isinstance(model, Classifier) else "CAUSAL_LM",
        "modules_to_save": [HEAD] if isinstance(model, Classifier) else None,
        "target_modules": sorted(names if select(layers, tuple(names)).keys() == paths else paths),
        "trainable_token_indices": {
            name: list(range(size - k, size)) for name, k in sorted(tokens.items())
        }
        or None,
        "fan_in_fan_out": not isinstance(body_of(model), Llama),
        "r": config.rank,
        "lora_alpha": config.alpha,
        "lora_dropout": config.dropout,
        "use_dora": config.dora,
        "use_rslora": config.rslora,
    }


# ---- reading -------------------------------------------------------------------------------------


def read_adapter_of(model: GPT | Classifier, directory: str | Path, base: str | Path) -> Adapter:
    """The adapter in a folder, which is one of `model`, from the folder `base`.

    Raises ValueError for an adapter of another model, and for what `LoraConfig` and
    `checkpoint.read_adapter` refuse; FileNotFoundError where there is none.
    """
    said, files = checkpoint.read_adapter(directory)
    names = {name.removeprefix(checkpoint.PREFIX) for name in files.names}
    prefix, layers = prefix_of(model), layers_of(model)
    targets = tuple(path for path in layers if f"{prefix}{path}.lora_A.weight" in names)
    try:
        config = LoraConfig(
            rank=said["r"],
            alpha=said["lora_alpha"],
            dropout=said["lora_dropout"],
            targets=targets,
            dora=said["use_dora"],
            rslora=said["use_rslora"],
        )
        k = count_new_tokens(model, said.get("trainable_token_indices"))
    except ValueError as error:
        raise ValueError(f"{directory}: {error}") from None
    # What is in the file is checked before memory is taken for it.
    shapes = {
        f"{prefix}{path}.{name}": shape[::-1]
        for path in targets
        for name, shape in config.shapes(*layers[path].weight.shape).items()
    }
    for path, embedding in embeddings_of(model).items() if k else ():
        name = f"{path}{TOKENS}.trainable_tokens_delta"
        shapes[name if path == "lm_head" else prefix + name] = k, embedding.weight.shape[1]
    if isinstance(model, Classifier):
        shapes[f"{HEAD}.weight"] = model.score.weight.shape[::-1]
    if not targets:
        shapes = {}
    checkpoint.check_adapter(files, shapes, marks_of(model), base)
    with nn.uninitialised():
        adapter = new_adapter(model, config, k)
    for name, array in published(adapter, model).items():
        files.read(checkpoint.PREFIX + name, array)
    return adapter


def count_new_tokens(model: GPT | Classifier, said: object) -> int:
    """How many rows of the embeddings an adapter has, by its `trainable_token_indices`.

    Raises ValueError unless they are the last ones of each embedding.
    """
    if not said:
        return 0
    size, names = model.config.vocab_size, embeddings_of(model).keys()
    rows = next(iter(said.values())) if isinstance(said, dict) else None
    k = len(rows) if isinstance(rows, list) else 0
    if not 0 < k < size or said != {name: list(range(size - k, size)) for name in names}:
        raise ValueError(
            f"trainable_token_indices {json.dumps(said)[:100]} is not supported, only the last ids "
            f"below {size} for each of {', '.join(names)}"
        )
    return k
