"""tl.cuda.capture, and the streams and graphs of the strict device that it is tested on."""

import inspect

import numpy as np
import pytest

import tensorlite as tl
from benchmarks.cupy_api import CLASSES
from tensorlite.kernels import launch
from tests import emulator, strict, strict_cuda, strict_memory

HAS_GPU = tl.cuda.is_available()
strict_only = pytest.mark.skipif(HAS_GPU, reason="about the stand-in")
needs_kernels = pytest.mark.skipif(
    not HAS_GPU and emulator.compiler() is None, reason="no g++ to emulate kernels with"
)


@pytest.fixture(autouse=True)
def cupy(monkeypatch):
    """The module, of which the strict device takes the place unless there is a GPU."""
    if not HAS_GPU:
        strict.install(monkeypatch)
    import cupy

    return cupy


def host(x) -> np.ndarray:
    return tl.tensor(x).numpy() if isinstance(x, np.ndarray) else x.get()


# ---- streams, graphs, memory ----


@strict_only
def test_a_stream_works_when_somebody_waits_for_it(cupy):
    x = cupy.asarray(np.ones(3, np.float32))
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        x += 1
        y = x * 2
    assert x.tolist() == [1, 1, 1] and np.isnan(float(y[0]))  # an old value, and poison
    with stream:
        assert float(y[0]) == 4  # waits for the stream that is current
    with stream:
        x += 1
    stream.synchronize()
    assert x.tolist() == [3, 3, 3]
    assert [w.kind for w in strict.waits if w.kind == "synchronize"] == ["synchronize"]


@strict_only
def test_an_event_orders_streams(cupy):
    x, stream = cupy.asarray(np.ones(2, np.float32)), cupy.cuda.Stream(non_blocking=True)
    with stream:
        x += 1
    event = stream.record()
    with stream:
        x += 10
    assert not event.done
    cupy.cuda.get_current_stream().wait_event(event)
    assert x.tolist() == [2, 2] and event.done
    stream.synchronize()
    assert x.tolist() == [12, 12]


@strict_only
def test_a_copy_reads_host_memory_when_its_turn_comes(cupy):
    x, stream = cupy.zeros(2, np.float32), cupy.cuda.Stream(non_blocking=True)
    pinned = np.frombuffer(cupy.cuda.alloc_pinned_memory(8), np.float32)
    pinned[...] = 1
    x.data.copy_from_host_async(pinned.ctypes.data, pinned.nbytes, stream)
    pinned[...] = 2  # too early
    stream.synchronize()
    assert x.tolist() == [2, 2]


@strict_only
def test_a_graph_records_and_is_launched_again(cupy):
    x = cupy.asarray(np.array([[1.0, 5.0], [7.0, 2.0]], np.float32))
    stream, pool = cupy.cuda.Stream(non_blocking=True), cupy.cuda.MemoryPool()
    with cupy.cuda.using_allocator(pool.malloc), stream:
        stream.begin_capture()
        best = np.argmax(x, axis=1)
        chosen = x[np.arange(2, like=x), best]  # an index that is poison while it is recorded
        column = x.T[0]  # a view: nothing to record
        x[0] *= -1
        ordered = np.sort(x, axis=1)
        graph = stream.end_capture()
    recorded = strict.launches.total()
    assert x.tolist()[0] == [1, 5] and np.isnan(chosen.tolist()).all()
    for expected in ([5, 7], [-1, 7], [5, 7]):
        graph.launch(stream)
        stream.synchronize()
        assert chosen.tolist() == expected and column.tolist()[1] == 7
        np.testing.assert_array_equal(ordered.get(), np.sort(x.get(), axis=1))
    assert strict.launches.total() == recorded + 3 and strict.launches["graph"] == 3
    assert pool.used_bytes() > 0


FORBIDDEN = [
    ("float(x[0, 0])", RuntimeError),
    ("x.get()", RuntimeError),
    ("x.tolist()", RuntimeError),
    ("bool(x[0, 0])", RuntimeError),
    ("x[x > 1]", RuntimeError),
    ("x[np.array([0])]", RuntimeError),
    ("x[[0]]", RuntimeError),
    ("np.take(x, np.array([0]))", RuntimeError),
    ("cupy.asarray(np.ones(2))", RuntimeError),
    ("np.concatenate(9 * [x])", RuntimeError),
    ("np.asarray([1.0, 2.0], like=x)", RuntimeError),
    ("stream.synchronize()", RuntimeError),
    ("stream.begin_capture()", RuntimeError),
    ("stream.record()", RuntimeError),
    ("x @ x", NotImplementedError),
    ("x.dot(x)", NotImplementedError),
    ("np.einsum('ij->i', x)", NotImplementedError),
    ("np.tensordot(x, x)", NotImplementedError),
    ("cupy.random.default_rng(0).random()", NotImplementedError),
]


