"""Stochastic gradient descent."""

from __future__ import annotations

import numpy as np

from .optimizer import Optimizer


class SGD(Optimizer):
    """Stochastic gradient descent with momentum: v = momentum * v + g, then p -= lr * v.

    g is the gradient plus weight_decay * p. Without momentum, v = g and no v is kept.
    """

    def __init__(self, params_or_groups, lr: float, momentum: float = 0.0, weight_decay=0.0):
        super().__init__(params_or_groups, lr=lr, momentum=momentum, weight_decay=weight_decay)
        if any(group["momentum"] for group in self.groups):
            self.slots = ("v",)
            self.state = {"v": [np.zeros_like(p.data) for p in self.params]}

    def step(self):
        if not self.slots and any(group["momentum"] > 0 for group in self.groups):
            raise ValueError("momentum was 0 when this SGD was made: make a new one with momentum")
        super().step()

    def update(self, group, t, p, g, v=None):
        if group["weight_decay"]:
            g = g + group["weight_decay"] * p
        if v is not None:
            v *= group["momentum"]
            v += g
            g = v
        p -= group["lr"] * g
