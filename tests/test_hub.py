"""Models fetched by name, from a server on the loopback address that answers as the Hub does.

The network is never used.
"""

import hashlib
import json
import shutil
import threading
from collections import Counter
from pathlib import Path

import pytest

from gpt.checkpoint import download, fetch_model, hub, local_folder, planned
from tests.hub_server import BIG, COMMIT, Handler, Hub, listed, serving

FILES = {
    "config.json": b'{"model_type": "llama"}',
    "tokenizer.json": b"{}",
    "model.safetensors": BIG,
    "README.md": b"# a model",
    "pytorch_model.bin": b"pickled",
    "modeling.py": b"import os",
    "onnx/model.safetensors": b"another",
}
FETCHED = {"config.json", "tokenizer.json", "model.safetensors"}


@pytest.fixture
def server(monkeypatch, tmp_path):
    with serving(Hub("models", "me/tiny", FILES), monkeypatch, tmp_path) as server:
        yield server


def fetch(name="hf:me/tiny"):
    return fetch_model(name, say=lambda text: None)


def assert_whole(folder, names=FETCHED, files=FILES):
    assert {p.name for p in folder.iterdir()} == {*names, "fetched.json"}
    for name in names:
        assert (folder / name).read_bytes() == files[name]


WEIGHTS = f"/me/tiny/resolve/{COMMIT}/model.safetensors"


def test_a_model_is_fetched_once_and_then_used_without_a_network(server, tmp_path):
    said = []
    folder = fetch_model("hf:me/tiny", said.append)
    assert folder == tmp_path / "models" / "me" / "tiny"
    assert said == [f"fetching hf:me/tiny (1.0 MB) into {folder}"]
    assert_whole(folder)
    paths = Counter(path for path, _, _ in server.asked)
    assert set(paths.values()) == {1} and len(paths) == 5  # the commit, the list, three files
    assert {token for _, _, token in server.asked} == {None}
    server.server_close()
    assert fetch() == local_folder("hf:me/tiny") == folder
    assert local_folder("out/a") == local_folder(Path("out/a")) == Path("out/a")


def test_shards_are_those_that_the_index_names(server):
    a, b = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
    index = json.dumps({"weight_map": {"x": a, "y": b, "z": a}}).encode()
    del server.files["model.safetensors"]
    server.files |= {a: b"1", b: b"22", "model-00001-of-00009.safetensors": b"old"}
    server.files |= {"model.safetensors.index.json": index}
    names = {"config.json", "tokenizer.json", "model.safetensors.index.json", a, b}
    part = hub.cache_folder() / "models/me/tiny/model.safetensors.index.json.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"of another commit")
    assert_whole(fetch(), names, server.files)
    server.files["model.safetensors"] = b"3"  # counts before the index, as in transformers
    folder = fetch("hf:me/tiny@main")
    assert folder.name == "tiny@main"
    assert_whole(folder, FETCHED, server.files)


def test_a_list_of_several_pages(server):
    server.page = 2
    assert_whole(fetch())


@pytest.mark.parametrize("ranges", [True, False])
def test_a_download_that_is_cut_goes_on(server, ranges):
    server.cut, server.ranges = [1000, 0, 5000], ranges
    assert_whole(fetch())
    begins = [r for path, r, _ in server.asked if path == WEIGHTS]
    if ranges:
        assert begins == [None, "bytes=1000-", "bytes=1000-", "bytes=6000-"]


def test_as_many_tries_as_bring_something(server):
    server.cut = [1000] * 12
    assert_whole(fetch())
    shutil.rmtree(hub.cache_folder())
    server.cut, server.ranges, server.asked = [5000, 2000] * 12, False, []
    with pytest.raises(ConnectionError, match="ended after"):  # it begins again each time
        fetch()
    assert [path for path, _, _ in server.asked].count(WEIGHTS) == download.TRIES + 1


@pytest.mark.parametrize("ranges", [True, False])
def test_progress_counts_what_is_there(server, tmp_path, ranges):
    server.cut, server.ranges = [1000, 7000], ranges
    told, file = [], planned.checked("model.safetensors", len(BIG), hashlib.sha256(BIG).hexdigest())
    download.download(server.url + WEIGHTS, tmp_path / "a", file, told.append)
    assert (tmp_path / "a").read_bytes() == BIG
    assert sum(told) == len(BIG) and (min(told) < 0) == (not ranges)


