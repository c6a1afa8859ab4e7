"""Models whose matrices have 8 or 4 bits a weight, to generate and to evaluate.

`quantize` makes one of a float32 model, `load_quantized` reads one that was saved. The modules have
the places and names of those in `GPT`, `Llama` and `Modern`, which compute with them as with their
own: only the weights of a Linear or an Embedding are a matrix of few_bits.py. Norms and biases stay
float32. Rounded weights have no useful gradient, so that nothing of such a model can be trained.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

import tensorlite as tl
from tensorlite import nn

from ..checkpoint import (
    OURS,
    QUANTIZATION,
    read_gpt2,
    read_llama,
    read_modern,
    write_gpt2,
    write_llama,
    write_modern,
)
from ..config import GPTConfig
from ..model import GPT
from .config import LlamaConfig
from .few_bits import Int4, Int8, empty_matrix, quantize_matrix
from .llama import Llama
from .modern import Modern
from .modern_config import modern_config_of


class QuantizedLinear(nn.Module):
    """A Linear from n to m numbers, of a quantised matrix (m, n): x (..., n) -> (..., m)."""

    def __init__(self, matrix: Int8 | Int4, bias: tl.Tensor | None = None):
        self.matrix, self.bias = matrix, bias

    def forward(self, x):
        return times(x, self.matrix, self.bias)  # (..., n) -> (..., m)


class QuantizedEmbedding(nn.Module):
    """An Embedding of a quantised matrix (V, C): ids (...) -> (..., C)."""

    def __init__(self, matrix: Int8 | Int4):
        self.matrix = matrix

    def forward(self, ids):
        ids, size = np.asarray(ids), self.matrix.shape[0]
        if ids.size and not 0 <= ids.min() <= ids.max() < size:
            raise IndexError(f"an id is outside the vocabulary of {size}")
        return tl.tensor(self.matrix.take(ids))

    def unembed(self, x):
        """The product with the row of each id: x (..., C) -> (..., V)."""
        return times(x, self.matrix)

    @property
    def weight(self):
        """All rows in float32 (V, C), made anew each time: what `GPT.loss` multiplies by."""
        return tl.tensor(self.matrix.take(slice(None)))


def times(x, matrix: Int8 | Int4, bias: tl.Tensor | None = None):
    """x @ matrix.T + bias: x (..., n) -> (..., m). Raises ValueError where x needs a gradient."""
    if x.requires_grad or not isinstance(x.data, np.ndarray):
        raise ValueError(
            "quantised weights pass no gradient on, and are multiplied on the CPU alone: train the "
            "model that they were made from"
        )
    m, n = matrix.shape
    y = matrix.times(x.data.reshape(-1, n).astype(np.float32, copy=False))
    if bias is not None:
        y += bias.data
    return tl.Tensor(y.reshape(*x.shape[:-1], m))


class Quantized:
    """What the quantised models have in common; a class of a family stands behind it."""

    def __init__(self, config: GPTConfig, bits: int, group_size: int | None = None):
        super().__init__(config, seed=None)
        self.bits, self.group_size = bits, group_size
        for part, name, own in list(replaceable(self)):
            linear = isinstance(own, nn.Linear)
            m, n = reversed(own.weight.shape) if linear else own.weight.shape
            matrix = empty_matrix(m, n, bits, group_size)
            new = QuantizedLinear(matrix, own.bias) if linear else QuantizedEmbedding(matrix)
            setattr(part, name, new)
        for p in self.parameters():
            p.requires_grad = False
        self.eval()

    def to(self, device: str):
        """Nothing for "cpu". Raises ValueError for other devices."""
        if device != "cpu":
            raise ValueError("quantised weights are multiplied on the CPU alone: --device cpu")
        return self

    def matrices(self) -> dict[str, QuantizedLinear | QuantizedEmbedding]:
        """The modules that hold the matrices, by their paths."""
        kinds = QuantizedLinear, QuantizedEmbedding
        return {name: part for name, part in named_modules(self) if isinstance(part, kinds)}

    def num_params(self, non_embedding: bool = False) -> int:
        """The number of weights, of whatever bits."""
        n = sum(p.size for p in self.parameters())
        for name, part in self.matrices().items():
            n += 0 if non_embedding and name == "wpe" else int(np.prod(part.matrix.shape))
        return n

    def published(self) -> dict[str, np.ndarray]:
        """The arrays by the names of transformers: NAME.weight (out, in), and NAME.weight_scale."""
        if isinstance(self, Modern):  # whose matrices keep their own names
            arrays, prefix = self.state_dict(), ""
        else:
            arrays = super().published()  # norms and biases
            prefix = "model." if isinstance(self, Llama) else "transformer."
        for name, part in self.matrices().items():
            name = name if name == "lm_head" else prefix + name
            arrays[f"{name}.weight"] = part.matrix.values
            arrays[f"{name}.weight_scale"] = part.matrix.scale
        return arrays

    def save_pretrained(self, directory: str | Path, step: int = 0) -> None:
        """Write config.json and model.safetensors, which `gpt.load` reads and no other program.

        Matrices are I8, or U8 with two weights in a byte; their scales are float32 or float16.
        """
        arrays = self.published()
        if self.bits == 4:  # whose scales are numbers that float16 holds
            for name in [name for name in arrays if name.endswith("weight_scale")]:
                arrays[name] = arrays[name].astype(np.float16)
        said = {"quant_method": OURS, "bits": self.bits, "group_size": self.group_size}
        writers = (Llama, write_llama), (Modern, write_modern), (GPT, write_gpt2)
        write = next(write for family, write in writers if isinstance(self, family))
        write(directory, self.config, arrays, step, {QUANTIZATION: said})


class QuantizedGPT(Quantized, GPT):
    """GPT-2 with quantised matrices, the table of positions among them."""


class QuantizedLlama(Quantized, Llama):
    """A model of the Llama family with quantised matrices."""


class QuantizedModern(Quantized, Modern):
    """A model of the modern family with quantised matrices, the tables of n-grams among them."""


def named_modules(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Every part with its path, those of parts too."""
    for name, part in module.named_parts():
        if isinstance(part, nn.Module):
            yield prefix + name, part
            yield from named_modules(part, f"{prefix}{name}.")


