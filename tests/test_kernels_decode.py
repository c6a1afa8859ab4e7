"""The kernels of writing text, executed by the emulator, against NumPy in float64."""

import numpy as np
import pytest

from gpt.generate import Sampling
from tensorlite.kernels import decode
from tensorlite.kernels.draw import State, draw, fractions
from tensorlite.kernels.launch import empty
from tests.gpu import agree, cuda, numbers, on_device  # noqa: F401 - cuda is a fixture

EPS = 1e-5


def layer_norm(x, weight, bias):
    x = x - x.mean(axis=-1, keepdims=True)
    return x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + EPS) * weight + bias


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


@pytest.mark.parametrize(
    ("dtype", "rows", "K", "N"),
    [
        ("float32", 1, 48, 20),
        ("bfloat16", 3, 2064, 72),  # more rows of the weight than a block has on their way
        ("float16", 2, 40, 2120),  # so many columns that threads stand side by side
    ],
)
def test_products_of_a_few_rows(dtype, rows, K, N):
    x, w, b = numbers((rows, K), "float32"), numbers((K, N), dtype), numbers((N,), "float32")
    of_norm = numbers((2, K), "float32")
    given_x, given_w, given_b = map(on_device, (x, w, b))
    norm = (*map(on_device, of_norm), EPS)
    w64, normed = w.astype(np.float64), layer_norm(x.astype(np.float64), *of_norm)
    agree(decode.few_rows(given_x, given_w, given_b, norm), normed @ w64 + b)
    plain = (None, None, EPS)
    expected = gelu(layer_norm(x.astype(np.float64), 1, 0) @ w64)
    agree(decode.few_rows(given_x, given_w, None, plain, "gelu"), expected)
    stream, low = numbers((rows, N), "float32", 1), x.astype(w.dtype)
    into = on_device(stream)
    decode.few_rows(on_device(low), given_w, given_b, then="add", out=into)
    agree(into, stream + low.astype(np.float64) @ w64 + b)


@pytest.mark.parametrize(
    ("dtype", "rows", "K", "N"), [("float32", 1, 132, 29), ("bfloat16", 5, 264, 45)]
)
def test_logits_of_a_few_rows(dtype, rows, K, N):
    x, table, of_norm = (
        numbers(s, d) for s, d in [((rows, K), "float32"), ((N, K), dtype), ((2, K), "float32")]
    )
    logits = empty((rows, N), np.float32)
    norm = (*map(on_device, of_norm), EPS)
    decode.few_rows_head(on_device(x), norm, on_device(table), logits)
    expected = layer_norm(x.astype(np.float64), *of_norm) @ table.astype(np.float64).T
    agree(logits, expected)


def test_embeddings_at_the_places_of_the_texts():
    tokens, places = numbers((7, 300), "float32"), numbers((9, 300), "float32", 1)
    token, slot, begin = (np.array(a, np.int32) for a in ([6, 0, 2], [8, 5, 5], [0, 5, 1]))
    stream = empty((3, 300), np.float32)
    decode.embed(*map(on_device, (token, slot, begin, tokens, places)), stream)
    agree(stream, (tokens[token] + places[slot - begin]).astype(np.float64))


