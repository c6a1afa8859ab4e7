"""Writing text on a GPU: Python is told what was drawn while the GPU writes on.

In the loop of ids.py, a step launches hundreds of small kernels from Python and waits for logits.
Here a step (gpu_forward.py) is recorded once (gpu_step.py), and each token is one launch of the
recording: all that changes from step to step lies in the GPU's memory. Nothing waits for a token;
they are copied back a few at a time, while the next few are computed.

The tokens are those that the loop of ids.py would draw, up to rounding: the random numbers are the
same, and the kernel that draws goes by the rules of sampling.py. Where a writer does not take a
token, its own draw decides, and the recorded steps begin again behind it.
"""

from __future__ import annotations

import contextlib
import warnings
import weakref
from collections.abc import Iterator, Sequence

import numpy as np

from tensorlite.kernels.draw import MOST_IDS, fractions

from .context import Context
from .gpu_forward import is_plain
from .gpu_step import AHEAD, Step

# The last recorded step of a model, with its memory, for the next texts. It is nobody's while texts
# are written with it, so that other texts of the same model, written meanwhile, record their own.
_kept: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


@contextlib.contextmanager
def recorded_steps(context: Context, writers: Sequence, draft=None) -> Iterator[Recorded | None]:
    """What lets these texts grow by recorded steps; None, with a warning, where that cannot be."""
    reason = _why_not(context, writers, draft) if writers else ""
    if reason:
        warn_unrecorded(reason)
    if reason or not writers:
        yield None
        return
    model, recorded = context.model, Recorded(context)
    kept = _kept.pop(model, None)
    if kept is not None and kept.fits(model, context.size, writers):
        recorded.step = recorded.largest = kept
        context.cache = kept.prepare()
    try:
        yield recorded
    finally:
        # An adapter may be exchanged or merged, of which a recording would know nothing.
        if recorded.largest is not None and is_plain(model):
            _kept[model] = recorded.largest


def _why_not(context: Context, writers: Sequence, draft) -> str:
    vocab_size = context.model.config.vocab_size
    first, zeros = writers[0], np.zeros(vocab_size, np.float32)
    s = first.sampling
    if draft is not None:
        return "a draft"
    if getattr(context.model.config, "ngrams", ()):
        return "a table of n-grams"
    if not context.use_cache:
        return "reading without a cache"
    if s.repetition_penalty != 1 or s.presence_penalty or s.frequency_penalty:
        return "a penalty for tokens that the text has"
    if any(w.constraint is not None for w in writers):
        return "a constraint"
    possible = first.possible(zeros)
    if any(w.sampling != s or not np.array_equal(w.possible(zeros), possible) for w in writers):
        return "drawing the texts of a batch in different ways"
    return f"a vocabulary of more than {MOST_IDS} ids" if vocab_size > MOST_IDS else ""


def warn_unrecorded(reason: str) -> None:
    """Say, once for each reason, why tokens are drawn one by one."""
    warnings.warn(
        f"{reason} is no part of a recorded step: Python waits for the GPU at each token",
        stacklevel=2,
    )


class Recorded:
    """Lets the texts that a `Context` reads grow by recorded steps, while its cache has room."""

    def __init__(self, context: Context):
        self.context, self.usable = context, True
        self.step: Step | None = None  # for the texts that are left
        self.largest: Step | None = None  # for all of them

    def run(self, writers: Sequence) -> Iterator[None]:
        """Let the writers' texts grow; yields whenever each has been told of a token.

        The context has read all of the texts but their last tokens. Ends when there is no more room
        in the cache, when half of the texts are finished (until then, those take part in vain), and
        when a writer did not take its token but drew another.
        """
        context, cache = self.context, self.context.cache
        left = max((w.end - len(w.ids) for w in writers if w.finish is None), default=0)
        n = min(left, cache.size - cache.length) if cache is not None and self.usable else 0
        if n < 1 or not self._recorded(writers):
            return
        texts = [[*w.ids] for w in writers]
        rows = [[*row, w.ids[-1]] for row, w in zip(context.rows, writers)]  # in the cache
        for tokens, logprobs in self._ahead(writers, n):  # (B,), (B,)
            refused = [
                i
                for i, w in enumerate(writers)
                if w.finish is None and not w.take_drawn(tokens[i], logprobs[i])
            ]
            cache.length += 1
            if refused:
                logits = context.read(texts)[:, -1]  # (B, V)
                for i in refused:
                    writers[i].take(logits[i])
            else:
                for text, row, token in zip(texts, rows, tokens):
                    text.append(token)
                    row.append(token)
                context.rows = rows
            yield
            if refused or 2 * sum(w.finish is None for w in writers) <= len(writers):
                return

    def _recorded(self, writers: Sequence) -> bool:
        """Whether there is a recorded step for these texts and this cache."""
        cache = self.context.cache
        if self.step is None or self.step.keys is not cache.keys:
            try:
                self.step = Step(self.context.model, cache, writers)
            except RuntimeError as error:
                warn_unrecorded(f"this model ({error})")
                self.usable = False
        self.largest = self.largest or self.step
        return self.usable

    def _ahead(self, writers: Sequence, n: int) -> Iterator[tuple[list[int], list[float]]]:
        """The tokens and log-probabilities that n steps draw: (B,) and (B,) for each."""
        places = [len(w.ids) for w in writers]
        drawing = writers[0].sampling.temperature > 0

        def numbers(step: int) -> np.ndarray:
            if not drawing:
                return np.zeros(len(writers), np.uint64)
            return fractions(w.random(place + step).random() for w, place in zip(writers, places))

        self.step.begin([w.ids[-1] for w in writers])
        reading = None
        for first in range(0, n, AHEAD):
            steps = range(first, min(first + AHEAD, n))
            launched = self.step.launch(np.stack([numbers(step) for step in steps]))
            if reading is not None:
                yield from reading()
            reading = launched
        yield from reading()
