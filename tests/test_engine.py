"""The engine where small engines fail: aliasing, fan-out, freeing, depth, in-place changes."""

import asyncio
import functools
import gc
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tensorlite as tl
from tensorlite.gradients import unbroadcast
from tensorlite.protect import captures
from tensorlite.tensor import Tensor
from tensorlite.testing import arrays, broadcastable, check_grads


def leaf(values, dtype=np.float64):
    return tl.tensor(values, dtype=dtype, requires_grad=True)


# ---- one value in several places ----

X = np.array([[1.5, -0.7], [0.4, 2.0]])


@pytest.mark.parametrize(
    "function",
    [
        lambda x, y: (z := x + y) + x + z,
        lambda x, y: (z := x + y) * (z + x),
        lambda x, y: x.sum() + x.sum() + y,
        lambda x, y: x - x + y,
        lambda x, y: x / x + y,
        lambda x, y: x @ x + y @ x,
        lambda x, y: tl.concatenate([x, x, y]),
        lambda x, y: x[0] * x[0] + x[:, 1] * y,
        lambda x, y: x[[0, 0, 1]].sum() * y,
        lambda x, y: (-x) * y + (-x),
        lambda x, y: x.reshape(4)[::2].sum() + x.T @ y,
        lambda x, y: tl.broadcast_to(x[0], (3, 2)).sum() * y,
    ],
)
def test_a_value_used_more_than_once(function):
    check_grads(function, [X, X + 0.3])


def test_gradients_of_one_array_do_not_share_memory():
    """add passes the gradient on as it is; a user who changes one must not change another."""
    x, y = leaf([1.0, 2.0]), leaf([3.0, 4.0])
    start = np.ones(2)
    (x + y).backward(start)
    x.grad.data += 10
    np.testing.assert_array_equal(y.grad.data, [1, 1])
    np.testing.assert_array_equal(start, [1, 1])
    a, b, c = tl.grad(x + y, [x, y, x], gradient=start)
    a.data += 10
    np.testing.assert_array_equal([b.data, c.data, start], np.ones((3, 2)))


def test_an_earlier_gradient_is_not_changed_by_a_later_backward():
    x = leaf([1.0, 2.0])
    (x * 2).sum().backward()
    first = x.grad
    (x * 3).sum().backward()
    np.testing.assert_array_equal(first.data, [2, 2])
    np.testing.assert_array_equal(x.grad.data, [5, 5])


def test_only_leaves_get_gradients():
    x = leaf([1.0, 2.0])
    y = x * x
    y.sum().backward()
    assert y.grad is None and x.grad is not None


@given(broadcastable(2).flatmap(lambda s: st.tuples(*(arrays(shape) for shape in s))))
def test_broadcasting_is_undone(pair):
    x, y = pair
    total = x + y
    g = np.random.default_rng(0).standard_normal(total.shape)
    for a in pair:
        got = unbroadcast(g, a.shape)
        assert got.shape == a.shape
        np.testing.assert_allclose(np.sum(got), np.sum(g), atol=1e-12)
    check_grads(lambda x, y: x * y, [x, y])


# ---- grad ----


def test_grad_of_interior_values_and_of_unrelated_inputs():
    x, other = leaf([1.0, 2.0]), leaf([[5.0]])
    y = x * x
    z = (y * 3).sum() + y.sum()
    gy, gx, zero = tl.grad(z, [y, x, other])
    np.testing.assert_array_equal(gy.data, [4, 4])
    np.testing.assert_array_equal(gx.data, [8, 16])
    np.testing.assert_array_equal(zero.data, [[0]])
    assert x.grad is None and y.grad is None


def test_grad_calls_only_the_vjps_that_lead_to_an_input():
    called = []

    @tl.op
    def spy(x):
        return x * 1, lambda g: called.append("spy") or g

    try:
        x, y = leaf(2.0), leaf(3.0)
        tl.grad(spy(x) * y, y)
        assert called == []
        tl.grad(spy(x) * y, x)
        assert called == ["spy"]
    finally:
        del tl.OPS["spy"]


