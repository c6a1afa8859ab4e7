"""The model that pretraining starts from, as the settings say."""

from __future__ import annotations

import dataclasses

from .. import checkpoint, models
from ..config import GPTConfig
from ..model import GPT
from ..models import LlamaConfig, ModernConfig, name_parts, read_parts
from ..models.modern_config import DEFAULT_PARTS
from .dataset import Tokens
from .run import Run
from .settings import NO_MODEL, Settings, is_model


def make_model(run: Run, tokens: Tokens) -> GPT:
    """The model of a run at its present step, with the ids of the tokenizer in its configuration.

    Where the model comes from a folder (--init_from), the run's settings take over its shape.
    """
    model, run.settings = first_model(run.settings, run.given, tokens.vocab_size, run.start)
    run.load_weights(model)
    if run.start:
        model.config = with_token_ids(model.config, vars(models.read_config(run.out)))
    if tokens.tokenizer:
        end = tokens.tokenizer.eos_token_id  # as with GPT-2, it begins a text too
        model.config = with_token_ids(model.config, {"bos_token_id": end, "eos_token_id": end})
    model.to(run.settings.device)
    model.recompute = run.settings.recompute
    return model


def first_model(settings: Settings, given: dict, size: int, start: int) -> tuple[GPT, Settings]:
    """A new model for `size` ids, or the one in the folder --init_from; settings of its shape."""
    s = settings
    if start:  # the run has the shape and the weights itself
        shape = dataclasses.replace(models.read_config(s.out_dir), dropout=s.dropout)
        return models.make(shape, seed=None), settings
    if s.init_from in NO_MODEL:
        sizes = (size, s.block_size, s.n_layer, s.n_head, s.n_embd, s.dropout, s.bias)
        if s.model == "llama":
            return models.make(LlamaConfig(*sizes, n_kv_head=s.n_kv_head), s.seed), settings
        if s.model == "modern":
            parts = read_parts(DEFAULT_PARTS if s.parts is None else s.parts)
            return models.make(ModernConfig(*sizes, **parts), s.seed), settings
        return models.make(GPTConfig(*sizes), s.seed), settings
    model = load_to_train(s.init_from, "scratch, resume, auto")
    own = {name: getattr(model.config, name) for name in ("n_layer", "n_head", "n_embd", "bias")}
    if isinstance(model.config, LlamaConfig):
        own |= {"model": "llama", "n_kv_head": model.config.n_kv_head, "parts": None}
    elif isinstance(model.config, ModernConfig):
        own |= {"model": "modern", "n_kv_head": None, "parts": name_parts(vars(model.config))}
        start = {"zero_init": False}  # how a new model starts; nanochat's layout does not keep it
        asked = read_parts(given.get("parts") or "") | start
        if asked == read_parts(own["parts"]) | start:
            own["parts"] = given["parts"]
    else:
        own |= {"model": "gpt2", "n_kv_head": None, "parts": None}
    for name, value in own.items():
        if name in given and given[name] != value:
            raise ValueError(
                f"the model in {s.init_from} has --{name} {value}, which cannot be {given[name]} "
                "now"
            )
    if size > model.config.vocab_size:
        raise ValueError(
            f"the data has {size} ids, the model in {s.init_from} knows {model.config.vocab_size}"
        )
    own |= {"vocab_size": model.config.vocab_size, "block_size": model.config.block_size}
    if "block_size" in given:
        if s.block_size > own["block_size"]:
            raise ValueError(
                f"--block_size {s.block_size} is beyond the model's {own['block_size']}"
            )
        own["block_size"] = s.block_size
    model = models.with_config(model, block_size=own["block_size"], dropout=s.dropout)
    return model, dataclasses.replace(s, **own)


def load_to_train(folder: str, others: str) -> GPT:
    """The model in the folder --init_from, which may also say one of `others`.

    Raises FileNotFoundError where there is none, and ValueError for one that cannot be trained.
    """
    if not is_model(folder):
        raise FileNotFoundError(
            f"--init_from is {others}, hf:OWNER/NAME or the folder of a model; there is no folder "
            f"{folder!r} with a config.json"
        )
    model = models.load(folder)
    if isinstance(model, models.Quantized):
        raise ValueError(
            f"the weights in {folder} have {model.bits} bits, which cannot be trained: "
            "--init_from takes the folder that they were made from"
        )
    return model


def with_token_ids(config: GPTConfig, ids: dict) -> GPTConfig:
    """The configuration, with the given ids of special tokens where it has none itself."""
    unknown = [name for name in checkpoint.TOKEN_IDS if getattr(config, name) is None]
    return dataclasses.replace(config, **{name: ids.get(name) for name in unknown})
