"""Train a GPT on text.

    python train.py                              the demo: Python's own documentation
    python train.py --dataset my.txt             your own text
    python train.py --preset shakespeare-char    nanoGPT's recipe for a CPU
    python train.py --init_from resume           go on where OUT_DIR was left
    python train.py --help                       all settings and presets

This file prepares a run: the settings (gpt/settings.py), the data, the tokenizer, the model. The
loop is in gpt/trainer.py.
"""

from __future__ import annotations

import os
import signal

if __name__ == "__main__":  # Ctrl-C while the modules below are loaded: no traceback of theirs
    at_interrupt = signal.signal(signal.SIGINT, lambda *_: os._exit(130))

import contextlib
import dataclasses
import fcntl
import hashlib
import io
import math
import shlex
import shutil
import sys
import warnings
from pathlib import Path

import numpy as np

import tokenizer as tokenizers
from gpt import GPT, GPTConfig, checkpoint, data
from gpt.evaluate import estimate_loss, holds_unknown
from gpt.generate import generate
from gpt.training.loop import (
    best_loss,
    finished,
    harmless,
    make_optimizer,
    plot_losses,
    read_metrics,
    train,
)
from gpt.training.settings import NO_MODEL, Settings, parse, print_anything
from tensorlite import parallel
from tensorlite.device import count_gpus, keep_freed_memory, use_gpu
from tensorlite.parallel import ALONE, Team
from tokenizer import BPETokenizer, CharTokenizer
from tokenizer.base import END_OF_TEXT


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit status. Faults of the user are one line on stderr."""
    print_anything()
    is_script, argv = argv is None, sys.argv[1:] if argv is None else argv
    team = ALONE
    try:
        team = parallel.join()
        with rank_0_speaks(team):
            warnings.showwarning = lambda text, *_: print(f"train.py: {text}", file=sys.stderr)
            given, notes = parse(argv)
            workers, why = choose_workers(given, team, is_script)
            if workers > team.size:
                print(why, flush=True)
                return parallel.start(workers, [__file__, *argv])
            for note in notes:
                print(note, file=sys.stderr)
            return run(given, team, why)
    except (ValueError, OSError, RuntimeError, FloatingPointError, MemoryError) as error:
        text = " ".join(str(error).split()) or "out of memory"
        team.give_way()
        print(f"train.py: error: {text}", file=sys.stderr)
        return team.end(2)
    except SystemExit as stop:  # the command line's: --help, or a fault in it
        if stop.code:
            team.give_way()
        raise
    except KeyboardInterrupt:
        team.give_way()
        print("train.py: interrupted; --init_from resume goes on", file=sys.stderr)
        return team.end(130)


@contextlib.contextmanager
def rank_0_speaks(team: Team):
    """In the block, what the other ranks print is lost; errors that leave it are not.

    What rank 0 prints is lost where nobody can read it, instead of costing the run.
    """
    if team.rank == 0:
        streams = Output(sys.stdout), Output(sys.stderr)
    else:
        streams = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(streams[0]), contextlib.redirect_stderr(streams[1]):
        try:
            yield
        finally:
            sys.stdout.flush()


class Output:
    """A stream whose reader may go away: a closed pipe or terminal, a full disk; or it is None."""

    def __init__(self, stream):
        self.stream = stream or open(os.devnull, "w")

    def __getattr__(self, name: str):
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        try:
            return self.stream.write(text)
        except OSError:
            return self._give_up(text)

    def flush(self) -> None:
        try:
            self.stream.flush()
        except OSError:
            self._give_up()

    def _give_up(self, text: str = "") -> int:
        """From now on, and for what is still in the buffer, the reader is /dev/null."""
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())
        return len(text)


def run(given: dict, team: Team = ALONE, why: str = "") -> int:
    """Train as the given settings say; those not given have their defaults, or are resumed.

    Of a team, rank 0 reads text, writes files and speaks. `why` is what it says about workers.
    """
    with contextlib.ExitStack() as held:
        return run_alone(given, held, team, why)


def run_alone(given: dict, held: contextlib.ExitStack, team: Team, why: str) -> int:
    """The same; `held` keeps the folder's lock until the end."""
    keep_freed_memory()
    settings, first = Settings(**given), team.rank == 0
    out = Path(settings.out_dir)
    # Before the folder is looked at: what is seen there stays so until the end.
    if first and (out.exists() or not settings.eval_only):
        held.enter_context(only_process(out))
    team.wait()
    resume = choose_run(given, out)
    if resume:
        saved = read_run(out)
        settings = resumed_settings(given, saved["settings"], out)
        given = dataclasses.asdict(settings)  # what it was started with is given
    if settings.device == "cuda":
        use_gpu(team.local_rank)  # raises now if there is none to use

    tokenizer, train_tokens, val_tokens, val_text, size = load_data(
        settings, out if resume else None, team
    )
    fingerprint = fingerprint_of(train_tokens, val_tokens)
    if resume and fingerprint != saved["data"]:
        raise ValueError(f"the data is not what the run in {out} was trained on")

    is_finished = resume and finished(out) and checkpoint.load_step(out) == settings.max_iters
    if is_finished and not settings.eval_only:
        print(f"the run in {out} is finished, at step {settings.max_iters:,}; --max_iters goes on")
        return report(out, None, None, settings)
    start = (checkpoint.load_step(out) or 0) if resume else 0
    model, settings = make_model(settings, given, size, start)
    for tokens, what in ((train_tokens, "training"), (val_tokens, "validation")):
        data.check_length(tokens, settings.block_size, what)
    if start:
        last = GPT.from_pretrained(out)
        model.load_state_dict(last.state_dict())
        model.config = with_token_ids(model.config, vars(last.config))
    if tokenizer:
        end = tokenizer.eos_token_id  # as with GPT-2, it begins a text too
        model.config = with_token_ids(model.config, {"bos_token_id": end, "eos_token_id": end})
    model.to(settings.device)
    model.recompute = settings.recompute
    optimizer = make_optimizer(model, settings, team)
    if start:
        checkpoint.load_optimizer(out, model, optimizer, start)
        print(f"resuming {out} at step {start:,}")
        if saved["settings"].get("lr_decay_iters") and settings.lr_decay_iters is None:
            print(
                f"the learning rate's cosine ends at step {settings.max_iters:,}, as the run does"
            )
    elif resume:
        print(f"{out} has no checkpoint yet: starting at step 0")
    if start > settings.max_iters:
        raise ValueError(f"{out} is at step {start}, --max_iters is {settings.max_iters}")
    print(
        f"{model.num_params(non_embedding=True) / 1e6:.2f} M parameters; "
        f"{len(train_tokens):,} tokens to train on, {len(val_tokens):,} to validate, "
        f"{model.config.vocab_size:,} ids"
    )
    if why:
        print(why)
    if settings.eval_only:
        loss = estimate_loss(
            model, val_tokens, settings.batch_size, settings.eval_iters, settings.seed, team
        )
        print(f"validation loss {loss:.4f}")
        return 0

    best = best_loss(out, val_tokens, settings, team) if resume else math.inf
    team.wait()  # all have looked, now one may change something
    if first:
        if not resume:
            prepare_folder(out, settings.overwrite)
        checkpoint.save_tokenizer(out, tokenizer)
        if not resume:
            checkpoint.begin_run(out)
        checkpoint.write_json(
            out / checkpoint.RUN,
            {
                "settings": dataclasses.asdict(settings),
                "data": fingerprint,
                "folder": os.getcwd(),  # what paths in the settings are relative to
            },
        )
    splits = train_tokens, val_tokens
    if not train(model, optimizer, *splits, tokenizer, settings, start, team, best, val_text):
        step = checkpoint.load_step(out) or 0
        saved = "saved" if step else "with nothing to save yet"
        print(
            f"stopped at step {step:,}, {saved}; go on: {command('train', out)} --init_from resume"
        )
        return 0
    if not first:
        return 0
    with harmless("loss.png"):
        if not plot_losses(out):
            print("no loss.png: pip install 'tensorlite[plot]' for the picture of the loss")
    return report(out, model, tokenizer, settings)


