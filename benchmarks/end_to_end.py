"""Times a whole training run, from the command line to the last loss, with ours and with PyTorch.

    python benchmarks/end_to_end.py TEXT [--rounds 3]         needs PyTorch (extra `oracle`)

Our run is `python train.py --preset shakespeare-char --dataset TEXT` with everything that it does:
reading the text, training the tokenizer, starting the workers, 2,000 steps, metrics, evaluations,
checkpoints, the loss over the whole validation split, the picture and the sample. PyTorch's run is
a script that does the same in one process with the model of benchmarks/train_step.py, from the same
initial weights and on the same batches. The two runs alternate. Prints the median wall time and the
validation loss of each.
"""

from __future__ import annotations

import argparse
import math
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from tqdm import tqdm

from gpt import GPT, GPTConfig
from gpt.data import draw_batch, draw_starts, full_windows, read_text, split
from gpt.training.metrics import Metrics, plot_losses, read_metrics
from gpt.training.optimizer import learning_rate
from gpt.training.presets import parse
from gpt.training.settings import Settings
from tensorlite.device import random
from tokenizer import CharTokenizer

ROOT = Path(__file__).resolve().parent.parent


def train_with_pytorch(text: str, out: Path) -> float:
    """Do with PyTorch what train.py does; returns the loss over the whole validation split."""
    import torch
    from train_step import twin

    given, _ = parse(["--preset", "shakespeare-char", "--dataset", text, "--out_dir", str(out)])
    s = Settings(**given)
    whole = read_text(s.dataset)
    tokenizer = CharTokenizer.train(whole)
    train_tokens, val_tokens = (np.asarray(tokenizer.encode_ordinary(t)) for t in split(whole))
    size = tokenizer.vocab_size
    shape = GPTConfig(size, s.block_size, s.n_layer, s.n_head, s.n_embd, s.dropout, s.bias)
    model = twin(GPT(shape, seed=s.seed))
    groups = [
        {"params": [p for p in model.parameters() if p.ndim >= 2], "weight_decay": s.weight_decay},
        {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=s.learning_rate, betas=(s.beta1, s.beta2))

    def tensors(batch):
        return map(torch.from_numpy, batch)

    @torch.no_grad()
    def mean_loss(batches) -> float:
        losses = [(model(*tensors((x, y))).item() * y.size, y.size) for x, y in batches]
        return sum(loss for loss, _ in losses) / sum(n for _, n in losses)

    def estimate() -> float:
        keys = (random(s.seed, "estimate", i) for i in range(s.eval_iters))
        starts = (draw_starts(key, len(val_tokens), s.batch_size, s.block_size) for key in keys)
        return mean_loss(draw_batch(val_tokens, rows, s.block_size) for rows in starts)

    def sample(n: int) -> str:
        ids = torch.tensor([tokenizer.encode_ordinary("\n")])
        with torch.no_grad():
            for _ in range(n):
                logits = model.logits(ids[:, -s.block_size :])[:, -1]
                ids = torch.cat([ids, torch.multinomial(torch.softmax(logits, -1), 1)], 1)
        return tokenizer.decode(ids[0, 1:].tolist())

    best, metrics = math.inf, Metrics(out / "metrics.jsonl", upto=0)
    for step in tqdm(range(s.max_iters + 1), "PyTorch", disable=None, leave=False):
        if step % s.eval_interval == 0 or step == s.max_iters:
            loss = estimate()
            metrics.write({"step": step, "val_loss": loss})
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
    plot_losses(out)
    print(sample(300))
    return loss


def ours(text: str, out: Path) -> float:
    """Run train.py; returns the loss over the whole validation split that it reports."""
    command = ["train.py", "--preset", "shakespeare-char", "--dataset", text, "--out_dir", str(out)]
    subprocess.run([sys.executable, *command], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return read_metrics(out / "metrics.jsonl")[-1]["val_loss_full"]


def theirs(text: str, out: Path) -> float:
    """Run `train_with_pytorch` in a process of its own; returns the same loss."""
    command = [sys.executable, __file__, text, "--pytorch", str(out)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return float((out / "loss.txt").read_text())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("text", metavar="TEXT", help="a file, such as tinyshakespeare.txt")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each (3)")
    parser.add_argument("--pytorch", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    text = str(Path(options.text).resolve())
    if options.pytorch:
        loss = train_with_pytorch(text, options.pytorch)
        (options.pytorch / "loss.txt").write_text(str(loss))
        return
    seconds, losses = {ours: [], theirs: []}, {}
    for _ in range(options.rounds):
        for side in seconds:
            with tempfile.TemporaryDirectory() as folder:
                start = time.perf_counter()
                losses[side] = side(text, Path(folder))
                seconds[side].append(time.perf_counter() - start)
    a, b = (statistics.median(values) for values in seconds.values())
    print(f"ours     {a:6.1f} s   validation loss {losses[ours]:.4f}")
    print(f"PyTorch  {b:6.1f} s   validation loss {losses[theirs]:.4f}   ratio {b / a:.2f}")


if __name__ == "__main__":
    main()
