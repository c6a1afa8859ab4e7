"""Everything that tensorlite does, on the strict device: it would run on a GPU.

Where there is a GPU, the same tests run on it, those of the strict arrays themselves left out.
"""

import contextlib
import importlib.util

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import gpt
import tensorlite as tl
from benchmarks import cupy_api
from gpt import GPT, GPTConfig, Llama, LlamaConfig, generate
from gpt.checkpoint import load_optimizer, save_run
from tensorlite import nn
from tensorlite.device import RowRandom, place
from tensorlite.optim import SGD, AdamW, clip_grad_norm, cosine_schedule
from tensorlite.testing.suite import bind
from tests import emulator, strict
from tests.cases import function_of
from tests.op_cases import CASES, LACKING
from tests.strict import StrictArray, to_device
from tokenizer import CharTokenizer

HAS_GPU = tl.cuda.is_available()


@pytest.fixture(autouse=True)
def cuda(monkeypatch):
    """device="cuda" is the strict device, unless there is a real one."""
    if not HAS_GPU:
        strict.install(monkeypatch)


# ---- the strict array itself ----


def arrays():
    x = to_device(np.arange(12, dtype=np.float32).reshape(3, 4))
    return x, to_device(np.array([0, 2])), np.ones((3, 4), np.float32)


REFUSED = [
    ("np.asarray(x)", TypeError),
    ("np.float32(x[0, 0])", TypeError),
    ("memoryview(x)", TypeError),
    ("x + host", TypeError),
    ("host * x", TypeError),
    ("x < np.array(1.0)", TypeError),
    ("np.concatenate([x, host])", TypeError),
    ("np.add.at(x, i, host[:2])", TypeError),
    ("np.where(host > 0, x, x)", TypeError),
    ("np.where(True, x, x)", TypeError),
    ("np.copyto(host, x)", TypeError),
    ("x.__setitem__(0, host[0])", ValueError),
    ("x.__setitem__((0, 0), np.array(1.0))", ValueError),
    ("np.full(3, 1.0, like=x)", TypeError),
    ("np.ones(3, like=x)", TypeError),
    ("np.eye(3, like=x)", TypeError),
    ("np.einsum_path('ij,jk', x, x.T)", TypeError),
    ("np.insert(x, 0, 1.0)", TypeError),
    ("np.unstack(x)", TypeError),
    ("np.einsum('ij->i', x, out=x[:, 0])", TypeError),
    ("np.take(x, i, mode='clip')", TypeError),
    ("np.take_along_axis(x, x.astype(int))", TypeError),
    ("np.clip(x, min=0)", TypeError),
    ("np.sum(x, where=x > 0)", TypeError),
    ("np.max(x, initial=0)", TypeError),
    ("np.var(x, correction=1)", TypeError),
    ("np.sort(x, kind='heapsort')", ValueError),
    ("x.astype(int, casting='unsafe')", TypeError),
    ("x.argsort(kind='quicksort')", ValueError),
    ("np.exp(x, where=x > 0)", TypeError),
    ("np.exp(x, order='C')", TypeError),
    ("np.exp(x, out=host)", TypeError),
    ("np.exp(host, out=x)", TypeError),
    ("np.maximum.reduce(x)", TypeError),
    ("np.maximum.accumulate(x)", TypeError),
    ("np.multiply.at(x, i, 2.0)", TypeError),
    ("np.add.at(x.astype(np.int16), i, 1)", TypeError),
    ("np.add.at(x, (i, i), 1.0)", TypeError),
    ("strict.add_at(x, i, host[:2])", TypeError),
    ("strict.add_at(x.astype(np.int16), i, 1)", TypeError),
    ("np.ones_like(x, shape=0)", ValueError),
    ("np.empty_like(x, shape=())", ValueError),
    ("np.linalg.solve(x[:, :3], np.ones_like(x, shape=(2, 3, 1)))", ValueError),
    ("np.spacing(x)", TypeError),
    ("x[to_device([3])]", IndexError),
    ("x[np.array([-4])]", IndexError),
    ("np.take(x, to_device([12]))", IndexError),
    ("np.broadcast_to(x, (2, 3, 4)).__setitem__(0, 1.0)", ValueError),
    ("np.add(np.broadcast_to(x[0], (3, 4)), x, out=np.broadcast_to(x[0], (3, 4)))", ValueError),
    ("x.flags.writeable", AttributeError),
    ("x.base", AttributeError),
    ("range(i[0])", TypeError),
    ("hash(x)", TypeError),
    ("to_device(['text'])", ValueError),
]