def test_the_output_itself_as_an_input():
    x = leaf([1.0, 2.0])
    y = (x * x).sum()
    gy, gx = tl.grad(y, [y, x])
    assert gy.item() == 1.0
    np.testing.assert_array_equal(gx.data, [2, 4])


def test_errors_of_backward():
    x = leaf([1.0, 2.0])
    with pytest.raises(ValueError, match=r"shape \(2,\).*gradient="):
        (x * 2).backward()
    with pytest.raises(ValueError, match="needs no gradient"):
        tl.tensor([1.0]).backward()
    with pytest.raises(ValueError, match="needs no gradient"):
        tl.grad((x * 2).sum(), tl.tensor([1.0]))
    with pytest.raises(ValueError, match=r"gradient has shape \(3,\)"):
        (x * 2).backward(np.ones(3))
    with pytest.raises(TypeError, match="int64"):
        tl.tensor([1, 2], requires_grad=True)
    y = x * 2
    with pytest.raises(ValueError, match="leaf"):
        y.requires_grad = False


def test_a_vjp_of_the_wrong_shape_is_named():
    @tl.op
    def broken(x):
        return x * 2, lambda g: np.ones((7, 5))

    try:
        with pytest.raises(ValueError, match=r"'broken'.*input 0.*\(2,\).*\(7, 5\)"):
            broken(leaf([1.0, 2.0])).sum().backward()
    finally:
        del tl.OPS["broken"]


@pytest.fixture
def registry():
    """Operations that a test defines are gone behind it."""
    before = dict(tl.OPS)
    yield
    tl.OPS.clear()
    tl.OPS.update(before)


def test_mistakes_in_an_operation_are_named(registry):
    def no_vjp(x):
        return x * 2

    def no_vjp_in_a_tuple(x):
        return (x * 2,)

    def nothing(x):
        return None

    def tuple_value(x):
        return (x, x), lambda g: g

    def list_value(x):
        return [1.0, 2.0], lambda g: g

    def tensor_value(x):
        return tl.exp(tl.tensor(x)), lambda g: g

    def surplus(x):
        return x * 2, lambda g: g * 2, lambda g: g

    def too_few(x, y):
        return x * y, lambda g: g * y

    def no_function(x):
        return x * 2, x

    def partial(x):
        return x * 2, functools.partial(np.multiply, 2)

    def number(x):
        return x * 2, lambda g: 2.0

    def joint_two(x, y, *, needs):
        return x * 2, lambda g: g, lambda g: g

    def joint_array(x, y, *, needs):
        return x * y, lambda g: g

    x = leaf([1.0, 2.0])
    for body, n, words in [
        (no_vjp, 1, "'no_vjp' gave an object of type ndarray; .*here a tuple of 2"),
        (no_vjp_in_a_tuple, 1, "gave a tuple of 1; .*here a tuple of 2"),
        (nothing, 1, "gave an object of type NoneType"),
        (tuple_value, 1, "gave a value of type tuple"),
        (list_value, 1, "gave a value of type list"),
        (tensor_value, 1, "gave a value of type Tensor; .*one array"),
        (surplus, 1, "gave a tuple of 3; .*here a tuple of 2"),
        (too_few, 2, "gave a tuple of 2; .*one vjp for each input, here a tuple of 3"),
        (no_function, 1, "gave an object of type ndarray for a vjp"),
        (partial, 1, "gave an object of type partial for a vjp"),
        (number, 1, "vjp of 'number' gave input 0 an object of type float"),
        (joint_two, 2, "gave a tuple of 3; .*one vjp that gives all gradients"),
        (joint_array, 2, "vjp of 'joint_array' gave an object of type ndarray; .*tuple of grad"),
    ]:
        with pytest.raises(TypeError, match=words):
            tl.op(body)(*[x] * n).sum().backward()
    with pytest.raises(TypeError, match="'no_vjp'"):  # the value alone would be the first row
        tl.OPS["no_vjp"](tl.tensor([1.0, 2.0]))
    with pytest.raises(TypeError, match="'too_few'"):  # only one needs a gradient
        tl.OPS["too_few"](x, 2.0)


