"""Kernels of losses, the embedding, the update and the causal softmax, against float64 NumPy."""

import contextlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tensorlite as tl
from tensorlite.kernels import embedding, loss, softmax, total, update
from tests.gpu import device  # noqa: F401 - a fixture

BF16 = np.dtype(pytest.importorskip("ml_dtypes").bfloat16)
TOLERANCE = {np.dtype(np.float32): 3e-6, np.dtype(np.float16): 1e-3, BF16: 6e-3}
dtypes = st.sampled_from(list(TOLERANCE))
# Every kernel that is compiled takes a second, so that only float32 comes in ragged rows.
rows_of = st.one_of(
    st.tuples(st.just(np.dtype(np.float32)), st.sampled_from([1, 5, 65, 256, 1001]), st.booleans()),
    st.tuples(dtypes, st.sampled_from([8, 16, 256, 3000]), st.just(False)),
)  # (dtype, columns, whether the array begins at no multiple of 16 bytes)
few = settings(max_examples=25, deadline=None, derandomize=True)


def to_device(x):
    import cupy

    return cupy.asarray(x)


def wide(x):
    """The numbers of an array of the device, in float64."""
    return x.get().astype(np.float64)


def near(got, want, dtype=np.float32, factor=1):
    want = np.asarray(want)
    assert got.shape == want.shape
    limit = factor * TOLERANCE[np.dtype(dtype)] * np.max(np.abs(want), initial=1e-30)
    np.testing.assert_allclose(wide(got), want, rtol=0, atol=limit)


def normal(rng, shape, dtype=np.float32, scale=1.0):
    """Normal numbers on the device."""
    return to_device((scale * rng.standard_normal(shape)).astype(np.float32).astype(dtype))


def unaligned(x):
    """A copy that does not begin at a multiple of 16 bytes."""
    room = to_device(np.zeros(x.size + 1, x.dtype))
    room[1:] = x.reshape(-1)
    return room[1:].reshape(x.shape)


# ---- cross-entropy


def losses(logits, targets, ignored):
    """(the loss of each row, its gradient) in float64, by the definition."""
    n_classes = logits.shape[1]
    counts = (targets != ignored) & (targets >= 0) & (targets < n_classes)
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    at = np.arange(len(targets)), np.where(counts, targets, 0)
    row_loss = np.where(counts, -np.log(p[at]), 0)
    p[at] -= 1
    return row_loss, np.where(counts[:, None], p, 0), counts


@few
@given(st.integers(0, 9), rows_of, st.sampled_from(["mean", "sum", "none"]), st.integers(0, 2**32))
def test_cross_entropy_is_that_of_the_definition(rows, kind, reduction, seed):
    rng = np.random.default_rng(seed)
    dtype, n_classes, odd = kind
    shape = rows, n_classes
    logits = normal(rng, shape, dtype, scale=3)
    logits = unaligned(logits) if odd else logits
    t = rng.integers(-1, shape[1] + 1, shape[0])  # some out of range, which count nothing
    t[3:5] -= 2**32  # as 32 bits, these would be in range
    options = dict(targets=to_device(t), ignore_index=2, reduction=reduction)
    value, vjp = loss.cross_entropy(logits, **options)
    row_loss, gradient, counts = losses(wide(logits), t, 2)
    g = rng.standard_normal(shape[0] if reduction == "none" else ()).astype(np.float32)
    share = 1 / max(counts.sum(), 1) if reduction == "mean" else 1
    near(vjp(to_device(g)), gradient * share * g.reshape(-1, 1), dtype)
    assert value.dtype == np.float32
    if reduction == "none":
        near(value, row_loss)
    elif counts.any() or reduction == "sum":
        near(value, row_loss.sum() * share)
    else:
        assert np.isnan(value.get())


