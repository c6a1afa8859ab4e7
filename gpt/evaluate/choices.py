"""Multiple choice: which of some answers does the model find likeliest after the question?

The published forms of HellaSwag, ARC and MMLU are recognised by their columns, and their prompts
are those of EleutherAI's lm-evaluation-harness without examples (0-shot). Two figures are given, as
there: `acc` takes the answer with the largest log-likelihood, `acc_norm` the one with the largest
log-likelihood per character, since long answers are less likely than short ones.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..data import column
from ..model import GPT
from .estimate import Sample
from .likelihood import encode_pair, loglikelihoods
from .loss import AT_A_TIME
from .result import Result


@dataclass(frozen=True)
class Question:
    """A question: the model reads `context` and a space, and one of the `choices` is right."""

    context: str
    choices: list[str]
    answer: int  # the number of the right one


# ---- the published forms -------------------------------------------------------------------------


def hellaswag(record: dict) -> Question:
    """Zellers et al. (2019): the beginning of a description, and four endings."""
    context = _text(record, "ctx")
    if "ctx_a" in record and "ctx_b" in record:  # two sentences, the second without its capital
        context = _text(record, "ctx_a") + " " + _text(record, "ctx_b").capitalize()
    if "activity_label" in record:
        context = _text(record, "activity_label") + ": " + context
    endings = [_without_brackets(ending) for ending in _texts(record["endings"], "endings")]
    answer = _number(record["label"], len(endings))
    return Question(_without_brackets(context), _texts(endings, "endings"), answer)


def _without_brackets(text: str) -> str:
    """Without the marks that WikiHow's pages left in HellaSwag."""
    text = re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". "))
    return text.replace("  ", " ")


def arc(record: dict) -> Question:
    """Clark et al. (2018): choices with labels, one of which is the answerKey."""
    choices = record["choices"]
    if not isinstance(choices, dict) or not {"text", "label"} <= choices.keys():
        raise ValueError("choices have no text and label")
    texts, labels = _texts(choices["text"], "choices"), list(choices["label"])
    if len(labels) != len(texts) or record["answerKey"] not in labels:
        raise ValueError(f"answerKey {record['answerKey']!r} is none of the labels {labels}")
    answer = labels.index(record["answerKey"])
    return Question(f"Question: {_text(record, 'question')}\nAnswer:", texts, answer)


def mmlu(record: dict) -> Question:
    """Hendrycks et al. (2021): choices under letters, and the letter is what is predicted."""
    choices = _texts(record["choices"], "choices")
    letters = list(string.ascii_uppercase[: len(choices)])
    lines = [f"{letter}. {choice}" for letter, choice in zip(letters, choices)]
    subject = _text(record, "subject").replace("_", " ")
    about = f"The following are multiple choice questions (with answers) about {subject}.\n\n"
    context = "\n".join([about + _text(record, "question").strip(), *lines, "Answer:"])
    return Question(context, letters, _number(record["answer"], len(choices), letters))


def plain(record: dict) -> Question:
    """A question, its choices, and the right one: its text, or its number from 0."""
    choices = _texts(record["choices"], "choices")
    answer = _number(record["answer"], len(choices), choices)
    return Question(f"Question: {_text(record, 'question')}\nAnswer:", choices, answer)


FORMS: dict[str, tuple[Callable[[dict], Question], tuple[str, ...]]] = {
    "hellaswag": (hellaswag, ("ctx", "endings", "label")),
    "arc": (arc, ("question", "choices", "answerKey")),
    "mmlu": (mmlu, ("question", "choices", "answer", "subject")),
    "plain": (plain, ("question", "choices", "answer")),
}


def _text(record: dict, name: str) -> str:
    if not isinstance(record[name], str):
        raise ValueError(f"{name} is no text, but {record[name]!r:.50}")
    return record[name]


def _texts(value, name: str) -> list[str]:
    fits = isinstance(value, list) and 2 <= len(value) <= len(string.ascii_uppercase)
    if not fits or not all(isinstance(text, str) and text for text in value):
        raise ValueError(f"{name} are 2 to 26 texts, and not {value!r:.80}")
    return value


def _number(value, n: int, names: Sequence[str] = ()) -> int:
    """Which of n choices is meant: by its name, or its number from 0, which may be text."""
    if isinstance(value, str) and value in names:
        return list(names).index(value)
    if isinstance(value, str) and re.fullmatch("[0-9]{1,3}", value):
        value = int(value)
    if type(value) is not int or not 0 <= value < n:
        raise ValueError(f"the right answer is {value!r:.50}, and not one of {n} choices")
    return value


def questions_of(records: Sequence[dict]) -> tuple[str, list[Question]]:
    """The name of the form of some records, and their questions.

    Raises ValueError for columns of no form, with those found, and for a record that is wrong, by
    its number.
    """
    first = records[0].keys()
    name = next((name for name, (_, needed) in FORMS.items() if first >= set(needed)), None)
    if name is None:
        known = "; ".join(f"{', '.join(needed)} ({n})" for n, (_, needed) in FORMS.items())
        raise ValueError(
            f"multiple choice needs the columns of one of these forms: {known}; those found are "
            f"{', '.join(map(str, first))}"
        )
    read, needed = FORMS[name]
    for part in needed:
        column(records, part)
    questions = []
    for number, record in enumerate(records, 1):
        try:
            questions.append(read(record))
        except (ValueError, TypeError) as error:
            raise ValueError(f"record {number} is not in the form {name}: {error}") from None
    return name, questions


# ---- the measurement -----------------------------------------------------------------------------


def multiple_choice(
    model: GPT, tokenizer, questions: Sequence[Question], at_a_time: int = AT_A_TIME
) -> Result:
    """The figures "acc" and "acc_norm" on these questions.

    A question with an answer that is longer than the model's context is left out. Of a context that
    leaves no room for the answer, the beginning is left out. Both are counted in the notes.
    """
    T, pairs, left_out, cut = model.config.block_size, [], [], 0
    measured = []  # the questions, with their numbers from 1
    for number, question in enumerate(questions, 1):
        own = [encode_pair(model, tokenizer, question.context, " " + c) for c in question.choices]
        if not all(0 < len(continuation) <= T for _, continuation in own):
            left_out.append(number)
            continue
        cut += any(len(context) + len(continuation) > T + 1 for context, continuation in own)
        pairs += own
        measured.append((number, question))
    if not measured:
        raise ValueError(f"every question has an answer longer than the model's context of {T}")
    logprobs, _ = loglikelihoods(model, pairs, at_a_time, "answers")
    items, end = [], 0
    for number, question in measured:
        begin, end = end, end + len(question.choices)
        found = logprobs[begin:end]  # (choices,)
        per_character = found / [len(choice) for choice in question.choices]
        chosen = dict(chosen=int(found.argmax()), chosen_norm=int(per_character.argmax()))
        items.append(dict(item=number, answer=question.answer, **chosen, logprobs=found.tolist()))
    figures = {}
    for figure, key in (("acc", "chosen"), ("acc_norm", "chosen_norm")):
        right = np.array([item[key] == item["answer"] for item in items], np.float64)
        figures[figure] = [Sample(right)]
    chance = float(np.mean([1 / len(question.choices) for _, question in measured]))
    notes = []
    if left_out:
        notes.append(
            f"{len(left_out)} questions with an answer longer than {T} tokens are left out"
        )
    if cut:
        notes.append(
            f"the beginning of {cut} questions does not fit into {T} tokens and is left out"
        )
    return Result(figures, {"chance": chance}, items, left_out, notes)
