"""To answer: from instructions and answers, or from whole conversations.

    python -m gpt.finetune instruct --init_from DIR --dataset instructions.json --out_dir DIR
    python sample.py --out_dir DIR --chat

A record is one of Alpaca's (instruction, input, output), a prompt with its completion, or a list of
messages. A template makes one text of it (gpt/data/template.py), of which the model learns the
answers alone, and the token that ends them: what the user says, it only reads (Wei et al., 2021;
Taori et al., 2023). Short conversations share rows and do not see each other (models/packed.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

import tensorlite as tl
from tensorlite import Tensor
from tensorlite.parallel import ALONE, Team

from ..commandline import option
from ..data import pack, packed_inputs_and_targets
from ..data.chat import Message
from ..generate import Conversation, evaluating
from ..models import Packed
from .conversations import (
    ChatTuning,
    Text,
    chat_with,
    question,
    read_conversations,
    split_by_question,
)
from .epochs import EpochTask, portions

SHOWN = 3  # transcripts at the end of a run

# =================================================================================================
# The settings
# =================================================================================================


@dataclass
class Settings(ChatTuning):
    """The settings of instruction tuning. Raises ValueError for values that cannot work."""

    method: ClassVar[str] = "instruct"
    fixed: ClassVar[tuple[str, ...]] = (*ChatTuning.fixed, "pack", "max_length")

    batch_size: int = option(8, "rows in a batch: packed ones, or a conversation each")
    pack: bool = option(True, "several conversations in a row; False: one in each, padded")
    max_length: int | None = option(None, "tokens in a row (the model's context)")

    def __post_init__(self):
        super().__post_init__()
        self.check_at_least(2, "max_length")


def prepare(run, records: list[dict], tokenizer, model):
    """(the task, the model, the tokenizer), both with the ids that the template needs.

    Raises ValueError, with the record's number, for a record that is no conversation, and where
    none is left to train or to validate.
    """
    s = run.settings
    chat, model = chat_with(s, tokenizer, model)
    size = s.max_length or model.config.block_size
    if size > model.config.block_size:
        raise ValueError(
            f"--max_length {size} is beyond the model's context of {model.config.block_size}"
        )
    # The last id is only predicted.
    texts, conversations = read_conversations(records, chat, size + 1)
    parts = split_by_question(s, conversations)
    rows = [Rows([texts[i] for i in part], size, s.pack) for part in parts]
    shown = [conversations[i] for i in [*parts[2], *parts[1]][:SHOWN]]
    return Instructions(s, rows, shown), model, chat.tokenizer


# =================================================================================================
# The task
# =================================================================================================


class Rows:
    """Conversations in rows of at most `size` tokens: several in each, or with `pack` False one.

    lengths (n,)  the tokens of each row
    targets (n,)  how many of them are answers, which the loss counts
    """

    def __init__(self, texts: Sequence[Text], size: int, pack_them: bool):
        self.ids, self.counted = [ids for ids, _ in texts], [counted for _, counted in texts]
        self.packed = pack_them
        lengths = np.array([len(ids) - 1 for ids in self.ids], int)
        targets = np.array([counted[1:].sum() for counted in self.counted], int)
        self.rows = pack(lengths.tolist(), size) if pack_them else [[i] for i in range(len(texts))]
        self.lengths = np.array([lengths[row].sum() for row in self.rows], int)
        self.targets = np.array([targets[row].sum() for row in self.rows], int)

    def loss(self, model, rows: Sequence[int], rng=None, width: int = 0) -> Tensor:
        """The mean loss of the answers in some rows (B,), in nats a token."""
        rows = [self.rows[row] for row in rows]
        x, y, segments = packed_inputs_and_targets(self.ids, self.counted, rows, width)  # (B, T)
        return model.loss(x, y, rng, Packed(segments) if self.packed else None)

    def mean_loss(self, name: str, model, team: Team = ALONE) -> dict[str, float]:
        """The mean loss of all answers, by this name, and its standard error, from groups of rows.

        The ranks of a team divide the rows.
        """
        with evaluating(model), tl.no_grad():
            groups = portions(self.lengths, team)
            found = [
                [self.loss(model, rows).item(), int(self.targets[rows].sum())] for rows in groups
            ]
        losses, tokens = np.array(sum(team.gather(found), [])).T  # (groups,) each
        mean = float(losses @ tokens / tokens.sum())
        error = float(np.sqrt(((losses - mean) ** 2) @ tokens**2) / tokens.sum())
        return {name: mean, f"{name}_error": error}


class Instructions(EpochTask):
    """To give the answers in rows: `rows` are those to train, to validate and to test.

    `shown` are conversations of which the report has a transcript.
    """

    def __init__(
        self, settings: Settings, rows: Sequence[Rows], shown: Sequence[Sequence[Message]] = ()
    ):
        self.training, self.validation, self.test = rows
        self.shown = shown
        super().__init__(settings, self.training.lengths, self.training.targets)

    def loss(self, model, examples, rng=None) -> Tensor:
        rows, width = examples.arrays
        return self.training.loss(model, rows, rng, width[0]) * examples.share

    def evaluate(self, model, team: Team = ALONE) -> dict[str, float]:
        return self.validation.mean_loss("val_loss", model, team)

    def final(self, model, team: Team = ALONE) -> dict:
        """`test_loss` is that of the answers in the test part, if there is one."""
        return self.test.mean_loss("test_loss", model, team) if self.test.rows else {}

    def report(self, run, model, tokenizer) -> None:
        """A few questions that it has not learned from, the model's answers, and those expected."""
        for messages in self.shown:
            *before, asked = question(messages)
            conversation = Conversation(model, tokenizer, temperature=0, max_new_tokens=100)
            conversation.messages = before
            said = "".join(conversation.ask(asked["content"]))
            expected = messages[len(before) + 1]["content"]
            print(f"\nuser: {asked['content']}\nmodel: {said}\nexpected: {expected}")
