"""One dial: the settings that suit a model of N layers, `python train.py --depth N`.

The rules say how each setting follows from the depth, to spare a larger model a search for its
learning rates. They are like those of nanochat's `base_train.py` (Karpathy, 2025), which collects
them from the sources named below. The constants were measured on small models, and the rules have
been tried at depth 1 only (docs/training.md).
"""

from __future__ import annotations

DEEPEST = 32

# Width and context: the loss depends little on the ratio of width to depth (Kaplan et al., 2020).
# With a context as long as the width, attention scores stay the same small part of the work.
WIDTH = 32  # for each layer
HEAD = 32  # the size of a head
SHORTEST = 64  # the least context

TOKENS = 20  # to train on, for each parameter of the blocks (Hoffmann et al., 2022)

BATCH = 1024  # tokens in a step, where the run has BATCH_TOKENS
BATCH_TOKENS = 1_500_000

MUON_LR = 0.03
LEARNING_RATE = 0.02  # of AdamW, which updates embeddings and head, in a model 128 wide
FORGETTING = 1  # weight_decay x the learning rate of the blocks' matrices x max_iters
MOST_DECAY = 0.2  # in a run too short to forget: twice the usual 0.1


def settings_of_depth(depth: int, given: dict) -> dict:
    """The settings that suit a `modern` model of this depth, with the `given` ones in their place.

    Those that are given count in the rules too: with a larger batch, for example, the learning
    rates are higher and the steps fewer. Raises ValueError for a depth that the rules are not for,
    and where a learning rate is missing that they do not have.

    >>> chosen = settings_of_depth(4, {})
    >>> [chosen[name] for name in ("n_embd", "n_head", "block_size", "batch_size", "max_iters")]
    [128, 4, 128, 20, 6144]
    """
    if not 1 <= depth <= DEEPEST:
        raise ValueError(f"--depth is 1 to {DEEPEST}, not {depth}")
    kind = {"model": "modern", "optimizer": "muon"}
    for name, value in kind.items():
        if given.get(name, value) != value and "learning_rate" not in given:
            raise ValueError(
                f"the learning rate that --depth chooses is for --{name} {value}: with --{name} "
                f"{given[name]}, give --learning_rate too"
            )
    for name in ("n_layer", "n_embd", "block_size", "batch_size", "gradient_accumulation_steps"):
        if given.get(name, 1) < 1:
            raise ValueError(f"--{name} is at least 1, not {given[name]}")
    chosen = kind | {"schedule": "wsd", "min_lr": 0.0}
    chosen |= {"n_layer": depth, "n_embd": WIDTH * depth} | given
    width = chosen["n_embd"]
    even = [n for n in range(1, width // HEAD + 1) if width % (2 * n) == 0]  # rotary turns pairs
    chosen = {"n_head": max(even, default=1), "block_size": max(SHORTEST, width)} | chosen

    # The best batch grows with the tokens of the run to the power 0.383 (Bergsma et al., 2025).
    tokens = TOKENS * 12 * chosen["n_layer"] * width**2
    best_batch = BATCH * (tokens / BATCH_TOKENS) ** 0.383
    rows = 4 * max(1, round(best_batch / chosen["block_size"] / 4))
    chosen = {"batch_size": rows} | chosen
    batch = chosen["batch_size"] * chosen.get("gradient_accumulation_steps", 1)
    batch *= chosen["block_size"]
    chosen = {"max_iters": max(1, round(tokens / batch))} | chosen
    steps = chosen["max_iters"]
    chosen = {"warmup_iters": max(min(20, steps // 5), steps // 100)} | chosen

    # With the best batch, Muon's learning rate is the same for every run: a step changes what a
    # matrix does by as much at any width (Yang, Simon and Bernstein, 2023). In a wider model, the
    # head adds up more numbers, each of which AdamW changes by the learning rate (Yang et al.,
    # 2022). With another batch, both change by the root of the ratio (Malladi et al., 2022).
    noise = (batch / best_batch) ** 0.5
    rates = {
        "muon_lr": MUON_LR * noise,
        "learning_rate": LEARNING_RATE * noise * (128 / width) ** 0.5,
    }
    chosen = {name: float(f"{rate:.2g}") for name, rate in rates.items()} | chosen
    # The weights remember the same part of the run, however long (Wang and Aitchison, 2024).
    product = chosen["muon_lr" if chosen["optimizer"] == "muon" else "learning_rate"] * steps
    decay = min(MOST_DECAY, FORGETTING / product) if product > 0 else 0.0
    return {"weight_decay": float(f"{decay:.2g}")} | chosen


def describe(depth: int, settings: dict) -> str:
    """What `settings_of_depth` has chosen, in a line."""
    tokens = settings["batch_size"] * settings.get("gradient_accumulation_steps", 1)
    tokens *= settings["block_size"] * settings["max_iters"]
    names = "n_layer n_embd n_head block_size batch_size max_iters".split()
    names += "muon_lr learning_rate weight_decay".split()
    shown = ", ".join(f"{name} {settings[name]}" for name in names)
    return f"--depth {depth}: {shown}; {tokens:,} tokens"