def test_what_has_come_is_kept_for_the_next_call(server, monkeypatch):
    server.cut = [300_000, 0, 0, 0, 0, 0]
    with pytest.raises(ConnectionError, match=r"after 300000 of 1048576 bytes.*goes on where") as e:
        fetch()
    folder = hub.cache_folder() / "models/me/tiny"
    assert f"put the files of {server.url}/me/tiny/tree/{COMMIT} into {folder}" in str(e.value)
    assert (folder / "model.safetensors.part").stat().st_size == 300_000
    server.cut, server.asked = [], []
    server.instead["/api/models/me/tiny/revision/main"] = (200, json.dumps({"sha": "f" * 40}))
    assert_whole(fetch())  # of the same commit, though the branch has moved
    assert (WEIGHTS, "bytes=300000-", None) in server.asked
    assert {path for path, _, _ in server.asked} <= {WEIGHTS, WEIGHTS[:-17] + "tokenizer.json"}


def test_another_part_than_was_asked_for_is_not_used(server):
    folder = hub.cache_folder() / "models/me/tiny"
    folder.mkdir(parents=True)
    (folder / "model.safetensors.part").write_bytes(BIG[:10])
    headers = {"Content-Range": f"bytes 0-{len(BIG) - 11}/{len(BIG)}"}
    server.instead[WEIGHTS] = (206, BIG[:-10], headers)
    with pytest.raises(ConnectionError, match="status 206"):  # and then for a part unasked
        fetch()
    assert (folder / "model.safetensors.part").stat().st_size == 0
    server.instead.clear()
    assert_whole(fetch())


@pytest.mark.parametrize("name, kind", [("config.json", "git"), ("model.safetensors", "sha256")])
def test_a_wrong_hash(server, name, kind):
    right = server.files[name]
    server.entries = [listed(*item) for item in server.files.items()]
    server.files[name] = right[:-1] + b"?"
    with pytest.raises(ValueError, match=rf"{name} is not the file.*its {kind} hash is.*deleted"):
        fetch()
    left = {p.name for p in (hub.cache_folder() / "models/me/tiny").iterdir()}
    assert not left & {name, name + ".part"}
    server.files[name] = right
    assert_whole(fetch())


def test_a_damaged_part_is_found_by_its_hash(server):
    folder = hub.cache_folder() / "models/me/tiny"
    folder.mkdir(parents=True)
    (folder / "model.safetensors.part").write_bytes(b"?" * 10)
    with pytest.raises(ValueError, match="is not the file"):
        fetch()
    assert_whole(fetch())


def test_wrong_sizes(server):
    server.instead[WEIGHTS] = (200, BIG + b"x")
    with pytest.raises(ValueError, match="has 1048577 bytes, where 1048576 are listed"):
        fetch()
    server.instead[WEIGHTS] = (200, BIG[:-1])
    with pytest.raises(ValueError, match="has 1048575 bytes, where 1048576 are listed"):
        fetch()
    server.instead.clear()
    folder = fetch()
    (folder / "model.safetensors").write_bytes(b"half")
    assert_whole(fetch())  # sizes are checked at each call


def test_answers_of_unknown_length(server, monkeypatch):
    send_header = Handler.send_header
    monkeypatch.setattr(Handler, "send_header", lambda s, n, v: v and send_header(s, n, v))
    headers = {"Transfer-Encoding": "chunked", "Content-Length": None}
    chunk = b"%x\r\n%s\r\n" % (len(BIG) + 1, BIG + b"x")
    server.instead[WEIGHTS] = (200, chunk + b"0\r\n\r\n", headers)
    with pytest.raises(ValueError, match="longer than the 1048576 bytes"):
        fetch()
    shutil.rmtree(hub.cache_folder())
    server.instead[WEIGHTS] = (200, chunk[:1000], headers)  # cut off within a chunk
    with pytest.raises(ConnectionError, match="IncompleteRead"):
        fetch()


