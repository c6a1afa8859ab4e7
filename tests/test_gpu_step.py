"""Training on a GPU: the strict device, whose kernels an emulator executes, or a real one."""

from types import SimpleNamespace

import numpy as np
import pytest

import tensorlite as tl
from gpt import GPT, GPTConfig, Llama, LlamaConfig
from gpt.training.gpu import GPUStep
from gpt.training.loop import train_step
from gpt.training.optimizer import make_optimizer
from gpt.training.pretrain import Pretraining
from gpt.training.settings import Settings
from tensorlite.device import random
from tensorlite.kernels import cublaslt
from tensorlite.kernels.update import cast_all
from tensorlite.parallel.team import part_of
from tests import strict, strict_memory
from tests.gpu import HAS_GPU, cuda  # noqa: F401 - cuda is a fixture

SMALL = dict(batch_size=4, block_size=32, n_layer=2, n_head=2, n_embd=64, vocab_size=65)
SMALL |= dict(max_iters=100, warmup_iters=5, learning_rate=3e-3, seed=1)


def beginning(**changes):
    """(model, optimizer, task, settings) of a new run."""
    s = Settings(**SMALL | changes)
    tokens = random(0, "tokens").integers(0, s.vocab_size, 5000)
    sizes = (s.vocab_size, s.block_size, s.n_layer, s.n_head, s.n_embd, s.dropout, s.bias)
    kind, config = (Llama, LlamaConfig) if s.model == "llama" else (GPT, GPTConfig)
    model = kind(config(*sizes), s.seed).to(s.device)
    model.recompute = s.recompute
    return model, make_optimizer(model, s), Pretraining(s, tokens, tokens), s


def gpu_losses(n, **changes):
    model, optimizer, task, s = beginning(device="cuda", **changes)
    with tl.autocast(s.precision):
        step = GPUStep(model, optimizer, task, s)
        return [step(i) for i in range(n)]


def cpu_losses(n, **changes):
    model, optimizer, task, s = beginning(device="cpu", **changes)
    return [train_step(model, optimizer, task, s, i) for i in range(n)]


def near(found, expected, tolerance):
    np.testing.assert_allclose([f[0] for f in found], [e[0] for e in expected], atol=tolerance)


def test_float32_with_dropout_is_as_on_the_cpu():
    how = dict(n_layer=1, batch_size=2, dropout=0.1)
    near(gpu_losses(20, dtype="float32", **how), cpu_losses(20, **how), 1e-4)


@pytest.mark.parametrize("changes", [{}, {"gradient_accumulation_steps": 2}, {"recompute": True}])
def test_a_recorded_step_is_the_step_bit_for_bit(changes):
    how = dict(dropout=0.1, n_layer=1, batch_size=2, bias=True, **changes)
    recorded = gpu_losses(3, dtype="bfloat16", **how)
    assert recorded == gpu_losses(3, dtype="bfloat16", compile=False, **how)
    near(recorded, cpu_losses(3, **how), 2e-3)


def test_two_gpus_add_up_to_one():
    """One rank after the other: what the first shows is kept, and added to that of the second."""
    import cupy

    how = dict(device="cuda", dtype="float32", n_layer=1, dropout=0.1)
    how |= dict(gradient_accumulation_steps=2)
    shown = []

    def step(rank, size, add_up):
        model, optimizer, task, s = beginning(**how)
        optimizer.add_up = add_up
        team = SimpleNamespace(size=size, rank=rank, share=lambda n: part_of(range(n), rank, size))
        with tl.autocast(s.precision):
            return GPUStep(model, optimizer, task, s, team=team)(0)

    def add(arrays):
        for a, kept in zip(arrays, shown, strict=True):
            a += cupy.asarray(kept)

    step(1, 2, lambda arrays: shown.extend(a.get() for a in arrays))
    assert step(0, 2, add) == pytest.approx(step(0, 1, None), rel=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "tf32"])
@pytest.mark.parametrize("model", ["gpt2", "llama"])
def test_other_precisions_and_models(dtype, model):
    how = dict(model=model, n_layer=1)
    near(gpu_losses(3, dtype=dtype, **how), cpu_losses(3, **how), 2e-3)


