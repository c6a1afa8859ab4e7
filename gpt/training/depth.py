"""One dial: the settings that suit a model of N layers, `python train.py --depth N`.

The rules say how each setting follows from the depth, so that a larger model needs no search for
its learning rates. They are those of nanochat's `base_train.py` (Karpathy, 2025), which collects
them from the sources named below, with constants measured on small models (docs/training.md).
"""

from __future__ import annotations


# Width and context: Kaplan et al. (2020) find that the loss depends little on the ratio of width to
# depth. With a context as long as the width, attention scores stay the same small part of the work.
WIDTH = 32  # for each layer: n_embd and, from depth 2 on, block_size
HEAD = 32  # the size of a head
DEEPEST = 32

# How long: Hoffmann et al. (2022).
TOKENS = 20  # for each parameter of the blocks

# What is best for this model, found by trying: 4 layers, 128 wide, 1,024 tokens in a step.
REFERENCE_WIDTH = 128
REFERENCE_BATCH = 1024  # tokens in a step of a run of REFERENCE_TOKENS
REFERENCE_TOKENS = 1_500_000
LEARNING_RATE = 0.02  # of AdamW, which updates the embeddings and the head
MUON_LR = 0.03
WEIGHT_DECAY = 0.1


def settings_of_depth(depth: int, given: dict) -> dict:
    """The settings that suit a `modern` model of this depth, where `given` ones are as they are.

    Those that are given count in the rules too: with a larger batch, for example, the learning
    rates are higher and the steps fewer. Raises ValueError for a depth that the rules are not for.

    >>> chosen = settings_of_depth(4, {})
    >>> [chosen[name] for name in ("n_embd", "n_head", "block_size", "batch_size", "max_iters")]
    [128, 4, 128, 20, 6144]
    """
    if not 1 <= depth <= DEEPEST:
        raise ValueError(f"--depth is 1 to {DEEPEST}, not {depth}")
    chosen = {"model": "modern", "optimizer": "muon", "schedule": "wsd", "min_lr": 0.0}
    chosen |= {"n_layer": depth, "n_embd": WIDTH * depth} | given
    width = chosen["n_embd"]
    chosen = {"n_head": max(1, width // HEAD), "block_size": max(64, width)} | chosen

    # The batch grows with the tokens of the run to the power 0.383 (Bergsma et al., 2025).
    tokens = TOKENS * block_parameters(chosen)
    growth = (tokens / REFERENCE_TOKENS) ** 0.383
    rows = 4 * max(1, round(REFERENCE_BATCH * growth / chosen["block_size"] / 4))
    chosen = {"batch_size": rows} | chosen
    batch = tokens_of_step(chosen)
    chosen = {"max_iters": max(1, round(tokens / batch))} | chosen
    chosen = {"warmup_iters": max(20, chosen["max_iters"] // 100)} | chosen

    # Both learning rates grow with the root of the batch (Malladi et al., 2022). A step of Muon has
    # the same effect at any width. The gradients of embeddings and head have more entries that
    # agree in a wider model, so that AdamW takes smaller steps (Yang et al., 2022).
    noise = (batch / REFERENCE_BATCH) ** 0.5
    rate = LEARNING_RATE * noise * (width / REFERENCE_WIDTH) ** -0.5
    # The weights forget over the same part of the run (Wang and Aitchison, 2024): what counts is
    # weight decay x learning rate x steps.
    decay = WEIGHT_DECAY * noise * REFERENCE_TOKENS / (chosen["max_iters"] * batch)
    rates = {"learning_rate": rate, "muon_lr": MUON_LR * noise, "weight_decay": decay}
    return {name: float(f"{value:.2g}") for name, value in rates.items()} | chosen


def block_parameters(settings: dict) -> int:
    """The parameters of the blocks: 4 C^2 of attention and 8 C^2 of the MLP in each."""
    return 12 * settings["n_layer"] * settings["n_embd"] ** 2


def tokens_of_step(settings: dict) -> int:
    rows = settings["batch_size"] * settings.get("gradient_accumulation_steps", 1)
    return rows * settings["block_size"]
