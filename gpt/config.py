"""The shape of a model, and the ids that begin and end its texts."""

from __future__ import annotations

from dataclasses import dataclass


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
    # The ids with which other programs begin, end and pad a text; this one only keeps them.
    bos_token_id: int | None = None
    eos_token_id: int | tuple[int, ...] | None = None  # several in some configurations
    pad_token_id: int | None = None

    def __post_init__(self):
        for name in ("vocab_size", "block_size", "n_layer", "n_head", "n_embd"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} is a positive integer, not {value!r}")
        if self.n_embd % self.n_head:
            raise ValueError(
                f"n_embd must be divisible by n_head: {self.n_embd} over {self.n_head} heads "
                f"leaves {self.n_embd % self.n_head}"
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is at least 0 and below 1, not {self.dropout}")
