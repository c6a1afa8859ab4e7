"""Corpora, reading, splitting and batching: `gpt/data/`.

The network is never used: `fetch` meets a server on the loopback address. Tests of
tinyshakespeare need TENSORLITE_DATA to name a folder that has tinyshakespeare.txt.
"""

import gzip
import hashlib
import io
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tokenizer
from gpt import data
from gpt.data import corpora
from tokenizer import base, fetch
from tokenizer.__main__ import main as tokenizer_command

# ---- Python's documentation and source -----------------------------------------------------------


@pytest.fixture(scope="module")
def docs():
    return corpora.python_docs()


@pytest.fixture(scope="module")
def code():
    return corpora.python_code()


def test_docs_hold_topics_and_docstrings(docs):
    assert 1_000_000 < len(docs) < 6_000_000
    assert '\n\n\nThe "assert" statement\n**' in docs
    assert '\n\n\nThe "bisect" module\n***' in docs
    assert "\n\nbisect.insort_right(a, x, lo=0, hi=None, *, key=None)\n    Insert item x" in docs
    assert "\nclass json.decoder.JSONDecoder\n    Simple JSON" in docs
    assert "\njson.decoder.JSONDecoder.decode(self, s" in docs


def test_code_holds_the_source(code):
    assert 4_000_000 < len(code) < 30_000_000
    assert "\n\n\n# json/decoder.py\n" in code
    assert "class JSONDecoder(object):\n" in code
    assert "site-packages" not in {line for line in code.split("\n") if line.startswith("# ")}


def test_characters_are_few_and_printable(docs, code):
    for text in docs, code:
        characters = set(text)
        assert len(characters) <= corpora.MAX_CHARACTERS
        assert all(c.isprintable() for c in characters - {"\n"})
        assert text.strip() == text[:-1] and " \n" not in text


def test_docs_are_the_same_each_time_and_import_nothing(docs):
    script = """if True:
        import hashlib, sys
        from gpt.data import corpora
        list(corpora.tqdm([], disable=None))  # tqdm imports some of its own when first used
        before = set(sys.modules)
        text = corpora.python_docs()
        print(hashlib.sha256(text.encode()).hexdigest())
        print(*sorted(set(sys.modules) - before))
    """
    root = Path(corpora.__file__).parents[2]
    # Another hash seed: sets are walked in another order.
    env = os.environ | {"PYTHONHASHSEED": "7", "PYTHONPATH": str(root)}
    run = subprocess.run(
        [sys.executable, "-c", script], env=env, capture_output=True, text=True, check=True
    )
    digest, modules = run.stdout.splitlines()
    assert digest == hashlib.sha256(docs.encode()).hexdigest()
    # A file in another encoding needs that codec, sysconfig its own tables; topics are data.
    allowed = ("encodings.", "_sysconfigdata")
    new = [name for name in modules.split() if not name.startswith(allowed)]
    assert new == ["pydoc_data", "pydoc_data.topics"]
    assert run.stderr == ""  # no bar where the output is no terminal, and no warnings


def test_validation_split_repeats_no_long_stretch_of_training(docs):
    train, val = data.split(docs)
    known = set(train.split("\n"))
    lines = [line for line in val.split("\n") if len(line) > 40]
    assert sum(line in known for line in lines) < 0.02 * len(lines)


