"""The step "clean": texts are mended, boilerplate is cut, personal data and keys are masked.

A pass over all documents finds the lines that many documents of a site have; then each document is
changed for itself: boilerplate.py, unicode.py, personal.py and secrets.py, in this order.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from gpt.commandline import option

from ..document import Document
from ..shards import read_shard
from ..steps import Step, Unit, Work
from ..tally import Tally
from .boilerplate import Counts, count_lines, cut, frequent
from .masks import masked
from .personal import personal_places
from .secrets import secret_places
from .unicode import mend, tidy


@dataclass
class CleanSettings:
    mend: bool = option(True, "mend text whose encoding was mistaken (needs ftfy)")
    personal: bool = option(
        True, "mask e-mail addresses, telephone, card and account numbers, public IP addresses"
    )
    secrets: bool = option(True, "mask keys, tokens and passwords")
    boilerplate: bool = option(True, "cut lines that many documents of a site have; not in code")
    boilerplate_documents: int = option(10, "how many documents of a site have such a line")
    boilerplate_share: float = option(0.2, "which share of a site's documents has such a line")


class Clean(Step):
    """The step: see the module. Raises ValueError for settings that cannot be."""

    name = "clean"
    libraries = "ftfy regex"
    Settings = CleanSettings

    def __init__(self, settings: CleanSettings):
        super().__init__(settings)
        if settings.boilerplate_documents < 2 or not 0 <= settings.boilerplate_share <= 1:
            raise ValueError(
                "boilerplate_documents is at least 2 and boilerplate_share from 0 to 1, not "
                f"{settings.boilerplate_documents} and {settings.boilerplate_share}"
            )

    def scan(self, units: list[Unit], work: Work) -> None:
        """Count the lines of all sites, and keep those that occur often."""
        if self.settings.boilerplate:
            paths = work.map("lines", units, self.save_counts)
            path = work.once("boilerplate", lambda path: self.save_frequent(paths, path))
            self.table = Counts.load(path)

    def save_counts(self, unit: Unit, path: Path) -> None:
        count_lines(read_shard(unit.source)).save(path)

    def save_frequent(self, paths: list[Path], path: Path) -> None:
        frequent(paths, self.settings.boilerplate_documents).save(path)

    def documents(self, unit: Unit, tally: Tally) -> Iterator[Document]:
        for document in read_shard(unit.source):
            text = self.cleaned(document, tally)
            if text:
                yield replace(document, text=text)
            else:
                tally.removed("empty after cleaning", document)

    def cleaned(self, document: Document, tally: Tally) -> str:
        """The document's text as it is kept, without white space around it."""
        s, text = self.settings, document.text
        if s.boilerplate:
            text, gone = cut(document, self.table, s.boilerplate_documents, s.boilerplate_share)
            tally.changed("boilerplate", document, len(gone), gone[0] if gone else "")
        if s.mend:
            mended = mend(text)
            if mended != text:
                tally.changed("mended encoding", document, 1, first_difference(text, mended))
            text = mended
        text = tidy(document, text, tally).strip("\n")
        places = [
            *(personal_places(text) if s.personal else ()),
            *(secret_places(text) if s.secrets else ()),
        ]
        return masked(document, text, places, tally)


def first_difference(old: str, new: str) -> str:
    """What stands around the first character in which two texts differ, in the old one."""
    where = len(os.path.commonprefix([old, new]))
    return old[max(0, where - 60) : where + 60]
