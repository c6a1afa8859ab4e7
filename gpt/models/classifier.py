"""A classifier: the body of a language model, and a head that reads its last hidden state.

In a causal model only the last token has seen the whole text, so the head stands there, as in GPT
(Radford et al., 2018) and in transformers' GPT2ForSequenceClassification and
LlamaForSequenceClassification, whose folders these are. A reward model (Ouyang et al., 2022) is a
classifier with a single label, whose number is the reward.

B batch, T time (positions), C = n_embd, n labels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import tensorlite as tl
from tensorlite import nn
from tensorlite.device import random

from .. import checkpoint
from ..checkpoint import MULTI, PROBLEMS, REGRESSION, SCORE, SINGLE
from ..model import GPT, read_weights
from .config import LlamaConfig, config_of
from .llama import Llama
from .modern import Modern
from .modern_config import ModernConfig, modern_config_of


class Classifier(nn.Module):
    """Texts of ids (B, T) and lengths (B,) -> the logits of their labels (B, n).

    `problem` is one of

    - "single_label_classification": one of several labels is right; softmax makes probabilities,
    - "multi_label_classification": any of them may be right; sigmoid makes probabilities,
    - "regression": a logit is the number itself.

    A text that is longer than the context loses its end, or its beginning if `truncation_side` is
    "left", where texts are read (gpt/finetune/scores.py); the folder keeps it.

    The classifier takes over `body`, without the output projection that an untied model has. `seed`
    fixes the head's initial weights, normal with standard deviation 0.02; with None they are 0.
    Raises ValueError for labels that are not different names, for a single label that is not a
    regression, and for another problem.

    >>> body = GPT(GPTConfig(vocab_size=65, block_size=8, n_layer=1, n_head=2, n_embd=16))
    >>> model = Classifier(body, ["ham", "spam"], seed=1)
    >>> model(np.zeros((4, 8), np.int64), [8, 1, 3, 5]).shape
    (4, 2)
    """

    def __init__(
        self,
        body: GPT | Llama,
        labels: Sequence[str],
        problem: str = SINGLE,
        truncation_side: str = "right",
        seed: int | None = None,
    ):
        labels = tuple(labels)
        if (
            not labels
            or not all(isinstance(x, str) for x in labels)
            or len({*labels}) < len(labels)
        ):
            raise ValueError(f"the labels of a classifier are different names, not {labels}")
        if problem not in PROBLEMS:
            raise ValueError(f"the problem is one of {', '.join(PROBLEMS)}, not {problem!r}")
        if problem == SINGLE and len(labels) == 1:
            raise ValueError(
                f"there is nothing to choose with one label, {labels[0]!r}: a {SINGLE} has two at "
                f"least, a {REGRESSION} or a {MULTI} may have one"
            )
        self.labels, self.problem, self.truncation_side = labels, problem, truncation_side
        if not body.config.tied:
            body.config = dataclasses.replace(body.config, tied=True)
            del body.lm_head
        self.body = body
        with nn.uninitialised():
            self.score = nn.Linear(body.config.n_embd, len(labels), bias=False)
        self.score.weight.data[...] = 0
        if seed is not None:
            rng = random(seed, "score")
            self.score.weight.data += 0.02 * rng.standard_normal(
                self.score.weight.shape, np.float32
            )

    @property
    def config(self):
        """The body's shape, and the ids that begin, end and pad a text."""
        return self.body.config

    @config.setter
    def config(self, config) -> None:
        self.body.config = config

    @property
    def recompute(self) -> bool:
        """Whether blocks are computed again in backward, as in `GPT`."""
        return self.body.recompute

    @recompute.setter
    def recompute(self, recompute: bool) -> None:
        self.body.recompute = recompute

    def forward(self, idx, lengths, rng=None):
        """Logits (B, n) of texts in idx (B, T), of which the first `lengths` (B,) ids are real.

        What stands behind a text changes nothing, since no token sees what follows it. Raises
        ValueError for lengths that are not from 1 to T.
        """
        idx, lengths = self.body.array(idx), np.asarray(lengths)
        B, T = idx.shape
        if lengths.shape != (B,) or (B and not 1 <= lengths.min() <= lengths.max() <= T):
            raise ValueError(
                f"lengths has a number from 1 to {T} for each of {B} texts, not {lengths.tolist()}"
            )
        x = self.body.hidden(idx, rng)  # (B, T) -> (B, T, C)
        x = x[np.arange(B), lengths - 1]  # (B, T, C) -> (B, C)
        return self.score(x)  # (B, C) -> (B, n)

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Logits (N, n) -> the probability of each label (N, n); the logits in a regression."""
        if self.problem == REGRESSION:
            return logits
        with tl.no_grad():
            logits = tl.tensor(logits)
            return (tl.softmax(logits) if self.problem == SINGLE else tl.sigmoid(logits)).numpy()

    def published(self) -> dict[str, np.ndarray]:
        """The parameters by the names of transformers: the body's, and score.weight (n, C)."""
        return self.body.published() | {SCORE: self.score.weight.data.T}

    def save_pretrained(self, directory: str | Path, step: int = 0) -> None:
        """Write config.json and model.safetensors in the layout of ...ForSequenceClassification.

        transformers takes the last token that is not `config.pad_token_id` for the last of a text,
        so that it must be an id with which no text ends; where it is None, transformers takes one
        text at a time.
        """
        self.write(directory, self.published(), step)

    def save_config(self, directory: str | Path) -> None:
        """Write config.json alone."""
        self.write(directory, None)

    def write(self, directory: str | Path, arrays: dict | None, step: int = 0) -> None:
        if isinstance(self.config, LlamaConfig):
            family, write = self.config.family, checkpoint.write_llama
        elif isinstance(self.config, ModernConfig):
            family, write = checkpoint.OURS, checkpoint.write_modern
        else:
            family, write = "gpt2", checkpoint.write_gpt2
        more = checkpoint.describe_labels(family, self.labels, self.problem, self.truncation_side)
        write(directory, self.config, arrays, step, more)

    @staticmethod
    def from_pretrained(directory: str | Path) -> Classifier:
        """The classifier in a folder of that layout, whoever wrote it, in eval mode.

        Raises as `gpt.load` does, and ValueError for a folder without the head of a classifier.
        """
        family = checkpoint.model_type(directory)
        if family == "gpt2":
            kind, (config, tensors) = GPT, checkpoint.read_gpt2(directory)
        elif family == checkpoint.OURS:
            fields, tensors = checkpoint.read_modern(directory)
            kind, config = Modern, modern_config_of(directory, fields)
        else:
            fields, tensors = checkpoint.read_llama(directory)
            kind, config = Llama, config_of(directory, fields)
        if SCORE not in tensors:
            raise ValueError(
                f"{directory} holds no classifier: there is no {SCORE} in it. python -m "
                "gpt.finetune classify makes a classifier of a language model"
            )
        shape = tensors.shape(SCORE)
        if len(shape) != 2 or shape[1] != config.n_embd or not shape[0]:
            raise ValueError(
                f"{directory}: {SCORE} has {config.n_embd} numbers for each label, the model's "
                f"width, and its shape is {shape}"
            )
        said = checkpoint.read_labels(directory, shape[0])
        body = kind.empty(dataclasses.replace(config, tied=True), tensors.path)
        model = Classifier(body, *said)
        tensors.drop("lm_head.weight")
        return read_weights(model, tensors)
