"""Several datasets, mixed by weights that may change with the step: `train.py --dataset mix.toml`.

    [[source]]
    dataset = "web"                         token files, relative to this file
    weight = 0.7                            its share of the examples; shares need not add up to 1

    [[source]]
    dataset = "code"
    weights = [[0, 0.1], [1000, 0.5]]       by step: straight lines between, constant outside
    epochs = 2                              at most so many passes over it; left out: no limit

An example is a window of block_size tokens. The windows of a source do not overlap, and each pass
over it reads every one of them once, in an order that is shuffled by a key (permutation.py). Which
windows a step has depends on the seed and the step alone.
"""

from __future__ import annotations

import json
import math
import tomllib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .apportion import Apportionment
from .batches import check_length
from .names import is_mixture, is_token_data, resolve
from .permutation import permute
from .token_folder import read_about
from .token_shards import ShardedTokens, joined
from .tokens import open_tokens

MAX_BYTES = 2**20  # of a mix.toml


@dataclass(frozen=True)
class Source:
    """A dataset of a mixture: its weight at some steps ((step, weight), ...), and its most passes.

    `name` is as the file says it, `dataset` as `open_tokens` takes it.
    """

    name: str
    dataset: str
    weights: tuple[tuple[int, float], ...]
    epochs: float | None

    def weight(self, steps: np.ndarray) -> np.ndarray:
        """Its weight at these steps, (N,): straight lines between those given, constant outside."""
        return np.interp(steps, *zip(*self.weights))


def read_sources(dataset: str) -> list[Source]:
    """The sources that a mix.toml names, in its order.

    Raises ValueError for a file that is not TOML, and for what it says that cannot be.
    """
    path = Path(resolve(dataset))
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"it has more than {MAX_BYTES:,} bytes")
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        sources, others = content.pop("source", None), ", ".join(content)
        if others or not isinstance(sources, list) or not sources:
            raise ValueError(f"it holds [[source]] tables and nothing else; found: {others or '-'}")
        return [_source(source, path.parent) for source in sources]
    except (ValueError, RecursionError) as error:  # TOML's and UTF-8's errors are ValueErrors
        raise ValueError(f"the mixture {path}: {error}") from None


def described_folders(dataset: str) -> list[Path]:
    """The folders with a tokens.json that a dataset of token files is made of, a mixture too."""
    names = [source.dataset for source in read_sources(dataset)] if is_mixture(dataset) else []
    paths = map(Path, names or [resolve(dataset)])
    return [path for path in paths if read_about(path)]


def _source(table: dict, folder: Path) -> Source:
    """The source that a table describes. Raises ValueError for one that cannot be."""
    name = table.get("dataset") if isinstance(table, dict) else None
    if not isinstance(name, str) or not name:
        raise ValueError(f'each [[source]] has a dataset = "PATH", and one has {name!r}')
    unknown = table.keys() - {"dataset", "weight", "weights", "epochs"}
    if unknown:
        raise ValueError(
            f"{name} has {', '.join(sorted(unknown))}, and a source has dataset, weight or "
            "weights, and epochs"
        )
    if ("weight" in table) == ("weights" in table):
        raise ValueError(f"{name} has either weight = W or weights = [[STEP, W], ...]")
    weights = table.get("weights", [[0, table.get("weight")]])
    if not isinstance(weights, list) or not weights or not all(map(_is_point, weights)):
        raise ValueError(
            f"a weight of {name} is a number, at least 0, or a list [[STEP, WEIGHT], ...] of them, "
            f"not {weights!r:.80}"
        )
    steps = [step for step, _ in weights]
    if steps != sorted(set(steps)):
        raise ValueError(f"the steps of the weights of {name} rise, and they are {steps!r:.80}")
    epochs = table.get("epochs")
    if epochs is not None and not (_is_number(epochs) and epochs > 0):
        raise ValueError(f"epochs of {name} is a number above 0, not {epochs!r}")
    dataset = resolve(name, str(folder))
    if is_mixture(dataset) or not is_token_data(dataset):
        raise ValueError(
            f"the source {name} is no token file and no folder of such ({dataset}): "
            "python -m gpt.data tokenize makes them of documents"
        )
    return Source(name, dataset, tuple(map(tuple, weights)), epochs)


