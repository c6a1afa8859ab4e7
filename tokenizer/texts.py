"""Text files: which files of a folder hold text, and their text, a part at a time."""

import codecs
import os
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

SIZE = 2**20  # bytes read at a time
HEAD = 2**16  # bytes that tell whether a file is text
CONTROL = re.compile(rb"[\x00-\x06\x0e-\x1a\x1c-\x1f]")  # what text has no use for; as file(1)


def text_files(folder: str | os.PathLike, encoding: str = "utf-8") -> list[Path]:
    """The text files of a folder and those in it, in the order of their paths.

    Hidden files and folders are left out. Links to folders are not followed, so there is no going
    round in circles. What is no text at all (a picture, an archive) is left out with a warning; a
    text in another encoding is not, since it would be missed.
    """

    def stop(error: OSError):
        raise error  # os.walk would leave out a folder that it may not read, without a word

    files = []
    for parent, folders, names in os.walk(folder, onerror=stop):
        folders[:] = [name for name in folders if not name.startswith(".")]
        files += [Path(parent, name) for name in names if not name.startswith(".")]
    files = [file for file in files if file.is_file()]  # no sockets, no broken links
    files = sorted(files, key=lambda file: file.relative_to(folder).as_posix())
    other = [file for file in files if _is_binary(file, encoding)]
    if other:
        left_out = set(other)
        names = ", ".join(file.relative_to(folder).as_posix() for file in other[:5])
        warnings.warn(
            f"{len(other)} of the {len(files)} files in {folder} are not text and are left out: "
            f"{names}{', ...' if len(other) > 5 else ''}",
            stacklevel=3,
        )
        return [file for file in files if file not in left_out]
    return files


def _is_binary(path: Path, encoding: str) -> bool:
    """True for a file with bytes that no text has: not in this encoding, or one in 50 of them.

    In some encodings, as latin-1, everything can be decoded; and a text may hold a stray one.
    """
    with open(path, "rb") as file:
        head = file.read(HEAD)
    if not CONTROL.search(head):
        return False
    try:
        text = _decoder(encoding).decode(head)
    except UnicodeError:
        return True
    return 50 * len(CONTROL.findall(text.encode(errors="replace"))) > len(text)


def decoded(
    path: str | os.PathLike,
    encoding: str = "utf-8",
    size: int = SIZE,
    advance: Callable[[int], object] = lambda n: None,
) -> Iterator[str]:
    """The text of a file, `size` bytes at a time, without a byte order mark at its start.

    Line ends are kept as they are. `advance` is told how many bytes have been read.
    Raises ValueError if the file is not text in this encoding; it says where.
    """
    decoder = _decoder(encoding)
    first, read, line = True, 0, 1
    with open(path, "rb") as file:
        while True:
            data = file.read(size)
            read += len(data)
            try:
                block = decoder.decode(data, final=not data)
            except UnicodeDecodeError as error:
                # The decoder was given these bytes last; they end where reading has come to.
                offset = read - len(error.object) + error.start
                before = error.object[: error.start].decode(encoding, errors="replace")
                raise ValueError(
                    f"{path} is not {encoding} text: byte {offset} "
                    f"({error.object[error.start]:#04x}), in line {line + before.count(chr(10))}, "
                    f"does not fit ({error.reason}); name its encoding with --encoding, "
                    "latin-1 or utf-16 for example"
                ) from None
            except UnicodeError as error:  # UTF-16 without a byte order mark
                raise ValueError(
                    f"{path} is not {encoding} text: {error}; name its encoding with --encoding, "
                    f"{encoding}-le for example"
                ) from None
            if block:
                line += block.count("\n")
                yield block.removeprefix("\ufeff") if first else block
                first = False
            if not data:
                return
            advance(len(data))


def read_text(path: str | os.PathLike, encoding: str = "utf-8") -> str:
    """The whole text of a file; see `decoded`."""
    return "".join(decoded(path, encoding))


def _decoder(encoding: str) -> codecs.IncrementalDecoder:
    try:
        "a".encode(encoding)  # refuses rot13 and hex too, which are codecs and no text encodings
        return codecs.getincrementaldecoder(encoding)()
    except LookupError:
        raise ValueError(
            f"there is no text encoding {encoding!r}: --encoding takes Python's names, "
            "utf-8, latin-1 or utf-16 for example"
        ) from None
