"""Files that are fetched once, by a plan: what the host says of them is kept beside them.

The plan is fetched.json, which is written into the folder first, with the size and the hash of each
file. So a download that was cut off goes on with the same files, whatever the host has by then, and
what has come is checked against what was stated. hub.py plans models, gpt/data/fetched.py corpora.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from tqdm import tqdm

from .download import download, part_of
from .files import sync_directory

PLAN = "fetched.json"


def fetch_planned(
    name: str,
    folder: Path,
    files: Callable[[], dict[str, dict]],
    where: Callable[[], str],
    say: Callable[[str], object],
    hosts: tuple[str, ...] | None = None,
) -> None:
    """Fetch the files of a plan into a folder; what is there already is not fetched again.

    `files()` is {name: {"url", "size", and a hash}}: it reads the plan in the folder, or makes and
    writes it. `where()` says where a person finds the files. `say` is given what to tell the user.
    `hosts` are those that redirects may lead to: see `SafeRedirects`.

    Raises ConnectionError without a network, which says how to go on; OSError where the disk has
    too little space; and what `files` and `download` raise.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with only_process(folder, say):
            fetch_files(name, files(), folder, say, hosts)
    except ConnectionError as error:
        raise ConnectionError(
            f"could not fetch {name}: {error}. Once there is a connection, the same command goes "
            f"on where this one stopped; or put the files of {where()} into {folder} by hand"
        ) from error


@contextlib.contextmanager
def only_process(folder: Path, say: Callable[[str], object]) -> Iterator[None]:
    """In the block, no other process is in such a block for this folder; it waits until then."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another process, which fetches files into {folder}")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def fetch_files(
    title: str,
    files: dict[str, dict],
    folder: Path,
    say: Callable[[str], object],
    hosts: tuple[str, ...] | None,
) -> None:
    """Fetch those of the files {name: {"url", "size", a hash}} that the folder lacks."""
    total = sum(file["size"] for file in files.values())
    lost = lacking(folder, files)
    parts = (part_of(folder / name) for name in lost)
    begun = sum(part.stat().st_size for part in parts if part.exists())
    needed, free = sum(f["size"] for f in lost.values()) - begun, shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(
            f"{title} needs {needed / 1e6:,.0f} MB more in {folder}, and {free / 1e6:,.0f} MB are "
            "free there. Set TENSORLITE_CACHE to a folder on a larger disk"
        )
    say(f"fetching {title} ({total / 1e6:,.1f} MB) into {folder}")
    bar = tqdm(
        total=total,
        initial=total - needed,
        desc=title,
        unit="B",
        unit_scale=True,
        disable=None,  # no bar where stderr is a file
    )
    with bar:
        for name, file in lost.items():
            download(file["url"], folder / name, file, bar.update, hosts)
    sync_directory(folder)


def checked(
    name: str, size: int, sha256: str | None = None, sha1: str | None = None, git: str | None = None
) -> dict:
    """What is known of a file: its size and one hash. Raises ValueError for what cannot be true."""
    hashes = {"sha256": (sha256, 64), "sha1": (sha1, 40), "git": (git, 40)}
    known = {kind: digest for kind, (digest, n) in hashes.items() if is_hex(digest, n)}
    given = sum(digest is not None for digest, _ in hashes.values())
    if not (type(size) is int and size >= 0 and len(known) == given == 1):
        raise ValueError(f"{name!r}: {size!r} bytes, hash {sha256 or sha1 or git!r}")
    return {"size": size} | known


def is_hex(text: object, length: int) -> bool:
    return isinstance(text, str) and bool(re.fullmatch(f"[0-9a-f]{{{length}}}", text))


def lacking(folder: Path, files: dict[str, dict]) -> dict[str, dict]:
    """Those of the files that are not in the folder with their size."""

    def size(path: Path) -> int | None:
        return path.stat().st_size if path.is_file() else None

    return {n: file for n, file in files.items() if size(folder / n) != file["size"]}
