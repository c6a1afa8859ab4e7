"""The loss of a model on text that it was not trained on: a quick estimate, and all of it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np
from tqdm import tqdm

import tensorlite as tl
from tensorlite.device import random
from tensorlite.parallel import ALONE, Team
from tokenizer.base import replace_surrogates

from ..data import draw_batch, draw_documents, draw_starts, full_starts
from ..model import GPT
from ..models import Packed


def estimate_loss(
    model: GPT,
    tokens,
    batch_size: int,
    batches: int,
    seed: int,
    team: Team = ALONE,
    documents: bool = False,
) -> float:
    """The mean loss, in nats per token, over random windows of `tokens` (N,): a quick estimate.

    The windows depend on `seed` alone, so estimates of one run compare. The ranks of a team
    divide the batches among them. With `documents`, the documents in a window do not see each
    other; `tokens` are `ShardedTokens` that know them.
    """
    block_size = model.config.block_size
    losses = np.zeros(batches)
    for i in range(team.rank, batches, team.size):
        starts = draw_starts(random(seed, "estimate", i), len(tokens), batch_size, block_size)
        losses[i] = _loss(model, tokens, starts, documents)
    return float(np.mean(team.sum(losses)))


AT_A_TIME = 1024  # tokens on a CPU: enough for BLAS, few enough for arrays to stay in the cache


def full_loss(
    model: GPT,
    tokens,
    batch_size: int,
    team: Team = ALONE,
    say: Callable[[str], None] | None = None,
) -> float:
    """The mean loss over all of `tokens` (N,), in nats per token: the first of `loss_and_error`."""
    return loss_and_error(model, tokens, batch_size, team, say)[0]


def loss_and_error(
    model: GPT,
    tokens,
    batch_size: int,
    team: Team = ALONE,
    say: Callable[[str], None] | None = None,
    documents: bool = False,
) -> tuple[float, float]:
    """The mean loss over all of `tokens` (N,) in windows of the block size, and its standard error.

    The windows do not overlap: each token after the first is predicted once, and fewer tokens than
    a window at the end are left out. The error is that of a mean over batches of neighbouring
    windows; it is NaN for a single batch. The ranks of a team divide the batches among them; a
    batch has at least `batch_size` windows. A terminal shows a progress bar; elsewhere `say` is
    called with a line about the progress every five seconds. `documents` is that of
    `estimate_loss`.
    """
    block_size = model.config.block_size
    batch_size = max(batch_size, AT_A_TIME // block_size)
    batches = -(-((len(tokens) - 1) // block_size) // batch_size)
    losses, sizes = np.zeros(batches), np.zeros(batches)
    began = shown = time.monotonic()
    bar = tqdm(
        total=(len(tokens) - 1) // block_size,
        desc="validation",
        unit="window",
        leave=False,
        disable=None if team.rank == 0 else True,
        delay=2,
    )
    with bar:
        for i, starts in enumerate(full_starts(len(tokens), block_size, batch_size)):
            if i % team.size == team.rank:
                losses[i] = _loss(model, tokens, starts, documents)
            sizes[i] = len(starts) * block_size
            bar.update(len(starts))
            if say and bar.disable and time.monotonic() - shown > 5:
                shown = time.monotonic()
                done = sizes.sum() / block_size / bar.total
                left = duration((shown - began) * (1 - done) / done)
                say(f"validation: {done:.0%} of {bar.total:,} windows, {left} left")
    losses = team.sum(losses)
    shares = sizes / sizes.sum()
    mean = float(losses @ shares)
    square = ((losses - mean) ** 2) @ shares**2
    return mean, math.sqrt(square * batches / (batches - 1)) if batches > 1 else math.nan


def _loss(model: GPT, tokens, starts: np.ndarray, documents: bool) -> float:
    """The mean loss of the windows at `starts`, (B,)."""
    x, y = draw_batch(tokens, starts, model.config.block_size)  # (B, T), (B, T)
    training = model.training
    model.eval()
    try:
        with tl.no_grad():
            if documents:
                packed = Packed(draw_documents(tokens, starts, model.config.block_size))
                return model.loss(x, y, packed=packed).item()
            return (model.replay or model.loss)(x, y).item()
    finally:
        model.train(training)


def duration(seconds: float) -> str:
    """
    >>> duration(3725.4), duration(65.2)
    ('1 h 2 min', '1 min 5 s')
    """
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"


def bits_per_byte(
    loss: float, tokens, block_size: int, tokenizer, text: str | None = None
) -> float:
    """The full loss in bits per byte of text, which can be compared between tokenizers.

    `tokens` and `block_size` are those of `full_loss`; the bytes are those of the tokens that it
    predicts, in UTF-8. The end of a text and other special tokens are predicted too, and have no
    bytes. A character tokenizer has one id for all unknown characters. Where `tokens` holds it, the
    bytes are counted in the `text` that the tokens were made from. Raises ValueError where that
    text is needed and not given, and for an id that the tokenizer does not have.
    """
    n = (len(tokens) - 1) // block_size * block_size
    if holds_unknown(tokenizer, tokens):
        if text is None:
            raise ValueError(
                "the tokens hold characters that the tokenizer does not know, and not their bytes"
            )
        n_bytes = len(replace_surrogates(text)[1 : n + 1].encode())  # a character, an id
        return loss * n / math.log(2) / n_bytes
    special = list(tokenizer.special_tokens.values())
    n_bytes = 0
    for i in range(1, n + 1, 2**16):
        part = np.asarray(tokens[i : min(i + 2**16, n + 1)])
        n_bytes += len(tokenizer.decode_bytes(part[~np.isin(part, special)].tolist()))
    return loss * n / math.log(2) / n_bytes


def holds_unknown(tokenizer, tokens) -> bool:
    """Whether there are characters among the tokens (N,) that the tokenizer does not know."""
    parts = (tokens[i : i + 2**20] for i in range(0, len(tokens), 2**20))
    return hasattr(tokenizer, "unknown_id") and any(tokenizer.unknown_id in part for part in parts)
