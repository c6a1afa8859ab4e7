"""How good is a model? Its loss on text that it was not trained on."""

from __future__ import annotations

import math

import numpy as np
from tqdm import tqdm

import tensorlite as tl
from tensorlite.device import random
from tensorlite.parallel import ALONE, Team
from tokenizer.base import replace_surrogates

from .data import draw_batch, draw_starts, full_windows
from .model import GPT


def estimate_loss(
    model: GPT, tokens, batch_size: int, batches: int, seed: int, team: Team = ALONE
) -> float:
    """The mean loss, in nats per token, over random windows of `tokens` (N,): a quick estimate.

    The windows depend on `seed` alone, so estimates of one run compare. The ranks of a team take
    turns with the batches.
    """
    block_size = model.config.block_size
    losses = np.zeros(batches)
    for i in range(team.rank, batches, team.size):
        starts = draw_starts(random(seed, "estimate", i), len(tokens), batch_size, block_size)
        losses[i] = _loss(model, *draw_batch(tokens, starts, block_size))
    return float(np.mean(team.sum(losses)))


def full_loss(model: GPT, tokens, batch_size: int, team: Team = ALONE) -> float:
    """The mean loss over all of `tokens` (N,), in non-overlapping windows of the block size.

    Each token behind the first is predicted once, except for less than a window at the end. The
    ranks of a team take turns with the batches.
    """
    block_size = model.config.block_size
    total, n = 0.0, 0
    bar = tqdm(
        total=(len(tokens) - 1) // block_size,
        desc="validation",
        unit="window",
        leave=False,
        disable=None if team.rank == 0 else True,
        delay=2,
    )
    with bar:
        for i, (x, y) in enumerate(full_windows(tokens, block_size, batch_size)):
            if i % team.size == team.rank:
                total += _loss(model, x, y) * y.size
            n += y.size
            bar.update(len(x))
    return team.sum(total) / n


def _loss(model: GPT, x, y) -> float:
    training = model.training
    model.eval()
    try:
        with tl.no_grad():
            return model.loss(x, y).item()
    finally:
        model.train(training)


def bits_per_byte(
    loss: float, tokens, block_size: int, tokenizer, text: str | None = None
) -> float | None:
    """The full loss in bits per byte of text, which compares between tokenizers.

    `tokens` and `block_size` as in `full_loss`: the bytes are those of the tokens it predicts, in
    UTF-8. A character tokenizer's id for unknown characters does not say which they were, so where
    `tokens` holds it, their bytes are counted in the `text` that they were made from; without the
    text the result is None. Raises ValueError for an id that the tokenizer does not have.
    """
    n = (len(tokens) - 1) // block_size * block_size
    if holds_unknown(tokenizer, tokens):
        if text is None:
            return None
        n_bytes = len(replace_surrogates(text)[1 : n + 1].encode())  # a character, an id
        return loss * n / math.log(2) / n_bytes
    n_bytes = sum(
        len(tokenizer.decode_bytes(tokens[i : min(i + 2**16, n + 1)].tolist()))
        for i in range(1, n + 1, 2**16)
    )
    return loss * n / math.log(2) / n_bytes


def holds_unknown(tokenizer, tokens) -> bool:
    """Whether there are characters among the tokens (N,) that the tokenizer does not know."""
    return hasattr(tokenizer, "unknown_id") and bool((tokens == tokenizer.unknown_id).any())
