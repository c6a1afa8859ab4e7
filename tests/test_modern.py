"""The modern family computes what a plain PyTorch program computes, whole or token by token."""

import itertools

import numpy as np
import pytest

from gpt import Modern, ModernConfig, generate_ids, models
from gpt.generate.context import Context
from gpt.models.modern_config import PARTS, name_parts, read_parts
from gpt.training.optimizer import block_matrices
from tensorlite.device import RowRandom

SIZES = dict(vocab_size=41, block_size=16, n_layer=2, n_head=2, n_embd=16)
EVERY = [
    "",
    "rotary",
    "qk_norm,tied",
    "relu2,logit_cap=3",
    "embedding_norm,rotary",
    "ngrams=2",
    "ngrams=2+3,rotary",
    ",".join(PARTS),
]


def make(parts: str, **changes) -> Modern:
    """A small model with weights that differ everywhere."""
    model = models.make(ModernConfig(**SIZES | read_parts(parts) | changes))
    rng = np.random.default_rng(0)
    for p in model.parameters():
        p.data[...] = 0.3 * rng.standard_normal(p.shape)
    return model


def ids(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, SIZES["vocab_size"], shape)


def in_pytorch(model: Modern, x, y):
    """(logits, loss, weights by name) of the same model, spelled out with none of our functions."""
    torch = pytest.importorskip("torch")
    F, c = torch.nn.functional, model.config
    w = {name: torch.tensor(p.data, requires_grad=True) for name, p in model.named_parameters()}
    (B, T), hs, x, y = x.shape, c.n_embd // c.n_head, torch.tensor(x), torch.tensor(y)

    def norm(a):
        return F.rms_norm(a, (a.shape[-1],), eps=c.norm_eps)

    def turn(a):  # (B, nh, T, hs): a complex number is turned back by its place's angle
        pairs = torch.complex(a[..., : hs // 2], a[..., hs // 2 :])
        frequency = c.rope_theta ** (-torch.arange(0, hs, 2) / hs)
        angle = torch.outer(torch.arange(T), frequency)
        pairs = pairs * torch.polar(torch.ones_like(angle), -angle)
        return torch.cat([pairs.real, pairs.imag], -1)

    stream = w["wte.weight"][x]
    for i, n in enumerate(c.ngrams):
        rows = [[row_of(c, n, text[max(0, t - n + 1) : t + 1]) for t in range(T)] for text in x]
        stream = stream + w[f"ngrams.{i}.weight"][torch.tensor(rows)]
    if not c.rotary:
        stream = stream + w["wpe.weight"][:T]
    stream = norm(stream) if c.embedding_norm else stream
    for i in range(c.n_layer):
        q, k, v = (norm(stream) @ w[f"h.{i}.attn.c_attn.weight"]).split(c.n_embd, dim=-1)
        q, k, v = (a.view(B, T, c.n_head, hs).transpose(1, 2) for a in (q, k, v))
        if c.rotary:
            q, k = turn(q), turn(k)
        if c.qk_norm:
            q, k = norm(q), norm(k)
        a = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        stream = stream + a.transpose(1, 2).reshape(B, T, -1) @ w[f"h.{i}.attn.c_proj.weight"]
        a = norm(stream) @ w[f"h.{i}.mlp.c_fc.weight"]
        a = F.relu(a).square() if c.relu2 else F.gelu(a, approximate="tanh")
        stream = stream + a @ w[f"h.{i}.mlp.c_proj.weight"]
    logits = norm(stream) @ w["wte.weight" if c.tied else "lm_head.weight"].T
    if c.logit_cap is not None:
        logits = c.logit_cap * torch.tanh(logits / c.logit_cap)
    return logits, F.cross_entropy(logits.flatten(0, 1), y.flatten()), w


def row_of(config, n: int, last) -> int:
    """The row of an n-gram, of whose ids those before the text are missing."""
    K = config.ngram_vocab
    last = [K] * (n - len(last)) + [min(int(i), K) for i in last]
    exact = (K + 1) ** n <= config.ngram_rows
    base = K + 1 if exact or K % 2 == 0 else K + 2
    number = sum(i * base**j for j, i in enumerate(last)) % 2**64
    if exact:
        return number
    return (number * 0x9E3779B97F4A7C15 % 2**64 >> 32) % config.ngram_rows


@pytest.mark.parametrize("parts", EVERY)
def test_logits_loss_and_gradients_are_those_of_pytorch(parts):
    model, x, y = make(parts, ngram_rows=2000), ids(3, 16), ids(3, 16, seed=1)
    logits, loss, weights = in_pytorch(model, x, y)
    ours, our_loss = model(x, y)
    np.testing.assert_allclose(ours.numpy(), logits.detach().numpy(), rtol=0, atol=3e-5)
    assert our_loss.item() == pytest.approx(loss.item(), rel=1e-5)
    loss.backward()
    found = model.loss(x, y)
    assert found.item() == pytest.approx(loss.item(), rel=1e-5)
    found.backward()
    assert len(weights) == len(model.parameters())
    for name, p in model.named_parameters():
        expected = weights[name].grad.numpy()
        scale = np.abs(expected).max()
        assert scale > 0
        np.testing.assert_allclose(p.grad.numpy(), expected, atol=2e-4 * scale, err_msg=name)


def test_ngrams_have_rows_of_their_own_where_there_is_room():
    config = ModernConfig(3, 8, 1, 1, 4, ngrams=(2, 3), ngram_rows=64)
    model, texts = Modern(config), np.array([*itertools.product(range(3), repeat=3)])
    places = np.arange(3)
    assert config.count_ngrams(2) == 16 and config.count_ngrams(3) == 64
    for n, different in ((2, 3 + 9), (3, 3 + 9 + 27)):
        assert len(np.unique(model.ngram_ids(n, texts, places))) == different
    few = Modern(ModernConfig(50_000, 8, 1, 1, 4, ngrams=(8,), ngram_rows=1000))
    numbers = np.random.default_rng(0).integers(0, 50_000, (500, 8))
    rows = few.ngram_ids(8, numbers, np.arange(8))
    counts = np.bincount(rows.ravel(), minlength=1000)
    assert rows.min() >= 0 and len(counts) == 1000 and counts.max() < 20
    for j in range(8):  # each of the eight ids counts
        changed = numbers.copy()
        changed[:, j] = (changed[:, j] + 1) % 50_000
        assert (few.ngram_ids(8, changed, np.arange(8))[:, -1] != rows[:, -1]).mean() > 0.98


@pytest.mark.parametrize("parts", EVERY)
def test_with_a_cache_as_without(parts):
    """Token by token, in chunks, texts of different lengths, kept ones, beyond the context."""
    model, n = make(parts).eval(), SIZES["block_size"]
    cached, plain = Context(model, n, chunk=6), Context(model, n, use_cache=False)
    rng = np.random.default_rng(2)
    texts = [[*map(int, ids(k, seed=k))] for k in (3, 9, 1, 6)]
    for _ in range(7):
        np.testing.assert_allclose(cached.read(texts, 1), plain.read(texts, 1), atol=2e-5)
        texts = [[*text, int(rng.integers(0, 41))] for text in texts]
    rows = [2, 0, 2]  # the longest is forgotten, and one is there twice
    cached.keep(rows)
    texts = [[*texts[i], i + j] for j, i in enumerate(rows)]
    np.testing.assert_allclose(cached.read(texts), plain.read(texts), atol=2e-5)
    longer = [
        generate_ids(model, [[1, 2], [3]], 24, 1.0, seed=1, use_cache=u) for u in (True, False)
    ]
    assert longer[0] == longer[1]
    ahead = generate_ids(model, [[1, 2, 1, 2]], 12, 0.0, draft="ngrams")
    assert ahead == generate_ids(model, [[1, 2, 1, 2]], 12, 0.0, use_cache=False)


@pytest.mark.parametrize("parts", ["rotary,qk_norm", ",".join(PARTS)])
def test_recomputing_and_dropout(parts):
    model, x, y = make(parts, dropout=0.2), ids(3, 16), ids(3, 16, seed=1)

    def loss(recompute):
        model.recompute = recompute
        loss = model.loss(x, y, RowRandom(7, "dropout", rows=range(3)))
        loss.backward()
        found = [p.grad.numpy().copy() for p in model.parameters()]
        for p in model.parameters():
            p.grad = None
        return loss.item(), found

    plain = model.eval().loss(x, y).item()
    model.train()
    (once, gradients), (again, same) = loss(False), loss(True)
    assert once == again != plain
    for a, b in zip(gradients, same):
        np.testing.assert_array_equal(a, b)


def test_how_a_model_begins():
    model = models.make(ModernConfig(**SIZES, **read_parts(",".join(PARTS))))
    state = model.state_dict()
    assert not any(p.any() for name, p in state.items() if name.endswith("c_proj.weight"))
    assert state["h.1.attn.c_attn.weight"].std() > 0.01
    other = models.make(ModernConfig(**SIZES)).state_dict()
    assert all(p.any() for p in other.values())


def test_muon_has_the_matrices_of_the_blocks():
    model = make(",".join(PARTS))
    names = {id(p): name for name, p in model.named_parameters()}
    splits = {names[id(p)]: n for p, n in block_matrices(model).items()}
    ends = {"attn.c_attn": 3, "attn.c_proj": 1, "mlp.c_fc": 1, "mlp.c_proj": 1}
    assert splits == {f"h.{i}.{end}.weight": n for i in (0, 1) for end, n in ends.items()}


@pytest.mark.parametrize("parts", EVERY)
def test_other_shapes_of_a_model(parts):
    model, x = make(parts).eval(), ids(2, 9)
    before = model(x)[0].numpy()
    longer = models.with_config(model, vocab_size=50, block_size=9).eval()
    after = longer(x)[0].numpy()
    np.testing.assert_allclose(after[..., :41], before, atol=1e-5)
    assert after.shape == (2, 9, 50) and np.isfinite(longer(x + 9)[0].numpy()).all()


def test_parts_are_read_and_named():
    for parts in EVERY:
        fields = read_parts(parts)
        config = ModernConfig(**SIZES, **fields)
        assert read_parts(name_parts(vars(config))) == fields
        assert all(getattr(config, name) == value for name, value in fields.items())
    for wrong in ("rotray", "rotary=1", "logit_cap=x", "ngrams=2+x", "rotary,,gelu"):
        with pytest.raises(ValueError, match="--parts has"):
            read_parts(wrong)


@pytest.mark.parametrize(
    "changes, words",
    [
        (dict(bias=True), "no biases"),
        (dict(rotary=True, n_head=16), "n_embd / n_head is even, not 1"),
        (dict(logit_cap=0.0), "logit_cap is a number above 0"),
        (dict(logit_cap=float("nan")), "logit_cap is a number above 0"),
        (dict(ngrams=(1,)), "different lengths from 2 to 8"),
        (dict(ngrams=(2, 2)), "different lengths from 2 to 8"),
        (dict(ngrams=2), "different lengths from 2 to 8"),
        (dict(rotary="yes"), "rotary is True or False, not 'yes'"),
        (dict(ngram_rows=0), "ngram_rows is a positive integer"),
        (dict(n_inner=0), "n_inner is a positive integer"),
        (dict(norm_eps=0.0), "norm_eps is a number above 0"),
        (dict(rope_theta=1), "rope_theta is a number above 1"),
        (dict(n_head=3), "divisible"),
    ],
)
def test_shapes_that_no_model_has(changes, words):
    with pytest.raises(ValueError, match=words):
        ModernConfig(**SIZES | changes)
