"""The training loop, in plain sight.

`step` counts finished updates. Everything random is drawn from keys that name the step, so a run
that was stopped anywhere and resumed is, bit for bit, the run that was left alone.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import io
import json
import math
import os
import signal
import statistics
import sys
import threading
import time
from pathlib import Path

import numpy as np
from tqdm import tqdm

from tensorlite.device import RowRandom, random
from tensorlite.optim import AdamW, cosine_schedule
from tensorlite.parallel import ALONE, Sharded, Team
from tokenizer.base import write_atomic

from ..checkpoint import load_step, save_run, save_tokenizer
from ..data import draw_batch, draw_starts
from ..evaluate import AT_A_TIME, bits_per_byte, duration, estimate_loss, full_loss
from ..model import GPT
from .settings import Settings

# =================================================================================================
# One step
# =================================================================================================


def make_optimizer(model: GPT, settings: Settings, team: Team = ALONE) -> AdamW | Sharded:
    """AdamW with weight decay on matrices and embeddings, none on biases and norms."""
    params = model.parameters()

    def make(pieces):  # (a parameter, what is to be updated of it here)
        return AdamW(
            [
                {"params": [piece for p, piece in pieces if p.ndim >= 2]},
                {"params": [piece for p, piece in pieces if p.ndim < 2], "weight_decay": 0.0},
            ],
            lr=settings.learning_rate,
            betas=(settings.beta1, settings.beta2),
            weight_decay=settings.weight_decay,
        )

    return make(list(zip(params, params))) if team.size == 1 else Sharded(params, make, team)


def learning_rate(settings: Settings, step: int) -> float:
    """The learning rate of the update behind `step` finished ones."""
    s = settings
    if not s.decay_lr:
        return s.learning_rate
    min_lr = s.learning_rate / 10 if s.min_lr is None else s.min_lr
    return cosine_schedule(
        step, s.warmup_iters, s.lr_decay_iters or s.max_iters, s.learning_rate, min_lr
    )


def train_step(model: GPT, optimizer, tokens, settings: Settings, step: int, team: Team = ALONE):
    """One update: (the mean loss of the batch before it, the gradient's norm before clipping).

    Raises FloatingPointError, and changes nothing, when loss or norm is infinite or not a number.
    """
    loss, norm = gradients(model, optimizer, tokens, settings, step, team)
    for group in optimizer.groups:
        group["lr"] = learning_rate(settings, step)
    optimizer.step()
    optimizer.zero_grad()
    return loss, norm


def gradients(model: GPT, optimizer, tokens, settings: Settings, step: int, team: Team = ALONE):
    """The clipped gradients of a step's batch, in the optimizer: (mean loss, norm before clipping).

    All ranks of the team draw the same batch, and each takes its share of the rows, some at a time:
    the gradients of parts add up to that of the whole. Raises FloatingPointError, and leaves no
    gradients, when loss or norm is infinite or not a number.
    """
    s = settings
    n = s.batch_size * s.gradient_accumulation_steps
    starts = draw_starts(random(s.seed, "batch", step), len(tokens), n, s.block_size)
    share, at_a_time = team.share(n), math.ceil(s.batch_size / team.size)
    if s.device == "cpu":
        at_a_time = min(at_a_time, math.ceil(AT_A_TIME / s.block_size))
    loss = 0.0
    for first in range(0, len(share), at_a_time):
        rows = share[first : first + at_a_time]
        x, y = draw_batch(tokens, starts[rows], s.block_size)  # (B, T), (B, T)
        rng = RowRandom(s.seed, "dropout", step, rows=rows) if s.dropout else None
        part = model.loss(x, y, rng) * (len(rows) / n)
        optimizer.backward(part, last=rows.stop == share.stop)
        loss += part.item()
    loss = team.sum(loss)
    norm = optimizer.clip_grad_norm(s.grad_clip or math.inf).item()
    if not (math.isfinite(loss) and math.isfinite(norm)):
        optimizer.zero_grad()
        raise FloatingPointError(f"the loss is {loss}, the gradient's norm {norm}")
    return loss, norm


# =================================================================================================
# The run
# =================================================================================================


def train(
    model: GPT,
    optimizer: AdamW | Sharded,
    train_tokens,
    val_tokens,
    tokenizer,
    settings: Settings,
    start: int = 0,
    team: Team = ALONE,
    best: float = math.inf,
    val_text: str | None = None,
) -> bool:
    """Train from step `start` to max_iters; returns whether it got there.

    Writes checkpoints, `metrics.jsonl` and `best/`, whose model has the loss `best` so far, to
    out_dir. On SIGINT, SIGTERM or SIGHUP, or when the reader of a pipe that it writes to has gone,
    the step is finished, saved, and False returned; a second SIGINT raises KeyboardInterrupt.
    Raises FloatingPointError when loss or gradient is infinite or not a number; the last
    checkpoint stays. Of a team all ranks call this; rank 0 prints and writes files. `val_text` is
    for `bits_per_byte`.
    """
    s, out, first = settings, Path(settings.out_dir), team.rank == 0
    metrics = Metrics(out / "metrics.jsonl" if first else None, upto=start)
    save_interval = s.save_interval or s.eval_interval
    tokens_per_step = s.batch_size * s.gradient_accumulation_steps * s.block_size
    seconds: list[float] = []  # of each step, evaluation and saving left out
    saved, began, shown = start, time.perf_counter(), -math.inf
    stop = StopSignal()
    model.train()
    bar = tqdm(
        total=s.max_iters,
        initial=start,
        unit="step",
        disable=None if first else True,
        dynamic_ncols=True,
    )

    def say(text: str) -> None:
        if not first:
            return
        if bar.disable:
            print(text, flush=True)
        else:
            bar.write(text, file=sys.stdout)

    @contextlib.contextmanager
    def diverging(step: int):
        """In the block, a FloatingPointError is told with what can be done about it."""
        try:
            yield
        except FloatingPointError as error:
            kept = f"the checkpoint of step {saved} is in {out}" if saved else "nothing was saved"
            raise FloatingPointError(
                f"{error} at step {step}; stopped, {kept}. A lower --learning_rate or more "
                "--warmup_iters may help"
            ) from None

    def save(step: int) -> None:
        """Save what has a loss and a gradient that are numbers: a ruined model replaces nothing."""
        one_batch = dataclasses.replace(s, gradient_accumulation_steps=1)
        with diverging(step):
            gradients(model, optimizer, train_tokens, one_batch, step, team)
        optimizer.zero_grad()
        if team.size > 1:
            optimizer.gather()
        if first:
            metrics.sync()
            save_run(out, model, optimizer, step)
        team.wait()

    if start and first and not metrics.lines:
        say(f"{out / 'metrics.jsonl'} was lost: it begins again at step {start:,}")
    with bar, stop, np.errstate(over="ignore", invalid="ignore"):
        step = start
        while True:
            done = step == s.max_iters
            if (step % s.eval_interval == 0 or done) and (step > start or start == 0):
                val_loss = estimate_loss(
                    model, val_tokens, s.batch_size, s.eval_iters, s.seed, team
                )
                if not math.isfinite(val_loss):
                    with diverging(step):
                        raise FloatingPointError(f"the validation loss is {val_loss}")
                metrics.write({"step": step, "val_loss": val_loss})
                say(f"step {step:6,}  validation loss {val_loss:.4f}")
                if val_loss < best and step > 0:
                    best = val_loss
                    if first:
                        save_tokenizer(out / "best", tokenizer)
                        model.save_pretrained(out / "best", step)
                    team.wait()
            stopping = team.sum(stop.requested) > 0  # whichever rank has got the signal
            if step > saved and (step % save_interval == 0 or done or stopping):
                save(step)
                saved = step
            if done or stopping:
                break

            t = time.perf_counter()
            with diverging(step):
                loss, norm = train_step(model, optimizer, train_tokens, s, step, team)
            seconds.append(time.perf_counter() - t)
            step += 1

            bar.update()
            if step % s.log_interval == 0:
                speed = tokens_per_step / statistics.median(seconds[-s.log_interval :])
                metrics.write(
                    {
                        "step": step,
                        "train_loss": loss,
                        "lr": learning_rate(s, step - 1),
                        "grad_norm": norm,
                        "tokens_per_second": round(speed, 1),
                    }
                )
                bar.set_postfix_str(f"loss {loss:.3f}, {speed:,.0f} tokens/s")
                if bar.disable and time.perf_counter() - shown > 5:
                    shown = time.perf_counter()
                    left = (s.max_iters - step) * statistics.median(seconds)
                    say(
                        f"step {step:6,}  loss {loss:.4f}  {speed:,.0f} tokens/s  "
                        f"{duration(left)} left"
                    )
    if not done:
        return False
    val_loss = bits = None
    if not s.skip_final_eval:
        val_loss = full_loss(model, val_tokens, s.batch_size, team, say)
        if tokenizer:
            with harmless("bits per byte"):
                bits = bits_per_byte(val_loss, val_tokens, s.block_size, tokenizer, val_text)
    speed = tokens_per_step / statistics.median(seconds) if seconds else None
    metrics.write(
        {
            "event": "final",
            "step": step,
            "val_loss_full": val_loss,
            "bits_per_byte": bits,
            "seconds": round(time.perf_counter() - began, 2),
            "tokens_per_second": speed and round(speed, 1),
        }
    )
    if first:
        metrics.sync()
    return True


def best_loss(out: Path, val_tokens, settings: Settings, team: Team = ALONE) -> float:
    """The estimated validation loss of the model in `best/`, which a better one replaces.

    It has a line in metrics.jsonl; where that is lost, the model is measured again. Without a model
    in `best/` any is better.
    """
    best, s = math.inf, settings
    if team.rank == 0 and (step := load_step(out / "best")) is not None:
        lines = read_metrics(out / "metrics.jsonl")
        losses = {line["step"]: line["val_loss"] for line in lines if "val_loss" in line}
        best = losses.get(step)  # None: lost
    best = team.same(best)
    if best is None:
        model = GPT.from_pretrained(out / "best").to(s.device)
        best = estimate_loss(model, val_tokens, s.batch_size, s.eval_iters, s.seed, team)
    return best if math.isfinite(best) else math.inf


@contextlib.contextmanager
def harmless(what: str):
    """For what comes after training: a fault in the block costs `what`, and one line says so."""
    try:
        yield
    except Exception as error:  # whatever it is, the run is finished and saved
        reason = " ".join(str(error).split()) or type(error).__name__
        print(f"no {what}: {reason}", flush=True)


class StopSignal:
    """Within the block, a signal that ends a program sets `requested` instead; a second SIGINT
    interrupts at once.

    SIGPIPE, which Python ignores by itself, says that the reader of a pipe has gone.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE)

    def __init__(self):
        self.requested = False

    def __enter__(self):
        self.previous = {}
        if threading.current_thread() is threading.main_thread():
            for number in self.SIGNALS:
                if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                    continue  # started by nohup, to go on without its terminal
                self.previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exception):
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def _handle(self, number, frame):
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = True