@pytest.mark.parametrize("code, error", REFUSED, ids=[code for code, _ in REFUSED])
def test_what_cupy_refuses_or_gets_wrong_raises(code, error):
    x, i, host = arrays()
    with pytest.raises(error):
        eval(code, None, dict(x=x, i=i, host=host) | globals())


def test_what_cupy_allows():
    x, i, host = arrays()
    for result, expected in [
        (2 * x + np.float32(1), 2 * x.get() + 1),
        (x[np.array([0, 2])], x.get()[[0, 2]]),
        (x[i, 1:], x.get()[[0, 2], 1:]),
        (np.sum(x, axis=0), x.get().sum(0)),
        (np.asarray(host, like=x), host),
        (np.matmul(x, x.T, out=np.empty((3, 3), np.float32, like=x)), x.get() @ x.get().T),
        (np.where(x > 3, x, 0), np.where(x.get() > 3, x.get(), 0)),
        (np.identity(2, like=x), np.identity(2)),
        (np.tri(2, like=x), np.tri(2)),
    ]:
        assert isinstance(result, StrictArray) and result.dtype == expected.dtype
        np.testing.assert_array_equal(result.get(), expected)
    assert isinstance(x.sum(), StrictArray) and isinstance(x[0, 0], StrictArray)


def test_views_write_through_and_copies_do_not():
    x, i, host = arrays()
    x[1][2], x.T[0, 0] = 50, 60
    x[:, 3] += 1
    x[0, 1][...] = 70
    x.copy()[0], x[i][0] = 0, 0
    assert x.tolist() == [[60, 70, 2, 4], [4, 5, 50, 8], [8, 9, 10, 12]]
    strict.add_at(x, (i[:1], slice(0, 2)), to_device(host[:1, :2]))
    assert x.tolist()[0] == [61, 71, 2, 4]
    moved = to_device(host)
    host[0] = 9
    assert moved.tolist()[0] == [1, 1, 1, 1]


def test_empty_memory_is_poisoned():
    x, i, _ = arrays()
    assert np.isnan(np.empty(2, like=x).get()).all() and np.isnan(np.empty_like(x).get()).all()
    assert np.empty_like(i).get()[0] == np.iinfo(np.int64).max


WAITS = {
    "float(x[0, 0])": "float",
    "int(i[0])": "int",
    "bool(x[0, 0])": "bool",
    "x[0, 0].item()": "item",
    "x.get()": "get",
    "x.tolist()": "tolist",
    "str(x)": "str",
    "np.nonzero(x)": "nonzero",
    "np.where(x > 1)": "one-argument where",
    "x[x > 1]": "boolean mask",
    "x.__setitem__(x > 1, 0)": "boolean mask",
    "np.unique(i)": "unique",
    "np.repeat(x, i[:1])": "repeat",
}


@pytest.mark.parametrize("code", WAITS)
def test_waits_are_noted_with_their_line(code):
    x, i, _ = arrays()
    names = dict(x=x, i=i, np=np)
    eval(code, None, names)
    assert [(w.kind, w.where) for w in strict.waits] == [(WAITS[code], "<string>:1")]
    strict.waits.clear()
    np.where(x > 1, x, 0), x @ x.T, np.asarray([1], like=x), np.copyto(x, 0, where=x > 1)
    assert strict.waits == []