@pytest.mark.parametrize(
    "status, kind, words",
    [
        (404, FileNotFoundError, "there is no such model"),
        (401, PermissionError, "private or gated: set HF_TOKEN"),
        (403, PermissionError, "private or gated: set HF_TOKEN"),
        (500, ConnectionError, "HTTP Error 500"),
    ],
)
def test_refusals(server, status, kind, words):
    server.instead["/api/models/me/tiny/revision/main"] = (status, b"")
    with pytest.raises(kind, match=words):
        fetch()
    assert len(server.asked) == 1


def test_without_a_network(server):
    server.shutdown()
    server.server_close()
    with pytest.raises(ConnectionError, match="could not fetch hf:me/tiny: .*refused") as caught:
        fetch()
    folder = hub.cache_folder() / "models/me/tiny"
    assert f"put the files of {server.url}/me/tiny/tree/main into {folder}" in str(caught.value)
    assert "\n" not in str(caught.value)
    for name in FETCHED:  # as the message says
        (folder / name).write_bytes(FILES[name])
    assert fetch() == folder


def test_answers_that_are_not_the_hubs(server):
    start = "/api/models/me/tiny/revision/main"
    tree = f"/api/models/me/tiny/tree/{COMMIT}"
    for path, body, kind, words in (
        (start, "Sign in to this network", ConnectionError, "not JSON"),
        (start, "[" * 100_000, ConnectionError, "not JSON"),
        (start, '{"sha": "../../secret"}', ValueError, "names no commit"),
        (start, "[]", ValueError, "names no commit"),
        (tree, '{"a": 1}', ValueError, "unknown form"),
        (tree, "3", ValueError, "unknown form"),
        (tree, '[{"type": "file", "path": "config.json", "size": 3}]', ValueError, "unknown form"),
        (tree, json.dumps([{**listed("config.json", b""), "size": -1}]), ValueError, "unknown"),
        (tree, json.dumps([{**listed("config.json", b""), "oid": "x"}]), ValueError, "unknown"),
        (tree, "[]", ValueError, "lacks config.json, model.safetensors: only models with"),
    ):
        server.instead = {path: (200, body)}
        with pytest.raises(kind, match=words):
            fetch()
    link = {"Link": '<https://elsewhere.example/list>; rel="next"'}
    server.instead = {tree: (200, "[]", link)}
    with pytest.raises(ValueError, match="continues on another server"):
        fetch()
    server.instead = {tree: (200, "[]", {"Link": f'<{tree}>; rel="next"'})}
    with pytest.raises(ValueError, match="more than 100 pages"):
        fetch()


def test_models_without_safetensors(server):
    del server.files["model.safetensors"]
    with pytest.raises(ValueError, match=r"me/tiny at main lacks model\.safetensors: only models"):
        fetch()
    assert not any((hub.cache_folder() / "models/me/tiny").iterdir())


def test_hostile_paths_are_not_fetched(server, tmp_path):
    hostile = ["../config.json", "/tmp/config.json", "a/../../config.json", "..", "config.json/"]
    hostile += [".safetensors", "..\\model.safetensors", "a/b.safetensors", "\u00e9.safetensors"]
    entries = [listed(*item) for item in FILES.items()]
    server.entries = entries + [listed("config.json", b"") | {"path": path} for path in hostile]
    server.entries.append({"type": "directory", "path": "merges.txt", "oid": "0" * 40, "size": 0})
    assert_whole(fetch())
    shutil.rmtree(tmp_path / "models")
    del server.files["model.safetensors"]
    server.entries = None
    for name in ("../x.safetensors", "/x.safetensors", "a/x.safetensors", "model.bin", 3):
        index = json.dumps({"weight_map": {"x": name}}).encode()
        server.files["model.safetensors.index.json"] = index
        with pytest.raises(ValueError, match="names a file"):
            fetch()
    server.files["model.safetensors.index.json"] = b'{"weight_map": {"x": "a.safetensors"}}'
    with pytest.raises(ValueError, match=r"lacks a\.safetensors"):
        fetch()


