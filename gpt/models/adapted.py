"""A model with adapters: all of it stays as it is but for small changes, which are what is trained.

    model = Adapted(gpt.load("out"), "out")
    model.add_adapter("mine", LoraConfig(rank=8))     its parameters are the model's parameters now
    ...
    model.save_pretrained("adapter")                  in PEFT's format: some megabytes
    gpt.load("adapter")                               the base with the change put into its weights

Several adapters of one model may be in memory; one of them, or none, is active.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tensorlite import nn
from tensorlite.device import random

from .. import checkpoint
from ..model import GPT
from .classifier import Classifier
from .folders import load_whole, read_config, with_config
from .llama import Llama
from .lora import LoRA, LoraConfig, LoRALinear, RandomBlock
from .quantized import Quantized, named_modules

HEAD = "score"  # of a classifier; it is new, so that an adapter holds it whole


class Adapter(nn.Module):
    """One adapter: its LoRA for each of several layers, by their paths, and a classifier's head."""

    def __init__(self, config: LoraConfig, by_path: dict[str, nn.Module]):
        self.config, self.by_path = config, by_path

    def named_parts(self) -> Iterator[tuple[str, nn.Module]]:
        return iter(self.by_path.items())


class Adapted(nn.Module):
    """A GPT, a Llama or a Classifier, frozen, with adapters for its linear layers.

    `base` is the folder that the model comes from. The parameters of this module are those of the
    active adapter. All else is the model's: `config`, `hidden`, `loss`, ... Raises ValueError for a
    quantised model, which passes no gradient on.
    """

    def __init__(self, model: GPT | Classifier, base: str | Path):
        if isinstance(body_of(model), Quantized):
            raise ValueError(
                "quantised weights pass no gradient on: adapters are for the model that they were "
                "made from"
            )
        self.model, self.base = model, Path(base)
        self.adapters: dict[str, Adapter] = {}
        self.active: str | None = None
        self.unmerged: dict[str, np.ndarray] = {}  # weights that a merged adapter has changed
        self.own_head = getattr(model, HEAD, None)
        for p in model.parameters():
            p.requires_grad = False
        body = body_of(model)
        for part in [body, *(part for _, part in named_modules(body))]:
            for name, own in list(part.named_parts()):
                if isinstance(own, nn.Linear):
                    setattr(part, name, LoRALinear(own))
                if isinstance(own, nn.ModuleList):
                    own.modules = [RandomBlock(block) for block in own]
        self.layers = layers_of(model)

    def __getattr__(self, name: str):
        if name.startswith("__") or "model" not in vars(self):
            raise AttributeError(name)
        return getattr(self.model, name)

    def forward(self, *args, **kwargs):
        return self.model(*args, **kwargs)

    # ---- adapters --------------------------------------------------------------------------------

    def add_adapter(self, name: str, config: LoraConfig, seed: int = 1337) -> None:
        """Make a new adapter, which changes nothing yet, and make it the active one.

        Raises ValueError for a name that there is, and for targets that no layer has.
        """
        by_path: dict[str, nn.Module] = {}
        for i, (path, linear) in enumerate(select(self.layers, config.targets).items()):
            by_path[path] = LoRA(linear.weight.data, config, random(seed, "lora", i))
        if self.own_head is not None:
            with nn.uninitialised():
                by_path[HEAD] = nn.Linear(*self.own_head.weight.shape, bias=False)
            by_path[HEAD].weight.data[...] = self.own_head.weight.data
        self._take(name, Adapter(config, by_path))

    def load_adapter(self, name: str, directory: str | Path) -> None:
        """Read an adapter of this model from a folder, and make it the active one.

        Raises as `read_adapter_of` does.
        """
        self._take(name, read_adapter_of(self.model, directory, self.base))

    def _take(self, name: str, adapter: Adapter) -> None:
        if name in self.adapters:
            raise ValueError(f"there is an adapter {name!r} already")
        self.adapters[name] = adapter
        self.set_adapter(name)

    def set_adapter(self, name: str | None) -> None:
        """Make this adapter the active one; with None, the model is the base."""
        if name is not None and name not in self.adapters:
            raise ValueError(f"there is no adapter {name!r}; there are {', '.join(self.adapters)}")
        self.unmerge()
        self.active = name
        chosen = {} if name is None else self.adapters[name].by_path
        for path, linear in self.layers.items():
            linear.lora = chosen.get(path)
            linear.dropout.p = self.adapters[name].config.dropout if name else 0.0
        if self.own_head is not None:
            self.model.score = chosen.get(HEAD, self.own_head)

    def merge(self) -> None:
        """Put the active adapter's changes into the weights: the same result, sooner."""
        for path, linear in self.layers.items():
            if linear.lora is not None:
                self.unmerged[path] = linear.weight.data
                linear.weight.data = linear.lora.merged(linear.weight.data)
                linear.lora = None

    def unmerge(self) -> None:
        """Put back the weights that the base had, bit for bit."""
        for path, weight in self.unmerged.items():
            self.layers[path].weight.data = weight
            self.layers[path].lora = self.adapters[self.active].by_path[path]
        self.unmerged = {}

    # ---- as a module -----------------------------------------------------------------------------

    def named_parts(self) -> Iterator[tuple[str, nn.Module]]:
        return iter(()) if self.active is None else self.adapters[self.active].named_parts()

    def to(self, device: str) -> Adapted:
        self.unmerge()
        for part in (self.model, *self.adapters.values()):
            part.to(device)
        return self

    def train(self, mode: bool = True) -> Adapted:
        self.model.train(mode)
        return super().train(mode)

    # ---- files -----------------------------------------------------------------------------------

    def save_pretrained(self, directory: str | Path, step: int = 0) -> None:
        """Write the active adapter in PEFT's format, and the model's config.json beside it."""
        adapter = self.adapters[self.active]
        config, paths = adapter.config, adapter.by_path.keys() - {HEAD}
        self.model.save_config(Path(directory) / checkpoint.ADAPTED)
        settings = {
            checkpoint.BASE: str(self.base.resolve()),
            "task_type": "CAUSAL_LM" if self.own_head is None else "SEQ_CLS",
            "modules_to_save": None if self.own_head is None else [HEAD],
            "target_modules": sorted(names_of(paths, self.layers)),
            "fan_in_fan_out": not isinstance(body_of(self.model), Llama),
            "r": config.rank,
            "lora_alpha": config.alpha,
            "lora_dropout": config.dropout,
            "use_dora": config.dora,
            "use_rslora": config.rslora,
        }
        checkpoint.write_adapter(directory, settings, published(adapter, self.model), step)

    @staticmethod
    def from_pretrained(directory: str | Path) -> Adapted:
        """The adapter in a folder, active, on the base that it names; in eval mode.

        Raises as `gpt.load` does, and ValueError for an adapter that does not fit its base.
        """
        model = load_base(directory)
        adapted = Adapted(model, checkpoint.base_folder(directory))
        adapted.load_adapter("default", directory)
        return adapted.eval()


