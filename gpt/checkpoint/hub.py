"""Models of the Hugging Face Hub by name, hf:OWNER/NAME, which are fetched once, checked and kept.

The Hub's API lists the files of a commit with their sizes and hashes. What is to be fetched is
written into the folder first, as fetched.json, and then each file. So a download that was cut off
goes on with files of the same commit, and a model that is all there needs no network. Only weights
in safetensors and the texts beside them are fetched, never pickled files or code.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote, urlsplit

from tqdm import tqdm

from tokenizer.fetch import cache_folder

from .download import ask_json, download, endpoint, part_of
from .files import CONFIG, INDEX, MODEL, read_json, sync_directory, write_json
from .tensors import read_index

NAME = re.compile(r"hf:(\w[\w.-]*/\w[\w.-]*)(?:@(\w[\w./-]*))?", re.ASCII)
WEIGHTS = re.compile(r"\w[\w.-]*\.safetensors", re.ASCII)
PLAN = "fetched.json"
TEXTS = (CONFIG, "generation_config.json", "tokenizer.json", "tokenizer_config.json")
TEXTS += ("special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt")
TEXTS += ("tokenizer.model", "chat_template.jinja")
MOST_PAGES = 100  # of the list of files; a page has up to 1,000


def local_folder(name: str | Path) -> Path:
    """The folder of a model: that of hf:OWNER/NAME once it is fetched, else `name` as a path."""
    return fetch_model(name) if str(name).startswith("hf:") else Path(name)


def fetch_model(name: str, say: Callable[[str], object] = print) -> Path:
    """The folder with the files of hf:OWNER/NAME or hf:OWNER/NAME@REVISION, fetched if need be.

    >>> fetch_model("hf:openai-community/gpt2")  # doctest: +SKIP
    PosixPath('/home/me/.cache/tensorlite/models/openai-community/gpt2')

    REVISION is a branch ("main" unless given), a tag or a commit; a branch stays at the commit
    that was fetched first, until the folder is deleted. The address of the Hub is $HF_ENDPOINT,
    else https://huggingface.co; private and gated models need a token in $HF_TOKEN. A folder that
    holds a configuration and weights, put there by hand, is taken as it is.

    Raises ValueError for another name, for a model without safetensors, and for files that are not
    what the Hub says they are; FileNotFoundError for a model that does not exist; PermissionError
    without the right token; OSError where the disk has too little space; and ConnectionError
    without a network: what has come is kept, and the next call goes on.
    """
    match = NAME.fullmatch(name)
    if not match:
        raise ValueError(f"{name!r} is no model: write hf:OWNER/NAME or hf:OWNER/NAME@REVISION")
    model, revision = match[1], match[2] or "main"
    at = "" if match[2] is None else "@" + quote(revision, safe="")
    folder = cache_folder() / "models" / (model + at)
    plan = read_plan(folder)
    if plan is None:
        whole = (folder / CONFIG).exists() and any((folder / n).exists() for n in (MODEL, INDEX))
    else:
        whole = not lacking(folder, plan["files"])
    if whole:
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with only_process(folder, say):
            plan = read_plan(folder)  # which another process may have written meanwhile
            if plan is None:
                plan = make_plan(model, revision, folder)
                write_json(folder / PLAN, plan)
            files = {n: f | {"url": address_of(plan, n)} for n, f in plan["files"].items()}
            fetch_files(plan["model"], files, folder, say)
    except ConnectionError as error:
        where = f"{endpoint()}/{model}/tree/{plan['commit'] if plan else quote(revision, safe='')}"
        raise ConnectionError(
            f"could not fetch {name}: {error}. Once there is a connection, the same command goes "
            f"on where this one stopped; or put the files of {where} into {folder} by hand"
        ) from error
    return folder


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


# ---- what to fetch -------------------------------------------------------------------------------


def read_plan(folder: Path) -> dict | None:
    """{"model", "commit", "files": {name: {"size", "sha256" or "git"}}}, None where there is none.

    "git" is the hash under which git keeps a small file: SHA-1 of "blob SIZE\\0" and its bytes.
    """
    path = folder / PLAN
    if not path.exists():
        return None
    plan = read_json(path)
    try:
        model, commit, files = str(plan["model"]), plan["commit"], plan["files"]
        known = NAME.fullmatch("hf:" + model) and is_hex(commit, 40)
        if not (known and all(map(is_wanted, files))):
            raise TypeError
        files = {name: checked(name, **file) for name, file in files.items()}
    except (KeyError, TypeError, AttributeError, ValueError):
        raise ValueError(f"{path} is damaged: delete it, to fetch the model again") from None
    return {"model": model, "commit": commit, "files": files}


def make_plan(model: str, revision: str, folder: Path) -> dict:
    """The plan for a revision, as `read_plan` gives it. Fetches the index into the folder."""
    address = f"{endpoint()}/api/models/{model}"
    commit = commit_of(address, revision)
    listed = list_files(f"{address}/tree/{commit}", is_wanted)
    plan = {"model": model, "commit": commit}
    weights = {MODEL}
    if MODEL not in listed and INDEX in listed:
        part_of(folder / INDEX).unlink(missing_ok=True)  # it might be that of another commit
        download(address_of(plan, INDEX), folder / INDEX, listed[INDEX])
        weights = {INDEX, *read_index(folder / INDEX).values()}
    if lost := ({CONFIG} | weights) - listed.keys():
        raise ValueError(
            f"{model} at {revision} lacks {', '.join(sorted(lost)[:5])}: only models with a "
            f"{CONFIG} and weights in the safetensors format are read. Another edition of the "
            "model may have them"
        )
    return plan | {"files": {n: f for n, f in sorted(listed.items()) if n in TEXTS or n in weights}}


def commit_of(address: str, revision: str) -> str:
    """The commit of a branch or tag, by the Hub's API at `address`."""
    about, _ = ask_json(f"{address}/revision/{quote(revision, safe='')}")
    commit = about.get("sha") if isinstance(about, dict) else None
    if not is_hex(commit, 40):
        raise ValueError(f"{address} names no commit for the revision {revision}: {commit!r}")
    return commit


