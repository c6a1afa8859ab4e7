"""Training steps of gpu.py: ours, captured and not, beside PyTorch's, eager and compiled.

    A    4 layers, 4 heads, 128 wide, block 64, 65 ids, batch 12
    B    6 layers, 6 heads, 384 wide, block 256, 65 ids, batch 16
    C2   GPT-2 (124 M): 12 layers, 12 heads, 768 wide, block 1024, 50304 ids, batch 2
    C16  the same, batch 16
    D8   354 M: 24 layers, 16 heads, 1024 wide, block 1024, 50304 ids, batch 8

A step draws a batch on the host and copies it to the card; computes the loss, gradients, clipping
and AdamW; and reads the loss. All sides of a configuration train the same model on the same
batches, and take turns; the table has medians.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import tensorlite as tl
from benchmarks.gpu_card import (
    CountLaunches,
    Table,
    attempt,
    dtype_of,
    is_strict,
    torch_and_device,
    used_memory,
    waits_of,
)
from benchmarks.train_step import CONFIGS as ON_CPU
from benchmarks.train_step import prepare, twin
from gpt import GPT, GPTConfig
from gpt.data import draw_batch, draw_starts
from gpt.training.gpu import GPUStep
from gpt.training.loop import train_step
from gpt.training.optimizer import make_optimizer
from gpt.training.pretrain import Pretraining
from tensorlite.device import random

CONFIGS = {
    "A": ON_CPU["A"],
    "B": ON_CPU["B"],
    "C2": ON_CPU["C"],
    "C16": (ON_CPU["C"][0], 16),
    "D8": (GPTConfig(50304, 1024, 24, 16, 1024, bias=False), 8),
    "tiny": (GPTConfig(65, 16, 1, 1, 64, bias=False), 2),
}
LOSSES = 6  # steps whose losses are compared
ON_THE_CPU = 5000  # tokens in a batch for which the CPU computes the expected losses
SMALL = "A", "B", "C2"  # where launching decides, so that PyTorch is compiled with CUDA graphs too


class Side(NamedTuple):
    """One side of the comparison: `step(i)` trains and gives the loss."""

    step: Callable
    times: list[float]


def run(name: str, options) -> Iterator[Table]:
    config, batch = CONFIGS[name]
    device = "cpu" if batch * config.block_size <= ON_THE_CPU else "cuda"
    expected = expected_losses(config, batch, device, 2 if options.strict else LOSSES)
    rows = []
    for precision in options.precisions:
        rows.append(compare(name, precision, options, expected))
    wrong = sum(row["loss off by"] is None or row["loss off by"] > 1e-3 for row in rows)
    where = {"cpu": "CPU", "cuda": "GPU, without a graph"}[device]
    note = (
        f"`loss off by` is the largest difference of the first {len(expected)} losses from those "
        f"of float32 on the {where}. GB are what a side took of the card's memory."
    )
    yield Table(f"Training steps, {name}", rows, note, wrong)


def compare(name: str, precision: str, options, expected: list[float]) -> dict:
    """A row of the table."""
    config, batch = CONFIGS[name]
    makers: dict[str, tuple] = {"ours": (our_step, True)}
    if precision == options.precisions[0]:
        makers["ours, no graph"] = our_step, False
    if torch_and_device()[0] is not None:
        makers["PyTorch"] = torch_step, None
        if precision == options.compiled and not options.strict:
            mode = "reduce-overhead" if name in SMALL else "default"
            makers["compiled"] = torch_step, mode
    sides, losses, bytes_of = {}, {}, {}
    for side, (make, how) in makers.items():
        before = used_memory(give_back=True)
        is_ours = make is our_step
        step = attempt(make, config, batch, precision, how, ours=is_ours)
        losses[side] = step and attempt(first_losses, step, len(expected), ours=is_ours)
        if losses[side]:
            sides[side] = Side(step, [])
        bytes_of[side] = used_memory(give_back=False) - before
    step = None  # so that the last side is freed with the others
    take_turns(sides, turns=1 if options.strict else options.turns)
    times = {side: statistics.median(s.times) * 1e3 for side, s in sides.items()}

    row: dict = {"": name, "precision": precision}
    row |= {f"{side}, ms": times.get(side) for side in makers}
    ours = times.get("ours")
    for side in ("PyTorch", "compiled"):
        if side in makers:
            row[f"{side} / ours"] = times[side] / ours if ours and side in times else None
    row["tokens/s"] = round(batch * config.block_size / ours * 1e3) if ours else None
    row["launches"] = sides["ours"].step.launches.number if ours else None
    if is_strict() and ours:
        row["waits"] = waits_of(lambda: sides["ours"].step(LOSSES))
    row |= {f"{side}, GB": bytes_of[side] / 1e9 if side in sides else None for side in makers}
    pairs = zip(losses["ours"] or (), expected)
    row["loss off by"] = max((abs(a - b) for a, b in pairs if not math.isnan(a)), default=None)
    sides.clear()
    if "compiled" in makers:
        torch_and_device()[0]._dynamo.reset()
    used_memory(give_back=True)
    return row


def first_losses(step: Callable, count: int) -> list[float]:
    return [step(i) for i in range(count)]


def take_turns(sides: dict[str, Side], turns: int) -> None:
    """Time single steps: every turn of a side lasts a fifth of a second, or one step."""
    number = LOSSES
    for _ in range(turns):
        for side in sides.values():
            stop = time.perf_counter() + 0.2
            while True:
                start = time.perf_counter()
                side.step(number)  # reads the loss, so that all of it is done
                end = time.perf_counter()
                side.times.append(end - start)
                number += 1
                if end > stop or is_strict():
                    break


# =================================================================================================
# The sides
# =================================================================================================


def our_step(config: GPTConfig, batch: int, precision: str, captured: bool) -> Callable:
    settings, tokens = prepare(config, batch)
    settings = dataclasses.replace(settings, device="cuda", dtype=precision, compile=captured)
    model = GPT(config).to("cuda")
    optimizer = make_optimizer(model, settings)
    run_step = GPUStep(model, optimizer, Pretraining(settings, tokens, tokens), settings)
    run_step.functions[0] = launches = CountLaunches(run_step.functions[0])

    def step(i: int) -> float:
        with tl.autocast(precision):
            done = run_step(i)
        return math.nan if done is None else done[0]  # None: float16 has overflowed

    step.launches = launches
    return step


def expected_losses(config: GPTConfig, batch: int, device: str, count: int) -> list[float]:
    """The losses of the first steps in float32, without a captured graph."""
    settings, tokens = prepare(config, batch)
    settings = dataclasses.replace(settings, device=device, dtype="float32")
    model = GPT(config).to(device)
    optimizer = make_optimizer(model, settings)
    task = Pretraining(settings, tokens, tokens)
    return [train_step(model, optimizer, task, settings, i)[0] for i in range(count)]


def torch_step(config: GPTConfig, batch: int, precision: str, compiled: str | None) -> Callable:
    torch, device = torch_and_device()
    s, tokens = prepare(config, batch)
    torch.set_float32_matmul_precision("highest" if precision == "float32" else "high")
    model = twin(GPT(config)).to(device)
    groups = [
        {"params": [p for p in model.parameters() if p.ndim >= 2], "weight_decay": 0.1},
        {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(s.beta1, s.beta2), fused=True)
    scaler = torch.amp.GradScaler(device, enabled=precision == "float16" and device == "cuda")
    run_model = torch.compile(model, mode=compiled, dynamic=False) if compiled else model
    dtype = dtype_of(precision)
    autocast = torch.autocast(device, dtype=getattr(torch, dtype.name), enabled=dtype.itemsize == 2)

    def on_device(array):
        tensor = torch.from_numpy(array)
        return tensor.pin_memory().to(device, non_blocking=True) if device == "cuda" else tensor

    def step(i: int) -> float:
        starts = draw_starts(random(s.seed, "batch", i), len(tokens), s.batch_size, s.block_size)
        x, y = map(on_device, draw_batch(tokens, starts, s.block_size))
        with autocast:
            loss = run_model(x, y)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(model.parameters(), s.grad_clip)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)
        return loss.detach().item()

    return step