def test_signatures_that_no_operation_has(registry):
    for body in (
        lambda x, **options: x,
        lambda *, n: n,
        lambda x, *arrays: x,
        lambda: 1,
    ):
        with pytest.raises(TypeError, match="has the signature"):
            tl.op(body)


def test_a_name_of_the_engine_is_not_replaced(registry):
    for name in ("mul", "astype", "softmax"):

        def body(x, y):
            return x * y, lambda g: g * y, lambda g: g * x

        body.__name__ = name
        there = tl.OPS[name]
        with pytest.raises(ValueError, match=f"named '{name}' exists already, in tensorlite"):
            tl.op(body)
        assert tl.OPS[name] is there
    body.__name__ = "users_own"
    assert tl.op(body) is not tl.op(body)  # a cell of a notebook that runs again


def test_what_is_assigned_as_a_gradient():
    """As torch: only a tensor of the same shape, or None; a backward would broadcast it."""
    x = leaf(np.ones((2, 3)))
    for wrong in (np.ones((2, 3)), [1.0], 0.0):
        with pytest.raises(TypeError, match=f"tensor or None, not {type(wrong).__name__}"):
            x.grad = wrong
    for shape in ((3,), (1, 3), (2, 3, 1), ()):
        with pytest.raises(ValueError, match=r"was assigned to a tensor of shape \(2, 3\)"):
            x.grad = tl.tensor(np.ones(shape))
    x.grad = tl.tensor(np.ones((2, 3)))
    (x * 2).sum().backward()
    np.testing.assert_array_equal(x.grad.data, np.full((2, 3), 3))
    x.grad = None


# ---- the graph is freed ----


def test_a_second_backward_says_that_the_graph_was_freed():
    x = leaf([1.0, 2.0])
    y = (x * x).sum()
    y.backward()
    with pytest.raises(RuntimeError, match="retain_graph=True"):
        y.backward()
    with pytest.raises(RuntimeError, match="retain_graph=True"):
        tl.grad(y, x)


def test_retain_graph_allows_a_second_backward():
    x = leaf([1.0, 2.0])
    y = (x * x).sum()
    y.backward(retain_graph=True)
    y.backward()
    np.testing.assert_array_equal(x.grad.data, [4, 8])
    with pytest.raises(RuntimeError):
        y.backward()


def test_nothing_waits_for_the_garbage_collector():
    """After `del loss` every node is gone: no reference cycles."""
    from tensorlite.graph import Node

    def nodes():
        return sum(isinstance(o, Node) for o in gc.get_objects())

    gc.collect()
    gc.disable()
    try:
        before = nodes()
        x = leaf(np.ones((4, 4)))
        w = leaf(np.ones(4))
        loss = tl.layer_norm(tl.gelu(x @ x), w, w).sum() + tl.softmax(x).max()
        assert nodes() > before
        loss.backward()
        del loss
        assert nodes() == before
        loss = (x * x).sum()
        del loss
        assert nodes() == before
    finally:
        gc.enable()


def test_values_that_no_vjp_needs_die_in_the_forward_pass():
    import weakref

    x = leaf(np.ones(10))
    y = x + 1
    data = weakref.ref(y.data)
    z = (y + 1).sum()
    del y
    assert data() is None
    z.backward()
    np.testing.assert_array_equal(x.grad.data, np.ones(10))


@pytest.mark.parametrize("depth", [10_000, 100_000])
def test_deep_graphs(depth):
    x = leaf(1.0)
    y = x
    for _ in range(depth):
        y = y + 1e-5
    y.backward()
    assert x.grad.item() == 1.0
    y = x
    for _ in range(depth):
        y = y * 1.0
    del y  # dies without a backward, and without a recursion


# ---- in-place changes ----


def test_changing_what_a_backward_needs_raises():
    x, w = leaf([1.0, 2.0]), leaf([3.0, 4.0])
    y = (x * w).sum()
    for t in (x, w):
        with pytest.raises(ValueError, match="read-only"):
            t.data += 1
    y.backward()
    x.data += 1  # the backward is done
    np.testing.assert_array_equal(x.grad.data, [3, 4])


