"""The shape of a model of the Llama family: what GPTConfig has, and what may differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..checkpoint import CONFIG
from ..config import LIMIT, GPTConfig
from .positions import check_rope

# What can be said in the config.json of a model_type: the biases of q, k and v, of the output of
# attention and of the MLP; whether q and k are normalised; whether there are windows.
FAMILIES = {
    "llama": [((b, b, m), False, False) for b in (False, True) for m in (False, True)],
    "mistral": [((False, False, False), False, w) for w in (False, True)],
    "qwen2": [((True, False, False), False, w) for w in (False, True)],
    "qwen3": [((b, b, False), True, w) for b in (False, True) for w in (False, True)],
}


@dataclass(frozen=True)
class LlamaConfig(GPTConfig):
    """The numbers that a model of the Llama family is built from, with what may differ in it.

    What is None takes the value that its comment names.
    """

    bias: bool = False  # in all linear layers, where the three below say nothing else
    n_kv_head: int | None = None  # heads of keys and values (n_head)
    head_size: int | None = None  # (n_embd / n_head)
    n_inner: int | None = None  # the width of the MLP (8/3 n_embd, up to a multiple of 32)
    qkv_bias: bool | None = None  # Qwen2 has these only
    out_bias: bool | None = None
    mlp_bias: bool | None = None
    qk_norm: bool = False  # q and k are normalised, as in Qwen3
    windows: tuple[int | None, ...] | None = None  # each layer's; None: it sees all before it
    norm_eps: float = 1e-6
    rope_parameters: Mapping = field(default_factory=lambda: {"rope_theta": 10000.0})
    family: str | None = None  # the model_type to save as (the first that can say all this)

    def __post_init__(self):
        def default(name, value):
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)

        self.check_positive("n_head", "n_embd")
        default("n_kv_head", self.n_head)
        if self.head_size is None:
            super().__post_init__()  # n_embd must be divisible by n_head
            object.__setattr__(self, "head_size", self.n_embd // self.n_head)
        default("n_inner", -(-8 * self.n_embd // 96) * 32)
        for name in ("qkv_bias", "out_bias", "mlp_bias"):
            default(name, self.bias)
        default("windows", (None,) * self.n_layer)
        self.check_positive("vocab_size", "block_size", "n_layer")
        self.check_positive("n_kv_head", "head_size", "n_inner")
        if self.n_head % self.n_kv_head:
            raise ValueError(
                f"n_head is a multiple of n_kv_head: {self.n_head} heads cannot share "
                f"{self.n_kv_head} heads of keys and values evenly"
            )
        if self.head_size % 2:
            raise ValueError(f"head_size is even, for rotary positions, not {self.head_size}")
        self.check_dropout()
        if not (type(self.norm_eps) is float and 0 < self.norm_eps < 1):
            raise ValueError(f"norm_eps is a number above 0 and below 1, not {self.norm_eps!r}")
        self.check_windows()
        rope = {"rope_type": "default"} | dict(self.rope_parameters)
        check_rope(rope)
        object.__setattr__(self, "rope_parameters", rope)
        if self.head_size == 2 and rope["rope_type"] == "dynamic":
            raise ValueError("rope_type 'dynamic' cannot be computed for a head_size of 2")
        said = (self.qkv_bias, self.out_bias, self.mlp_bias), self.qk_norm, any(self.windows)
        default("family", next((name for name, can in FAMILIES.items() if said in can), None))
        some = any(self.windows) and not all(self.windows)
        if said not in FAMILIES.get(self.family, ()) or (some and self.family == "mistral"):
            raise ValueError(
                f"no published family is like this ({self.family}): biases of q, k, v, of the "
                f"output and of the MLP {said[0]}, qk_norm {said[1]}, windows {self.windows}"
            )

    def check_windows(self) -> None:
        sizes = [w for w in self.windows if w is not None]
        right = all(type(w) is int and 0 < w < LIMIT for w in sizes) and len(set(sizes)) < 2
        if len(self.windows) != self.n_layer or not right:
            raise ValueError(
                "windows are None or one positive integer, for each of the layers, not "
                f"{self.windows}"
            )

    @property
    def cache_size(self) -> int:
        # Beyond it, each longer context would turn the keys by other angles.
        dynamic = self.rope_parameters["rope_type"] == "dynamic"
        return self.rope_context if dynamic else self.block_size

    @property
    def rope_context(self) -> int:
        """The length of the contexts that the rotary positions were made for."""
        return self.rope_parameters.get("original_max_position_embeddings", self.block_size)

    @property
    def kv_shape(self) -> tuple[int, int]:
        return self.n_kv_head, self.head_size


def config_of(directory: str | Path, fields: dict) -> LlamaConfig:
    """The configuration with the fields that `checkpoint.read_fields` found in a folder.

    Raises ValueError, with the file's name, for ones that no model can have.
    """
    try:
        return LlamaConfig(**fields)
    except ValueError as error:
        raise ValueError(f"{Path(directory) / CONFIG}: {error}") from None
