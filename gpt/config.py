"""The shape of a model, and the ids that begin and end its texts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

LIMIT = 2**31  # of the sizes that a model can have


@dataclass(frozen=True)
class GPTConfig:
    """The numbers that a GPT is built from. Raises ValueError for ones that no model can have."""

    vocab_size: int  # V: how many ids there are
    block_size: int  # the longest context, in tokens
    n_layer: int  # how many blocks are stacked
    n_head: int  # nh: attention heads in each
    n_embd: int  # C: the width of the residual stream
    dropout: float = 0.0
    bias: bool = True  # in linear layers and layer norms
    tied: bool = True  # the output projection is the token embedding
    # The ids with which other programs begin, end and pad a text, and their defaults for
    # generation (generation_config.json); the model only keeps them.
    bos_token_id: int | None = None
    eos_token_id: int | tuple[int, ...] | None = None  # several in some configurations
    pad_token_id: int | None = None
    generation: Mapping = field(default_factory=dict)

    def __post_init__(self):
        self.check_positive("vocab_size", "block_size", "n_layer", "n_head", "n_embd")
        if self.n_embd % self.n_head:
            raise ValueError(
                f"n_embd must be divisible by n_head: {self.n_embd} over {self.n_head} heads "
                f"leaves {self.n_embd % self.n_head}"
            )
        self.check_dropout()

    def check_dropout(self) -> None:
        if not (isinstance(self.dropout, (int, float)) and 0 <= self.dropout < 1):
            raise ValueError(f"dropout is a number, at least 0 and below 1, not {self.dropout!r}")

    def check_positive(self, *names: str) -> None:
        for name in names:
            value = getattr(self, name)
            if type(value) is not int or not 0 < value < LIMIT:
                raise ValueError(f"{name} is a positive integer below 2**31, not {value!r}")

    @property
    def cache_size(self) -> int:
        """The longest context whose keys and values can be kept while a text grows."""
        return self.block_size

    @property
    def kv_shape(self) -> tuple[int, int]:
        """How many heads of keys and values a block has, and the size of each."""
        return self.n_head, self.n_embd // self.n_head

    @property
    def eos_ids(self) -> frozenset[int]:
        """All ids that end a text."""
        ids = self.eos_token_id
        return frozenset(() if ids is None else ids if isinstance(ids, tuple) else [ids])
