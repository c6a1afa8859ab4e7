"""What pretraining learns from: the tokens of text, of token files, or of a mixture of them."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import tokenizer as tokenizers
from tensorlite.parallel import Team
from tokenizer import BPETokenizer, CharTokenizer, Tokenizer
from tokenizer.base import END_OF_TEXT, FILE_NAME

from .. import data, models
from ..evaluate import holds_unknown
from .run import Run
from .settings import Settings, is_model


@dataclass
class Tokens:
    """What a dataset has become: the ids of both splits, (N,) each, and what belongs to them."""

    tokenizer: Tokenizer | None  # of text, on rank 0 alone; of token files, if one is named
    train: np.ndarray | data.ShardedTokens
    val: np.ndarray | data.ShardedTokens
    val_texts: list[str | None]  # of each source, where it has characters that are not known
    vocab_size: int

    def fingerprint(self, settings: Settings) -> str:
        """What tells one dataset from another: each file's length and first million ids.

        Of a mixture, what decides its order too: weights, epochs, seed, and examples of a step.
        """
        digest = hashlib.sha256()
        for tokens in (self.train, self.val):
            for part in getattr(tokens, "shards", [tokens]):
                digest.update(f"{len(part)} ".encode())
                digest.update(np.asarray(part[: 2**20], dtype="<u4").tobytes())
            for part in getattr(tokens, "offsets", None) or ():
                digest.update(f"{len(part)} ".encode())
                digest.update(np.asarray(part[: 2**20], dtype="<u8").tobytes())
        if isinstance(self.train, data.Mixture):
            examples = settings.batch_size * settings.gradient_accumulation_steps
            digest.update(f"{self.train.key()} {examples} {settings.seed}".encode())
        return digest.hexdigest()


def load_tokens(run: Run) -> Tokens:
    """The dataset of a run, as tokens; those of a mixture are a `Mixture` of all its sources.

    Token files are mapped into memory by every rank. Text is read by rank 0 alone; the ranks of a
    machine share the tokens.
    """
    settings, team, packed = run.settings, run.team, run.settings.documents == "packed"
    resumed = run.out if run.resumed else None
    is_mixture = data.is_mixture(settings.dataset)
    sources = data.read_sources(settings.dataset) if is_mixture else []
    datasets = [source.dataset for source in sources] or [data.resolve(settings.dataset)]
    datasets = prepared(datasets, settings, resumed, team)

    tokenizer, encoded, size, end = None, {}, None, None
    if team.rank == 0 or all(map(data.is_token_data, datasets)):
        tokenizer, encoded = read_data(settings, resumed, datasets)
        size = count_ids(settings, tokenizer)
        end = tokenizer and tokenizer.eos_token_id
    size, end = team.same(size), team.same(end)

    splits, val_texts = [], []
    for dataset in datasets:
        *ids, val_text = encoded.get(dataset, (None, None, None))
        if data.is_token_data(dataset):
            ids = data.open_tokens(dataset, size, packed)
            if not (tokenizer or settings.vocab_size or resumed or is_model(settings.init_from)):
                warn_of_pickled(dataset, size, ids)
        else:
            ids = [team.same(part) for part in ids]
            if packed:
                ids = [data.ShardedTokens([i], [data.documents_ended(i, end)]) for i in ids]
        splits.append(ids)
        val_texts.append(val_text)
    train, val = ([ids[i] for ids in splits] for i in (0, 1))
    if is_mixture:
        mixed = data.Mixture(sources, train), data.Mixture(sources, val)
        return Tokens(tokenizer, *mixed, val_texts, size)
    return Tokens(tokenizer, train[0], val[0], val_texts, size)


def prepared(
    datasets: Sequence[str], settings: Settings, resumed: Path | None, team: Team
) -> list[str]:
    """The datasets, with a folder of token files in the place of each corpus that is prepared.

    Their ids are those of the run that is resumed, else of --tokenizer, else of the model to start
    from, else of the first token files that have a tokenizer. Otherwise the first corpus gets a new
    one, and the others take it. All ranks of the team call this.
    """
    if not set(datasets) & set(data.PREPARED):
        return list(datasets)
    name = settings.tokenizer
    if resumed and (resumed / FILE_NAME).exists():
        name = str(resumed)
    elif trained_on_text(name) and is_model(settings.init_from):
        name = settings.init_from
    if trained_on_text(name):
        with_one = (str(f) for f in described(datasets) if (f / FILE_NAME).exists())
        name = next(with_one, name)
    if trained_on_text(name):
        check_known(datasets)
    found = []
    for dataset in datasets:
        if dataset in data.PREPARED:
            dataset = str(data.prepare(dataset, name, team))
            name = dataset if trained_on_text(name) else name
        found.append(dataset)
    return found


def read_data(
    settings: Settings, resumed: Path | None, datasets: Sequence[str]
) -> tuple[Tokenizer | None, dict[str, tuple[np.ndarray, np.ndarray, str | None]]]:
    """The tokenizer of all datasets, or None, and what those that are text have become.

    That is {dataset: (training ids, validation ids, validation text or None)}; token files are not
    opened. `resumed` is the folder of a run that is resumed: its tokenizer is the one to use.
    """
    texts = [dataset for dataset in datasets if not data.is_token_data(dataset)]
    if settings.separator and not texts:
        raise ValueError(
            f"--separator {settings.separator} is for text, and {settings.dataset} is token files"
        )
    if settings.documents == "packed" and texts and not settings.separator:
        raise ValueError(
            "--documents packed needs to know where documents end: --separator says it of text"
        )
    tokenizer = known_tokenizer(settings, resumed, datasets)
    parts = {dataset: data.read_texts(dataset, settings.encoding) for dataset in texts}
    splits = {dataset: data.split("\n".join(text)) for dataset, text in parts.items()}
    if texts and not tokenizer:
        name = settings.tokenizer or "char"
        whole = "".join(map("".join, splits.values())) if name == "char" else ""
        train = "\n".join(train for train, _ in splits.values())
        special = [END_OF_TEXT] if settings.separator else []
        tokenizer = make_tokenizer(name, whole, train, special)
    if texts and settings.separator and tokenizer.eos_token_id is None:
        raise ValueError(
            f"--separator {settings.separator} needs a tokenizer with an end-of-text token, "
            "which this one has not: --tokenizer bpe:N makes one"
        )
    found = {}
    for dataset in texts:
        if settings.separator:
            documents = data.documents(parts[dataset], settings.separator)
            found[dataset] = *data.split(tokenizer.encode_ended(documents)), None
        else:
            ids = [tokenizer.encode_to_numpy(text, (), ()) for text in splits[dataset]]
            unknown = holds_unknown(tokenizer, ids[1])
            found[dataset] = *ids, splits[dataset][1] if unknown else None
    return tokenizer, found


def known_tokenizer(
    settings: Settings, resumed: Path | None, datasets: Sequence[str]
) -> Tokenizer | None:
    """The tokenizer that there is already; None where text gets a new one, or none is needed.

    It is that of the run that is resumed, else of --tokenizer, else of the model to start from,
    else of the first token files that have one.
    """
    name, is_tokens = settings.tokenizer, all(map(data.is_token_data, datasets))
    source = resumed or (Path(settings.init_from) if is_model(settings.init_from) else None)
    tokenizer = None
    if resumed and (resumed / FILE_NAME).exists():
        tokenizer = tokenizers.load(resumed)
    elif source and not resumed and (name is None or is_tokens and trained_on_text(name)):
        tokenizer = tokenizer_in(source, is_tokens)
    if not (tokenizer or trained_on_text(name)):  # a preset's tokenizer is meant for text
        tokenizer = make_tokenizer(name)
    if source and not (tokenizer or resumed or is_tokens):
        if name is not None:
            raise ValueError(
                f"--tokenizer {name} makes a new one, whose ids would mean nothing to the model in "
                f"{source}: leave it out for the model's own, or name the one that it was trained "
                "with, --tokenizer PATH"
            )
        raise ValueError(
            f"{source} has no tokenizer, and ids of a new one would mean nothing to its model: "
            "name the one that it was trained with, --tokenizer PATH"
        )
    for folder in described(datasets):
        tokenizer = tokenizer or tokenizer_in(folder, is_tokens)
        if tokenizer:
            data.check_tokenizer(folder, tokenizer)
    if not tokenizer:
        check_known(datasets)
    return tokenizer


def described(datasets: Sequence[str]) -> list[Path]:
    """Those of the datasets that are folders of token files with a tokens.json."""
    folders = [Path(dataset) for dataset in datasets if data.is_token_data(dataset)]
    return [folder for folder in folders if data.read_about(folder)]


def check_known(datasets: Sequence[str]) -> None:
    """Raise ValueError where ids that are there would be mixed with those of a new tokenizer."""
    there = [dataset for dataset in datasets if data.is_token_data(dataset)]
    others = [dataset for dataset in datasets if dataset not in there]
    if there and others:
        raise ValueError(
            f"the tokenizer of the ids in {there[0]} is not beside them, and {others[0]} needs it "
            "in the same mixture: name it, --tokenizer PATH"
        )


def warn_of_pickled(dataset: str, vocab_size: int, splits) -> None:
    """Warn where nanoGPT has left the size of the vocabulary in a file that is not read."""
    path = Path(data.resolve(dataset))
    pickled = (path if path.is_dir() else path.parent) / "meta.pkl"
    if pickled.exists():
        size = 1 + max(int(tokens.max()) for tokens in splits)
        warnings.warn(
            f"{pickled} is not read, because what is pickled can run code. The model has "
            f"{vocab_size:,} ids, and the largest in the data is {size - 1}: "
            f"--vocab_size {size} is enough",
            stacklevel=1,
        )


def tokenizer_in(folder: Path, is_tokens: bool):
    """The tokenizer in a model's folder, ours or another project's; None where there is none.

    Raises ValueError for one that cannot be read, unless the data is tokens already, which need no
    tokenizer.
    """
    try:
        return tokenizers.load(folder)
    except FileNotFoundError:
        return None
    except ValueError as error:
        if not is_tokens or (folder / FILE_NAME).exists():
            raise
        warnings.warn(f"going on without a tokenizer: {error}", stacklevel=1)
        return None


def count_ids(settings: Settings, tokenizer) -> int:
    """The number of ids: --vocab_size, or that of the tokenizer, or of the model to start from.

    Otherwise it is 50304, nanoGPT's number for GPT-2's ids.
    """
    if settings.vocab_size:
        if tokenizer and settings.vocab_size < tokenizer.vocab_size:
            raise ValueError(
                f"--vocab_size {settings.vocab_size} is less than the tokenizer's "
                f"{tokenizer.vocab_size}"
            )
        return settings.vocab_size
    if tokenizer:
        return tokenizer.vocab_size
    if is_model(settings.init_from):
        return models.read_config(settings.init_from).vocab_size
    return 50304


def trained_on_text(name: str | None) -> bool:
    """Whether --tokenizer asks for a new tokenizer."""
    return name in (None, "char") or name.startswith("bpe:")


def make_tokenizer(name: str, text: str = "", train_text: str = "", special=()):
    """The tokenizer that --tokenizer names, trained on this text or loaded.

    `special` are the special tokens of a new BPE tokenizer.
    """
    if name == "char":
        return CharTokenizer.train(text)
    if name.startswith("bpe:"):
        if not name[4:].isdigit():
            raise ValueError(f"--tokenizer bpe:N takes a number of ids, not {name[4:]!r}")
        return BPETokenizer.train(train_text, int(name[4:]), special_tokens=special)
    try:
        return tokenizers.find(name)
    except FileNotFoundError as error:
        raise ValueError(
            f"--tokenizer is char, bpe:N, or a tokenizer's name or path: {error}"
        ) from None