@strict_only
@pytest.mark.parametrize("code, error", FORBIDDEN, ids=[code for code, _ in FORBIDDEN])
def test_what_cannot_be_captured_raises(cupy, code, error):
    x, stream = cupy.ones((2, 2), np.float32), cupy.cuda.Stream(non_blocking=True)
    names = dict(x=x, stream=stream, cupy=cupy, np=np)
    with cupy.cuda.using_allocator(cupy.cuda.MemoryPool().malloc), stream:
        eval(code.replace("stream.begin_capture()", "x"), names)  # allowed where nobody captures
        stream.begin_capture()
        with pytest.raises(error):
            eval(code, names)
        if error is RuntimeError:  # what CUDA refused has ended the capture
            with pytest.raises(RuntimeError, match="Invalidated"):
                stream.end_capture()
        else:
            stream.end_capture()


@strict_only
def test_memory_of_a_graph_comes_from_a_pool_of_its_own(cupy):
    x, stream = cupy.ones(2, np.float32), cupy.cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        with pytest.raises(RuntimeError, match="a pool of the graph's own"):
            x + 1
        stream.end_capture()
    with pytest.raises(RuntimeError, match="default"):
        cupy.cuda.Stream.null.begin_capture()


@strict_only
def test_memory_is_counted_aligned_and_limited(cupy, monkeypatch):
    before, pool = strict_memory.alive(), cupy.cuda.MemoryPool()
    with cupy.cuda.using_allocator(pool.malloc):
        x = cupy.empty((3, 5), np.float32)
    assert x.data.ptr % 256 == 0 and x[1:].data.ptr == x.data.ptr + 20
    y = x[1].reshape(5)  # a view holds no memory of its own, but keeps that of x
    assert strict_memory.alive() - before == 60 == pool.used_bytes()
    del x
    assert pool.used_bytes() == 60
    del y
    assert strict_memory.alive() == before and pool.used_bytes() == 0 and pool.total_bytes() == 60
    monkeypatch.setattr(strict_memory, "limit", [before + 1_000_000])
    with pytest.raises(MemoryError) as caught:
        cupy.empty(500_000, np.float32)
    assert "2,000,000 bytes" in str(caught.value)
    hint = tl.cuda.memory_hint(caught.value)
    assert "0.00 GB were asked for" in hint and "batch size" in hint


def test_the_stand_in_for_cuda_has_nothing_that_cupy_lacks():
    def members(space, prefix=""):
        for name, value in vars(space).items():
            if not name.startswith("_"):
                yield prefix + name, value
                if hasattr(value, "__dict__") and prefix + name in ("runtime", "memory", *CLASSES):
                    yield from members(value, f"{prefix}{name}.")

    listed = strict.API["cuda"]
    for name, value in members(strict_cuda.namespace()):
        assert name in listed or name in ("runtime", "memory")
        if listed.get(name) is not None:
            own = [p for p in inspect.signature(value).parameters if p != "self"]
            assert own == [p.rstrip("=") for p in listed[name].split(", ") if p], name


@strict_only
def test_bfloat16_is_kept_and_lost_as_in_cupy(cupy):
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    x = cupy.asarray(np.array([[1, 2], [3, 4]], bfloat16))
    indices = cupy.asarray(np.array([0]))
    for y in (x + x, np.exp(x), x.sum(axis=0), np.max(x), np.take(x, indices), x @ x):
        assert y.dtype == bfloat16
    assert np.concatenate([x, x]).dtype == bfloat16 == cupy.ones(2).astype(bfloat16).dtype
    assert (x * 2.0).dtype == np.where(x > 1, x, x).dtype == np.float32
    assert (x @ x).astype(np.float32).tolist() == [[7, 10], [15, 22]]
    for refused in (
        lambda: x[None] @ x[None],
        lambda: np.einsum("ij->i", x),
        lambda: strict.add_at(x, indices, x[:1]),
    ):
        with pytest.raises(TypeError):
            refused()


# ---- tl.cuda.capture ----


