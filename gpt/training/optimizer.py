"""Which optimizer updates which parameters, and with which learning rate."""

from __future__ import annotations

import functools

from tensorlite import nn
from tensorlite.device import count_gpus
from tensorlite.optim import AdamW, cosine_schedule
from tensorlite.parallel import ALONE, Replicated, Sharded, Team, has_nccl

from .settings import RunSettings


def make_optimizer(model: nn.Module, settings: RunSettings, team: Team = ALONE) -> AdamW | Sharded:
    """AdamW for what trains in the model: all parameters that require a gradient.

    Weight decay is on matrices and embeddings, none on biases and norms. Workers divide the update
    among them, unless each has a GPU of its own.
    """
    params = [p for p in model.parameters() if p.requires_grad]
    own_gpu = settings.device == "cuda" and team.size > 1 and count_gpus() >= team.local_size
    kind = functools.partial(Replicated, team=team) if own_gpu and has_nccl() else AdamW

    def make(pieces):  # of (a parameter, the piece of it that is updated here)
        return kind(
            [
                {"params": [piece for p, piece in pieces if p.ndim >= 2]},
                {"params": [piece for p, piece in pieces if p.ndim < 2], "weight_decay": 0.0},
            ],
            lr=settings.learning_rate,
            betas=(settings.beta1, settings.beta2),
            weight_decay=settings.weight_decay,
        )

    if team.size > 1 and kind is AdamW:
        return Sharded(params, make, team)
    return make(list(zip(params, params)))


def learning_rate(settings: RunSettings, step: int) -> float:
    """The learning rate of the update that follows `step` finished ones."""
    s = settings
    if not s.decay_lr:
        return s.learning_rate
    min_lr = s.learning_rate / 10 if s.min_lr is None else s.min_lr
    return cosine_schedule(
        step, s.warmup_iters, s.lr_decay_iters or s.max_iters, s.learning_rate, min_lr
    )
