"""Why a file or a record becomes no document, in the words under which it is counted."""

from __future__ import annotations

from ..tally import Tally


class TooLarge(ValueError):
    """More bytes, characters or levels than are read."""


class NotText(ValueError):
    """Something else than text: a picture, a program."""


class NoText(ValueError):
    """There is no text where it should be."""


RULES = {TooLarge: "too large", NotText: "not text", NoText: "no text"}


def count(error: BaseException, source: str, tally: Tally) -> None:
    """Count a file or record that cannot be read, as "damaged" if nothing else is known of it.

    Raises the error again if it is none of the file's: a library is missing, or the user stops.
    """
    # PanicException is what libraries written in Rust raise where they give up; it is no Exception.
    panic = type(error).__name__ == "PanicException"
    if isinstance(error, (ImportError, MemoryError)) or not (isinstance(error, Exception) or panic):
        raise error
    rule = next((RULES[kind] for kind in RULES if isinstance(error, kind)), "damaged")
    tally.failed(rule, source, str(error) or type(error).__name__)