def test_a_base_is_protected_when_a_view_was_captured():
    x = leaf(np.arange(1.0, 7.0))
    y = (x.reshape(2, 3) ** 3).sum()
    with pytest.raises(ValueError, match="read-only"):
        x.data[0] = 9
    y.backward()
    x.data[0] = 9
    z = (tl.broadcast_to(x, (2, 6)) ** 3).sum()  # a view that is read-only by itself
    with pytest.raises(ValueError, match="read-only"):
        x.data[0] = 7
    del z
    x.data[0] = 7


def test_arrays_are_writeable_again_when_the_graph_dies_without_a_backward():
    x = leaf([1.0, 2.0])
    y, z = x * x, x * 3.0 * x
    with pytest.raises(ValueError):
        x.data[0] = 5
    del y
    with pytest.raises(ValueError):
        x.data[0] = 5
    del z
    x.data[0] = 5
    assert not captures


def test_views_of_one_memory_are_writeable_again_together():
    memory = np.arange(6.0)
    a, b = Tensor(memory[:3], requires_grad=True), Tensor(memory[3:], requires_grad=True)
    y, z = (a * a).sum(), (b * b).sum()
    y.backward()
    with pytest.raises(ValueError):
        b.data += 1
    z.backward()
    for array in (a.data, b.data, memory):
        array += 1


def test_what_the_user_made_read_only_stays_so():
    x = np.ones(3)
    x.flags.writeable = False
    t = Tensor(x, requires_grad=True)
    (t * t).sum().backward()
    assert not t.data.flags.writeable


def test_an_operation_that_keeps_nothing_protects_nothing():
    x = leaf([1.0, 2.0])
    y = (x + 1).sum()
    x.data += 1
    y.backward()


def test_other_views_of_the_memory_are_protected_with_it():
    """What users reach as tensor.data: an operation's operands and its value."""
    for function in (
        lambda h: tl.layer_norm(h),
        lambda h: tl.linear(h.reshape(2, 3, 4), np.ones((4, 2))),
        lambda h: h.reshape(2, 3, 4) @ leaf(np.ones((4, 2))),
    ):
        h = leaf(np.arange(24.0)).reshape(6, 4)
        y = function(h)
        z = y * leaf(np.ones(y.shape))
        with pytest.raises(ValueError, match="read-only"):
            y.data[...] = 0
        z.sum().backward()
        y.data[...] = 0


def test_memory_that_numpy_cannot_unlock_is_left_alone():
    a = np.lib.stride_tricks.as_strided(np.arange(3.0), (3,), (8,))
    foreign = np.from_dlpack(np.arange(3.0))
    for other in (a, foreign):
        x = leaf(np.ones(3))
        (x * other).sum().backward()
        np.testing.assert_array_equal(x.grad.data, [0, 1, 2])
    assert not captures


def test_a_graph_is_not_copied():
    import copy

    x = leaf([1.0, 2.0])
    y = x * x
    with pytest.raises(TypeError, match="detach"):
        copy.deepcopy(y)
    copied = copy.deepcopy(x)
    assert copied.requires_grad and copied.data is not x.data
    y.sum().backward()


# ---- recording ----


def test_no_grad_decorates_functions_with_or_without_parentheses():
    x = tl.tensor(2.0, requires_grad=True)

    @tl.no_grad
    def square(x):
        return x * x

    assert not square(x).requires_grad and (x * x).requires_grad
    with pytest.raises(TypeError, match="class 'Model': decorate its methods"):

        @tl.no_grad()
        class Model:
            pass


def test_mistakes_in_an_op_that_are_named_when_it_is_made():
    with pytest.raises(TypeError, match=r"'wrong' must have its parameter `needs` after a `\*`"):

        @tl.op
        def wrong(x, y, needs):
            return x * y, lambda g: (g * y, g * x)

    x = tl.tensor(2.0, requires_grad=True)

    @tl.op
    def turns_complex(x):
        return x * 2, lambda g: g * 2j

    try:
        with pytest.raises(TypeError, match="'turns_complex' gave input 0 complex numbers"):
            turns_complex(x).backward()
    finally:
        del tl.OPS["turns_complex"]


