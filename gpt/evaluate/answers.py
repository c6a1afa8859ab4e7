"""Questions that are answered in words: is what the model writes the expected answer?

`exact_match` asks for the likeliest answer of each question. `sampled` draws several and gives
pass@k, the chance that one of k is right (Chen et al., 2021), and the share of questions where the
most frequent answer is right, self-consistency (Wang et al., 2022).

Answers are compared as SQuAD does it (Rajpurkar et al., 2016): in lower case, without punctuation,
without a, an, the, and with single spaces. With a pattern, the last part of a text that matches it
is its answer, and is compared as it is: of "so 3 + 4 = 7" and -?[0-9.,]+, it is "7".
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from ..data import column
from ..data.chat import Chat
from ..generate import complete
from ..model import GPT
from .estimate import Sample
from .result import Result

PROMPT = "Question: {question}\nAnswer:"


@dataclass(frozen=True)
class Asking:
    """How questions are asked, and answers read. Raises ValueError for what cannot be meant.

    chat             the question is a user's message, in the tokenizer's chat template
    prompt           what the model reads, {question} in it; None: PROMPT, or only that in chat
    stop             where an answer ends, besides an end token; None: a line end, or none in chat
    max_new_tokens   the longest answer
    pattern          a regular expression that finds the answer in a text; None: all of it
    """

    chat: bool = False
    prompt: str | None = None
    stop: Sequence[str] | None = None
    max_new_tokens: int = 50
    pattern: str | None = None
    batch_size: int = 8
    seed: int = 1337

    def __post_init__(self):
        if self.prompt is not None and "{question}" not in self.prompt:
            raise ValueError(f"a prompt has {{question}} in it: {self.prompt!r} has not")
        try:
            re.compile(self.pattern or "")
        except re.error as error:
            raise ValueError(f"{self.pattern!r} is no regular expression: {error}") from None

    @property
    def settings(self) -> dict:
        """What a report says of it."""
        prompt = self.prompt or ("{question}" if self.chat else PROMPT)
        stop = (() if self.chat else ("\n",)) if self.stop is None else self.stop
        settings = dict(chat=self.chat, prompt=prompt, stop=list(stop), pattern=self.pattern)
        return settings | dict(max_new_tokens=self.max_new_tokens, seed=self.seed)

    def read(self, text: str) -> str | None:
        """What is compared of a text; None where it holds no answer."""
        if self.pattern is None:
            return normalised(text)
        found = list(re.finditer(self.pattern, text))
        return found[-1].group().strip() if found else None


def normalised(text: str) -> str:
    """A text as it is compared; one that would be empty remains: "A" may be the answer.

    >>> normalised("The  Answer: an Apple."), normalised("A")
    ('answer apple', 'a')
    """
    plain = "".join(c for c in text.lower() if c not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", plain).split()) or text.strip().lower()


def exact_match(model: GPT, tokenizer, records: Sequence[dict], asking: Asking) -> Result:
    """The figure "exact_match": how many greedy answers are one of those expected.

    `records` have a `question` and an `answer`, a text or a list of texts. Raises ValueError where
    they have not, with the number of the record.
    """
    result = _answered(model, tokenizer, records, asking, 1, 0.0)
    right = np.array([item["right"][0] for item in result.items], np.float64)
    result.figures["exact_match"] = [Sample(right)]
    return result


def sampled(
    model: GPT,
    tokenizer,
    records: Sequence[dict],
    asking: Asking,
    num_samples: int = 5,
    temperature: float = 0.8,
    ks: Sequence[int] = (1,),
) -> Result:
    """The figures "pass@k", for each k, and "majority", of `num_samples` drawn answers each.

    Raises ValueError for a k above num_samples, or no temperature.
    """
    if not all(1 <= k <= num_samples for k in ks):
        raise ValueError(f"pass@k needs at least k samples, of which there are {num_samples}: {ks}")
    if temperature <= 0:
        raise ValueError("several answers are drawn with a --temperature above 0")
    result = _answered(model, tokenizer, records, asking, num_samples, temperature)
    result.settings |= dict(num_samples=num_samples, temperature=temperature)
    for k in ks:
        chances = [pass_at_k(num_samples, sum(item["right"]), k) for item in result.items]
        result.figures[f"pass@{k}"] = [Sample(np.array(chances))]
    if num_samples > 2:  # of two different answers, none is more frequent
        for item in result.items:
            item["majority"] = majority(item["read"])
        right = [item["majority"] in item["expected"] for item in result.items]
        result.figures["majority"] = [Sample(np.array(right, np.float64))]
    return result


def pass_at_k(n: int, c: int, k: int) -> float:
    """The chance that one of k answers is right, of which n were drawn and c are: unbiased.

    It is the share of the sets of k of the n answers in which a right one is: 1 - C(n - c, k) /
    C(n, k), as the product with which Chen et al. (2021) compute it.

    >>> pass_at_k(n=4, c=1, k=2)
    0.5
    """
    return 1.0 - float(np.prod(1.0 - k / np.arange(n - c + 1, n + 1))) if n - c >= k else 1.0


def majority(answers: Sequence[str | None]) -> str | None:
    """The most frequent answer; of several, the one that was drawn first. None is no answer."""
    counts = Counter(answer for answer in answers if answer)
    return counts.most_common(1)[0][0] if counts else None


def _answered(model, tokenizer, records, asking: Asking, n: int, temperature: float) -> Result:
    """For each question: its n answers, what is read of them, what is expected, which are right."""
    questions, expected = column(records, "question"), []
    for number, (question, answer) in enumerate(zip(questions, column(records, "answer")), 1):
        answers = answer if isinstance(answer, list) else [answer]
        if not isinstance(question, str) or not all(isinstance(a, str) for a in answers):
            raise ValueError(
                f"question and answer of record {number} are texts (answer: or a list)"
            )
        expected.append([asking.read(a) for a in answers])
        if None in expected[-1] or not expected[-1]:
            raise ValueError(f"the pattern finds no answer in {answer!r:.80}, of record {number}")
    settings, T = asking.settings, model.config.block_size
    stop, chat = settings["stop"], Chat(tokenizer) if asking.chat else None
    asked = []  # the ids of each prompt
    for question in questions:
        text = settings["prompt"].replace("{question}", question)
        if chat is None:
            asked.append([*tokenizer.prefix_ids, *tokenizer.encode_ordinary(text)])
        else:
            asked.append(chat.prompt_ids([{"role": "user", "content": text}]))
    if chat is not None:
        stop = [*stop, *chat.end_ids]
    order = sorted(range(len(asked) * n), key=lambda i: -len(asked[i // n]))
    how = dict(max_new_tokens=asking.max_new_tokens, temperature=temperature, stop=stop)
    how |= dict(batch_size=asking.batch_size, seed=asking.seed)
    prompts, written = [asked[i // n][-T:] for i in order], [""] * len(order)
    with tqdm(total=len(order), desc="answers", leave=False, disable=None, delay=2) as bar:
        for i, done in zip(order, complete(model, tokenizer, prompts, **how)):
            written[i] = done.text
            bar.update()
    items = []
    for i, accepted in enumerate(expected):
        texts = written[i * n : (i + 1) * n]
        read = [asking.read(text) for text in texts]
        right = [answer in accepted for answer in read]
        items.append(dict(item=i + 1, expected=accepted, answers=texts, read=read, right=right))
    cut = sum(len(ids) > T for ids in asked)
    notes = [f"the beginning of {cut} questions does not fit into {T} tokens and is left out"]
    return Result({}, settings, items, notes=notes if cut else [])
