"""Several datasets, mixed by weights that may change with the step: `train.py --dataset mix.toml`.

    [[source]]
    dataset = "web/tokens"                  what --dataset takes; paths are relative to this file
    weight = 0.7                            its share of the examples; shares need not add up to 1

    [[source]]
    dataset = "tinystories"
    weights = [[0, 0.1], [1000, 0.5]]       by step: straight lines between, constant outside
    epochs = 2                              at most so many passes over it; left out: no limit

An example is a window of block_size tokens. The windows of a source do not overlap, and each pass
over it reads every one of them once, in an order that is shuffled by a key (permutation.py). Which
windows a step has depends on the seed and the step alone.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .apportion import Apportionment
from .batches import check_length
from .corpora import CORPORA
from .names import is_mixture, is_token_data, resolve, token_files
from .permutation import permute
from .prepared import PREPARED
from .token_folder import read_about
from .token_shards import ShardedTokens, joined

MAX_BYTES = 2**20  # of a mix.toml


@dataclass(frozen=True)
class Source:
    """A dataset of a mixture: its weight at some steps ((step, weight), ...), and its most passes.

    `name` is as the file says it, `dataset` as `resolve` gives it: a path, or a built-in name.
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

    Raises ValueError for a file that is not TOML, for what it says that cannot be, and for token
    files of different tokenizers.
    """
    path = Path(resolve(dataset))
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"it has more than {MAX_BYTES:,} bytes")
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        sources, others = content.pop("source", None), ", ".join(content)
        if others or not isinstance(sources, list) or not sources:
            raise ValueError(f"it holds [[source]] tables and nothing else; found: {others or '-'}")
        sources, made_with = [_source(source, path.parent) for source in sources], {}
        for i, source in enumerate(sources):
            if source.dataset in [other.dataset for other in sources[:i]]:
                raise ValueError(f"it names the source {source.name} twice: add up the weights")
            is_tokens = is_token_data(source.dataset)
            if is_tokens and (about := read_about(Path(source.dataset))):
                made_with.setdefault(about.tokenizer, source.name)
        if len(made_with) > 1:
            raise ValueError(
                f"{' and '.join(made_with.values())} were made with different tokenizers, whose "
                "ids do not mix: tokenize one of them again"
            )
        return sources
    except (ValueError, RecursionError) as error:  # TOML's and UTF-8's errors are ValueErrors
        raise ValueError(f"the mixture {path}: {error}") from None


def validation_size(dataset: str) -> int:
    """About how many tokens the validation split has at most, judged by the sizes of files.

    0 for a built-in corpus, and for a dataset that does not exist. Raises as `read_sources` does.
    """
    if is_mixture(dataset):
        return sum(validation_size(source.dataset) for source in read_sources(dataset))
    path = resolve(dataset)
    if val := token_files(path, "val"):
        return sum(map(os.path.getsize, val)) // 2
    files = [path] if os.path.isfile(path) else filter(os.path.isfile, Path(path).rglob("*"))
    return sum(map(os.path.getsize, files)) // (20 if path.endswith(".bin") else 10)


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
        raise ValueError(f"epochs of {name} is a number above 0, not {epochs!r:.80}")
    dataset = resolve(os.path.expanduser(name), str(folder))
    if dataset not in CORPORA and dataset not in PREPARED and not os.path.exists(dataset):
        raise ValueError(
            f"the source {name} is no file or folder ({dataset}), and none of the corpora "
            f"{', '.join([*CORPORA, *PREPARED])}"
        )
    if is_mixture(dataset):
        raise ValueError(f"the source {name} is a mixture: name its sources here instead")
    return Source(name, dataset, tuple(map(tuple, weights)), epochs)


def _is_number(x) -> bool:
    return type(x) in (int, float) and abs(x) <= 1e9


def _is_point(x) -> bool:
    """Whether this is [a step, a weight]."""
    two = isinstance(x, list) and len(x) == 2
    return two and type(x[0]) is int and 0 <= x[0] < 2**53 and _is_number(x[1]) and x[1] >= 0


class Mixture(ShardedTokens):
    """The tokens of a split of all sources, one source after the other.

    `parts` (S,) are the tokens of each source, `first` (S,) is where each begins.
    """

    def __init__(self, sources: list[Source], parts: Sequence[np.ndarray | ShardedTokens]):
        self.sources = sources
        self.parts = [p if isinstance(p, ShardedTokens) else ShardedTokens([p]) for p in parts]
        together = joined(self.parts)
        super().__init__(together.shards, together.offsets)
        self.first = np.cumsum([0, *map(len, self.parts[:-1])])

    def key(self) -> str:
        """What decides the order of the examples, beside tokens and settings: a text."""
        return json.dumps([[source.weights, source.epochs] for source in self.sources])


class Order:
    """The windows of a mixture, in the order of the steps, `examples` each.

    Raises ValueError for a source that is too short for a window, and where the sources do not last
    for `steps` steps, because of their epochs.
    """

    def __init__(self, mixture: Mixture, block_size: int, examples: int, seed: int, steps: int):
        for source, part in zip(mixture.sources, mixture.parts):
            check_length(part, block_size, f"{source.name} training")
        self.mixture, self.block_size, self.seed = mixture, block_size, seed
        self.windows = [(len(part) - 1) // block_size for part in mixture.parts]
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

    def shares(self) -> list[float]:
        """The part of each source in all that the run reads; these add up to 1."""
        taken = self.plan.taken(self.last + 1)
        return (taken / taken.sum()).tolist()