def test_changed_inputs_give_changed_results():
    step = tl.cuda.capture(lambda x, y: (np.exp(x) * y, x.sum()))
    rng = np.random.default_rng(0)
    for _ in range(5):
        x, y = rng.random((2, 3, 4), dtype=np.float32)
        product, total = step(x, y)
        np.testing.assert_allclose(product.get(), np.exp(x) * y, rtol=1e-6)
        assert float(total) == pytest.approx(x.sum(), rel=1e-6)


def test_inputs_are_taken_as_they_are_at_the_call(cupy):
    total = cupy.zeros(3, np.float32)

    def add(x):
        np.add(total, x, out=total)

    step = tl.cuda.capture(add, restore=[total])
    x = np.zeros(3, np.float32)
    for i in range(1, 6):  # nobody waits in between, and the host's array changes at once
        x[...] = i
        step(x)
    assert total.tolist() == [15, 15, 15]
    step(cupy.full(3, 5, np.float32))
    assert total.tolist() == [20, 20, 20]


def test_it_keeps_the_order_of_the_callers_stream(cupy):
    x = cupy.ones(2, np.float32)
    for stream in (cupy.cuda.get_current_stream(), cupy.cuda.Stream(non_blocking=True)):
        step = tl.cuda.capture(lambda: x * 2)
        with stream:
            for i in range(3):
                x[...] = i  # on the caller's stream: before the launch
                y = step()
                step.stream.synchronize()
                x[...] = 100  # and after it
                assert y.tolist() == [2 * i, 2 * i]


class Network:
    """Two layers and the mean squared error, trained by gradient descent."""

    def __init__(self, device):
        rng = np.random.default_rng(0)
        self.weights = [
            tl.tensor(rng.normal(size=s).astype(np.float32), device=device, requires_grad=True)
            for s in [(4, 8), (8,), (8, 1), (1,)]
        ]

    def loss(self, x, y):
        w1, b1, w2, b2 = self.weights
        h = tl.gelu(tl.linear(tl.tensor(x), w1, b1), approximate="tanh")  # (B, 4) -> (B, 8)
        return ((tl.linear(h, w2, b2)[:, 0] - y) ** 2).mean()

    def step(self, x, y):
        loss = self.loss(x, y)
        loss.backward()
        for w in self.weights:
            np.subtract(w.data, 0.1 * w.grad.data, out=w.data)
            w.grad = None
        return loss


def batches(n=6):
    rng = np.random.default_rng(1)
    for _ in range(n):
        yield rng.random((5, 4), dtype=np.float32), rng.random(5, dtype=np.float32)


@needs_kernels
def test_a_training_step_captured_is_the_uncaptured_one_bit_for_bit():
    results = []
    for captured in (False, True):
        net = Network("cuda")
        step = tl.cuda.capture(net.step, restore=net.weights) if captured else net.step
        losses = []
        for x, y in batches():
            if not captured:
                x, y = (tl.tensor(a, device="cuda").data for a in (x, y))
            losses.append(step(x, y).item())
        results.append((losses, [w.numpy() for w in net.weights]))
    assert results[0][0] == results[1][0] and len(set(results[0][0])) == 6
    for plain, replayed in zip(results[0][1], results[1][1], strict=True):
        np.testing.assert_array_equal(plain, replayed)
    on_host = Network("cpu")
    np.testing.assert_allclose([on_host.step(*b).item() for b in batches()], results[0][0], 1e-5)


@strict_only
@needs_kernels
def test_a_step_is_one_launch_and_one_wait_and_memory_does_not_grow():
    net = Network("cuda")
    step, held = tl.cuda.capture(net.step, restore=net.weights), []
    before = [w.numpy() for w in net.weights]
    step.record(*next(batches()))  # changes nothing
    for w, was in zip(net.weights, before, strict=True):
        np.testing.assert_array_equal(w.numpy(), was)
    for x, y in batches():
        strict.launches.clear()
        strict.waits.clear()
        loss = step(x, y)
        assert strict.waits == []
        loss.item()
        held.append(strict_memory.alive())
    assert strict.launches == {"copy": 1, "graph": 1}
    assert [w.kind for w in strict.waits] == ["item"]
    assert len(set(held)) == 1


def reads_back(x):
    return np.exp(x) if x.sum().item() > 0 else x


def branches(x):
    if tl.tensor(x).sum() > 0:
        x = np.exp(x)
    return x


