"""Which files are read, and which of them make one shard."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..steps import Unit
from .licences import LICENCE_FILE

SYSTEM_DOCS = Path("/usr/share")


@dataclass(frozen=True, slots=True)
class File:
    """A file to read: its path, its name as a source, its bytes and time of change in ns.

    `licence` is the file that states its licence, beside it or in a folder above; "" without one.
    There may be millions: one takes about 600 bytes.
    """

    path: str
    source: str
    size: int
    time: int
    licence: str = ""


def units_of(inputs: list[str], shard_bytes: int) -> list[Unit]:
    """The files of some folders, and files by name, in units of about `shard_bytes` each.

    Files are in the order of their paths. One larger than `shard_bytes` is a unit of its own.
    A file's source is its path below the folder that all inputs have in common.

    Raises FileNotFoundError for an input that is not there.
    """
    for name in inputs:
        if not os.path.exists(name):
            raise FileNotFoundError(f"there is no file or folder {name} to read")
    roots = [Path(os.path.abspath(name)) for name in inputs]
    base = Path(os.path.commonpath([r if r.is_dir() else r.parent for r in roots]))
    files = {file.path: file for root in roots for file in files_below(root, base)}
    groups: list[list[File]] = []
    room = 0  # bytes that the last group may still get
    for path in sorted(files, key=lambda path: path.replace(os.sep, "/")):
        file = files[path]
        if file.size > room:
            groups.append([])
            room = shard_bytes
        groups[-1].append(file)
        room -= file.size
    return [
        Unit(f"{number:05d}", _key(group), sum(file.size for file in group), group)
        for number, group in enumerate(groups)
    ]


def _key(files: Iterable[File]) -> str:
    digest = hashlib.sha256()
    for file in files:
        licence = os.stat(file.licence).st_mtime_ns if file.licence else 0
        digest.update(f"{file.source}\0{file.size}\0{file.time}\0{licence}\0".encode())
    return digest.hexdigest()


def files_below(root: Path, base: Path) -> Iterator[File]:
    """The regular files of a folder and of the folders in it, or the one file that `root` is.

    Hidden files and folders are left out, and Python's __pycache__. Links are not followed: where
    they lead within the folder, the file is read anyway, and what is outside was not asked for.
    """
    if root.is_file():
        yield _file(str(root), str(base), root.stat(), "")
        return
    licences = {}  # folder -> the file that states its licence

    def stop(error: OSError):
        raise error  # otherwise os.walk silently leaves out a folder that it may not read

    for folder, folders, names in os.walk(root, onerror=stop):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__")))
        named = (name for name in names if LICENCE_FILE.fullmatch(name))
        beside = sorted((n for n in named if os.path.isfile(os.path.join(folder, n))), key=_rank)
        above = licences.get(os.path.dirname(folder), "")
        licences[folder] = os.path.join(folder, beside[0]) if beside else above
        for name in names:
            path = os.path.join(folder, name)
            status = os.lstat(path)
            if not name.startswith(".") and stat.S_ISREG(status.st_mode):
                yield _file(path, str(base), status, licences[folder])


def _rank(name: str) -> tuple[bool, str]:
    return not name.lower().startswith(("licen", "copying")), name  # COPYRIGHT often only thanks


def _file(path: str, base: str, status: os.stat_result, licence: str) -> File:
    source = os.path.relpath(path, base).replace(os.sep, "/")
    source = os.fsencode(source).decode("utf-8", "replace")
    return File(path, source, status.st_size, status.st_mtime_ns, licence)


def system_docs_inputs() -> list[Path]:
    """The folders of documentation that this machine has: man pages, and what packages bring.

    The latter includes Python's own where the package with its pages is installed. An empty list
    where there are none, as on Windows.
    """
    folders = [SYSTEM_DOCS / name for name in ("doc", "info", "man")]
    return [folder for folder in folders if folder.is_dir()]
