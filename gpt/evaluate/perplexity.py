"""Perplexity, and bits per byte, of texts, read through windows that slide over them.

A model sees at most its context. The first window is a full context; each further one moves on by
`stride` tokens and predicts these, so that each token of a text is predicted once, the first too,
and has at least block_size - stride tokens before it. A smaller stride gives more context, takes
longer and finds a lower perplexity: compare figures of equal strides only.

Perplexity is exp of the mean loss per token, and only compares models with the same tokenizer. Bits
per byte divide the loss of all of the text by its bytes, and compare any models.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from tokenizer.base import replace_surrogates

from ..model import GPT
from .estimate import Sample
from .likelihood import beginning, loglikelihoods
from .loss import AT_A_TIME, holds_unknown
from .result import Result

BLOCKS = 100  # of a text, of neighbouring windows: what its intervals are estimated from


def perplexity(
    model: GPT,
    tokenizer,
    texts: Sequence[str],
    stride: int | None = None,
    at_a_time: int = AT_A_TIME,
) -> Result:
    """The loss of texts, each from its beginning: "perplexity", "bits_per_byte" and "loss".

    `stride` is half of the context unless given. Standard errors take several texts as the items;
    a single text is divided into at most BLOCKS blocks, since neighbouring tokens are alike.

    Raises ValueError for a stride that is not 1 to block_size, and for no text at all.
    """
    block_size = model.config.block_size
    stride = max(1, block_size // 2) if stride is None else stride
    if not 1 <= stride <= block_size:
        raise ValueError(f"--stride is 1 to the model's context of {block_size}, not {stride}")
    texts = [text for text in texts if text]
    if not texts:
        raise ValueError("there is no text to measure a perplexity on")
    before = beginning(model, tokenizer)
    pairs, rows, notes = [], [], []  # a row for a window: its text, tokens, bytes
    for number, text in enumerate(texts):
        own = tokenizer.encode_to_numpy(text, (), ())
        ids = np.concatenate([before, own]).astype(np.int64)
        if holds_unknown(tokenizer, own):
            n = int((own == tokenizer.unknown_id).sum())
            notes.append(f"text {number + 1} has {n:,} characters that the tokenizer does not know")
        first = len(rows)
        for start, begin, end in windows(len(ids), len(before), block_size, stride):
            pairs.append((ids[start:begin].tolist(), ids[begin:end].tolist()))
            rows.append([number, end - begin, len(tokenizer.decode_bytes(pairs[-1][1]))])
        share = len(replace_surrogates(text).encode()) / max(1, sum(row[2] for row in rows[first:]))
        for row in rows[first:]:  # a tokenizer may have changed the text: its own bytes count
            row[2] *= share
    logprobs, _ = loglikelihoods(model, pairs, at_a_time, "windows")
    number, tokens, n_bytes = np.array(rows, np.float64).T  # (windows,) each
    item = number if len(texts) > 1 else np.arange(len(rows)) * min(BLOCKS, len(rows)) // len(rows)
    nats, tokens, n_bytes = (
        np.bincount(item.astype(np.int64), x) for x in (-logprobs, tokens, n_bytes)
    )
    figures = {
        "perplexity": [Sample(nats, tokens, exp=True)],
        "bits_per_byte": [Sample(nats / math.log(2), n_bytes)],
        "loss": [Sample(nats, tokens)],
    }
    settings = dict(stride=stride, block_size=block_size, tokens=int(tokens.sum()))
    settings |= dict(bytes=round(n_bytes.sum()), texts=len(texts))
    items = [
        {"nats": a, "tokens": int(b), "bytes": c}
        for a, b, c in zip(*map(np.ndarray.tolist, (nats, tokens, n_bytes)))
    ]
    return Result(figures, settings, items, notes=notes)


def windows(n: int, first: int, block_size: int, stride: int) -> Iterator[tuple[int, int, int]]:
    """(start, begin, end) of windows over n ids: those from begin on are predicted, from start on.

    The ids before `first` are not predicted. A window reads at most block_size ids.

    >>> list(windows(8, 1, block_size=4, stride=2))
    [(0, 1, 5), (2, 5, 7), (3, 7, 8)]
    """
    begin, end = first, min(n, block_size + 1)
    while begin < n:
        yield max(0, end - 1 - block_size), begin, end
        begin, end = end, min(n, end + stride)
