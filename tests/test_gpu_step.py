"""Training on a GPU: the strict device, whose kernels an emulator executes, or a real one."""

import functools
import sys

import numpy as np
import pytest

import tensorlite as tl
from gpt import GPT, GPTConfig
from gpt.training.loop import train_step
from gpt.training.optimizer import make_optimizer
from gpt.training.pretrain import Pretraining
from gpt.training.settings import Settings
from tensorlite.device import random
from tensorlite.kernels import cublaslt
from tests import emulator, emulator_blas, strict

HAS_GPU = tl.cuda.is_available()
if not HAS_GPU and emulator.compiler() is None:
    pytest.skip("no g++ to emulate kernels with", allow_module_level=True)

SMALL = dict(batch_size=4, block_size=32, n_layer=2, n_head=2, n_embd=64, vocab_size=65)
SMALL |= dict(max_iters=100, warmup_iters=5, learning_rate=3e-3, seed=1)


@pytest.fixture(autouse=True)
def cuda(monkeypatch):
    strict.waits.clear()
    if not HAS_GPU:
        monkeypatch.setattr("tensorlite.device._cuda_fault", lambda: None)
        monkeypatch.setitem(sys.modules, "cupy", strict.stand_in())
        emulator_blas.install(monkeypatch)
    monkeypatch.setattr(cublaslt, "load", functools.cache(cublaslt.load.__wrapped__))


def beginning(**changes):
    """(model, optimizer, task, settings) of a new run."""
    s = Settings(**SMALL | changes)
    tokens = random(0, "tokens").integers(0, s.vocab_size, 5000)
    sizes = (s.vocab_size, s.block_size, s.n_layer, s.n_head, s.n_embd, s.dropout, s.bias)
    model = GPT(GPTConfig(*sizes), s.seed).to(s.device)
    return model, make_optimizer(model, s), Pretraining(s, tokens, tokens), s


def gpu_losses(n, **changes):
    from gpt.training.gpu import GPUStep

    model, optimizer, task, s = beginning(device="cuda", **changes)
    with tl.autocast(s.precision):
        step = GPUStep(model, optimizer, task, s)
        return [step(i) for i in range(n)]


def cpu_losses(n, **changes):
    model, optimizer, task, s = beginning(device="cpu", **changes)
    return [train_step(model, optimizer, task, s, i) for i in range(n)]


@pytest.mark.parametrize("compile", [False, True])
def test_float32_as_on_the_cpu(compile):
    found = gpu_losses(20, dtype="float32", dropout=0.1, compile=compile)
    expected = cpu_losses(20, dropout=0.1)
    np.testing.assert_allclose(found, expected, atol=1e-4)