# =================================================================================================
# How many processes
# =================================================================================================

FEW = 2e11  # multiplications of a run that is over, in seconds, before more processes pay


def choose_workers(given: dict, team: Team, is_script: bool = True) -> tuple[int, str]:
    """How many processes train, and a line about it. Raises ValueError for an impossible number.

    Auto takes one process for each physical core (of a GPU machine: each GPU), or as many below
    that as divide the rows of a step evenly; only one for a run that is over within seconds, and
    where a program calls `main` and may expect the training to happen in it.
    """
    settings, processes = Settings(**given), os.environ.get("WORLD_SIZE", "1")
    if "RANK" in os.environ and processes != "1" and not parallel.launched():
        raise ValueError(
            f"torchrun, or another launcher of PyTorch's, has started {processes} processes, which "
            "do not know of each other here: python train.py --workers N starts N that do"
        )
    out = Path(settings.out_dir)
    resume = choose_run(given, out)
    if resume:
        settings = resumed_settings(given, read_run(out)["settings"], out)
    s, asked = settings, settings.workers
    if team.size > 1 or parallel.launched():  # by mpiexec, which decides
        if "workers" in given and asked not in ("auto", str(team.size)):
            raise ValueError(f"--workers {asked}, but mpiexec has started {team.size}")
        if team.size == 1:
            return 1, "one process, as mpiexec has started"
        return team.size, f"{team.size} workers, {team.local_size} on this machine"
    if resume and finished(out) and checkpoint.load_step(out) == s.max_iters:
        return 1, ""
    places, unit = parallel.physical_cores(), "core"
    if s.device == "cuda":
        places, unit = max(1, count_gpus()), "GPU"
    if "workers" not in given and asked != "auto" and (int(asked) > places or parallel.fault()):
        asked = "auto"  # of a run that was started elsewhere
    if asked != "auto":
        n = int(asked)
        if n > places:
            raise ValueError(
                f"--workers {n} is more than the {places} {unit}s here: waiting for each other, "
                f"they would take the {unit}s from each other (mpiexec -n {n} does it nevertheless)"
            )
        if n > 1 and (fault := parallel.fault()):
            raise ValueError(f"--workers {n} does not work here: {fault}")
        return n, f"starting {n} workers" if n > 1 else "one process, as --workers says"
    rows = s.batch_size * s.gradient_accumulation_steps
    n = max(n for n in range(1, places + 1) if rows % n == 0)
    tokens = 3 * rows * s.block_size * s.max_iters  # backward is twice a forward pass
    tokens += 0 if s.skip_final_eval else data.validation_size(s.dataset)
    multiplications = 12 * s.n_layer * s.n_embd**2 * tokens
    if places == 1:
        why = f"there is one {unit}"
    elif s.eval_only or multiplications < FEW:
        n, why = 1, "more would not pay in so short a run"
    elif not is_script:
        n, why = 1, "train.main was called from Python; --workers N starts others"
    elif n == 1:
        why = f"a batch of {rows} does not divide among {places} {unit}s"
    elif fault := parallel.fault():
        n, why = 1, fault
    if n > 1:
        even = "" if n == places else f", for a batch of {rows} divides among them evenly"
        return n, f"starting {n} workers on {places} {unit}s{even}"
    return n, f"one process: {why}"


