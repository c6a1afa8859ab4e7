"""Muon for the matrices of a model, AdamW and Adagrad for the rest, as one optimizer."""

from __future__ import annotations

from .adagrad import adagrad_update
from .adamw import AdamW
from .muon import QUINTIC, check_matrices, muon_update
from .optimizer import Optimizer


class MuonAdamW(AdamW):
    """Updates the groups that have the option "muon" as `Muon` does, and the others as `AdamW`.

    Embeddings, the output projection, norms and biases are for AdamW, also where they are matrices
    (Jordan et al., 2024). The learning rates differ:

        MuonAdamW([{"params": matrices, "muon": True, "lr": 0.02}, {"params": rest}], lr=3e-3)

    A group with the option "adagrad" is updated as `Adagrad` does: large tables of embeddings, of
    which a batch uses few rows. It has no weight decay, and the `eps` of AdamW (1e-8, where Adagrad
    alone has 1e-10).

    The state of a matrix has the slot "m" alone, and its "v" is empty; that of Adagrad has only
    "v". Raises as the three classes do, and ValueError for Adagrad with weight decay.
    """

    def __init__(
        self,
        params_or_groups,
        lr=1e-3,
        betas=(0.9, 0.999),
        eps=1e-8,
        weight_decay=0.01,
        momentum=0.95,
        polynomials=QUINTIC,
        splits=1,
        muon=False,
        adagrad=False,
    ):
        options = dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)
        options |= dict(momentum=momentum, polynomials=polynomials, splits=splits, muon=muon)
        options |= dict(adagrad=adagrad)
        Optimizer.__init__(self, params_or_groups, **options)
        first = 0
        for group in self.groups:
            if group["muon"]:
                check_matrices(group, self.names[first:])
            if group["adagrad"] and (group["muon"] or group["weight_decay"]):
                raise ValueError(
                    "a group for Adagrad has neither Muon nor weight decay, and this one has muon "
                    f"{group['muon']} and weight_decay {group['weight_decay']}"
                )
            first += len(group["params"])

    def slots_of(self, group):
        return ("m",) if group["muon"] else ("v",) if group["adagrad"] else self.slots

    def update_all(self, ready):
        others = [entry for entry in ready if not (entry[1]["muon"] or entry[1]["adagrad"])]
        super().update_all(others)
        for _, group, (p, g, *state) in ready:
            if group["muon"]:
                muon_update(group, p, g if self.scale is None else g * self.scale, *state)
            elif group["adagrad"]:
                adagrad_update(group, p, g, *state, self.scale)
