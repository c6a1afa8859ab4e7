"""Which optimizer updates which parameters, and with which learning rate."""

from __future__ import annotations

from tensorlite import nn
from tensorlite.optim import AdamW, cosine_schedule
from tensorlite.parallel import ALONE, Sharded, Team

from .settings import RunSettings


def make_optimizer(model: nn.Module, settings: RunSettings, team: Team = ALONE) -> AdamW | Sharded:
    """AdamW for what trains in the model: all parameters that require a gradient.

    Weight decay is on matrices and embeddings, none on biases and norms.
    """
    params = [p for p in model.parameters() if p.requires_grad]

    def make(pieces):  # of (a parameter, the piece of it that is updated here)
        return AdamW(
            [
                {"params": [piece for p, piece in pieces if p.ndim >= 2]},
                {"params": [piece for p, piece in pieces if p.ndim < 2], "weight_decay": 0.0},
            ],
            lr=settings.learning_rate,
            betas=(settings.beta1, settings.beta2),
            weight_decay=settings.weight_decay,
        )

    return make(list(zip(params, params))) if team.size == 1 else Sharded(params, make, team)


def learning_rate(settings: RunSettings, step: int) -> float:
    """The learning rate of the update that follows `step` finished ones."""
    s = settings
    if not s.decay_lr:
        return s.learning_rate
    min_lr = s.learning_rate / 10 if s.min_lr is None else s.min_lr
    return cosine_schedule(
        step, s.warmup_iters, s.lr_decay_iters or s.max_iters, s.learning_rate, min_lr
    )
