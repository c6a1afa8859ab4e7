"""Times a training step of ours and of PyTorch, with the same model, batch and machine.

    python benchmarks/train_step.py [A|B|C|all] [--against torch|none] [--workers N] [--compile]

Builds one model in both with the same weights: ours as train.py does, and PyTorch's with torch.nn
and its scaled_dot_product_attention. Checks that loss and gradients agree to 1e-4. Then times whole
steps (batch, forward, backward, clipping, AdamW) in turns that alternate between the sides and last
half a second, or one step if that is longer. Our step is that of train.py, in as many processes as
`--workers` says (by default, as in train.py, the number of physical cores) and, with `--single`,
also in one process with one BLAS thread. PyTorch runs in one process with all its threads. While
one side computes, the others sleep.

The table has medians. `ms` is the time of a step, and the first `ratio` is PyTorch's time divided
by ours. `floor` is the fraction of a step that its matrix products alone would take, measured with
NumPy in as many processes, alternating with the rest. `MB` is the largest proportional set size of
all processes of a side together, during steps after the timed ones, and the second `ratio` is ours
divided by PyTorch's. `faults` is the number of page faults per step in one worker.

Needs PyTorch and mpi4py (extras `oracle` and `mpi`).

    A  4 layers, 4 heads, 128 wide, block 64, 65 ids, batch 12
    B  6 layers, 6 heads, 384 wide, block 256, 65 ids, batch 16
    C  12 layers, 12 heads, 768 wide, block 1024, 50304 ids, batch 2
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import os
import resource
import socket
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
from tqdm import tqdm

from gpt import GPT, GPTConfig
from gpt.data import draw_batch, draw_starts
from gpt.training.loop import train_step
from gpt.training.optimizer import make_optimizer
from gpt.training.pretrain import Pretraining
from gpt.training.settings import Settings
from tensorlite import parallel
from tensorlite.device import keep_freed_memory, random

CONFIGS = {
    "A": (GPTConfig(65, 64, 4, 4, 128, bias=False), 12),
    "B": (GPTConfig(65, 256, 6, 6, 384, bias=False), 16),
    "C": (GPTConfig(50304, 1024, 12, 12, 768, bias=False), 2),
}


def prepare(config: GPTConfig, batch: int):
    """The (settings, tokens) that both sides train with."""
    settings = Settings(
        batch_size=batch,
        block_size=config.block_size,
        max_iters=10_000,
        warmup_iters=100,
        device="cpu",
    )
    return settings, random(0, "tokens").integers(0, config.vocab_size, 200_000)


# =================================================================================================
# The same model in PyTorch
# =================================================================================================


def torch_gpt(c: GPTConfig):
    """GPT as it is usually written with torch.nn."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.ln_1 = nn.LayerNorm(c.n_embd, bias=c.bias)
            self.c_attn = nn.Linear(c.n_embd, 3 * c.n_embd, bias=c.bias)
            self.c_proj = nn.Linear(c.n_embd, c.n_embd, bias=c.bias)
            self.ln_2 = nn.LayerNorm(c.n_embd, bias=c.bias)
            self.c_fc = nn.Linear(c.n_embd, 4 * c.n_embd, bias=c.bias)
            self.c_out = nn.Linear(4 * c.n_embd, c.n_embd, bias=c.bias)

        def forward(self, x):
            B, T, C = x.shape
            qkv = self.c_attn(self.ln_1(x)).split(C, dim=2)
            q, k, v = (a.view(B, T, c.n_head, C // c.n_head).transpose(1, 2) for a in qkv)
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.c_proj(y.transpose(1, 2).reshape(B, T, C))
            return x + self.c_out(F.gelu(self.c_fc(self.ln_2(x)), approximate="tanh"))

    class TorchGPT(nn.Module):
        def __init__(self):
            super().__init__()
            self.wte = nn.Embedding(c.vocab_size, c.n_embd)
            self.wpe = nn.Embedding(c.block_size, c.n_embd)
            self.h = nn.ModuleList(Block() for _ in range(c.n_layer))
            self.ln_f = nn.LayerNorm(c.n_embd, bias=c.bias)

        def logits(self, idx):
            x = self.wte(idx) + self.wpe(torch.arange(idx.shape[1], device=idx.device))
            for block in self.h:
                x = block(x)
            return self.ln_f(x) @ self.wte.weight.T

        def forward(self, idx, targets):
            logits = self.logits(idx)
            return F.cross_entropy(logits.view(-1, logits.shape[-1]), targets.view(-1))

    return TorchGPT()


NAMES = {
    "attn.c_attn": "c_attn",
    "attn.c_proj": "c_proj",
    "mlp.c_fc": "c_fc",
    "mlp.c_proj": "c_out",
}


def pairs(ours: GPT, theirs):
    """Yield (our parameter, theirs of the same name, whether theirs is transposed)."""
    named = dict(theirs.named_parameters())
    for name, p in ours.named_parameters():
        for path, short in NAMES.items():
            name = name.replace(path, short)
        yield p, named[name], p.ndim == 2 and name.startswith("h.")


def twin(ours: GPT):
    """PyTorch's model with the weights of ours."""
    import torch

    theirs = torch_gpt(ours.config)
    with torch.no_grad():
        for p, q, transposed in pairs(ours, theirs):
            q.copy_(torch.from_numpy(p.data.T if transposed else p.data))
    return theirs


def check_agreement(config: GPTConfig, batch: int) -> None:
    """Raise AssertionError unless loss and gradients of both agree to 1e-4."""
    import torch

    settings, tokens = prepare(config, batch)
    ours = GPT(config)
    theirs = twin(ours)
    starts = draw_starts(random(0), len(tokens), settings.batch_size, settings.block_size)
    x, y = draw_batch(tokens, starts, settings.block_size)
    loss = ours.loss(x, y)
    loss.backward()
    expected = theirs(torch.from_numpy(x), torch.from_numpy(y))
    expected.backward()
    assert abs(loss.item() - expected.item()) < 1e-4, (loss.item(), expected.item())
    for p, q, transposed in pairs(ours, theirs):
        g = q.grad.numpy().T if transposed else q.grad.numpy()
        scale = np.abs(g).max()
        assert np.abs(p.grad.data - g).max() <= 1e-4 * max(scale, 1e-3), (p.shape, scale)


# =================================================================================================
# The sides: processes that run training steps when they are told to
# =================================================================================================


def our_side(config: GPTConfig, batch: int):
    """A function that runs step number i together with the other ranks of this process's team."""
    keep_freed_memory()
    team = parallel.join()
    settings, tokens = prepare(config, batch)
    model = GPT(config)
    optimizer = make_optimizer(model, settings, team)
    task = Pretraining(settings, tokens, tokens)
    return lambda i: train_step(model, optimizer, task, settings, i, team)


def torch_side(config: GPTConfig, batch: int, compiled: bool = False):
    """A function that runs step number i with PyTorch."""
    import torch

    s, tokens = prepare(config, batch)
    model = twin(GPT(config))
    groups = [
        {"params": [p for p in model.parameters() if p.ndim >= 2], "weight_decay": 0.1},
        {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(s.beta1, s.beta2))
    run = torch.compile(model) if compiled else model

    def step(i):
        starts = draw_starts(random(s.seed, "batch", i), len(tokens), s.batch_size, s.block_size)
        x, y = map(torch.from_numpy, draw_batch(tokens, starts, s.block_size))
        loss = run(x, y)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), s.grad_clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    return step


def floor_side(config: GPTConfig, batch: int):
    """A function that computes only the matrix products of a step, for this rank's rows."""
    team = parallel.join()
    B, T = len(team.share(batch)), config.block_size
    C, V = config.n_embd, config.vocab_size
    rng = random(0)

    def array(*shape):
        return rng.random(shape, np.float32)

    products = []  # (a pair of factors, how often a step multiplies such a pair)
    for n, m, times in ((C, 3 * C, 1), (C, C, 1), (C, 4 * C, 1), (4 * C, C, 1)):
        x, w, y = array(B * T, n), array(n, m), array(B * T, m)
        products += [(f, config.n_layer * times) for f in ((x, w), (y, w.T), (x.T, y))]
    x, w, y = array(B * T, C), array(V, C), array(min(B * T, 2**25 // V + 256), V)
    rounds = B * T / len(y)
    products += [((x[: len(y)], w.T), rounds), ((y, w), rounds), ((y.T, x[: len(y)]), rounds)]
    heads, size = B * config.n_head, C // config.n_head
    q, p = array(heads, T, size), array(heads, T, T)
    half = config.n_layer / 2  # a causal model needs half of the scores
    products += [((q, q.swapaxes(1, 2)), 2 * half), ((p, q), 4 * half)]

    outputs = [a @ b for (a, b), _ in products]

    def floor(i):
        """The seconds of all products; each is timed once and counted as often as in a step."""
        total = 0.0
        for ((a, b), times), out in zip(products, outputs):
            start = time.perf_counter()
            np.matmul(a, b, out=out)
            total += (time.perf_counter() - start) * times
        team.wait()
        return total

    return floor


SIDES = {
    "ours": our_side,
    "PyTorch": torch_side,
    "PyTorch, compiled": functools.partial(torch_side, compiled=True),
    "floor": floor_side,
}


def serve(text: str) -> None:
    """Run as one process of a side: for each line received, run steps and send back their means.

    `text` is the JSON that `Side` passes on the command line. The processes wait on a socket
    because that uses no processor time, unlike waiting in MPI.
    """
    side, config, batch, port = json.loads(text)
    step = SIDES[side](GPTConfig(**config), batch)
    with socket.create_connection(("127.0.0.1", port)) as connection, connection.makefile() as file:
        connection.sendall(json.dumps({"side": side, "pid": os.getpid()}).encode() + b"\n")
        for line in file:
            first, count = map(int, line.split())
            faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            start = time.perf_counter()
            results = [step(first + i) for i in range(count)]
            seconds = sum(results) if side == "floor" else time.perf_counter() - start
            faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
            answer = {"seconds": seconds / count, "faults": faults / count}
            connection.sendall(json.dumps(answer).encode() + b"\n")


class Side:
    """Starts and controls the processes of a side: `ranks` of them, each with `threads` threads."""

    def __init__(self, side: str, config: GPTConfig, batch: int, ranks=1, threads=None):
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.settimeout(120)
            what = [side, dataclasses.asdict(config), batch, server.getsockname()[1]]
            command = [sys.executable, __file__, "--serve", json.dumps(what)]
            if ranks > 1:
                command = [parallel.mpiexec(), "-n", str(ranks), *command]
            root = str(Path(__file__).resolve().parent.parent)
            environment = os.environ | {"PYTHONPATH": root}
            if threads:
                environment |= {"OPENBLAS_NUM_THREADS": str(threads)}
            self.process = subprocess.Popen(command, env=environment)
            self.connections = [server.accept()[0] for _ in range(ranks)]
        self.files = [connection.makefile() for connection in self.connections]
        self.pids = [json.loads(file.readline())["pid"] for file in self.files]
        self.seconds, self.faults, self.memory = [], [], 0

    def turn(self, first: int, count: int, timed: bool = True) -> float:
        """Run `count` steps from number `first`; returns the mean seconds of a step."""
        for connection in self.connections:
            connection.sendall(f"{first} {count}\n".encode())
        answers = [json.loads(file.readline()) for file in self.files]
        seconds = max(answer["seconds"] for answer in answers)
        if timed:
            self.seconds.append(seconds)
            self.faults.append(answers[0]["faults"])
        return seconds

    def watch_memory(self, i: int, count: int) -> None:
        """Run `count` steps from number `i` and record the largest memory of all processes."""
        done = threading.Event()

        def watch():
            while not done.wait(0.002):
                self.memory = max(self.memory, sum(map(proportional_set_size, self.pids)))

        watcher = threading.Thread(target=watch)
        watcher.start()
        self.turn(i, count, timed=False)
        done.set()
        watcher.join()

    def close(self) -> None:
        for connection, file in zip(self.connections, self.files):
            file.close()
            connection.close()
        self.process.wait()

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def proportional_set_size(pid: int) -> int:
    """Bytes of memory of a process; a page that n processes share counts as 1/n of a page."""
    with open(f"/proc/{pid}/smaps_rollup") as file:
        return sum(int(line.split()[1]) for line in file if line.startswith("Pss:")) * 1024


# =================================================================================================
# The comparison
# =================================================================================================


def run(name: str, options) -> None:
    """Measure one configuration and print its lines of the table."""
    config, batch = CONFIGS[name]
    n, theirs = options.workers, "PyTorch, compiled" if options.compile else "PyTorch"
    sides = {"floor": Side("floor", config, batch, n)}
    sides[f"ours, {n} workers"] = Side("ours", config, batch, n)
    if options.single:
        sides["ours, 1 thread"] = Side("ours", config, batch, threads=1)
    if options.against == "torch":
        check_agreement(config, batch)
        sides[theirs] = Side(theirs, config, batch)
    for i in range(2):  # the first steps warm up
        longest = max(side.turn(i, 1, timed=False) for side in sides.values())
    count = max(1, round(0.5 / longest))
    for i in tqdm(range(options.turns), name, unit="round", disable=None, leave=False):
        for side in sides.values():
            side.turn(2 + i * count, count)
    for side in sides.values():
        side.watch_memory(2 + options.turns * count, 1 + count)
    reference = sides.get(theirs)
    floor = sides.pop("floor")
    floor.close()
    for label, side in sides.items():
        ratio = f"{reference.median / side.median:5.2f}" if reference else "    -"
        memory = f"{side.memory / reference.memory:5.2f}" if reference else "    -"
        print(
            f"{name}  {label:18} {batch * config.block_size / side.median:9,.0f} "
            f"{side.median * 1e3:9,.1f} {ratio} {floor.median / side.median:6.2f} "
            f"{side.memory / 2**20:8,.0f} {memory} {statistics.median(side.faults):8,.0f}",
            flush=True,
        )
        side.close()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", nargs="?", default="A", choices=[*CONFIGS, "all"])
    parser.add_argument("--against", choices=("torch", "none"), default="torch")
    parser.add_argument("--turns", type=int, default=11, help="timed turns of each side (11)")
    parser.add_argument("--workers", type=int, default=parallel.physical_cores())
    parser.add_argument("--single", action="store_true", help="also one process with one thread")
    parser.add_argument("--compile", action="store_true", help="torch.compile the PyTorch model")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve)
        return
    print(
        f"{'':2} {'':18} {'tokens/s':>9} {'ms':>9} {'ratio':>5} {'floor':>6} "
        f"{'MB':>8} {'ratio':>5} {'faults':>8}"
    )
    for name in CONFIGS if options.config == "all" else [options.config]:
        run(name, options)


if __name__ == "__main__":
    main()
