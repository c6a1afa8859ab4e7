"""A server on the loopback address that answers as the Hugging Face Hub does, for tests."""

import hashlib
import json
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from gpt.checkpoint import download

COMMIT = "0123456789abcdef" * 2 + "01234567"
BIG = bytes(range(256)) * 4096  # a megabyte
LARGE = (".safetensors", ".parquet", ".jsonl")  # files of which git keeps only the hash


def git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def listed(name: str, content: bytes) -> dict:
    entry = {"type": "file", "path": name, "size": len(content), "oid": git_hash(content)}
    if name.endswith(LARGE):
        digest = hashlib.sha256(content).hexdigest()
        entry["oid"] = "0" * 40  # of the file that git keeps in its place
        entry["lfs"] = {"oid": digest, "size": len(content), "pointerSize": 135}
    return entry


class Hub(ThreadingHTTPServer):
    """The state of the server: its files, what is wrong with it, and what it was asked."""

    def __init__(self, kind: str, name: str, files: dict[str, bytes]):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.kind, self.name = kind, name  # "models" or "datasets", OWNER/NAME
        self.files = dict(files)
        self.entries = None  # the list of files, where it is not that of `files`
        self.page = 1000  # files a page
        self.cut: list[int] = []  # after how many bytes the next answers with weights end
        self.ranges = True  # whether it can answer with a part of a file
        self.instead: dict[str, tuple] = {}  # path: (status, body, headers)
        self.asked: list[tuple] = []  # (path, range, token)


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        hub, url = self.server, urlsplit(self.path)
        self.server.asked.append((self.path, self.headers["Range"], self.headers["Authorization"]))
        api = f"/api/{hub.kind}/{hub.name}"
        resolve = f"/{hub.name}/resolve/{COMMIT}/"
        resolve = resolve if hub.kind == "models" else f"/{hub.kind}{resolve}"
        if url.path in hub.instead:
            self.answer(*hub.instead[url.path])
        elif url.path == f"{api}/revision/main":
            self.answer(200, json.dumps({"sha": COMMIT}))
        elif url.path.startswith(f"{api}/tree/{COMMIT}"):
            entries = hub.entries
            if entries is None:
                entries = [listed(*item) for item in hub.files.items()]
            begin = int(url.query or 0)
            end, more = begin + hub.page, {}
            if end < len(entries):
                more["Link"] = f'<{hub.url}{url.path}?{end}>; rel="next"'
            self.answer(200, json.dumps(entries[begin:end]), more)
        elif url.path.startswith(resolve) and url.path.removeprefix(resolve) in hub.files:
            self.file(hub.files[url.path.removeprefix(resolve)])
        else:
            self.answer(404)

    def file(self, content: bytes):
        begin = int(re.match(r"bytes=(\d+)-|", self.headers["Range"] or "")[1] or 0)
        begin = begin if self.server.ranges else 0
        rest, headers = content[begin:], {"Content-Length": str(len(content) - begin)}
        if begin:
            headers["Content-Range"] = f"bytes {begin}-{len(content) - 1}/{len(content)}"
        if len(content) == len(BIG) and self.server.cut:
            rest = rest[: self.server.cut.pop(0)]
        self.answer(206 if begin else 200, rest, headers)

    def answer(self, status, body=b"", headers={}):  # noqa: B006
        body = body.encode() if isinstance(body, str) else body
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@contextmanager
def serving(server, monkeypatch, cache):
    """The server in the block, in a thread; fetching asks it alone, and keeps files in `cache`."""
    for name, value in {
        "no_proxy": "127.0.0.1,localhost",
        "HF_ENDPOINT": server.url,
        "WIKIMEDIA_ENDPOINT": server.url,
        "TENSORLITE_CACHE": str(cache),
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(download, "WAIT", 0.0)
    with server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
