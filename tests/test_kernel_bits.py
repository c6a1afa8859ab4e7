"""The kernels give the same bits as when tests/kernel_bits.json was written.

Other bits are no error by themselves: a sum in another order has them. They tell that runs which go
on from a checkpoint will differ from what they were. `python -m tests.kernel_cases` writes the file
anew.
"""

import json

import pytest

from tests.gpu import HAS_GPU, device  # noqa: F401 - device is a fixture
from tests.kernel_cases import BITS, CASES, bits

if HAS_GPU:
    pytest.skip("the bits are those of the emulator", allow_module_level=True)

HELD = json.loads(BITS.read_text())


def test_every_case_is_held():
    assert list(HELD) == list(CASES)


@pytest.mark.parametrize("name", CASES)
def test_bits(name):
    assert bits(name) == HELD[name]