def _is_number(x) -> bool:
    return type(x) in (int, float) and math.isfinite(x)


def _is_point(x) -> bool:
    """Whether this is [a step, a weight]."""
    two = isinstance(x, list) and len(x) == 2
    return two and type(x[0]) is int and 0 <= x[0] < 2**53 and _is_number(x[1]) and 0 <= x[1] <= 1e9


class Mixture(ShardedTokens):
    """The training tokens of all sources, one source after the other.

    `first` (S,) is where each source begins, `lengths` (S,) how many tokens it has.
    """

    def __init__(self, sources: list[Source], tokens: list[ShardedTokens]):
        together = joined(tokens)
        super().__init__(together.shards, together.offsets)
        self.sources, self.lengths = sources, [len(part) for part in tokens]
        self.first = np.cumsum([0, *self.lengths[:-1]])

    def key(self) -> str:
        """What decides the order of the examples, beside tokens and settings: a text."""
        return json.dumps([[source.weights, source.epochs] for source in self.sources])


def open_mixture(
    dataset: str, vocab_size: int, documents: bool = False
) -> tuple[Mixture, ShardedTokens]:
    """The training and the validation tokens of a mix.toml, see `open_tokens`.

    The validation split is that of all sources, one after the other, whatever their weights.

    Raises ValueError as `read_sources` and `open_tokens` do, and for sources of different
    tokenizers.
    """
    sources = read_sources(dataset)
    made_with = {}
    for source in sources:
        if about := read_about(Path(source.dataset)):
            made_with.setdefault(about.tokenizer, source.name)
    if len(made_with) > 1:
        raise ValueError(
            f"{' and '.join(made_with.values())} were made with different tokenizers, whose ids "
            "do not mix: tokenize one of them again"
        )
    splits = [open_tokens(source.dataset, vocab_size, documents) for source in sources]
    train, val = (
        [part if isinstance(part, ShardedTokens) else ShardedTokens([part]) for part in parts]
        for parts in zip(*splits)
    )
    return Mixture(sources, train), joined(val)


class Order:
    """The windows of a mixture, in the order of the steps, `examples` each.

    Raises ValueError for a source that is too short for a window, and where the sources do not last
    for `steps` steps, because of their epochs.
    """

    def __init__(self, mixture: Mixture, block_size: int, examples: int, seed: int, steps: int):
        for source, length in zip(mixture.sources, mixture.lengths):
            check_length(range(length), block_size, f"{source.name} training")
        self.mixture, self.block_size, self.seed = mixture, block_size, seed
        self.windows = [(length - 1) // block_size for length in mixture.lengths]
        limits = [
            None if source.epochs is None else int(source.epochs * n)
            for source, n in zip(mixture.sources, self.windows)
        ]
        self.plan = Apportionment(self._weights, limits, examples)
        self.last = max(0, steps - 1)
        self.plan.counts(self.last)

    def _weights(self, steps: np.ndarray) -> np.ndarray:
        return np.stack([source.weight(steps) for source in self.mixture.sources], axis=1)

    def starts(self, step: int) -> np.ndarray:
        """Where the windows of a step start in the tokens of the mixture, (examples,) int64.

        Steps beyond the last, whose loss is only looked at, have its windows.
        """
        step, starts = min(step, self.last), []
        counts, taken = self.plan.counts(step), self.plan.taken(step)
        for s, n in enumerate(self.windows):
            passes, places = np.divmod(taken[s] + np.arange(counts[s]), n)
            for number in np.unique(passes):
                here = places[passes == number]
                windows = permute(here, n, self.seed, "order", s, int(number))
                starts.append(self.mixture.first[s] + windows * self.block_size)
        return np.concatenate(starts)

    def passes(self) -> list[float]:
        """How often the run reads each source."""
        return (self.plan.taken(self.last + 1) / self.windows).tolist()
