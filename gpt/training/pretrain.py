"""Pretraining, the first task: to predict the next token of text, everywhere in random windows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import numpy as np

from tensorlite import Tensor
from tensorlite.device import random
from tensorlite.parallel import ALONE, Team

from ..data import (
    Mixture,
    Order,
    ShardedTokens,
    check_length,
    draw_batch,
    draw_documents,
    draw_starts,
)
from ..evaluate import bits_per_byte, estimate_loss, loss_and_error
from ..model import GPT
from ..models import Packed
from .output import harmless
from .settings import Settings
from .task import Batch

ENOUGH = 4  # times that text is read as usefully as new text would be (Muennighoff et al., 2023)


class Pretraining:
    """Windows of `block_size` tokens from `train_tokens`, measured on `val_tokens`: (N,) each.

    They are arrays or `ShardedTokens`. The windows of a `Mixture` come in an order of its own, and
    each of its sources is measured. With `documents` "packed", the documents in a window do not see
    each other.

    Raises ValueError where one of them is too short for a window, or where a mixture ends before
    the run.
    """

    def __init__(
        self,
        settings: Settings,
        train_tokens: np.ndarray | ShardedTokens,
        val_tokens: np.ndarray | ShardedTokens,
    ):
        check_length(train_tokens, settings.block_size, "training")
        self.settings, self.train_tokens = settings, train_tokens
        self.tokens_per_example = settings.block_size
        self.packed = settings.documents == "packed"
        self.order, self.names, self.val_parts, self.shares = None, [], [val_tokens], [1.0]
        if isinstance(train_tokens, Mixture):
            n = settings.batch_size * settings.gradient_accumulation_steps
            self.order = Order(
                train_tokens, settings.block_size, n, settings.seed, settings.max_iters
            )
            self.names = [source.name for source in train_tokens.sources]
            self.val_parts, self.shares = val_tokens.parts, self.order.shares()
        for name, tokens in zip(self.names or [""], self.val_parts):
            check_length(tokens, settings.block_size, f"{name} validation".lstrip())

    def batch(self, step: int, model: GPT, team: Team = ALONE) -> Batch:
        """Where the windows of this step start, (B,): the tokens are read when they are needed."""
        if self.order:
            return Batch(self.order.starts(step))
        s = self.settings
        n = s.batch_size * s.gradient_accumulation_steps
        rng = random(s.seed, "batch", step)
        return Batch(draw_starts(rng, len(self.train_tokens), n, s.block_size))

    def loss(self, model: GPT, examples: Batch, rng=None) -> Tensor:
        x, y = self.arrays(examples)  # (B, T), (B, T)
        if not self.packed:
            return self.loss_of(model, x, y, rng) * examples.share
        (starts,) = examples.arrays
        segments = draw_documents(self.train_tokens, starts, self.settings.block_size)  # (B, T)
        return model.loss(x, y, rng, Packed(segments)) * examples.share

    def arrays(self, examples: Batch) -> tuple[np.ndarray, np.ndarray]:
        """The tokens of some windows, and the tokens that follow each: (B, T), (B, T)."""
        (starts,) = examples.arrays
        return draw_batch(self.train_tokens, starts, self.settings.block_size)

    def loss_of(self, model: GPT, x, y, rng=None) -> Tensor:
        return model.loss(x, y, rng)

    def repetition(self) -> str:
        """A line where the text is too short for so long a run; otherwise none.

        Of a mixture, how often the run reads each source.
        """
        if self.order:
            passes = zip(self.names, self.order.passes())
            return "passes over " + ", ".join(f"{name}: {n:.3g}" for name, n in passes)
        s, n = self.settings, len(self.train_tokens)
        seen = s.max_iters * s.batch_size * s.gradient_accumulation_steps * s.block_size
        if seen <= ENOUGH * n:
            return ""
        return (
            f"the run reads its {n:,} tokens {seen / n:.0f} times: beyond about {ENOUGH} times, "
            "more text teaches more than more steps or a larger model"
        )

    def evaluate(self, model: GPT, team: Team = ALONE) -> dict[str, float]:
        """An estimate of the loss on the validation split; see `of_sources`."""
        s = self.settings
        losses = [
            estimate_loss(model, tokens, s.batch_size, s.eval_iters, s.seed, team, self.packed)
            for tokens in self.val_parts
        ]
        return self.of_sources("val_loss", losses)

    def final(self, model: GPT, team: Team, tokenizer, val_texts: Sequence[str | None]) -> dict:
        """The loss on the whole validation split, measured once, at the end of the run.

        All are None with --skip_final_eval. `val_loss_full_error` is a standard error, None for a
        split of a single batch. `bits_per_byte` needs a tokenizer, and the text of the split where
        that has characters which the tokenizer does not know: `val_texts` has that of each source.
        Of a mixture, each source is measured too: see `of_sources`.
        """
        s = self.settings
        if s.skip_final_eval:
            return {"val_loss_full": None, "val_loss_full_error": None, "bits_per_byte": None}
        say = partial(print, flush=True) if team.rank == 0 else None
        measured = [
            loss_and_error(model, tokens, s.batch_size, team, say, self.packed)
            for tokens in self.val_parts
        ]
        losses, deviations = zip(*measured)
        errors = self.of_sources("val_loss_full_error", deviations)
        errors["val_loss_full_error"] = math.hypot(*np.multiply(self.shares, deviations))
        bits = {"bits_per_byte": None}
        if tokenizer:
            with harmless("bits per byte"):
                each = [
                    bits_per_byte(loss, tokens, s.block_size, tokenizer, text)
                    for loss, tokens, text in zip(losses, self.val_parts, val_texts)
                ]
                bits = self.of_sources("bits_per_byte", each)
                if len(each) > 1:  # the bits of all tokens, and their bytes
                    nats = np.multiply(self.shares, losses)
                    bits["bits_per_byte"] = float(nats.sum() / (nats / each).sum())
        errors = {name: None if math.isnan(error) else error for name, error in errors.items()}
        return self.of_sources("val_loss_full", losses) | errors | bits

    def of_sources(self, name: str, values: Sequence[float]) -> dict[str, float]:
        """The mean of a figure of all sources, and "NAME/SOURCE" for each source of a mixture.

        A source weighs as much in the mean as in what the whole run reads.
        """
        each = {f"{name}/{source}": value for source, value in zip(self.names, values)}
        return {name: float(np.dot(self.shares, values))} | each
