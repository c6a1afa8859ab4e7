"""Compiling and launching kernels."""

import numpy as np
import pytest

import tensorlite as tl
from tensorlite import kernels
from tensorlite.kernels import decode, launch, norm, update
from tensorlite.optim import AdamW
from tests.gpu import device  # noqa: F401 - a fixture for every test here


def test_an_included_file_is_in_its_place_once():
    text = launch.source("norm.cu")
    assert "#include" not in text
    for name in ("device.cuh", "arrays.cuh"):
        assert text.count(f"// ---- {name}\n") == text.count(f"// ---- end of {name}\n") == 1


def test_no_block_is_no_launch():
    launch.launch("norm.cu", "no kernel", (0, 1), (32,), ())


def test_a_kernel_that_does_not_compile_is_named():
    with pytest.raises(launch.CannotCompile, match="no_such_kernel<float> of norm.cu"):
        launch.launch("norm.cu", "no_such_kernel<float>", (1,), (32,), ())


@pytest.mark.filterwarnings("error")
def test_what_does_not_compile_is_computed_in_another_way(monkeypatch):
    def lacking(file, kernel, *rest):
        raise launch.CannotCompile(f"{kernel} of {file} does not compile")

    monkeypatch.setattr(kernels, "_warned", set())
    monkeypatch.setattr(norm, "launch", lacking)
    monkeypatch.setattr(update, "launch", lacking)
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    expected = tl.layer_norm(tl.tensor(x)).numpy()
    p = tl.tensor(x, device="cuda", requires_grad=True)
    with pytest.warns(UserWarning, match="layer_norm is computed by simpler operations: norm_for"):
        y = tl.layer_norm(p)
    (tl.layer_norm(p).sum() + p.sum()).backward()  # without another warning
    assert np.allclose(y.numpy(), expected, atol=1e-6)
    with pytest.warns(UserWarning, match="AdamW updates each parameter by itself: adamw<float>"):
        AdamW([p], lr=0.5, weight_decay=0).step()
    assert np.allclose(np.abs(p.numpy() - x), 0.5, atol=0.1)


def test_a_block_asks_for_shared_memory_beside_what_it_always_has():
    import cupy

    x = np.random.default_rng(0).standard_normal((4, 3072)).astype(np.float16)  # 48 KB in float32
    w = np.random.default_rng(1).standard_normal((3072, 8)).astype(np.float16)
    y = decode.few_rows(cupy.asarray(x), cupy.asarray(w)).get()
    assert np.allclose(y, x.astype(np.float32) @ w.astype(np.float32), atol=0.2)


def test_how_many_neighbours_are_read_at_once():
    def array(n, dtype):
        return launch.empty(n, dtype)

    assert launch.vector(16, array(16, np.float32)) == 4
    assert launch.vector(16, array(16, np.float32), array(16, np.float16), None) == 8
    assert launch.vector(12, array(12, np.float16)) == 1  # rows of 24 bytes
    assert launch.vector(16, array(17, np.float32)[1:]) == 1