def list_files(url: str | None, wanted: Callable[[str], bool]) -> dict[str, dict]:
    """{path: {"size", "sha256" or "git"}} of the files that are wanted, on all pages."""
    files = {}
    for _ in range(MOST_PAGES):
        entries, following = ask_json(url)
        try:
            for entry in entries:
                path, lfs = entry["path"], entry.get("lfs")
                if entry["type"] == "file" and wanted(path):
                    kind = {"sha256": lfs["oid"]} if lfs else {"git": entry["oid"]}
                    files[path] = checked(path, entry["size"], **kind)
        except (TypeError, KeyError, AttributeError, ValueError):
            raise ValueError(f"{url} lists files in an unknown form") from None
        if following is None:
            return files
        if urlsplit(following)[:2] != urlsplit(url)[:2]:  # it would be sent the token
            raise ValueError(f"{url} continues on another server, {following}")
        url = following
    raise ValueError(f"{url}: the list of files has more than {MOST_PAGES} pages")


def is_wanted(path: str) -> bool:
    """Whether a file could be part of a model that is read. It has no folder in its name."""
    return path in (*TEXTS, INDEX) or bool(WEIGHTS.fullmatch(path))


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


# ---- fetching ------------------------------------------------------------------------------------


def fetch_files(
    title: str,
    files: dict[str, dict],
    folder: Path,
    say: Callable[[str], object],
    hosts: tuple[str, ...] | None = None,
) -> None:
    """Fetch those of the files {name: {"url", "size", a hash}} that the folder lacks.

    `hosts` are those that redirects may lead to: see `SafeRedirects`.
    """
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


def address_of(plan: dict, name: str) -> str:
    return f"{endpoint()}/{plan['model']}/resolve/{plan['commit']}/{name}"
