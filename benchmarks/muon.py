"""Times the update with Muon: against its matrix products alone, in a step, and between workers.

    python benchmarks/muon.py [A|B|C|all] [--seconds 5] [--workers N]

A, B and C are the models of train_step.py. The matrices of their blocks are updated with gradients
drawn at random, as in a run with `--optimizer muon`. In turns with that, NumPy computes the same
products into arrays that exist, and whole steps are made, with forward, backward and AdamW for the
rest. With more than one worker (by default one for each core), the update that they divide has its
turns too: each has the matrices that it has in a run, and its part of the cores. Workers that have
nothing to do sleep.

The table has medians. `update` is the time of the update of all matrices in ms, `products` that of
its products, `ratio` the first divided by the second, `step` the time of a whole step with Muon and
`share` the part of it that the update takes: all by one worker. `divided` is the time of the update
by all workers, the last one included, as a part of `update`, and `cost` the multiplications of the
worker that has most, as a part of all: no machine can be faster than that.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.train_step import CONFIGS, prepare
from gpt import GPT
from gpt.training.loop import train_step
from gpt.training.optimizer import make_optimizer
from gpt.training.pretrain import Pretraining
from tensorlite import parallel
from tensorlite.device import keep_freed_memory, random
from tensorlite.optim import Muon, muon_cost
from tensorlite.optim.muon import steps_together
from tensorlite.tensor import Tensor


def products(shape: tuple[int, int], steps: int) -> Callable[[], None]:
    """What computes the products of one update of a matrix, and nothing else."""
    draw, n = random(0, "matrix"), min(shape)
    x, gram, q = (draw.standard_normal(s, np.float32) for s in (shape, (n, n), (n, n)))
    small, large = np.empty_like(gram), np.empty_like(x)
    wide, together = shape[0] <= shape[1], steps_together(*shape)
    pairs = []  # of factors, and the array for their product
    for first in range(0, steps, together):
        inner = min(together, steps - first) - 1
        pairs += [(x, x.T, small) if wide else (x.T, x, small), (gram, gram.T, small)]
        pairs += [
            (q, gram, small),
            (gram, q, small),
            (gram, gram.T, small),
            (q, gram, small),
        ] * inner
        pairs += [(q, x, large) if wide else (x, q, large)]

    def multiply():
        for a, b, out in pairs:
            np.matmul(a, b, out=out)

    return multiply


class Update:
    """The update of the matrices of an optimizer, which may be those of one worker's share."""

    def __init__(self, groups: list[dict]):
        options = ("params", "splits", "polynomials")
        self.muon = Muon([{name: g[name] for name in options} for g in groups if g.get("muon")])
        draw = random(0, "gradients")
        self.gradients = [
            Tensor(draw.standard_normal(p.shape, np.float32)) for p in self.muon.params
        ]
        self.parts = [
            ((p.shape[0], p.shape[1] // group["splits"]), len(group["polynomials"]))
            for group in self.muon.groups
            for p in group["params"]
            for _ in range(group["splits"])
        ]

    def step(self) -> None:
        for p, g in zip(self.muon.params, self.gradients):
            p.grad = g
        self.muon.step()
        self.muon.zero_grad()

    def cost(self) -> int:
        return sum(muon_cost(shape, steps=steps) for shape, steps in self.parts)


def seconds_of(function: Callable[[], None]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def sleep_until_all_are_here(team: parallel.Team) -> None:
    """As `team.wait()`, which computes while it waits."""
    if team.size > 1:
        here = team.world.Ibarrier()
        while not here.Test():
            time.sleep(1e-4)


def measure(name: str, seconds: float, team: parallel.Team) -> tuple[list[float], float]:
    """The medians of (update, products, step, divided update) in ms, and the largest cost."""
    config, batch = CONFIGS[name]
    settings, tokens = prepare(config, batch)
    settings = dataclasses.replace(settings, optimizer="muon")
    model = GPT(config)
    optimizer = make_optimizer(model, settings)
    whole = Update(optimizer.groups)
    share = Update(make_optimizer(GPT(config), settings, team).groups) if team.size > 1 else whole
    parts = [products(*part) for part in whole.parts]
    task = Pretraining(settings, tokens, tokens)

    def multiply():
        for part in parts:
            part()

    def step():
        train_step(model, optimizer, task, settings, step=0)

    def divided():
        share.step()
        team.wait()

    by_one, times = (whole.step, multiply, step), ([], [], [], [])
    end, count = time.perf_counter() + seconds, 0
    while team.same(count < 4 or time.perf_counter() < end):
        if team.rank == 0:
            for side, taken in zip(by_one, times):
                taken.append(1000 * seconds_of(side))
        sleep_until_all_are_here(team)
        team.wait()
        times[-1].append(1000 * seconds_of(divided))
        count += 1
    cost = max(team.gather(share.cost())) / whole.cost()
    return [statistics.median(taken[1:] or [0]) for taken in times], cost  # the first warms up


def main() -> None:
    parser = argparse.ArgumentParser(description="The update with Muon against its products.")
    parser.add_argument("model", nargs="?", default="all", choices=[*CONFIGS, "all"])
    parser.add_argument("--seconds", type=float, default=5, help="for each model")
    parser.add_argument("--workers", type=int, default=parallel.physical_cores())
    args = parser.parse_args()
    if args.workers > 1 and not parallel.launched():
        sys.exit(parallel.start(args.workers, sys.argv))
    team = parallel.join()
    keep_freed_memory()
    if team.rank == 0:
        print("| model | update | products | ratio | step | share | divided | cost |")
        print("|---|---|---|---|---|---|---|---|")
    for name in CONFIGS if args.model == "all" else [args.model]:
        (update, multiply, step, divided), cost = measure(name, args.seconds, team)
        if team.rank == 0:
            times = f"{update:.1f} | {multiply:.1f} | {update / multiply:.2f} | {step:.1f}"
            parts = f"{update / step:.2f} | {divided / update:.2f} | {cost:.3f}"
            print(f"| {name} | {times} | {parts} |", flush=True)


if __name__ == "__main__":
    main()