def test_no_grad():
    x = leaf([1.0, 2.0])
    with tl.no_grad():
        y = x * x
        with tl.no_grad():
            pass
        z = x * x
    assert not y.requires_grad and not z.requires_grad
    assert (x * x).requires_grad

    @tl.no_grad()
    def function():
        return x * x

    assert not function().requires_grad
    with pytest.raises(KeyError), tl.no_grad():
        raise KeyError
    assert (x * x).requires_grad


def test_modes_on_generator_functions():
    """The generator's code runs in the mode, its caller's does not: as torch.no_grad does it."""
    x, log = leaf([1.0, 2.0]), []

    @tl.no_grad()
    def values(n):
        try:
            for i in range(n):
                sent = yield x * i
                log.append((sent, (x * x).requires_grad))
        except KeyError:
            yield x + 1
        finally:
            log.append((x * x).requires_grad)
        return "done"

    def whole():
        log.append((yield from values(2)))

    for y in whole():
        assert not y.requires_grad and (x * x).requires_grad
    assert log == [(None, False), (None, False), False, "done"] and values.__name__ == "values"
    generator = values(3)
    next(generator)
    generator.send("word")
    assert log.pop() == ("word", False)
    assert not generator.throw(KeyError).requires_grad and (x * x).requires_grad
    generator.close()
    assert log.pop() is False and (x * x).requires_grad

    @tl.detect_anomaly()
    def logarithms():
        yield tl.log(x - 1)

    with pytest.raises(FloatingPointError), np.errstate(divide="ignore"):
        next(logarithms())

    @tl.higher_order()
    def cubes():
        yield (x**3).sum()

    (g,) = tl.grad(next(cubes()), x, create_graph=True)
    np.testing.assert_array_equal(tl.grad(g.sum(), x)[0].data, [6, 12])


def test_modes_on_coroutines():
    x = leaf([1.0, 2.0])

    @tl.no_grad()
    async def quiet():
        await asyncio.sleep(0)
        return (x * x).requires_grad

    async def loud():
        await asyncio.sleep(0)
        return (x * x).requires_grad

    async def both():
        return await asyncio.gather(quiet(), loud(), quiet())

    assert asyncio.run(both()) == [False, True, False]
    with pytest.raises(TypeError, match="asynchronous generator 'stream'"):

        @tl.no_grad()
        async def stream():
            yield x


def test_no_grad_holds_for_its_own_thread():
    x, inside, results = leaf([2.0]), threading.Event(), []
    release = threading.Event()

    def quiet():
        with tl.no_grad():
            inside.set()
            release.wait(10)
            results.append((x * x).requires_grad)

    thread = threading.Thread(target=quiet)
    thread.start()
    inside.wait(10)
    assert (x * x).requires_grad
    release.set()
    thread.join()
    assert results == [False]


def test_threads_differentiate_through_the_same_parameters():
    rng = np.random.default_rng(0)
    w = leaf(rng.standard_normal((20, 20)))
    inputs = rng.standard_normal((8, 5, 20))
    expected = [tl.grad(tl.tanh(x @ w).sum(), w)[0].data for x in inputs]
    failures = []

    def work(i):
        for _ in range(50):
            (g,) = tl.grad(tl.tanh(inputs[i] @ w).sum(), w)
            if not np.array_equal(g.data, expected[i]):
                failures.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not failures and w.grad is None and w.data.flags.writeable


def test_threads_that_call_backward_lose_nothing():
    """Arrays so large that NumPy lets other threads run while it adds."""
    x, n = leaf(np.zeros(100_000)), 40

    def work():
        for _ in range(n):
            (x * 1.0).sum().backward()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert (x.grad.data == 4 * n).all()


# ---- tensors ----


