"""The step `split`: which documents are for training, and which are held out for validation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b

from gpt.commandline import option

from .document import Document
from .shards import read_shard
from .steps import Step, Unit
from .tally import Tally


@dataclass
class Settings:
    """How much is held out. Raises ValueError for a share that is none."""

    val_fraction: float = option(0.01, "share of documents, or of groups of them, for validation")
    seed: int = option(1, "another one holds out other documents")

    def __post_init__(self):
        if not 0 <= self.val_fraction <= 1:
            raise ValueError(f"val_fraction is {self.val_fraction}; it is a share between 0 and 1")


class Split(Step):
    """Sets the `split` of each document by a hash of its group, or of its text without one.

    So all near-duplicates that `dedup` put in a group are on the same side, and a document is on
    the same side in a larger corpus.
    """

    name = "split"
    Settings = Settings

    def documents(self, unit: Unit, tally: Tally) -> Iterator[Document]:
        for document in read_shard(unit.source):
            held_out = share_of(document, self.settings.seed) < self.settings.val_fraction
            document.split = "val" if held_out else "train"
            tally.changed("held out for validation", document, int(held_out))
            yield document


def share_of(document: Document, seed: int) -> float:
    """A number in [0, 1), which is uniform over groups: 53 bits of a hash."""
    named = f"group {document.group}" if document.group else f"text {document.text}"
    encoded = f"{seed} {named}".encode("utf-8", "surrogatepass")
    return (int.from_bytes(blake2b(encoded, digest_size=8).digest(), "little") >> 11) / 2**53
