"""AdamW: a step of about the same length for every parameter."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from .optimizer import Optimizer, check_range


class AdamW(Optimizer):
    """Adam with decoupled weight decay (Kingma and Ba, 2014; Loshchilov and Hutter, 2017).

    m and v are running means of the gradient and of its square. Since they start at zero, they are
    divided by 1 - beta^t, where t is the number of updates of the parameter. The weight decay
    lr * weight_decay * p is subtracted from the parameter directly and does not enter m and v.
    """

    counts = True
    slots = ("m", "v")

    def __init__(self, params_or_groups, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01):
        super().__init__(params_or_groups, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)

    def check_options(self, group):
        super().check_options(group)
        betas = group["betas"]
        if not isinstance(betas, (Sequence, np.ndarray)) or len(betas) != 2:
            raise ValueError(f"betas is {betas!r}; it must be two numbers")
        for name, beta in zip(("beta1", "beta2"), betas):
            check_range(name, beta, below=1)

    def update_all(self, ready):
        if ready and not isinstance(ready[0][2][0], np.ndarray):
            from ..kernels.update import step

            if step(ready, self.updates, self.scale):
                return
        super().update_all(ready)

    def update(self, group, t, p, g, m, v):
        lr, eps, (beta1, beta2) = group["lr"], group["eps"], group["betas"]
        correction1, correction2 = 1 - beta1**t, 1 - beta2**t
        scratch = g * (1 - beta1)
        m *= beta1
        m += scratch
        np.multiply(g, g, out=scratch)
        scratch *= 1 - beta2
        v *= beta2
        v += scratch
        # The update is lr (m / correction1) / (sqrt(v / correction2) + eps), written with fewer
        # divisions of arrays.
        np.sqrt(v, out=scratch)
        scratch += eps * math.sqrt(correction2)
        np.divide(m, scratch, out=scratch)
        scratch *= lr * math.sqrt(correction2) / correction1
        if group["weight_decay"]:
            p *= 1 - lr * group["weight_decay"]
        p -= scratch
