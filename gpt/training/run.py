"""One run: its folder, its settings, and the state that it can be resumed from.

Any command that trains opens its run first, and passes it to the loop:

    with open_run(given, team) as run:              the folder is locked, the settings are known
        model = ...                                 of run.settings
        run.load_weights(model)                     where the run is resumed
        optimizer = make_optimizer(model, run.settings, team)
        run.load_optimizer(model, optimizer)
        run.begin(task, model)                      from here on the folder is written to
        if train(run, task, model, optimizer):
            run.finish(model, measured)
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import tensorlite as tl
from tensorlite import nn
from tensorlite.device import keep_freed_memory, use_gpu
from tensorlite.parallel import ALONE, Team

from .. import checkpoint
from .card import write_card
from .folder import choose_run, only_process, prepare_folder, read_run, resumed_settings
from .metrics import Clock, Metrics, finished, plot_losses, read_metrics, sources_in_words
from .output import harmless
from .settings import RunSettings, Settings
from .task import Task


@contextlib.contextmanager
def open_run(
    given: dict[str, Any], team: Team = ALONE, kind: type[RunSettings] = Settings
) -> Iterator[Run]:
    """The run that the given settings name; no other process trains in its folder in the block.

    Settings that are not given have the defaults of `kind`, or those of the run that is resumed.
    Raises ValueError where the folder holds a run that would be lost.
    """
    keep_freed_memory()
    settings = kind(**given)
    out = Path(settings.out_dir)
    # Before the folder is looked at: what is seen there stays so until the end.
    locked = team.rank == 0 and (out.exists() or not settings.eval_only)
    with only_process(out) if locked else contextlib.nullcontext():
        team.wait()
        saved = None
        if choose_run(given, out, kind):
            saved = read_run(out)
            if (method := saved.get("method", Settings.method)) != kind.method:
                raise ValueError(f"the run in {out} is one of {method}, not of {kind.method}")
            settings = resumed_settings(given, saved["settings"], out, kind)
            given = dataclasses.asdict(settings)  # all that it was started with counts as given
        if settings.device == "cuda":
            use_gpu(team.local_rank)  # raises now if there is none to use
            print(f"{settings.precision} on {tl.cuda.device_name()}")
        with tl.autocast(settings.precision):
            yield Run(settings, given, team, saved)


class Run:
    """A run in its folder `out`. All ranks of a team have one; rank 0 writes the files.

    `given` holds the settings that the user chose, defaults left out; `saved` is the run.json of a
    run that is resumed, None for a new one.
    """

    def __init__(self, settings: RunSettings, given: dict, team: Team = ALONE, saved=None):
        self.settings, self.given, self.team, self.saved_run = settings, given, team, saved
        self.out = Path(settings.out_dir)
        self.resumed, self.fingerprint, self.began_with = saved is not None, "", ""
        self.gpu_state = lambda: None  # what a GPU needs to go on with the same bits (gpu.py)

    @functools.cached_property
    def start(self) -> int:
        """The number of updates that the run's checkpoint has seen; 0 without a checkpoint."""
        return (checkpoint.load_step(self.out) or 0) if self.resumed else 0

    @property
    def is_finished(self) -> bool:
        """Whether there is nothing left to do."""
        return self.resumed and finished(self.out) and self.start == self.settings.max_iters

    # ---- resuming --------------------------------------------------------------------------------

    def check_data(self, fingerprint: str) -> None:
        """Raise ValueError where a resumed run was trained on other data.

        `fingerprint` is a text that differs for other data; run.json keeps it.
        """
        self.fingerprint = fingerprint
        if self.resumed and fingerprint != self.saved_run["data"]:
            raise ValueError(f"the data is not what the run in {self.out} was trained on")

    def check_start(self, model: nn.Module) -> None:
        """Raise ValueError where a resumed run began with other weights than these.

        Called with the model that is tuned, which a resumed run may compare itself with.
        """
        digest = hashlib.sha256()
        for name, p in model.named_parameters():
            digest.update(name.encode() + np.ascontiguousarray(p.numpy()).tobytes())
        self.began_with = digest.hexdigest()
        if self.resumed and self.saved_run.get("began_with", self.began_with) != self.began_with:
            raise ValueError(
                f"the model in {self.settings.init_from} is not the one that the run in {self.out} "
                "began with: it may have been trained since, or replaced"
            )

    def load_weights(self, model: nn.Module) -> None:
        """Give the model the weights of the run's checkpoint, if there is one."""
        if self.start:
            last = type(model).from_pretrained(self.out)
            model.load_state_dict(last.state_dict())

    def load_optimizer(self, model: nn.Module, optimizer) -> None:
        """Give the optimizer the state in the run's checkpoint, and say where the run goes on.

        Raises ValueError where the run is further than --max_iters already.
        """
        settings, out, start = self.settings, self.out, self.start
        if start:
            checkpoint.load_optimizer(out, model, optimizer, start)
            print(f"resuming {out} at step {start:,}")
            if self.saved_run["settings"].get("lr_decay_iters") and settings.lr_decay_iters is None:
                print(
                    f"the learning rate's decay ends at step {settings.max_iters:,}, "
                    "as the run does"
                )
        elif self.resumed:
            print(f"{out} has no checkpoint yet: starting at step 0")
        if start > settings.max_iters:
            raise ValueError(f"{out} is at step {start}, --max_iters is {settings.max_iters}")

    def load_gpu_state(self) -> dict | None:
        """What `gpu_state` gave when the run's checkpoint was saved; None if it was on a CPU."""
        return checkpoint.load_gpu_state(self.out, self.start) if self.start else None

    # ---- from the first write to the last --------------------------------------------------------

    def begin(self, task: Task, model: nn.Module, tokenizer=None) -> None:
        """Make the folder this run's own: write run.json, and open metrics.jsonl.

        `tokenizer` is saved beside the model.
        """
        s, out, first = self.settings, self.out, self.team.rank == 0
        self.tokenizer, self.saved = tokenizer, self.start  # the step that was saved last
        self.best = self._best_so_far(task, model) if self.resumed else math.inf
        self.team.wait()  # all have looked, now one may change something
        if first:
            if not self.resumed:
                prepare_folder(out, s.overwrite)
            checkpoint.save_tokenizer(out, tokenizer)
            if not self.resumed:
                checkpoint.begin_run(out)
            checkpoint.write_json(
                out / checkpoint.RUN,
                {
                    "method": s.method,
                    "settings": dataclasses.asdict(s),
                    "data": self.fingerprint,
                    "began_with": self.began_with,
                    "folder": os.getcwd(),  # what paths in the settings are relative to
                },
            )
        self.metrics = Metrics(out / "metrics.jsonl" if first else None, upto=self.start)
        if self.start and first and not self.metrics.lines:
            print(f"{out / 'metrics.jsonl'} was lost: it begins again at step {self.start:,}")
        examples = s.batch_size * s.gradient_accumulation_steps
        self.clock = Clock(examples * task.tokens_per_example)

    def _best_so_far(self, task: Task, model: nn.Module) -> float:
        """The validation loss of the model in `best/`, which a better one replaces.

        It has a line in metrics.jsonl; where that is lost, the model is measured again. So it is
        for a mixture: what its sources weigh in the loss may have changed with the length of the
        run. Without a model in `best/`, any model is better.
        """
        best, folder = math.inf, self.out / "best"
        if self.team.rank == 0 and (step := checkpoint.load_step(folder)) is not None:
            lines = read_metrics(self.out / "metrics.jsonl")
            found = [line for line in lines if line["step"] == step and "val_loss" in line]
            of_sources = any(key.startswith("val_loss/") for line in found for key in line)
            best = found[-1]["val_loss"] if found and not of_sources else None
        best = self.team.same(best)
        if best is None:
            model = type(model).from_pretrained(folder).to(self.settings.device)
            best = task.evaluate(model, self.team)["val_loss"]
        return best if math.isfinite(best) else math.inf

    def keep_if_best(self, model: nn.Module, loss: float, step: int) -> None:
        """Save the model in `best/` if no earlier one had a validation loss as low."""
        if loss < self.best:
            self.best = loss
            if self.team.rank == 0:
                checkpoint.save_tokenizer(self.out / "best", self.tokenizer)
                model.save_pretrained(self.out / "best", step)
                write_card(self, model, self.out / "best", step)
            self.team.wait()

    def save(self, model: nn.Module, optimizer, step: int) -> None:
        """Save the checkpoint that the run can be resumed from."""
        if self.team.size > 1:
            optimizer.gather()
        if self.team.rank == 0:
            self.metrics.sync()
            checkpoint.save_run(self.out, model, optimizer, step, self.gpu_state())
            write_card(self, model, self.out, step)
        self.team.wait()
        self.saved = step

    def stopped(self) -> str:
        """Where a run that a signal has stopped stands, in words."""
        step = checkpoint.load_step(self.out) or 0
        return f"stopped at step {step:,}, {'saved' if step else 'with nothing to save yet'}"

    def finish(self, model: nn.Module, measured: dict[str, Any]) -> None:
        """Write the last line of metrics.jsonl, with what was measured at the end, and the card."""
        clock = self.clock
        if self.team.rank == 0:  # first: a run with its last line counts as finished
            write_card(self, model, self.out, self.settings.max_iters, measured)
        self.metrics.write(
            {
                "event": "final",
                "step": self.settings.max_iters,
                **measured,
                "seconds": round(clock.seconds(), 2),
                "tokens_per_second": round(clock.speed(), 1) if clock.steps else None,
            }
        )
        if self.team.rank == 0:
            self.metrics.sync()

    def draw(self) -> None:
        """Draw `loss.png`."""
        with harmless("loss.png"):
            if not plot_losses(self.out):
                print("no loss.png: pip install 'tensorlite[plot]' for the picture of the loss")

    def report(self) -> None:
        """Print the loss that a finished run has ended with."""
        final = read_metrics(self.out / "metrics.jsonl")[-1]
        if final.get("val_loss_full") is not None:
            bits = final.get("bits_per_byte")
            more = sources_in_words(final, "val_loss_full") + " on the whole split"
            if bits is not None:
                more += f", {bits:.3f} bits per byte{sources_in_words(final, 'bits_per_byte')}"
            print(f"\nvalidation loss {final['val_loss_full']:.4f}{more}")