@pytest.mark.parametrize(
    "name",
    ["me/tiny", "hf:tiny", "hf:../tiny", "hf:me/..", "hf:me/tiny/x", "hf:me/tiny@", "hf:me/tiny@.."]
    + ["hf:", "hf:me/ti ny", "hf:me/tiny\n", "hf:m\u00e9/tiny", "hf:me/tiny@-x", "hf:/tiny"],
)
def test_other_names_are_refused(server, name):
    with pytest.raises(ValueError, match="write hf:OWNER/NAME"):
        fetch(name)
    assert server.asked == []


def test_redirects_are_followed_and_the_token_goes_to_no_other_host(server, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    other = server.url.replace("127.0.0.1", "localhost")  # another host by its name
    here, there = WEIGHTS.replace("resolve", "moved"), "/cdn/weights"
    server.instead[WEIGHTS] = (307, b"", {"Location": here})  # relative: the same host
    server.instead[here] = (302, b"", {"Location": other + there})
    server.instead[there] = (200, BIG)
    assert_whole(fetch())
    tokens = {path: token for path, _, token in server.asked}
    assert tokens.pop(there) is None
    assert set(tokens.values()) == {"Bearer hf_secret"} and here in tokens


@pytest.mark.parametrize(
    "target", ["http://elsewhere.example/x", "ftp://127.0.0.1/x", "file:///etc/passwd", "https://["]
)
def test_unsafe_redirects(server, target):
    server.instead[WEIGHTS] = (302, b"", {"Location": target})
    with pytest.raises(ConnectionError, match="not followed|redirect|Invalid"):
        fetch()


def test_redirects_keep_to_https():
    request = download.urllib.request.Request("https://huggingface.co/x")

    def follow(url):
        new = download.SafeRedirects().redirect_request(request, Closed(), 302, "", {}, url)
        return new.full_url

    class Closed:
        def close(self):
            pass

    assert follow("https://cdn.example/y") == "https://cdn.example/y"
    for url in ("http://cdn.example/y", "http://127.0.0.1/y", "https:///y"):
        with pytest.raises(download.urllib.error.URLError, match="not followed"):
            follow(url)


@pytest.mark.parametrize("address", ["http://huggingface.co", "ftp://127.0.0.1", "localhost"])
def test_an_endpoint_that_others_could_listen_to(server, monkeypatch, address):
    monkeypatch.setenv("HF_ENDPOINT", address)
    with pytest.raises(ValueError, match="HF_ENDPOINT.*must begin with https"):
        fetch()


def test_a_token_that_is_none_is_not_printed(server, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_se\ncret")
    with pytest.raises(ValueError, match="HF_TOKEN is no token") as caught:
        fetch()
    assert "cret" not in str(caught.value)


def test_too_little_space(server, monkeypatch):
    usage = shutil.disk_usage("/")._replace(free=1_000_000)
    monkeypatch.setattr(planned.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OSError, match="needs 1 MB more .* 1 MB are free.*TENSORLITE_CACHE"):
        fetch()
    assert not any("resolve" in path for path, _, _ in server.asked)
    folder = hub.cache_folder() / "models/me/tiny"
    (folder / "model.safetensors.part").write_bytes(BIG[:100_000])  # what is there counts
    assert_whole(fetch())


def test_a_damaged_plan(server):
    path = fetch() / "fetched.json"
    plan = json.loads(path.read_text())
    bad = {"../x.safetensors": {"size": 1, "git": "0" * 40}}
    for content in (
        "[",
        "{}",
        json.dumps(plan | {"files": bad}),
        json.dumps(plan | {"files": {"config.json": {"size": "1"}}}),
        json.dumps(plan | {"commit": "main"}),
        json.dumps(plan | {"model": "../.."}),
    ):
        path.write_text(content)
        with pytest.raises(ValueError, match=r"fetched\.json"):
            fetch()


def test_two_processes_fetch_one_after_the_other(server):
    folder, said, waits = hub.cache_folder() / "models/me/tiny", [], threading.Event()
    folder.mkdir(parents=True)

    def say(text):
        said.append(text)
        waits.set()

    with planned.only_process(folder, print):
        thread = threading.Thread(target=fetch_model, args=("hf:me/tiny", say))
        thread.start()
        assert waits.wait(10)
        thread.join(0.2)
        assert thread.is_alive() and server.asked == []
    thread.join()
    assert said[0] == f"waiting for another process, which fetches files into {folder}"
    assert_whole(folder)
