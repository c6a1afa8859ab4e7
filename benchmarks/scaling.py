"""Measures training speed and memory as the model, the batch or the number of workers grows.

    python benchmarks/scaling.py [AXIS ...] [--picture scaling.png]

Along each axis, one size of a small model varies (4 layers, 256 wide, 4 heads, block 256, 1,024
ids, 4,096 tokens per step). Whole training steps are timed, the sizes alternate, and the results
are medians. `MFLOP/token` is the number of multiplications and additions for one token, forward and
backward; only half of the attention scores count, because attention is causal. On the ideal line
the time per token grows in proportion to that number, starting from the smallest size. `of ideal`
is the speed divided by that of the ideal line: below 1, a size is slower than its work explains.

Along the axis `batch`, steps have more tokens with the same work for each. Along the axis
`workers`, more processes share the same batch, and the ideal speed is proportional to their number.
Memory is that of all processes together.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
from pathlib import Path

from tqdm import tqdm
from train_step import Side

from gpt import GPTConfig
from tensorlite import parallel

SMALL = GPTConfig(vocab_size=1024, block_size=256, n_layer=4, n_head=4, n_embd=256, bias=False)
TOKENS = 4096  # in a step, except along the axis `batch`
AXES = {
    "n_layer": (2, 4, 8, 16, 24),
    "n_embd": (128, 256, 512, 1024),
    "block_size": (256, 512, 1024, 2048),
    "vocab_size": (1024, 4096, 16384, 50304),
    "batch": (2, 4, 8, 16, 32),
    "workers": (),  # from 1 to the number of cores
}
TOLERANCE = 0.9  # a size with a speed below this part of the ideal one has left the line


def work(c: GPTConfig) -> float:
    """Multiplications and additions per token: 2 forward and 4 backward for each weight used."""
    weights = c.n_layer * 12 * c.n_embd**2 + c.vocab_size * c.n_embd
    attention = c.n_layer * c.n_embd * c.block_size  # two products with T / 2 positions
    return 6 * (weights + attention)


def sizes(axis: str, cores: int):
    """Yield (size, model, rows of a batch, workers) along an axis."""
    for size in AXES[axis] or range(1, cores + 1):
        config, batch, workers = SMALL, TOKENS // SMALL.block_size, cores
        if axis == "batch":
            batch = size
        elif axis == "workers":
            workers = size
        else:
            config = dataclasses.replace(SMALL, **{axis: size})
            batch = TOKENS // config.block_size
        if axis == "n_embd":
            config = dataclasses.replace(config, n_head=size // 64)
        yield size, config, batch, workers


def measure(axis: str, turns: int, cores: int) -> list[dict]:
    """Time all sizes of an axis; returns a line of the table for each."""
    points = list(sizes(axis, cores))
    sides = [Side("ours", config, batch, n, threads=1) for _, config, batch, n in points]
    counts = []
    for side in sides:
        side.turn(0, 1, timed=False)
        counts.append(max(1, round(0.3 / side.turn(1, 1, timed=False))))
    for i in tqdm(range(turns), axis, unit="turn", disable=None, leave=False):
        for side, count in zip(sides, counts):
            side.turn(2 + i * count, count)
    lines = []
    for (size, config, batch, workers), side in zip(points, sides):
        side.watch_memory(9_000, 3)
        line = {
            "size": size,
            "tokens_per_second": batch * config.block_size / side.median,
            "work": work(config),
            "memory": side.memory / 2**20,
            "workers": workers,
        }
        side.close()
        lines.append(line)
    first = lines[0]
    for line in lines:
        ideal = first["tokens_per_second"] * first["work"] / line["work"]
        line["ideal"] = ideal * line["workers"] / first["workers"]
    return lines


def show(axis: str, lines: list[dict]) -> None:
    """Print the table of an axis, and where it leaves the ideal line."""
    print(
        f"\n{axis:>10} {'MFLOP/token':>12} {'tokens/s':>9} {'GFLOP/s':>8} {'of ideal':>8} {'MB':>6}"
    )
    for line in lines:
        speed, flops = line["tokens_per_second"], line["work"]
        print(
            f"{line['size']:10,} {flops / 1e6:12,.1f} {speed:9,.0f} {speed * flops / 1e9:8,.0f} "
            f"{speed / line['ideal']:8.2f} {line['memory']:6,.0f}",
            flush=True,
        )
    left = [a["size"] for a in lines if a["tokens_per_second"] < TOLERANCE * a["ideal"]]
    where = f"leaves the ideal line at {left[0]:,}" if left else "stays on the ideal line or above"
    print(f"{axis} {where}")


def draw(results: dict[str, list[dict]], path: Path) -> None:
    """The speeds, the ideal lines and the memory of all axes, as a picture."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot, ticker

    figure, panels = pyplot.subplots(2, 3, figsize=(12, 7), layout="constrained")
    for panel, (axis, lines) in zip(panels.flat, results.items()):
        x = [line["size"] for line in lines]
        memory = panel.twinx()
        memory.plot(
            x, [line["memory"] for line in lines], color="tab:orange", marker=".", alpha=0.6
        )
        memory.set_ylim(0)
        memory.set_ylabel("MB", color="tab:orange")
        panel.loglog(x, [line["ideal"] for line in lines], "--", color="gray", label="ideal")
        speeds = [line["tokens_per_second"] for line in lines]
        panel.loglog(x, speeds, marker="o", label="measured")
        middle = math.sqrt(min(speeds) * max(speeds))
        panel.set_ylim(min(min(speeds), middle / 3) / 1.2, max(max(speeds), middle * 3) * 1.2)
        panel.set_xticks(x, [f"{size:,}" for size in x])
        panel.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        panel.yaxis.set_major_formatter("{x:,.0f}")
        panel.minorticks_off()
        panel.set(xlabel=axis, ylabel="tokens/s")
        panel.legend()
    for panel in panels.flat[len(results) :]:
        panel.remove()
    figure.savefig(path, dpi=80)


def main() -> None:
    cores = parallel.physical_cores()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("axes", nargs="*", metavar="AXIS", help=f"of {', '.join(AXES)}; all")
    parser.add_argument("--turns", type=int, default=7, help="timed turns of each size (7)")
    parser.add_argument("--workers", type=int, default=cores, help=f"for the others ({cores})")
    parser.add_argument("--picture", type=Path, help="draw the table into this file")
    options = parser.parse_args()
    if unknown := set(options.axes) - set(AXES):
        parser.error(f"unknown axis {', '.join(sorted(unknown))}; choose from {', '.join(AXES)}")
    results = {}
    for axis in options.axes or AXES:
        results[axis] = measure(axis, options.turns, options.workers)
        show(axis, results[axis])
    if options.picture:
        draw(results, options.picture)


if __name__ == "__main__":
    main()
