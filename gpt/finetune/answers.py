"""Answers that the model gives to prompts, with their rewards: the examples that GRPO learns from.

They are drawn from the model's own distribution, many together, and divided among the processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tensorlite.parallel import ALONE, Team
from tokenizer import Tokenizer

from .. import checkpoint
from ..data import column, inputs_and_targets
from ..data.chat import Chat, prompt_of
from ..generate import check_ids, write
from ..generate.text import TextWriter, encode_prompt
from .rewards import Reward

TOGETHER = 64  # answers that are written together


@dataclass
class Prompt:
    """What is asked, in ids, and as a reward function sees it: a text or messages; the record."""

    ids: list[int]
    shown: str | list[dict]
    record: dict[str, Any]


@dataclass
class Answer:
    """What came: its n tokens with the one that ends it, their log-probabilities, text, reward."""

    ids: list[int]
    logprobs: list[float]
    text: str
    reward: float


def prompts_of(records: Sequence[dict], tokenizer: Tokenizer, model) -> list[Prompt]:
    """The prompts of records.

    A model whose tokenizer has a chat template replies to the last message of the user
    (conversations.py says which columns hold it). Another model continues the text in the column
    `prompt`. Raises ValueError for a record that has none, with its number.
    """
    if tokenizer.chat_template is None:
        texts = column(records, "prompt")
        for number, text in enumerate(texts, 1):
            if not isinstance(text, str) or not text:
                raise ValueError(
                    f"the prompt of record {number} is {text!r:.80}: a model without a chat "
                    "template continues a text (python -m gpt.finetune instruct gives it one)"
                )
        return [
            Prompt(encode_prompt(model, tokenizer, text, ()), text, record)
            for text, record in zip(texts, records)
        ]
    chat, prompts = Chat(tokenizer), []
    for number, record in enumerate(records, 1):
        try:
            messages = prompt_of(record)
            prompts.append(Prompt(chat.prompt_ids(messages), messages, record))
        except ValueError as error:
            raise ValueError(f"record {number}: {error}") from None
    return prompts


class Answering:
    """How answers are drawn: of at most `max_new_tokens`, up to an end token or the text `stop`."""

    def __init__(
        self, tokenizer: Tokenizer, reward: Reward, max_new_tokens: int, stop: str | None = None
    ):
        self.tokenizer, self.reward, self.max_new_tokens = tokenizer, reward, max_new_tokens
        chat = tokenizer.chat_template is not None
        self.stop = [*(Chat(tokenizer).end_ids if chat else ()), *([stop] if stop else ())]

    def draw(
        self,
        model,
        prompts: Sequence[Prompt],
        seeds: Sequence[int],
        temperature: float = 1.0,
        team: Team = ALONE,
    ) -> list[Answer]:
        """An answer to each prompt; each depends on the model, its prompt and its seed alone.

        The processes of a team divide the prompts, and all get all answers. Nothing but the
        temperature shapes what is drawn: at 1 it is the model's own distribution, which the policy
        gradient asks for. (Only tokens that are no text are left out; see `TextWriter`.)
        """
        mine = team.share(len(prompts))
        writers = [
            TextWriter(
                model,
                self.tokenizer,
                prompts[i].ids,
                self.max_new_tokens,
                temperature,
                seed=seeds[i],
                stop=self.stop,
                logprobs=True,
            )
            for i in mine
        ]
        for first in range(0, len(writers), TOGETHER):
            for _ in write(model, writers[first : first + TOGETHER]):
                pass
        drawn = []
        for i, w in zip(mine, writers):
            ids = w.new_ids if w.end_id is None else [*w.new_ids, w.end_id]
            reward = self.reward(prompts[i].shown, w.text, prompts[i].record)
            drawn.append([ids, w.logprobs, w.text, reward])
        return [Answer(*fields) for part in team.gather(drawn) for fields in part]


def as_arrays(
    prompts: Sequence[Prompt], answers: Sequence[Answer]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """B answers as x (B, T), y (B, T) that counts their tokens alone, and logprobs (B, T) float32.

    These are the log-probabilities that the answers were drawn with, 0 where y counts nothing.
    """
    ids = [np.array(p.ids + a.ids) for p, a in zip(prompts, answers)]
    counted = [np.arange(len(p.ids) + len(a.ids)) >= len(p.ids) for p, a in zip(prompts, answers)]
    x, y = inputs_and_targets(ids, counted)  # (B, T), (B, T)
    logprobs = np.zeros(y.shape, np.float32)
    for row, p, a in zip(logprobs, prompts, answers):
        row[len(p.ids) - 1 : len(p.ids) - 1 + len(a.ids)] = a.logprobs
    return x, y, logprobs


# =================================================================================================
# Answers that several steps learn from outlive the process: a resumed run goes on with them
# =================================================================================================


def answers_file(out: Path, step: int) -> Path:
    """Where the answers that were drawn at a step are kept."""
    return out / f"answers-{step}.json"


def save_answers(path: Path, answers: Sequence[Answer]) -> None:
    checkpoint.write_json(path, {"answers": [asdict(answer) for answer in answers]})


def forget_answers(out: Path, before: int) -> None:
    """Delete the files of answers that were drawn before this step."""
    for path in out.glob("answers-*.json"):
        number = path.stem.partition("-")[2]
        if number.isdecimal() and int(number) < before:
            path.unlink()


def read_answers(path: Path, model, n: int) -> list[Answer]:
    """The n answers in a file of `save_answers`. Raises ValueError for any other file."""
    try:
        answers = [Answer(**fields) for fields in checkpoint.read_json(path)["answers"]]
        for a in answers:
            a.logprobs, a.reward = [float(value) for value in a.logprobs], float(a.reward)
            if not a.ids or len(check_ids(model, a.ids)) != len(a.logprobs):
                raise ValueError("tokens and log-probabilities differ in number")
        if len(answers) != n:
            raise ValueError(f"{len(answers)} answers, not {n}")
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} does not hold the answers of a run: {error}") from None
    return answers
