"""A training step of ours and of PyTorch's, on the same model, batch and machine.

    python benchmarks/train_step.py [A|B|C|all] [--steps N] [--compile]

Needs PyTorch (extra `oracle`). Builds one model in both, with the same weights: ours as train.py
does, PyTorch's plainly with torch.nn and its scaled_dot_product_attention. Checks that loss and
gradients agree, then times whole steps (batch, forward, backward, clipping, AdamW) in turns: ours,
theirs, ours, theirs. The table has the medians.

    A  4 layers, 4 heads, 128 wide, block 64, 65 ids, batch 12
    B  6 layers, 6 heads, 384 wide, block 256, 65 ids, batch 16
    C  12 layers, 12 heads, 768 wide, block 1024, 50304 ids, batch 2
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from gpt import GPT, GPTConfig
from gpt.data import draw_batch, draw_starts
from gpt.settings import Settings
from gpt.trainer import make_optimizer, train_step
from tensorlite.device import keep_freed_memory, random

CONFIGS = {
    "A": (GPTConfig(65, 64, 4, 4, 128, bias=False), 12),
    "B": (GPTConfig(65, 256, 6, 6, 384, bias=False), 16),
    "C": (GPTConfig(50304, 1024, 12, 12, 768, bias=False), 2),
}

# =================================================================================================
# The same model in PyTorch
# =================================================================================================


class TorchBlock(nn.Module):
    def __init__(self, c: GPTConfig):
        super().__init__()
        self.n_head = c.n_head
        self.ln_1 = nn.LayerNorm(c.n_embd, bias=c.bias)
        self.c_attn = nn.Linear(c.n_embd, 3 * c.n_embd, bias=c.bias)
        self.c_proj = nn.Linear(c.n_embd, c.n_embd, bias=c.bias)
        self.ln_2 = nn.LayerNorm(c.n_embd, bias=c.bias)
        self.c_fc = nn.Linear(c.n_embd, 4 * c.n_embd, bias=c.bias)
        self.c_out = nn.Linear(4 * c.n_embd, c.n_embd, bias=c.bias)

    def forward(self, x):
        B, T, C = x.shape
        qkv = self.c_attn(self.ln_1(x)).split(C, dim=2)
        q, k, v = (a.view(B, T, self.n_head, C // self.n_head).transpose(1, 2) for a in qkv)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.c_proj(y.transpose(1, 2).reshape(B, T, C))
        return x + self.c_out(F.gelu(self.c_fc(self.ln_2(x)), approximate="tanh"))


class TorchGPT(nn.Module):
    def __init__(self, c: GPTConfig):
        super().__init__()
        self.wte = nn.Embedding(c.vocab_size, c.n_embd)
        self.wpe = nn.Embedding(c.block_size, c.n_embd)
        self.h = nn.ModuleList(TorchBlock(c) for _ in range(c.n_layer))
        self.ln_f = nn.LayerNorm(c.n_embd, bias=c.bias)

    def forward(self, idx, targets):
        x = self.wte(idx) + self.wpe(torch.arange(idx.shape[1]))
        for block in self.h:
            x = block(x)
        logits = self.ln_f(x) @ self.wte.weight.T
        return F.cross_entropy(logits.view(-1, logits.shape[-1]), targets.view(-1))


NAMES = {
    "attn.c_attn": "c_attn",
    "attn.c_proj": "c_proj",
    "mlp.c_fc": "c_fc",
    "mlp.c_proj": "c_out",
}


def pairs(ours: GPT, theirs: TorchGPT):
    """(our parameter, theirs, whether theirs is transposed) of the same name."""
    named = dict(theirs.named_parameters())
    for name, p in ours.named_parameters():
        for path, short in NAMES.items():
            name = name.replace(path, short)
        yield p, named[name], p.ndim == 2 and name.startswith("h.")


# =================================================================================================
# Steps
# =================================================================================================


def torch_step(model, optimizer, tokens, settings: Settings, step: int) -> float:
    starts = draw_starts(
        random(settings.seed, "batch", step), len(tokens), settings.batch_size, settings.block_size
    )
    x, y = map(torch.from_numpy, draw_batch(tokens, starts, settings.block_size))
    loss = model(x, y)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), settings.grad_clip)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss.item()


def agree(ours: GPT, theirs: TorchGPT, tokens, settings: Settings) -> None:
    """Raise AssertionError unless loss and gradients of both are equal to 1e-4."""
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
        p.grad = q.grad = None


def run(name: str, steps: int, compiled: bool) -> None:
    config, batch = CONFIGS[name]
    settings = Settings(
        batch_size=batch, block_size=config.block_size, max_iters=10_000, warmup_iters=100
    )
    tokens = random(0, "tokens").integers(0, config.vocab_size, 200_000)
    ours, theirs = GPT(config), TorchGPT(config)
    with torch.no_grad():
        for p, q, transposed in pairs(ours, theirs):
            q.copy_(torch.from_numpy(p.data.T if transposed else p.data))
    agree(ours, theirs, tokens, settings)
    optimizer = make_optimizer(ours, settings)
    decay = [p for p in theirs.parameters() if p.ndim >= 2]
    other = [p for p in theirs.parameters() if p.ndim < 2]
    groups = [{"params": decay, "weight_decay": 0.1}, {"params": other, "weight_decay": 0.0}]
    torch_optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.99))
    their_model = torch.compile(theirs) if compiled else theirs

    times = {"ours": [], "torch": []}
    for step in range(steps + 2):
        start = time.perf_counter()
        train_step(ours, optimizer, tokens, settings, step)
        middle = time.perf_counter()
        torch_step(their_model, torch_optimizer, tokens, settings, step)
        end = time.perf_counter()
        if step >= 2:  # the first ones warm up
            times["ours"].append(middle - start)
            times["torch"].append(end - middle)
    ours_s, torch_s = (statistics.median(times[side]) for side in ("ours", "torch"))
    n = batch * config.block_size
    print(
        f"{name}  ours {n / ours_s:8,.0f} tokens/s ({ours_s * 1e3:7.1f} ms)   "
        f"PyTorch {n / torch_s:8,.0f} tokens/s ({torch_s * 1e3:7.1f} ms)   "
        f"ratio {torch_s / ours_s:.2f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", nargs="?", default="A", choices=[*CONFIGS, "all"])
    parser.add_argument("--steps", type=int, default=11, help="timed steps of each (11)")
    parser.add_argument("--compile", action="store_true", help="torch.compile the PyTorch model")
    options = parser.parse_args()
    keep_freed_memory()
    print(f"PyTorch {torch.__version__}, {torch.get_num_threads()} threads; NumPy {np.__version__}")
    for name in CONFIGS if options.config == "all" else [options.config]:
        run(name, options.steps, options.compile)


if __name__ == "__main__":
    main()
