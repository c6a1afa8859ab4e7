"""Corpora fetched by name, from a server on the loopback address; the network is never used.

They are fetched as models are, and test_hub.py tests that.
"""

import hashlib
import json
import re

import pytest

from gpt.checkpoint import download, hub
from gpt.data import fetched
from gpt.data.fetched import FETCHED, Corpus, dump_files, fetch_corpus, hub_files
from tests.hub_server import BIG, COMMIT, Hub, serving

FILES = {"data/b.jsonl": b'{"text": "b"}\n', "data/a.parquet": BIG, "README.md": b"# stories"}
BIG_URL = f"/datasets/me/stories/resolve/{COMMIT}/data/a.parquet"
SHA1 = hashlib.sha1(BIG).hexdigest()


def wanted(most=100):
    return hub_files("me/stories", "data", r"\w+\.(parquet|jsonl)", most)


@pytest.fixture
def server(monkeypatch, tmp_path):
    with serving(Hub("datasets", "me/stories", FILES), monkeypatch, tmp_path) as server:
        corpus = Corpus("https://example.org/stories", "CC0-1.0", 1, wanted)
        monkeypatch.setitem(FETCHED, "stories", corpus)
        yield server


def fetch():
    return fetch_corpus("stories", say=lambda text: None)


def assert_whole(folder):
    assert {p.name for p in folder.iterdir()} == {"a.parquet", "b.jsonl", "fetched.json"}
    for name in ("a.parquet", "b.jsonl"):
        assert (folder / name).read_bytes() == FILES[f"data/{name}"]


def test_a_corpus_is_fetched_once_and_its_licence_is_shown(server, tmp_path):
    said = []
    folder = fetch_corpus("stories", said.append)
    assert folder == tmp_path / "corpora" / "stories" / "raw"
    assert said == [
        f"fetching stories (1.0 MB) into {folder}",
        "stories is under the licence CC0-1.0: see https://example.org/stories",
    ]
    assert_whole(folder)
    assert len(server.asked) == 4  # the commit, the list, two files
    assert fetch() == folder
    assert len(server.asked) == 4  # the second time, none


def test_the_first_files_by_name(server):
    assert list(wanted()) == ["a.parquet", "b.jsonl"]
    assert list(wanted(1)) == ["a.parquet"]
    with pytest.raises(ValueError, match="has no files data/.* at the commit"):
        hub_files("me/stories", "data", r"\d+\.parquet")


def test_what_has_come_is_kept_and_the_message_says_how_to_go_on(server):
    server.cut = [300_000] + [0] * download.TRIES
    with pytest.raises(ConnectionError, match="ended after 300000 of 1048576 bytes") as caught:
        fetch()
    folder = hub.cache_folder() / "corpora/stories/raw"
    message = str(caught.value)
    assert "the same command goes on where this one stopped" in message and "\n" not in message
    assert f"put the files of https://example.org/stories (about 1 MB) into {folder}" in message
    server.cut, server.asked = [], []
    assert_whole(fetch())
    assert (BIG_URL, "bytes=300000-", None) in server.asked
    assert not any("/api/" in path for path, _, _ in server.asked)  # of the same commit


def test_without_a_network_files_can_be_put_by_hand(server):
    server.instead["/api/datasets/me/stories/revision/main"] = (503, b"")
    with pytest.raises(ConnectionError, match="could not fetch stories: .*503.*by hand"):
        fetch()
    folder = hub.cache_folder() / "corpora/stories/raw"
    (folder / "mine.jsonl").write_text('{"text": "a"}\n')
    assert fetch() == folder


def test_a_file_that_the_host_has_no_more(server):
    server.cut = [1000] + [0] * download.TRIES
    with pytest.raises(ConnectionError):
        fetch()
    server.instead[BIG_URL] = (404, b"")
    with pytest.raises(FileNotFoundError, match="Delete .*raw to begin again with what") as caught:
        fetch()
    assert "\n" not in str(caught.value)


def test_redirects_lead_to_the_hosts_that_are_named(server, monkeypatch):
    other = server.url.replace("127.0.0.1", "localhost")  # another host by its name
    server.instead[BIG_URL] = (302, b"", {"Location": other + "/cdn/big"})
    server.instead["/cdn/big"] = (200, BIG)
    with pytest.raises(ConnectionError, match="redirected to .*localhost.*, which is not followed"):
        fetch()
    assert "/cdn/big" not in {path for path, _, _ in server.asked}
    named = Corpus("https://example.org/stories", "CC0-1.0", 1, wanted, ("localhost",))
    monkeypatch.setitem(FETCHED, "stories", named)
    assert_whole(fetch())


@pytest.mark.parametrize(
    "host, followed",
    [("hf.co", True), ("cdn-lfs.hf.co", True), ("evil-hf.co", False), ("hf.co.evil.org", False)],
)
def test_hosts_below_a_named_one(host, followed):
    request = download.urllib.request.Request("https://huggingface.co/x")

    class Closed:
        def close(self):
            pass

    redirects, url = download.SafeRedirects(("hf.co",)), f"https://{host}/y"
    if followed:
        new = redirects.redirect_request(request, Closed(), 302, "", {}, url)
        assert new.full_url == url
    else:
        with pytest.raises(download.urllib.error.URLError, match="not followed"):
            redirects.redirect_request(request, Closed(), 302, "", {}, url)


# ---- Wikimedia -----------------------------------------------------------------------------------


