"""What pretraining starts from: text, a tokenizer, tokens and a model, as the settings say."""

from __future__ import annotations

import dataclasses
import hashlib
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import tokenizer as tokenizers
from tokenizer import BPETokenizer, CharTokenizer, Tokenizer
from tokenizer.base import END_OF_TEXT, FILE_NAME

from .. import checkpoint, data, models
from ..config import GPTConfig
from ..evaluate import holds_unknown
from ..model import GPT
from ..models import LlamaConfig, ModernConfig, name_parts, read_parts
from ..models.modern_config import DEFAULT_PARTS
from .run import Run
from .settings import NO_MODEL, Settings, is_model


@dataclass
class Tokens:
    """What a dataset has become: the ids of both splits, (N,) each, and what belongs to them."""

    tokenizer: Tokenizer | None  # of text, on rank 0 alone; of token files, if one is named
    train: np.ndarray | data.ShardedTokens
    val: np.ndarray | data.ShardedTokens
    val_text: str | None  # only where it has characters that the tokenizer does not know
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
    """The dataset of a run, as tokens.

    Token files are mapped into memory by every rank. Text is read by rank 0 alone; the ranks of a
    machine share the tokens.
    """
    settings, team = run.settings, run.team
    resumed = run.out if run.resumed else None
    if data.resolve(settings.dataset) in data.PREPARED:
        folder = data.prepare(settings.dataset, tokenizer_for(settings, resumed), team)
        settings = dataclasses.replace(settings, dataset=str(folder))
    if data.is_token_data(settings.dataset):
        tokenizer, *splits, _ = read_data(settings, resumed)
        return Tokens(tokenizer, *splits, None, count_ids(settings, tokenizer))
    tokenizer, splits, val_text, size, end = None, (None, None), None, None, None
    if team.rank == 0:
        tokenizer, *splits, val_text = read_data(settings, resumed)
        size, end = count_ids(settings, tokenizer), tokenizer.eos_token_id
    splits = [team.same(tokens) for tokens in splits]
    end = team.same(end)
    if settings.documents == "packed":
        splits = [data.ShardedTokens([ids], [data.documents_ended(ids, end)]) for ids in splits]
    return Tokens(tokenizer, *splits, val_text, team.same(size))


def tokenizer_for(settings: Settings, resumed: Path | None) -> str | None:
    """Whose ids the tokens of a prepared corpus have to be; None where that is left open.

    They are those of the run that is resumed, else what --tokenizer says, else those of the model
    to start from.
    """
    if resumed and (resumed / FILE_NAME).exists():
        return str(resumed)
    if settings.tokenizer is None and is_model(settings.init_from):
        return settings.init_from
    return settings.tokenizer


def read_data(settings: Settings, resumed: Path | None):
    """(tokenizer or None, training tokens, validation tokens, validation text or None).

    `resumed` is the folder of a run that is resumed: its tokenizer is the one to use.
    """
    name, is_tokens = settings.tokenizer, data.is_token_data(settings.dataset)
    source = resumed or (Path(settings.init_from) if is_model(settings.init_from) else None)
    tokenizer = None
    if resumed and (resumed / FILE_NAME).exists():
        tokenizer = tokenizers.load(resumed)
    elif source and not resumed and name is None:
        tokenizer = tokenizer_in(source, is_tokens)
    if source and not (tokenizer or resumed or is_tokens) and trained_on_text(name):
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
    if is_tokens and settings.separator:
        raise ValueError(
            f"--separator {settings.separator} is for text, and {settings.dataset} is token files"
        )
    packed = settings.documents == "packed"
    if packed and not (is_tokens or settings.separator):
        raise ValueError(
            "--documents packed needs to know where documents end: --separator says it of text"
        )
    if is_tokens:
        if not (tokenizer or trained_on_text(name)):  # a preset's tokenizer is meant for text
            tokenizer = make_tokenizer(name)
        folders = data.described_folders(settings.dataset)
        if folders and not tokenizer:
            tokenizer = tokenizer_in(folders[0], is_tokens)
        for folder in folders if tokenizer else ():
            data.check_tokenizer(folder, tokenizer)
        opened = data.open_mixture if data.is_mixture(settings.dataset) else data.open_tokens
        splits = opened(settings.dataset, count_ids(settings, tokenizer), packed)
        path = Path(data.resolve(settings.dataset))
        pickled = (path if path.is_dir() else path.parent) / "meta.pkl"
        if pickled.exists() and not (tokenizer or settings.vocab_size or source):
            size = 1 + max(int(tokens.max()) for tokens in splits)
            warnings.warn(
                f"{pickled} is not read, because what is pickled can run code. The model has "
                f"{count_ids(settings, None):,} ids, and the largest in the data is {size - 1}: "
                f"--vocab_size {size} is enough",
                stacklevel=1,
            )
        return tokenizer, *splits, None
    texts = data.read_texts(settings.dataset, settings.encoding)
    text = "\n".join(texts)
    train_text, val_text = data.split(text)
    special = [END_OF_TEXT] if settings.separator else []
    tokenizer = tokenizer or make_tokenizer(name or "char", text, train_text, special)
    if settings.separator:
        if tokenizer.eos_token_id is None:
            raise ValueError(
                f"--separator {settings.separator} needs a tokenizer with an end-of-text token, "
                "which this one has not: --tokenizer bpe:N makes one"
            )
        documents = data.documents(texts, settings.separator)
        return tokenizer, *data.split(tokenizer.encode_ended(documents)), None
    ids = [tokenizer.encode_to_numpy(part, (), ()) for part in (train_text, val_text)]
    return tokenizer, *ids, val_text if holds_unknown(tokenizer, ids[1]) else None


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


