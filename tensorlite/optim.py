"""Optimizers, gradient clipping and learning-rate schedules."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable

import numpy as np

from .device import row_blocks
from .tensor import Tensor


class Optimizer(ABC):
    """What SGD and AdamW share: groups of parameters that have their own options.

    `params_or_groups` is a sequence of tensors, or of dictionaries with "params" and any of the
    options, which then stand in for the defaults: [{"params": norms, "weight_decay": 0.0}, ...].
    """

    slots: tuple[str, ...] = ()  # names of the arrays kept for each parameter

    def __init__(self, params_or_groups: Iterable, **options):
        entries = list(params_or_groups)
        if entries and isinstance(entries[0], Tensor):
            entries = [{"params": entries}]
        self.groups = [options | entry | {"params": list(entry["params"])} for entry in entries]
        self.params = [p for group in self.groups for p in group["params"]]
        if not self.params:
            raise ValueError("the optimizer was given no parameters")
        for group in self.groups:
            if unknown := group.keys() - options.keys() - {"params"}:
                raise ValueError(f"unknown options {sorted(unknown)}; there are {sorted(options)}")
            if any(not p.requires_grad or p.node is not None for p in group["params"]):
                raise ValueError("an optimizer takes leaves that require gradients")
        if any(p.dtype == np.float16 for p in self.params):
            raise ValueError("updates are too small for float16: keep the parameters in float32")
        self.steps = 0
        self.scale = None  # of the gradients in the next step, when they are clipped
        self.state = {name: [np.zeros_like(p.data) for p in self.params] for name in self.slots}

    def backward(self, loss: Tensor, last: bool = True) -> None:
        """loss.backward(); `last`: the gradients of this step are complete then (parallel.py)."""
        loss.backward()

    def clip_grad_norm(self, max_norm: float, total=lambda square: square):
        """As the function of that name, for the parameters of this optimizer; returns the norm.

        Their gradients stay as they are: the next step scales them, while they are in the cache.
        `total` makes of the sum of squares here that of all workers, where each has a part.
        """
        square = _sum_of_squares(self.params)
        norm = np.sqrt(np.asarray(total(square), dtype=square.dtype, like=square))
        self.scale = np.minimum(max_norm / (norm + 1e-6), 1)
        return norm

    def zero_grad(self) -> None:
        self.scale = None
        for p in self.params:
            p.grad = None

    def step(self) -> None:
        """Update every parameter that has a gradient, in place."""
        self.steps += 1
        i = 0
        for group in self.groups:
            for p in group["params"]:
                if p.grad is not None:
                    arrays = [p.data, p.grad.data, *(self.state[name][i] for name in self.slots)]
                    arrays = [a[None] if a.ndim == 0 else a for a in arrays]
                    # All passes over a block that fits the cache before the next one, so that
                    # each array is read from memory and written to it once.
                    for block in row_blocks(arrays[0]):
                        p_block, g, *state = (a[block] for a in arrays)
                        g = g if self.scale is None else g * self.scale
                        self.update(group, p_block, g, *state)
                i += 1
        self.scale = None

    @abstractmethod
    def update(self, group: dict, p, g, *state) -> None:
        """Change `p` in place, given its gradient and its slots: arrays of one block of rows."""

    def state_dict(self) -> dict:
        """{"steps": how many were made, slot: one array per parameter (no copies)}."""
        return {"steps": self.steps, **self.state}

    def load_state_dict(self, state: dict) -> None:
        """Copy the state in. Raises ValueError where it does not fit the parameters."""
        for name in self.slots:
            shapes = [np.shape(a) for a in state.get(name, ())]
            if shapes != [p.shape for p in self.params]:
                raise ValueError(f"the optimizer's '{name}' does not fit the parameters")
        self.steps = int(state["steps"])
        for name in self.slots:
            for own, given in zip(self.state[name], state[name]):
                own[...] = np.asarray(given, like=own)


class SGD(Optimizer):
    """Gradient descent, with momentum: v = momentum * v + g; p -= lr * v."""

    def __init__(self, params_or_groups, lr: float, momentum: float = 0.0, weight_decay=0.0):
        self.slots = ("v",) if momentum else ()
        super().__init__(params_or_groups, lr=lr, momentum=momentum, weight_decay=weight_decay)

    def update(self, group, p, g, v=None):
        if group["weight_decay"]:
            g = g + group["weight_decay"] * p
        if v is not None:
            v *= group["momentum"]
            v += g
            g = v
        p -= group["lr"] * g


class AdamW(Optimizer):
    """Adam with decoupled weight decay (Kingma and Ba, 2014; Loshchilov and Hutter, 2017).

    m and v are running means of the gradient and of its square; since they start at zero, they
    are divided by 1 - beta^t. The decay lr * weight_decay * p does not pass through them.
    """

    slots = ("m", "v")

    def __init__(self, params_or_groups, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01):
        super().__init__(params_or_groups, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)

    def update(self, group, p, g, m, v):
        lr, eps, (beta1, beta2) = group["lr"], group["eps"], group["betas"]
        correction1, correction2 = 1 - beta1**self.steps, 1 - beta2**self.steps
        scratch = g * (1 - beta1)
        m *= beta1
        m += scratch
        np.multiply(g, g, out=scratch)
        scratch *= 1 - beta2
        v *= beta2
        v += scratch
        # lr (m / correction1) / (sqrt(v / correction2) + eps), with fewer divisions
        np.sqrt(v, out=scratch)
        scratch += eps * math.sqrt(correction2)
        np.divide(m, scratch, out=scratch)
        scratch *= lr * math.sqrt(correction2) / correction1
        if group["weight_decay"]:
            p *= 1 - lr * group["weight_decay"]
        p -= scratch


def clip_grad_norm(params: Iterable[Tensor], max_norm: float):
    """Scale all gradients in place so that their common norm is at most `max_norm`.

    Returns the norm before, one number where the parameters live. Raises ValueError where no
    parameter has a gradient. Pascanu et al., 2013.
    """
    params = list(params)
    norm = np.sqrt(_sum_of_squares(params))
    scale = np.minimum(max_norm / (norm + 1e-6), 1)
    for p in params:
        if p.grad is not None:
            p.grad.data *= scale
    return norm


def _sum_of_squares(params: Iterable[Tensor]):
    """Of all gradients, as a 0-d array; float16 is summed in float32."""
    grads = [p.grad.data for p in params if p.grad is not None]
    if not grads:
        raise ValueError("no parameter has a gradient: call backward first")
    wide = [g.astype(np.float32) if g.dtype == np.float16 else g for g in grads]
    return np.asarray(np.sum(np.stack([np.vdot(g, g) for g in wide])), like=grads[0])


def cosine_schedule(step: int, warmup: int, total: int, max_lr: float, min_lr: float) -> float:
    """The learning rate of a step: linear up to max_lr, half a cosine down to min_lr, then flat.

    >>> [round(cosine_schedule(s, 2, 6, 1.0, 0.1), 3) for s in range(8)]
    [0.333, 0.667, 1.0, 0.868, 0.55, 0.232, 0.1, 0.1]
    """
    if step < warmup:
        return max_lr * (step + 1) / (warmup + 1)
    if step >= total:
        return min_lr
    done = (step - warmup) / (total - warmup)
    return min_lr + 0.5 * (1 + math.cos(math.pi * done)) * (max_lr - min_lr)
