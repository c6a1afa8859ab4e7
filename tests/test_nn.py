"""Modules and optimizers."""

import math

import numpy as np
import pytest

import tensorlite as tl
from tensorlite import nn
from tensorlite.device import RowRandom, random, row_blocks
from tensorlite.optim import SGD, AdamW, clip_grad_norm, cosine_schedule


def leaf(values):
    return tl.tensor(values, dtype=np.float32, requires_grad=True)


class Net(nn.Module):
    def __init__(self):
        self.layers = nn.ModuleList(
            [nn.Linear(3, 4), nn.Sequential(nn.LayerNorm(4), nn.Dropout(0.5))]
        )
        self.table = nn.Embedding(5, 3)

    def forward(self, ids):
        x = self.table(ids)
        for layer in self.layers:
            x = layer(x)
        return x


# ---- modules ----


def test_parameters_are_named_by_their_path():
    names = [name for name, _ in Net().named_parameters()]
    assert names == [
        "layers.0.weight",
        "layers.0.bias",
        "layers.1.0.weight",
        "layers.1.0.bias",
        "table.weight",
    ]


def test_a_shared_parameter_counts_once():
    net = Net()
    net.tied = net.table
    assert len(net.parameters()) == 5 and len(list(net.named_parameters())) == 6


def test_state_round_trip_and_its_errors():
    a, b = Net(), Net()
    b.load_state_dict({name: x.copy() for name, x in a.state_dict().items()})
    for x, y in zip(a.parameters(), b.parameters()):
        np.testing.assert_array_equal(x.data, y.data)
        assert x.data is not y.data
    before = {name: x.copy() for name, x in b.state_dict().items()}
    state = {name: x + 1 for name, x in a.state_dict().items()}
    with pytest.raises(ValueError, match="missing table.weight; unknown more"):
        b.load_state_dict({"more": 1} | {n: x for n, x in state.items() if n != "table.weight"})
    with pytest.raises(ValueError, match=r"table.weight has shape \(2,\).*\(5, 3\)"):
        b.load_state_dict(state | {"table.weight": np.ones(2)})
    for name, x in b.state_dict().items():
        np.testing.assert_array_equal(x, before[name])  # nothing half-loaded
    b.load_state_dict({"table.weight": state["table.weight"]}, strict=False)
    np.testing.assert_array_equal(b.table.weight.data, state["table.weight"])


def test_training_mode_reaches_all_parts():
    net = Net()
    dropout = net.layers[1][1]
    x = leaf(np.ones((50, 50)))
    assert dropout.training and (dropout(x).data == 0).any()
    net.eval()
    assert not dropout.training and dropout(x) is x
    assert net.train().layers[1][1].training


def test_dropout_keeps_the_mean_and_follows_its_generator():
    x = leaf(np.ones((200, 200)))
    y = tl.dropout(x, 0.2, np.random.default_rng(0))
    assert set(np.unique(y.data)) == {0, np.float32(1 / 0.8)}
    assert abs(y.data.mean() - 1) < 0.02
    np.testing.assert_array_equal(y.data, tl.dropout(x, 0.2, np.random.default_rng(0)).data)
    np.testing.assert_array_equal(tl.grad(y.sum(), x)[0].data, y.data)
    assert tl.dropout(x, 0.0, None) is x
    q = leaf(np.ones((2, 3, 4)))
    with pytest.raises(ValueError, match="0 <= p < 1"):
        tl.scaled_dot_product_attention(q, q, q, dropout_p=1.0)
    assert tl.scaled_dot_product_attention(q, q, q, dropout_p=0.5).shape == (2, 3, 4)
    for p in (1.0, -0.1, math.nan):
        with pytest.raises(ValueError, match="0 <= p < 1"):
            tl.dropout(x, p, np.random.default_rng(0))


# ---- random numbers by key ----


def test_a_generator_depends_on_its_key_alone():
    a = random(1, "batch", 2).random(5)
    np.testing.assert_array_equal(a, random(1, "batch", 2).random(5))
    for key in ((1, "batch", 3), (1, "other", 2), (2, "batch", 2)):
        assert not np.array_equal(a, random(*key).random(5))


def test_rows_draw_the_same_whatever_they_are_drawn_with():
    whole = RowRandom(7, "dropout", 3, rows=range(8))
    parts = [
        RowRandom(7, "dropout", 3, rows=range(3)),
        RowRandom(7, "dropout", 3, rows=range(3, 8)),
    ]
    draws = []
    for _ in range(3):
        a = whole.random((8, 4, 5))
        np.testing.assert_array_equal(
            a, np.concatenate([p.random((len(p.rows), 4, 5)) for p in parts])
        )
        assert a.dtype == np.float32 and 0 <= a.min() and a.max() < 1
        draws.append(a)
    assert len(np.unique(np.stack(draws))) > 0.99 * 3 * a.size  # no row and no draw repeats another


@pytest.mark.parametrize("shape", [(0, 3), (1, 1), (7, 100_000), (10_000, 40), (5,)])
def test_row_blocks_cover_every_row_once(shape):
    x = np.empty(shape, np.float32)
    rows = [i for block in row_blocks(x) for i in range(*block.indices(len(x)))]
    assert rows == list(range(len(x)))


# ---- optimizers ----


def test_adamw_is_the_algorithm_of_the_paper():
    rng = np.random.default_rng(0)
    p = leaf(rng.standard_normal((300, 70)))  # larger than a block of the cache
    optimizer = AdamW([p], lr=0.1, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.3)
    expected, m, v = p.data.astype(np.float64), 0, 0
    for t in range(1, 6):
        g = rng.standard_normal(p.shape)
        p.grad = tl.tensor(g, dtype=np.float32)
        optimizer.step()
        m = 0.9 * m + 0.1 * g
        v = 0.99 * v + 0.01 * g * g
        expected = expected - 0.1 * 0.3 * expected
        expected = expected - 0.1 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.99**t)) + 1e-8)
    np.testing.assert_allclose(p.data, expected, rtol=1e-4, atol=1e-5)


