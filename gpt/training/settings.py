"""The settings of a training run: one typed block of defaults.

Names and meaning are nanoGPT's, so that its command lines run unchanged. The defaults are those of
its recipe for a CPU, but for the learning rate; `presets.py` has others, the demo's among them. The
settings of another method of training extend RunSettings.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import tensorlite as tl
from tensorlite.modes import PRECISIONS

from ..checkpoint import CONFIG, is_adapter
from ..commandline import option
from ..data import CORPORA, PREPARED, validation_size
from ..models.modern_config import DEFAULT_PARTS, PARTS, name_parts, read_parts


@dataclass
class RunSettings(ABC):
    """What every command that trains has. Raises ValueError for values that cannot work."""

    method: ClassVar[str] = ""  # the objective, as run.json names it
    fixed: ClassVar[tuple[str, ...]] = ("optimizer",)  # what a resumed run cannot change
    unsaved: ClassVar[tuple[str, ...]] = ()  # names of those that it does not take from run.json

    # what to learn from
    dataset: str = option("", "the file to learn from")
    encoding: str = option("utf-8", "the encoding of text files")
    # how to learn
    batch_size: int = option(12, "examples in a batch")
    gradient_accumulation_steps: int = option(1, "batches in a step")
    max_iters: int | None = option(2000, "steps")
    learning_rate: float = option(2e-3, "the highest learning rate")
    optimizer: str = option("adamw", "adamw; or muon for the matrices of the blocks")
    muon_lr: float = option(0.02, "muon: the highest learning rate of these matrices")
    muon_momentum: float = option(0.95, "muon: memory of their gradient")
    ngram_lr: float = option(0.03, "muon: that of the tables of n-grams, which Adagrad updates")
    decay_lr: bool = option(True, "decrease it as --schedule says")
    schedule: str = option(
        "cosine", "cosine; or wsd: warm-up, then constant, then linear to min_lr"
    )
    decay_fraction: float = option(0.6, "wsd: which part of the steps the decay has")
    warmup_iters: int = option(100, "steps of linear warm-up")
    lr_decay_iters: int | None = option(None, "where the decay ends (max_iters)")
    min_lr: float | None = option(
        None, "the learning rate at the end of the decay (cosine: learning_rate / 10; wsd: 0)"
    )
    weight_decay: float = option(0.1, "on matrices and embeddings")
    beta1: float = option(0.9, "AdamW: memory of the gradient")
    beta2: float = option(0.99, "AdamW: memory of its square")
    grad_clip: float = option(1.0, "largest norm of the gradient (0: no limit)")
    dropout: float = option(0.0, "probability of dropping an activation in training")
    seed: int = option(1337, "of weights, batches and dropout")
    # what to report and keep
    out_dir: str = option("out", "the folder of the run")
    init_from: str = option("scratch", "the folder of a model; or resume, the run in out_dir")
    overwrite: bool = option(False, "delete the run that is in out_dir")
    eval_interval: int | None = option(250, "steps between measurements on held-out data")
    log_interval: int = option(10, "steps between lines of metrics.jsonl")
    save_interval: int | None = option(None, "steps between checkpoints (eval_interval)")
    eval_only: bool = option(False, "measure on held-out data and stop")
    # where to compute
    device: str = option("auto", "cpu, cuda, or auto: cuda where there is a GPU that CuPy can use")
    dtype: str = option(
        "auto",
        "of products on a GPU: bfloat16, float16, tf32 or float32; auto: bfloat16, or float16 on a "
        "GPU without bfloat16; a CPU computes in float32",
    )
    compile: bool = option(
        True, "on a GPU, record the kernels of a step once, as a CUDA graph, and replay them"
    )
    workers: str = option(
        "auto",
        "processes that share each batch: a number, or auto: one for each physical core (or GPU), "
        "or fewer where the batch does not divide evenly among them; one process for a run that "
        "takes only seconds, and where the extra mpi is not installed",
    )
    recompute: bool = option(
        False, "use less memory: compute each block again in the backward pass"
    )

    def __post_init__(self):
        for field in dataclasses.fields(self):  # a run.json may hold anything
            value = getattr(self, field.name)
            if not isinstance(value, tuple(_KINDS[kind] for kind in field.type.split(" | "))):
                raise ValueError(f"--{field.name} is {field.type}, not {value!r}")
        self.check_at_least(1, "batch_size", "gradient_accumulation_steps", "eval_interval")
        self.check_at_least(1, "log_interval", "lr_decay_iters", "save_interval")
        self.check_at_least(0, "max_iters", "warmup_iters", "weight_decay", "grad_clip", "seed")
        for name in ("beta1", "beta2", "dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"--{name} is at least 0 and below 1, not {getattr(self, name)}")
        if not self.learning_rate > 0:
            raise ValueError(f"--learning_rate is above 0, not {self.learning_rate}")
        self.check_schedule()
        if self.device not in ("auto", "cpu", "cuda"):
            raise ValueError(f"--device is cpu, cuda or auto, not {self.device!r}")
        if self.dtype not in ("auto", *PRECISIONS):
            raise ValueError(f"--dtype is auto, {', '.join(PRECISIONS)}, not {self.dtype!r}")
        if self.device == "auto":
            self.device = "cuda" if tl.cuda.is_available() else "cpu"
        if self.workers != "auto" and not (self.workers.isdecimal() and int(self.workers) > 0):
            raise ValueError(f"--workers is auto or a number, at least 1, not {self.workers!r}")

    def check_schedule(self) -> None:
        """Raise ValueError for an optimizer or a schedule that there is not, or that cannot be."""
        if self.optimizer not in ("adamw", "muon"):
            raise ValueError(f"--optimizer is adamw or muon, not {self.optimizer!r}")
        if not self.muon_lr > 0:
            raise ValueError(f"--muon_lr is above 0, not {self.muon_lr}")
        if not self.ngram_lr > 0:
            raise ValueError(f"--ngram_lr is above 0, not {self.ngram_lr}")
        if not 0 <= self.muon_momentum < 1:
            raise ValueError(f"--muon_momentum is at least 0 and below 1, not {self.muon_momentum}")
        if self.schedule not in ("cosine", "wsd"):
            raise ValueError(f"--schedule is cosine or wsd, not {self.schedule!r}")
        if not 0 <= self.decay_fraction <= 1:
            raise ValueError(f"--decay_fraction is 0 to 1, not {self.decay_fraction}")
        if self.schedule == "wsd" and self.decay_lr and self.max_iters:
            end = self.lr_decay_iters or self.max_iters
            if end > self.max_iters:
                raise ValueError(
                    f"--lr_decay_iters {end} ends the decay after the run, which has "
                    f"{self.max_iters} steps: give --lr_decay_iters {self.max_iters}"
                )
            if self.warmup_iters + self.decay_iters(end) > end:
                raise ValueError(
                    f"{self.warmup_iters} steps of warm-up (--warmup_iters) and "
                    f"{self.decay_iters(end)} of decay (--decay_fraction {self.decay_fraction}) "
                    f"are more than the {end} steps of the run: give less of one"
                )

    def decay_iters(self, end: int) -> int:
        """How many steps the decay of `--schedule wsd` takes, which ends at step `end`."""
        return round(self.decay_fraction * end)

    @property
    def precision(self) -> str:
        """The precision of products, for `tl.autocast`: that of --dtype on a GPU.

        Raises ValueError for one that the GPU does not have.
        """
        if self.device == "cpu":
            return "float32"
        from tensorlite.kernels.precision import usable

        return usable(None if self.dtype == "auto" else self.dtype)

    def check_at_least(self, least: int, *names: str) -> None:
        """Raise ValueError for a setting of these that is below `least`, or not a number."""
        for name in names:
            value = getattr(self, name)
            if value is not None and not value >= least:  # NaN too
                raise ValueError(f"--{name} is at least {least}, not {value}")

    @abstractmethod
    def multiplications(self) -> float:
        """About how many the run takes: more workers do not pay in a short one."""


@dataclass
class Settings(RunSettings):
    """The settings of pretraining. Raises ValueError for values that cannot work."""

    method: ClassVar[str] = "pretraining"
    fixed: ClassVar[tuple[str, ...]] = (
        *RunSettings.fixed,
        "tokenizer",
        "separator",
        "documents",
        "vocab_size",
        "model",
        "parts",
        "block_size",
        "n_layer",
        "n_head",
        "n_kv_head",
        "n_embd",
        "bias",
    )

    dataset: str = option(
        "python-docs",
        f"one of {', '.join([*CORPORA, *PREPARED])}; a text file or folder; token files (.bin); or "
        "mix.toml, which names several of these and their weights",
    )
    batch_size: int = option(12, "windows of block_size tokens in a batch")
    max_iters: int = option(2000, "steps")
    eval_interval: int = option(250, "steps between estimates of the validation loss")
    eval_iters: int = option(20, "batches in an estimate")
    eval_only: bool = option(False, "estimate the validation loss and stop")
    skip_final_eval: bool = option(False, "do not go over the whole validation split at the end")
    init_from: str = option(
        "scratch",
        "scratch; resume the run in out_dir; auto: resume if there is one to resume; "
        "or a folder with a model to fine-tune",
    )
    # what to learn from
    tokenizer: str | None = option(
        None, "char (the default for text), bpe:N (trained to N ids), gpt2, or a saved tokenizer"
    )
    separator: str | None = option(
        None, "file or line: an end-of-text token follows each file, or each line, of the text"
    )
    documents: str = option(
        "flat",
        "flat: a window is read as one text; packed: attention stays within a document, where "
        "positions begin at 0 (for --separator, or token files with an index of documents)",
    )
    vocab_size: int | None = option(None, "ids in .bin data (50304 if there is no tokenizer)")
    # the model
    model: str = option(
        "gpt2",
        "gpt2; llama: rotary positions, RMSNorm, SwiGLU, grouped heads; or modern: see --parts",
    )
    parts: str | None = option(
        None,
        f"what a modern model has, separated by commas ({DEFAULT_PARTS}), of {', '.join(PARTS)}; "
        "some with a value, such as logit_cap=30 and ngrams=2+3",
    )
    block_size: int = option(64, "the context, in tokens")
    n_layer: int = option(4, "blocks")
    n_head: int = option(4, "attention heads in a block")
    n_kv_head: int | None = option(None, "heads of keys and values, in a llama (n_head)")
    n_embd: int = option(128, "width")
    bias: bool = option(False, "biases in linear layers and layer norms")

    def __post_init__(self):
        super().__post_init__()
        self.check_at_least(1, "block_size", "n_layer", "n_head", "n_embd", "eval_iters")
        self.check_at_least(1, "vocab_size", "n_kv_head")
        if self.model not in ("gpt2", "llama", "modern"):
            raise ValueError(f"--model is gpt2, llama or modern, not {self.model!r}")
        new = self.init_from in NEW  # otherwise the run, or the model to start from, has a shape
        if new and self.n_kv_head is not None and self.model != "llama":
            raise ValueError(
                f"--n_kv_head is for --model llama: a {self.model} has as many as --n_head"
            )
        if self.model == "modern" and self.parts is None:
            self.parts = DEFAULT_PARTS
        if self.parts is not None:
            self.parts = name_parts(read_parts(self.parts))
            if new and self.model != "modern":
                raise ValueError(f"--parts is for --model modern: a {self.model} has no choice")
        if self.separator not in (None, "file", "line"):
            raise ValueError(f"--separator is file or line, not {self.separator!r}")
        if self.documents not in ("flat", "packed"):
            raise ValueError(f"--documents is flat or packed, not {self.documents!r}")

    def multiplications(self) -> float:
        if self.eval_only:
            return 0
        tokens = self.batch_size * self.gradient_accumulation_steps * self.block_size
        tokens *= 3 * self.max_iters  # a backward pass is twice a forward pass
        tokens += 0 if self.skip_final_eval else validation_size(self.dataset)
        return 12 * self.n_layer * self.n_embd**2 * tokens


def ignored(given: dict) -> list[str]:
    """Notes on the given settings that change nothing: of Muon, and --dtype on a CPU."""
    notes = []
    if given.get("optimizer", "adamw") == "adamw" and given.get("init_from") != "resume":
        own = [f"--{name}" for name in ("muon_lr", "muon_momentum", "ngram_lr") if name in given]
        if own:
            notes.append(f"{', '.join(own)}: ignored without --optimizer muon")
    on_cpu = given.get("device", "auto") == "cpu" or not tl.cuda.is_available()
    if on_cpu and given.get("dtype", "auto") not in ("auto", "float32"):
        notes.append(f"--dtype {given['dtype']} is ignored: a CPU computes in float32")
    return notes


_KINDS = {"int": int, "float": (int, float), "bool": bool, "str": str, "None": type(None)}

NEW = ("scratch", "auto")  # what --init_from says where the run may be a new one
NO_MODEL = (*NEW, "resume")  # and where it names no model's folder


def is_model(init_from: str) -> bool:
    """Whether --init_from names a folder that holds a model."""
    folder = Path(init_from)
    return init_from not in NO_MODEL and ((folder / CONFIG).exists() or is_adapter(folder))
