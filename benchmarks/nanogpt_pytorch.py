"""Does with PyTorch what train.py does: the other side of end_to_end.py and speedrun.py.

    python benchmarks/nanogpt_pytorch.py --preset shakespeare-char --dataset TEXT --out_dir OUT

The command line is that of train.py. The model is the one of train_step.py, in one process and in
eager mode, from the same initial weights and on the same batches. The script reads the text, makes
the tokenizer, trains with AdamW, writes metrics, estimates of the loss and checkpoints, measures
the loss over the whole validation split, draws the picture and prints a sample. Needs PyTorch
(extra `oracle`).
"""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.train_step import twin
from gpt import GPT, GPTConfig
from gpt.data import draw_batch, draw_starts, full_windows, read_text, split
from gpt.training.metrics import Metrics, plot_losses
from gpt.training.optimizer import learning_rate
from gpt.training.presets import parse
from gpt.training.settings import Settings
from tensorlite.device import random
from tokenizer import CharTokenizer

ONLY = {  # what it has of these settings
    "model": "gpt2",
    "tokenizer": "char",
    "init_from": "scratch",
    "optimizer": "adamw",
    "dropout": 0,
    "gradient_accumulation_steps": 1,
}


def train_with_pytorch(s: Settings) -> float:
    """Train as the settings say; returns the loss over the whole validation split.

    Raises ValueError for settings that this script does not have.
    """
    for name, value in ONLY.items():
        if getattr(s, name) not in (None, value):
            raise ValueError(f"the PyTorch script has --{name} {value} only")
    out = Path(s.out_dir)
    out.mkdir(parents=True, exist_ok=True)
    (out / "run.json").write_text(json.dumps({"settings": dataclasses.asdict(s)}))
    torch.manual_seed(s.seed)
    whole = read_text(s.dataset)
    tokenizer = CharTokenizer.train(whole)
    train_tokens, val_tokens = (np.asarray(tokenizer.encode_ordinary(t)) for t in split(whole))
    size = tokenizer.vocab_size
    shape = GPTConfig(size, s.block_size, s.n_layer, s.n_head, s.n_embd, s.dropout, s.bias)
    model = twin(GPT(shape, seed=s.seed)).to(s.device)
    groups = [
        {"params": [p for p in model.parameters() if p.ndim >= 2], "weight_decay": s.weight_decay},
        {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=s.learning_rate, betas=(s.beta1, s.beta2))

    def tensors(batch):
        return (torch.from_numpy(ids).to(s.device) for ids in batch)

    @torch.no_grad()
    def mean_loss(batches) -> float:
        losses = [(model(*tensors((x, y))).item() * y.size, y.size) for x, y in batches]
        return sum(loss for loss, _ in losses) / sum(n for _, n in losses)

    def estimate() -> float:
        keys = (random(s.seed, "estimate", i) for i in range(s.eval_iters))
        starts = (draw_starts(key, len(val_tokens), s.batch_size, s.block_size) for key in keys)
        return mean_loss(draw_batch(val_tokens, rows, s.block_size) for rows in starts)

    def sample(n: int) -> str:
        ids = torch.tensor([tokenizer.encode_ordinary("\n")], device=s.device)
        with torch.no_grad():
            for _ in range(n):
                logits = model.logits(ids[:, -s.block_size :])[:, -1]
                ids = torch.cat([ids, torch.multinomial(torch.softmax(logits, -1), 1)], 1)
        return tokenizer.decode(ids[0, 1:].tolist())

    best, metrics = math.inf, Metrics(out / "metrics.jsonl", upto=0)
    for step in range(s.max_iters + 1):
        if step % s.eval_interval == 0 or step == s.max_iters:
            loss = estimate()
            metrics.write({"step": step, "val_loss": loss})
            print(f"step {step:6,}  validation loss {loss:.4f}", flush=True)
            if step and loss < best:
                best = loss
                torch.save(model.state_dict(), out / "best.pt")
            torch.save([model.state_dict(), optimizer.state_dict()], out / "checkpoint.pt")
        if step == s.max_iters:
            break
        starts = draw_starts(
            random(s.seed, "batch", step), len(train_tokens), s.batch_size, s.block_size
        )
        loss = model(*tensors(draw_batch(train_tokens, starts, s.block_size)))
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), s.grad_clip)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(s, step)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        metrics.write({"step": step + 1, "train_loss": loss.item(), "grad_norm": norm.item()})
    loss = mean_loss(full_windows(val_tokens, s.block_size, s.batch_size))
    metrics.write({"event": "final", "step": s.max_iters, "val_loss_full": loss})
    plot_losses(out)
    print(f"\nvalidation loss {loss:.4f} on the whole split\n{sample(300)}")
    return loss


def main() -> int:
    given, _ = parse(sys.argv[1:])
    try:
        train_with_pytorch(Settings(**given))
    except (OSError, ValueError) as error:
        print(f"nanogpt_pytorch.py: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
