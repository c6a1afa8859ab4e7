"""The progress of a run: a bar in a terminal, now and then a line elsewhere."""

from __future__ import annotations

import math
import sys
import time

from tqdm import tqdm

from ..evaluate import duration
from .metrics import sources_in_words
from .run import Run

EVERY = 5  # seconds between lines where there is no terminal


class Progress:
    """Shows how far a run is; on rank 0 alone."""

    def __init__(self, run: Run):
        self.run, self.shown, self.first = run, -math.inf, run.team.rank == 0

    def __enter__(self) -> Progress:
        self.bar = tqdm(
            total=self.run.settings.max_iters,
            initial=self.run.start,
            unit="step",
            disable=None if self.first else True,
            dynamic_ncols=True,
        )
        return self

    def __exit__(self, *exception) -> None:
        self.bar.close()

    def say(self, text: str) -> None:
        if not self.first:
            return
        if self.bar.disable:
            print(text, flush=True)
        else:
            self.bar.write(text, file=sys.stdout)

    def evaluated(self, step: int, measured: dict[str, float]) -> None:
        """Show what was measured, without errors: val_loss is shown as "validation loss".

        Of a mixture, each source stands behind the mean: see `sources_in_words`.
        """
        shown = [name for name in measured if not (name.endswith("_error") or "/" in name)]
        names = [name.replace("val_", "validation ").replace("_", " ") for name in shown]
        parts = [
            f"{words} {measured[name]:.4f}{sources_in_words(measured, name)}"
            for name, words in zip(shown, names)
        ]
        self.say(f"step {step:6,}  {', '.join(parts)}")

    def stepped(self, step: int, loss: float | None) -> None:
        """Count one step; show the speed with every line of metrics.jsonl.

        The loss is None for a step in which nothing counted.
        """
        self.bar.update()
        settings, clock = self.run.settings, self.run.clock
        if step % settings.log_interval or loss is None:
            return
        speed = clock.speed(settings.log_interval)
        self.bar.set_postfix_str(f"loss {loss:.3f}, {speed:,.0f} tokens/s")
        if self.bar.disable and time.perf_counter() - self.shown > EVERY:
            self.shown = time.perf_counter()
            left = duration(clock.left(settings.max_iters - step))
            self.say(f"step {step:6,}  loss {loss:.4f}  {speed:,.0f} tokens/s  {left} left")
