"""The training loop, the same for every task.

`step` counts finished updates. Everything random is drawn from keys that name the step, so a run
that was stopped anywhere and resumed is, bit for bit, the run that was left alone.
"""

from __future__ import annotations

import contextlib
import math

import numpy as np

import tensorlite as tl
from tensorlite import nn
from tensorlite.device import RowRandom
from tensorlite.parallel import ALONE, Replicated, Team

from ..evaluate import AT_A_TIME
from .optimizer import learning_rate, set_learning_rates
from .progress import Progress
from .run import Run
from .settings import RunSettings
from .signals import StopSignal
from .task import Batch, Task

# =================================================================================================
# One step
# =================================================================================================


def train_step(
    model: nn.Module, optimizer, task: Task, settings: RunSettings, step: int, team: Team = ALONE
) -> tuple[float, float] | None:
    """One update: (the mean loss of the batch before it, the gradient's norm before clipping).

    Where nothing in the batch counts, nothing is changed, and None returned. Raises
    FloatingPointError, and changes nothing, when loss or norm is infinite or not a number.
    """
    examples = task.batch(step, model, team)
    if not examples.whole:
        return None
    loss, norm = gradients(model, optimizer, task, examples, settings, step, team)
    set_learning_rates(optimizer, settings, step)
    optimizer.step()
    optimizer.zero_grad()
    return loss, norm


def gradients(
    model: nn.Module,
    optimizer,
    task: Task,
    examples: Batch,
    settings: RunSettings,
    step: int,
    team: Team = ALONE,
) -> tuple[float, float]:
    """The clipped gradients of a step's batch, in the optimizer: (mean loss, norm before clipping).

    All ranks of the team have the same batch, and each takes its share of the rows, some at a time:
    the gradients of parts add up to that of the whole. Raises FloatingPointError, and leaves no
    gradients, when loss or norm is infinite or not a number.
    """
    s = settings
    if not examples.weights.all():
        examples = examples[examples.weights != 0]
    share, at_a_time = team.share(len(examples)), math.ceil(s.batch_size / team.size)
    if s.device == "cpu":
        at_a_time = min(at_a_time, math.ceil(AT_A_TIME / task.tokens_per_example))
    loss = 0.0
    for first in range(0, len(share), at_a_time):
        rows = share[first : first + at_a_time]
        rng = RowRandom(s.seed, "dropout", step, rows=rows) if s.dropout else None
        part = task.loss(model, examples[rows.start : rows.stop], rng)
        optimizer.backward(part, last=rows.stop == share.stop)
        loss += part.item()
    loss = team.sum(loss)
    norm = optimizer.clip_grad_norm(s.grad_clip or math.inf).item()
    if not (math.isfinite(loss) and math.isfinite(norm)):
        optimizer.zero_grad()
        raise FloatingPointError(f"the loss is {loss}, the gradient's norm {norm}")
    return loss, norm


# =================================================================================================
# All steps
# =================================================================================================


def train(run: Run, task: Task, model: nn.Module, optimizer) -> bool:
    """Train from the run's step to max_iters; returns whether it got there.

    Writes checkpoints, `metrics.jsonl` and `best/` to the folder of the run. On SIGINT, SIGTERM or
    SIGHUP, or when the reader of a pipe that it writes to has gone, the step is finished, saved,
    and False returned; a second SIGINT raises KeyboardInterrupt. Raises FloatingPointError when
    loss or gradient is infinite or not a number; the last checkpoint stays. All ranks of a team
    call this; rank 0 prints and writes the files.
    """
    s, team, step = run.settings, run.team, run.start

    def one_step(step):
        return train_step(model, optimizer, task, s, step, team)

    def one_check(step):
        check(model, optimizer, task, s, step, team)

    on_gpu = contextlib.nullcontext()
    evenly = team.size == 1 or (isinstance(optimizer, Replicated) and s.batch_size % team.size == 0)
    recordable = s.optimizer == "adamw" and hasattr(task, "arrays")
    recordable = recordable and not getattr(task, "packed", False)  # whose masks the CPU makes
    if s.device == "cuda" and evenly and recordable:
        from tensorlite.kernels import CannotCompile, do_without  # a CPU does without

        from .gpu import GPUStep

        model.train()
        try:
            with diverging(run, step):
                steps = GPUStep(model, optimizer, task, s, run.load_gpu_state(), team)
                steps.check(step)
        except CannotCompile as error:
            do_without(error)
        else:
            one_step, one_check, on_gpu, run.gpu_state = steps, steps.check, steps, steps.state
    elif s.device == "cuda" and s.optimizer == "muon":
        print("Python launches the kernels of a step: with --optimizer muon it is not recorded")
        on_gpu = tl.autocast("float32" if s.precision == "float16" else s.precision)
    elif s.precision == "float16":  # its small gradients need a scale, which GPUStep has
        print("float32 products: float16 is for pretraining on one GPU, where the loss is scaled")
        on_gpu = tl.autocast("float32")
    save_interval = s.save_interval or s.eval_interval
    model.train()
    quiet = np.errstate(over="ignore", invalid="ignore")  # `gradients` looks for what overflows
    with Progress(run) as progress, StopSignal() as stop, quiet, on_gpu:
        while True:
            done = step == s.max_iters
            if (step % s.eval_interval == 0 or done) and (step > run.start or run.start == 0):
                measured = task.evaluate(model, team)
                if not math.isfinite(measured["val_loss"]):
                    with diverging(run, step):
                        raise FloatingPointError(f"the validation loss is {measured['val_loss']}")
                run.metrics.write({"step": step, **measured})
                progress.evaluated(step, measured)
                if step > 0:
                    run.keep_if_best(model, measured["val_loss"], step)
            stopping = team.sum(stop.requested) > 0  # whichever rank has got the signal
            if step > run.saved and (step % save_interval == 0 or done or stopping):
                with diverging(run, step):
                    one_check(step)
                run.save(model, optimizer, step)
            if done or stopping:
                return done

            with run.clock.step(), diverging(run, step):
                stepped = one_step(step)
            step += 1

            progress.stepped(step, stepped and stepped[0])
            if stepped is None:
                run.metrics.write({"step": step, "skipped": True})
            elif step % s.log_interval == 0:
                loss, norm = stepped
                run.metrics.write(
                    {
                        "step": step,
                        "train_loss": loss,
                        "lr": learning_rate(s, step - 1),
                        "grad_norm": norm,
                        "tokens_per_second": round(run.clock.speed(s.log_interval), 1),
                    }
                )


def check(
    model: nn.Module, optimizer, task: Task, settings: RunSettings, step: int, team: Team = ALONE
) -> None:
    """Raise FloatingPointError where the model gives no loss, or no gradient, that is a number.

    Called before saving: a ruined model replaces nothing.
    """
    examples = task.batch(step, model, team)
    if not examples.whole:
        return
    examples = examples[examples.weights != 0][: settings.batch_size]
    gradients(model, optimizer, task, examples, settings, step, team)
    optimizer.zero_grad()


@contextlib.contextmanager
def diverging(run: Run, step: int):
    """In the block, a FloatingPointError also says what is saved and what can be done about it."""
    try:
        yield
    except FloatingPointError as error:
        kept = "nothing was saved"
        if run.saved:
            kept = f"the checkpoint of step {run.saved} is in {run.out}"
        raise FloatingPointError(
            f"{error} at step {step}; stopped, {kept}. A lower --learning_rate or more "
            "--warmup_iters may help"
        ) from None