# =================================================================================================
# Which run
# =================================================================================================

# The folder first: it alone may be hard to delete, and then all is as it was.
RUN_FILES = ("best", "run.json", "config.json", "model.safetensors", "metrics.jsonl", "loss.png")
# Settings that do not change what is learned, and those that a resumed run cannot change.
NEUTRAL = ("out_dir", "init_from", "overwrite", "device", "dtype", "workers", "recompute")
NEUTRAL += ("eval_only",)
FIXED = (
    "tokenizer",
    "separator",
    "vocab_size",
    "block_size",
    "n_layer",
    "n_head",
    "n_embd",
    "bias",
)


def choose_run(given: dict, out: Path) -> bool:
    """Whether to resume the run in `out`. Raises ValueError where it would be overwritten."""
    settings = Settings(**given)
    parts = ("run.json", "model.safetensors", "metrics.jsonl", "best")
    exists = any(os.path.lexists(out / name) for name in parts) or any(out.glob("optimizer-[1-9]*"))
    resumable = (out / checkpoint.RUN).exists()
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out_dir {out} is a file")
    if not settings.out_dir:
        raise ValueError("--out_dir is empty: name a folder")
    if settings.overwrite and is_model(settings.init_from):
        if out.resolve() in (
            Path(settings.init_from).resolve(),
            *Path(settings.init_from).resolve().parents,
        ):
            raise ValueError(f"--overwrite would delete the model to start from, in {out}")
    if settings.init_from == "resume":
        if not resumable:
            raise FileNotFoundError(f"there is no run to resume in {out}: no run.json in it")
        return True
    if not exists or settings.overwrite:
        return False
    if settings.init_from == "auto" and resumable:
        saved = read_run(out)["settings"]
        asked = dataclasses.asdict(settings)
        changed = [n for n in asked if n not in NEUTRAL and asked[n] != saved.get(n)]
        if "dataset" in changed and same_dataset(asked["dataset"], saved.get("dataset")):
            changed.remove("dataset")
        if not changed:
            return True
        raise ValueError(
            f"{out} holds a run with other settings ({', '.join(changed)} differ): "
            "give another --out_dir, or --overwrite to delete it"
        )
    way = "--init_from resume goes on with it, " if resumable else ""  # not without its run.json
    raise ValueError(
        f"{out} holds another run: {way}--overwrite deletes it, --out_dir puts this one elsewhere"
    )


