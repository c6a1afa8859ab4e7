"""What tests of the GPU path share: the device, arrays on it, and how far results may be off.

A test file imports one of the fixtures `cuda` (for each test anew) and `device` (for the file).
"""

import ml_dtypes
import numpy as np
import pytest

import tensorlite as tl
from tests import emulator, strict

HAS_GPU = tl.cuda.is_available()
if not HAS_GPU and emulator.compiler() is None:
    pytest.skip("no g++ to emulate kernels with", allow_module_level=True)

DTYPES = {"float32": np.float32, "bfloat16": ml_dtypes.bfloat16, "float16": np.float16}
TOLERANCE = {"float32": 3e-6, "bfloat16": 6e-3, "float16": 1e-3}  # of the largest number
no_gpu = pytest.mark.skipif(HAS_GPU, reason="about the stand-in for cuBLASLt")


@pytest.fixture(autouse=True)
def cuda(monkeypatch):
    """device="cuda" is the strict device with a stand-in for cuBLASLt, unless there is a GPU."""
    if not HAS_GPU:
        strict.install(monkeypatch)


def on_device(x):
    """A copy of an array on the device, as far from others as memory of its own is."""
    import cupy

    y = cupy.empty(x.shape, x.dtype)
    y[...] = cupy.asarray(x)
    return y


def numbers(shape, dtype, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(DTYPES[dtype])


def agree(result, expected, dtype=None):
    result = result.get()
    dtype = result.dtype.name if dtype is None else dtype
    assert result.shape == expected.shape
    bound = TOLERANCE[dtype] * max(1, np.abs(expected).max(initial=0))
    np.testing.assert_allclose(result.astype(np.float64), expected, atol=bound, rtol=0)


@pytest.fixture(autouse=True, scope="module")
def device():
    """Where there is no GPU, `cupy` is the strict device, whose kernels the emulator executes."""
    with pytest.MonkeyPatch.context() as patch:
        if not HAS_GPU:
            strict.install(patch)
        yield
