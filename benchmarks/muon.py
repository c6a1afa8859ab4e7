"""Times the update with Muon: against its matrix products alone, and in a whole step of training.

    python benchmarks/muon.py [A|B|C|all] [--seconds 5]

A, B and C are the models of train_step.py. The matrices of their blocks are updated with gradients
drawn at random, and in turns with that, NumPy computes the same products into arrays that exist:
five times the Gram matrix of the smaller side, its square, and their product with the matrix. Whole
steps, with forward, backward and AdamW for the rest, are timed in the same run. All in one process,
with as many BLAS threads as OMP_NUM_THREADS says: a worker of train.py has one.

The table has medians. `update` is the time of the update of all matrices in ms, `products` that of
its products, `ratio` the first divided by the second, `step` the time of a whole step with Muon and
`share` the part of it that the update takes.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import time
from collections.abc import Callable

import numpy as np

from benchmarks.train_step import CONFIGS, prepare
from gpt import GPT
from gpt.training.loop import train_step
from gpt.training.optimizer import make_optimizer
from gpt.training.pretrain import Pretraining
from tensorlite.device import keep_freed_memory, random
from tensorlite.optim import Muon
from tensorlite.tensor import Tensor


def products(shape: tuple[int, int], steps: int = 5) -> Callable[[], None]:
    """What computes the products of one update of a matrix, and nothing else."""
    x = random(0, "matrix").standard_normal(shape, np.float32) / np.prod(shape, dtype=np.float32)
    wide = shape[0] <= shape[1]
    gram, square = (np.empty((min(shape), min(shape)), np.float32) for _ in range(2))
    out = np.empty_like(x)

    def compute():
        for _ in range(steps):
            np.matmul(*((x, x.T) if wide else (x.T, x)), out=gram)
            np.matmul(gram, gram.T, out=square)
            np.matmul(*((square, x) if wide else (x, square)), out=out)

    return compute


def seconds_of(function: Callable[[], None]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def measure(name: str, seconds: float) -> tuple[float, ...]:
    """The medians of (the update, its products, a whole step), in ms."""
    config, batch = CONFIGS[name]
    settings, tokens = prepare(config, batch)
    settings = dataclasses.replace(settings, optimizer="muon")
    model = GPT(config)
    optimizer = make_optimizer(model, settings)
    groups = [
        {"params": group["params"], "splits": group["splits"]}
        for group in optimizer.groups
        if group["muon"]
    ]
    alone = Muon(groups)
    draw = random(0, "gradients")
    gradients = [Tensor(draw.standard_normal(p.shape, np.float32)) for p in alone.params]
    parts = [
        products((p.shape[0], p.shape[1] // group["splits"]))
        for group in groups
        for p in group["params"]
        for _ in range(group["splits"])
    ]
    task = Pretraining(settings, tokens, tokens)

    def update():
        for p, g in zip(alone.params, gradients):
            p.grad = g
        alone.step()
        alone.zero_grad()

    def multiply():
        for part in parts:
            part()

    def step():
        train_step(model, optimizer, task, settings, step=0)

    sides, times = (update, multiply, step), ([], [], [])
    for side in sides:
        side()  # warm up
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times[0]) < 3:
        for side, taken in zip(sides, times):
            taken.append(1000 * seconds_of(side))
    return tuple(statistics.median(taken) for taken in times)


def main() -> None:
    parser = argparse.ArgumentParser(description="The update with Muon against its products.")
    parser.add_argument("model", nargs="?", default="all", choices=[*CONFIGS, "all"])
    parser.add_argument("--seconds", type=float, default=5, help="for each model")
    args = parser.parse_args()
    keep_freed_memory()
    print("| model | update | products | ratio | step | share |\n|---|---|---|---|---|---|")
    for name in CONFIGS if args.model == "all" else [args.model]:
        update, multiply, step = measure(name, args.seconds)
        print(
            f"| {name} | {update:.1f} | {multiply:.1f} | {update / multiply:.2f} | {step:.1f} | "
            f"{update / step:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