def test_groups_have_their_own_options():
    decayed, free = leaf([1.0]), leaf([1.0])
    optimizer = AdamW(
        [{"params": [decayed]}, {"params": [free], "weight_decay": 0.0}], lr=0.1, weight_decay=0.5
    )
    for p in (decayed, free):
        p.grad = tl.tensor([0.0])
    optimizer.step()
    assert decayed.item() == pytest.approx(0.95) and free.item() == 1.0
    with pytest.raises(ValueError, match="unknown options"):
        AdamW([{"params": [free], "momentum": 1}])
    with pytest.raises(ValueError, match="no parameters"):
        AdamW([])
    with pytest.raises(ValueError, match="leaves"):
        AdamW([free * 2])


def test_sgd_with_momentum_and_decay():
    p = leaf([1.0, -2.0])
    optimizer = SGD([p], lr=0.1, momentum=0.9, weight_decay=0.01)
    x, v = np.array([1.0, -2.0]), 0
    for _ in range(4):
        (p * p).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        v = 0.9 * v + 2 * x + 0.01 * x
        x = x - 0.1 * v
    np.testing.assert_allclose(p.data, x, rtol=1e-5)


@pytest.mark.parametrize("make", [AdamW, lambda ps, lr: SGD(ps, lr=lr, momentum=0.9), SGD])
def test_an_optimizer_goes_on_from_its_state(make):
    def run(p, optimizer, steps):
        for _ in range(steps):
            ((p - 3) ** 2).sum().backward()
            optimizer.step()
            optimizer.zero_grad()

    a = leaf([1.0, -2.0])
    one = make([a], lr=0.1)
    run(a, one, 3)
    b = leaf(a.data)
    two = make([b], lr=0.1)
    two.load_state_dict(
        {k: v if k == "steps" else [x.copy() for x in v] for k, v in one.state_dict().items()}
    )
    run(a, one, 3)
    run(b, two, 3)
    np.testing.assert_array_equal(a.data, b.data)


def test_a_state_that_does_not_fit_is_refused():
    optimizer = AdamW([leaf([1.0])])
    with pytest.raises(ValueError, match="'m' does not fit"):
        optimizer.load_state_dict({"steps": 1, "m": [np.ones(2)], "v": [np.ones(1)]})


def test_parameters_without_a_gradient_stay():
    a, b = leaf([1.0]), leaf([1.0])
    optimizer = AdamW([a, b], lr=0.1)
    (a * 2).sum().backward()
    optimizer.step()
    assert a.item() < 1 and b.item() == 1


def test_clipping_scales_all_gradients_together():
    a, b = leaf([3.0]), leaf([[4.0]])
    a.grad, b.grad = tl.tensor([3.0]), tl.tensor([[4.0]])
    norm = clip_grad_norm([a, b], 1.0)
    assert norm.item() == pytest.approx(5) and norm.shape == ()
    assert a.grad.item() == pytest.approx(0.6, rel=1e-5)
    assert b.grad.item() == pytest.approx(0.8, rel=1e-5)
    clip_grad_norm([a, b], 10.0)
    assert a.grad.item() == pytest.approx(0.6, rel=1e-5)
    with pytest.raises(ValueError, match="backward"):
        clip_grad_norm([leaf([1.0])], 1.0)


@pytest.mark.parametrize("max_norm", [0.1, 1e6, np.inf])
@pytest.mark.parametrize("make", [lambda p: SGD([p], 0.1, 0.9), lambda p: AdamW([p], eps=1e-3)])
def test_an_optimizer_clips_in_its_step_as_the_function_does_before(make, max_norm):
    rng = np.random.default_rng(0)
    before, inside = (leaf(np.ones((30, 7))) for _ in range(2))
    plain, optimizer = make(before), make(inside)
    for _ in range(3):
        g = rng.standard_normal((30, 7)).astype(np.float32)
        before.grad, inside.grad = tl.tensor(g), tl.tensor(g)
        norm = clip_grad_norm([before], max_norm)
        # `total` gives a Python float between workers: the update stays in float32.
        assert optimizer.clip_grad_norm(max_norm, total=float) == pytest.approx(norm, rel=1e-6)
        assert optimizer.scale.dtype == np.float32
        plain.step(), optimizer.step()
        np.testing.assert_allclose(inside.data, before.data, rtol=1e-6)
    inside.grad = tl.tensor(np.full((30, 7), 1e-6))
    before.grad = inside.grad
    plain.step(), optimizer.step()  # what was clipped before is not clipped now
    np.testing.assert_allclose(inside.data, before.data, rtol=1e-6)
    optimizer.clip_grad_norm(1e-9)
    optimizer.zero_grad()
    assert optimizer.scale is None


def test_cosine_schedule():
    rates = [cosine_schedule(s, 10, 100, 1.0, 0.1) for s in range(120)]
    assert (
        rates[0] == pytest.approx(1 / 11) and rates[10] == 1.0 and rates[55] == pytest.approx(0.55)
    )
    assert all(a < b for a, b in zip(rates[:10], rates[1:11]))
    assert all(a > b for a, b in zip(rates[10:100], rates[11:101]))
    assert rates[100:] == [0.1] * 20
    assert cosine_schedule(0, 0, 1, 1.0, 0.1) == 1.0
