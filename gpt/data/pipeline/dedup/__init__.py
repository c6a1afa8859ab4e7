"""The step `dedup`: documents, paragraphs and long substrings stay where they are met first.

exact.py finds copies, minhash.py texts that are nearly equal. repeats.py and components.py make
groups of them, across all shards and ranks. paragraphs.py and substrings.py look within the texts
that are left.

Documents are numbered in the order of the shards and of the lines in them, and the smallest number
of a group survives. So the result does not depend on who does which part of the work, or when.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gpt.commandline import option

from ..arrays import open_array, save
from ..document import Document
from ..shards import read_shard
from ..steps import Step, Unit, Work
from ..tally import Tally
from .components import join
from .exact import text_hash
from .minhash import MinHash, error_probabilities, found_probability, threshold
from .paragraphs import cut_paragraphs, paragraph_hashes
from .repeats import find_repeats, seen_before
from .substrings import END, check_size, code_points, cut_characters, repeated_within


@dataclass
class Settings:
    """What counts as seen before. Raises ValueError for values that cannot work."""

    near: bool = option(True, "leave out near-duplicates too, not copies only")
    shingle: str = option("words", "near-duplicates have the same sequences of: words, characters")
    n: int = option(5, "words or characters in a sequence")
    bands: int = option(14, "bands of the MinHash signature; more find less similar texts too")
    rows: int = option(8, "numbers in a band; with more of them texts must be more similar")
    paragraphs: int = option(
        0, "cut out paragraphs seen before, from this many characters; 0: none"
    )
    substrings: int = option(
        0, "cut out whatever was seen before, from this many characters; 0: none; 200 is usual"
    )
    mark: bool = option(False, "keep duplicates too, with the `group` of the document they repeat")

    def __post_init__(self):
        for name in ("paragraphs", "substrings"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it is a length, or 0 for none")


class Dedup(Step):
    """Documents that repeat an earlier one are left out, and so are parts of texts on demand.

    The survivor of a group, and with `mark` each of its documents, gets its `group`: the hash of
    the survivor's text.
    """

    name = "dedup"
    Settings = Settings

    def __init__(self, settings: Settings):
        super().__init__(settings)
        self.minhash = MinHash(settings.bands, settings.rows, settings.n, settings.shingle)

    def scan(self, units: list[Unit], work: Work) -> None:
        self.scan_documents(units, work)
        if self.settings.paragraphs:
            self.scan_paragraphs(units, work)
        if self.settings.substrings:
            self.scan_substrings(units, work)

    # ---- whole documents ----

    def scan_documents(self, units: list[Unit], work: Work) -> None:
        keys = work.map("keys", units, self.write_keys)
        found = find_repeats("keys-seen", keys, units, work)
        self.keys = dict(zip(names(units), keys))
        self.groups = open_array(work.once("groups", lambda path: write_groups(path, keys, found)))
        self.numbers = places(units, keys)

    def write_keys(self, unit: Unit, path: Path) -> None:
        """uint64 (1 + bands, documents): the hash of each text, then those of its bands."""
        rows = 1 + self.settings.bands * self.settings.near
        columns = [np.empty((rows, 0), np.uint64)]
        for document in read_shard(unit.source):
            column = np.full((rows, 1), text_hash(document.text), np.uint64)
            if self.settings.near and (keys := self.minhash.keys(document.text)) is not None:
                column[1:, 0] = keys  # a text without words keeps its hash: it has only copies
            columns.append(column)
        save(path, np.concatenate(columns, axis=1))

    def survivors(self, unit: Unit, tally: Tally) -> Iterator[Document]:
        """The unit's documents that are first in their groups; with `mark`, all."""
        numbers = self.numbers[unit.name]
        first, group = self.groups[:, numbers.start : numbers.stop].tolist()
        exact = open_array(self.keys[unit.name])[0].tolist()
        for k, document in enumerate(read_shard(unit.source)):
            if first[k] == numbers[k] or self.settings.mark:
                document.group = f"{group[k]:016x}"
                yield document
            else:
                tally.removed("exact copy" if exact[k] == group[k] else "near-duplicate", document)

    # ---- parts of texts ----

    def scan_paragraphs(self, units: list[Unit], work: Work) -> None:
        def write(unit: Unit, path: Path) -> None:
            hashes = []
            for document in self.survivors(unit, Tally()):
                hashes += paragraph_hashes(document.text, self.settings.paragraphs)
            save(path, np.array([hashes], np.uint64))

        hashes = work.map("paragraphs", units, write)
        self.paragraphs = places(units, hashes)
        self.paragraphs_seen = find_repeats("paragraphs-seen", hashes, units, work)

    def without_paragraphs(self, unit: Unit, tally: Tally) -> Iterator[Document]:
        """The survivors, without the paragraphs that were seen before."""
        if not self.settings.paragraphs:
            yield from self.survivors(unit, tally)
            return
        seen = iter(seen_before(self.paragraphs_seen, self.paragraphs[unit.name]).tolist())
        for document in self.survivors(unit, tally):
            text, cut = cut_paragraphs(document.text, self.settings.paragraphs, seen)
            tally.changed("paragraph seen before", document, len(cut), "".join(cut[:1]))
            document.text = text
            yield document

    def scan_substrings(self, units: list[Unit], work: Work) -> None:
        def write(unit: Unit, path: Path) -> None:
            texts, size = [np.empty(0, np.uint32)], 0
            for document in self.without_paragraphs(unit, Tally()):
                texts += [code_points(document.text), np.array([END], np.uint32)]
                check_size(size := size + len(document.text))
            save(path, np.concatenate(texts)[None])

        def find(path: Path) -> None:
            text = np.concatenate([open_array(file)[0] for file in texts])
            save(path, repeated_within(text, self.settings.substrings))

        texts = work.map("texts", units, write)
        self.characters = places(units, texts)
        check_size(sum(map(len, self.characters.values())))
        self.repeated = open_array(work.once("substrings", find))

    def documents(self, unit: Unit, tally: Tally) -> Iterator[Document]:
        """What is left of a unit."""
        at = self.characters[unit.name].start if self.settings.substrings else 0
        for document in self.without_paragraphs(unit, tally):
            if self.settings.substrings:
                end = at + len(document.text)
                text, cut = cut_characters(document.text, self.repeated[at:end])
                tally.changed("substring seen before", document, len(cut), "".join(cut[:1]))
                document.text, at = text, end + 1
            if document.text or not (self.settings.paragraphs or self.settings.substrings):
                yield document
            else:
                tally.removed("all of it seen before", document)

    def finish(self, manifest: dict, out: Path) -> None:
        """State in the manifest what share of near-duplicates is found, by their similarity."""
        if self.settings.near:
            shape = self.settings.bands, self.settings.rows
            found, missed = error_probabilities(*shape)
            manifest["near_duplicates"] = {
                "threshold": round(threshold(*shape), 4),
                "found_below_threshold": round(found, 4),
                "missed_above_threshold": round(missed, 4),
                "found_by_similarity": {
                    str(s): round(found_probability(s, *shape), 4)
                    for s in (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
                },
            }


def names(units: list[Unit]) -> list[str]:
    return [unit.name for unit in units]


def places(units: list[Unit], paths: list[Path]) -> dict[str, range]:
    """Which numbers the columns of each unit's array have, if those of all units are numbered."""
    ends = np.cumsum([open_array(path).shape[1] for path in paths]).tolist()
    return dict(zip(names(units), map(range, [0, *ends], ends)))


def write_groups(path: Path, keys: list[Path], found: list[Path]) -> None:
    """uint64 (2, documents): the first of each document's group, and the hash of its text."""
    exact = np.concatenate([open_array(file)[0] for file in keys])
    labels = np.arange(len(exact))
    for file in found:
        labels = join(labels, *open_array(file))
    save(path, np.stack([labels.astype(np.uint64), exact[labels]]))