def read_run(out: Path) -> dict:
    """{"settings": ..., "data": ...} of the run in `out`. Raises ValueError if it is not ours."""
    saved = checkpoint.read_json(out / checkpoint.RUN)
    if not isinstance(saved.get("settings"), dict) or "data" not in saved:
        raise ValueError(f"{out / checkpoint.RUN} does not describe a run of train.py")
    if checkpoint.is_lost(out):
        raise FileNotFoundError(
            f"the run in {out} has lost its {checkpoint.MODEL}: put it back (best/ may have an "
            "earlier one, for --init_from), or begin again with --overwrite"
        )
    folder, settings = saved.get("folder"), saved["settings"]
    if isinstance(folder, str) and folder != os.getcwd():  # paths are relative to that one
        if isinstance(dataset := settings.get("dataset"), str):
            settings["dataset"] = data.resolve(dataset, folder)
        if isinstance(model := settings.get("init_from"), str) and model not in NO_MODEL:
            model = os.path.join(folder, model)
            settings["init_from"] = model if is_model(model) else settings["init_from"]
    return saved


def same_dataset(a: str, b: object) -> bool:
    """Whether two names stand for the same dataset: the same file by two paths, say."""
    if not isinstance(b, str):
        return False
    a, b = data.resolve(a), data.resolve(b)
    return a == b or (os.path.exists(a) and os.path.exists(b) and os.path.samefile(a, b))