def uploads(x):
    return (tl.tensor(x) * tl.tensor([1.0, 2.0], device="cuda")).data


def indexes(x):
    return x[np.array([1, 0])]


def joins_many(x):
    return np.stack([x] * 9)


calls = []


def launches_another_kernel(x):
    calls.append(x)
    return tl.gelu(tl.tensor(x)) if len(calls) % 3 == 0 else x


def multiplies(x):
    return np.exp(x) @ x


def fails_later(x):
    calls.append(x)
    if len(calls) % 3 == 0:
        raise KeyError("the third call")
    return x + 1


@pytest.mark.parametrize(
    "fn, words",
    [
        (reads_back, ["reads a value back", "if x.sum().item() > 0 else x"]),
        (branches, ["reads a value back", "if tl.tensor(x).sum() > 0:"]),
        (uploads, ["copies memory of the host", "tl.tensor([1.0, 2.0], device="]),
        (indexes, ["copies memory of the host", "return x[np.array([1, 0])]"]),
        (joins_many, ["copies memory of the host", "return np.stack([x] * 9)"]),
        (multiplies, ["cuBLASLt", "nvmath-python", "return np.exp(x) @ x"]),
        pytest.param(
            launches_another_kernel,
            ["has not run before", "return tl.gelu(tl.tensor(x)) if"],
            marks=needs_kernels,
        ),
        (fails_later, ["raised an error", 'raise KeyError("the third call")']),
    ],
)
def test_errors_name_what_cannot_be_captured_and_the_line(fn, words, monkeypatch):
    x = np.ones(2, np.float32)
    calls.clear()
    monkeypatch.setattr(launch, "compiled", {})
    for _ in range(2):  # also after a failure
        with pytest.raises(RuntimeError) as caught:
            tl.cuda.capture(fn)(x)
        for word in [f"{fn.__name__} cannot be captured", "test_strict_capture.py", *words]:
            assert word in str(caught.value)


def test_restored_arrays_are_put_back_if_warming_up_fails(cupy):
    x = cupy.ones(2, np.float32)

    def fn():
        x[...] = 5
        raise KeyError("in the warm-up")

    with pytest.raises(KeyError):
        tl.cuda.capture(fn, restore=[x])()
    tl.cuda.capture(lambda: x + 1)()
    assert x.tolist() == [1, 1]


def test_what_is_not_as_at_the_first_call_is_refused():
    step = tl.cuda.capture(lambda x: x + 1)
    x = np.ones((2, 3), np.float32)
    step(x)
    for wrong in [(x[:1],), (x.astype(np.float64),), (), (x, x)]:
        with pytest.raises(ValueError, match=r"captured with: float32\[2, 3\]; given "):
            step(*wrong)
    for wrong in (1.0, [1.0], tl.tensor(x), None):
        with pytest.raises(TypeError, match="argument 0 of a captured function is of type"):
            step(wrong)
    assert step(x).tolist() == [[2, 2, 2]] * 2
    with pytest.raises(ValueError, match="warmup"):
        tl.cuda.capture(step, warmup=0)


def test_empty_and_zero_dimensional_arrays():
    step = tl.cuda.capture(lambda x, n: (x.sum() + n, x * 2))
    for i in range(3):
        total, twice = step(np.empty((0, 3), np.float32), np.array(i, np.float32))
        assert float(total) == i and twice.shape == (0, 3)


def test_arrays_of_the_host_and_of_the_gpu_side_by_side(cupy):
    step = tl.cuda.capture(lambda *arrays: [a * 2 for a in arrays])
    rng = np.random.default_rng(0)
    for _ in range(3):
        arrays = [rng.integers(0, 9, shape) for shape in [(3,), (70, 5), (), (2, 1)]]
        arrays[1] = arrays[1].astype(np.float64).T  # columns first
        given = [cupy.asarray(a) if i % 2 else a for i, a in enumerate(arrays)]
        for result, array in zip(step(*given), arrays, strict=True):
            assert result.dtype == array.dtype and result.data.ptr % 8 == 0
            np.testing.assert_array_equal(result.get(), array * 2)


@strict_only
def test_without_a_gpu(monkeypatch):
    monkeypatch.setattr("tensorlite.device._cuda_fault", lambda: "the driver sees no GPU")
    assert not tl.cuda.is_available()
    with pytest.raises(RuntimeError, match="the driver sees no GPU"):
        tl.cuda.capture(lambda x: x)
