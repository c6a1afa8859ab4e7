"""A disk that fills: the run says so, leaves nothing half-written, and can go on."""

import random
import shutil
import string
import subprocess
import sys

import pytest

from gpt.data.__main__ import main
from gpt.data.pipeline import shards_in
from gpt.data.pipeline.shards import Shard, read_shard

from .test_train import ENVIRONMENT, ROOT

FLAGS = ["--workers", "1", "--identify", "False", "--shard_mb", "0.2"]
SUFFIXES = (".json", ".jsonl.zst")


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Twelve files that hardly shrink by compression, and the folder of documents of them."""
    rng, folder = random.Random(1), tmp_path_factory.mktemp("disk")
    (folder / "in").mkdir()
    for i in range(12):
        text = "".join(rng.choices(string.ascii_letters + string.digits, k=200_000))
        (folder / "in" / f"{i:02}.txt").write_text(text)
    assert main(["extract", str(folder / "in"), "--out", str(folder / "out"), *FLAGS]) == 0
    return folder


def content(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir() if not p.name.startswith(".lock")}


def check_stopped(stopped, whole, error: str):
    """The line that a run ended with, and the shards that it had written by then."""
    assert error.startswith("gpt.data: error: ") and error.count("\n") == 1, error
    assert "give the same command again: it goes on where it was" in error
    files = {p.name for p in stopped.iterdir() if not p.name.startswith((".lock", ".scan"))}
    done = sorted(name for name in files if name.endswith(".zst"))
    names = [f"{shard.name}{suffix}" for shard in shards_in(whole) for suffix in SUFFIXES]
    assert files <= set(names)
    for shard in shards_in(whole):
        if shard.path.name in done:
            copy = Shard(stopped / shard.path.name, shard.sha256, shard.documents, shard.size)
            assert len(list(read_shard(copy))) == shard.documents
    return done


SCRIPT = """
mount -t tmpfs -o size=1m tmpfs "$1" || exit 99
folder=$1; stopped=$2; whole=$3; shift 3
"$@" && exit 98
cp -r "$folder/out" "$stopped"
mount -o remount,size=16m "$folder" || exit 97
"$@" || exit 96
cp -r "$folder/out" "$whole"
"""


def test_a_disk_that_is_full(pages, tmp_path):
    alone = ["unshare", "--user", "--map-root-user", "--mount"]
    (tmp_path / "small").mkdir()
    try_it = [*alone, "mount", "-t", "tmpfs", "tmpfs", str(tmp_path / "small")]
    if not shutil.which("unshare") or subprocess.run(try_it, capture_output=True).returncode:
        pytest.skip("there is no namespace in which a small disk can be mounted")
    folders = [str(tmp_path / name) for name in ("small", "stopped", "whole")]
    command = [sys.executable, "-m", "gpt.data", "extract", str(pages / "in"), "--out"]
    command += [str(tmp_path / "small/out"), *FLAGS]
    done = subprocess.run(
        [*alone, "sh", "-c", SCRIPT, "sh", *folders, *command],
        cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "No space left on device" in done.stderr
    written = check_stopped(tmp_path / "stopped", pages / "out", done.stderr)
    assert 2 <= len(written) < 12
    assert content(tmp_path / "whole") == content(pages / "out")


def test_a_limit_on_the_size_of_files(pages, tmp_path):
    resource = pytest.importorskip("resource")
    (tmp_path / "in").mkdir()
    for name in ("00.txt", "01.txt"):
        shutil.copy2(pages / "in" / name, tmp_path / "in")
    large = tmp_path / "in" / "02.txt"
    large.write_text((pages / "in/02.txt").read_text() * 2 + (pages / "in/03.txt").read_text())
    command = [sys.executable, "-m", "gpt.data", "extract", str(tmp_path / "in"), *FLAGS, "--out"]

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))

    for name, given in (("whole", None), ("stopped", limit), ("stopped", None)):
        done = subprocess.run(
            [*command, str(tmp_path / name)],
            cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, preexec_fn=given,
        )  # fmt: skip
        assert done.returncode == (2 if given else 0), done.stderr
        if given:
            assert "File too large" in done.stderr
            written = check_stopped(tmp_path / "stopped", tmp_path / "whole", done.stderr)
            assert written == ["00000.jsonl.zst", "00001.jsonl.zst"]
    assert content(tmp_path / "stopped") == content(tmp_path / "whole")


def test_an_array_for_which_there_is_no_room(tmp_path):
    pytest.importorskip("resource")
    script = """
import resource, sys, numpy as np
from pathlib import Path
from gpt.data.pipeline.arrays import open_array, save
save(Path(sys.argv[1]), np.arange(600))
assert open_array(Path(sys.argv[1])).tolist() == list(range(600))
resource.setrlimit(resource.RLIMIT_FSIZE, (4500, 4500))
save(Path(sys.argv[2]), np.arange(600))
"""
    paths = [str(tmp_path / name) for name in ("whole.npy", "cut.npy")]
    done = subprocess.run(
        [sys.executable, "-c", script, *paths],
        cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True,
    )  # fmt: skip
    assert "[Errno 27] File too large" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["whole.npy"]
