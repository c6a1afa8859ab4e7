"""Rewards: how good an answer is, as any Python function says.

    def reward(prompt, answer: str, record: dict) -> float

`prompt` is the text that the answer continues, or the list of messages that it replies to; `record`
is the line of the dataset, where a function finds, say, the right result. The largest reward should
be 1: an answer that earns at least that counts as right. `--reward FILE.py:NAME` or `MODULE:NAME`
names a function; the two at the end are examples (gpt.finetune.rewards:sorted_letters).
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

RIGHT = 1.0  # the reward from which on an answer counts as right


class Reward:
    """The reward function that `name` stands for, whose results are checked.

    Raises FileNotFoundError where there is no such file, and ValueError where the module cannot be
    imported or has no function of that name.

    >>> reward = Reward("gpt.finetune.rewards:arithmetic")
    >>> reward("23+45=", "68", {}), reward("23+45=", "67", {})
    (1.0, 0.0)
    """

    def __init__(self, name: str):
        self.name = name
        self.function: Callable[..., Any] = find_function(name)

    def __call__(self, prompt: str | list[dict], answer: str, record: dict) -> float:
        """The reward of an answer. Raises ValueError where the function fails or gives no number.

        The error names the function, the prompt and the answer.
        """
        about = f"for the prompt {str(prompt)[-200:]!r} and the answer {answer[:200]!r}"
        try:
            value = self.function(prompt, answer, record)
        except Exception as error:  # it may do anything
            raise ValueError(
                f"the reward function {self.name} raised {type(error).__name__}: {error}, {about}"
            ) from error
        try:
            number = math.nan if isinstance(value, str) else float(value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if not math.isfinite(number):
            raise ValueError(
                f"the reward function {self.name} gave {value!r:.100} {about}; a reward is a number"
            )
        return number


def find_function(name: str) -> Callable[..., Any]:
    """The function that FILE.py:NAME or MODULE:NAME stands for. Raises as `Reward` does."""
    source, colon, attribute = name.rpartition(":")
    if not (source and attribute):
        raise ValueError(f"--reward is FILE.py:NAME or MODULE:NAME, not {name!r}")
    try:
        if source.endswith(".py"):
            if not Path(source).is_file():
                raise FileNotFoundError(f"there is no file {source}, which --reward names")
            # Under a name that hides no other module; dataclasses look their module up by it.
            spec = importlib.util.spec_from_file_location(f"reward.{Path(source).stem}", source)
            module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
        else:
            module = importlib.import_module(source)
    except FileNotFoundError:
        raise
    except Exception as error:  # importing a module runs it
        raise ValueError(
            f"--reward {name}: {source} cannot be imported: {type(error).__name__}: {error}"
        ) from error
    function = getattr(module, attribute, None)
    if not callable(function):
        raise ValueError(f"--reward {name}: there is no function {attribute} in {source}")
    return function


# =================================================================================================
# Examples
# =================================================================================================


def sorted_letters(prompt: str, answer: str, record: dict) -> float:
    """1 where the answer has the letters of the prompt's last word in order, otherwise 0.

    >>> sorted_letters("sort dbca:", " abcd", {}), sorted_letters("sort dbca:", " abdc", {})
    (1.0, 0.0)
    """
    word = prompt.rstrip(": \n").split()[-1]
    return float(answer.strip() == "".join(sorted(word)))


def arithmetic(prompt: str, answer: str, record: dict) -> float:
    """1 where the answer is the result of the prompt's sum, difference or product, otherwise 0.

    Raises ValueError for a prompt that does not end with one, such as "23+45=".
    """
    found = re.search(r"(\d+) *([-+*]) *(\d+) *=? *$", prompt)
    if found is None:
        raise ValueError(f"a prompt ends with a sum, as in 23+45=, not {prompt[-50:]!r}")
    a, sign, b = int(found[1]), found[2], int(found[3])
    return float(answer.strip() == str({"+": a + b, "-": a - b, "*": a * b}[sign]))
