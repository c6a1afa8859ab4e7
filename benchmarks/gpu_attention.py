"""Attention of gpu.py: our kernels beside cuDNN's and FlashAttention's, which PyTorch brings."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

import tensorlite as tl
from benchmarks.gpu_card import (
    Table,
    attempt,
    captured_milliseconds,
    dtype_of,
    queued_milliseconds,
    torch_and_device,
    used_memory,
)
from tensorlite.device import place

# (B, T, heads, size of a head): GPT-2 at two batches, the model of 354 M, wide and narrow heads
SHAPES = (16, 1024, 12, 64), (2, 1024, 12, 64), (8, 1024, 16, 64), (8, 2048, 8, 128)
SHAPES += ((64, 256, 6, 64), (12, 64, 4, 32))
TINY = ((1, 40, 1, 32),)


def run(options) -> Iterator[Table]:
    rows = []
    for precision in options.precisions:
        for shape in TINY if options.strict else SHAPES:
            B, T, n_head, size = shape
            values = np.resize(np.linspace(-2, 2, 9973, dtype=np.float32), (B, T, 3, n_head, size))
            row = {"B, T, heads, size": ", ".join(map(str, shape)), "precision": precision}
            named = {"": attempt(ours, values, precision)}
            if dtype_of(precision).itemsize == 2:
                for backend in ("cuDNN", "Flash"):
                    named[f"{backend}'s "] = attempt(
                        pytorch, values, precision, backend, ours=False
                    )
            for side, times in named.items():
                for way, ms in zip(("forward", "backward"), times or (None, None)):
                    row[f"{side}{way}, ms"] = ms
            # Causal: half of the scores, in two products forward and five backward.
            flops = 2 * B * n_head * T * T * size
            for way, n in (("forward", 1), ("backward", 2.5)):
                if ms := row[f"{way}, ms"]:
                    row[f"{way}, TFLOP/s"] = n * flops / ms / 1e9
            rows.append(row)
            used_memory(give_back=True)
    yield Table("Causal attention", rows)


def ours(values: np.ndarray, precision: str) -> tuple[float, float]:
    B, T, _, n_head, _ = values.shape
    with tl.autocast(precision):
        qkv = tl.tensor(values.reshape(B, T, -1).astype(dtype_of(precision)), device="cuda")
        qkv.requires_grad = True
        y = tl.causal_self_attention(qkv, n_head=n_head)
        g = tl.Tensor(place(np.ones(y.shape, y.data.dtype), "cuda"))
        forward = captured_milliseconds(lambda: tl.causal_self_attention(qkv, n_head))
        return forward, captured_milliseconds(
            lambda: tl.grad(y, qkv, gradient=g, retain_graph=True)
        )


def pytorch(values: np.ndarray, precision: str, backend: str) -> tuple[float, float] | None:
    """Times with queries, keys and values that lie together, as a projection gives them."""
    torch, device = torch_and_device()
    if torch is None:
        return None
    from torch.nn.attention import SDPBackend, sdpa_kernel

    named = {"cuDNN": SDPBackend.CUDNN_ATTENTION, "Flash": SDPBackend.FLASH_ATTENTION}
    dtype = getattr(torch, dtype_of(precision).name)
    qkv = torch.from_numpy(values).to(device, dtype).requires_grad_()
    q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (B, heads, T, size)
    attend = torch.nn.functional.scaled_dot_product_attention
    with sdpa_kernel(named[backend] if device == "cuda" else SDPBackend.MATH):
        y = attend(q, k, v, is_causal=True)
        g = torch.ones_like(y)
        forward = queued_milliseconds(lambda: attend(q, k, v, is_causal=True))
        return forward, queued_milliseconds(
            lambda: torch.autograd.grad(y, (q, k, v), g, retain_graph=True)
        )
