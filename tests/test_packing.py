"""Several texts in a row give what each of them gives alone."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tensorlite as tl
from gpt import GPTConfig, LlamaConfig, ModernConfig, models
from gpt.data import IGNORE, inputs_and_targets, pack, packed_inputs_and_targets
from gpt.models import Packed
from tensorlite.device import RowRandom

SIZES = dict(vocab_size=50, block_size=24, n_layer=2, n_head=4, n_embd=16)
CONFIGS = {
    "gpt2": GPTConfig(**SIZES),
    "llama": LlamaConfig(**SIZES, n_kv_head=2),
    "windows": LlamaConfig(**SIZES, n_kv_head=2, windows=(3, 3), family="mistral"),
    "modern": ModernConfig(**SIZES, rotary=True, qk_norm=True, ngrams=(2, 3), logit_cap=5.0),
    "qwen3": LlamaConfig(**SIZES, qk_norm=True, head_size=6, windows=(None, 4)),
}
LENGTHS = [9, 3, 12, 7, 2, 5, 24, 2]


def texts():
    """Ids and masks of several conversations; some have no target at all."""
    rng = np.random.default_rng(3)
    ids = [rng.integers(0, 50, n + 1) for n in LENGTHS]
    counted = [rng.random(n + 1) < 0.6 for n in LENGTHS]
    counted[3][:] = False
    return ids, counted


def gradients(model, loss):
    loss.backward()
    found = {name: p.grad.data.copy() for name, p in model.named_parameters() if p.grad is not None}
    for p in model.parameters():
        p.grad = None
    return found


def assert_close(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        scale = max(np.abs(value).max(), 1e-3)
        np.testing.assert_allclose(found[name], value, atol=2e-6 * scale + 1e-7, err_msg=name)


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("name", CONFIGS)
def test_packed_is_unpacked(name, recompute):
    model = models.make(CONFIGS[name])
    model.recompute = recompute
    ids, counted = texts()
    x, y = inputs_and_targets(ids, counted)  # a text in each row, padded
    expected = model.loss(x, y)
    expected_gradients = gradients(model, expected)
    rows = pack(LENGTHS, 24)
    assert len(rows) < len(LENGTHS) / 2
    x, y, segments = packed_inputs_and_targets(ids, counted, rows)
    loss = model.loss(x, y, packed=Packed(segments))
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)
    assert_close(gradients(model, loss), expected_gradients)
    # Where every text counts as if it were alone, without the mask it would not.
    assert abs(model.loss(x, y).item() - expected.item()) > 1e-4


@pytest.mark.parametrize("name", CONFIGS)
def test_a_text_sees_nothing_of_the_others(name):
    model = models.make(CONFIGS[name])
    ids, counted = texts()
    x, y, segments = packed_inputs_and_targets(ids, counted, [[0, 3, 5], [6]])
    packed, mine = Packed(segments), segments[0] == 1
    before = model.hidden(x, None, packed).data[0]
    rng = np.random.default_rng(0)
    for others in (segments == 0, segments == 2):
        changed = np.where(others, rng.integers(0, 50, x.shape), x)
        after = model.hidden(changed, None, packed).data[0]
        assert np.array_equal(after[mine], before[mine])
        assert not np.allclose(after[others[0]], before[others[0]], atol=1e-3)
    # Its gradient reaches no embedding of theirs.
    theirs = np.where(segments == 1, x % 40, 45 + segments)[:1]
    loss = model.hidden(theirs, None, Packed(segments[:1]))[0, np.flatnonzero(mine)].sum()
    table = model.head.weight
    reached = np.flatnonzero(np.abs(tl.grad(loss, table)[0].data).sum(axis=1))
    assert set(reached) <= set(theirs[0, mine])


def test_targets_that_are_masked_change_nothing():
    model = models.make(CONFIGS["gpt2"])
    ids, counted = texts()
    rows = pack(LENGTHS, 24)
    x, y, segments = packed_inputs_and_targets(ids, counted, rows)
    expected = gradients(model, model.loss(x, y, packed=Packed(segments)))
    # The last id of each text is a target alone: where it is masked, it is seen nowhere.
    other = [np.append(i[:-1], i[-1] if c[-1] else (i[-1] + 1) % 50) for i, c in zip(ids, counted)]
    assert any((a != b).any() for a, b in zip(ids, other))
    x2, y2, segments = packed_inputs_and_targets(other, counted, rows)
    assert np.array_equal(x, x2) and np.array_equal(y, y2)
    found = gradients(model, model.loss(x2, y2, packed=Packed(segments)))
    assert all(np.array_equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_dropout_draws_by_row_and_recomputes_the_same(name):
    model = models.with_config(models.make(CONFIGS[name]), dropout=0.3).train()
    ids, counted = texts()
    x, y, segments = packed_inputs_and_targets(ids, counted, pack(LENGTHS, 24))

    def run(part, recompute):
        model.recompute = recompute
        rng = RowRandom(1, "dropout", rows=range(len(x))[part])
        loss = model.loss(x[part], y[part], rng, Packed(segments[part]))
        return loss.item(), gradients(model, loss)

    (loss, expected), (again, found) = run(slice(None), False), run(slice(None), True)
    assert loss == again and all(np.array_equal(found[name], expected[name]) for name in expected)
    assert loss != pytest.approx(model.eval().loss(x, y, packed=Packed(segments)).item(), abs=1e-4)
    model.train()
    n = (y != IGNORE).sum(axis=1)
    parts = sum(run(slice(i, i + 1), False)[0] * n[i] for i in range(len(x)) if n[i]) / n.sum()
    assert parts == pytest.approx(loss, abs=1e-5)


def test_rows_of_a_packing():
    x, y, segments = packed_inputs_and_targets(*texts(), pack(LENGTHS, 24))
    assert x.shape == y.shape == segments.shape and x.shape[1] == 24
    assert (segments >= 0).sum() == sum(LENGTHS)
    assert np.all(y[segments < 0] == IGNORE)
    packed = Packed(segments)
    for row, places in zip(segments, packed.places(24)):
        runs = [list(run) for _, run in itertools.groupby(zip(row, places), key=lambda p: p[0])]
        assert [[place for _, place in run] for run in runs] == [list(range(len(r))) for r in runs]
    with pytest.raises(ValueError, match="25 tokens are longer than the model's context of 24"):
        long = np.zeros((1, 25), np.int64)
        models.make(CONFIGS["gpt2"]).loss(long, long, packed=Packed(long))


@given(st.lists(st.integers(1, 20), max_size=60))
def test_every_text_is_packed_once_and_tightly(lengths):
    rows = pack(lengths, 20)
    assert sorted(itertools.chain(*rows)) == list(range(len(lengths)))
    used = [sum(lengths[i] for i in row) for row in rows]
    assert max(used, default=0) <= 20
    assert len(rows) <= 11 / 9 * -(-sum(lengths) // 20) + 4 or min(lengths) > 10 / 3
    assert pack(lengths, 20) == rows
    with pytest.raises(ValueError, match="text 1 has 21 tokens, a row has room for 20"):
        pack([3, 21], 20)