def test_a_sure_answer_has_an_exact_loss_and_gradient():
    """1 - p of the target is computed without cancellation, as on a CPU."""
    logits = np.zeros((2, 64), np.float32)
    logits[:, 3] = 18, 40
    value, vjp = loss.cross_entropy(to_device(logits), targets=np.array([3, 3]), reduction="none")
    rest = 63 * np.exp(-np.float64([18, 40]))
    np.testing.assert_allclose(value.get(), np.log1p(rest), rtol=1e-6)
    gradient = vjp(to_device(np.ones(2, np.float32))).get()
    np.testing.assert_allclose(gradient[:, 3], -rest / (1 + rest), rtol=1e-6)


def test_rows_that_do_not_fit_shared_memory_are_read_twice():
    rng = np.random.default_rng(0)
    logits = normal(rng, (2, 60_001))  # 240 kB a row
    value, vjp = loss.cross_entropy(logits, targets=np.array([60_000, 7]))
    row_loss, gradient, _ = losses(wide(logits), np.array([60_000, 7]), -100)
    near(value, row_loss.mean())
    near(vjp(to_device(np.float32(2))), gradient)


def test_infinite_logits_have_probability_0_and_nan_stays():
    logits = normal(np.random.default_rng(0), (2, 40))
    logits[0, 5:] = -np.inf
    logits[1, 7] = np.nan
    value, vjp = loss.cross_entropy(logits, targets=np.array([3, 3]), reduction="none")
    row_loss, gradient, _ = losses(wide(logits), np.array([3, 3]), -100)
    near(value[0], row_loss[0])
    near(vjp(to_device(np.ones(2, np.float32)))[0], gradient[0])
    assert np.isnan(value.get()[1])


def test_what_the_kernel_does_not_take_is_left_to_the_ordinary_body():
    logits = normal(np.random.default_rng(0), (3, 5))

    def refused(logits=logits, targets=(0, 1, 2), **options):
        return loss.cross_entropy(logits, targets=list(targets), **options) is NotImplemented

    assert not refused()
    assert refused(label_smoothing=0.1) and refused(reduction="max") and refused(targets=[0, 1])
    assert refused(targets=[0, 1, 5]) and refused(targets=[0.0, 1.0, 2.0])
    assert refused(logits=logits.astype(np.float64))


@few
@given(
    st.tuples(st.integers(0, 7), st.integers(1, 40), st.sampled_from([1, 7, 24])),
    dtypes,
    st.booleans(),
    st.sampled_from([2**29, 1000]),
    st.integers(0, 2**32),
)
def test_linear_cross_entropy_is_that_of_the_definition(shape, dtype, mean, chunk, seed):
    rng = np.random.default_rng(seed)
    rows, n_classes, n = shape
    x, weight = normal(rng, (rows, n), dtype), normal(rng, (n_classes, n), dtype)
    t = rng.integers(-1, n_classes, rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loss, "CHUNK", chunk)
        value, vjp = loss.linear_cross_entropy(
            x, weight, targets=t, ignore_index=-1, reduction="mean" if mean else "sum",
            needs=(True, True),
        )  # fmt: skip
        got = vjp(to_device(np.float32(0.5)))
        again = vjp(to_device(np.float32(0.5)))
    row_loss, p, counts = losses(wide(x) @ wide(weight).T, t, -1)
    share = 1 / max(counts.sum(), 1) if mean else 1
    if counts.any() or not mean:
        near(value, row_loss.sum() * share, dtype)
    else:
        assert np.isnan(value.get())
    near(got[0], 0.5 * share * p @ wide(weight), dtype, 4)
    near(got[1], 0.5 * share * p.T @ wide(x), dtype, 4)
    assert got[0].dtype == dtype and got[1].dtype == np.float32
    for a, b in zip(got, again):
        np.testing.assert_array_equal(a.get(), b.get())


