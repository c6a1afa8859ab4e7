"""Language models on tensorlite: the models, text generation, training and fine-tuning."""

from .config import GPTConfig
from .generate import generate_ids
from .model import GPT
from .models import (
    Adapted,
    Classifier,
    Llama,
    LlamaConfig,
    LoraConfig,
    Modern,
    ModernConfig,
    load,
    load_classifier,
    quantize,
)

__all__ = [
    "GPT",
    "Adapted",
    "Classifier",
    "GPTConfig",
    "Llama",
    "LlamaConfig",
    "LoraConfig",
    "Modern",
    "ModernConfig",
    "generate_ids",
    "load",
    "load_classifier",
    "quantize",
]
