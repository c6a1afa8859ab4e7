"""Adagrad: equal to PyTorch's, and only what has a gradient changes."""

import numpy as np
import pytest

import tensorlite as tl
from gpt.models.modern import Modern
from gpt.models.modern_config import ModernConfig
from gpt.training.optimizer import make_optimizer, set_learning_rates
from gpt.training.settings import Settings
from tensorlite.optim import Adagrad, MuonAdamW

from . import strict


def table(seed=0, shape=(6, 3)) -> tl.Tensor:
    numbers = np.random.default_rng(seed).standard_normal(shape)
    return tl.tensor(numbers, np.float32, requires_grad=True)


def gradient(seed, shape=(6, 3)) -> tl.Tensor:
    """One with three rows of zeros, others in each step."""
    rng = np.random.default_rng(seed)
    g = rng.standard_normal(shape)
    g[rng.permutation(len(g))[:3]] = 0
    return tl.tensor(g, np.float32)


@pytest.mark.parametrize("shape", [(6, 3), (8,), (4, 3, 2)])
@pytest.mark.parametrize("clip", [None, 0.1])
def test_equals_pytorchs_step_by_step(shape, clip):
    torch = pytest.importorskip("torch")
    p = table(shape=shape)
    theirs = torch.nn.Parameter(torch.tensor(p.numpy()))
    ours, reference = Adagrad([p], lr=0.1), torch.optim.Adagrad([theirs], lr=0.1)
    for step in range(10):
        p.grad = gradient(step, shape)
        theirs.grad = torch.tensor(p.grad.numpy())
        if clip:
            ours.clip_grad_norm(clip)
            torch.nn.utils.clip_grad_norm_([theirs], clip)
        ours.step()
        reference.step()
        np.testing.assert_allclose(p.numpy(), theirs.detach().numpy(), rtol=1e-5, atol=1e-6)


def test_rows_without_a_gradient_stay_as_they_are():
    p = table()
    optimizer = Adagrad([p])
    for step in range(5):
        before, v = p.numpy().copy(), optimizer.state["v"][0].copy()
        p.grad = gradient(step)
        zeros = ~p.grad.numpy().any(axis=1)
        optimizer.step()
        changed = (p.numpy() != before).any(axis=1)
        np.testing.assert_array_equal(changed, ~zeros)
        np.testing.assert_array_equal(optimizer.state["v"][0][zeros], v[zeros])


def test_as_a_group_beside_adamw_and_muon():
    """Each group is updated as by an optimizer of its own, and has the slots of that."""
    params, alone = [table(i) for i in range(3)], table(2)
    groups = [{"params": params[:1]}, {"params": params[1:2], "muon": True}]
    groups += [{"params": params[2:], "adagrad": True, "lr": 0.1}]
    optimizer = MuonAdamW(groups, weight_decay=0.0)
    reference = Adagrad([alone], lr=0.1, eps=1e-8)
    for step in range(3):
        for i, p in enumerate([*params, alone]):
            p.grad = gradient(10 * step + min(i, 2))
        optimizer.clip_grad_norm(1.0)
        reference.scale = optimizer.scale
        optimizer.step()
        reference.step()
        np.testing.assert_array_equal(params[2].numpy(), alone.numpy())
    shapes = {slot: [a.shape for a in arrays] for slot, arrays in optimizer.state.items()}
    assert shapes == {"m": [(6, 3), (6, 3), (0,)], "v": [(6, 3), (0,), (6, 3)]}
    with pytest.raises(ValueError, match="neither Muon nor weight decay"):
        MuonAdamW([{"params": params, "adagrad": True}])


def test_the_tables_of_ngrams_are_for_adagrad():
    config = ModernConfig(vocab_size=9, block_size=8, n_layer=1, n_head=1, n_embd=8, ngrams=(2, 3))
    model, s = Modern(config), Settings(optimizer="muon", ngram_lr=0.5, decay_lr=False)
    optimizer = make_optimizer(model, s)
    set_learning_rates(optimizer, s, 0)
    (group,) = (group for group in optimizer.groups if group["adagrad"])
    assert group["params"] == [part.weight for part in model.ngrams] and group["lr"] == 0.5
    assert sorted(map(id, optimizer.params)) == sorted(map(id, model.parameters()))
    assert not any(g.get("adagrad") for g in make_optimizer(model, Settings()).groups)


def test_the_same_on_a_gpu(monkeypatch):
    if not tl.cuda.is_available():
        strict.install(monkeypatch)
    here, there = table(), tl.tensor(table(), device="cuda", requires_grad=True)
    for p in (here, there):
        optimizer = MuonAdamW([{"params": [p], "adagrad": True}], lr=0.1, weight_decay=0.0)
        for step in range(3):
            p.grad = gradient(step).to(p.device)
            optimizer.clip_grad_norm(1.0)
            optimizer.step()
    np.testing.assert_allclose(there.to("cpu").numpy(), here.numpy(), rtol=1e-6)
