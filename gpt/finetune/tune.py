"""What happens when a model is fine-tuned, in order: the same for every method."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import shlex
from pathlib import Path

import tokenizer as tokenizers
from tensorlite import nn
from tensorlite.parallel import ALONE, Team

from .. import models
from ..data import read_records
from ..training.command import command
from ..training.loop import train
from ..training.metrics import read_metrics
from ..training.optimizer import make_optimizer
from ..training.output import harmless
from ..training.prepare import load_to_train
from ..training.run import Run, open_run
from .settings import Tuning


def tune(method, given: dict, team: Team = ALONE, why: str = "") -> int:
    """Fine-tune as the given settings say; returns the exit status.

    `method` is a module of this folder. Its `prepare(run, records, tokenizer, model)` makes the
    task from the records of the dataset, and the model and tokenizer that the task needs from those
    that the run begins with. Every process of the team calls this; rank 0 writes the files and
    prints. `why` is what it prints about the number of processes.
    """
    # 1. The settings, and the folder of the run: a new one, or one to resume.
    with open_run(given, team, method.Settings) as run:
        # 2. The examples, and the model to begin with.
        records = read_records(
            run.settings.dataset, run.settings.column_names, run.settings.encoding
        )
        run.check_data(hashlib.sha256(Path(run.settings.dataset).read_bytes()).hexdigest())
        model, tokenizer = starting_model(run.settings)
        run.check_start(model)
        n_ids = tokenizer.vocab_size

        # 3. The task: what is learned from which examples.
        task, model, tokenizer = method.prepare(run, records, tokenizer, model)
        run.settings = with_steps(run.settings, task.steps_per_epoch)
        if run.is_finished and not run.settings.eval_only:
            print(f"the run in {run.out} is finished; --epochs or --max_iters goes on")
            print_final(run)
            return 0

        # 4. What trains: all weights, some of them, or adapters. Then the state that was saved.
        total = sum(p.size for p in model.parameters())
        new = model.config.vocab_size - n_ids if tokenizer.vocab_size > n_ids else 0
        model = choose_trainable(model, run.settings, new)
        run.load_weights(model)
        model.to(run.settings.device)
        optimizer = make_optimizer(model, run.settings, team)
        run.load_optimizer(model, optimizer)
        trained = sum(p.size for p in optimizer.params)
        print(
            f"{trained:,} parameters train, {trained / total:.1%} of the model's {total:,}; "
            f"{len(task.lengths):,} examples of {task.tokens_per_example} tokens on average"
        )
        if why:
            print(why)
        if run.settings.eval_only:
            for name, value in task.evaluate(model, team).items():
                print(f"{name} {value:.4f}")
            return 0

        # 5. The loop (gpt/training/loop.py), then what came out.
        run.begin(task, model, tokenizer)
        if not train(run, task, model, optimizer):
            again = command(f"-m gpt.finetune {run.settings.method}", run.out)
            again += " --init_from resume"
            for name in run.settings.unsaved:
                again += f" --{name} {shlex.quote(str(getattr(run.settings, name)))}"
            print(f"{run.stopped()}; go on: {again}")
            return 0
        run.finish(model, task.final(model, team))
        if team.rank == 0:
            run.draw()
            print_final(run)
            with harmless("report"):
                task.report(run, model, tokenizer)
    return 0


def starting_model(s: Tuning):
    """(the model that a run begins with, its tokenizer), from the folder --init_from."""
    model = models.with_config(load_to_train(s.init_from, "resume"), dropout=s.dropout)
    model.recompute = s.recompute
    return model, tokenizers.load(s.init_from)


def with_steps(s: Tuning, steps_per_epoch: int) -> Tuning:
    """The settings with the steps of their epochs."""
    steps = math.ceil(s.epochs * steps_per_epoch) if s.max_iters is None else s.max_iters
    every = s.eval_interval or steps_per_epoch
    return dataclasses.replace(s, max_iters=steps, eval_interval=every)


def choose_trainable(model: nn.Module, s: Tuning, new_tokens: int = 0) -> nn.Module:
    """The model with what shall train as the only parameters that require gradients.

    Adapters learn the embeddings of the last `new_tokens` ids too, those of tokens that the
    tokenizer began without.
    """
    if s.lora:
        targets = tuple(s.lora_targets.split(",")) if s.lora_targets else ()
        adapted = models.Adapted(model, s.init_from)
        adapter = models.LoraConfig(s.lora, s.lora_alpha, s.dropout, targets, s.dora)
        adapted.add_adapter("default", adapter, new_tokens, s.seed)
        return adapted
    if s.train == "all":
        return model
    for p in model.parameters():
        p.requires_grad = False
    body = getattr(model, "body", model)  # of a classifier
    if body is model and body.config.tied and s.train == "head":
        raise ValueError("--train head: this model's head is its token embedding; see --help")
    trained = [model.score if body is not model else body.head]
    if s.train != "head":
        n = int(s.train.partition(":")[2])
        if n > len(body.blocks):
            raise ValueError(f"--train {s.train}: the model has {len(body.blocks)} blocks")
        trained = [] if body is model and body.config.tied else trained
        trained += [*body.blocks[-n:], body.last_norm]
    for part in trained:
        for p in part.parameters():
            p.requires_grad = True
    return model


def print_final(run: Run) -> None:
    """Print the figures at the end of a finished run, with their standard errors."""
    final = read_metrics(run.out / "metrics.jsonl")[-1]
    for name, value in final.items():
        if name.startswith(("val_", "test_")) and isinstance(value, (int, float)):
            if not name.endswith("_error"):
                error = final.get(f"{name}_error")
                more = "" if error is None else f" +- {error:.4f}"
                print(f"{name.replace('_', ' ')} {value:.4f}{more}")
