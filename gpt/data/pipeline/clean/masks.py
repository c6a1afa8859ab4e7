"""Places in a text, each with the mask that is to stand there instead."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from ..document import Document
from ..tally import Tally


class Place(NamedTuple):
    """text[start:end] is of this kind, "email" say, and is masked as <email>."""

    start: int
    end: int
    kind: str


def outermost(places: Iterable[Place]) -> list[Place]:
    """The places in the order of the text, without those that overlap one before, or a longer one
    that starts where they do."""
    kept: list[Place] = []
    for place in sorted(places, key=lambda place: (place.start, -place.end)):
        if not kept or place.start >= kept[-1].end:
            kept.append(place)
    return kept


def masked(document: Document, text: str, places: Iterable[Place], tally: Tally) -> str:
    """The text with a mask in each place. `tally` counts them by kind, without telling them."""
    parts, end, found = [], 0, {}
    for place in outermost(places):
        parts += [text[end : place.start], f"<{place.kind}>"]
        end = place.end
        found.setdefault(place.kind, []).append(place)
    for kind, those in found.items():
        tally.changed(f"masked: {kind}", document, len(those), excerpt(text, those[0]))
    return "".join([*parts, text[end:]]) if found else text


def excerpt(text: str, place: Place) -> str:
    """What stands around a place, and its shape: letters as x, digits as 0.

    >>> excerpt("write to me@example.org", Place(9, 23, "email"))
    'write to xx@xxxxxxx.xxx'

    A report that shows what was masked must not tell it.
    """
    inside = text[place.start : place.end][:100]
    shape = "".join("x" if c.isalpha() else "0" if c.isdigit() else c for c in inside)
    before, after = text[max(0, place.start - 40) : place.start], text[place.end : place.end + 40]
    return f"{before}{shape}{after}"