def load_adapted(directory: str | Path) -> GPT | Classifier:
    """The model that an adapter makes of its base: the changes are in its weights."""
    model = load_base(directory)
    adapter, layers = read_adapter_of(model, directory), layers_of(model)
    for path, part in adapter.by_path.items():
        if path == HEAD:
            model.score = part
        else:
            layers[path].weight.data = part.merged(layers[path].weight.data)
    return model.eval()


def load_base(directory: str | Path) -> GPT | Classifier:
    """The model that the adapter in a folder changes, with as many ids and positions as it has.

    The head of a classifier that the adapter brings is there, and is still 0.
    """
    folder, described = checkpoint.base_folder(directory), checkpoint.config_folder(directory)
    if checkpoint.is_adapter(folder):
        model = load_adapted(folder)
    elif checkpoint.is_classifier(folder):
        model = Classifier.from_pretrained(folder)
    else:
        model = load_whole(folder)
    body, own = body_of(model), read_config(directory)
    if own.vocab_size < body.config.vocab_size or own.block_size > body.config.block_size:
        raise ValueError(
            f"{directory} describes a model of {own.vocab_size} ids and {own.block_size} positions,"
            f" which cannot be made of {folder}, with {body.config.vocab_size} and "
            f"{body.config.block_size}"
        )
    if (own.vocab_size, own.block_size) != (body.config.vocab_size, body.config.block_size):
        body = with_config(body, vocab_size=own.vocab_size, block_size=own.block_size)
    ids = {name: getattr(own, name) for name in ("generation", *checkpoint.TOKEN_IDS)}
    body.config = dataclasses.replace(body.config, **ids)
    if isinstance(model, Classifier):
        model.body = body
        return model.eval()
    n = checkpoint.count_labels(directory)
    if not n:
        return body.eval()
    if checkpoint.is_classifier(described):
        return Classifier(body, *checkpoint.read_labels(described, n)).eval()
    problem = checkpoint.REGRESSION if n == 1 else checkpoint.SINGLE  # as in transformers
    return Classifier(body, [f"LABEL_{i}" for i in range(n)], problem).eval()


