"""train.py on a GPU from the command line to the files: on the strict device, or on a real one."""

import json
import os
import signal

import numpy as np
import pytest

import sample
import train
from gpt.training import gpu
from gpt.training.pretrain import Pretraining
from tensorlite import kernels
from tensorlite.kernels import norm
from tensorlite.modes import mode
from tests import strict
from tests.gpu import HAS_GPU, cuda  # noqa: F401 - cuda is a fixture

TINY = "--n_layer 1 --n_head 2 --n_embd 64 --block_size 16 --batch_size 2 --max_iters 4 --bias True"
TINY += " --eval_interval 2 --eval_iters 1 --log_interval 1 --warmup_iters 2 --dropout 0.1"
TINY += " --lr_decay_iters 4 --workers 1"


@pytest.fixture(autouse=True)
def no_text(monkeypatch):
    monkeypatch.setattr(train, "generate", lambda *args, **kwargs: "")  # slow in the emulator


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("a quick brown fox jumps over the lazy dog. " * 12)
    return str(path)


def run(text, out, *argv):
    assert train.main(["--dataset", text, "--out_dir", str(out), *TINY.split(), *argv]) == 0
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [(line["step"], line["train_loss"]) for line in lines if "train_loss" in line]


def stop_after(monkeypatch, steps):
    """Let a signal arrive in the step of this number, which is then the last."""
    whole = gpu.GPUStep.__call__

    def step(self, number):
        if number == steps - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return whole(self, number)

    monkeypatch.setattr(gpu.GPUStep, "__call__", step)


@pytest.mark.parametrize("how", ["float16", "bfloat16 --compile False"])
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(
    how, text, tmp_path, monkeypatch, capsys
):
    argv = ["--dtype", *how.split()]
    losses = run(text, tmp_path / "whole", *argv)
    printed = capsys.readouterr().out
    assert printed.startswith(how.split()[0] + " on ")
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        run(text, tmp_path / "parts", *argv)
    assert "stopped at step 2" in capsys.readouterr().out
    assert run(text, tmp_path / "parts", *argv, "--init_from", "resume") == losses
    for name in ("model.safetensors", "optimizer-4.safetensors"):
        whole, parts = (tmp_path / folder / name for folder in ("whole", "parts"))
        assert whole.read_bytes() == parts.read_bytes()
    assert [path.name for path in (tmp_path / "parts").glob("gpu-*")] == ["gpu-4.json"]


@pytest.mark.parametrize("dtype, atol", [("float32", 1e-4), ("float16", 1e-4), ("bfloat16", 0.05)])
def test_muon_is_computed_without_a_recorded_step(dtype, atol, text, tmp_path, capsys):
    argv = ["--optimizer", "muon", "--schedule", "wsd", "--decay_fraction", "0.5"]
    expected = run(text, tmp_path / "cpu", "--device", "cpu", *argv)
    capsys.readouterr()
    losses = run(text, tmp_path / "gpu", "--dtype", dtype, *argv)
    assert "with --optimizer muon it is not recorded" in capsys.readouterr().out
    np.testing.assert_allclose(losses, expected, rtol=0, atol=atol)


def test_a_modern_model_is_trained_by_recorded_steps(text, tmp_path, capsys):
    parts = "rotary,qk_norm,relu2,embedding_norm,logit_cap,ngrams=2+3"
    argv = f"--model modern --parts {parts} --bias False --dropout 0".split()
    argv += ["--max_iters", "2"]
    expected = run(text, tmp_path / "cpu", "--device", "cpu", *argv)
    capsys.readouterr()
    losses = run(text, tmp_path / "gpu", "--dtype", "float32", *argv)
    assert "recorded" not in capsys.readouterr().out and (strict.launches["graph"] or HAS_GPU)
    np.testing.assert_allclose(losses, expected, rtol=0, atol=1e-4)


def test_a_run_goes_on_on_the_other_device(text, tmp_path, monkeypatch):
    expected = run(text, tmp_path / "cpu", "--device", "cpu")
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        run(text, tmp_path / "moved", "--dtype", "float32")
    moved = run(text, tmp_path / "moved", "--init_from", "resume", "--device", "cpu")
    np.testing.assert_allclose(moved, expected, atol=1e-4)
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        run(text, tmp_path / "low", "--dtype", "bfloat16")
    low = run(text, tmp_path / "low", "--init_from", "resume", "--device", "cpu")
    np.testing.assert_allclose(low, expected, atol=1e-3)
    assert sample.main(["--out_dir", str(tmp_path / "low"), "--max_new_tokens", "5"]) == 0


def test_what_is_wrong_is_told(text, tmp_path, monkeypatch, capsys):
    argv = ["--dataset", text, "--out_dir", str(tmp_path / "out"), *TINY.split()]
    assert train.main([*argv, "--dtype", "float8"]) == 2
    assert "--dtype is auto, float32, tf32" in capsys.readouterr().err

    class OutOfMemoryError(MemoryError):
        """As cupy.cuda.memory.OutOfMemoryError."""

    OutOfMemoryError.__module__ = "cupy.cuda.memory"

    def no_memory(*args):
        raise OutOfMemoryError("Out of memory allocating 8,000,000,000 bytes (allocated so far: 1)")

    monkeypatch.setattr(gpu.GPUStep, "__call__", no_memory)
    assert train.main(argv) == 2
    assert "8.00 GB were asked for" in capsys.readouterr().err
    if not HAS_GPU:
        monkeypatch.setattr(strict.stand_in().cuda.Device, "compute_capability", "75")
        assert train.main([*argv, "--overwrite", "--dtype", "bfloat16"]) == 2
        assert "has no bfloat16 products: take float16" in capsys.readouterr().err


def test_float16_is_float32_where_no_loss_is_scaled(text, tmp_path, monkeypatch, capsys):
    arrays, seen = Pretraining.arrays, set()
    monkeypatch.delattr(Pretraining, "arrays")  # as tasks whose batches differ in shape

    def loss(self, model, examples, rng=None):
        seen.add(mode.get().products)
        return model.loss(*arrays(self, examples), rng) * examples.share

    monkeypatch.setattr(Pretraining, "loss", loss)
    run(text, tmp_path / "low", "--dtype", "float16", "--max_iters", "1")
    assert seen == {None} and "float32 products" in capsys.readouterr().out


def test_without_a_kernel_of_the_backward_pass_it_trains_by_simpler_operations(
    text, tmp_path, monkeypatch, capsys
):
    launch = norm.launch

    def refuse(file, kernel, *rest):
        if kernel.startswith("norm_backward"):
            raise kernels.CannotCompile(f"{kernel} of {file} does not compile")
        launch(file, kernel, *rest)

    monkeypatch.setattr(kernels, "_warned", set())
    monkeypatch.setattr(norm, "launch", refuse)
    losses = run(text, tmp_path / "out", "--dtype", "bfloat16")
    assert "all operations are computed by simpler ones: norm_backward" in capsys.readouterr().err
    expected = run(text, tmp_path / "cpu", "--device", "cpu")
    np.testing.assert_allclose(losses, expected, atol=1e-4)