@pytest.mark.skipif(importlib.util.find_spec("cupy") is None, reason="cupy is not installed")
def test_what_the_strict_device_allows_is_what_cupy_offers(monkeypatch):
    monkeypatch.undo()  # the real one
    assert cupy_api.differences(strict.API, cupy_api.generate()) == []


# ---- every operation ----


def moved(value, index_arrays=True):
    """Arrays, also in tuples, to the device; index arrays may stay on the host."""
    if isinstance(value, tuple):
        return tuple(moved(v, index_arrays) for v in value)
    if not isinstance(value, (np.ndarray, np.generic)):
        return value
    if value.dtype.kind == "i" and not index_arrays:
        return value
    return place(np.asarray(value), "cuda")


def run(op, arguments, dtype, device, index_arrays, order):
    """Value and gradients of a case, on the host and on the device; as NumPy arrays."""
    arrays, static = arguments
    if device == "cuda":
        static = {name: moved(v, index_arrays) for name, v in static.items()}
    f, values = bind(op, (arrays, static))
    args, leaves = [np.asarray(v) if isinstance(v, np.generic) else v for v in values], []
    for i, v in enumerate(args):
        if isinstance(v, np.ndarray) and v.dtype.kind == "f":
            args[i] = tl.tensor(v, dtype=dtype, device=device, requires_grad=True)
            leaves.append(args[i])
        elif device == "cuda":
            args[i] = moved(v)
    with tl.higher_order() if order > 1 else contextlib.nullcontext():
        y = f(*args)
        weight = np.cos(np.arange(y.size)).reshape(y.shape)
        results = [y, *tl.grad(y, leaves, gradient=weight, create_graph=order > 1)]
        if order > 1:
            total = sum((g * g).sum() for g in results[1:]) + sum((x * 0.0).sum() for x in leaves)
            results += tl.grad(total, leaves)
    assert {t.device for t in results[1:]} == {device}
    return [t.numpy() for t in results]


def check(name, arguments, dtype, index_arrays, order=1):
    with np.errstate(all="ignore"):
        on_host = run(function_of(name), arguments, dtype, "cpu", index_arrays, order)
        on_device = run(function_of(name), arguments, dtype, "cuda", index_arrays, order)
    tolerance = 1e-10 if dtype == np.float64 else 1e-4
    for host, device in zip(on_host, on_device, strict=True):
        assert host.dtype == device.dtype
        np.testing.assert_allclose(device, host, rtol=tolerance, atol=tolerance)