def test_numbers_and_formats_of_one_element():
    x = leaf([[2.5]])
    assert f"{x.sum():.4f}|{x:8.2e}|{x:>6}" == "2.5000|2.50e+00|   2.5"
    assert round(float(x.sum()), 3) == 2.5 and float(x) == 2.5 and int(x) == 2
    assert f"{tl.tensor(7):03d}" == "007" and f"{x}" == str(x)
    y = leaf([1.0, 2.0])
    assert f"{y}" == "tensor([1., 2.], dtype=float64, requires_grad=True)"
    for function in (float, int, lambda y: f"{y:.4f}"):
        for wrong, shape in ((y, r"\(2,\)"), (leaf(np.ones((0, 1))), r"\(0, 1\)")):
            with pytest.raises(TypeError, match=f"only a tensor of one element.*{shape}"):
                function(wrong)


def test_dtypes_of_new_tensors():
    assert tl.tensor(1.5).dtype == tl.tensor([1.5]).dtype == np.float32
    assert tl.tensor(3).dtype == tl.tensor([1, 2]).dtype == np.int64
    assert tl.tensor(np.ones(2)).dtype == np.float64
    assert tl.tensor(True).dtype == bool
    assert tl.tensor([1, 2], dtype=np.float32).dtype == np.float32
    source = np.ones(3)
    t = tl.tensor(source)
    t.data[0] = 5
    assert source[0] == 1
    for bad in (["a"], np.array(["x"]), object(), None, 1j):
        with pytest.raises(TypeError):
            tl.tensor(bad)
    for dtype in (complex, object, "U3", "M8[s]"):
        with pytest.raises(TypeError, match="numbers"):
            tl.tensor([1.0], dtype=dtype)
        with pytest.raises(TypeError, match="numbers"):
            tl.tensor([1.0]).astype(dtype)


def test_no_silent_float64():
    x = tl.tensor([1.0, 2.0], requires_grad=True)
    ints = np.array([1, 2])
    for y in (
        x * 2,
        x * 2.5,
        x * np.float64(2.5),
        np.float64(2.5) * x,
        x * ints,
        ints * x,
        x / tl.tensor(ints),
        x ** tl.tensor(ints),
        x + True,
        x.mean(),
        x.sum(),
        tl.tensor([1, 2]) * 1.5,
        tl.tensor([1, 2]) / 2,
        tl.exp(tl.tensor([1, 2])),
        tl.tensor([1, 2]).mean(),
        tl.softmax(x) @ x,
    ):
        assert y.dtype == np.float32, y
        if y.requires_grad:
            assert tl.grad(y.sum(), x)[0].dtype == np.float32


def test_numpy_functions_and_arrays_mix_with_tensors():
    x = leaf(X)
    a = np.array([[1.0, 2.0], [3.0, 4.0]])
    for mixed, plain in (
        (a * x, a * X),
        (a @ x, a @ X),
        (a - x, a - X),
        (2 / x, 2 / X),
        (2.0**x, 2.0**X),
        (np.exp(x), np.exp(X)),
        (np.add(a, x), a + X),
        (np.concatenate([x, a]), np.concatenate([X, a])),
        (np.sum(x, axis=0), X.sum(axis=0)),
        (np.mean(x), X.mean()),
        (np.where(a > 2, x, a), np.where(a > 2, X, a)),
        (np.reshape(x, (4,)), X.reshape(4)),
    ):
        assert isinstance(mixed, tl.Tensor) and mixed.requires_grad
        np.testing.assert_allclose(mixed.data, plain)
    assert (a > x).dtype == bool and not (x == x).requires_grad


def test_what_numpy_cannot_do_with_a_tensor_says_so():
    x = leaf([1.0, 2.0])
    with pytest.raises(TypeError, match="np.spacing"):
        np.spacing(x)
    with pytest.raises(TypeError, match="np.histogram"):
        np.histogram(x)
    with pytest.raises(TypeError, match="np.add.reduce"):
        np.add.reduce(x)
    with pytest.raises(TypeError, match="out="):
        np.exp(x, out=np.empty(2))
    with pytest.raises(TypeError, match="detach"):
        np.asarray(x)
    np.testing.assert_array_equal(np.asarray(x.detach()), [1, 2])


