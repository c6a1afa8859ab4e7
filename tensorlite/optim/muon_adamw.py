"""Muon for the matrices of a model and AdamW for the rest, as one optimizer."""

from __future__ import annotations

from .adamw import AdamW
from .muon import QUINTIC, check_matrices, muon_update
from .optimizer import Optimizer


class MuonAdamW(AdamW):
    """Updates the groups that have the option "muon" as `Muon` does, and the others as `AdamW`.

    Embeddings, the output projection, norms and biases are for AdamW, also where they are matrices
    (Jordan et al., 2024). The learning rates differ:

        MuonAdamW([{"params": matrices, "muon": True, "lr": 0.02}, {"params": rest}], lr=3e-3)

    The state of a matrix has the slot "m" alone; its "v" is empty. Raises as both classes do.
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
    ):
        options = dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)
        options |= dict(momentum=momentum, polynomials=polynomials, splits=splits, muon=muon)
        Optimizer.__init__(self, params_or_groups, **options)
        first = 0
        for group in self.groups:
            if group["muon"]:
                check_matrices(group, self.names[first:])
            first += len(group["params"])

    def slots_of(self, group):
        return ("m",) if group["muon"] else self.slots

    def update_all(self, ready):
        super().update_all([entry for entry in ready if not entry[1]["muon"]])
        for _, group, (p, g, *m) in ready:
            if group["muon"]:
                muon_update(group, p, g if self.scale is None else g * self.scale, *m)