WALK = settings(suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("name", sorted(CASES.keys() - LACKING.keys()))
def test_walk(name):
    @settings(WALK, max_examples=25)
    @given(CASES[name], st.sampled_from([np.float32, np.float64]), st.booleans())
    def walk(arguments, dtype, index_arrays):
        check(name, arguments, dtype, index_arrays)

    walk()


@pytest.mark.parametrize("name", sorted(CASES.keys() - LACKING.keys()))
def test_second_derivatives(name):
    @settings(WALK, max_examples=8)
    @given(CASES[name])
    def walk(arguments):
        check(name, arguments, np.float64, True, order=2)

    walk()


@pytest.mark.skipif(HAS_GPU, reason="what is missed is named by the strict device")
@pytest.mark.parametrize("name", sorted(LACKING))
def test_what_cupy_lacks_is_named(name):
    @settings(WALK, max_examples=3)
    @given(CASES[name])
    def walk(arguments):
        with pytest.raises(TypeError, match=rf"there is no cupy\.{LACKING[name]}"):
            run(function_of(name), arguments, np.float32, "cuda", True, 1)

    walk()


FLOAT32_LOSSES = {"cross_entropy", "linear_cross_entropy"}  # from bfloat16, by their kernels


@pytest.mark.parametrize("name", sorted(CASES.keys() - LACKING.keys()))
def test_bfloat16(name):
    """Every operation takes bfloat16 on both devices, and they agree about as far as its 8 bits."""
    bfloat16 = np.dtype(pytest.importorskip("ml_dtypes").bfloat16)

    @settings(WALK, max_examples=8)
    @given(CASES[name])
    def walk(arguments):
        with np.errstate(all="ignore"):
            on_host = run(function_of(name), arguments, bfloat16, "cpu", True, 1)
            on_device = run(function_of(name), arguments, bfloat16, "cuda", True, 1)
            in_float16 = run(function_of(name), arguments, np.float16, "cpu", True, 1)
        for host, other in zip(on_host, in_float16, strict=True):
            assert (host.dtype == bfloat16) == (other.dtype == np.float16)
        for i, (host, device) in enumerate(zip(on_host, on_device, strict=True)):
            assert host.dtype == device.dtype or (i == 0 and name in FLOAT32_LOSSES)
            host, device = host.astype(np.float32), device.astype(np.float32)
            largest = np.max(np.abs(host), initial=0, where=np.isfinite(host))
            np.testing.assert_allclose(device, host, rtol=0, atol=0.04 * largest)

    walk()


def test_the_gradient_of_a_result_of_bfloat16_is_of_bfloat16():
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    for device in ("cpu", "cuda"):
        x = tl.tensor([[1.0, 2.0, 4.0]], dtype=bfloat16, device=device, requires_grad=True)
        y = tl.layer_norm(x)
        assert {g.dtype for g in tl.grad((y * y * x).sum(), [x, y])} == {np.dtype(bfloat16)}


# ---- modules, optimizers, the model ----

CONFIG = GPTConfig(vocab_size=11, block_size=8, n_layer=2, n_head=2, n_embd=16, dropout=0.2)

# The waits of a training step: all that the host must know before it goes on.
TRAINING_WAITS = [
    ("item", "losses.append(loss.item())"),  # for the log
    ("item", "norms.append(norm.item())"),  # for the log, and to stop when it is not finite
]


def train(device, optimizer=AdamW, steps=3):
    """Steps of a small model: (losses, norms, the model, the optimizer)."""
    model = GPT(CONFIG).to(device)
    optimizer = optimizer(model.parameters(), lr=1e-2, weight_decay=0.1)
    rng = np.random.default_rng(0)
    losses, norms = [], []
    for step in range(steps):
        strict.waits.clear()
        x, y = rng.integers(0, 11, (2, 4, 8))
        optimizer.groups[0]["lr"] = cosine_schedule(step, 1, steps, 1e-2, 1e-3)
        loss = model.loss(x, y, RowRandom(0, "dropout", step, rows=range(4)))
        loss.backward()
        losses.append(loss.item())
        norm = clip_grad_norm(optimizer.params, 1.0)
        norms.append(norm.item())
        optimizer.step()
        optimizer.zero_grad()
    return losses, norms, model, optimizer


@pytest.mark.parametrize("optimizer", [AdamW, SGD])
def test_training_equals_the_cpus_and_waits_only_where_it_must(optimizer):
    expected = train("cpu", optimizer)
    losses, norms, model, _ = train("cuda", optimizer)
    if not HAS_GPU:
        assert [(w.kind, w.line) for w in strict.waits] == TRAINING_WAITS
    np.testing.assert_allclose(losses, expected[0], rtol=1e-5)
    np.testing.assert_allclose(norms, expected[1], rtol=1e-4)
    for p, q in zip(model.parameters(), expected[2].parameters()):
        assert p.device == "cuda"
        np.testing.assert_allclose(p.numpy(), q.numpy(), rtol=1e-4, atol=1e-5)


def test_ids_out_of_range_are_seen_on_the_host():
    model, ids = GPT(CONFIG).to("cuda"), np.zeros((2, 4), np.int64)
    for wrong in (-1, 11):
        bad = np.where(np.eye(2, 4) == 1, wrong, ids)
        with pytest.raises(IndexError, match="outside the vocabulary of 11"):
            model(bad)
        for loss in (model.loss, model):
            with pytest.raises(IndexError, match="outside the 11 classes"):
                loss(ids, bad)
    assert strict.waits == []


def test_modules():
    rng = np.random.default_rng(0)
    parts = nn.Embedding(7, 6, rng), nn.LayerNorm(6), nn.Linear(6, 4, rng=rng), nn.RMSNorm(4)
    net, results = nn.Sequential(*parts, nn.Dropout(0.5).eval()), []
    for device in ("cpu", "cuda"):
        for p in net.to(device).parameters():
            p.grad = None
        y = net(np.array([[1, 2], [6, 1]]))
        (y * y * y).sum().backward()
        assert y.device == device
        results.append([y.numpy(), *(p.grad.numpy() for p in net.parameters())])
    for host, device in zip(*results):
        np.testing.assert_allclose(device, host, rtol=1e-5, atol=1e-5)


def test_tensors():
    x = tl.tensor([[1.0, 2.0], [3.0, 4.0]], device="cuda", requires_grad=True)
    assert "device='cuda'" in repr(x) and x.numpy()[1, 1] == 4 and x[0, 1].item() == 2
    assert float(x.sum()) == 10 and bool((x > 0).data.all()) and len(list(x)) == 2
    assert list(range(5))[tl.tensor(3, device="cuda")] == 3
    for _ in range(2):  # gradients add up
        (x @ x.T).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [[16, 24], [16, 24]])
    y = tl.checkpoint(lambda x: tl.softmax(x @ x), x)
    np.testing.assert_allclose(tl.grad(y.sum(), x)[0].numpy(), 0, atol=1e-5)
    np.testing.assert_allclose(tl.hvp(lambda x: (x**3).sum(), x, x).numpy(), 6 * x.numpy() ** 2)
    assert tl.hessian(lambda x: (x**3).sum(), x).shape == (2, 2, 2, 2)
    with tl.detect_anomaly(), pytest.raises(FloatingPointError, match="'log' is not finite"):
        tl.log(x - 1)
    with pytest.raises(TypeError):
        x + np.ones(2)


