"""The model: what it computes, what it may not look at, that it learns."""

import math

import numpy as np
import pytest

import tensorlite as tl
from gpt import GPT, GPTConfig
from gpt.attention import CausalSelfAttention, PlainCausalSelfAttention
from tensorlite.device import RowRandom
from tensorlite.testing import check_grads

TINY = GPTConfig(vocab_size=11, block_size=8, n_layer=2, n_head=2, n_embd=16)


def ids(rng, *shape, below=11):
    return rng.integers(0, below, shape)


def in_float64(model):
    for p in model.parameters():
        p.data = p.data.astype(np.float64)
    return model


def test_shapes_and_dtypes():
    model, x = GPT(TINY), ids(np.random.default_rng(0), 3, 5)
    logits, loss = model(x)
    assert logits.shape == (3, 5, 11) and logits.dtype == np.float32 and loss is None
    logits, loss = model(tl.tensor(x), tl.tensor(x))
    assert loss.shape == () and loss.dtype == np.float32


def test_parameter_counts():
    def gpt2(**changes):
        shape = dict(vocab_size=50257, block_size=1024, n_layer=12, n_head=12, n_embd=768)
        config = GPTConfig(**shape | changes)
        model = GPT.__new__(GPT)  # count without drawing 124 million numbers
        GPT.init_weights, kept = lambda self, seed: None, GPT.init_weights
        try:
            model.__init__(config)
        finally:
            GPT.init_weights = kept
        return model

    model = gpt2()
    assert model.num_params() == 124_439_808
    assert round(model.num_params(non_embedding=True) / 1e6, 2) == 123.65


@pytest.mark.parametrize("vocab_size", [11, 1000, 50257])
def test_the_initial_loss_is_that_of_guessing(vocab_size):
    config = GPTConfig(vocab_size, block_size=16, n_layer=2, n_head=2, n_embd=32)
    rng = np.random.default_rng(0)
    x, y = ids(rng, 4, 16, below=vocab_size), ids(rng, 4, 16, below=vocab_size)
    assert GPT(config).loss(x, y).item() == pytest.approx(math.log(vocab_size), abs=0.15)


def test_initial_weights_follow_gpt2():
    model = GPT(GPTConfig(500, 64, n_layer=8, n_head=2, n_embd=64))
    for name, p in model.named_parameters():
        if p.ndim == 2:
            std = 0.02 / math.sqrt(16) if name.endswith("c_proj.weight") else 0.02
            assert p.data.std() == pytest.approx(std, rel=0.1), name
        else:
            assert np.all(p.data == (1 if "ln_" in name and name.endswith("weight") else 0)), name
    other = GPT(model.config, seed=1)
    assert not np.array_equal(model.wte.weight.data, other.wte.weight.data)
    np.testing.assert_array_equal(GPT(model.config).wte.weight.data, model.wte.weight.data)


