"""Corpora of many millions of words, fetched once by their names, and kept in the cache folder.

    tinystories       stories for small models, in the words of a child of four
    wikitext-103      good and featured articles of Wikipedia
    simple-wikipedia  Wikipedia in simple English, the newest dump
    gutenberg         about 2,600 books of Project Gutenberg
    fineweb-sample    pages of the web: the first file of FineWeb's sample of ten billion tokens

Their hosts state the size and the hash of each file, which is the plan that
gpt/checkpoint/planned.py fetches.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from tokenizer.fetch import cache_folder

from ..checkpoint import read_json, write_json
from ..checkpoint.download import ask_json, ask_page, endpoint, is_safe
from ..checkpoint.hub import commit_of, list_files
from ..checkpoint.planned import PLAN, checked, fetch_planned, lacking

FILE_NAME = re.compile(r"\w[\w.-]*", re.ASCII)
TRIED_DUMPS = 5  # the newest ones: the last may not be complete yet
HUB_HOSTS = ("huggingface.co", "hf.co")  # and those below them, where the Hub keeps large files


@dataclass(frozen=True)
class Corpus:
    """What is known of a corpus before it is fetched.

    `home` is the page that describes it, `megabytes` about how much is fetched, `files()` asks the
    host for {name: {"url", "size", and a hash}}, `hosts` are those that the host may redirect to,
    and `settings` are those of the step `extract`.
    """

    home: str
    licence: str
    megabytes: int
    files: Callable[[], dict[str, dict]]
    hosts: tuple[str, ...] = ()
    settings: dict[str, str | bool] = field(default_factory=dict)


# ---- what the hosts have -------------------------------------------------------------------------


def hub_files(name: str, folder: str, wanted: str, most: int = 100) -> dict[str, dict]:
    """The files of a data set of the Hugging Face Hub, at the commit where its branch main is now.

    They are the first `most` by their names of those in `folder` whose names match the regular
    expression `wanted`. Files of a commit never change. Raises ValueError where there are none, and
    as `ask` does.
    """
    prefix = f"{folder}/" if folder else ""

    def is_wanted(path: str) -> bool:
        return path.startswith(prefix) and bool(re.fullmatch(wanted, path.removeprefix(prefix)))

    address = f"{endpoint()}/api/datasets/{name}"
    commit = commit_of(address, "main")
    listed = list_files(f"{address}/tree/{commit}" + (f"/{folder}" if folder else ""), is_wanted)
    if not listed:
        raise ValueError(f"{address} has no files {prefix}{wanted} at the commit {commit}")
    base = f"{endpoint()}/datasets/{name}/resolve/{commit}/"
    return {
        path.removeprefix(prefix): file | {"url": base + quote(path)}
        for path, file in sorted(listed.items())[:most]
    }


def wikimedia() -> str:
    """The address of Wikimedia's dumps, $WIKIMEDIA_ENDPOINT where that is set."""
    url = os.environ.get("WIKIMEDIA_ENDPOINT", "").rstrip("/") or "https://dumps.wikimedia.org"
    if not is_safe(url):
        raise ValueError(f"WIKIMEDIA_ENDPOINT is {url!r}: it must begin with https://")
    return url


def dump_files(wiki: str) -> dict[str, dict]:
    """The articles of a wiki in its newest dump that is complete.

    The page of a wiki links to its dumps by their dates, and dumpstatus.json in the folder of a
    dump states each file's size and SHA-1. Raises ValueError where no dump has the articles, and as
    `ask` does.
    """
    page, _ = ask_page(f"{wikimedia()}/{wiki}/")
    dates = sorted(set(re.findall(rb'href="(\d{8})/?"', page)), reverse=True)
    for date in [date.decode() for date in dates[:TRIED_DUMPS]]:
        folder, name = f"{wikimedia()}/{wiki}/{date}", f"{wiki}-{date}-pages-articles.xml.bz2"
        try:
            status, _ = ask_json(f"{folder}/dumpstatus.json")
        except FileNotFoundError:
            continue
        try:
            for job in status["jobs"].values():
                if job["status"] == "done" and (file := job.get("files", {}).get(name)):
                    known = checked(name, file["size"], sha1=file["sha1"])
                    return {name: known | {"url": f"{folder}/{name}"}}
        except (TypeError, KeyError, AttributeError, ValueError):
            raise ValueError(f"{folder}/dumpstatus.json has an unknown form") from None
    raise ValueError(f"{wikimedia()}/{wiki}/ has no complete dump of the articles")


