"""Several tokens a pass: something cheap guesses what the model will say (Leviathan et al., 2023).

To read five tokens takes a large model hardly longer than to read one, because its weights are
read from memory once. So a draft guesses the next tokens, the model reads all of them in one pass,
and draws each token as it would alone, with the random number of that place. As long as the draft
has guessed what is drawn, the logits for the next token are there already. The text is the one
that the model writes without a draft, token for token, whatever the draft guesses.

A draft model draws with the same random numbers, so that it often draws the same. Instead of a
model, `NGRAMS` looks for the last tokens earlier in the text, and guesses what followed there.
"""

from __future__ import annotations

from collections.abc import Callable

from .context import Context, window_start

NGRAMS = "ngrams"
LONGEST, SHORTEST = 4, 2  # of the ends of a text that are looked for earlier in it


def guesses_ahead(model, draft, n: int, use_cache: bool) -> Callable:
    """The function writer -> up to n ids that a draft guesses, which is a model or NGRAMS."""
    if draft == NGRAMS:
        return lambda writer: from_ngrams(writer.ids, n)
    if not hasattr(draft, "config"):
        raise ValueError(f"a draft is a model or {NGRAMS!r}, not {draft!r}")
    if draft.config.vocab_size != model.config.vocab_size:
        raise ValueError(
            f"the draft knows {draft.config.vocab_size} ids, the model {model.config.vocab_size}: "
            "a draft has the vocabulary of the model"
        )
    contexts = []

    def from_model(writer) -> list[int]:
        if not contexts:
            contexts.append(Context(draft, writer.end + n, use_cache))
        ids = list(writer.ids)
        while len(ids) < min(len(writer.ids) + n, writer.end - 1):
            logits = contexts[0].read([ids])[0, -1]  # (V,)
            logits = writer.sampling.logits(logits, ids, writer.begin)
            ids.append(writer.sampling.draw(logits, writer.random(len(ids)).random()))
            if ids[-1] in writer.eos:
                break
        return ids[len(writer.ids) :]

    return from_model


def from_ngrams(ids: list[int], n: int) -> list[int]:
    """What followed the last time that the text had its last few tokens, up to n ids."""
    for length in range(min(LONGEST, len(ids) - 1), SHORTEST - 1, -1):
        end = ids[-length:]
        for i in range(len(ids) - length - 1, -1, -1):
            if ids[i : i + length] == end:
                return ids[i + length : i + length + n]
    return []


def guess(context: Context, ahead: Callable, writer) -> None:
    """Let the writer take as many tokens as are guessed right, and one more."""
    guesses, n, config = ahead(writer), len(writer.ids), context.model.config
    start = window_start(n, config.block_size)
    # With more, the model would not see what it sees when it goes one token at a time: it would
    # see less of the text, or turn its keys by other angles (`cache_size` of a LlamaConfig).
    while guesses and (
        window_start(n + len(guesses), config.block_size) != start
        or n + len(guesses) - start > config.cache_size
    ):
        guesses.pop()
    logits = context.read([writer.ids + guesses], last=1 + len(guesses))[0]  # (1 + guesses, V)
    for row, expected in zip(logits, [*guesses, None]):
        writer.take(row)
        if writer.finish or writer.ids[-1] != expected:
            return