@pytest.mark.parametrize("arguments", [{"temperature": 0}, {"top_k": 5, "top_p": 0.9}])
def test_sampling(arguments):
    tokenizer, model = CharTokenizer.train("abcdefghi\n"), GPT(CONFIG)
    expected = generate.generate(model, tokenizer, "ab", 12, seed=1, **arguments)
    assert generate.generate(model.to("cuda"), tokenizer, "ab", 12, seed=1, **arguments) == expected
    if not HAS_GPU and emulator.compiler():  # a wait for logits each time that a text is read
        assert [w.kind for w in strict.waits].count("get") == 3


def test_checkpoints(tmp_path):
    *_, model, optimizer = train("cuda")
    save_run(tmp_path, model, optimizer, 3)
    again = GPT.from_pretrained(tmp_path).to("cuda")
    for p, q in zip(model.parameters(), again.parameters()):
        np.testing.assert_array_equal(p.numpy(), q.numpy())
    other = AdamW(again.parameters(), lr=1e-2)
    load_optimizer(tmp_path, again, other, 3)
    for slot in ("m", "v"):
        for a, b in zip(optimizer.state[slot], other.state[slot]):
            np.testing.assert_array_equal(place(a, "cpu"), place(b, "cpu"))
            assert b.__class__ is a.__class__ is not np.ndarray


@pytest.mark.parametrize("window", [None, 3])
def test_batches_of_a_llama(window):
    """A cache of texts of different lengths, beyond the context, on the strict device."""
    windows = (window, None)
    family = None if window is None else "qwen2"
    config = LlamaConfig(
        40, 12, 2, 4, 16, n_kv_head=2, windows=windows, qkv_bias=window is not None, family=family
    )
    model, prompts = Llama(config).eval(), [[1, 2, 3], [7], [5] * 9]
    expected = gpt.generate_ids(model, prompts, 8, 1.0, seed=1)
    assert gpt.generate_ids(model.to("cuda"), prompts, 8, 1.0, seed=1) == expected
