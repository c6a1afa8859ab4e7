"""The step `tokenize`: from shards of documents to token files that train.py reads.

Each shard of documents becomes a token file for each split, with an index of its documents:
gpt/data/token_folder.py says what the folder holds. The end-of-text id follows each document.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np

import tokenizer as tokenizers
from tokenizer import BPETokenizer
from tokenizer.base import END_OF_TEXT

from ...commandline import option
from ..token_folder import NAME as ABOUT
from ..token_folder import OFFSETS, SPLITS, About, vocabulary_hash
from .document import Document
from .shards import hashed_file, read_shard, shards_in
from .steps import Step, Unit
from .tally import Tally

GROUP = 2**20  # characters of documents that are encoded together
SAMPLE = 2**25  # characters of the corpus that a new tokenizer is trained on


@dataclass
class Settings:
    """The settings of the step `tokenize`."""

    tokenizer: str = option(
        "gpt2",
        "gpt2 or another published vocabulary, which is fetched; the file or folder of a saved "
        "tokenizer; or bpe:N, which is trained to N ids on a sample of the documents",
    )


class Tokenize(Step):
    """Documents whose `split` is "val" go to the validation shards, those of "train" or none to the
    training shards. Raises ValueError for a tokenizer that there is not, or that ends no text.

    A new tokenizer is trained by each rank when the step begins, on the same text to the same one.
    """

    name = "tokenize"
    libraries = "regex"
    Settings = Settings

    def __init__(self, settings: Settings):
        super().__init__(settings)
        name, self.tokenizer = settings.tokenizer, None
        if name.startswith("bpe:"):
            if not name[4:].isdigit():
                raise ValueError(f"--tokenizer bpe:N takes a number of ids, not {name[4:]!r}")
            return  # `units` trains it, which knows the documents
        if name == "char":
            raise ValueError(
                "--tokenizer char has an id for each character of a text, and documents are too "
                "many to look for them all: give bpe:N, gpt2, or a saved tokenizer"
            )
        try:
            self.tokenizer = tokenizers.find(name)
        except FileNotFoundError as error:
            raise ValueError(f"--tokenizer is a tokenizer's name or path: {error}") from None
        if self.tokenizer.eos_token_id is None:
            raise ValueError(
                f"{self.tokenizer!r} has no end-of-text token, which has to follow each document: "
                "python -m tokenizer train --special makes one that has it"
            )

    def units(self, inputs: list[str]) -> list[Unit]:
        units = super().units(inputs)
        if self.tokenizer is None:
            self.tokenizer = new_tokenizer(int(self.settings.tokenizer[4:]), inputs[0])
        return units

    def extra_key(self) -> str:
        """The tokenizer itself: a file of the same name may hold another one tomorrow."""
        described = self.tokenizer.describe() | self.tokenizer.conventions.describe()
        return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()

    def write(self, unit: Unit, stem: Path, tally: Tally) -> dict:
        """Write train-NAME.bin and val-NAME.bin, where they have documents, and their indexes."""
        stem.with_name(ABOUT).unlink(missing_ok=True)  # written again when all shards are there
        stated = {"files": {}, "documents": 0, "characters": 0}
        stated |= {split: {"documents": 0, "tokens": 0} for split in SPLITS}
        with ExitStack() as written:
            files = {}
            for split, group in groups(self.known(read_shard(unit.source), tally)):
                if split not in files:
                    path = stem.with_name(f"{split}-{stem.name}")
                    files[split] = [
                        written.enter_context(hashed_file(path.with_suffix(suffix)))
                        for suffix in (".bin", ".idx")
                    ]
                    files[split][1].write(np.zeros(1, OFFSETS).data)
                ids, ends = self.encode(group)
                counts = stated[split]
                files[split][0].write(ids.data)
                files[split][1].write((ends + counts["tokens"]).astype(OFFSETS).data)
                counts["documents"] += len(group)
                stated["characters"] += sum(map(len, group))
                counts["tokens"] += len(ids)
        for split, (ids_file, index) in files.items():
            name = f"{split}-{stem.name}"
            stated["files"][f"{name}.bin"] = ids_file.digest.hexdigest()
            stated["files"][f"{name}.idx"] = index.digest.hexdigest()
        stated["documents"] = sum(stated[split]["documents"] for split in SPLITS)
        return stated

    def known(self, documents: Iterator[Document], tally: Tally) -> Iterator[Document]:
        """The documents of the two splits; others are counted, and left out."""
        for document in documents:
            if document.split in ("", *SPLITS):
                yield document
            else:
                tally.removed("split: neither train nor val", document, document.split)

    def encode(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """The ids of all texts, each with its end (tokens,), and where each ends (texts,).

        No plain text has the end-of-text id in it.
        """
        ids = self.tokenizer.encode_ended(texts)
        return ids, np.flatnonzero(ids == self.tokenizer.eos_token_id) + 1

    def finish(self, manifest: dict, out: Path) -> None:
        """Write tokens.json and the tokenizer, and remove shards that the manifest lacks."""
        entries = manifest["shards"]
        for path in (p for split in SPLITS for p in out.glob(f"{split}-*.*")):
            if not any(path.name in entry["files"] for entry in entries):
                path.unlink()
        self.tokenizer.save(out)
        About(
            vocab_size=self.tokenizer.vocab_size,
            end_of_text=self.tokenizer.eos_token_id,
            tokenizer=vocabulary_hash(self.tokenizer),
            documents={split: sum(e[split]["documents"] for e in entries) for split in SPLITS},
            shards={
                split: {
                    f"{split}-{e['name']}": e[split]["tokens"]
                    for e in entries
                    if e[split]["documents"]
                }
                for split in SPLITS
            },
        ).write(out)


def new_tokenizer(vocab_size: int, folder: str | Path) -> BPETokenizer:
    """A tokenizer of so many ids for these documents."""
    return BPETokenizer.train(sample(folder), vocab_size, special_tokens=[END_OF_TEXT])


def sample(folder: str | Path) -> Iterator[str]:
    """Texts of the documents that are not held out: the first ones of each shard, SAMPLE or so."""
    shards = shards_in(folder)
    for shard in shards:
        left = SAMPLE // len(shards)
        for document in read_shard(shard):
            if document.split != "val":
                yield document.text[: max(left, 0)]
                left -= len(document.text)
            if left <= 0:
                break


def groups(documents: Iterator[Document]) -> Iterator[tuple[str, list[str]]]:
    """(split, texts) of documents that follow each other in one split, GROUP characters or so."""
    for split, own in groupby(documents, lambda document: document.split or "train"):
        texts, size = [], 0
        for document in own:
            texts.append(document.text)
            size += len(document.text)
            if size >= GROUP:
                yield split, texts
                texts, size = [], 0
        if texts:
            yield split, texts
