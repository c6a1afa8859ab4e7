"""The shape of a model of the modern family: what GPTConfig has, and the parts that it may have."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..checkpoint import CONFIG
from ..config import GPTConfig

# The parts that are there or not.
SWITCHES = "rotary qk_norm relu2 zero_init embedding_norm".split()


@dataclass(frozen=True)
class ModernConfig(GPTConfig):
    """The numbers that a `Modern` is built from, and its parts, which modern.py describes.

    Raises ValueError for values that no model can have.
    """

    bias: bool = False  # there are none
    tied: bool = False
    rotary: bool = False
    qk_norm: bool = False
    relu2: bool = False
    zero_init: bool = False
    embedding_norm: bool = False
    logit_cap: float | None = None
    ngrams: tuple[int, ...] = ()  # the lengths, each 2 or more
    ngram_rows: int = 16384  # of the table of each length, or as many as there are n-grams if fewer
    ngram_vocab: int | None = None  # the ids that they tell apart (vocab_size)
    n_inner: int | None = None  # the width of the MLP (4 n_embd)
    norm_eps: float = 1e-6
    rope_theta: float = 10000.0

    def __post_init__(self):
        super().__post_init__()
        for name, value in (("n_inner", 4 * self.n_embd), ("ngram_vocab", self.vocab_size)):
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        self.check_positive("n_inner", "ngram_rows", "ngram_vocab")
        for name in (*SWITCHES, "tied", "bias"):
            if type(getattr(self, name)) is not bool:
                raise ValueError(f"{name} is True or False, not {getattr(self, name)!r}")
        if self.bias:
            raise ValueError("a modern model has no biases: bias is False")
        if self.rotary and self.n_embd // self.n_head % 2:
            raise ValueError(
                "rotary positions turn pairs of numbers: n_embd / n_head is even, not "
                f"{self.n_embd // self.n_head}"
            )
        for name, least, most in (
            ("norm_eps", 0, 1),
            ("rope_theta", 1, 1e15),
            ("logit_cap", 0, 1e6),
        ):
            value = getattr(self, name)
            right = type(value) in (int, float) and least < value < most
            if not (right or (name == "logit_cap" and value is None)):
                raise ValueError(f"{name} is a number above {least}, below {most:g}, not {value!r}")
        lengths = self.ngrams
        right = isinstance(lengths, tuple) and all(type(n) is int and 2 <= n <= 8 for n in lengths)
        if not right or len({*lengths}) < len(lengths):
            raise ValueError(f"ngrams are different lengths from 2 to 8, not {lengths!r}")

    def count_ngrams(self, n: int) -> int:
        """The rows of the table of n-grams; a place before the text is an id of its own."""
        return min(self.ngram_rows, (self.ngram_vocab + 1) ** n)


def modern_config_of(directory: str | Path, fields: dict) -> ModernConfig:
    """The configuration with the fields in the config.json of a folder.

    Raises ValueError, with the file's name, for ones that no model can have.
    """
    path, known = Path(directory) / CONFIG, dataclasses.fields(ModernConfig)
    if unknown := sorted(fields.keys() - {field.name for field in known}):
        raise ValueError(
            f"{path} says {', '.join(unknown)[:200]}, which is no part of a modern model: another "
            "version of tensorlite may have written it"
        )
    required = {f.name for f in known if f.default is f.default_factory}  # that have neither
    if missing := sorted(required - fields.keys()):
        raise ValueError(f"{path} does not say {', '.join(missing)}, which every model has")
    try:
        return ModernConfig(**fields)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None


# The parts that the command line names: the fields that each sets.
PARTS = {name: {name: True} for name in (*SWITCHES, "tied")}
PARTS |= {"logit_cap": {"logit_cap": 15.0}, "ngrams": {"ngrams": (2,)}}
DEFAULT_PARTS = "rotary,qk_norm,relu2,zero_init,embedding_norm,logit_cap"


def read_parts(text: str) -> dict:
    """The fields of a ModernConfig that a list of parts, such as "rotary,logit_cap=30", names.

    `logit_cap=NUMBER` and `ngrams=2+3` say more than the name alone, which means 15 and 2. Raises
    ValueError for a part that there is not.

    >>> read_parts("rotary,ngrams=2+3")
    {'rotary': True, 'ngrams': (2, 3)}
    """
    fields = {}
    for part in filter(None, text.replace(" ", "").split(",")):
        name, _, value = part.partition("=")
        if name not in PARTS or (value and name not in ("logit_cap", "ngrams")):
            raise ValueError(f"--parts has {part!r}; the parts are {', '.join(PARTS)}")
        fields |= PARTS[name]
        try:
            if value and name == "logit_cap":
                fields["logit_cap"] = float(value)
            elif value:
                fields["ngrams"] = tuple(int(n) for n in value.split("+"))
        except ValueError:
            raise ValueError(
                f"--parts has {part!r}: it is logit_cap=15 or ngrams=2+3, for example"
            ) from None
    return fields


def name_parts(fields: Mapping) -> str:
    """The list of parts that fields of a ModernConfig say, as `read_parts` takes it.

    >>> name_parts(read_parts("logit_cap=30, rotary,ngrams=2+3"))
    'rotary,logit_cap=30.0,ngrams=2+3'
    """
    names, lengths = [name for name in PARTS if fields.get(name)], fields.get("ngrams", ())
    said = {"logit_cap": f"={fields.get('logit_cap')}", "ngrams": "=" + "+".join(map(str, lengths))}
    return ",".join(name + said.get(name, "") for name in names)
