"""Models of the Hugging Face Hub by name, hf:OWNER/NAME, which are fetched once, checked and kept.

The Hub's API lists the files of a commit with their sizes and hashes, which is the plan that
planned.py fetches. So a download that was cut off goes on with files of the same commit, and a
model that is all there needs no network. Only weights in safetensors and the texts beside them are
fetched, never pickled files or code.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote, urlsplit

from tokenizer.fetch import cache_folder

from .download import ask_json, download, endpoint, part_of
from .files import CONFIG, INDEX, MODEL, read_json, write_json
from .planned import PLAN, checked, fetch_planned, is_hex, lacking
from .tensors import read_index

NAME = re.compile(r"hf:(\w[\w.-]*/\w[\w.-]*)(?:@(\w[\w./-]*))?", re.ASCII)
WEIGHTS = re.compile(r"\w[\w.-]*\.safetensors", re.ASCII)
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

    def files() -> dict[str, dict]:
        plan = read_plan(folder)  # which another process may have written meanwhile
        if plan is None:
            plan = make_plan(model, revision, folder)
            write_json(folder / PLAN, plan)
        return {n: f | {"url": address_of(plan, n)} for n, f in plan["files"].items()}

    def where() -> str:
        plan = read_plan(folder)
        return f"{endpoint()}/{model}/tree/{plan['commit'] if plan else quote(revision, safe='')}"

    fetch_planned(name, folder, files, where, say)
    return folder


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


def address_of(plan: dict, name: str) -> str:
    return f"{endpoint()}/{plan['model']}/resolve/{plan['commit']}/{name}"