@pytest.mark.parametrize(
    ("dtype", "B", "heads", "shared", "size", "head_size", "window"),
    [
        ("float32", 2, 2, 1, 20, 16, None),
        ("bfloat16", 2, 4, 2, 290, 64, None),  # two heads share keys, many positions
        ("bfloat16", 1, 1, 1, 70, 80, 9),  # a head that is no power of 2, a window
        ("float16", 3, 1, 1, 300, 128, None),
    ],
)
def test_attention_of_one_new_position(dtype, B, heads, shared, size, head_size, window):
    kv_heads, C = heads // shared, heads * head_size
    Ck = kv_heads * head_size
    qkv = numbers((B, C + 2 * Ck), dtype)
    cached = numbers((2, B, kv_heads, size, head_size), dtype)
    slot = np.array([size - 1, 3, size // 2][:B], np.int32)
    begin = np.array([0, 3, 5][:B], np.int32)
    given = on_device(qkv)
    q, k, v = given[:, :C], given[:, C : C + Ck], given[:, C + Ck :]
    keys, values = map(on_device, cached)
    y = decode.attend(q, k, v, keys, values, on_device(slot), on_device(begin), heads, window)

    new = qkv[:, C:].reshape(B, 2, kv_heads, head_size)
    for b in range(B):
        cached[:, b, :, slot[b]] = new[b]
    expected = np.empty((B, heads, head_size))
    for b, h in np.ndindex(B, heads):
        first = max(begin[b], slot[b] - window + 1 if window else 0)
        k, v = cached[:, b, h // shared, first : slot[b] + 1].astype(np.float64)
        query = qkv[b, h * head_size : (h + 1) * head_size].astype(np.float64)
        weights = np.exp((k - k[-1:]) @ query / np.sqrt(head_size))
        expected[b, h] = weights @ v / weights.sum()
    agree(y, expected.reshape(B, C))
    assert (keys.get() == cached[0]).all() and (values.get() == cached[1]).all()


def test_attention_that_there_is_no_kernel_for():
    q, cache = on_device(numbers((1, 12), "float32")), on_device(numbers((1, 1, 8, 12), "float32"))
    at = on_device(np.zeros(1, np.int32))
    assert decode.attend(q, q, q, cache, cache, at, at, 1) is NotImplemented
    assert not decode.takes_few_rows(9, 64, [])
    assert not decode.takes_few_rows(1, 64, [on_device(numbers((8, 30), "float32"))])
    assert decode.takes_few_rows(1, 64, [on_device(numbers((8, 32), "bfloat16"))])


# ---- the next token ------------------------------------------------------------------------------


def drawn(logits, uniform, bias=None, filters=()):
    """(tokens, their log-probabilities) of a step that is a text's second."""
    B, V = logits.shape
    state = State(empty, B, 2, 10)
    for array, value in ((state.step, 1), (state.slot, 4)):
        array[...] = value
    state.uniform[1] = on_device(fractions(uniform))
    logprobs = empty((2, B), np.float32)
    bias = bias if bias is None else on_device(bias)
    draw(on_device(logits), state, bias, *filters, logprobs=logprobs)
    assert state.step.get().tolist() == [2] * B and state.slot.get().tolist() == [5] * B
    tokens = state.tokens[1].get().tolist()
    assert state.token.get().tolist() == [max(0, t) for t in tokens]
    return tokens, logprobs[1].get()


def by_definition(logits, uniform, bias, filters):
    sampling = Sampling(*filters)
    rows = logits.astype(np.float64)
    if bias is not None:
        rows = rows[:, : len(bias)] + bias
    return [sampling.draw(row, u) for row, u in zip(rows, uniform)]


def cases():
    """Logits, biases and filters, many of them with ties, filtered ids and few ids left."""
    rng = np.random.default_rng(0)
    for V in (1, 7, 33, 300, 1030, 2500):
        for _ in range(4):
            logits = (rng.standard_normal((2, V)) * rng.choice([0.1, 2, 20])).astype(np.float32)
            if rng.random() < 0.4:
                logits = np.round(logits)
            n, bias = int(rng.integers(1, V + 1)), None
            if rng.random() < 0.5:
                bias = np.where(rng.random(n) < 0.2, -np.inf, rng.standard_normal(n))
                bias[rng.integers(n)] = 1
                bias = bias.astype(np.float32)
            top_k = int(rng.integers(1, V + 2)) if rng.random() < 0.5 else None
            top_p = float(rng.choice([0.1, 0.5, 0.9, 0.999])) if rng.random() < 0.5 else None
            min_p = float(rng.choice([0.01, 0.3])) if rng.random() < 0.3 else None
            filters = float(rng.choice([0, 0.7, 1, 3])), top_k, top_p, min_p
            yield logits, rng.random(2), bias, filters


def test_tokens_are_those_that_sampling_draws():
    for logits, uniform, bias, filters in cases():
        tokens, logprobs = drawn(logits, uniform, bias, filters)
        assert tokens == by_definition(logits, uniform, bias, filters), (logits.shape, filters)
        z = logits - logits.max(axis=1, keepdims=True).astype(np.float64)
        z -= np.log(np.exp(z).sum(axis=1, keepdims=True))
        np.testing.assert_allclose(logprobs, [row[t] for row, t in zip(z, tokens)], atol=1e-5)


def test_more_candidates_than_there_is_room_for():
    logits = np.zeros((2, 3000), np.float32)  # all alike: the lower ids go first
    for filters in ((1.0, 2500), (1.0, None, 0.75), (1.0, 2800, 0.5), (1.0, None, None, 1.0)):
        uniform = [0.0, 1 - 2**-53]
        assert drawn(logits, uniform, None, filters)[0] == by_definition(
            logits, uniform, None, filters
        )


def test_every_part_of_the_range_of_random_numbers():
    logits = np.log(np.array([[1, 2, 0, 1, 4]], np.float32).clip(1e-30))
    for eighths in range(8):
        for u in (eighths / 8, (eighths + 1) / 8 - 2**-20):
            tokens, _ = drawn(logits, [u], None, (1.0,))
            assert tokens == [[0, 1, 1, 3, 4, 4, 4, 4][eighths]]


def test_temperatures_that_leave_one_token():
    logits = np.array([[1, 3, 3, 2]], np.float32)
    assert drawn(logits, [0.99], None, (0.0,))[0] == [1]  # of equal ones the first
    assert drawn(logits, [0.99], None, (1e-30,))[0] == [2]
    assert drawn(logits, [0.49], None, (1e-30,))[0] == [1]


@pytest.mark.parametrize("wrong", [np.nan, -np.nan, np.inf])
def test_logits_that_are_not_finite(wrong):
    logits = np.array([[1, wrong, 0], [0, 1, 2]], np.float32)
    for temperature in (0.0, 1.0):
        assert drawn(logits, [0.5, 0.999], None, (temperature,))[0] == [-1, 2]
    assert drawn(np.full((1, 3), -np.inf, np.float32), [0.5], None, (1.0,))[0] == [-1]
