"""Files fetched once, checked by their SHA-256, and kept for the next time."""

import hashlib
import http.client
import os
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path

from .files import write_atomic


def cache_folder() -> Path:
    """The folder where fetched files are kept; it may not exist yet."""
    if folder := os.environ.get("TENSORLITE_CACHE"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tensorlite"


def fetch(
    url: str,
    sha256: str,
    path: Path,
    *,
    max_bytes: int = 16 * 2**20,
    timeout: float = 30.0,
) -> bytes:
    """The file with this SHA-256 (in hex): from `path`, or else from `url` and kept at `path`.

    A damaged file at `path` is fetched again, and replaced only by the right one. An answer of more
    than max_bytes is refused. The connection may be silent for `timeout` seconds, and the whole
    download may take ten times as long.
    Raises ConnectionError, which says what failed and what to do.
    """
    damaged = ""
    with suppress(FileNotFoundError):
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() == sha256:
            return data
        damaged = f"{path} ({len(data)} bytes) is damaged: its SHA-256 is not {sha256}. A new one: "
    try:
        data = _download(url, max_bytes, timeout)
        if (digest := hashlib.sha256(data).hexdigest()) != sha256:
            raise ValueError(
                f"the answer ({len(data)} bytes) has SHA-256 {digest}, and the file has {sha256}"
            )
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise ConnectionError(
            f"{damaged}could not fetch {url}: {reason(error)}. Download that file by hand, "
            f"once there is a connection, and put it at {path}"
        ) from error
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, data)
    return data


def reason(error: Exception) -> object:
    """What an error says. A bare URLError is a wrapper: its reason says it better."""
    return error.reason if type(error) is urllib.error.URLError else error


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """urllib follows redirects to any host without a word; no address but ours is fetched."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        fp.close()
        raise urllib.error.URLError(f"redirected to {newurl}, and redirects are not followed")


def _download(url: str, max_bytes: int, timeout: float) -> bytes:
    deadline = time.monotonic() + 10 * timeout  # since `timeout` bounds only each wait
    data = bytearray()
    try:
        with urllib.request.build_opener(_NoRedirect).open(url, timeout=timeout) as answer:
            while chunk := answer.read1(2**16):
                data += chunk
                if len(data) > max_bytes:
                    raise ValueError(f"the answer is longer than {max_bytes} bytes")
                if time.monotonic() > deadline:
                    raise TimeoutError(f"still not complete after {10 * timeout:.0f} seconds")
    except urllib.error.HTTPError as error:
        error.close()  # it holds the connection
        raise
    return bytes(data)
