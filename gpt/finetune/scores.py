"""From texts to the ids that a classifier reads, and to its logits for many of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

import tensorlite as tl
from tensorlite.parallel import ALONE, Team

from ..data import pad_rows
from ..generate import evaluating
from ..models import Classifier
from .epochs import portions


def text_ids(model: Classifier, tokenizer, texts: Sequence[str]) -> tuple[list[np.ndarray], int]:
    """The ids of each text, (N,) each, as `model` reads them, and how many texts had to be cut.

    A text stands between the ids that the tokenizer puts around every one. One that is longer than
    the model's context loses its end, or its beginning if `model.truncation_side` is "left". Ids of
    padding at the end do not count, as in transformers; an empty text is such an id, or 0 for a
    model that has none.
    """
    pad = model.config.pad_token_id
    before, after = tokenizer.prefix_ids, tokenizer.suffix_ids
    room, n_cut, rows = model.config.block_size - len(before) - len(after), 0, []
    if room < 1:
        raise ValueError(f"a context of {model.config.block_size} tokens has no room for a text")
    for text in texts:
        ids = tokenizer.encode_ordinary(text)
        n_cut += len(ids) > room
        ids = ids[:room] if model.truncation_side == "right" else ids[-room:]
        ids = [*before, *ids, *after]
        while ids and ids[-1] == pad:
            ids.pop()
        rows.append(np.array(ids or [pad or 0], np.int64))
    return rows, n_cut


def scores(model: Classifier, rows: Sequence[np.ndarray], team: Team = ALONE) -> np.ndarray:
    """The logits (N, n) of N texts of ids, without dropout.

    The ranks of a team divide the texts among them, and all get all logits.
    """
    logits = np.zeros((len(rows), len(model.labels)))
    with evaluating(model), tl.no_grad():
        for part in portions([len(row) for row in rows], team):
            texts = [rows[i] for i in part]
            logits[part] = model(pad_rows(texts), [len(text) for text in texts]).numpy()
    return team.sum(logits)