def test_files_that_do_not_decode_or_parse_are_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(corpora.sysconfig, "get_paths", lambda: {"stdlib": str(tmp_path)})
    files = {
        "good.py": b'"""A good one."""\ndef f(x, *, y=1):\n\t"""Adds.\n\n\tThem."""\n',
        "latin.py": '# -*- coding: latin-1 -*-\n"""Ol\xe9."""\n'.encode("latin-1"),
        "bad_bytes.py": b'"""\xff"""\n',
        "bad_cookie.py": b'# -*- coding: nonsense -*-\n"""No."""\n',
        "bad_syntax.py": b'"""No."""\ndef\n',
        "null.py": b'"""No."""\0\n',
        "silent.py": b"x = 1\n",
        "pack/__init__.py": b'if 1:\n  class C:\n    "A class."\n    def m(self): "A method."\n',
        "pack/tests/test_it.py": b'"""No."""\n',
        "site-packages/other.py": b'"""No."""\n',
        "_sysconfigdata_x.py": b'"""No."""\n',
    }
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    (tmp_path / "broken_link.py").symlink_to(tmp_path / "nowhere")
    text = corpora.python_docs()
    good = 'The "good" module\n*****************\n\nA good one.\n\ngood.f(x, *, y=1)\n    Adds.\n\n'
    assert good + "    Them.\n" in text
    assert 'The "latin" module\n******************\n\nOl\xe9.\n' in text
    assert "class pack.C\n    A class.\n\npack.C.m(self)\n    A method.\n" in text
    assert "No." not in text.split("\n")
    for name in "bad_bytes", "bad_syntax", "null", "silent", "other":
        assert f'The "{name}" module' not in text
    assert "# pack/__init__.py\nif 1:\n" in corpora.python_code()


def test_python_without_source(tmp_path, monkeypatch):
    monkeypatch.setattr(corpora.sysconfig, "get_paths", lambda: {"stdlib": str(tmp_path)})
    for corpus in corpora.python_docs, corpora.python_code:
        with pytest.raises(FileNotFoundError, match="no source of its standard .* --dataset FILE"):
            corpus()


def test_plain():
    assert corpora._plain("a\r\nb\rc\td \x0c\n\x00\x1b\u200be\xa0f") == "a\nb\nc       d\ne f"
    assert corpora._plain("café “x”") == "café “x”"  # few kinds of characters: left alone
    rare = "".join(map(chr, range(0x4E00, 0x4E00 + 200)))
    text = "abcdefe" + "—" * 5 + "é" + rare
    plain = corpora._plain(text)
    assert plain.startswith("abcdefe—————") and plain.endswith("?" * 80)
    assert len(plain) == len(text) and len(set(plain)) <= corpora.MAX_CHARACTERS
    assert corpora._plain("e" + rare * 2 + "é")[-1] == "e"


# ---- fetch ---------------------------------------------------------------------------------------

BODY = b"First Citizen:\n" * 1000
SHA256 = hashlib.sha256(BODY).hexdigest()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.requests.append(self.path)
        if self.path == "/good":
            self.answer(200, BODY)
        elif self.path == "/other":
            self.answer(200, b"Sign in to this network")
        elif self.path == "/redirect":
            self.answer(302, b"", Location="/good")
        elif self.path == "/short":
            self.answer(200, BODY[:100], **{"Content-Length": str(len(BODY))})
        elif self.path == "/drip":
            self.answer(200, b"a", **{"Content-Length": "1000"}, Connection="keep-alive")
            self.server.release.wait(10)
        else:
            self.answer(404, b"")

    def answer(self, code, body, **headers):
        self.send_response(code)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.requests, server.release = [], threading.Event()
        server.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.release.set()
        server.shutdown()
        thread.join()


def test_fetch_once(server, tmp_path):
    path = tmp_path / "cache" / "deep" / "file.txt"
    for _ in range(2):
        assert fetch.fetch(server.url + "/good", SHA256, path) == BODY
    assert path.read_bytes() == BODY
    assert server.requests == ["/good"]
    assert [p.name for p in path.parent.iterdir()] == ["file.txt"]  # nothing temporary is left


def test_damaged_file_is_fetched_again(server, tmp_path):
    path = tmp_path / "file.txt"
    path.write_bytes(BODY[:-1])
    assert fetch.fetch(server.url + "/good", SHA256, path) == BODY
    assert path.read_bytes() == BODY


