"""Pretraining, the first task: to predict the next token of text, everywhere in random windows."""

from __future__ import annotations

import math

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

    They are arrays or `ShardedTokens`. The windows of a `Mixture` come in an order of its own.
    With `documents` "packed", the documents in a window do not see each other.

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
        check_length(val_tokens, settings.block_size, "validation")
        self.settings, self.train_tokens, self.val_tokens = settings, train_tokens, val_tokens
        self.tokens_per_example = settings.block_size
        self.packed = settings.documents == "packed"
        self.order = None
        if isinstance(train_tokens, Mixture):
            n = settings.batch_size * settings.gradient_accumulation_steps
            self.order = Order(
                train_tokens, settings.block_size, n, settings.seed, settings.max_iters
            )

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
            names = (source.name for source in self.train_tokens.sources)
            passes = zip(names, self.order.passes())
            return "passes over " + ", ".join(f"{name}: {n:.2f}" for name, n in passes)
        s, n = self.settings, len(self.train_tokens)
        seen = s.max_iters * s.batch_size * s.gradient_accumulation_steps * s.block_size
        if seen <= ENOUGH * n:
            return ""
        return (
            f"the run reads its {n:,} tokens {seen / n:.0f} times: beyond about {ENOUGH} times, "
            "more text teaches more than more steps or a larger model"
        )

    def evaluate(self, model: GPT, team: Team = ALONE) -> dict[str, float]:
        """An estimate of the loss on the validation split."""
        s = self.settings
        loss = estimate_loss(
            model, self.val_tokens, s.batch_size, s.eval_iters, s.seed, team, self.packed
        )
        return {"val_loss": loss}

    def final(self, model: GPT, team: Team, tokenizer, val_text: str | None) -> dict:
        """The loss on the whole validation split, measured once, at the end of the run.

        All are None with --skip_final_eval. `val_loss_full_error` is a standard error, None for a
        split of a single batch. `bits_per_byte` needs a tokenizer, and the
        text of the split where that has characters which the tokenizer does not know.
        """
        s, loss, error, bits = self.settings, None, None, None
        if not s.skip_final_eval:
            loss, error = loss_and_error(
                model,
                self.val_tokens,
                s.batch_size,
                team,
                say=lambda text: team.rank == 0 and print(text, flush=True),
                documents=self.packed,
            )
            if tokenizer:
                with harmless("bits per byte"):
                    bits = bits_per_byte(loss, self.val_tokens, s.block_size, tokenizer, val_text)
        error = None if error is None or math.isnan(error) else error
        return {"val_loss_full": loss, "val_loss_full_error": error, "bits_per_byte": bits}
