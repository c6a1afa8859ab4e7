"""Modules: layers that hold named parameters and call the functions of functional/.

A Tensor that is an attribute of a module is one of its parameters. A Module that is an attribute of
another, or an entry of a ModuleList, is one of its parts. A parameter's name is the path through
the parts, such as `h.0.attn.c_attn.weight`. The names follow torch.nn, but the weight of a Linear
from n to m numbers is (n, m), not (m, n). optim.py, which is next to read, updates the parameters.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterable, Iterator

import numpy as np

from . import functional as F
from .device import place
from .functional import embedding
from .modes import mode
from .tensor import Tensor
from .writing import fitting


class Module:
    """The base of all layers: a subclass sets its tensors and modules, and defines `forward`."""

    training = True

    def __call__(self, *args, **kwargs):
        return self.forward(*args, **kwargs)

    def named_parts(self) -> Iterator[tuple[str, Tensor | Module]]:
        """The tensors and modules directly in this one, in the order in which they were set."""
        return ((n, v) for n, v in vars(self).items() if isinstance(v, (Tensor, Module)))

    def named_parameters(self, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
        """Every parameter with its path; one that two modules share is listed twice."""
        for name, part in self.named_parts():
            if isinstance(part, Tensor):
                yield prefix + name, part
            else:
                yield from part.named_parameters(f"{prefix}{name}.")

    def parts(self) -> Iterator[Module]:
        """This module and all the modules in it."""
        yield self
        for _, part in self.named_parts():
            if isinstance(part, Module):
                yield from part.parts()

    def parameters(self) -> list[Tensor]:
        """Every parameter, each once."""
        return list({id(p): p for _, p in self.named_parameters()}.values())

    def state_dict(self) -> dict[str, np.ndarray]:
        """A dictionary from each parameter's path to its own array, not a copy."""
        return {name: p.data for name, p in self.named_parameters()}

    def load_state_dict(self, state: dict, strict: bool = True) -> None:
        """Copy arrays into the parameters of the same path.

        Raises ValueError if a shape differs, if two paths of one parameter (tied weights) have
        different values, if a pending backward pass needs a parameter and, with `strict`, if paths
        are missing or unknown. Raises TypeError for values that are not real numbers. No parameter
        is changed if an error is raised.
        """
        own = dict(self.named_parameters())
        missing, unknown = own.keys() - state.keys(), state.keys() - own.keys()
        if strict and (missing or unknown):
            raise ValueError(
                f"these are not this model's parameters: missing {_some(missing)}; "
                f"unknown {_some(unknown)}"
            )
        given: dict[Tensor, tuple] = {}  # parameter -> (its path, what to copy into it)
        for name, p in own.items():
            if name not in state:
                continue
            array = fitting(name, p.data, state[name])
            first, other = given.setdefault(p, (name, array))
            if first != name and not _same(p.data, array, other):
                raise ValueError(
                    f"{first} and {name} are one parameter of this model, but their values differ"
                )
        for p, (_, array) in given.items():
            p.data[...] = np.asarray(array, like=p.data)

    def to(self, device: str) -> Module:
        """Move all parameters and their gradients to "cpu" or "cuda".

        Raises ValueError for another device, and RuntimeError for "cuda" without a usable GPU.
        """
        for p in self.parameters():
            p.data = place(p.data, device)
            if p.grad is not None:
                p.grad = Tensor(place(p.grad.data, device))
        return self

    def train(self, mode: bool = True) -> Module:
        """Set training mode, in which dropout is on, for this module and all its parts."""
        self.training = mode
        for _, part in self.named_parts():
            if isinstance(part, Module):
                part.train(mode)
        return self

    def eval(self) -> Module:
        """Set evaluation mode, in which dropout is off."""
        return self.train(False)


def _same(own, a, b) -> bool:
    """Whether two arrays are equal after conversion to the dtype of `own`; NaN equals NaN."""
    a, b = (np.asarray(x, like=own).astype(own.dtype) for x in (a, b))
    return bool(((a == b) | ((a != a) & (b != b))).all())


def _some(names: Iterable[str]) -> str:
    names = sorted(names)
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return (", ".join(names[:3]) or "none") + more


class ModuleList(Module):
    """A list of modules: `for block in self.blocks`."""

    def __init__(self, modules: Iterable[Module] = ()):
        self.modules = list(modules)

    def named_parts(self):
        return ((str(i), module) for i, module in enumerate(self.modules))

    def __iter__(self) -> Iterator[Module]:
        return iter(self.modules)

    def __len__(self) -> int:
        return len(self.modules)

    def __getitem__(self, i: int) -> Module:
        return self.modules[i]


