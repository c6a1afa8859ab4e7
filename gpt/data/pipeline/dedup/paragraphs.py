"""Paragraphs that have been seen before are cut out: the first stays.

As in CCNet (Wenzek et al., 2020, section 3.1) they are compared by 64 bits of a hash. There, a
paragraph is a line; here, it is what stands between blank lines, since a part of all texts is
broken into lines of equal length.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from .exact import text_hash

BLANK = re.compile(r"(\n\s*\n)")


def paragraph_hashes(text: str, least: int) -> list[int]:
    """Hashes of the paragraphs of at least this many characters, in their order."""
    return [text_hash(p) for p in BLANK.split(text)[::2] if len(p) >= least]


def cut_paragraphs(text: str, least: int, seen: Iterable[bool]) -> tuple[str, list[str]]:
    """The text without the paragraphs that were seen before, and these.

    `seen` says it of each paragraph of at least `least` characters.

    >>> cut_paragraphs("One.\\n\\nTwo.\\n\\nThree.", 1, [False, True, False])
    ('One.\\n\\nThree.', ['Two.'])
    """
    seen, pieces, kept, cut = iter(seen), BLANK.split(text), [], []
    for paragraph, before in zip(pieces[::2], ["", *pieces[1::2]]):
        if len(paragraph) >= least and next(seen):
            cut.append(paragraph)
        else:
            kept += [before, paragraph] if kept else [paragraph]
    return "".join(kept), cut
