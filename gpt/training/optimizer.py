"""Which optimizer updates which parameters, and with which learning rate."""

from __future__ import annotations

import functools

from tensorlite import nn
from tensorlite.device import count_gpus
from tensorlite.optim import (
    POLAR_EXPRESS,
    AdamW,
    MuonAdamW,
    cosine_schedule,
    muon_cost,
    wsd_schedule,
)
from tensorlite.parallel import ALONE, Replicated, Sharded, Team, has_nccl
from tensorlite.tensor import Tensor

from .settings import RunSettings


def make_optimizer(model: nn.Module, settings: RunSettings, team: Team = ALONE) -> AdamW | Sharded:
    """The optimizer for what trains in the model: all parameters that require a gradient.

    With `--optimizer muon` it is Muon for the matrices of the blocks, Adagrad for the tables of
    n-grams, of which a batch uses few rows, and AdamW for the rest. Weight decay is on matrices and
    embeddings, none on biases, norms and these tables. Workers divide the update among them, unless
    each has a GPU of its own. Raises ValueError for Muon without such a matrix.
    """
    s = settings
    params = [p for p in model.parameters() if p.requires_grad]
    splits = block_matrices(model) if s.optimizer == "muon" else {}
    tables = set(ngram_tables(model)) if splits else set()
    kind = MuonAdamW if splits else AdamW
    own_gpu = s.device == "cuda" and team.size > 1 and count_gpus() >= team.local_size
    if kind is AdamW and own_gpu and has_nccl():
        kind = functools.partial(Replicated, team=team)

    def make(pieces):  # of (a parameter, the piece of it that is updated here)
        rest = [(p, piece) for p, piece in pieces if p not in splits and p not in tables]
        groups = [
            {"params": [piece for p, piece in rest if p.ndim >= 2]},
            {"params": [piece for p, piece in rest if p.ndim < 2], "weight_decay": 0.0},
        ]
        rows = [piece for p, piece in pieces if p in tables]
        if rows:
            groups.append({"params": rows, "adagrad": True, "weight_decay": 0.0})
        for n in sorted({*splits.values()}):
            matrices = [piece for p, piece in pieces if splits.get(p) == n]
            options = {"muon": True, "splits": n, "polynomials": POLAR_EXPRESS}
            groups.append({"params": matrices, "momentum": s.muon_momentum, **options})
        return kind(
            groups, lr=s.learning_rate, betas=(s.beta1, s.beta2), weight_decay=s.weight_decay
        )

    if team.size > 1 and kind in (AdamW, MuonAdamW):
        costs = {p: muon_cost(p.shape, n, len(POLAR_EXPRESS)) for p, n in splits.items()}
        return Sharded(params, make, team, whole=costs)
    return make(list(zip(params, params)))


def block_matrices(model: nn.Module) -> dict[Tensor, int]:
    """The matrices of the blocks that train, and how many each holds side by side.

    That is 3 for the fused projection to queries, keys and values. Raises ValueError for a model in
    which no matrix of a block trains.
    """
    blocks = [part.blocks for part in model.parts() if hasattr(part, "blocks")]
    splits = {
        p: 3 if name.endswith("c_attn.weight") else 1
        for modules in blocks
        for name, p in modules.named_parameters()
        if p.ndim == 2 and p.requires_grad
    }
    if not splits:
        raise ValueError(
            "--optimizer muon is for the matrices of the blocks, and none of them trains here: "
            "give --optimizer adamw"
        )
    return splits


def ngram_tables(model: nn.Module) -> list[Tensor]:
    """The embeddings of n-grams, of a model that has them."""
    parts = [part.ngrams for part in model.parts() if hasattr(part, "ngrams")]
    return [p for modules in parts for p in modules.parameters()]


def set_learning_rates(optimizer, settings: RunSettings, step: int) -> None:
    """Give each group of the optimizer its learning rate of that step, by the same factor."""
    lr = learning_rate(settings, step)
    for group in optimizer.groups:
        group["lr"] = lr
        if group.get("muon"):
            group["lr"] = lr * settings.muon_lr / settings.learning_rate
        elif group.get("adagrad"):
            group["lr"] = lr * settings.ngram_lr / settings.learning_rate


def learning_rate(settings: RunSettings, step: int) -> float:
    """The learning rate of the update that follows `step` finished ones."""
    s = settings
    if not s.decay_lr:
        return s.learning_rate
    end = s.lr_decay_iters or s.max_iters
    if s.schedule == "wsd":
        decay = s.decay_iters(end)
        return wsd_schedule(step, s.warmup_iters, decay, end, s.learning_rate, s.min_lr or 0.0)
    min_lr = s.learning_rate / 10 if s.min_lr is None else s.min_lr
    return cosine_schedule(step, s.warmup_iters, end, s.learning_rate, min_lr)
