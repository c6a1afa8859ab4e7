"""Times each fused operation, its composed definition, and PyTorch's operation.

    python benchmarks/ops.py [NAME ...]         needs PyTorch (extra `oracle`)

Times the forward and backward pass with all gradients. Most arrays have the sizes of configuration
B of benchmarks/train_step.py for one worker (4 rows of 256 positions, 384 wide, 6 heads);
`linear_cross_entropy` has 50,304 ids and 768 columns, as in configuration C. All three run in one
process with one thread, alternately, and the C library keeps freed memory for all of them. The
table has the median times, and the ratios of the other two times to that of the fused operation: a
ratio above 1 means that the fused operation is faster.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch.nn import functional as F
from tqdm import tqdm

import tensorlite as tl
from tensorlite.device import keep_freed_memory

B, T, C, HEADS = 4, 256, 384, 6
rng = np.random.default_rng(0)


def array(*shape):
    return rng.standard_normal(shape, np.float32)


def cases() -> dict:
    """name -> (arrays that need a gradient, our static arguments, PyTorch's function)."""
    x, wide, heads = array(B, T, C), array(B, T, 4 * C), (B, HEADS, T, C // HEADS)
    ids, weights = rng.integers(0, 65, (B, T)), (array(C), array(C))
    many_ids, dropped = rng.integers(0, 50304, 512), rng.random(x.shape) > 0.2
    targets, many_targets, keep = map(torch.from_numpy, (ids, many_ids, dropped))
    causal, large = {"is_causal": True}, [array(512, 768), array(50304, 768) * np.float32(0.02)]

    def packed(qkv, n_head):
        q, k, v = (a.view(B, T, n_head, -1).transpose(1, 2) for a in qkv.split(C, dim=2))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return y.transpose(1, 2).reshape(B, T, C)

    return {
        "softmax": ([wide], {}, lambda x: F.softmax(x, -1)),
        "log_softmax": ([wide], {}, lambda x: F.log_softmax(x, -1)),
        "logsumexp": ([wide], {"axis": -1}, lambda x, axis: torch.logsumexp(x, axis)),
        "prod": ([array(B, T, 8)], {"axis": -1}, lambda x, axis: torch.prod(x, axis)),
        "gelu": ([wide], {}, lambda x: F.gelu(x, approximate="tanh")),
        "silu": ([wide], {}, F.silu),
        "linear": ([x, array(C, 4 * C), array(4 * C)], {}, lambda x, w, b: torch.addmm(
            b, x.view(-1, C), w)),
        "layer_norm": ([x, *weights], {}, lambda x, w, b: F.layer_norm(x, (C,), w, b)),
        "rms_norm": ([x, weights[0]], {}, lambda x, w: F.rms_norm(x, (C,), w, 1e-5)),
        "embedding": ([array(50304, C)], {"ids": ids}, lambda w, ids: F.embedding(targets, w)),
        "drop": ([x], {"keep": dropped, "p": 0.2}, lambda x, p, **_: x * keep * (1 / (1 - p))),
        "cross_entropy": ([array(B, T, 65)], {"targets": ids}, lambda x, **_: F.cross_entropy(
            x.view(-1, 65), targets.view(-1))),
        "linear_cross_entropy": (large, {"targets": many_ids},
            lambda x, w, **_: F.cross_entropy(x @ w.T, many_targets)),
        "attention": ([array(*heads) for _ in range(3)], causal, F.scaled_dot_product_attention),
        "packed_attention": ([array(B, T, 3 * C)], {"n_head": HEADS}, packed),
    }  # fmt: skip


def sides(name: str, arrays: list, static: dict, theirs) -> dict:
    """label -> a function that runs the forward and backward pass and returns the seconds."""
    op = tl.OPS[name]
    gradient = np.asarray(op(*arrays, **static).data)
    gradient = array(*gradient.shape)

    def ours(function):
        def run():
            leaves = [tl.tensor(a, requires_grad=True) for a in arrays]
            start = time.perf_counter()
            y = function(*leaves, **static)
            y.backward(gradient, ready=lambda leaf, g: None)
            return time.perf_counter() - start

        return run

    def pytorch():
        leaves = [torch.from_numpy(a).requires_grad_() for a in arrays]
        start = time.perf_counter()
        y = theirs(*leaves, **static)
        y.backward(torch.from_numpy(gradient).view(y.shape))
        return time.perf_counter() - start

    return {"fused": ours(op), "composed": ours(op.composed), "PyTorch": pytorch}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    all_cases = cases()
    fused = [name for name, op in tl.OPS.items() if op.composed]
    assert set(fused) == set(all_cases), set(fused) ^ set(all_cases)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(fused)}; all")
    parser.add_argument("--rounds", type=int, default=11, help="timed turns of each (11)")
    options = parser.parse_args()
    if unknown := set(options.names) - set(fused):
        parser.error(
            f"no fused operation {', '.join(sorted(unknown))}; there are {', '.join(fused)}"
        )
    keep_freed_memory()
    torch.set_num_threads(1)
    print(f"{'ms':22} {'fused':>8} {'composed':>9} {'PyTorch':>8}   ratios")
    with threadpool_limits(1):
        for name in options.names or fused:
            runs = sides(name, *all_cases[name])
            times = {label: [] for label in runs}
            for i in tqdm(range(options.rounds + 2), name, disable=None, leave=False):
                for label, run in runs.items():
                    seconds = run()
                    if i >= 2:  # the first ones warm up
                        times[label].append(seconds * 1e3)
            fast, plain, theirs = (statistics.median(values) for values in times.values())
            print(
                f"{name:22} {fast:8.2f} {plain:9.2f} {theirs:8.2f}   "
                f"{plain / fast:5.2f} {theirs / fast:5.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
