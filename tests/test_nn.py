"""Modules and optimizers."""

import math

import numpy as np
import pytest

import tensorlite as tl
from tensorlite import nn
from tensorlite.device import RowRandom, random, row_blocks
from tensorlite.optim import SGD, AdamW, clip_grad_norm, cosine_schedule
from tensorlite.tensor import Tensor


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


def test_loading_changes_all_or_nothing():
    net = Net()
    before = {name: x.copy() for name, x in net.state_dict().items()}
    new = {name: x + 1 for name, x in before.items()}

    def refused(state, kind, words):
        with pytest.raises(kind, match=words) as caught:
            net.load_state_dict(state)
        del caught
        for name, x in net.state_dict().items():
            np.testing.assert_array_equal(x, before[name])

    validation = net.table(np.array([1])) @ net.layers[0].weight
    refused(new, ValueError, "layers.0.weight cannot be changed: 'matmul' of a graph.*no_grad")
    del validation
    refused(new | {"table.weight": np.full((5, 3), 1j)}, TypeError, "table.weight.*complex128")
    refused(new | {"table.weight": [["x"] * 3] * 5}, TypeError, "table.weight.*<U1")
    lists = {name: x.tolist() for name, x in new.items()}
    net.load_state_dict(lists | {"table.weight": leaf(new["table.weight"])})
    for name, x in net.state_dict().items():
        np.testing.assert_array_equal(x, new[name])


def test_tied_parameters_load_one_value():
    net = Net()
    net.tied = net.table
    state = {name: x.copy() for name, x in net.state_dict().items()}
    state["tied.weight"] += 1
    with pytest.raises(ValueError, match="table.weight and tied.weight are one parameter"):
        net.load_state_dict(state)
    with pytest.raises(ValueError, match="table.weight and tied.weight"):
        net.load_state_dict(state, strict=False)
    state["table.weight"] = state["tied.weight"].astype(np.float64)
    state["table.weight"][0, 0] = state["tied.weight"][0, 0] = np.nan
    net.load_state_dict(state)
    np.testing.assert_array_equal(net.table.weight.data, state["tied.weight"])
    del state["tied.weight"]
    net.load_state_dict(state, strict=False)


@pytest.mark.parametrize("n, m", [(0, 3), (3, 0), (0, 0)])
def test_layers_of_no_width(n, m):
    """As torch.nn's: of no inputs a linear layer gives its bias, which starts at 0."""
    x = leaf(np.zeros((2, n)))
    layer = nn.Linear(n, m)
    y = layer(x)
    y.sum().backward()
    np.testing.assert_array_equal(y.data, np.broadcast_to(layer.bias.data, (2, m)))
    if n == 0:
        assert not layer.bias.data.any()
    assert layer.weight.grad.shape == (n, m)
    np.testing.assert_array_equal(layer.bias.grad.data, [2] * m)
    for norm in (nn.LayerNorm(n), nn.RMSNorm(n)):
        norm(x).sum().backward()
        assert norm.weight.grad.shape == (n,)
    assert nn.Embedding(m, n)(np.zeros(0, int)).shape == (0, n)


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
    good = {"steps": 1, "m": [np.ones(1)], "v": [np.ones(1)]}
    for change, words in [
        ({"m": [np.ones(2)]}, r"'m' does not fit.*parameter 0 has shape \(2,\)"),
        ({"v": [np.ones(1), np.ones(1)]}, "'v' does not fit.*2 arrays for 1 parameters"),
        ({"v": [np.ones(1, complex)]}, "'v' does not fit.*complex128"),
        ({"v": [np.array(["x"])]}, "'v' does not fit.*<U1"),
        ({"steps": "many"}, "'steps' must be a count"),
        ({"steps": -1}, "'steps' must be a count"),
        ({"updates": [1, 1]}, "'updates' a list of 1 counts"),
        ({"updates": [-1]}, "'updates' a list of 1 counts"),
        ({"momentum": []}, r"\['m', 'v'\], not \['momentum'\]"),
    ]:
        with pytest.raises((ValueError, TypeError), match=words):
            optimizer.load_state_dict(good | change)
    with pytest.raises(ValueError, match="'steps'"):
        optimizer.load_state_dict({"m": good["m"], "v": good["v"]})
    with pytest.raises(TypeError, match="dictionary"):
        optimizer.load_state_dict([1])
    held = Tensor(optimizer.state["v"][0], True) * leaf([1.0])
    with pytest.raises(ValueError, match="'v' does not fit.*'mul' of a graph") as caught:
        optimizer.load_state_dict(good)
    del held, caught
    assert optimizer.steps == 0 and optimizer.state["m"][0] == optimizer.state["v"][0] == 0
    optimizer.load_state_dict({"steps": 1, "m": [tl.tensor([2.0])], "v": [[3.0]]})
    assert optimizer.state["m"][0] == 2 and optimizer.state["v"][0] == 3


