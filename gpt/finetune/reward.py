"""A reward model: a number for an answer, higher for the better one of two (Ouyang et al., 2022).

    python -m gpt.finetune reward --init_from DIR --dataset pairs.json --out_dir DIR

It is a classifier with a single label, as TRL has it. From Python:

    model, chat = gpt.Classifier.from_pretrained("out"), Chat(tokenizer.load("out"))
    ids, _ = chat.example(messages)
    reward = model(ids[None], [len(ids)]).item()
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

import tensorlite as tl
from tensorlite import Tensor

from ..data import pad_rows
from ..models import Classifier
from .conversations import ChatTuning, chat_with, split_by_question
from .pair_task import PairTask, compare, log_sigmoid
from .pairs import read_pairs


def bradley_terry_loss(chosen: Tensor, rejected: Tensor) -> Tensor:
    """-log p that the chosen answer wins, where log-odds are differences of rewards, (B,) each.

    Bradley and Terry, 1952; Ouyang et al., 2022, equation 1.
    """
    return -log_sigmoid(chosen - rejected)


@dataclass
class Settings(ChatTuning):
    """Settings of a reward model."""

    method: ClassVar[str] = "reward"


class Rewards(PairTask):
    """The number that a classifier gives to a text is its reward."""

    def outputs(self, model: Classifier, texts: np.ndarray, rng=None, width: int = 0) -> Tensor:
        ids = pad_rows([self.texts[i][0] for i in texts], 0, width)  # (B, T)
        return model(ids, self.sizes[texts], rng)[:, 0]  # (B, 1) -> (B,)

    def losses(self, pairs: np.ndarray, chosen: Tensor, rejected: Tensor) -> Tensor:
        return bradley_terry_loss(chosen, rejected)

    def figures(self, pairs: np.ndarray, chosen: Tensor, rejected: Tensor) -> dict[str, float]:
        loss = tl.mean(self.losses(pairs, chosen, rejected)).item()
        return {"loss": loss, **compare(chosen, rejected)}


def prepare(run, records, tokenizer, model):
    """(the task, a classifier around the model, its tokenizer).

    Raises ValueError for records that are no pairs, or leave none to train or to validate.
    """
    s = run.settings
    chat, model = chat_with(s, tokenizer, model)
    texts, conversations = read_pairs(records, chat, model.config.block_size)
    task = Rewards(s, texts, split_by_question(s, conversations))
    # transformers finds the end of a text before its padding: an id with which no text ends.
    last, pad = {int(ids[-1]) for ids, _ in texts}, chat.tokenizer.pad_token_id
    if pad is None or pad in last:
        pad = min({*range(len(last) + 1)} - last)
    model.config = dataclasses.replace(model.config, pad_token_id=pad)
    return task, Classifier(model, ["reward"], problem="regression"), chat.tokenizer
