"""Beam search: the likeliest continuation as a whole, among the few that look best at each step.

The likeliest token each time need not lead to the likeliest text. So the best few beginnings, the
beams, grow together. Each step extends every beam by every token, and keeps the best. The score of
a text is the sum of the log-probabilities of its new tokens. Texts of different lengths are
compared by score / length ** length_penalty, where the end token counts as one of the new tokens,
and the prompt does not count.

The rules are those of transformers (`generate` with do_sample=False, early_stopping=False).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import numpy as np

from .context import Context
from .sampling import Sampling, top_k_ids


def beam_search(
    model,
    prompt: Sequence[int],
    max_new_tokens: int,
    num_beams: int,
    eos: Collection[int] = (),
    length_penalty: float = 1.0,
    sampling: Sampling | None = None,
    use_cache: bool = True,
) -> list[int]:
    """The ids that follow `prompt` in the best text that is found, without the end token.

    A `length_penalty` above 0 favours long texts, below 0 short ones. Of `sampling`, the bias and
    the penalties change the log-probabilities, as in transformers (they are not made to add up to
    1 again); the rest has no meaning here. Of texts with equal scores, the one that was finished
    earlier is better, then the one of the better beam, then the one with the smaller id.

    Raises ValueError for numbers out of range, FloatingPointError where the best score is not
    finite.
    """
    if num_beams < 1:
        raise ValueError(f"num_beams is at least 1, not {num_beams}")
    if not math.isfinite(length_penalty):
        raise ValueError(f"length_penalty is a finite number, not {length_penalty}")
    if max_new_tokens < 0:
        raise ValueError(f"max_new_tokens is at least 0, not {max_new_tokens}")
    context = Context(model, len(prompt) + max_new_tokens, use_cache)
    if context.on_gpu:
        from .gpu import warn_unrecorded

        warn_unrecorded("a beam search")
    beams, scores = [list(prompt)], np.zeros(1)  # n texts that grow, and their scores (n,)
    finished: list[tuple[float, list[int]]] = []  # the best num_beams (score, ids), best first
    # Of the candidates that are looked at, num_beams end with no end token.
    n_candidates = num_beams * max(2, 1 + len(eos))
    for length in range(1, max_new_tokens + 1):
        logits = context.read(beams)[:, -1]  # (n, V)
        totals = scores[:, None] + log_probabilities(logits, beams, len(prompt), sampling)
        candidates = best(totals.reshape(-1), n_candidates)  # of n x V
        grown, rows, scores = [], [], []
        for rank, candidate in enumerate(candidates.tolist()):
            row, new = divmod(candidate, totals.shape[1])
            score = totals[row, new]
            if new in eos or length == max_new_tokens:
                if rank < num_beams:
                    ids = beams[row][len(prompt) :] + ([] if new in eos else [new])
                    finished.append((score / length**length_penalty, ids))
            elif len(grown) < num_beams:
                grown.append([*beams[row], new])
                rows.append(row)
                scores.append(score)
        finished = sorted(finished, key=lambda text: -text[0])[:num_beams]
        if not grown:
            break
        # A beam's score only falls. Its length may make up for that later; this is not waited for.
        if len(finished) == num_beams and scores[0] / length**length_penalty <= finished[-1][0]:
            break
        context.keep(rows)
        beams, scores = grown, np.array(scores)
    return finished[0][1] if finished else []


def log_probabilities(logits, beams, begin: int, sampling: Sampling | None) -> np.ndarray:
    """The log-softmax of logits (n, V), in float64, with the bias and penalties of each beam."""
    z = logits.astype(np.float64)
    z -= z.max(axis=1, keepdims=True)
    z -= np.log(np.exp(z).sum(axis=1, keepdims=True))  # (n, V)
    if sampling is None:
        return z
    return np.stack([sampling.logits(row, text, begin) for row, text in zip(z, beams)])


def best(totals: np.ndarray, k: int) -> np.ndarray:
    """Where the k largest of these scores are, the largest first; never those of -inf."""
    largest = totals.max()  # nan if there is one
    if not math.isfinite(largest):
        raise FloatingPointError(f"the best score is {largest}: no token can be chosen")
    places = top_k_ids(totals, k)
    places = places[np.argsort(-totals[places], kind="stable")]
    return places[totals[places] > -np.inf]