def test_each_parameter_has_its_own_count_of_updates():
    """Adam's first update is lr * g / |g|, however late it comes; the numbers are torch's."""
    early, late = leaf([1.0]), leaf([1.0])
    optimizer = AdamW([early, late], lr=0.1, weight_decay=0.0)
    for _ in range(1000):
        early.grad = tl.tensor([1.0])
        optimizer.step()
    late.grad = tl.tensor([1.0])
    optimizer.step()
    assert late.item() == pytest.approx(0.9, abs=1e-6)
    assert optimizer.steps == 1001 and list(optimizer.state_dict()["updates"]) == [1001, 1]


def test_unfreezing_in_the_middle():
    torch = pytest.importorskip("torch")
    values = np.array([1.0, -2.0, 3.0])
    ours = [leaf(values), leaf(values)]
    theirs = [torch.tensor(values, dtype=torch.float32, requires_grad=True) for _ in range(2)]
    optimizers = AdamW(ours, lr=0.1), torch.optim.AdamW(theirs, lr=0.1)
    for pair in (ours, theirs):
        pair[0].requires_grad = False
    for step in range(12):
        if step == 8:
            ours[0].requires_grad = theirs[0].requires_grad = True
        for optimizer, (a, b) in zip(optimizers, (ours, theirs)):
            (a * a * b).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        for p, q in zip(ours, theirs):
            np.testing.assert_allclose(p.data, q.detach().numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(optimizers[0].state_dict()["updates"], [4, 12])


def test_counts_are_loaded_and_old_states_have_none():
    def begin():
        pair = leaf([1.0, 2.0]), leaf([3.0, 4.0])
        return pair, AdamW(pair, lr=0.1)

    def advance(pair, optimizer, steps):
        for i in steps:
            (pair[0] * pair[0] + (pair[1] * pair[1] if i > 3 else 0)).sum().backward()
            optimizer.step()
            optimizer.zero_grad()

    pair, optimizer = begin()
    advance(pair, optimizer, range(6))
    saved = {
        k: v if k == "steps" else [x.copy() for x in v] for k, v in optimizer.state_dict().items()
    }
    again, other = begin()
    for p, q in zip(again, pair):
        p.data[...] = q.data
    other.load_state_dict(saved)
    assert other.updates == [6, 2] and other.steps == 6
    for which in ((pair, optimizer), (again, other)):
        advance(*which, range(6, 9))
    np.testing.assert_array_equal([p.data for p in again], [p.data for p in pair])
    del saved["updates"]
    other.load_state_dict(saved)
    assert other.updates == [6, 6]


@pytest.mark.parametrize("make", [AdamW, lambda p, lr: SGD(p, lr, 0.9), SGD])
def test_a_parameter_that_is_given_twice_is_refused(make):
    a, b = leaf([1.0]), leaf([2.0])
    for params in ([a, b, a], [{"params": [a, b]}, {"params": [a]}]):
        with pytest.raises(ValueError, match="parameter 0 and parameter 2 are one and the same"):
            make(params, lr=0.1)
    net = Net()
    net.tied = net.table
    with pytest.raises(ValueError, match="table.weight and tied.weight are one and the same"):
        make(net.named_parameters(), lr=0.1)
    make(net.parameters(), lr=0.1)


def test_what_an_optimizer_is_given():
    """Pairs of named_parameters(), one tensor as a group, frozen ones; what else is refused."""
    net = Net()
    plain, named = SGD(net.parameters(), 0.1), SGD([{"params": net.named_parameters()}], 0.1)
    assert named.params == plain.params and named.names[4] == "table.weight"
    a, b = leaf([1.0]), tl.tensor([1.0])
    optimizer = SGD([{"params": a}, {"params": [b], "momentum": 0.5}], 0.1)
    for _ in range(2):
        a.grad = tl.tensor([1.0])
        optimizer.step()
    assert b.item() == 1  # frozen
    b.requires_grad = True
    for _ in range(2):
        b.grad = tl.tensor([1.0])
        a.grad = None
        optimizer.step()
    assert a.item() == pytest.approx(0.8) and b.item() == pytest.approx(1 - 0.1 - 0.15)
    optimizer = SGD([a], 0.1)
    optimizer.groups[0]["momentum"] = 0.5
    with pytest.raises(ValueError, match="momentum was 0"):
        optimizer.step()
    for wrong, kind, words in [
        (a, TypeError, "not an object of type Tensor"),
        (net, TypeError, r"type Net: pass .parameters\(\)"),
        ({"params": [a]}, TypeError, "not an object of type dict"),
        (3, TypeError, "list of tensors"),
        ([a.data], TypeError, "parameter 0 is an object of type ndarray"),
        ([a, None], TypeError, "parameter 1 is an object of type NoneType"),
        ([a, {"params": [leaf([1.0])]}], ValueError, "if one entry is a group, all must be"),
        ([{"lr": 0.1}], ValueError, r"dictionaries with 'params'.*\{'lr': 0.1\}"),
        ([tl.tensor([1])], ValueError, "parameter 0 is of dtype int64; .*floating-point"),
        ([tl.tensor([1.0])], ValueError, "none of these does"),
    ]:
        with pytest.raises(kind, match=words):
            SGD(wrong, 0.1)


@pytest.mark.parametrize(
    "make, option, value, words",
    [
        (AdamW, "lr", -1, "lr is -1; it must be a finite number, at least 0"),
        (AdamW, "lr", math.nan, "lr is nan"),
        (AdamW, "lr", "0.1", "lr is '0.1'"),
        (AdamW, "eps", -1e-8, "eps is -1e-08"),
        (AdamW, "weight_decay", -0.1, "weight_decay is -0.1"),
        (AdamW, "betas", (0.9, 1), "beta2 is 1; .* at least 0 and below 1"),
        (AdamW, "betas", (1.0, 0.9), "beta1 is 1.0"),
        (AdamW, "betas", (0.9, -0.1), "beta2 is -0.1"),
        (AdamW, "betas", 0.9, "two numbers"),
        (SGD, "lr", math.inf, "lr is inf"),
        (SGD, "momentum", -0.5, "momentum is -0.5"),
    ],
)
def test_options_out_of_range_are_refused(make, option, value, words):
    for entry, options in (
        ([leaf([1.0])], {option: value}),
        ([{"params": [leaf([1.0])], option: value}], {}),
    ):
        with pytest.raises(ValueError, match=words):
            make(entry, **({"lr": 0.1} | options))
    p = leaf([1.0])
    optimizer = make([p], lr=0.1)
    optimizer.groups[0][option] = value  # by a schedule that has gone wrong
    p.grad = tl.tensor([1.0])
    with pytest.raises(ValueError, match=words):
        optimizer.step()
    assert optimizer.steps == 0 and p.item() == 1


@pytest.mark.parametrize("make", [AdamW, lambda p, lr: SGD(p, lr, 0.9), SGD])
def test_a_step_changes_all_or_nothing(make):
    params = [leaf([1.0, 2.0, 3.0]) for _ in range(4)] + [leaf(0.5)]
    optimizer = make(params, lr=0.1)

    def refused(words):
        for p in params:
            p.grad = tl.tensor(np.ones(p.shape), dtype=np.float32)
        before = [a.copy() for p in params for a in (p.data,)]
        state = [a.copy() for slot in optimizer.slots for a in optimizer.state[slot]]
        with pytest.raises(ValueError, match=words):
            optimizer.step()
        assert optimizer.steps == 0 and set(optimizer.updates) == {0}
        for a, b in zip(before, params):
            np.testing.assert_array_equal(a, b.data)
        for a, b in zip(state, [a for slot in optimizer.slots for a in optimizer.state[slot]]):
            np.testing.assert_array_equal(a, b)

    validation = (params[2] * params[2]).sum()  # kept alive
    refused("parameter 2 cannot be changed: 'mul' of a graph that is still alive.*no_grad")
    validation = tl.exp(params[3][None, 1:] * params[1][1:])  # by views
    refused("parameter 1 cannot be changed: 'mul'")
    del validation
    params[4].data.flags.writeable = False
    refused("parameter 4 is a read-only array: give it a copy")
    params[4].data.flags.writeable = True
    kept, params[3].data = params[3].data, np.ones((3, 2), np.float32)
    if optimizer.slots:
        refused(r"parameter 3 has the shape \(3, 2\), .* \(3,\)")
    params[3].data = kept
    params[3].grad = tl.tensor([1.0] * 3)
    params[3].grad.data = np.ones(2, np.float32)
    with pytest.raises(ValueError, match=r"parameter 3 .* \(2,\)"):
        optimizer.step()
    for p in params:
        p.grad = tl.tensor(np.ones(p.shape), dtype=np.float32)
    optimizer.step()
    assert all(p.data.flat[0] < 1 for p in params) and optimizer.steps == 1


def test_a_frozen_parameter_stays_whatever_its_gradient_is():
    a, b = leaf([3.0]), leaf([4.0])
    optimizer = SGD([a, b], 0.1, weight_decay=0.5)
    (a * b).sum().backward()
    a.requires_grad = False
    assert optimizer.clip_grad_norm(1e9) == 3  # of b alone, which is 3
    optimizer.step()
    assert a.item() == 3 and b.item() == pytest.approx(4 - 0.1 * (3 + 2))


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


def test_clipping_counts_once_what_is_there_twice_and_changes_all_or_nothing():
    a, b = leaf([3.0]), leaf([4.0])
    a.grad, b.grad = tl.tensor([3.0]), tl.tensor([4.0])
    assert clip_grad_norm([a, b, a], 1.0) == pytest.approx(5)
    assert a.grad.item() == pytest.approx(0.6, rel=1e-5)
    a.grad = b.grad = tl.tensor([3.0])
    assert clip_grad_norm([a, b], 1.0) == pytest.approx(math.sqrt(18))
    assert a.grad.item() == pytest.approx(3 / math.sqrt(18), rel=1e-5)
    a.grad, b.grad = tl.tensor([3.0]), tl.tensor([4.0])
    penalty = (leaf([1.0]) * b.grad).sum()
    with pytest.raises(ValueError, match="a gradient cannot be changed: 'mul'"):
        clip_grad_norm([a, b], 1.0)
    assert a.grad.item() == 3
    del penalty
    for bad in (-1.0, math.nan):
        with pytest.raises(ValueError, match="max_norm"):
            clip_grad_norm([a, b], bad)
        with pytest.raises(ValueError, match="max_norm"):
            SGD([a, b], 0.1).clip_grad_norm(bad)
    with pytest.raises(TypeError, match="takes tensors, not an object of type tuple"):
        clip_grad_norm(Net().named_parameters(), 1.0)


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
