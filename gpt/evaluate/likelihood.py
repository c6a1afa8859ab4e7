"""How likely a model finds texts: the log-likelihood of continuations, each after its context.

Everything that is measured without generating asks for this: windows of a text (perplexity.py), and
the answers of a question (choices.py). How a pair of texts becomes ids is that of EleutherAI's
lm-evaluation-harness, so that figures compare.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from tqdm import tqdm

import tensorlite as tl

from ..data import pad_rows
from ..generate.ids import evaluating
from ..generate.text import encode_prompt
from ..model import GPT
from .loss import AT_A_TIME

LOGITS = 256  # tokens whose logits are held at a time, as many numbers each as there are ids


def encode_pair(model: GPT, tokenizer, context: str, continuation: str) -> tuple[list, list]:
    """The ids of a context, at least one, and those of its continuation.

    They are encoded together, and the continuation is what follows as many ids as the context has
    on its own. Spaces at the end of the context belong to the continuation, since tokens of words
    begin with them. An empty context stands for what begins a text (see `encode_prompt`).
    """
    space = context[len(context.rstrip()) :]
    context, continuation = context.removesuffix(space), space + continuation
    if not context:
        return beginning(model, tokenizer), tokenizer.encode_ordinary(continuation)
    own = tokenizer.encode_ordinary(context)
    whole = tokenizer.encode_ordinary(context + continuation)
    return [*tokenizer.prefix_ids, *own], whole[len(own) :]


def beginning(model: GPT, tokenizer) -> list[int]:
    """The ids that stand before a text of which every token is to be predicted."""
    return encode_prompt(model, tokenizer, "", ())


def loglikelihoods(
    model: GPT,
    pairs: Sequence[tuple[Sequence[int], Sequence[int]]],
    at_a_time: int = AT_A_TIME,
    what: str = "texts",
) -> tuple[np.ndarray, np.ndarray]:
    """log p of each continuation after its context, in nats, and whether it is the greedy one.

    `pairs` are n contexts and continuations in ids. Of a pair that is longer than the model's
    context and one token more, the beginning is left out. Returns (n,) float64 and (n,) bool: True
    where each of its tokens is the likeliest at its place.

    About `at_a_time` tokens are read in one batch of texts of similar length. What stands behind a
    text in its row changes no result, because no position sees a later one. Pairs that differ in
    the last token only are read once.

    Raises ValueError for a pair without a context or continuation, or with a continuation longer
    than the model's context; FloatingPointError where a log-probability is not a number.
    """
    T = model.config.block_size
    members: dict[tuple, list[int]] = {}  # what the model reads -> the pairs that ask for it
    for i, (context, continuation) in enumerate(pairs):
        if not (context and 0 < len(continuation) <= T):
            raise ValueError(
                f"text {i + 1} has {len(context)} tokens of context and {len(continuation)} after "
                f"it: at least one of each is needed, and at most {T} after it"
            )
        members.setdefault(tuple([*context, *continuation][-T - 1 : -1]), []).append(i)
    logprobs, greedy = np.zeros(len(pairs)), np.zeros(len(pairs), bool)
    bar = tqdm(total=len(members), desc=what, unit="text", leave=False, disable=None, delay=2)
    with bar, evaluating(model), tl.no_grad():
        for rows in batches(model, members, at_a_time):
            row_of = [k for k, row in enumerate(rows) for _ in members[row]]
            numbers = [i for row in rows for i in members[row]]
            found = _read(model, rows, row_of, [pairs[i][1] for i in numbers])
            logprobs[numbers], greedy[numbers] = found
            bar.update(len(rows))
    if not np.isfinite(logprobs).all():
        raise FloatingPointError("the model gives log-probabilities that are not finite numbers")
    return logprobs, greedy


def batches(model: GPT, rows: Iterable[tuple], at_a_time: int) -> Iterator[list[tuple]]:
    """The rows in lists of similar length, the longest first: at most `at_a_time` ids, or one row.

    Rotary positions that are stretched for longer texts ("dynamic") depend on the longest row, so
    that there only rows of equal length are read together.
    """
    rope = getattr(model.config, "rope_parameters", {})
    equal = rope.get("rope_type") == "dynamic"
    batch: list[tuple] = []
    for row in sorted(rows, key=lambda row: (-len(row), row)):
        full = batch and (len(batch) + 1) * len(batch[0]) > at_a_time
        if full or (batch and equal and len(row) < len(batch[0])):
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def _read(model: GPT, rows, row_of, continuations) -> tuple[np.ndarray, np.ndarray]:
    """log p of n continuations, each at the end of row number `row_of` of B, and if greedy: (n,).

    A row ends before the last token of its continuations: m tokens in all are predicted.
    """
    n, sizes, targets = len(row_of), [len(c) for c in continuations], np.concatenate(continuations)
    ends = [len(rows[k]) for k in row_of]
    places = np.concatenate([np.arange(end - size, end) for end, size in zip(ends, sizes)])  # (m,)
    hidden = model.hidden(pad_rows(rows))[np.repeat(row_of, sizes), places]  # (B, T, C) -> (m, C)
    logprobs, missed = np.empty(len(targets)), np.empty(len(targets), bool)
    for i in range(0, len(targets), LOGITS):
        part = slice(i, i + LOGITS)
        logits = model.logits(hidden[part])  # (at most LOGITS, C) @ (C, V)
        logprobs[part] = -tl.cross_entropy(logits, targets[part], reduction="none").numpy()
        missed[part] = tl.tensor(logits.data.argmax(axis=-1)).numpy() != targets[part]
    of = np.repeat(np.arange(n), sizes)  # (m,): the continuation that a token belongs to
    return np.bincount(of, logprobs, minlength=n), np.bincount(of, missed, minlength=n) == 0
