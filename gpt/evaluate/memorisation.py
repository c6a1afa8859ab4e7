"""Memorisation: does a model repeat its training text word for word?

As in Carlini et al. (2023), the model reads the beginning of a piece of the training text and
continues it greedily. The piece counts as memorised when the continuation is exactly what stands
there. Common phrases are continued rightly without having been learnt by heart: the share on a text
that the model was not trained on tells how often.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from tqdm import tqdm

from tensorlite.device import random

from ..generate import generate_ids
from ..model import GPT
from .estimate import Sample
from .result import Result

LENGTH = 50  # tokens, of the part that is read, and of the continuation


def memorisation(
    model: GPT,
    tokenizer,
    texts: Sequence[str],
    pieces: int = 100,
    length: int | None = None,
    batch_size: int = 8,
    seed: int = 1337,
) -> Result:
    """The figures "memorised", of pieces that are repeated whole, and "repeated", of their tokens.

    Pieces of 2 * length tokens begin at random places of the texts. The model reads the first half.
    "repeated" is the mean share of the second half up to the first difference. `length` is LENGTH,
    or less where the model's context is shorter. Raises ValueError where the texts are too short.
    """
    most = model.config.block_size // 2
    length = min(LENGTH, most) if length is None else length
    if not 1 <= length <= most or pieces < 1:
        raise ValueError(
            f"--length is 1 to half of the model's context, {most}, and --pieces at least 1: "
            f"{length}, {pieces}"
        )
    drawn = draw_pieces(tokenizer, texts, pieces, 2 * length, seed)
    items = []
    with tqdm(total=pieces, desc="pieces", leave=False, disable=None, delay=2) as bar:
        for i in range(0, pieces, batch_size):
            rows = [ids for _, ids in drawn[i : i + batch_size]]
            read = [ids[:length] for ids in rows]
            for (place, ids), new in zip(
                drawn[i : i + batch_size], generate_ids(model, read, length, temperature=0)
            ):
                same = [a == b for a, b in zip(new, ids[length:])]
                items.append({**place, "repeated": [*same, False].index(False)})
            bar.update(len(rows))
    repeated = np.array([item["repeated"] for item in items], np.float64)
    figures = {
        "memorised": [Sample((repeated == length).astype(np.float64))],
        "repeated": [Sample(repeated / length)],
    }
    return Result(figures, dict(pieces=pieces, length=length, seed=seed), items)


def draw_pieces(
    tokenizer, texts: Sequence[str], pieces: int, length: int, seed: int
) -> list[tuple[dict, list[int]]]:
    """Random pieces of `length` tokens that begin with a word: ({"text", "character"}, ids)."""
    rng, ends, found = random(seed, "pieces"), np.cumsum([len(text) for text in texts]), []
    for _ in range(20 * pieces):
        if len(found) == pieces:
            break
        place = int(rng.integers(ends[-1]))
        number = int(np.searchsorted(ends, place, side="right"))
        text = texts[number]
        begin = place - int(ends[number]) + len(text)
        space = re.compile(r"\s").search(text, begin, begin + 50)  # there need not be any
        begin = space.start() if space else begin
        ids = tokenizer.encode_ordinary(text[begin : begin + 20 * length])
        if len(ids) >= length + (begin + 20 * length < len(text)):
            found.append(({"text": number + 1, "character": begin}, ids[:length]))
    if len(found) < pieces:
        raise ValueError(f"the text is too short for {pieces} random pieces of {length} tokens")
    return found