@pytest.mark.skipif(HAS_GPU, reason="counts what the strict device does")
def test_a_step_of_config_a_has_few_launches_and_one_wait():
    """nanoGPT's recipe for a CPU; the batch is smaller, since that changes no launch."""
    sizes = dict(n_layer=4, n_head=4, n_embd=128, block_size=64, batch_size=2)
    model, optimizer, task, s = beginning(device="cuda", dtype="bfloat16", **sizes)
    with tl.autocast(s.precision):
        step = GPUStep(model, optimizer, task, s)
        alive = []
        for i in range(3):
            strict.launches.clear()
            strict.waits.clear()
            step(i)
            alive.append(strict_memory.alive())
    assert strict.launches == {"copy": 1, "graph": 1}
    assert [wait.kind for wait in strict.waits] == ["tolist"]
    assert len(step.recorded[0]._graph._work) <= 150
    assert alive[0] >= alive[1] == alive[2]


def test_float16_recovers_from_an_overflow():
    model, optimizer, task, s = beginning(device="cuda", dtype="float16")
    with tl.autocast(s.precision):
        step = GPUStep(model, optimizer, task, s)
        step(0)
        before = [p.numpy() for p in model.parameters()]
        step.scale.value = 2.0**40
        assert step(1) is None and step.scale.value == 2.0**39
        for p, was in zip(model.parameters(), before):
            np.testing.assert_array_equal(p.numpy(), was)
        assert optimizer.steps == 1
        step.scale.value = 2.0**12
        assert np.isfinite(step(1)).all() and optimizer.steps == 2


def test_float16_begins_with_its_own_scale_after_another_precision():
    for before, good in (("bfloat16", 0), ("float16", 1)):
        step = GPUStep(*beginning(device="cuda", dtype=before, compile=False))
        step.scale.stepped(finite=True)
        state = step.state()
        in_float16 = GPUStep(*beginning(device="cuda", dtype="float16", compile=False), state)
        assert (in_float16.scale.value, in_float16.scale.good) == (2.0**16, good)


TINY = dict(dtype="float32", n_layer=1, batch_size=2, gradient_accumulation_steps=2)


def test_a_step_that_cannot_be_recorded_is_launched_by_python(monkeypatch):
    expected = gpu_losses(2, **TINY, compile=False)

    def loss_of(self, model, x, y, rng=None):
        loss = model.loss(x, y, rng)
        assert loss.item() > 0  # the host waits for it
        return loss

    monkeypatch.setattr(Pretraining, "loss_of", loss_of)
    with pytest.warns(UserWarning, match="launched by Python: first cannot be captured: it reads"):
        assert gpu_losses(2, **TINY) == expected


def test_a_step_without_cublaslt(monkeypatch):
    monkeypatch.setattr(cublaslt, "load", lambda device: None)
    near(gpu_losses(2, **TINY), cpu_losses(2, **TINY), 1e-5)


def test_a_state_of_another_card_is_told(capsys):
    step = GPUStep(*beginning(device="cuda", **TINY))
    step(0)
    state = step.state()
    assert state["products"]["algorithms"] and step.load_state(state) is None
    assert capsys.readouterr().out == ""
    state["products"]["card"] = "another"
    step.load_state(state)
    assert "another card" in capsys.readouterr().out


def test_a_ruined_model_changes_nothing_and_is_told():
    model, optimizer, task, s = beginning(device="cuda", dtype="bfloat16")
    with tl.autocast(s.precision):
        step = GPUStep(model, optimizer, task, s)
        before = model.wpe.weight.numpy()
        step.check(0)
        np.testing.assert_array_equal(model.wpe.weight.numpy(), before)
        model.h[0].mlp.c_fc.weight.data[0, 0] = np.nan
        cast_all(step.table)
        with pytest.raises(FloatingPointError, match="the loss is nan"):
            step(0)
        np.testing.assert_array_equal(model.wpe.weight.numpy(), before)
