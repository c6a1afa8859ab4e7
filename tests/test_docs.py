"""What the documentation shows is what happens: docstring examples, and the README's code."""

import doctest
import importlib
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import gpt
import tensorlite as tl
import tokenizer

ROOT = Path(__file__).parents[1]
MODULES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for package in ("tensorlite", "tokenizer", "gpt")
    for path in sorted((ROOT / package).rglob("*.py"))
    if path.name not in ("__init__.py", "__main__.py")
]


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name):
    module = importlib.import_module(name)
    names = vars(tl) | vars(tokenizer) | vars(gpt) | {"np": np}
    result = doctest.testmod(module, globs=names | vars(module), optionflags=doctest.ELLIPSIS)
    assert result.failed == 0


def test_the_property_test_of_the_readme(tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    definition, test = (block for block in blocks if "cube" in block)
    path = tmp_path / "test_cube.py"
    for factor, outcome in (("3", 0), ("2", 1)):  # right, and with a bug in it
        path.write_text(definition.replace("g * 3", f"g * {factor}") + test)
        run = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(path)]
        result = subprocess.run(run, cwd=ROOT, capture_output=True, text=True)
        assert result.returncode == outcome, result.stdout
