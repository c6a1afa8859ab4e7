"""Copies and pickles of leaves, modules and optimizers, as multiprocessing makes them."""

import copy
import pickle

import numpy as np
import pytest

import tensorlite as tl
from tensorlite import nn
from tensorlite.optim import SGD, AdamW
from tests import strict

WAYS = {"deepcopy": copy.deepcopy}
WAYS |= {f"pickle {p}": lambda x, p=p: pickle.loads(pickle.dumps(x, p)) for p in (2, 4, 5)}
ways = pytest.mark.parametrize("again", WAYS.values(), ids=WAYS)


class Tied(nn.Module):
    """A module with a list of parts, a parameter that two of them share, and one that is frozen."""

    def __init__(self):
        rng = np.random.default_rng(0)
        self.first, self.last = nn.Linear(3, 3, rng=rng), nn.Linear(3, 3, rng=rng)
        self.last.weight = self.first.weight
        self.norms = nn.ModuleList([nn.LayerNorm(3), nn.LayerNorm(3)])
        self.norms[0].bias.requires_grad = False

    def forward(self, x):
        for norm in self.norms:
            x = norm(self.first(x))
        return self.last(x)


def step(model, optimizer):
    loss = (model(np.ones((2, 3), np.float32)) ** 2).mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return loss.item()


@ways
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int64", "bool", "bfloat16"])
def test_leaves(again, dtype):
    if dtype == "bfloat16":
        pytest.importorskip("ml_dtypes")
    for values in (2.5, [[1.0, 2.0], [3.0, 4.0]], np.ones((0, 3))):
        x = tl.tensor(values, dtype=dtype)
        y = again(x)
        assert y.dtype == x.dtype and y.shape == x.shape and not y.requires_grad
        assert y.data.tobytes() == x.data.tobytes() and not np.shares_memory(y.data, x.data)


@ways
def test_gradients_go_with_their_leaf(again):
    x = tl.tensor([1.0, 2.0], requires_grad=True)
    (x * x).sum().backward()
    y = again(x)
    assert y.requires_grad and y.grad is not x.grad
    np.testing.assert_array_equal(y.grad.data, [2, 4])
    (y * y).sum().backward()
    np.testing.assert_array_equal(y.grad.data, [4, 8])
    np.testing.assert_array_equal(x.grad.data, [2, 4])


@ways
def test_the_copy_of_an_array_that_is_protected_can_be_written_to(again):
    x = tl.tensor([1.0, 2.0], requires_grad=True)
    z = (x * x).sum()
    y = again(x)
    with tl.no_grad():
        y[0] = 5
    z.backward()
    np.testing.assert_array_equal(x.grad.data, [2, 4])


@ways
def test_results_of_operations_are_refused_with_the_way_out(again):
    x = tl.tensor([1.0, 2.0], requires_grad=True)
    model = nn.Linear(2, 2)
    model.weight = model.weight * 2.0
    for thing in (x * x, [x * x], model):
        with pytest.raises(TypeError, match=r"\.detach\(\) the tensor first"):
            again(thing)
    assert not again((x * x).detach()).requires_grad
    with tl.no_grad():
        np.testing.assert_array_equal(again(x * x).data, [1, 4])


@ways
def test_modules_keep_what_is_shared_and_what_is_frozen(again):
    model = Tied().eval()
    other = again(model)
    assert other.last.weight is other.first.weight is not model.first.weight
    assert not other.training and not other.norms[0].bias.requires_grad
    assert [n for n, _ in other.named_parameters()] == [n for n, _ in model.named_parameters()]
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(other.state_dict()[name], array)


@ways
@pytest.mark.parametrize("make", [lambda p: SGD(p, 0.1, momentum=0.9), AdamW], ids=["SGD", "AdamW"])
def test_a_model_with_its_optimizer_trains_on_alike(again, make):
    model = Tied()
    optimizer = make([{"params": model.parameters()[:2], "weight_decay": 0.1}, *groups(model)])
    for _ in range(2):
        step(model, optimizer)
    copied, its = again((model, optimizer))
    assert {id(p) for p in its.params} == {id(p) for p in copied.parameters()}
    assert all(p is q for p, q in zip(its.params, sum((g["params"] for g in its.groups), [])))
    for _ in range(2):
        assert step(copied, its) == step(model, optimizer)
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(copied.state_dict()[name], array)
        assert not np.shares_memory(copied.state_dict()[name], array)


def groups(model):
    return [{"params": [p]} for p in model.parameters()[2:]]


def test_a_shallow_copy_shares_the_array():
    x = tl.tensor([1.0, 2.0], requires_grad=True)
    y = copy.copy(x)
    assert y is not x and y.data is x.data
    with tl.no_grad():
        y[0] = 5
    assert x[0].item() == 5


def test_copies_on_the_strict_device(monkeypatch):
    if not tl.cuda.is_available():
        strict.install(monkeypatch)
    model = Tied().to("cuda")
    other = copy.deepcopy(model)
    assert other.first.weight.device == "cuda" and other.last.weight is other.first.weight
    other.first.weight.data[...] = 0
    assert model.first.weight.numpy().any()