def test_linear_cross_entropy_computes_only_what_is_needed():
    rng = np.random.default_rng(0)
    x, weight = normal(rng, (4, 8)), normal(rng, (6, 8))
    t = to_device(np.array([0, 1, 2, 5]))
    for needs in ((True, False), (False, True), (False, False)):
        _, vjp = loss.linear_cross_entropy(x, weight, targets=t, needs=needs)
        got = vjp(to_device(np.float32(1)))
        assert [g is not None for g in got] == list(needs)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_float32_under_autocast_keeps_the_dtypes_of_the_gradients(precision):
    """Small probabilities over many rows: float16 must not lose them."""
    rng = np.random.default_rng(0)
    rows, n_classes, n = 300, 700, 8
    x, weight = normal(rng, (rows, n)), normal(rng, (n_classes, n), scale=0.1)
    t = rng.integers(0, n_classes, rows)
    with tl.autocast(precision):
        value, vjp = loss.linear_cross_entropy(x, weight, targets=t, needs=(True, True))
    gx, g_weight = vjp(to_device(np.float32(1)))
    row_loss, p, _ = losses(wide(x) @ wide(weight).T, t, -100)
    dtype = BF16 if precision == "bfloat16" else np.float16
    near(value, row_loss.mean(), dtype)
    near(gx, p @ wide(weight) / rows, dtype, 2)
    near(g_weight, p.T @ wide(x) / rows, dtype, 2)
    assert gx.dtype == g_weight.dtype == np.float32


# ---- embedding


@few
@given(
    st.sampled_from([0, 1, 2, 33, 300, 2500]),
    st.sampled_from([1, 3, 65, 5000]),
    rows_of,
    st.sampled_from([np.int32, np.int64, np.uint16]),
    st.integers(0, 2**32),
)
def test_embedding_gathers_rows_and_sums_their_gradients(count, rows, kind, id_type, seed):
    rng = np.random.default_rng(seed)
    dtype, n, odd = kind
    table = rows, min(n, 304)
    weight = normal(rng, table)
    ids = rng.integers(0, table[0], count).astype(id_type)
    value, vjp = embedding.embedding(weight, ids=to_device(ids))
    np.testing.assert_array_equal(value.get(), weight.get()[ids])
    g = normal(rng, (count, table[1]), dtype)
    g = unaligned(g) if odd else g
    deferred = vjp(g)
    want = np.zeros(table)
    np.add.at(want, ids, wide(g))
    assert deferred.shape == table and deferred.dtype == np.float32
    near(deferred.array(), want)
    before = normal(rng, table)
    both = deferred.plus(before)
    near(both, want + wide(before))
    assert deferred.plus(before, out=before) is before
    np.testing.assert_array_equal(before.get(), both.get())


def test_ids_of_the_host_are_checked_and_others_give_nan():
    weight = normal(np.random.default_rng(0), (4, 3))
    assert embedding.embedding(weight, ids=np.array([0, 4])) is NotImplemented
    assert embedding.embedding(weight, ids=np.array([0.5])) is NotImplemented
    value, vjp = embedding.embedding(weight, ids=to_device(np.array([[4, 1], [-1, 1]])))
    assert np.isnan(value.get()[:, 0]).all()
    np.testing.assert_array_equal(value.get()[:, 1], weight.get()[[1, 1]])
    g = to_device(np.ones((2, 2, 3), np.float32))
    np.testing.assert_array_equal(vjp(g).array().get(), [[0] * 3, [2] * 3, [0] * 3, [0] * 3])


def test_embedding_of_low_precision_keeps_its_dtype():
    rng = np.random.default_rng(0)
    weight, ids = normal(rng, (6, 8), BF16), np.array([3, 3, 1])
    value, vjp = embedding.embedding(weight, ids=ids)
    assert value.dtype == BF16
    np.testing.assert_array_equal(wide(value), wide(weight)[ids])
    got = vjp(value).array()
    want = np.zeros((6, 8))
    np.add.at(want, ids, wide(value))
    assert got.dtype == BF16
    near(got, want, BF16)


# ---- the update