def test_a_later_token_never_changes_an_earlier_logit():
    for block_size in (8, 200):  # one block of queries, and several
        config = GPTConfig(11, block_size, n_layer=2, n_head=2, n_embd=16)
        model, rng = GPT(config), np.random.default_rng(1)
        x = ids(rng, 2, block_size)
        before = model(x)[0].data
        for t in range(1, block_size, max(1, block_size // 7)):
            changed = x.copy()
            changed[:, t:] = (changed[:, t:] + 1 + ids(rng, 2, block_size - t, below=10)) % 11
            after = model(changed)[0].data
            np.testing.assert_array_equal(after[:, :t], before[:, :t])
            assert not np.array_equal(after[:, t], before[:, t])


def test_an_earlier_token_changes_every_later_logit():
    model, x = GPT(TINY), ids(np.random.default_rng(2), 1, 8)
    changed = x.copy()
    changed[0, 0] = (x[0, 0] + 1) % 11
    assert np.all(np.any(model(x)[0].data != model(changed)[0].data, axis=-1))


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_plain_and_fused_attention_agree(dropout):
    config = GPTConfig(11, 8, 1, n_head=4, n_embd=16, dropout=dropout)
    plain, fused = (
        in_float64(PlainCausalSelfAttention(config)),
        in_float64(CausalSelfAttention(config)),
    )
    fused.load_state_dict(plain.state_dict())
    x = tl.tensor(np.random.default_rng(0).standard_normal((2, 8, 16)), requires_grad=True)
    results = []
    for module in (plain, fused):
        y = module(x, RowRandom(0, rows=range(2)))
        weights = [p for _, p in module.named_parameters()]
        results.append([y, *tl.grad((y * y).sum(), [x, *weights])])
    for a, b in zip(*results):
        np.testing.assert_allclose(a.data, b.data, rtol=1e-10, atol=1e-12)


def test_loss_without_logits_is_the_same_loss():
    model, rng = in_float64(GPT(TINY)), np.random.default_rng(3)
    x, y = ids(rng, 3, 8), ids(rng, 3, 8)
    y[0, 3] = -100
    _, loss = model(x, y)
    lean = model.loss(x, y)
    assert lean.item() == pytest.approx(loss.item(), rel=1e-12)
    for a, b in zip(tl.grad(loss, model.parameters()), tl.grad(lean, model.parameters())):
        np.testing.assert_allclose(a.data, b.data, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("bias", [True, False])
def test_gradients_of_the_whole_model(bias):
    """Every parameter of a small model against differences, the tied embedding included."""
    model = in_float64(GPT(GPTConfig(5, 4, n_layer=1, n_head=2, n_embd=4, bias=bias)))
    rng = np.random.default_rng(4)
    x, y = ids(rng, 2, 4, below=5), ids(rng, 2, 4, below=5)
    named = dict(model.named_parameters())
    for p in named.values():
        p.data += 0.3 * rng.standard_normal(p.shape)  # away from the symmetric start

    def loss(*values):
        for path, value in zip(named, values):
            *parts, last = path.split(".")
            owner = model
            for part in parts:
                owner = owner.modules[int(part)] if part.isdigit() else getattr(owner, part)
            setattr(owner, last, value)
        return model.loss(x, y)

    check_grads(loss, list(named.values()), rtol=1e-4, atol=1e-8)


def test_dropout_is_a_function_of_its_key():
    config = GPTConfig(11, 8, 2, 2, 16, dropout=0.3)
    model, rng = GPT(config), np.random.default_rng(5)
    x, y = ids(rng, 4, 8), ids(rng, 4, 8)

    def loss(*key, rows=range(4)):
        return model.loss(x[rows], y[rows], RowRandom(*key, rows=rows)).item()

    assert loss(1, 2) == loss(1, 2) != loss(1, 3)
    halves = loss(1, 2, rows=range(2)) + loss(1, 2, rows=range(2, 4))
    assert halves / 2 == pytest.approx(loss(1, 2), rel=1e-5)
    assert model.loss(x, y).item() != model.loss(x, y).item()  # fresh numbers without a key
    model.eval()
    assert model.loss(x, y).item() == model.loss(x, y).item()


def test_it_learns_one_batch_by_heart():
    model, rng = GPT(GPTConfig(20, 16, n_layer=2, n_head=2, n_embd=32)), np.random.default_rng(6)
    optimizer = tl.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0)
    x, y = ids(rng, 4, 16, below=20), ids(rng, 4, 16, below=20)
    for _ in range(120):
        loss = model.loss(x, y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert loss.item() < 0.05


def test_impossible_shapes_are_refused():
    good = dict(vocab_size=11, block_size=8, n_layer=1, n_head=3, n_embd=12)
    for changes, message in (
        ({"n_embd": 16}, "n_embd must be divisible by n_head: 16 over 3"),
        ({"n_layer": 0}, r"n_layer is a positive integer below 2\*\*31, not 0"),
        ({"vocab_size": 1.5}, "vocab_size is a positive integer"),
        ({"dropout": 1.0}, "dropout"),
    ):
        with pytest.raises(ValueError, match=message):
            GPTConfig(**good | changes)


def test_wrong_ids_are_refused():
    model = GPT(TINY)
    with pytest.raises(ValueError, match="9 tokens are longer than the model's context of 8"):
        model(np.zeros((1, 9), np.int64))
    for bad in (11, -1):
        with pytest.raises(IndexError, match=f"{bad} is outside the vocabulary of 11"):
            model(np.array([[bad]]))
