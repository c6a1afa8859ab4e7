"""Why a file or a record becomes no document, in the words under which it is counted."""

from __future__ import annotations

import errno

from ..tally import Tally


class TooLarge(ValueError):
    """More bytes, characters or levels than are read."""


class NotText(ValueError):
    """Something else than text: a picture, a program."""


class NoText(ValueError):
    """There is no text where it should be."""


MACHINE = {  # what is no fault of a file: disks, open files, memory, a file system far away
    getattr(errno, name)
    for name in "ENOSPC EDQUOT EFBIG EROFS EIO EMFILE ENFILE ENOMEM ESTALE ETIMEDOUT".split()
    if hasattr(errno, name)
}
RULES = {TooLarge: "too large", NotText: "not text", NoText: "no text"}


def count(error: BaseException, source: str, tally: Tally) -> None:
    """Count a file or record that cannot be read, as "damaged" if nothing else is known of it.

    Raises the error again if it is none of the file's: a library is missing, the user stops, or the
    machine lacks what it may have the next time, such as space on a disk.
    """
    # PanicException is what libraries written in Rust raise where they give up; it is no Exception.
    panic = type(error).__name__ == "PanicException"
    machine = isinstance(error, OSError) and error.errno in MACHINE
    machine = machine or isinstance(error, (ImportError, MemoryError))
    if machine or not (isinstance(error, Exception) or panic):
        raise error
    rule = next((RULES[kind] for kind in RULES if isinstance(error, kind)), "damaged")
    tally.failed(rule, source, str(error) or type(error).__name__)
