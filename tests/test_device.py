"""Devices on a machine without a GPU: what is said when one of its parts is missing; float16."""

import subprocess
import sys
import types

import numpy as np
import pytest

import tensorlite as tl
from tensorlite import device


def fake_cupy(count=1, count_error=None, product_error=None):
    """A stand-in for CuPy in which one stage fails."""

    class Array:
        def __matmul__(self, other):
            if product_error:
                raise product_error
            return self

        def sum(self):
            return 1.0

    def get_device_count():
        if count_error:
            raise count_error
        return count

    cupy = types.ModuleType("cupy")
    cupy.cuda = types.SimpleNamespace(
        runtime=types.SimpleNamespace(getDeviceCount=get_device_count)
    )
    cupy.ones = lambda *args, **kwargs: Array()
    generator = types.SimpleNamespace(random=lambda: 0.5)
    cupy.random = types.SimpleNamespace(default_rng=lambda seed: generator)
    return cupy


@pytest.mark.parametrize(
    ("cupy", "message"),
    [
        (None, "CuPy cannot be imported"),
        (fake_cupy(count_error=RuntimeError("cudaErrorInsufficientDriver")), "driver is missing"),
        (fake_cupy(count=0), "sees no GPU"),
        (fake_cupy(product_error=RuntimeError("no nvrtc")), r"extra \[ctk\]"),
        (fake_cupy(product_error=ImportError("libcublas.so.12")), r"libcublas.*extra \[ctk\]"),
    ],
)
def test_each_missing_part_has_its_own_message(monkeypatch, capsys, tmp_path, cupy, message):
    monkeypatch.setitem(sys.modules, "cupy", cupy)  # None: importing it raises ImportError
    device._cuda_fault.cache_clear()
    try:
        assert tl.cuda.is_available() is False
        for use in (
            lambda: tl.tensor([1.0], device="cuda"),
            lambda: tl.tensor([1.0]).to("cuda"),
            lambda: tl.nn.Linear(2, 2).to("cuda"),
        ):
            with pytest.raises(RuntimeError, match=message):
                use()
        import sample
        import train

        (tmp_path / "a.txt").write_text("some text to train on" * 50)
        out = str(tmp_path / "out")
        for main in (train.main, sample.main):
            arguments = ["--device", "cuda", "--out_dir", out]
            if main is train.main:
                arguments += ["--dataset", str(tmp_path / "a.txt")]
                assert main(arguments) == 2
                assert "not usable" in capsys.readouterr().err
    finally:
        device._cuda_fault.cache_clear()


def test_a_working_gpu_is_found(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy())
    device._cuda_fault.cache_clear()
    try:
        assert tl.cuda.is_available() is True
    finally:
        device._cuda_fault.cache_clear()


def test_importing_tensorlite_needs_numpy_alone():
    """Importing loads nothing else, whatever is installed: it stays fast."""
    command = "import sys, tensorlite; print(*sorted(m.split('.')[0] for m in sys.modules))"
    loaded = subprocess.check_output([sys.executable, "-c", command], text=True).split()
    heavy = {"cupy", "torch", "hypothesis", "safetensors", "regex", "tqdm", "matplotlib", "mpi4py"}
    assert not heavy & set(loaded) and "numpy" in loaded


def test_operands_on_two_devices_are_named():
    class Elsewhere:  # an array of another library
        dtype, shape, ndim = np.dtype(np.float32), (2,), 1
        __array_ufunc__ = None

    with pytest.raises(TypeError, match=r"add: operands are on the cpu and on cuda; .*to\(device"):
        tl.add(tl.tensor([1.0, 2.0]), Elsewhere())


def test_to():
    x = tl.tensor([1.5, 2.5], requires_grad=True)
    assert x.to("cpu") is x
    y = x.to(np.float64)
    assert y.dtype == np.float64 and x.to("float16").dtype == np.float16
    assert tl.grad((y * y).sum(), x)[0].dtype == np.float32


def test_float16_is_summed_in_float32():
    ones = np.full((3000, 2), 1.01, np.float16)
    x = tl.tensor(ones, requires_grad=True)
    for y, expected in (
        (x.sum(axis=0), 3000 * float(ones[0, 0])),
        (x.mean(axis=0), float(ones[0, 0])),
        ((x * 0 + 1).sum(), 6000),
    ):
        assert y.dtype == np.float16
        np.testing.assert_allclose(y.data.astype(float), expected, rtol=1e-3)
    (g,) = tl.grad((x + tl.tensor(np.ones(2, np.float16))).sum(), x)
    assert g.dtype == np.float16
    bias = tl.tensor(np.ones(2, np.float16), requires_grad=True)
    (g,) = tl.grad((x * bias).sum(), bias)  # 3000 rows summed by the engine
    np.testing.assert_allclose(g.data.astype(float), 3000 * float(ones[0, 0]), rtol=1e-3)


def test_long_float16_arrays():
    x = tl.tensor(np.arange(70_000) % 2, dtype=np.float16, requires_grad=True)
    assert x.var().item() == pytest.approx(0.25, rel=1e-3)
    np.testing.assert_allclose(tl.grad(x.mean(), x)[0].data, 1 / 70_000, rtol=5e-3)
    halves = tl.tensor(np.full(10_000, 0.5), dtype=np.float16, requires_grad=True)
    assert halves.cumsum()[-1].item() == 5000
    one = tl.tensor(np.ones((1, 1)), dtype=np.float16, requires_grad=True)
    assert tl.grad(one[np.zeros(5000, int)].sum(), one)[0].item() == 5000
    with pytest.raises(ValueError, match="float16"):
        tl.optim.AdamW([one])
    one.grad = tl.tensor(np.full((1, 1), 300), dtype=np.float16)
    assert tl.optim.clip_grad_norm([one], 1.0).item() == pytest.approx(300)
    assert one.grad.item() == pytest.approx(1, rel=1e-2)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: tl.softmax(x),
        lambda x: tl.layer_norm(x * 100.0),
        lambda x: tl.gelu(x * 60.0),
        lambda x: tl.linear(x, x.T),
        lambda x: tl.cross_entropy(x, np.zeros(len(x), np.int64)),
        lambda x: tl.attention(x, x, x, is_causal=True),
    ],
)
def test_fused_functions_in_float16(function):
    values = np.linspace(-3, 3, 48).reshape(6, 8)
    half = tl.tensor(values, dtype=np.float16, requires_grad=True)
    wide = tl.tensor(half.data, dtype=np.float64, requires_grad=True)
    y, expected = function(half), function(wide)
    assert y.dtype == np.float16
    np.testing.assert_allclose(y.data, expected.data, rtol=3e-3, atol=3e-3)
    (g,), (expected,) = tl.grad(y.sum(), half), tl.grad(expected.sum(), wide)
    assert g.dtype == np.float16 and np.all(np.isfinite(g.data))
    np.testing.assert_allclose(g.data, expected.data, rtol=2e-2, atol=2e-2)
