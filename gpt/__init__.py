"""Language models on tensorlite: the models, text generation, training."""

from .config import GPTConfig
from .generate import generate_ids
from .model import GPT
from .models import Classifier, Llama, LlamaConfig, load, load_classifier, quantize

__all__ = [
    "GPT",
    "Classifier",
    "GPTConfig",
    "Llama",
    "LlamaConfig",
    "generate_ids",
    "load",
    "load_classifier",
    "quantize",
]
