"""Optimizers, gradient clipping and learning-rate schedules.

optimizer.py is the base; sgd.py, adamw.py, adagrad.py and muon.py have one method each, and
muon_adamw.py divides a model among the last three.
"""

from .adagrad import Adagrad
from .adamw import AdamW
from .clipping import clip_grad_norm
from .muon import POLAR_EXPRESS, QUINTIC, Muon, muon_cost
from .muon_adamw import MuonAdamW
from .optimizer import Optimizer, check_distinct, load_state
from .schedules import cosine_schedule, wsd_schedule
from .sgd import SGD

__all__ = [
    "POLAR_EXPRESS",
    "QUINTIC",
    "SGD",
    "Adagrad",
    "AdamW",
    "Muon",
    "MuonAdamW",
    "Optimizer",
    "check_distinct",
    "clip_grad_norm",
    "cosine_schedule",
    "load_state",
    "muon_cost",
    "wsd_schedule",
]
