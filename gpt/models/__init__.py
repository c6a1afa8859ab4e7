"""Models of other families than GPT-2, and `load`, which opens any of them from a folder."""

from __future__ import annotations

from pathlib import Path

from ..checkpoint import model_type
from ..model import GPT
from .config import FAMILIES, LlamaConfig
from .llama import Llama


def load(directory: str | Path) -> GPT | Llama:
    """The model in a Hugging Face folder, in eval mode: gpt2, llama, mistral, qwen2 or qwen3.

    The weights are float32, whatever the files hold (float32, float16, bfloat16; one file, or
    shards with their index). Raises FileNotFoundError where there is no model, and ValueError for
    one that is damaged, of another family, or whose config.json says something that is not
    supported, by its name.
    """
    family = Llama if model_type(directory) in FAMILIES else GPT
    return family.from_pretrained(directory)
