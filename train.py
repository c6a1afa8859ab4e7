"""Train a GPT on text.

    python train.py                                   the demo: Python's own documentation
    python train.py --preset demo --dataset my.txt    the same with your own text
    python train.py --depth 3 --dataset my.txt        3 layers, and all that suits so many
    python train.py --preset shakespeare-char         nanoGPT's recipe for a CPU
    python train.py --init_from resume                go on where OUT_DIR was left
    python train.py --help                            all settings and presets

`pretrain` says what happens, in order; the functions that it calls are in gpt/training/. Several
processes may run it together: they are a team, which shares the work of every step.
"""

from __future__ import annotations

import os
import signal

if __name__ == "__main__":  # Ctrl-C while the modules below are loaded: no traceback of theirs
    at_interrupt = signal.signal(signal.SIGINT, lambda *_: os._exit(130))

import sys

from gpt.generate import generate
from gpt.training.command import command, run_command
from gpt.training.dataset import load_tokens
from gpt.training.loop import train
from gpt.training.metrics import sources_in_words
from gpt.training.optimizer import make_optimizer
from gpt.training.output import harmless
from gpt.training.prepare import make_model
from gpt.training.presets import parse
from gpt.training.pretrain import Pretraining
from gpt.training.run import Run, open_run
from tensorlite.parallel import ALONE, Team


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    return run_command(__file__, argv, parse, pretrain)


def pretrain(given: dict, team: Team = ALONE, why: str = "") -> int:
    """Train as the given settings say; returns the exit status.

    Settings that are not given have their defaults, or those of the run that is resumed. Every
    process of the team calls this; rank 0 reads the text, writes the files and prints. `why` is
    what it prints about the number of processes.
    """
    # 1. The settings, and the folder of the run: a new one, or one to resume.
    with open_run(given, team) as run:
        # 2. The text, its tokenizer, and the tokens of both splits.
        tokens = load_tokens(run)
        run.check_data(tokens.fingerprint(run.settings))
        if run.is_finished and not run.settings.eval_only:
            steps = f"{run.settings.max_iters:,}"
            more = "--max_iters goes on, with the settings that are given then"
            print(f"the run in {run.out} is finished, at step {steps}; {more}")
            return report(run)

        # 3. The model: new, or from a folder, or as it was saved. gpt/model.py has the simplest
        #    one, gpt/models/ other families.
        model = make_model(run, tokens)

        # 4. The task: which windows of the tokens are a batch, what the loss is, what is measured.
        #    `Pretraining.batch` (gpt/training/pretrain.py) draws the batches. gpt/training/task.py
        #    says what a task is: a new objective is a new one.
        task = Pretraining(run.settings, tokens.train, tokens.val)

        # 5. The optimizer, with the state that was saved.
        optimizer = make_optimizer(model, run.settings, team)
        run.load_optimizer(model, optimizer)
        print(
            f"{model.num_params(non_embedding=True) / 1e6:.2f} M parameters; "
            f"{len(tokens.train):,} tokens to train on, {len(tokens.val):,} to validate, "
            f"{model.config.vocab_size:,} ids"
        )
        if note := task.repetition():
            print(note)
        if why:
            print(why)
        if run.settings.eval_only:
            found = task.evaluate(model, team)
            print(f"validation loss {found['val_loss']:.4f}{sources_in_words(found, 'val_loss')}")
            return 0

        # 6. The loop (gpt/training/loop.py): a batch, its gradients, an update, again.
        run.begin(task, model, tokens.tokenizer)
        if not train(run, task, model, optimizer):
            print(f"{run.stopped()}; go on: {command('train', run.out)} --init_from resume")
            return 0

        # 7. What came out: the loss on the whole validation split, a picture, a sample.
        run.finish(model, task.final(model, team, tokens.tokenizer, tokens.val_texts))
        if team.rank > 0:
            return 0
        run.draw()
        return report(run, model, tokens.tokenizer)


def report(run: Run, model=None, tokenizer=None) -> int:
    """Print the loss, a sample of what the model writes, and the command for more of it."""
    run.report()
    if model and tokenizer:
        with harmless("sample"):
            seed = run.settings.seed + 1
            sample = generate(model, tokenizer, "", max_new_tokens=300, seed=seed)
            print(f"\na sample of what it writes:\n{sample.strip()}")
    with harmless("more of it"):
        print(f"\nmore of it: {command('sample', run.out)}")
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGINT, at_interrupt)
    sys.exit(main())