# =================================================================================================
# Metrics
# =================================================================================================


class Metrics:
    """`metrics.jsonl`: one JSON object a line. What is behind step `upto` is cut off on opening.

    `path` None keeps nothing: for the ranks that do not write.
    """

    def __init__(self, path: Path | None, upto: int):
        self.lines = []
        if path is None:
            self.file = open(os.devnull, "a")
            return
        if upto > 0:
            lines = [line for line in read_metrics(path) if line["step"] <= upto]
            self.lines = [line for line in lines if "event" not in line]
        write_atomic(path, "".join(json.dumps(line) + "\n" for line in self.lines).encode())
        self.file = open(path, "a")  # held for the whole run

    def write(self, line: dict) -> None:
        self.lines.append(line)
        self.file.write(json.dumps(line) + "\n")
        self.file.flush()

    def sync(self) -> None:
        """Bring the lines to the disk before the checkpoint that they belong to."""
        os.fsync(self.file.fileno())


def read_metrics(path: str | Path) -> list[dict]:
    """The lines of a metrics.jsonl, without those that are cut off or damaged; [] for no file."""
    lines = []
    if Path(path).exists():
        for text in Path(path).read_bytes().splitlines():
            with contextlib.suppress(ValueError, RecursionError):
                line = json.loads(text)
                if isinstance(line, dict) and isinstance(line.get("step"), int):
                    lines.append(line)
    return lines