def test_static_arguments_take_no_gradient():
    x, ids = leaf(X), tl.tensor([0, 1])
    assert tl.embedding(x, ids).shape == (2, 2)
    with pytest.raises(TypeError, match="no gradient flows into 'mask'"):
        tl.masked_fill(x, x, 0.0)
    with pytest.raises(TypeError, match="no gradient flows into 'condition'"):
        tl.where(x, x, x)


def test_calls_bind_by_signature():
    x, w = leaf(X), leaf([1.0, 2.0])
    assert tl.layer_norm(x, weight=w).shape == tl.layer_norm(x, w, None, 1e-3).shape
    np.testing.assert_array_equal(tl.sum(x, 0).data, tl.sum(x=x, axis=0).data)
    for call in (
        lambda: tl.sum(x, axes=0),
        lambda: tl.sum(x, 0, axis=0),
        lambda: tl.sum(),
        lambda: tl.add(x),
        lambda: tl.add(x, x, x),
    ):
        with pytest.raises(TypeError):
            call()
    for bad in ("text", object(), np.array(["a"])):
        with pytest.raises(TypeError, match="add takes tensors"):
            tl.add(x, bad)


def test_python_numbers_and_lists_are_taken():
    assert tl.mean(3.0).item() == 3 and tl.add(1, 2).item() == 3 and tl.gelu(0.0).item() == 0
    assert tl.take([1.0, 2.0], (0, 1)).shape == (2,) and tl.take([1.0], ()).shape == (0,)
    assert len(tl.split([1.0, 2.0], 2)) == 2
    assert tl.einsum(",i", 2.0, np.ones(2, np.float32)).dtype == np.float32
    assert tl.clip(tl.tensor([2**24 + 1]), None, 2**30).item() == 2**24 + 1


@pytest.mark.parametrize("function", [tl.softmax, tl.log_softmax, tl.logsumexp])
def test_empty_axes(function):
    x = leaf(np.ones((3, 0)))
    with np.errstate(divide="ignore"):
        y = function(x, axis=-1)
    (g,) = tl.grad(y, x, gradient=np.ones(y.shape))
    assert g.shape == (3, 0) and y.shape in ((3, 0), (3,))


def test_parameters_of_the_wrong_shape_are_refused():
    x, w = leaf(np.ones((2, 2, 3))), leaf(np.ones((3, 2)))
    for call in (
        lambda: tl.linear(x, w, np.ones((4, 2))),
        lambda: tl.layer_norm(x, np.ones((4, 3))),
        lambda: tl.rms_norm(x, np.ones((1, 3))),
    ):
        with pytest.raises(ValueError, match=r"\([14], [23]\)"):
            call()
    with pytest.raises(ValueError, match=r"\(2, 2, 3\) and \(\)"):
        x @ 2.0


def test_shapes_that_do_not_fit_are_named():
    x, y = leaf(np.ones((2, 3))), leaf(np.ones((4, 5)))
    for call in (lambda: x + y, lambda: x @ y, lambda: tl.linear(x, y)):
        with pytest.raises(ValueError, match=r"2.*3.*4.*5|3.*different from 4|4.*different from 3"):
            call()


def test_an_axis_out_of_range_is_named():
    x = leaf(np.ones((2, 3)))
    for call in (
        lambda: x.sum(axis=2),
        lambda: tl.softmax(x, axis=-3),
        lambda: tl.concatenate([x, x], axis=5),
        lambda: x.max(axis=7),
        lambda: x.var(axis=2),
        lambda: x.prod(axis=2),
        lambda: tl.split(x, 1, axis=2),
        lambda: tl.take(x, [0], axis=2),
        lambda: tl.take_along_axis(x, np.zeros((1, 1), int), 2),
    ):
        with pytest.raises((ValueError, IndexError), match="axis -?[0-9] is out of bounds"):
            call()


