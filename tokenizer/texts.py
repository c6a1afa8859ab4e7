"""Texts and where they come from: files, folders and iterables, a part at a time.

Down the page: which files of a folder hold text; the text of one file; files and texts divided into
blocks to train on and to encode; and what becomes of a str that UTF-8 cannot hold.
"""

import codecs
import os
import re
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path

SIZE = 2**20  # bytes read at a time
FILE_BLOCK = 2**21  # characters of a file that are read and encoded at a time
HEAD = 2**16  # bytes at the start of a file by which text is recognized
CONTROL = re.compile(
    rb"[\x00-\x06\x0e-\x1a\x1c-\x1f]"
)  # characters that no text has, as file(1) sees it


def text_files(folder: str | os.PathLike, encoding: str = "utf-8") -> list[Path]:
    """The text files of a folder and of the folders in it, in the order of their paths.

    Hidden files and folders are left out. Links to folders are not followed, so that they cannot
    lead in a circle. Files that are not text at all (a picture, an archive) are left out with a
    warning. A text in another encoding is not left out: it raises an error when it is read, since
    otherwise it would be missing.
    """

    def stop(error: OSError):
        raise error  # otherwise os.walk silently leaves out a folder that it may not read

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
    """Whether a file has control characters that no text has.

    If there are any, the file is binary if it cannot be decoded, or if more than one character in
    50 is one: some encodings, such as latin-1, can decode anything, and a text may hold a stray
    one.
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

    Line ends are kept as they are. `advance` is called with the number of bytes at each read.
    Raises ValueError if the file is not text in this encoding; the message says where.
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
                # error.object is what the decoder was given last; it ends at the byte `read`.
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
        "a".encode(encoding)  # also refuses rot13 and hex, which are codecs but not text encodings
        return codecs.getincrementaldecoder(encoding)()
    except LookupError:
        raise ValueError(
            f"there is no text encoding {encoding!r}: --encoding takes Python's names, "
            "utf-8, latin-1 or utf-16 for example"
        ) from None


def file_blocks(
    paths: Path | list[Path],
    cut: Callable[[str, int], int],
    encoding: str = "utf-8",
    whole: Collection[str] = (),
    advance: Callable[[int], object] = lambda n: None,
) -> Iterator[str]:
    """The text of a file, or of several joined by line ends, in blocks of a few megabytes.

    `cut(text, place)` is the first place from `place` on where a text may be divided; its end if
    there is none. No name in `whole` is divided. A byte order mark at the start of a file is
    dropped. `advance` is called with the number of bytes at each read.
    Raises ValueError if a file is not text in this encoding.
    """
    text = ""
    longest = max(map(len, whole), default=0)
    for i, path in enumerate(paths if isinstance(paths, list) else [paths]):
        text += "\n" if i else ""
        for block in decoded(path, encoding, FILE_BLOCK, advance):
            text += block
            if len(text) < FILE_BLOCK:  # several small files make one block
                continue
            end = cut(text, len(text) - len(block) // 2)
            while any(_crosses(name, text, end) for name in whole):
                end = cut(text, end + 1)
            if end + longest < len(text):  # otherwise a name may have been read only in part
                yield text[:end]
                text = text[end:]
    if text:
        yield text


def _crosses(name: str, text: str, end: int) -> bool:
    """Whether an occurrence of `name` in `text` would be divided at the place `end`."""
    return text.find(name, max(end - len(name) + 1, 0), end + len(name) - 1) >= 0


def texts_of(
    texts: str | os.PathLike | Iterable[str | os.PathLike],
    cut: Callable[[str, int], int],
    encoding: str = "utf-8",
) -> Iterator[str]:
    """The texts to train on: each str, and each file or folder given as a Path, in blocks.

    If the first str is also the name of a file, it is still a text, and a warning says so.
    """
    first = True
    for text in [texts] if isinstance(texts, (str, os.PathLike)) else texts:
        if isinstance(text, os.PathLike):
            path = Path(text)
            for file in text_files(path, encoding) if path.is_dir() else [path]:
                yield from file_blocks(file, cut, encoding)
        else:
            if first and isinstance(text, str) and _is_path(text):
                warnings.warn(
                    f"{text!r} is taken as a text to train on, but it is also the name of a file; "
                    f"give Path({text!r}) to train on what the file holds",
                    stacklevel=4,
                )
            yield text
        first = False


def _is_path(text: str) -> bool:
    try:
        return len(text) < 4096 and text.strip("./") != "" and os.path.exists(text)
    except ValueError:  # a NUL in it
        return False


def groups(texts: Iterable[str], size: int) -> Iterator[list[str]]:
    """The texts in lists of about `size` characters, since each message to a process is costly."""
    group, total = [], 0
    for text in texts:
        group.append(replace_surrogates(text))
        total += len(text) + 64  # what an object takes besides its characters
        if total >= size:
            yield group
            group, total = [], 0
    if group:
        yield group


def replace_surrogates(text: str) -> str:
    """`text` in a form that UTF-8 can hold: surrogate pairs joined, lone surrogates as U+FFFD.

    >>> replace_surrogates("a\\ud800")
    'a\\ufffd'

    Surrogates are halves of UTF-16 characters. A str from os.listdir or json.loads may hold them.
    """
    if not isinstance(text, str):
        raise TypeError(f"a text must be a str, not {type(text).__name__}")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