@pytest.mark.parametrize(
    "page, why",
    [
        ("/other", r"the answer \(23 bytes\) has SHA-256 [0-9a-f]{64}, and the file has " + SHA256),
        ("/missing", "HTTP Error 404: Not Found"),
        ("/redirect", r"redirected to http://127.0.0.1:\d+/good, and redirects are not followed"),
        ("/short", "IncompleteRead|has SHA-256"),
        ("/drip", "timed out"),
    ],
)
def test_fetch_refuses(server, tmp_path, page, why):
    path = tmp_path / "file.txt"
    with pytest.raises(ConnectionError, match=why) as error:
        fetch.fetch(server.url + page, SHA256, path, timeout=0.5)
    message = str(error.value)
    assert message.startswith(f"could not fetch {server.url}{page}: ")
    assert message.endswith(f"put it at {path}") and "\n" not in message
    assert server.requests == [page]  # nothing else was asked for
    assert list(tmp_path.iterdir()) == []


def test_fetch_refuses_what_is_too_big(server, tmp_path):
    with pytest.raises(ConnectionError, match="the answer is longer than 14999 bytes"):
        fetch.fetch(server.url + "/good", SHA256, tmp_path / "f", max_bytes=len(BODY) - 1)
    assert fetch.fetch(server.url + "/good", SHA256, tmp_path / "f", max_bytes=len(BODY)) == BODY


def test_fetch_without_a_server(server, tmp_path):
    url = server.url + "/good"
    server.shutdown()
    server.server_close()
    damaged = tmp_path / "file.txt"
    damaged.write_bytes(b"half")
    with pytest.raises(ConnectionError, match="could not fetch http.*: .*refused.*put it at"):
        fetch.fetch(url, SHA256, damaged)
    with pytest.raises(
        ConnectionError, match=r"^.*file.txt \(4 bytes\) is damaged: its SHA-256 is"
    ):
        fetch.fetch(url, SHA256, damaged)
    damaged.write_bytes(BODY)
    assert fetch.fetch(url, SHA256, damaged) == BODY  # offline, what is kept is enough


def test_shakespeare_asks_one_address_and_keeps_it_in_the_cache(tmp_path, monkeypatch):
    asked = []

    def download(url, *args):
        asked.append(url)
        return BODY

    monkeypatch.setattr(fetch, "_download", download)
    monkeypatch.setattr(corpora, "SHAKESPEARE_SHA256", SHA256)
    monkeypatch.setenv("TENSORLITE_CACHE", str(tmp_path))
    assert data.read_text("shakespeare") == data.read_text("shakespeare_char") == BODY.decode()
    assert asked == [corpora.SHAKESPEARE_URL]
    assert [p.name for p in tmp_path.iterdir()] == ["tinyshakespeare.txt"]


def test_cache_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    monkeypatch.setenv("TENSORLITE_CACHE", "/mine")
    assert fetch.cache_folder() == Path("/mine")
    monkeypatch.delenv("TENSORLITE_CACHE")
    assert fetch.cache_folder() == Path("/xdg/tensorlite")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert fetch.cache_folder() == Path("/home/me/.cache/tensorlite")


