"""benchmarks/gpu.py runs from end to end on the strict device, and reports what goes wrong."""

import json
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks import gpu, gpu_card
from benchmarks.gpu_card import Table
from tests import emulator, strict

ROOT = Path(__file__).parents[1]


@pytest.mark.skipif(emulator.compiler() is None, reason="no g++ to emulate kernels with")
def test_every_part_runs_on_the_strict_device(tmp_path):
    command = [sys.executable, "benchmarks/gpu.py", "--strict", f"--out={tmp_path}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "0 parts failed, 0 wrong results" in done.stdout.splitlines()[-1]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["report.json", "report.md"]
    parts = json.loads((tmp_path / "report.json").read_text())
    names = ["walk", "kernels", "attention", "steps-tiny", "generate", "train"]
    assert [part["part"] for part in parts] == names
    for part in parts:
        assert part["error"] == "" and all(table["rows"] for table in part["tables"][-1:])
    (step,) = parts[3]["tables"][0]["rows"]
    assert step["waits"] == 1 and 20 < step["launches"] < 60 and step["loss off by"] < 1e-3
    text = (tmp_path / "report.md").read_text()
    assert "card strict device" in text and "there was no GPU" in text
    for table in parts[1]["tables"]:
        assert f"## {table['title']}" in text


# ---- parts and reports ----


@pytest.mark.parametrize(
    "argv, parts",
    [
        ([], "walk kernels attention steps-A steps-B steps-C2 steps-C16 steps-D8 generate"),
        (["--train", "text.txt"], "train"),
        (["--steps", "--configs", "B", "D8", "--train", "x"], "steps-B steps-D8 train"),
        (["--generate", "--walk"], "walk generate"),
        (["--strict", "--steps"], "steps-tiny"),
    ],
)
def test_the_parts_that_flags_choose(argv, parts):
    assert gpu.chosen(gpu.parse(argv)) == parts.split()


def test_without_a_gpu_one_line_says_why(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("tensorlite.device._cuda_fault", lambda: "the driver is missing")
    assert gpu.main([f"--out={tmp_path}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "the driver is missing" in line and "--strict" in line and not [*tmp_path.iterdir()]


@pytest.fixture
def options(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "possible", list)
    return SimpleNamespace(out=tmp_path, strict=False, precisions=["float32"])


def two_tables(part, options):
    yield Table("First", [{"a": 1}])
    raise ValueError("the second does not work")


def test_an_error_in_a_part_is_reported_beside_what_it_found(options, monkeypatch, capsys):
    monkeypatch.setattr(gpu, "tables", two_tables)
    monkeypatch.setattr(gpu, "describe", lambda: {"card": "none"})
    monkeypatch.setattr(gpu, "errors", [])
    gpu.run_part("walk", options)
    found = json.loads((options.out / "walk.json").read_text())
    assert found["tables"] == [{"title": "First", "rows": [{"a": 1}], "note": "", "wrong": 0}]
    assert "ValueError: the second does not work" in found["error"]
    text = gpu.report([{"part": "walk", **found}], options)
    assert "## First" in text and "## walk ended with an error" in text and "card none" in text
    assert "the second does not work" in capsys.readouterr().err


@pytest.mark.parametrize(
    "code, error",
    [
        ("import os; os._exit(7)", "the process ended with status 7"),
        ("import time; time.sleep(60)", "the process was stopped after 2 s"),
    ],
)
def test_a_part_whose_process_dies_is_reported(code, error, options, monkeypatch, tmp_path):
    script = tmp_path / "part.py"
    script.write_text(code)
    monkeypatch.setattr(gpu, "__file__", str(script))
    monkeypatch.setattr(gpu, "LIMIT", 2)
    start = time.monotonic()
    assert gpu.start_part("kernels", [], options)["error"] == error
    assert time.monotonic() - start < 30


def test_an_operation_without_its_kernel_is_an_error(monkeypatch, capsys):
    monkeypatch.setattr(gpu, "errors", [])
    gpu.note_warning("gelu is computed by simpler operations: why", UserWarning, "file", 1)
    gpu.note_warning("something else", UserWarning, "file", 1)
    assert gpu.errors == ["gelu is computed by simpler operations: why"]
    assert "something else" in capsys.readouterr().err


def test_what_raises_is_remembered(monkeypatch, capsys):
    monkeypatch.setattr(gpu_card, "errors", [])
    assert gpu_card.attempt(lambda x: 2 * x, 4) == 8
    assert gpu_card.attempt(lambda x: 1 / x, 0) is None
    assert len(gpu_card.errors) == 1 and "ZeroDivisionError" in gpu_card.errors[0]


class Driver:
    """As much of libcuda as counts the nodes of a graph, of which there are 131."""

    capturing = True

    def cuStreamGetCaptureInfo_v2(self, stream, status, number, graph, nodes, size):
        status._obj.value, graph._obj.value, size._obj.value = int(self.capturing), 77, 1
        return 0

    def cuGraphGetNodes(self, graph, nodes, size):
        assert graph.value == 77 and nodes is None
        size._obj.value = 131
        return 0


def test_launches_are_counted_by_the_driver(monkeypatch):
    strict.install(monkeypatch)
    monkeypatch.setattr("ctypes.CDLL", {"libcuda.so.1": Driver()}.__getitem__)
    count = gpu_card.CountLaunches(lambda x: x + 1)
    assert count(1) == 2 and count.number == 131
    monkeypatch.setattr(Driver, "capturing", False)
    assert count(1) == 2 and count.number is None


def test_precisions_that_a_card_lacks_are_left_out(monkeypatch, capsys):
    strict.install(monkeypatch)
    monkeypatch.setattr(strict.stand_in().cuda.Device, "compute_capability", "75")
    assert gpu_card.possible(gpu.PRECISIONS) == ["float32", "float16"]
    assert "no bfloat16 products" in capsys.readouterr().err


def test_a_table_as_markdown():
    rows = [{"kernel": "gelu", "ms": 0.01234, "n": 12345}, {"kernel": "add", "GB/s": 4209.4}]
    assert Table("Kernels", rows, "A note.").markdown().splitlines() == [
        "## Kernels",
        "",
        "| kernel | ms | n | GB/s |",
        "|---|---|---|---|",
        "| gelu | 0.0123 | 12,345 |  |",
        "| add |  |  | 4,209 |",
        "",
        "A note.",
    ]
