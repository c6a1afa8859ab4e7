"""Beam search: the likeliest continuation as a whole, among the few that look best at each step."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from .sampling import Sampling


def beam_search(
    model,
    prompt: Sequence[int],
    max_new_tokens: int,
    num_beams: int,
    eos: Collection[int] = (),
    length_penalty: float = 1.0,
    sampling: Sampling | None = None,
) -> list[int]:
    raise NotImplementedError
