"""Pairs of a better and a worse answer, which reward models and DPO train on."""

from __future__ import annotations

import numpy as np

import tensorlite as tl
from tensorlite import Tensor


def log_sigmoid(x: Tensor) -> Tensor:
    """log(1 / (1 + exp(-x))), element by element, exact for large x of either sign."""
    return -tl.logsumexp(tl.stack([Tensor(np.zeros_like(x.data)), -x]), axis=0)