def resumed_settings(given: dict, saved: dict, out: Path) -> Settings:
    """The saved settings, with the given ones on top where that is possible."""
    names = {field.name for field in dataclasses.fields(Settings)}
    saved = {name: value for name, value in saved.items() if name in names}
    saved = dataclasses.asdict(Settings(**saved))
    for name in FIXED:
        if name in given and given[name] not in (None, saved[name]):
            raise ValueError(
                f"the run in {out} has --{name} {saved[name]}, which cannot be {given[name]} now"
            )
    if "max_iters" in given and saved["lr_decay_iters"] == saved["max_iters"]:
        saved["lr_decay_iters"] = None  # where the run ends, then as now
    given = {name: value for name, value in given.items() if name not in FIXED}
    return Settings(**saved | given | {"init_from": saved["init_from"], "overwrite": False})


@contextlib.contextmanager
def only_process(out: Path):
    """Make the folder, and let no other process train in it while the block runs.

    A folder that was made here and is still empty at the end is removed.
    """
    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    out.mkdir(parents=True, exist_ok=True)
    handle = os.open(out, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not (out.exists() and os.path.samestat(os.fstat(handle), out.stat())):
            raise BlockingIOError  # it has just been removed
        yield
    except BlockingIOError:
        made = []
        raise ValueError(f"another process is training in {out}") from None
    finally:
        with contextlib.suppress(OSError):  # not empty
            for folder in made:
                folder.rmdir()
        os.close(handle)


def prepare_folder(out: Path, overwrite: bool) -> None:
    """With `overwrite`, delete what a run has left in its folder."""
    if overwrite:
        if not os.access(out, os.W_OK):  # before anything in best/ is deleted
            raise PermissionError(f"nothing can be deleted in {out}: it is not writable for you")
        names = [*RUN_FILES, tokenizers.base.FILE_NAME, "tokenizer.json"]
        names += [checkpoint.TOKENIZER_CONFIG]
        names += (p.name for p in out.glob("optimizer-*.safetensors"))
        for path in (out / name for name in names):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


# =================================================================================================
# Data, tokenizer, model
# =================================================================================================


def load_data(settings: Settings, resumed: Path | None, team: Team = ALONE):
    """(tokenizer or None, training tokens, validation tokens, validation text, number of ids).

    The text is None unless it has characters that the tokenizer does not know. Files of tokens are
    mapped by every rank. Text is read by rank 0, which alone has its tokenizer; the ranks of a
    machine share the tokens.
    """
    if data.is_token_data(settings.dataset):
        tokenizer, *splits, _ = read_data(settings, resumed)
        return tokenizer, *splits, None, count_ids(settings, tokenizer)
    tokenizer, splits, val_text, size = None, (None, None), None, None
    if team.rank == 0:
        tokenizer, *splits, val_text = read_data(settings, resumed)
        size = count_ids(settings, tokenizer)
    return tokenizer, *(team.same(tokens) for tokens in splits), val_text, team.same(size)


def read_data(settings: Settings, resumed: Path | None):
    """(tokenizer or None, training tokens, validation tokens, validation text or None)."""
    name, is_tokens = settings.tokenizer, data.is_token_data(settings.dataset)
    source = resumed or (Path(settings.init_from) if is_model(settings.init_from) else None)
    tokenizer = None
    if resumed and (resumed / tokenizers.base.FILE_NAME).exists():
        tokenizer = tokenizers.load(resumed)
    elif source and not resumed and name is None:
        tokenizer = tokenizer_in(source, is_tokens)
    if source and not (tokenizer or resumed or is_tokens) and trained_on_text(name):
        if name is not None:
            raise ValueError(
                f"--tokenizer {name} makes a new one, whose ids would mean nothing to the model in "
                f"{source}: leave it out for the model's own, or name the one that it was trained "
                "with, --tokenizer PATH"
            )
        raise ValueError(
            f"{source} has no tokenizer, and ids of a new one would mean nothing to its model: "
            "name the one that it was trained with, --tokenizer PATH"
        )
    if is_tokens and settings.separator:
        raise ValueError(
            f"--separator {settings.separator} is for text, and {settings.dataset} is token files"
        )
    if is_tokens:
        if not (tokenizer or trained_on_text(name)):  # a preset's is meant for text
            tokenizer = make_tokenizer(name)
        splits = data.open_tokens(settings.dataset, count_ids(settings, tokenizer))
        path = Path(data.resolve(settings.dataset))
        pickled = (path if path.is_dir() else path.parent) / "meta.pkl"
        if pickled.exists() and not (tokenizer or settings.vocab_size or source):
            size = 1 + max(int(tokens.max()) for tokens in splits)
            warnings.warn(
                f"{pickled} is not read, because what is pickled can run code. The model has "
                f"{count_ids(settings, None):,} ids, and the largest in the data is {size - 1}: "
                f"--vocab_size {size} is enough",
                stacklevel=1,
            )
        return tokenizer, *splits, None
    texts = data.read_texts(settings.dataset, settings.encoding)
    text = "\n".join(texts)
    train_text, val_text = data.split(text)
    special = [END_OF_TEXT] if settings.separator else []
    tokenizer = tokenizer or make_tokenizer(name or "char", text, train_text, special)
    if settings.separator:
        if tokenizer.eos_token_id is None:
            raise ValueError(
                f"--separator {settings.separator} needs a tokenizer with an end-of-text token, "
                "which this one has not: --tokenizer bpe:N makes one"
            )
        documents = data.documents(texts, settings.separator)
        return tokenizer, *data.split(tokenizer.encode_ended(documents)), None
    ids = [tokenizer.encode_to_numpy(part, (), ()) for part in (train_text, val_text)]
    return tokenizer, *ids, val_text if holds_unknown(tokenizer, ids[1]) else None


def tokenizer_in(folder: Path, is_tokens: bool):
    """The tokenizer in a model's folder, ours or another project's; None where there is none.

    Raises ValueError for one that cannot be read; data that is tokens already does without it.
    """
    try:
        return tokenizers.load(folder)
    except FileNotFoundError:
        return None
    except ValueError as error:
        if not is_tokens or (folder / tokenizers.base.FILE_NAME).exists():
            raise
        warnings.warn(f"going on without a tokenizer: {error}", stacklevel=1)
        return None


def count_ids(settings: Settings, tokenizer) -> int:
    """How many ids there are: as --vocab_size says, or the tokenizer, or the model to start from.

    Otherwise 50304, nanoGPT's number for GPT-2's ids.
    """
    if settings.vocab_size:
        if tokenizer and settings.vocab_size < tokenizer.vocab_size:
            raise ValueError(
                f"--vocab_size {settings.vocab_size} is less than the tokenizer's "
                f"{tokenizer.vocab_size}"
            )
        return settings.vocab_size
    if tokenizer:
        return tokenizer.vocab_size
    if is_model(settings.init_from):
        return checkpoint.read_config(settings.init_from).vocab_size
    return 50304


def trained_on_text(name: str | None) -> bool:
    """Whether --tokenizer asks for a new one."""
    return name in (None, "char") or name.startswith("bpe:")


def make_tokenizer(name: str, text: str = "", train_text: str = "", special=()):
    """The tokenizer that --tokenizer names, trained on this text or loaded.

    Of a new one of BPE, `special` are the special tokens.
    """
    if name == "char":
        return CharTokenizer.train(text)
    if name.startswith("bpe:"):
        if not name[4:].isdigit():
            raise ValueError(f"--tokenizer bpe:N takes a number of ids, not {name[4:]!r}")
        return BPETokenizer.train(train_text, int(name[4:]), special_tokens=special)
    try:
        return tokenizers.find(name)
    except FileNotFoundError as error:
        raise ValueError(
            f"--tokenizer is char, bpe:N, or a tokenizer's name or path: {error}"
        ) from None


def make_model(settings: Settings, given: dict, size: int, start: int):
    """A new model for `size` ids, or the one in the folder --init_from; settings of its shape.

    Behind step 0 a run needs that folder no more: it has its shape and its weights itself.
    """
    s = settings
    if start or s.init_from in NO_MODEL:
        shape = GPTConfig(size, s.block_size, s.n_layer, s.n_head, s.n_embd, s.dropout, s.bias)
        return GPT(shape, seed=s.seed), settings
    if not is_model(s.init_from):
        raise FileNotFoundError(
            f"--init_from is scratch, resume, auto or the folder of a model; there is no folder "
            f"{s.init_from!r} with a config.json"
        )
    model = GPT.from_pretrained(s.init_from)
    for name in ("n_layer", "n_head", "n_embd", "bias"):
        own = getattr(model.config, name)
        if name in given and given[name] != own:
            raise ValueError(
                f"the model in {s.init_from} has --{name} {own}, which cannot be {given[name]} now"
            )
    if size > model.config.vocab_size:
        raise ValueError(
            f"the data has {size} ids, the model in {s.init_from} knows {model.config.vocab_size}"
        )
    block_size = model.config.block_size
    if "block_size" in given:
        if s.block_size > block_size:
            raise ValueError(f"--block_size {s.block_size} is beyond the model's {block_size}")
        block_size = s.block_size
    shape = dataclasses.replace(model.config, block_size=block_size, dropout=s.dropout)
    smaller = GPT(shape, seed=s.seed)
    state = model.state_dict()
    state["wpe.weight"] = state["wpe.weight"][:block_size]
    smaller.load_state_dict(state)
    names = ("vocab_size", "block_size", "n_layer", "n_head", "n_embd", "bias")
    return smaller, dataclasses.replace(s, **{name: getattr(shape, name) for name in names})


def with_token_ids(config: GPTConfig, ids: dict) -> GPTConfig:
    """The shape with the ids that begin and end a text, where it does not have them itself."""
    unknown = [name for name in checkpoint.TOKEN_IDS if getattr(config, name) is None]
    return dataclasses.replace(config, **{name: ids.get(name) for name in unknown})


def is_model(name: str) -> bool:
    return name not in NO_MODEL and (Path(name) / checkpoint.CONFIG).exists()


def fingerprint_of(*splits) -> str:
    """What tells one dataset from another: the lengths and the first million ids of each split."""
    digest = hashlib.sha256()
    for tokens in splits:
        digest.update(f"{len(tokens)} ".encode())
        digest.update(np.asarray(tokens[: 2**20], dtype="<u4").tobytes())
    return digest.hexdigest()


# =================================================================================================
# Afterwards
# =================================================================================================


def report(out: Path, model: GPT | None, tokenizer, settings: Settings) -> int:
    """Print what came out, a sample, and the command for more."""
    final = read_metrics(out / "metrics.jsonl")[-1]
    if final["val_loss_full"] is not None:
        bits = final["bits_per_byte"]
        more = "" if bits is None else f", {bits:.3f} bits per byte"
        print(f"\nvalidation loss {final['val_loss_full']:.4f} on the whole split{more}")
    if model and tokenizer:
        with harmless("sample"):
            sample = generate(model, tokenizer, "", max_new_tokens=300, seed=settings.seed + 1)
            print(f"\na sample of what it writes:\n{sample.strip()}")
    with harmless("more of it"):
        print(f"\nmore of it: {command('sample', out)}")
    return 0


def command(script: str, out: Path) -> str:
    """How to call a script, from this folder, with the Python that runs now."""
    path, here = Path(__file__).resolve().with_name(f"{script}.py"), Path.cwd().resolve()
    found = shutil.which("python")
    if Path(sys.prefix).resolve().parent == here:  # a .venv in this folder
        python = os.path.relpath(sys.executable)
    elif found and Path(found).parent == Path(sys.executable).parent:
        python = "python"
    else:
        python = sys.executable
    name = path.name if path.parent == here else str(path)
    return f"{shlex.join([python, name])} --out_dir {shlex.quote(str(out))}"


if __name__ == "__main__":
    signal.signal(signal.SIGINT, at_interrupt)
    sys.exit(main())
