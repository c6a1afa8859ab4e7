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
    parts, end, found, places = [], 0, {}, outermost(places)
    for place in places:
        parts += [text[end : place.start], f"<{place.kind}>"]
        end = place.end
        found.setdefault(place.kind, []).append(place)
    for kind, those in found.items():
        tally.changed(f"masked: {kind}", document, len(those), excerpt(text, those[0], places))
    return "".join([*parts, text[end:]]) if found else text


def excerpt(text: str, place: Place, places: Iterable[Place]) -> str:
    """What stands around a place, with the shapes of all `places`: letters as x, digits as 0.

    >>> email, phone = Place(6, 20, "email"), Place(24, 32, "phone")
    >>> excerpt("me at me@example.org or 555-0100", email, [email, phone])
    'me at xx@xxxxxxx.xxx or 000-0000'

    A report that shows what was masked must not tell it.
    """
    first, last = max(0, place.start - 40), min(place.end, place.start + 100) + 40
    shown = list(text[first:last])
    for p in places:
        for i in range(max(p.start, first), min(p.end, last, len(text))):
            c = text[i]
            shown[i - first] = "x" if c.isalpha() else "0" if c.isdigit() else c
    return "".join(shown)