FETCHED = {
    # Eldan and Li, 2023: the second version, all of whose stories GPT-4 wrote.
    "tinystories": Corpus(
        "https://huggingface.co/datasets/roneneldan/TinyStories",
        "CDLA-Sharing-1.0",
        2_250,
        lambda: hub_files("roneneldan/TinyStories", "", r"TinyStoriesV2-GPT4-\w+\.txt"),
        HUB_HOSTS,
        {"identify": False, "separator": "<|endoftext|>"},
    ),
    # WikiText-103 of Merity et al., 2016, before rare words were replaced; a row is an article.
    "wikitext-103": Corpus(
        "https://huggingface.co/datasets/EleutherAI/wikitext_document_level",
        "CC-BY-SA-3.0",
        306,
        lambda: hub_files(
            "EleutherAI/wikitext_document_level", "wikitext-103-raw-v1", r"[\w-]+\.parquet"
        ),
        HUB_HOSTS,
        {"text_column": "page", "identify": False},
    ),
    "simple-wikipedia": Corpus(
        "https://dumps.wikimedia.org/simplewiki/",
        "CC-BY-SA-4.0",
        330,
        lambda: dump_files("simplewiki"),
        settings={"identify": False},
    ),
    # Project Gutenberg blocks programs that fetch from its own site: this copy is made for them.
    "gutenberg": Corpus(
        "https://huggingface.co/datasets/sedthh/gutenberg_english",
        "public domain in the USA",
        680,
        lambda: hub_files("sedthh/gutenberg_english", "data", r"train-[\w-]+\.parquet", 2),
        HUB_HOSTS,
        {"text_column": "TEXT", "identify": False},
    ),
    # The first file of FineWeb's sample-10BT; Penedo et al., 2024.
    "fineweb-sample": Corpus(
        "https://huggingface.co/datasets/HuggingFaceFW/fineweb",
        "ODC-By-1.0",
        2_150,
        lambda: hub_files("HuggingFaceFW/fineweb", "sample/10BT", r"\d+_\d+\.parquet", 1),
        HUB_HOSTS,
        {"identify": False},  # a column has it
    ),
}


# ---- fetching ------------------------------------------------------------------------------------


def fetch_corpus(name: str, say: Callable[[str], object] = print) -> Path:
    """The folder with the files of a corpus, fetched if need be.

    >>> fetch_corpus("tinystories")  # doctest: +SKIP
    PosixPath('/home/me/.cache/tensorlite/corpora/tinystories/raw')

    A folder that holds files which were put there by hand is taken as it is. `say` is given what to
    tell the user: the size, and the licence once all has come.

    Raises ValueError for another name, and for files that are not what the host says they are;
    OSError where the disk has too little space; FileNotFoundError where the host has the files no
    more; and ConnectionError without a network: what has come is kept, and the next call goes on.
    """
    if name not in FETCHED:
        raise ValueError(f"{name!r} is no corpus that is fetched: {', '.join(FETCHED)} are")
    corpus, folder = FETCHED[name], cache_folder() / "corpora" / name / "raw"
    if is_whole(folder):
        return folder

    def files() -> dict[str, dict]:
        files = read_plan(folder)  # which another process may have written meanwhile
        if files is None:
            files = corpus.files()
            write_json(folder / PLAN, {"corpus": name, "files": files})
        return files

    def where() -> str:
        return f"{corpus.home} (about {corpus.megabytes:,} MB)"

    try:
        fetch_planned(name, folder, files, where, say, corpus.hosts)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"could not fetch {name}: {error}. Delete {folder} to begin again with what "
            f"{corpus.home} has now"
        ) from error
    say(f"{name} is under the licence {corpus.licence}: see {corpus.home}")
    return folder


def is_whole(folder: Path) -> bool:
    """Whether a folder has all files of its plan, or has files and no plan: put there by hand."""
    files = read_plan(folder)
    if files is None:
        return folder.is_dir() and any(p.suffix != ".part" for p in folder.glob("[!.]*"))
    return not lacking(folder, files)


def read_plan(folder: Path) -> dict[str, dict] | None:
    """{name: {"url", "size", and a hash}}; None where nothing was fetched. Raises ValueError."""
    path = folder / PLAN
    if not path.exists():
        return None
    try:
        files = {}
        for name, file in read_json(path)["files"].items():
            url = file.pop("url")
            if not (FILE_NAME.fullmatch(name) and is_safe(url)):
                raise ValueError
            files[name] = checked(name, **file) | {"url": url}
    except (KeyError, TypeError, AttributeError, ValueError):
        raise ValueError(f"{path} is damaged: delete it, to fetch the corpus again") from None
    return files