class Sequential(ModuleList):
    """Modules applied one after another."""

    def __init__(self, *modules: Module):
        super().__init__(modules)

    def forward(self, x):
        for module in self:
            x = module(x)
        return x


_initialise = contextvars.ContextVar("initialise", default=True)


@contextlib.contextmanager
def uninitialised() -> Iterator[None]:
    """Layers that are made inside have weights of any value: they are to be set by the caller.

    Drawing numbers takes longer than reading a model's own from a file.
    """
    token = _initialise.set(False)
    try:
        yield
    finally:
        _initialise.reset(token)


def _uniform(shape, bound: float, rng) -> Tensor:
    if not _initialise.get():
        return Tensor(np.empty(shape, np.float32), requires_grad=True)
    rng = np.random.default_rng() if rng is None else rng
    numbers = rng.random(shape, dtype=np.float32)
    numbers *= 2 * bound
    numbers -= bound
    return Tensor(numbers, requires_grad=True)


class Linear(Module):
    """y = x @ weight + bias, with weight (n, m) and bias (m,): x (..., n) -> (..., m).

    Initial weights and biases are uniform between -1/sqrt(n) and 1/sqrt(n), drawn from `rng` (a
    NumPy Generator, by default a fresh one); for n = 0 the initial bias is 0. `order` is that of
    the result's memory: "F" for `qk_norm_rope`.
    """

    def __init__(self, n: int, m: int, bias: bool = True, rng=None, order: str = "C"):
        bound = n**-0.5 if n else 0.0
        self.order = order
        self.weight = _uniform((n, m), bound, rng)
        self.bias = _uniform((m,), bound, rng) if bias else None

    def forward(self, x):
        return F.linear(x, self.weight, self.bias, self.order)

    def arrange(self) -> None:
        """Make new memory for the weight, from which a product with a single vector is fastest.

        The weight keeps its shape; its numbers are to be set by the caller, as in `uninitialised`.
        BLAS divides a matrix among its threads by outputs. Where these are no more than the inputs,
        the weights of each output should follow each other (Fortran's order). Training is faster
        in the order that the weight has at first.
        """
        n, m = self.weight.shape
        if m <= n:
            self.weight.data = np.empty((n, m), np.float32, order="F")


class Embedding(Module):
    """The row of weight (V, C) for each integer id: ids (...) -> (..., C).

    Initial weights have the standard normal distribution, drawn from `rng` (a NumPy Generator, by
    default a fresh one).
    """

    def __init__(self, n_ids: int, n: int, rng=None):
        if _initialise.get():
            rng = np.random.default_rng() if rng is None else rng
            numbers = rng.standard_normal((n_ids, n), dtype=np.float32)
        else:
            numbers = np.empty((n_ids, n), np.float32)
        self.weight = Tensor(numbers, requires_grad=True)

    def forward(self, ids):
        return embedding(self.weight, ids)

    def unembed(self, x):
        """The product with the row of each id, as an output projection: x (..., C) -> (..., V)."""
        return F.linear(x, self.weight.T)


class LayerNorm(Module):
    """Layer normalization over the last axis, of size n. Initially weight is 1 and bias 0."""

    def __init__(self, n: int, bias: bool = True, eps: float = 1e-5):
        self.weight = Tensor(np.ones(n, np.float32), requires_grad=True)
        self.bias = Tensor(np.zeros(n, np.float32), requires_grad=True) if bias else None
        self.eps = eps

    def forward(self, x):
        return F.layer_norm(x, self.weight, self.bias, self.eps)


class RMSNorm(Module):
    """Division by the root mean square over the last axis, of size n. Initially weight is 1."""

    def __init__(self, n: int, eps: float = 1e-5):
        self.weight = Tensor(np.ones(n, np.float32), requires_grad=True)
        self.eps = eps

    def forward(self, x):
        return F.rms_norm(x, self.weight, self.eps)


class Dropout(Module):
    """Zeroes each element with probability p in training mode; returns x in evaluation mode.

    The random numbers come from the `rng` passed to the call, by default a fresh Generator. Inside
    `checkpoint`, which runs the function again in the backward pass, a call without `rng` raises
    ValueError.
    """

    def __init__(self, p: float):
        self.p = p

    def forward(self, x, rng=None):
        if not self.training or not self.p:
            return x
        if rng is None and mode.get().recomputed:
            raise ValueError("inside tl.checkpoint, dropout needs an rng, passed as an argument")
        return F.dropout(x, self.p, np.random.default_rng() if rng is None else rng)