def replaceable(module: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Module]]:
    """(a module, the name of a Linear or an Embedding in it, that one), in all parts."""
    for part in [module, *(part for _, part in named_modules(module))]:
        for name, own in part.named_parts():
            if isinstance(own, (nn.Linear, nn.Embedding)):
                yield part, name, own


def quantize(model: GPT, bits: int, group_size: int | None = None) -> Quantized:
    """A model with 8 or 4 bits a weight that computes nearly what `model` does, in eval mode.

    8 bits: a scale for each output of a matrix. 4 bits: one for every `group_size` inputs, 32 (4.5
    bits a weight with its scale) or 64 (4.25 bits). Raises ValueError for other numbers, for
    weights that are not finite, and for a model that is quantised already.

    >>> model = GPT(GPTConfig(vocab_size=65, block_size=8, n_layer=1, n_head=2, n_embd=16))
    >>> quantize(model, 8).matrices()["wte"].matrix.values.dtype
    dtype('int8')
    """
    if isinstance(model, Quantized):
        raise ValueError(f"the model has {model.bits} bits a weight already")
    if bits == 4 and group_size is None:
        group_size = 32
    kinds = (Llama, QuantizedLlama), (Modern, QuantizedModern), (GPT, QuantizedGPT)
    kind = next(kind for family, kind in kinds if isinstance(model, family))
    made = kind(model.config, bits, group_size)
    floats = dict(named_modules(model))
    for name, part in made.matrices().items():
        weight = np.asarray(floats[name].weight.numpy())
        weight = weight.T if isinstance(part, QuantizedLinear) else weight
        part.matrix = quantize_matrix(weight, bits, group_size)
    made.load_state_dict({n: p.numpy() for n, p in model.named_parameters()}, strict=False)
    return made


def dequantize(model: Quantized) -> GPT:
    """The float32 model that computes what a quantised one does, but for rounding."""
    family = next(kind for kind in (Llama, Modern, GPT) if isinstance(model, kind))
    made = family(model.config, seed=None)
    parts = dict(named_modules(made))
    for name, part in model.matrices().items():
        weight = part.matrix.take(slice(None))
        own = parts[name].weight.data
        own[...] = weight.T if isinstance(part, QuantizedLinear) else weight
    made.load_state_dict({n: p.data for n, p in model.named_parameters()}, strict=False)
    return made.eval()


def load_quantized(
    directory: str | Path, family: type[GPT], bits: int, group_size: int | None
) -> Quantized:
    """The quantised model in a folder, read tensor by tensor: float32 matrices are never held."""
    if family is Llama:
        fields, tensors = read_llama(directory)
        model = QuantizedLlama(LlamaConfig(**fields), bits, group_size)
    elif family is Modern:
        fields, tensors = read_modern(directory)
        model = QuantizedModern(modern_config_of(directory, fields), bits, group_size)
    else:
        config, tensors = read_gpt2(directory)
        model = QuantizedGPT(config, bits, group_size)
    tensors.read_into(model.published())
    return model
