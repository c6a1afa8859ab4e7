"""docs/numpy.md lists the functions that there are."""

import re
from operator import attrgetter
from pathlib import Path

import numpy as np

import tensorlite as tl
from tensorlite.arraylike import NUMPY

PAGE = (Path(__file__).parents[1] / "docs" / "numpy.md").read_text()
TABLE = PAGE[PAGE.index("## What there is") : PAGE.index("Most functions")]
ROWS = [line.split("|") for line in TABLE.splitlines() if line.count("`") > 1]
NAMES = {row[1].strip(): " ".join(re.findall("`([^`]*)`", row[2])).split() for row in ROWS}
LINALG = set(NAMES.pop("`np.linalg`"))
OTHERS = set().union(*NAMES.values())


def test_every_name_on_the_page_takes_tensors():
    functions = {name: (np, name) for name in OTHERS} | {n: (np.linalg, n) for n in LINALG}
    for name, (module, path) in functions.items():
        try:
            function = attrgetter(path)(module)
        except AttributeError:  # an older NumPy
            continue
        assert function in NUMPY, name


def test_every_function_is_on_the_page():
    of_no_interest = {"copy", "real", "real_if_close", "conj"}
    names = {name for name in tl.numpy_ops.__all__ if hasattr(np, name)}
    assert names - OTHERS <= of_no_interest, names - OTHERS
    assert set(tl.linalg.__all__) <= LINALG


def test_a_function_of_numpy_is_one_of_tensorlite_too():
    """All but those that tensorlite has under another name, or as an operation of its own."""
    other_names = {"subtract", "multiply", "divide", "negative", "absolute", "fft.fftshift"}
    for name in OTHERS - other_names - {"fft.ifftshift"}:
        if hasattr(np, name):
            assert hasattr(tl, name), name
    for name in LINALG:
        assert hasattr(tl.linalg, name), name
    assert tl.argsort([3.0, 1.0, 2.0]).numpy().tolist() == [1, 2, 0]
