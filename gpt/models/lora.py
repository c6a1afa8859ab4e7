"""LoRA: a small change to the weight of a linear layer, learned while the weight stays as it is.

The change of a weight W (n, m) is a product A B of a matrix (n, r) and one (r, m), of a rank r that
is far below n and m (Hu et al., 2021). A is random and B zero at the start, so that nothing changes
yet. DoRA (Liu et al., 2024) learns the length of each column of W + A B besides, and A B gives no
more than its direction.

An adapter of a model is such a change for each of several layers (adapters.py); `Adapted` has a
model with adapters (adapted.py).
"""

from __future__ import annotations

import contextvars
import math
from dataclasses import dataclass

import numpy as np

import tensorlite as tl
from tensorlite import nn


@dataclass(frozen=True)
class LoraConfig:
    """What the adapters of a model's layers have in common. Raises ValueError for what cannot be.

    `targets` are names of linear layers ("c_attn", "mlp.c_proj", "q_proj"), or none for all linear
    layers of the blocks. `alpha` None stands for twice the rank.
    """

    rank: int = 8
    alpha: float | None = None
    dropout: float = 0.0  # of what A is multiplied with
    targets: tuple[str, ...] = ()
    dora: bool = False
    rslora: bool = False

    def __post_init__(self):
        if type(self.rank) is not int or self.rank < 1:
            raise ValueError(f"the rank of an adapter is an integer, at least 1, not {self.rank!r}")
        if self.alpha is None:
            object.__setattr__(self, "alpha", 2 * self.rank)
        if type(self.alpha) not in (int, float) or not math.isfinite(self.alpha):
            raise ValueError(f"the alpha of an adapter is a number, not {self.alpha!r}")
        if type(self.dropout) not in (int, float) or not 0 <= self.dropout < 1:
            raise ValueError(
                f"the dropout of an adapter is at least 0 and below 1, not {self.dropout!r}"
            )

    @property
    def scale(self) -> float:
        """What A B is multiplied by: alpha / r, or alpha / sqrt(r) (Kalajdzievski, 2023)."""
        return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)

    def shapes(self, n: int, m: int) -> dict[str, tuple[int, ...]]:
        """The parameters of the adapter of a layer from n to m numbers, and their shapes."""
        shapes = {"lora_A.weight": (n, self.rank), "lora_B.weight": (self.rank, m)}
        return shapes | ({"lora_magnitude_vector": (m,)} if self.dora else {})


class LoRA(nn.Module):
    """The adapter of one linear layer, whose weight is (n, m).

    `rng`, a NumPy Generator, gives the initial A, uniform between -1/sqrt(n) and 1/sqrt(n). The
    names of the parameters are those of PEFT.
    """

    def __init__(self, weight: np.ndarray, config: LoraConfig, rng=None):
        n, m = weight.shape
        self.scale, self.lora_magnitude_vector = config.scale, None
        self.lora_A = nn.Linear(n, config.rank, bias=False, rng=rng)
        with nn.uninitialised():
            self.lora_B = nn.Linear(config.rank, m, bias=False)
        self.lora_B.weight.data[...] = 0
        if config.dora:
            self.lora_magnitude_vector = tl.tensor(lengths(weight), requires_grad=True)

    def forward(self, x, weight, bias, dropped):
        """What the layer gives with the change: x (..., n) -> (..., m). A multiplies `dropped`."""
        change = self.lora_B(self.lora_A(dropped) * self.scale)  # (..., n) -> (..., r) -> (..., m)
        if self.lora_magnitude_vector is None:
            return tl.linear(x, weight, bias) + change  # (..., m)
        y = tl.linear(x, weight) + change  # (..., m)
        # The lengths count as constants in the gradient (section 4.3 of the paper).
        y = y * (self.lora_magnitude_vector / lengths(self.summed(weight.data)))  # (..., m) * (m,)
        return y if bias is None else y + bias

    def summed(self, weight: np.ndarray) -> np.ndarray:
        """W + A B, scaled (n, m), in the memory order of the weight."""
        change = self.lora_A.weight.data @ self.lora_B.weight.data  # (n, r) @ (r, m) -> (n, m)
        change *= self.scale
        return np.add(weight, change, out=np.empty_like(weight))

    def merged(self, weight: np.ndarray) -> np.ndarray:
        """The weight (n, m) with which a layer without adapter computes the same."""
        new = self.summed(weight)
        if self.lora_magnitude_vector is not None:
            new *= self.lora_magnitude_vector.data / lengths(new)
        return new


def lengths(weight: np.ndarray) -> np.ndarray:
    """The length of each column (n, m) -> (m,); the smallest positive number for one of zeros."""
    return np.maximum(np.sqrt((weight * weight).sum(axis=0)), np.finfo(weight.dtype).tiny)


class LoRALinear(nn.Linear):
    """A linear layer that an adapter may change. It shares weight and bias with the one it is for.

    The adapter is no part of it: `named_parameters` gives what the layer had before.
    """

    def __init__(self, linear: nn.Linear):
        self.weight, self.bias, self.order = linear.weight, linear.bias, linear.order
        self.training = linear.training
        self.adapter, self.dropout = None, nn.Dropout(0.0)

    def named_parts(self):
        return ((name, part) for name, part in super().named_parts() if part is not self.adapter)

    def forward(self, x):
        if self.adapter is None:
            return super().forward(x)  # (..., n) -> (..., m)
        dropped = self.dropout(x, rng_of_block.get())  # (..., n)
        return self.adapter(x, self.weight, self.bias, dropped)  # (..., n) -> (..., m)


# The random numbers of the block that is computed. Linear layers are given none, and an adapter in
# one of them has dropout.
rng_of_block = contextvars.ContextVar("rng_of_block", default=None)


class RandomBlock(nn.Module):
    """A block of a model, whose random numbers the adapters inside it draw from too."""

    def __init__(self, block: nn.Module):
        self.block = block

    def named_parts(self):
        return self.block.named_parts()

    def train(self, mode: bool = True):
        self.block.train(mode)
        return super().train(mode)

    def forward(self, x, *args):
        rng = next((arg for arg in args if hasattr(arg, "random")), None)
        token = rng_of_block.set(rng)
        try:
            return self.block(x, *args)
        finally:
            rng_of_block.reset(token)