def make_model(run: Run, tokens: Tokens) -> GPT:
    """The model of a run at its present step, with the ids of the tokenizer in its configuration.

    Where the model comes from a folder (--init_from), the run's settings take over its shape.
    """
    model, run.settings = first_model(run.settings, run.given, tokens.vocab_size, run.start)
    run.load_weights(model)
    if run.start:
        model.config = with_token_ids(model.config, vars(models.read_config(run.out)))
    if tokens.tokenizer:
        end = tokens.tokenizer.eos_token_id  # as with GPT-2, it begins a text too
        model.config = with_token_ids(model.config, {"bos_token_id": end, "eos_token_id": end})
    model.to(run.settings.device)
    model.recompute = run.settings.recompute
    return model


def first_model(settings: Settings, given: dict, size: int, start: int) -> tuple[GPT, Settings]:
    """A new model for `size` ids, or the one in the folder --init_from; settings of its shape."""
    s = settings
    if start:  # the run has the shape and the weights itself
        shape = dataclasses.replace(models.read_config(s.out_dir), dropout=s.dropout)
        return models.make(shape, seed=None), settings
    if s.init_from in NO_MODEL:
        sizes = (size, s.block_size, s.n_layer, s.n_head, s.n_embd, s.dropout, s.bias)
        if s.model == "llama":
            return models.make(LlamaConfig(*sizes, n_kv_head=s.n_kv_head), s.seed), settings
        if s.model == "modern":
            parts = read_parts(DEFAULT_PARTS if s.parts is None else s.parts)
            return models.make(ModernConfig(*sizes, **parts), s.seed), settings
        return models.make(GPTConfig(*sizes), s.seed), settings
    model = load_to_train(s.init_from, "scratch, resume, auto")
    own = {name: getattr(model.config, name) for name in ("n_layer", "n_head", "n_embd", "bias")}
    if isinstance(model.config, LlamaConfig):
        own |= {"model": "llama", "n_kv_head": model.config.n_kv_head, "parts": None}
    elif isinstance(model.config, ModernConfig):
        own |= {"model": "modern", "n_kv_head": None, "parts": name_parts(vars(model.config))}
        start = {"zero_init": False}  # how a new model starts; nanochat's layout does not keep it
        asked = read_parts(given.get("parts") or "") | start
        if asked == read_parts(own["parts"]) | start:
            own["parts"] = given["parts"]
    else:
        own |= {"model": "gpt2", "n_kv_head": None, "parts": None}
    for name, value in own.items():
        if name in given and given[name] != value:
            raise ValueError(
                f"the model in {s.init_from} has --{name} {value}, which cannot be {given[name]} "
                "now"
            )
    if size > model.config.vocab_size:
        raise ValueError(
            f"the data has {size} ids, the model in {s.init_from} knows {model.config.vocab_size}"
        )
    own |= {"vocab_size": model.config.vocab_size, "block_size": model.config.block_size}
    if "block_size" in given:
        if s.block_size > own["block_size"]:
            raise ValueError(
                f"--block_size {s.block_size} is beyond the model's {own['block_size']}"
            )
        own["block_size"] = s.block_size
    model = models.with_config(model, block_size=own["block_size"], dropout=s.dropout)
    return model, dataclasses.replace(s, **own)


def load_to_train(folder: str, others: str) -> GPT:
    """The model in the folder --init_from, which may also say one of `others`.

    Raises FileNotFoundError where there is none, and ValueError for one that cannot be trained.
    """
    if not is_model(folder):
        raise FileNotFoundError(
            f"--init_from is {others}, hf:OWNER/NAME or the folder of a model; there is no folder "
            f"{folder!r} with a config.json"
        )
    model = models.load(folder)
    if isinstance(model, models.Quantized):
        raise ValueError(
            f"the weights in {folder} have {model.bits} bits, which cannot be trained: "
            "--init_from takes the folder that they were made from"
        )
    return model


def with_token_ids(config: GPTConfig, ids: dict) -> GPTConfig:
    """The configuration, with the given ids of special tokens where it has none itself."""
    unknown = [name for name in checkpoint.TOKEN_IDS if getattr(config, name) is None]
    return dataclasses.replace(config, **{name: ids.get(name) for name in unknown})
