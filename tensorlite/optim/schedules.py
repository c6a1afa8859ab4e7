"""Learning-rate schedules: the learning rate as a function of the step."""

from __future__ import annotations

import math


def cosine_schedule(step: int, warmup: int, total: int, max_lr: float, min_lr: float) -> float:
    """The learning rate of a step, counted from 0.

    It rises linearly to max_lr at step `warmup`, falls along half a cosine to min_lr at step
    `total`, and stays there.

    >>> [round(cosine_schedule(s, 2, 6, 1.0, 0.1), 3) for s in range(8)]
    [0.333, 0.667, 1.0, 0.868, 0.55, 0.232, 0.1, 0.1]
    """
    if step < warmup:
        return max_lr * (step + 1) / (warmup + 1)
    if step >= total:
        return min_lr
    done = (step - warmup) / (total - warmup)
    return min_lr + 0.5 * (1 + math.cos(math.pi * done)) * (max_lr - min_lr)


def wsd_schedule(
    step: int, warmup: int, decay: int, total: int, max_lr: float, min_lr: float = 0.0
) -> float:
    """The learning rate of a step, counted from 0: warm-up, stable, decay (Hu et al., 2024).

    It rises linearly to max_lr at step `warmup`, stays there until `decay` steps before `total`,
    falls linearly to min_lr at step `total`, and stays there. Raises ValueError if warm-up and
    decay are longer than `total` together.

    >>> [round(wsd_schedule(s, 2, 4, 8, 1.0), 3) for s in range(10)]
    [0.333, 0.667, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
    """
    if warmup + decay > total:
        raise ValueError(f"{warmup} steps of warm-up and {decay} of decay, in {total} steps")
    if step < warmup:
        return max_lr * (step + 1) / (warmup + 1)
    left = max(0, total - step)
    return max_lr if left >= decay else min_lr + (max_lr - min_lr) * left / decay
