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

from .. import checkpoint
from ..model import GPT
from .adapters import (
    HEAD,
    TOKENS,
    Adapter,
    body_of,
    description,
    embeddings_of,
    layers_of,
    marks_of,
    new_adapter,
    published,
    read_adapter_of,
)
from .classifier import Classifier
from .folders import load_whole, read_config, with_config
from .lora import LoraConfig, LoRALinear, RandomBlock
from .new_tokens import AdaptedEmbedding
from .quantized import Quantized, named_modules


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
        self.own_head, self.marks = getattr(model, HEAD, None), marks_of(model)
        for p in model.parameters():
            p.requires_grad = False
        body = body_of(model)
        for part in [body, *(part for _, part in named_modules(body))]:
            for name, own in list(part.named_parts()):
                if isinstance(own, nn.Linear):
                    setattr(part, name, LoRALinear(own))
                if isinstance(own, nn.ModuleList):
                    own.modules = [RandomBlock(block) for block in own]
        for name, own in embeddings_of(model).items():
            setattr(body, name, AdaptedEmbedding(own))
        self.places = places_of(model)

    def __getattr__(self, name: str):
        if name.startswith("__") or "model" not in vars(self):
            raise AttributeError(name)
        return getattr(self.model, name)

    def forward(self, *args, **kwargs):
        return self.model(*args, **kwargs)

    # ---- adapters --------------------------------------------------------------------------------

    def add_adapter(
        self, name: str, config: LoraConfig, new_tokens: int = 0, seed: int = 1337
    ) -> None:
        """Make a new adapter, which changes nothing yet, and make it the active one.

        `new_tokens` is how many ids the model has that its base has not. Raises ValueError for a
        name that there is, and for targets that no layer has.
        """
        self.set_adapter(None)
        self._take(name, new_adapter(self.model, config, new_tokens, seed))

    def load_adapter(self, name: str, directory: str | Path) -> None:
        """Read an adapter of this model from a folder, and make it the active one.

        Raises as `read_adapter_of` does.
        """
        self.set_adapter(None)
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
        for path, place in self.places.items():
            place.adapter = chosen.get(path)
            if isinstance(place, LoRALinear):
                place.dropout.p = self.adapters[name].config.dropout if name else 0.0
        if self.own_head is not None:
            self.model.score = chosen.get(HEAD, self.own_head)

    def merge(self) -> None:
        """Put the active adapter's changes into the weights: the same result, sooner.

        Training mode takes them out again.
        """
        for path, place in self.places.items():
            if (adapter := place.adapter) is not None:
                place.adapter = None
                self.unmerged[path] = place.weight.data
                place.weight.data = adapter.merged(place.weight.data)

    def unmerge(self) -> None:
        """Put back the weights that the base had, bit for bit."""
        for path, weight in self.unmerged.items():
            self.places[path].weight.data = weight
            self.places[path].adapter = self.adapters[self.active].by_path[path]
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
        if mode:
            self.unmerge()
        self.model.train(mode)
        return super().train(mode)

    # ---- files -----------------------------------------------------------------------------------

    def save_pretrained(self, directory: str | Path, step: int = 0) -> None:
        """Write the active adapter in PEFT's format, and the model's config.json beside it."""
        adapter = self.adapters[self.active]
        self.model.save_config(Path(directory) / checkpoint.ADAPTED)
        settings = {checkpoint.BASE: str(self.base.resolve()), **description(adapter, self.model)}
        arrays = published(adapter, self.model)
        checkpoint.write_adapter(directory, settings, arrays, step, self.marks)

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
    adapter = read_adapter_of(model, directory, checkpoint.base_folder(directory))
    places = places_of(model)
    for path, part in adapter.by_path.items():
        if path == HEAD:
            model.score = part
        else:
            places[path].weight.data = part.merged(places[path].weight.data)
    return model.eval()


def places_of(model: GPT | Classifier) -> dict[str, nn.Module]:
    """What an adapter may change, by the paths that it is named by there."""
    tokens = {path + TOKENS: part for path, part in embeddings_of(model).items()}
    return layers_of(model) | tokens


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
    grown = own.vocab_size - body.config.vocab_size
    if not 0 <= grown <= checkpoint.count_tokens(directory):
        raise ValueError(
            f"{directory} describes a model of {own.vocab_size} ids, and the one in {folder} has "
            f"{body.config.vocab_size}: the adapter does not bring the embeddings of the others"
        )
    if own.block_size > body.config.block_size:
        raise ValueError(
            f"{directory} describes a model of {own.block_size} positions, and the one in {folder} "
            f"has {body.config.block_size}"
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
