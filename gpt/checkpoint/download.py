"""Large files fetched over HTTP: resumed where they were cut off, and checked by size and hash.

A file grows under the name FILE.part and is renamed when it is whole and its hash is right. Small
files whose hash the program knows are fetched by `tokenizer.fetch`.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urljoin, urlsplit

from tokenizer.fetch import reason

TRIES = 5  # in succession that bring nothing
WAIT = 1.0  # seconds before the second try; each time twice as long
TIMEOUT = 30.0  # seconds of silence on a connection
LONGEST_PAGE = 2**24  # bytes


def download(
    url: str,
    path: Path,
    file: dict,
    progress: Callable[[int], object] = lambda n: None,
    hosts: tuple[str, ...] | None = None,
) -> None:
    """Fetch a file to `path`, going on with what there is of it.

    `file` is {"size": bytes, "sha256": hex}, or has the hash "sha1", or "git", under which git
    keeps a file: SHA-1 of "blob SIZE\\0" and its bytes. `progress` is told how many bytes have
    come, a negative number where it begins again. `hosts`: see `SafeRedirects`. Raises ValueError
    for another size or hash, ConnectionError where several tries in succession bring nothing,
    FileNotFoundError and PermissionError.
    """
    part, tries, furthest = part_of(path), 0, 0
    part.touch()
    while (have := part.stat().st_size) != file["size"]:
        tries, furthest = (0, have) if have > furthest else (tries, furthest)
        try:
            append(url, part, file["size"], progress, hosts)
        except ConnectionError:
            tries += 1
            if tries == TRIES and part.stat().st_size <= furthest:
                raise
            time.sleep(WAIT * 2 ** (tries - 1))
    kind = next(kind for kind in ("sha256", "sha1", "git") if kind in file)
    begin = b"blob %d\0" % file["size"] if kind == "git" else b""
    with open(part, "rb+") as content:
        start = hashlib.sha256 if kind == "sha256" else hashlib.sha1
        digest = hashlib.file_digest(content, lambda: start(begin, usedforsecurity=False))
        digest = digest.hexdigest()
        os.fsync(content.fileno())
    if digest != file[kind]:
        part.unlink()
        raise ValueError(
            f"{url} is not the file that is listed: its {kind} hash is {digest}, and not "
            f"{file[kind]}. What had come of it is deleted; try again"
        )
    os.replace(part, path)


def append(
    url: str, part: Path, size: int, progress: Callable, hosts: tuple[str, ...] | None
) -> None:
    """Fetch what is missing of a file of `size` bytes; begin again where the server does.

    Raises ConnectionError where the connection ends before, and ValueError for another size.
    """
    have = part.stat().st_size
    start = have if have < size else 0
    with ask(url, start, hosts) as answer:
        if start and answer.status == 206:
            if (given := answer.headers["Content-Range"]) != f"bytes {start}-{size - 1}/{size}":
                part.write_bytes(b"")  # ask for all of it the next time
                progress(-have)
                raise ConnectionError(f"{url} gave {given!r} where it was asked for {start}-")
        elif answer.status == 200:
            start = 0
        else:
            raise ConnectionError(f"{url} answered with the status {answer.status}")
        length = answer.headers["Content-Length"]
        if length is not None and length != str(size - start):
            raise ValueError(f"{url} has {length} bytes, where {size - start} are listed")
        progress(start - have)
        with open(part, "ab" if start else "wb") as file:
            while chunk := read(answer):
                start += len(chunk)
                if start > size:
                    raise ValueError(f"{url} is longer than the {size} bytes that are listed")
                file.write(chunk)
                progress(len(chunk))
    if start < size:
        raise ConnectionError(f"the connection to {url} ended after {start} of {size} bytes")


def part_of(path: Path) -> Path:
    return path.with_name(path.name + ".part")


# ---- requests ------------------------------------------------------------------------------------


def is_safe(url: str) -> bool:
    """Whether nobody can read along: https, or http that does not leave this machine."""
    parts = urlsplit(url)
    alone = parts.scheme == "http" and parts.hostname in ("127.0.0.1", "::1", "localhost")
    return bool(parts.scheme == "https" and parts.hostname) or alone


def endpoint() -> str:
    """The address of the Hub. Raises ValueError for one that could be listened to."""
    url = os.environ.get("HF_ENDPOINT", "").rstrip("/") or "https://huggingface.co"
    if not is_safe(url):
        raise ValueError(f"HF_ENDPOINT is {url!r}: it must begin with https://")
    return url


class SafeRedirects(urllib.request.HTTPRedirectHandler):
    """urllib follows redirects to any address; these are as safe as the address that was asked.

    They lead to the host that was asked, to `hosts` and hosts below them, or anywhere where that is
    None. The token goes to the host that was asked and to no other.
    """

    def __init__(self, hosts: tuple[str, ...] | None = None):
        self.hosts = hosts

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        here, there = urlsplit(req.full_url), urlsplit(newurl)
        allowed = self.hosts is None or here.netloc == there.netloc
        allowed = allowed or f".{there.hostname}".endswith(tuple(f".{h}" for h in self.hosts))
        if not (allowed and is_safe(newurl) and here.scheme == there.scheme):
            fp.close()
            raise urllib.error.URLError(f"redirected to {newurl}, which is not followed")
        request = super().redirect_request(req, fp, code, msg, headers, newurl)
        token = req.unredirected_hdrs.get("Authorization")
        if request and token and here.netloc == there.netloc:
            request.add_unredirected_header("Authorization", token)
        return request


def ask(url: str, start: int = 0, hosts: tuple[str, ...] | None = None) -> http.client.HTTPResponse:
    """The answer to a GET request for a file from byte `start` on.

    The Hub, and no other host, is sent the token $HF_TOKEN. Raises FileNotFoundError,
    PermissionError, and ConnectionError for every other failure.
    """
    request = urllib.request.Request(url, headers={"User-Agent": "tensorlite"})
    if start:
        request.add_header("Range", f"bytes={start}-")
    token = os.environ.get("HF_TOKEN", "").strip()
    if token and urlsplit(url)[:2] == urlsplit(endpoint())[:2]:
        if not (token.isascii() and token.isprintable()):
            raise ValueError("HF_TOKEN is no token: it holds characters that no token has")
        request.add_unredirected_header("Authorization", f"Bearer {token}")
    try:
        return urllib.request.build_opener(SafeRedirects(hosts)).open(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()  # it holds the connection
        if error.code == 404:
            raise FileNotFoundError(
                f"there is no such model, data set, revision or file: {url}"
            ) from None
        if error.code in (401, 403):
            raise PermissionError(
                f"{url}: {error}. It does not exist, or it is private or gated: set HF_TOKEN to "
                "the token of an account that may read it"
            ) from None
        raise ConnectionError(f"{url}: {error}") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise ConnectionError(f"{url}: {reason(error)}") from error


def read(answer: http.client.HTTPResponse) -> bytes:
    """The next bytes of an answer, b"" at its end. Raises ConnectionError."""
    try:
        return answer.read1(2**20)
    except (OSError, http.client.HTTPException) as error:
        raise ConnectionError(f"{answer.url}: {error!r}") from error


def ask_page(url: str) -> tuple[bytes, str | None]:
    """The page at an address, and the address of the one that follows, or None."""
    data = bytearray()
    with ask(url, hosts=()) as answer:  # hashes come from the host that was asked
        while chunk := read(answer):
            data += chunk
            if len(data) > LONGEST_PAGE:
                raise ConnectionError(f"{url} answered with more than {LONGEST_PAGE} bytes")
        link = re.search(r'<([^>]*)>[^,<]*;\s*rel="?next\b', answer.headers["Link"] or "")
    return bytes(data), urljoin(url, link[1]) if link else None


def ask_json(url: str) -> tuple[object, str | None]:
    """The JSON at an address, and the address of the page that follows, or None."""
    data, following = ask_page(url)
    try:
        return json.loads(data), following
    except (ValueError, RecursionError):
        raise ConnectionError(f"{url} answered with something that is not JSON") from None
