"""Tokens a second of generation, ours and transformers', at GPT-2's size (124 M parameters).

    python benchmarks/generate.py [--rounds 5] [--picture docs/generate.png]

Needs transformers and PyTorch (extra `oracle`). Both sides have the same random weights in float32,
two threads, and the same prompts of random ids, and take the likeliest token. In each round they
take turns. Measured are: a token after a short text (the time of generating many tokens less that
of the first), the prompt (the time to the first token), a batch of 8, int8 weights, contexts of
different lengths. The bound is what the memory allows: the time in which two threads of NumPy read
all the weights (their maximum), which takes turns with a token.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from gpt import GPT, GPTConfig, generate_ids, load, quantize

SHAPE = GPTConfig(50257, 1024, n_layer=12, n_head=12, n_embd=768)
SHORT = 16  # tokens of a short prompt


def reader(model: GPT):
    """A function that reads all weights which a token needs n times, in two threads."""
    flat = [p.data.ravel(order="K") for p in model.parameters() if p is not model.wpe.weight]
    halves = [[w[: len(w) // 2] for w in flat], [w[len(w) // 2 :] for w in flat]]
    threads = ThreadPoolExecutor(2)

    def read(ids, n):
        for _ in range(n):
            list(threads.map(lambda half: [np.max(w) for w in half], halves))

    return read


def prompts(rows: int, length: int) -> list[list[int]]:
    rng = np.random.default_rng(length)
    return rng.integers(0, SHAPE.vocab_size, (rows, length)).tolist()


def seconds(generate, rows: int, length: int, n: int) -> float:
    """How long it takes to read prompts and generate n tokens for each."""
    ids = prompts(rows, length)
    began = time.perf_counter()
    generate(ids, n)
    return time.perf_counter() - began


def per_token(generate, rows: int, length: int, n: int = 32) -> float:
    """Seconds for each further token of every text."""
    return (seconds(generate, rows, length, n + 1) - seconds(generate, rows, length, 1)) / n


def in_turns(sides: dict, rounds: int, measure, *args) -> dict[str, float]:
    """The median of a measurement for each side, which take turns."""
    found = {name: [] for name in sides}
    for _ in tqdm(range(rounds + 1), f"{measure.__name__} {args}", disable=None, leave=False):
        for name, generate in sides.items():
            found[name].append(measure(generate, *args))
    return {name: statistics.median(times[1:]) for name, times in found.items()}


def draw(path: str, by_context: dict, by_batch: dict) -> None:
    """Tokens a second against the length of the context, and against the number of texts."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes, data, label in ((left, by_context, "tokens of context"), (right, by_batch, "texts")):
        for name in next(iter(data.values())):
            axes.plot(list(data), [speeds[name] for speeds in data.values()], "o-", label=name)
        axes.set(xlabel=label, ylabel="tokens a second", xscale="log", ylim=(0, None))
        axes.set_xticks(list(data), [str(n) for n in data], minor=False)
        axes.minorticks_off()
    left.legend()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--picture", metavar="FILE")
    options = parser.parse_args()
    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # tokenizers.py here is not theirs
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(2)
    with tempfile.TemporaryDirectory() as folder:
        GPT(SHAPE).save_pretrained(folder)
        model, quantized = load(folder), quantize(load(folder), 8)
        theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def pytorch(ids, n):
        how = {"min_new_tokens": n, "max_new_tokens": n, "do_sample": False, "pad_token_id": 0}
        with torch.no_grad():
            theirs.generate(torch.tensor(ids), **how)

    sides = {
        "transformers": pytorch,
        "ours": lambda ids, n: generate_ids(model, ids, n, temperature=0),
        "ours, int8": lambda ids, n: generate_ids(quantized, ids, n, temperature=0),
    }
    print("| tokens a second | " + " | ".join(sides) + " | ours / transformers | int8 / float32 |")
    print("|---|" + "---|" * (len(sides) + 2))

    def row(what: str, tokens: int, measure, *args) -> dict[str, float]:
        times = in_turns(sides, options.rounds, measure, *args)
        speeds = {name: tokens / t for name, t in times.items()}
        cells = [f"{speed:,.1f}" for speed in speeds.values()]
        ratios = [speeds["ours"] / speeds["transformers"], speeds["ours, int8"] / speeds["ours"]]
        print(f"| {what} | {' | '.join(cells + [f'{r:.2f}' for r in ratios])} |", flush=True)
        return speeds

    one = row("one text", 1, per_token, 1, SHORT)
    by_batch = {1: one}
    for rows in (2, 4, 8):
        by_batch[rows] = row(f"{rows} texts together", rows, per_token, rows, SHORT)
    by_context = {SHORT: one}
    for length in (128, 512, 960):
        by_context[length] = row(f"one text after {length} tokens", 1, per_token, 1, length)
    for length in (64, 512, 1000):
        row(f"a prompt of {length} tokens", length, seconds, 1, length, 1)
    both = {"ours": sides["ours"], "memory": reader(model)}
    times = in_turns(both, options.rounds, per_token, 1, SHORT)
    nbytes = sum(p.data.nbytes for p in model.parameters()) - model.wpe.weight.data.nbytes
    print(
        f"\none text takes {times['ours'] * 1e3:.1f} ms a token; reading the weights alone takes "
        f"{times['memory'] * 1e3:.1f} ms ({nbytes / times['memory'] / 1e9:.1f} GB/s): "
        f"{times['memory'] / times['ours']:.2f} of what the memory allows"
    )
    if options.picture:
        draw(options.picture, by_context, by_batch)


if __name__ == "__main__":
    main()