def parameters(sizes, seed=0, **options):
    """A table of parameters on the device, and copies of its arrays in float64."""
    rng = np.random.default_rng(seed)
    p, g, m, v = ([normal(rng, size) for size in sizes] for _ in range(4))
    v = [np.abs(a) for a in v]
    p[0], g[-1] = unaligned(p[0]), unaligned(g[-1])
    arrays = [[wide(a) for a in column] for column in (p, g, m, v)]
    return update.Table(p, g, m, v, **options), arrays


def test_sum_of_squares_is_that_of_all_gradients():
    table, (_, g, _, _) = parameters([1, 7, 20_001, 8192, 128])
    near(update.sum_of_squares(table), [sum((a**2).sum() for a in g)], factor=0.1)


@pytest.mark.parametrize("max_norm", [None, 0.5, 1e9])
@pytest.mark.parametrize("loss_scale", [1.0, 1024.0])
def test_adamw_is_the_optimizers(max_norm, loss_scale):
    sizes = [1, 7, 20_001, 8192, (4, 32)]
    options = [
        dict(lr=1e-2, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1),
        dict(lr=1e-3, betas=(0.9, 0.999), eps=1e-6, weight_decay=0.0),
    ]
    table, before = parameters(sizes, groups=[0, 1, 0, 1, 1])
    model = [tl.tensor(p.get().copy(), requires_grad=True) for p in table.params]
    groups = [[0, 2], [1, 3, 4]]
    order = sum(groups, [])
    optimizer = tl.optim.AdamW(
        [{"params": [model[i] for i in group]} | o for group, o in zip(groups, options)]
    )
    for name, column in (("m", table.columns[2]), ("v", table.columns[3])):
        for mine, i in zip(optimizer.state[name], order):
            mine[...] = column[i].get()
    optimizer.updates = [4] * len(sizes)
    for p, g in zip(model, table.columns[1]):
        p.grad = tl.tensor(g.get() / np.float32(loss_scale))
    square = None
    if max_norm is not None:
        optimizer.clip_grad_norm(max_norm)
        square = update.sum_of_squares(table)
    optimizer.step()
    clip = {} if max_norm is None else {"max_norm": max_norm}
    rows = [update.adamw_settings(5, **o, **clip, loss_scale=loss_scale) for o in options]
    update.adamw(table, to_device(np.stack(rows)), square)
    for place, i in enumerate(order):
        near(table.params[i], model[i].numpy(), factor=0.3)
        near(table.columns[2][i], optimizer.state["m"][place], factor=0.3)
        near(table.columns[3][i], optimizer.state["v"][place], factor=0.3)
        step = np.abs(model[i].numpy() - before[0][i]).max()
        assert np.abs(wide(table.params[i]) - model[i].numpy()).max() < 1e-3 * step


@pytest.mark.parametrize("wrong", [np.inf, np.nan])
def test_a_gradient_that_is_not_finite_changes_nothing(wrong):
    table, before = parameters([5, 9000])
    table.columns[1][1][17] = wrong
    rows = to_device(update.adamw_settings(1, 1e-2, (0.9, 0.95), 1e-8, 0.1)[None])
    square = update.sum_of_squares(table)
    update.adamw(table, rows, square)
    for column, old in zip((table.columns[0], *table.columns[2:4]), (before[0], *before[2:])):
        for a, b in zip(column, old):
            np.testing.assert_array_equal(wide(a), b)


@pytest.mark.parametrize("dtype", [BF16, np.float16])
def test_copies_are_rounded_parameters(dtype):
    sizes = [1, 7, 9001, (4, 32)]
    copies = [None if i == 1 else to_device(np.zeros(size, dtype)) for i, size in enumerate(sizes)]
    table, _ = parameters(sizes, copies=copies)
    update.cast_all(table)

    def check():
        for copy, p in zip(copies, table.params):
            if copy is not None:
                np.testing.assert_array_equal(copy.get(), p.get().astype(dtype))

    check()
    rows = to_device(update.adamw_settings(1, 1e-2, (0.9, 0.95), 1e-8, 0.1)[None])
    update.adamw(table, rows)
    check()


