"""GRPO's objective, as four small functions: what each token of an answer is worth.

Shao et al., 2024 (DeepSeekMath, arXiv:2402.03300); the variants dapo (Yu et al., 2025,
arXiv:2503.14476) and dr_grpo (Liu et al., 2025, arXiv:2503.20783) are a line each.

P prompts of a step, G answers to each; B = P G answers of T tokens.
"""

from __future__ import annotations

import numpy as np

from tensorlite import Tensor


def group_advantages(rewards: np.ndarray, by_spread: bool = True) -> np.ndarray:
    """How much better each answer is than its group: rewards (P, G) -> (P, G).

    The distance from the group's mean reward, divided by the standard deviation of its rewards
    (of the sample: n - 1), unless `by_spread` is False. A group of equal rewards has zeros.

    >>> group_advantages(np.array([[1.0, 0.0, 0.0], [1.0, 1.0, 1.0]])).round(2)
    array([[ 1.15, -0.58, -0.58],
           [ 0.  ,  0.  ,  0.  ]])
    """
    advantages = rewards - rewards.mean(axis=1, keepdims=True)  # (P, G)
    advantages[np.ptp(rewards, axis=1) == 0] = 0.0  # the mean of equal numbers may be rounded
    if by_spread:
        advantages /= rewards.std(axis=1, ddof=1, keepdims=True) + 1e-4
    return advantages


def clipped_objective(
    logprobs: Tensor, old: np.ndarray, advantages: np.ndarray, low: float, high: float
) -> tuple[Tensor, np.ndarray]:
    """What is to grow, token by token, (B, T), and which tokens are clipped, (B, T) bool.

    min(r A, clip(r, 1 - low, 1 + high) A), where r is the ratio of a token's probability to the one
    that it was drawn with: `logprobs` and `old` (B, T) are the logarithms; A is `advantages`
    (B, 1). A token that has already moved far in the direction of its advantage is clipped, and has
    no gradient (PPO: Schulman et al., 2017, arXiv:1707.06347).
    """
    ratio = np.exp(logprobs - old)  # (B, T)
    free, bounded = ratio * advantages, np.clip(ratio, 1 - low, 1 + high) * advantages  # (B, T)
    return np.minimum(free, bounded), free.data > bounded.data


def kl_estimate(logprobs, reference):
    """An estimate, token by token, of KL(model || reference): two (B, T) -> (B, T), at least 0.

    r - log r - 1, where r is the reference's probability of the token divided by the model's; the
    mean over tokens that the model has drawn is right (Schulman's k3, joschu.net/blog/kl-approx).
    """
    log_ratio = reference - logprobs  # (B, T)
    return np.exp(log_ratio) - log_ratio - 1


def token_weights(lengths: np.ndarray, loss_type: str, longest: int) -> np.ndarray:
    """What each token of an answer counts in the loss: lengths (B,) of answers -> (B,).

    grpo      the mean over answers of the mean over their tokens
    dapo      the mean over all tokens, so that long answers count more
    dr_grpo   the sum divided by a constant, the longest answer that is possible, so that a long
              wrong answer costs no less a token than a short one
    """
    n = len(lengths)
    if loss_type == "grpo":
        return 1 / (n * lengths)
    return np.full(n, 1 / (lengths.sum() if loss_type == "dapo" else n * longest))