def test_write_atomic_keeps_the_old_file_when_it_fails(tmp_path, monkeypatch):
    path = tmp_path / "file"
    base.write_atomic(path, b"old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(base.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        base.write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


# ---- text ----------------------------------------------------------------------------------------


def test_read_file_keeps_text_as_it_is(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("one\r\ntwo\rthree\n\n\0é😀".encode())
    assert data.read_text(str(path)) == "one\r\ntwo\rthree\n\n\0é😀"


def test_byte_order_mark_is_dropped_once(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeffa\ufeffb".encode())
    assert data.read_text(str(path)) == "a\ufeffb"
    path.write_bytes("ab".encode("utf-16"))
    assert data.read_text(str(path), "utf-16") == "ab"


def test_read_folder_in_order_of_paths(tmp_path):
    for name in "b.txt", "a/z.txt", "a.txt", "a/c/d.md", ".hidden", ".git/config", "B.txt":
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + name.encode())
    (tmp_path / "a" / "round").symlink_to(tmp_path)
    (tmp_path / "broken").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe")  # reading it would wait for ever
    assert data.read_text(str(tmp_path)) == "B.txt\na.txt\na/c/d.md\na/z.txt\nb.txt"
    assert data.read_text(f"{tmp_path}/") == "B.txt\na.txt\na/c/d.md\na/z.txt\nb.txt"


def test_built_in_name_wins_over_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(data.CORPORA, "python-docs", lambda: "built in")
    Path("python-docs").write_text("a file")
    assert data.read_text("python-docs") == "built in"
    assert data.read_text("./python-docs") == "a file"
    assert not data.is_token_data("python-docs")


@pytest.mark.parametrize("dataset", ["nowhere.txt", "nowhere.bin", "", "x" * 5000, "a\0b"])
def test_missing_dataset(dataset):
    assert not data.is_token_data(dataset)
    with pytest.raises(FileNotFoundError) as error:
        data.read_text(dataset)
    assert str(error.value) == (
        f"no dataset {dataset!r}: it is no file or folder here and none of the built-in corpora, "
        "python-docs, python-code, shakespeare"
    )


def test_empty_dataset(tmp_path):
    file = tmp_path / "empty.txt"
    file.touch()
    with pytest.raises(ValueError, match=r"the file .*empty\.txt holds no text"):
        data.read_text(str(file))
    (tmp_path / "another.txt").touch()
    with pytest.raises(ValueError, match="the folder .* holds no text"):
        data.read_text(str(tmp_path))


def test_wrong_encoding(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("one\ntwo\ncaf\xe9\n".encode("latin-1"))
    with pytest.raises(ValueError) as error:
        data.read_text(str(path))
    assert str(error.value) == (
        f"{path} is not utf-8 text: byte 11 (0xe9), in line 3, does not fit (invalid continuation "
        "byte); name its encoding with --encoding, latin-1 or utf-16 for example"
    )
    assert data.read_text(str(path), "latin-1") == "one\ntwo\ncaf\xe9\n"
    path.write_bytes(b"\xef\xbb\xbfone\n\xff")
    with pytest.raises(ValueError, match=r"byte 7 \(0xff\), in line 2"):
        data.read_text(str(path), "utf-8-sig")
    with pytest.raises(ValueError, match=r"a\.txt is not utf-8 text: byte 7"):
        data.read_text(str(tmp_path))


@pytest.mark.parametrize("encoding", ["nonsense", "rot13", "hex"])
def test_unknown_encoding(tmp_path, encoding):
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(ValueError, match=f"no text encoding '{encoding}'.*--encoding takes"):
        data.read_text(str(tmp_path / "a.txt"), encoding)


@given(st.text())
def test_split_loses_nothing(text):
    train, val = data.split(text)
    assert train + val == text
    assert len(train) == int(0.9 * len(text))


def test_split_of_tinyshakespeare():
    folder = os.environ.get("TENSORLITE_DATA")
    if not folder or not os.path.isfile(os.path.join(folder, "tinyshakespeare.txt")):
        pytest.skip("TENSORLITE_DATA names no folder with tinyshakespeare.txt")
    text = data.read_text(os.path.join(folder, "tinyshakespeare.txt"))
    train, val = data.split(text)
    assert (len(train), len(val)) == (1_003_854, 111_540)
    assert hashlib.sha256(text.encode()).hexdigest() == corpora.SHAKESPEARE_SHA256


# ---- token files ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "vocab_size, dtype", [(1, "<u2"), (50304, "<u2"), (65536, "<u2"), (65537, "<u4")]
)
def test_token_files_come_back(tmp_path, vocab_size, dtype):
    assert base.token_dtype(vocab_size) == np.dtype(dtype)
    ids = np.random.default_rng(0).integers(0, vocab_size, 1000)
    ids[0] = vocab_size - 1
    data.write_tokens(tmp_path / "train.bin", ids, vocab_size)
    data.write_tokens(tmp_path / "val.bin", ids[::-1].tolist(), vocab_size)
    assert (tmp_path / "train.bin").read_bytes() == ids.astype(dtype).tobytes()
    assert data.is_token_data(str(tmp_path)) and data.is_token_data(str(tmp_path / "val.bin"))
    train, val = data.open_tokens(str(tmp_path), vocab_size)
    assert train.dtype == val.dtype == np.dtype(dtype)
    assert isinstance(train, np.memmap) and not train.flags.writeable
    np.testing.assert_array_equal(train, ids)
    np.testing.assert_array_equal(val, ids[::-1])
    train, val = data.open_tokens(str(tmp_path / "train.bin"), vocab_size)
    assert (len(train), len(val)) == (900, 100)
    np.testing.assert_array_equal(np.concatenate([train, val]), ids)


def test_nanogpt_name_of_a_dataset(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.makedirs("data/openwebtext")
    assert not data.is_token_data("openwebtext")
    for name in "train.bin", "val.bin":
        data.write_tokens(f"data/openwebtext/{name}", [1, 2, 3], 50304)
    assert data.resolve("openwebtext") == os.path.join("data", "openwebtext")
    assert data.is_token_data("openwebtext")
    assert data.open_tokens("openwebtext", 50304)[0].tolist() == [1, 2, 3]


def test_token_file_of_broken_size(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"the token file .*a\.bin is empty"):
        data.open_tokens(str(path), 10)
    path.write_bytes(b"12345")
    with pytest.raises(ValueError, match="has 5 bytes.* ids of 2 bytes .uint16, by vocab_size 10"):
        data.open_tokens(str(path), 10)
    path.write_bytes(b"123456")
    with pytest.raises(ValueError, match="has 6 bytes.* ids of 4 bytes .uint32, by vocab_size 1"):
        data.open_tokens(str(path), 100_000)


def zipf(n: int, vocab_size: int) -> np.ndarray:
    """Ids as a text has them, (n,): a few that are frequent, and all others."""
    rng = np.random.default_rng(n)
    return np.minimum(rng.zipf(1.2, n) - 1, rng.integers(0, vocab_size, n))


LLM_C = np.array([20240520, 1, 4000] + [0] * 253, "<i4").tobytes()
OTHERS = [  # what the file is, the number of ids that it is read with, what the message says
    (
        lambda: zipf(4000, 50257).astype("<u4").tobytes(),
        50304,
        "uint32, for every other number is 0",
    ),
    (lambda: zipf(4000, 60).astype("<u4").tobytes(), 65, "uint32, for every other number is 0"),
    (lambda: zipf(4000, 50257).astype("<i4").tobytes(), 50304, "uint32, for every other"),
    (lambda: zipf(4000, 100277).astype("<u4").tobytes(), 50304, "every other number is at most 1:"),
    (lambda: zipf(4000, 200019).astype("<u4").tobytes(), 65536, "every other number is at most 3:"),
    (
        lambda: zipf(4000, 50257).astype("<i8").tobytes(),
        50304,
        "64 bits, for the upper halves are 0",
    ),
    (lambda: zipf(4000, 100277).astype("<i8").tobytes(), 100277, "64 bits, .*'<i8'.*'<u4'"),
    (lambda: zipf(4000, 65).astype("u1").tobytes(), 50304, "uint8, for its two halves are alike"),
    (lambda: npy(zipf(4000, 50257).astype("<u2")), 50304, r"a NumPy file \(.npy\).*astype\('<u2'"),
    (lambda: npy(zipf(4000, 50257)), 100277, r"a NumPy file \(.npy\).*astype\('<u4'"),
    (lambda: LLM_C + zipf(4000, 50257).astype("<u2").tobytes(), 50304, "llm.c, whose first 1,024"),
    (lambda: ("To be, or not to be\n" * 99).encode(), 50304, "text: `python -m tokenizer encode`"),
    (lambda: ("naïve 語\n" * 99).encode(), 65536, "text: `python -m tokenizer encode`"),
    (lambda: gzip.compress(zipf(4000, 50257).astype("<u2").tobytes()), 50304, "gzip"),
    (
        lambda: zipf(4000, 50257).astype("<u2").tobytes(),
        100277,
        "holds the id .*; or its ids are of another type, '<u2'",
    ),
    (lambda: zipf(4000, 60).astype(">u2").tobytes(), 65, "other byte order: .*'>u2'"),
    (lambda: zipf(4000, 60).astype(">u2").tobytes(), 50304, "other byte order: .*'>u2'"),
    (lambda: zipf(4000, 60).astype("<f4").tobytes(), 50304, "type float32: .*'<f4'"),
    (lambda: zipf(4000, 50257).astype("<f8").tobytes(), 65536, "type float64: .*'<f8'"),
    (lambda: zipf(4000, 200019).astype("<f4").tobytes(), 200019, "type float32: .*'<u4'"),
    (
        lambda: zipf(4000, 60).astype("u1").tobytes(),
        65,
        "u1' would fit|two halves are alike",
    ),
]


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


@pytest.mark.parametrize("content, vocab_size, message", OTHERS, ids=range(len(OTHERS)))
def test_token_files_of_another_type_are_noticed(tmp_path, content, vocab_size, message):
    path = tmp_path / "a.bin"
    path.write_bytes(content())
    with pytest.raises(ValueError, match=message) as error:
        data.open_tokens(str(path), vocab_size)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "vocab_size", [2, 3, 27, 65, 128, 256, 257, 300, 1024, 50257, 65536, 70000, 200019]
)
@pytest.mark.parametrize("n", [1, 2, 63, 64, 65, 1000, 100_000])
def test_token_files_of_the_right_type_are_not_suspected(tmp_path, vocab_size, n):
    rng = np.random.default_rng(n)
    for ids in (
        zipf(n, vocab_size),
        rng.integers(0, vocab_size, n),
        np.zeros(n, int),
        np.full(n, vocab_size - 1),
        np.arange(n) % vocab_size,
        np.sort(rng.integers(0, vocab_size, n)),
    ):
        data.write_tokens(tmp_path / "a.bin", ids, vocab_size)
        parts = data.open_tokens(str(tmp_path / "a.bin"), vocab_size)
        np.testing.assert_array_equal(np.concatenate(parts), ids)


def test_what_our_own_command_wrote_is_read_or_refused(tmp_path, capsys):
    """A tokenizer of more than 65,536 ids writes uint32."""
    tokens = tokenizer.BPETokenizer(
        None, "gpt2", {"<|endoftext|>": 70_000}, {i: bytes([i]) for i in range(256)}
    )
    tokens.save(tmp_path / "big")
    text, target = tmp_path / "text", tmp_path / "ids.bin"
    text.write_text("To be, or not to be\n" * 50)
    assert (
        tokenizer_command(["encode", str(tmp_path / "big"), str(text), "--out", str(target)]) == 0
    )
    for vocab_size in (70_001, tokens.vocab_size):
        parts = data.open_tokens(str(target), vocab_size)
        assert tokens.decode(np.concatenate(parts)) == text.read_text()
    for vocab_size in (50_304, 65_536, 256):
        with pytest.raises(ValueError, match="looks like uint32.*--tokenizer or give --vocab_size"):
            data.open_tokens(str(target), vocab_size)
    # Decoding by a tokenizer of another width is refused too.
    tokenizer.BPETokenizer([]).save(tmp_path / "small")
    capsys.readouterr()
    assert tokenizer_command(["decode", str(tmp_path / "small"), str(target)]) == 2
    assert "is read as uint16, as this tokenizer writes, and looks like uint32" in (
        capsys.readouterr().err
    )


def test_half_a_folder_of_token_files(tmp_path):
    data.write_tokens(tmp_path / "train.bin", [1], 2)
    assert data.is_token_data(str(tmp_path))
    with pytest.raises(ValueError, match=r"there is no .*val\.bin: .* holds train.bin and val.bin"):
        data.open_tokens(str(tmp_path), 2)


def test_id_outside_the_vocabulary(tmp_path, monkeypatch):
    monkeypatch.setattr(data.tokens, "SCAN", 7)  # so that the position is right across chunks
    ids = np.zeros(50, dtype=int)
    ids[[31, 33]] = 65, 70
    data.write_tokens(tmp_path / "a.bin", ids, 71)
    data.open_tokens(str(tmp_path / "a.bin"), 71)
    with pytest.raises(ValueError) as error:
        data.open_tokens(str(tmp_path / "a.bin"), 65)
    assert str(error.value) == (
        f"the token file {tmp_path / 'a.bin'} holds the id 65 at position 31, but vocab_size 65 "
        "allows 0 to 64 (read as uint16, by vocab_size 65): --vocab_size sets it"
    )


def test_write_tokens_refuses(tmp_path):
    for ids in [3], [-1], [2**16]:
        with pytest.raises(ValueError, match="do not fit vocab_size 3, which allows 0 to 2"):
            data.write_tokens(tmp_path / "a.bin", ids, 3)
    with pytest.raises(ValueError, match="no ids to write"):
        data.write_tokens(tmp_path / "a.bin", [], 3)
    with pytest.raises(TypeError, match="ids are integers, and these are float64"):
        data.write_tokens(tmp_path / "a.bin", [1.0], 3)
    assert list(tmp_path.iterdir()) == []


# ---- batches -------------------------------------------------------------------------------------


def test_check_length():
    data.check_length(np.arange(9), 8, "validation")
    with pytest.raises(ValueError) as error:
        data.check_length(np.arange(8), 8, "validation")
    assert str(error.value) == (
        "the validation split has 8 tokens, and one window of block_size 8 takes 9: "
        "give a smaller --block_size or more text"
    )


def test_starts_reach_both_ends_and_no_further():
    starts = data.draw_starts(np.random.default_rng(0), 12, 1000, 8)
    assert starts.shape == (1000,) and starts.dtype == np.int64
    assert set(starts.tolist()) == {0, 1, 2, 3}
    assert data.draw_starts(np.random.default_rng(0), 9, 5, 8).tolist() == [0] * 5


@given(st.integers(1, 12), st.integers(0, 40), st.integers(1, 5), st.integers(0, 2**32))
def test_batches_are_windows_of_the_tokens(block_size, extra, batch_size, seed):
    tokens = np.arange(100, 100 + block_size + 1 + extra, dtype="<u2")
    rng = np.random.default_rng(seed)
    starts = data.draw_starts(rng, len(tokens), batch_size, block_size)
    x, y = data.draw_batch(tokens, starts, block_size)
    for array in x, y:
        assert array.shape == (batch_size, block_size) and array.dtype == np.int64
        assert array.flags.c_contiguous
    np.testing.assert_array_equal(x[:, 0], starts + 100)
    np.testing.assert_array_equal(np.diff(x, axis=1), 1)
    np.testing.assert_array_equal(y, x + 1)


def test_batches_of_a_mapped_file_are_plain_arrays(tmp_path):
    data.write_tokens(tmp_path / "a.bin", range(20), 20)
    train, _ = data.open_tokens(str(tmp_path / "a.bin"), 20)
    x, y = data.draw_batch(train, np.array([3, 0]), 4)
    assert type(x) is type(y) is np.ndarray
    assert x.tolist() == [[3, 4, 5, 6], [0, 1, 2, 3]] and y.tolist() == (x + 1).tolist()


@given(st.integers(0, 60), st.integers(1, 12), st.integers(1, 7))
def test_full_windows_take_each_token_once(n, block_size, batch_size):
    tokens = np.arange(n)
    batches = list(data.full_windows(tokens, block_size, batch_size))
    windows = max(n - 1, 0) // block_size
    assert [len(x) for x, _ in batches] == [
        min(batch_size, windows - first) for first in range(0, windows, batch_size)
    ]
    read = [int(i) for x, _ in batches for i in x.flat]
    said = [int(i) for _, y in batches for i in y.flat]
    assert read == list(range(windows * block_size))
    assert said == [i + 1 for i in read]
    assert n - 1 - len(said) < block_size  # what is left over is no whole window