def finished(directory: str | Path) -> bool:
    """Whether the run in a folder has got to its end."""
    lines = read_metrics(Path(directory) / "metrics.jsonl")
    return bool(lines) and lines[-1].get("event") == "final"


def plot_losses(directory: str | Path) -> bool:
    """Draw the losses in metrics.jsonl as `loss.png`; False without matplotlib."""
    if importlib.util.find_spec("matplotlib") is None:
        return False
    # No pyplot: the backend is the caller's, and one that MPLBACKEND names (a notebook's) may be
    # missing here, which matplotlib would not even be imported with.
    backend = os.environ.pop("MPLBACKEND", None)
    try:
        from matplotlib.figure import Figure
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend

    lines = read_metrics(Path(directory) / "metrics.jsonl")
    figure = Figure(figsize=(8, 5))
    axes = figure.subplots()
    for key, label in (("train_loss", "training batch"), ("val_loss", "validation (estimate)")):
        points = [(line["step"], line[key]) for line in lines if key in line]
        if points:
            style = dict(alpha=0.5) if key == "train_loss" else dict(marker="o", markersize=4)
            axes.plot(*zip(*points), label=label, **style)
    full = [line for line in lines if line.get("val_loss_full") is not None]
    if full:
        label = f"validation, whole split: {full[-1]['val_loss_full']:.3f}"
        axes.axhline(full[-1]["val_loss_full"], linestyle=":", color="gray", label=label)
    axes.set(xlabel="step", ylabel="loss (nats per token)")
    axes.grid(alpha=0.3)
    axes.legend()
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    write_atomic(Path(directory) / "loss.png", picture.getvalue())
    return True