def status(date: str, state: str = "done", name: str = "pages-articles.xml.bz2") -> str:
    file = {"size": len(BIG), "url": "https://elsewhere.example/x", "sha1": SHA1, "md5": "0" * 32}
    files = {f"xwiki-{date}-{name}": file}
    return json.dumps({"jobs": {"other": {"status": "waiting"}, "all": dict(status=state) |
                                {"files": files}}, "version": "0.8"})  # fmt: skip


@pytest.fixture
def dumps(server, monkeypatch):
    page = '<a href="20260901/">20260901</a> <a href="20261001/">x</a> <a href="20261101/">y</a>'
    server.instead["/xwiki/"] = (200, page + '<a href="latest/">latest</a>')
    server.instead["/xwiki/20261101/dumpstatus.json"] = (200, status("20261101", "in-progress"))
    server.instead["/xwiki/20261001/dumpstatus.json"] = (200, status("20261001"))
    monkeypatch.setitem(
        FETCHED, "xwiki", Corpus("https://dumps.example", "CC-BY-SA-4.0", 1, dump_xwiki)
    )
    return server


def dump_xwiki():
    return dump_files("xwiki")


def test_the_newest_dump_that_is_complete(dumps):
    name = "xwiki-20261001-pages-articles.xml.bz2"
    dumps.instead[f"/xwiki/20261001/{name}"] = (200, BIG)
    folder = fetch_corpus("xwiki", say=lambda text: None)
    assert (folder / name).read_bytes() == BIG
    (folder / name).unlink()
    dumps.instead[f"/xwiki/20261001/{name}"] = (200, BIG[::-1])
    with pytest.raises(ValueError, match=f"its sha1 hash is .*, and not {SHA1}"):
        fetch_corpus("xwiki", say=lambda text: None)


def test_the_token_of_the_hub_is_sent_to_the_hub_alone(dumps, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    dump_xwiki()
    wanted()  # on the same server, which is the Hub too: sent
    assert {token for path, _, token in dumps.asked if "/api/" in path} == {"Bearer hf_secret"}
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.example")
    dumps.asked.clear()
    dump_xwiki()
    assert dumps.asked and {token for _, _, token in dumps.asked} == {None}


def test_a_missing_status_and_answers_of_another_form(dumps):
    dumps.instead["/xwiki/20261101/dumpstatus.json"] = (404, b"")
    assert list(dump_xwiki()) == ["xwiki-20261001-pages-articles.xml.bz2"]
    for answer in ("[]", '{"jobs": {"a": 3}}', status("20261001").replace(SHA1, "../x")):
        dumps.instead["/xwiki/20261001/dumpstatus.json"] = (200, answer)
        with pytest.raises(ValueError, match="dumpstatus.json has an unknown form"):
            dump_xwiki()
    dumps.instead["/xwiki/"] = (200, "<html>nothing</html>")
    with pytest.raises(ValueError, match="has no complete dump"):
        dump_xwiki()


# ---- the table, and what is kept -----------------------------------------------------------------


def test_the_table():
    for name, corpus in FETCHED.items():
        assert re.fullmatch(r"[a-z0-9-]+", name)
        assert corpus.home.startswith("https://") and corpus.licence and corpus.megabytes > 0
    with pytest.raises(ValueError, match="'x' is no corpus that is fetched: tinystories, wikitext"):
        fetch_corpus("x")


@pytest.mark.parametrize(
    "name, asked, local",
    [
        ("tinystories", ["TinyStoriesV2-GPT4-train.txt", "TinyStoriesV2-GPT4-valid.txt"], ""),
        ("wikitext-103", ["wikitext-103-raw-v1-train.parquet"], "wikitext-103-raw-v1"),
        ("gutenberg", [f"train-0000{i}-of-00037-9{i}c.parquet" for i in (0, 1)], "data"),
        ("fineweb-sample", ["000_00000.parquet"], "sample/10BT"),
    ],
)
def test_files_of_the_corpora_on_the_hub(server, name, asked, local):
    prefix = f"{local}/" if local else ""
    others = ["001_00000.parquet", "train-00002-of-00037-aa.parquet", "TinyStories-a.txt"]
    server.name = re.search("datasets/(.*)", FETCHED[name].home)[1]
    server.files = {prefix + file: BIG for file in asked + others}
    found = FETCHED[name].files()
    if name == "wikitext-103":  # takes all of its folder
        assert set(asked) <= set(found)
    else:
        assert list(found) == asked
    assert all(file["url"].endswith(f"/resolve/{COMMIT}/{prefix}{n}") for n, file in found.items())


def test_a_damaged_plan(server):
    path = fetch() / "fetched.json"
    plan = json.loads(path.read_text())
    good = plan["files"]["b.jsonl"]
    for bad in (
        {"../b.jsonl": good},
        {"b.jsonl": good | {"url": "file:///etc/passwd"}},
        {"b.jsonl": good | {"size": "1"}},
        {"b.jsonl": good | {"pickle": "x"}},
        {"b.jsonl": [1]},
    ):
        path.write_text(json.dumps(plan | {"files": bad}))
        with pytest.raises(ValueError, match=r"fetched\.json is damaged: delete it"):
            fetch()


@pytest.mark.parametrize("address", ["http://dumps.wikimedia.org", "file:///tmp"])
def test_an_address_that_others_could_listen_to(server, monkeypatch, address):
    monkeypatch.setenv("WIKIMEDIA_ENDPOINT", address)
    with pytest.raises(ValueError, match="WIKIMEDIA_ENDPOINT.*must begin with https"):
        fetched.dump_files("simplewiki")
