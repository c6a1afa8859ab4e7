"""Direct preference optimization (DPO) and its relatives."""

from __future__ import annotations

from tensorlite import Tensor

from .pairs import log_sigmoid

# =================================================================================================
# The losses of pairs
# =================================================================================================

# `chosen` and `rejected` are scores of the two answers of each pair, (B,): for DPO log pi - log ref,
# the log-probability that the model gives to the answer less that which the starting model gave;
# for IPO the same per token; for SimPO log pi per token.


def dpo_loss(chosen: Tensor, rejected: Tensor, beta: float, label_smoothing: float = 0.0) -> Tensor:
    """Rafailov et al., 2023, equation 7; with `label_smoothing`, the share of pairs that are the
    wrong way round, the conservative DPO of Mitchell, 2023. (B,)"""
    margin = beta * (chosen - rejected)
    return (label_smoothing - 1) * log_sigmoid(margin) - label_smoothing * log_sigmoid(-margin)


def ipo_loss(chosen: Tensor, rejected: Tensor, beta: float) -> Tensor:
    """Azar et al., 2023, equation 17: the margin goes to 1 / (2 beta) and no further. (B,)"""
    return (chosen - rejected - 1 / (2 * beta)) ** 2


def simpo_loss(chosen: Tensor, rejected: Tensor, beta: float, gamma: float) -> Tensor:
    """Meng et al., 2024, equation 6: no reference, and a margin of at least gamma. (B,)"""
    return -log_sigmoid(beta * (chosen - rejected) - gamma)