# ---- layers and their names ----------------------------------------------------------------------


def body_of(model: GPT | Classifier) -> GPT:
    """The part of a model whose layers adapters are for."""
    return getattr(model, "body", model)


def layers_of(model: GPT | Classifier) -> dict[str, nn.Linear]:
    """The linear layers of the blocks by their paths."""
    parts = named_modules(body_of(model))
    return {path: part for path, part in parts if isinstance(part, nn.Linear)}


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


def names_of(paths: set[str], layers: dict[str, nn.Linear]) -> set[str]:
    """The shortest `target_modules` for these layers: plain names, if they mean no others."""
    names = {path.rpartition(".")[2] for path in paths}
    return names if select(layers, tuple(names)).keys() == paths else paths


def prefix_of(model: GPT | Classifier) -> str:
    """What stands before the paths of layers in published names."""
    return "model." if isinstance(body_of(model), Llama) else "transformer."


def published(adapter: Adapter, model: GPT | Classifier) -> dict[str, np.ndarray]:
    """The arrays of an adapter by their names in the base, matrices (out, in): views."""
    prefix = prefix_of(model)
    return {
        name if name.startswith(HEAD) else prefix + name: p.data.T
        for name, p in adapter.named_parameters()
    }


# ---- reading -------------------------------------------------------------------------------------


def read_adapter_of(
    model: GPT | Classifier, directory: str | Path, base: str | Path = ""
) -> Adapter:
    """The adapter in a folder, which is one of `model`, from the folder `base`.

    Raises ValueError for an adapter of another model, and for what `LoraConfig` and
    `checkpoint.read_adapter` refuse; FileNotFoundError where there is none.
    """
    said, files = checkpoint.read_adapter(directory)
    try:
        config = LoraConfig(
            rank=said["r"],
            alpha=said["lora_alpha"],
            dropout=said["lora_dropout"],
            dora=said["use_dora"],
            rslora=said["use_rslora"],
        )
    except ValueError as error:
        raise ValueError(f"{directory}: {error}") from None

    head, prefix = getattr(model, HEAD, None), prefix_of(model)
    layers = {
        path: linear
        for path, linear in layers_of(model).items()
        if f"{checkpoint.PREFIX}{prefix}{path}.lora_A.weight" in files.names
    }
    shapes = {
        f"{prefix}{path}.{name}": shape[::-1]
        for path, linear in layers.items()
        for name, shape in config.shapes(*linear.weight.shape).items()
    }
    if head is not None:
        shapes[f"{HEAD}.weight"] = head.weight.shape[::-1]
    checkpoint.check_adapter(files, shapes, base or checkpoint.base_folder(directory))
    with nn.uninitialised():
        by_path = {path: LoRA(linear.weight.data, config) for path, linear in layers.items()}
        if head is not None:
            by_path[HEAD] = nn.Linear(*head.weight.shape, bias=False)
    adapter = Adapter(config, by_path)
    for name, array in published(adapter, model).items():
        files.read(checkpoint.PREFIX + name, array)
    return adapter
