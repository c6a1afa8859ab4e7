"""The settings that all methods of fine-tuning have; each method adds its own."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import ClassVar

from ..commandline import option
from ..models import read_config
from ..training.settings import RunSettings, is_model


@dataclass
class Tuning(RunSettings):
    """What every method has. Raises ValueError for values that cannot work."""

    # A resumed run has the same examples in the same parts: no test example is trained on.
    fixed: ClassVar[tuple[str, ...]] = (*RunSettings.fixed, "seed", "columns", "train")
    fixed += ("val_fraction", "test_fraction")
    fixed += ("lora", "lora_alpha", "lora_targets", "dora")

    dataset: str = option("", "the file to learn from: .tsv, .csv, .json, .jsonl or .parquet")
    init_from: str = option(
        "", "the folder of the model to tune, or hf:OWNER/NAME; resume: go on with out_dir's run"
    )
    batch_size: int = option(8, "examples in a batch")
    epochs: float = option(3.0, "how often each example is learned from")
    max_iters: int | None = option(None, "steps (as many as the epochs have)")
    learning_rate: float = option(5e-4, "the highest learning rate; large models take 1e-5 to 1e-4")
    warmup_iters: int = option(20, "steps of linear warm-up")
    weight_decay: float = option(0.01, "on matrices and embeddings")
    eval_interval: int | None = option(None, "steps between measurements on held-out data (epoch)")
    # the examples
    columns: str | None = option(
        None, "the columns of a .tsv or .csv file without a header line, as in label,text"
    )
    val_fraction: float = option(0.05, "the part of the examples that validates")
    test_fraction: float = option(0.1, "the part that is measured once, at the end")
    # what trains
    train: str = option("all", "all; last:N, the last N blocks and the head; or head")
    lora: int = option(0, "rank of adapters that train in place of the weights (0: none)")
    lora_alpha: float | None = option(None, "adapters are scaled by lora_alpha / lora (2 lora)")
    lora_targets: str | None = option(
        None, "the linear layers with adapters, as in c_attn,c_proj (all in the blocks)"
    )
    dora: bool = option(False, "adapters with magnitudes of their own (DoRA)")

    def __post_init__(self):
        super().__post_init__()
        self.check_at_least(0, "lora", "val_fraction", "test_fraction")
        if not self.epochs > 0:
            raise ValueError(f"--epochs is above 0, not {self.epochs}")
        if not self.val_fraction + self.test_fraction < 1:
            raise ValueError("--val_fraction and --test_fraction leave nothing to train on")
        name, colon, n = self.train.partition(":")
        if not (self.train in ("all", "head") or (name == "last" and n.isdecimal() and int(n))):
            raise ValueError(f"--train is all, head or last:N, not {self.train!r}")
        if self.lora and self.train != "all":
            raise ValueError(f"--lora chooses what trains, and so does --train {self.train}")
        if self.lora_alpha is not None and not self.lora_alpha > 0:
            raise ValueError(f"--lora_alpha is above 0, not {self.lora_alpha}")
        for option_of_lora in ("lora_alpha", "lora_targets", "dora"):
            if getattr(self, option_of_lora) and not self.lora:
                raise ValueError(f"--{option_of_lora} is for --lora RANK")

    @property
    def column_names(self) -> list[str]:
        return self.columns.split(",") if self.columns else []

    @property
    def fractions(self) -> tuple[float, float, float]:
        """The parts of the examples: to train, to validate, to test."""
        rest = 1 - self.val_fraction - self.test_fraction
        return rest, self.val_fraction, self.test_fraction

    def multiplications(self) -> float:
        if self.eval_only or not is_model(self.init_from) or not os.path.isfile(self.dataset):
            return 0
        shape = read_config(self.init_from)
        tokens = self.epochs * os.path.getsize(self.dataset)  # backward is twice a forward pass
        return 12 * shape.n_layer * shape.n_embd**2 * tokens