def test_a_table_takes_other_gradients_and_none():
    table, before = parameters([6, 9000])
    other = to_device(np.full(6, 2, np.float32))
    table.fill([other, None])
    near(update.sum_of_squares(table), [24.0])
    rows = to_device(update.adamw_settings(1, 1e-2, (0.9, 0.95), 1e-8, 0.1)[None])
    update.adamw(table, rows)
    np.testing.assert_array_equal(wide(table.params[1]), before[0][1])
    assert not np.array_equal(wide(table.params[0]), before[0][0])


def test_a_table_refuses_arrays_that_do_not_fit():
    p = [to_device(np.zeros((2, 3), np.float32))]
    with pytest.raises(ValueError, match="grad of parameter 0 is of dtype float32 and shape"):
        update.Table(p, [to_device(np.zeros(5, np.float32))])
    with pytest.raises(ValueError, match="param of parameter 0"):
        update.Table([p[0].astype(np.float64)])
    with pytest.raises(ValueError, match="2 arrays"):
        update.Table(p, p + p)


# ---- causal softmax


@few
@given(
    st.tuples(st.integers(1, 3), st.sampled_from([1, 5, 40]), st.sampled_from([0, 3])),
    st.booleans(),
    st.integers(0, 2**32),
)
def test_causal_softmax_and_its_gradient(shape, dropout, seed):
    rng = np.random.default_rng(seed)
    n, T, more = shape
    S = T + more
    scores, g = 4 * rng.standard_normal((n, T, S)), normal(rng, (n, T, S))
    keep, p_drop = (rng.random((n, T, S)) > 0.3, 0.3) if dropout else (None, 0.0)
    seen = np.arange(S) <= np.arange(T)[:, None] + more
    scores = to_device(np.where(seen, scores, np.nan).astype(np.float32))  # NaN is not read
    p = np.exp(np.where(seen, wide(scores) * 0.5, -np.inf))
    p /= p.sum(axis=-1, keepdims=True)
    mask = 1.0 if keep is None else keep / 0.7
    back = wide(g) * mask
    want = p * (back - (back * p).sum(axis=-1, keepdims=True)) * 0.5
    kept = None if keep is None else to_device(keep)
    weights = softmax.causal_softmax(scores, 0.5, kept, p_drop)
    near(weights, p * mask)
    near(scores, p)
    assert softmax.causal_softmax_backward(scores, g, 0.5, kept, p_drop) is g
    near(g, want)


# ---- sums


def test_totals_are_summed_in_double_precision():
    x = to_device(np.float32([1e8, 1, -1e8] * 700))
    assert total.total(x).get() == 700
    assert np.isnan(total.total(x[:0], to_device(np.zeros(1, np.float32))).get())
    t = to_device(np.array([0, 3, -1, 4, 2, 3]))
    np.testing.assert_array_equal(total.count_targets(t, 2, 4).get(), np.float32([3, 1 / 3]))


# ---- as operations


@pytest.mark.parametrize("precision", [None, "bfloat16"])
def test_a_tied_model_has_the_gradients_of_the_cpu(precision):
    """The output layer's gradient and the embedding's add up in one array."""
    rng = np.random.default_rng(0)
    table, ids = rng.standard_normal((20, 8)).astype(np.float32), rng.integers(0, 20, (3, 7))

    def gradients(place):
        weight = tl.tensor(place(table), requires_grad=True)
        x = tl.embedding(weight, place(ids[:, :-1]))
        value = tl.linear_cross_entropy(x, weight, place(ids[:, 1:]))
        (value + tl.cross_entropy(x, place(ids[:, 1:] % 8), reduction="sum")).backward()
        return value.data, weight.grad.data

    want, want_gradient = gradients(np.asarray)
    with tl.autocast(precision) if precision else contextlib.nullcontext():
        value, gradient = gradients(to_device)
    dtype = BF16 if precision else np.float32
    near(value, want, dtype)
    near(gradient, want_gradient, dtype)