def test_layer_norm_is_over_the_last_axis_alone():
    rng = np.random.default_rng(0)
    x, w, b = leaf(rng.standard_normal((2, 3, 4, 5))), leaf(rng.random(5)), leaf(rng.random(5))
    y = tl.layer_norm(x, w, b)
    centred = x.data - x.data.mean(axis=-1, keepdims=True)
    expected = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(y.data, expected * w.data + b.data)
    check_grads(tl.layer_norm, [x.data, w.data, b.data])


def test_a_tensor_behaves_like_an_array():
    x = leaf(X)
    assert len(x) == 2 and [row.shape for row in x] == [(2,), (2,)]
    assert x.T.shape == (2, 2) and x.ndim == 2 and x.size == 4 and x.device == "cpu"
    assert float(x[0, 0]) == 1.5 and bool(x[0, 0] > 1) and x[1, 1].item() == 2.0
    assert x.sum().shape == () and isinstance(x.sum(), tl.Tensor)
    assert x in {x: 1} and repr(tl.tensor([1.0])) == "tensor([1.])"
    assert [0, 1, 2][tl.tensor(1)] == 1
    np.testing.assert_array_equal(x.transpose(1, 0).data, x.T.data)
    np.testing.assert_array_equal(x.reshape(4).data, x.reshape((4,)).data)


def test_zero_dimensional_values_are_arrays():
    x = tl.tensor(3.0, requires_grad=True)
    three, two = np.ones(3, np.float32), np.ones(2, np.float32)
    ((x * three).sum() + (x * two).sum()).backward()
    assert x.grad.item() == 5 and isinstance(x.grad.data, np.ndarray)
    x.grad = None
    for _ in range(2):
        (x * x).backward()
    for t in (x.grad, tl.tensor(np.float32(1)), tl.tensor(three[0]), tl.grad(x * x, x)[0]):
        assert isinstance(t.data, np.ndarray) and t.device == "cpu" and repr(t)
    y = tl.tensor([2.0, 4.0])
    for smaller in (y > np.float32(3), np.float32(3) < y, y > 3, y > tl.tensor(3)):
        np.testing.assert_array_equal(smaller.data, [False, True])


def test_explicit_dtypes_and_integers_in_between():
    x = tl.tensor([1.5, 2.5], requires_grad=True)
    assert x.astype(np.float64).dtype == np.float64
    assert tl.grad(x.astype(np.float64).sum(), x)[0].dtype == np.float32
    assert not x.astype(np.int64).requires_grad and not x.astype(bool).requires_grad
    assert tl.embedding(x.reshape(2, 1), tl.tensor([0.0, 1.0]).astype(np.int64)).shape == (2, 1)


def test_numpy_split_has_numpys_axis():
    x = leaf(np.arange(24.0).reshape(4, 6))
    assert [part.shape for part in np.split(x, 2)] == [(2, 6)] * 2
    assert [part.shape for part in tl.split(x, np.int64(3), -1)] == [(4, 2)] * 3
    assert [part.shape for part in tl.split(x, [1, 5], axis=1)] == [(4, 1), (4, 4), (4, 1)]
    with pytest.raises(ValueError, match="4 into 3 equal"):
        tl.split(x, 3)


def test_embedding_refuses_ids_outside():
    w = leaf(X)
    for ids in ([2], [-1], [0, 5], np.int64(-1), -1):
        with pytest.raises(IndexError, match="outside the vocabulary of 2"):
            tl.embedding(w, np.array(ids) if isinstance(ids, list) else ids)
    with pytest.raises(TypeError, match="integer"):
        tl.embedding(w, np.array([0.0]))
    with pytest.raises(IndexError, match="outside the 2 classes"):
        tl.cross_entropy(w, np.array([0, 2]))


def test_cuda_without_a_gpu(monkeypatch):
    from tensorlite import device

    assert tl.cuda.is_available() in (True, False)
    monkeypatch.setattr(device, "_cuda_fault", lambda: "the driver sees no GPU")
    assert not tl.cuda.is_available()
    with pytest.raises(RuntimeError, match="the driver sees no GPU"):
        tl.tensor([1.0], device="cuda")
    with pytest.raises(ValueError, match="'cpu' or 'cuda'"):
        tl.tensor([1.0], device="tpu")
