"""The plugin for pytest: one line after the tests, and none where no gradient was checked."""

import importlib.metadata
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

from tensorlite.testing import Report
from tensorlite.testing.summary import SUMMARY, Summary

ROOT = Path(__file__).parents[1]
CHECKED = """
import numpy as np
from tensorlite.testing import check_vjp, examine_vjp

def test_right():
    check_vjp(np.sin, lambda g, x: g * np.cos(x), [np.ones(3)])

def test_wrong():
    assert examine_vjp(np.sin, lambda g, x: g * x, [np.full(3, 0.5)]).verdict == "wrong"
"""


def run(tmp_path, text: str, *options: str) -> str:
    (tmp_path / "test_it.py").write_text(text)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert "passed" in done.stdout, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("text, line", [
    (CHECKED, "tensorlite: 2 gradients were checked: 1 right (to a relative precision of "),
    ("def test_nothing(): pass", None),
])  # fmt: skip
def test_what_is_printed(tmp_path, monkeypatch, text, line):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    installed = importlib.metadata.entry_points(group="pytest11", name="tensorlite")
    output = run(tmp_path, text, *([] if installed else ["-p", "tensorlite.testing.plugin"]))
    if line:
        assert line in output and "1 wrong, 0 cannot be told" in output
    else:
        assert "tensorlite:" not in output


def test_every_report_is_counted():
    assert str(Summary()) == ""
    before = SUMMARY.verdicts["cannot tell"]
    Report("cannot tell")
    assert SUMMARY.verdicts["cannot tell"] == before + 1


def test_one_gradient():
    summary = Summary()
    summary.add("cannot tell", 0.0)
    assert str(summary) == "1 gradient was checked: 0 right, 0 wrong, 1 cannot be told"
    summary.add("right", 1e-9)
    summary.add("right", 2e-5)
    assert str(summary).startswith(
        "3 gradients were checked: 2 right (to a relative precision of 2e-"
    )


def test_the_entry_point_names_the_plugin():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    name = project["entry-points"]["pytest11"]["tensorlite"]
    assert hasattr(import_module(name), "pytest_terminal_summary")
