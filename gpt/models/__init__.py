"""Models of other families than GPT-2, and `load`, which opens any of them from a folder."""

from __future__ import annotations

from pathlib import Path

from .. import checkpoint
from ..model import GPT
from .adapted import Adapted, load_adapted
from .classifier import Classifier
from .config import LlamaConfig
from .folders import (
    holds_classifier,
    load_whole,
    make,
    read_config,
    refuse_classifier,
    with_config,
)
from .llama import Llama
from .lora import LoraConfig
from .modern import Modern
from .modern_config import ModernConfig, name_parts, read_parts
from .packed import Packed
from .quantized import Quantized, dequantize, quantize


def load(directory: str | Path) -> GPT:
    """The model in a folder, in eval mode: gpt2, llama, mistral, qwen2, qwen3, nanochat, or ours.

    The weights are float32, whatever the files hold (float32, float16, bfloat16; one file, or
    shards with their index). Raises FileNotFoundError where there is no model, and ValueError for
    one that is damaged, of another family, or whose config.json says something that is not
    supported, by its name, or whose model is a classifier (`load_classifier` opens it). A folder
    that `python -m gpt.export` has quantised gives a model of 8 or 4 bits a weight (quantized.py).
    A folder that holds an adapter gives its base with the changes in the weights (adapted.py).
    """
    if checkpoint.is_adapter(directory):
        refuse_classifier(directory)
        return load_adapted(directory)
    return load_whole(directory)


def load_classifier(directory: str | Path) -> Classifier:
    """The classifier in a folder, or the one that the adapter in it makes; in eval mode.

    Raises as `Classifier.from_pretrained` does.
    """
    if not checkpoint.is_adapter(directory):
        return Classifier.from_pretrained(directory)
    model = load_adapted(directory)
    if not isinstance(model, Classifier):
        raise ValueError(f"the adapter in {directory} is that of a language model, no classifier")
    return model
