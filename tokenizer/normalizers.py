"""What some tokenizers do to a text before they cut it: Unicode's normal forms, marks for spaces.

A normalizer is a sequence of steps, which JSON can hold as it is:

| step | what it does |
|---|---|
| `"NFC"`, `"NFD"`, `"NFKC"`, `"NFKD"` | the normal form of that name |
| `"lowercase"` | small letters for capital ones, each by itself: "Σ" is "σ" everywhere |
| `["digits", "0"]` | puts this for every decimal digit |
| `["prepend", "▁"]` | puts this before a text that is not empty |
| `["replace", " ", "▁"]` | replaces every occurrence of the first by the second |

Qwen's tokenizers use NFC; those made from SentencePiece's models use the last two. Classifiers of
texts use lowercase and digits. The normal forms are those of Python's `unicodedata`. Hugging Face's
library has the tables of an older version of Unicode: for NFC they agree, the other three differ in
73 characters added since.
"""

import re
import unicodedata
from collections.abc import Iterable
from reprlib import repr as short_repr  # a file may hold values of any size

FORMS = ("NFC", "NFD", "NFKC", "NFKD")
LOWERCASE = "lowercase"
DIGIT, ANY_DIGIT = re.compile(r"\d"), r"\p{Nd}"  # here, and as Hugging Face's library says it
SIZES = {"digits": 2, "prepend": 2, "replace": 3}
MOST = 16  # steps; a text may grow at each
GROWTH = 64  # by how much all replacements together may lengthen a text

Step = str | tuple[str, ...]


def check_steps(steps: object) -> tuple[Step, ...]:
    """The steps as strs and tuples. Raises ValueError for what is no sequence of them."""
    if not isinstance(steps, (list, tuple)) or len(steps) > MOST:
        raise ValueError(f"a normalizer is a list of at most {MOST} steps, not {short_repr(steps)}")
    checked: list[Step] = []
    growth = 1
    for step in steps:
        if isinstance(step, str) and step in (*FORMS, LOWERCASE):
            checked.append(step)
        elif (
            isinstance(step, (list, tuple))
            and all(isinstance(part, str) for part in step)
            and SIZES.get(step[0] if step else "") == len(step)
            and 0 < len(step[1]) <= GROWTH
        ):
            checked.append(tuple(step))
            growth *= 1 if step[0] == "prepend" else max(1, len(step[-1]))
        else:
            raise ValueError(
                f"a step of a normalizer must be one of {', '.join(FORMS)}, {LOWERCASE}, "
                '["digits", TEXT], ["prepend", TEXT] or ["replace", OLD, NEW], not '
                f"{short_repr(step)}"
            )
    if growth > GROWTH:
        raise ValueError(f"the normalizer could make a text {growth} times as long")
    return tuple(checked)


def normalize(text: str, steps: Iterable[Step]) -> str:
    """`text` after the steps.

    >>> normalize("a b", [("prepend", "▁"), ("replace", " ", "▁")])
    '▁a▁b'
    """
    for step in steps:
        if step == LOWERCASE:
            text = text.replace("Σ", "σ").lower()  # Python alone has another letter at the end
        elif isinstance(step, str):
            text = unicodedata.normalize(step, text)
        elif step[0] == "digits":
            text = DIGIT.sub(step[1].replace("\\", r"\\"), text)
        elif step[0] == "replace":
            text = text.replace(*step[1:])
        elif text:
            text = step[1] + text
    return text


def with_normalizer(tokenizer, steps: Iterable[Step]):
    """The tokenizer, doing these steps to a text before what it does already.

    Raises ValueError for a step that is none, and for a tokenizer that keeps no normalizer.
    """
    normalizer = check_steps([*steps, *tokenizer.normalizer])
    changed = tokenizer.from_description(tokenizer.describe() | {"normalizer": list(normalizer)})
    if changed.normalizer != normalizer:
        raise ValueError(f"{tokenizer!r} changes no text before it is cut: use bpe")
    changed.set_conventions(tokenizer.conventions)
    return changed
