"""Does the best learning rate stay where it is when the model becomes wider?

    python benchmarks/width.py TEXT [--steps 150] [--widths 64 128 256] [--picture width.png]

Trains models of 4 layers with heads of 32 on TEXT, character by character, once for each width and
each of five learning rates, in two parametrisations:

- `adamw` is the standard one: GPT-2 with its initial weights, all of it updated by AdamW. The
  learning rate is that of everything.
- `ours` is the one of `train.py --depth`: the modern family with its initial weights, Muon for the
  matrices of the blocks and AdamW for the rest, whose learning rate depends on the width
  (gpt/training/depth.py). The learning rate is that of Muon, and both are changed together.

Each run has the same batches of 12 windows of 64 characters and the same schedule: 20 steps of
warm-up, then constant, and a linear decay to zero over the last 60%. The loss is that on the first
32,768 characters of the validation split, in nats per character; `nan` is a run that has diverged.
`best` is where the parabola through the smallest loss and its two neighbours has its minimum, on
the logarithm of the learning rate. All in this process, with one worker.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
from tqdm import tqdm

from gpt import data
from gpt.evaluate import full_loss
from gpt.training.depth import settings_of_depth
from gpt.training.loop import train_step
from gpt.training.optimizer import make_optimizer
from gpt.training.prepare import first_model
from gpt.training.pretrain import Pretraining
from gpt.training.settings import Settings
from tensorlite.device import keep_freed_memory
from tokenizer import CharTokenizer

RATES = {
    "adamw": (0.001, 0.002, 0.004, 0.008, 0.016),
    "ours": (0.0075, 0.015, 0.03, 0.06, 0.12),
}
LAYERS, HEAD, BATCH, BLOCK = 4, 32, 12, 64
MEASURED = 32_768  # characters of the validation split


def settings_of(kind: str, width: int, rate: float, steps: int, seed: int) -> Settings:
    """The settings of one run."""
    common = {"n_embd": width, "n_head": width // HEAD, "block_size": BLOCK, "batch_size": BATCH}
    common |= {"max_iters": steps, "warmup_iters": 20}
    if kind == "ours":
        chosen = settings_of_depth(LAYERS, common | {"weight_decay": 0.1})
        factor = rate / chosen["muon_lr"]
        chosen |= {"learning_rate": chosen["learning_rate"] * factor, "muon_lr": rate}
    else:
        chosen = common | {"n_layer": LAYERS, "learning_rate": rate, "schedule": "wsd"}
    return Settings(**chosen, seed=seed, device="cpu")


def loss_after(settings: Settings, tokens: np.ndarray, held_out: np.ndarray, size: int) -> float:
    """The loss on `held_out` of a new model trained on `tokens`; NaN where it diverges."""
    model, _ = first_model(settings, {}, size, 0)
    task = Pretraining(settings, tokens, held_out)
    optimizer = make_optimizer(model, settings)
    steps = tqdm(range(settings.max_iters), f"{settings.n_embd} wide", leave=False, disable=None)
    try:
        for step in steps:
            train_step(model, optimizer, task, settings, step)
    except FloatingPointError:
        return math.nan
    return full_loss(model, held_out, settings.batch_size)


def best_rate(rates: tuple[float, ...], losses: list[float]) -> float:
    """Where the loss is smallest, between the rates that were tried; NaN at the edge of them.

    >>> best_rate((0.01, 0.1, 1.0), [2.0, 1.0, 2.0])
    0.1
    """
    losses = np.where(np.isnan(losses), np.inf, losses)
    i = int(np.argmin(losses))
    if i in (0, len(rates) - 1) or not np.isfinite(losses[i - 1 : i + 2]).all():
        return math.nan
    a, b, _ = np.polyfit(np.log(rates[i - 1 : i + 2]), losses[i - 1 : i + 2], 2)
    return float(f"{math.exp(-b / (2 * a)):.2g}")


def draw(results: dict[tuple[str, int], list[float]], path: Path) -> None:
    """A panel for each parametrisation: loss against learning rate, a line for each width."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    titles = {"adamw": "GPT-2, AdamW", "ours": "modern, Muon and AdamW (--depth)"}
    labels = {"adamw": "learning rate", "ours": "learning rate of Muon"}
    figure, panels = pyplot.subplots(1, 2, figsize=(10, 4.2), sharey=True, layout="constrained")
    for panel, (kind, rates) in zip(panels, RATES.items()):
        for width in dict.fromkeys(width for _, width in results):
            losses = results[kind, width]
            (line,) = panel.plot(rates, losses, marker="o", label=f"{width} wide")
            best = np.nanargmin(losses)
            panel.plot(rates[best], losses[best], "o", markersize=12, color=line.get_color())
        panel.set_xscale("log")
        panel.set_xticks(rates, [f"{rate:g}" for rate in rates])
        panel.minorticks_off()
        panel.set(title=titles[kind], xlabel=labels[kind])
        panel.grid(alpha=0.3)
        panel.legend()
    panels[0].set_ylabel("validation loss, nats per character")
    figure.savefig(path, dpi=80)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("text", help="a text file, such as tinyshakespeare.txt")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--widths", type=int, nargs="+", default=[64, 128, 256])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--picture", type=Path, help="draw the table into this file")
    args = parser.parse_args()
    if wrong := [width for width in args.widths if width < HEAD or width % HEAD]:
        parser.error(f"a width is a multiple of {HEAD}, not {wrong[0]}")
    try:
        text = data.read_text(args.text)
    except (OSError, ValueError) as error:
        parser.exit(2, f"width.py: error: {error}\n")
    keep_freed_memory()
    characters = CharTokenizer.train(text)
    tokens, held_out = (characters.encode_to_numpy(part, (), ()) for part in data.split(text))
    held_out = held_out[: MEASURED + 1]
    results = {}
    for kind, rates in RATES.items():
        print(f"| {kind}, {args.steps} steps | {' | '.join(map(str, rates))} | best |")
        print("|---" * (len(rates) + 2) + "|")
        for width in args.widths:
            runs = [settings_of(kind, width, rate, args.steps, args.seed) for rate in rates]
            losses = [loss_after(run, tokens, held_out, characters.vocab_size) for run in runs]
            results[kind, width] = losses
            shown = " | ".join(f"{loss:.3f}" for loss in losses)
            print(f"| {width} wide | {shown} | {best_rate(rates, losses):g} |", flush=True)
        print()
    if args.picture:
        draw(results, args.picture)


if __name__ == "__main__":
    main()
