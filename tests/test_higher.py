"""What is built on the engine: second derivatives, recomputation, anomaly mode; memory."""

import gc
import tracemalloc

import numpy as np
import pytest

import tensorlite as tl
from tensorlite.graph import Node
from tensorlite.protect import captured, captures
from tensorlite.testing import check_grads


def leaf(values, dtype=np.float64):
    return tl.tensor(values, dtype=dtype, requires_grad=True)


# ---- second derivatives ----


def test_hvp_and_hessian():
    rng = np.random.default_rng(0)
    a = rng.standard_normal((4, 4))
    symmetric = a + a.T

    def quadratic(x):
        return 0.5 * (x @ symmetric @ x)

    x, v = rng.standard_normal(4), rng.standard_normal(4)
    np.testing.assert_allclose(tl.hvp(quadratic, x, v).data, symmetric @ v)
    np.testing.assert_allclose(tl.hessian(quadratic, x).data, symmetric)
    assert tl.hessian(lambda x: (x**3).sum(), np.ones((2, 3))).shape == (2, 3, 2, 3)
    np.testing.assert_array_equal(tl.hvp(lambda x: x.sum() * 2.0, x, v).data, np.zeros(4))
    np.testing.assert_array_equal(tl.hessian(lambda x: x.sum(), x).data, np.zeros((4, 4)))
    assert tl.hvp(lambda x: (x**3).sum(), [1.0, 2.0], [1.0, 1.0]).dtype == np.float32


def test_the_hessian_of_a_small_network_is_symmetric():
    rng = np.random.default_rng(1)
    x, w = rng.standard_normal((3, 4)), rng.standard_normal((4, 2))
    targets = np.array([0, 1, 1])
    h = tl.hessian(lambda w: tl.linear_cross_entropy(tl.gelu(x), w.T, targets), w).data
    h = h.reshape(8, 8)
    np.testing.assert_allclose(h, h.T, atol=1e-12)
    v = rng.standard_normal((4, 2))
    product = tl.hvp(lambda w: tl.linear_cross_entropy(tl.gelu(x), w.T, targets), w, v)
    np.testing.assert_allclose(product.data.ravel(), h @ v.ravel(), atol=1e-12)


def test_create_graph_outside_higher_order_says_so():
    x = leaf([1.0, 2.0])
    with pytest.raises(RuntimeError, match=r"tl.higher_order\(\)"):
        tl.grad((x**3).sum(), x, create_graph=True)


def test_a_gradient_penalty():
    """The use that most ask for: a loss that contains the gradient of another."""
    rng = np.random.default_rng(2)
    w, x = leaf(rng.standard_normal((3, 1))), leaf(rng.standard_normal((5, 3)))
    with tl.higher_order():
        (g,) = tl.grad(tl.tanh(x @ w).sum(), x, create_graph=True)
        loss = ((g * g).sum(axis=1) - 1.0).mean()
    loss.backward()
    t = np.tanh(x.data @ w.data)
    s = 1 - t * t

    def objective(w):
        s = 1 - np.tanh(x.data @ w) ** 2
        return np.mean(np.sum((s * w.T) ** 2, axis=1) - 1)

    for i in range(3):
        step = np.zeros((3, 1))
        step[i] = 1e-6
        expected = (objective(w.data + step) - objective(w.data - step)) / 2e-6
        assert w.grad.data[i, 0] == pytest.approx(expected, rel=1e-5)
    assert s.shape == (5, 1)


def test_a_joint_operation_without_a_composed_definition():
    @tl.op
    def both(x, y, *, needs):
        def vjp(g):
            return g * y * y if needs[0] else None, g * 2.0 * x * y if needs[1] else None

        return x * y * y, vjp

    try:
        check_grads(both, [np.array([1.5, -2.0]), np.array([0.5, 3.0])], order=2)
        check_grads(lambda y: both(np.array([1.5, -2.0]), y), [np.array([0.5, 3.0])], order=2)
    finally:
        del tl.OPS["both"]


def test_inputs_are_protected_where_they_may_be_used_again():
    x = leaf([1.0, 2.0])
    with tl.higher_order():
        y = tl.exp(x).sum()
    with pytest.raises(ValueError, match="read-only"):
        x.data[0] = 3
    del y
    x.data[0] = 3


def test_lists_may_change_where_they_may_be_used_again():
    x, index, factors, nested = leaf([1.0, 2.0, 3.0]), [0, 1], [1.0, 10.0, 100.0], ([0, 1],)
    with tl.higher_order():
        y = tl.square(x[index]).sum() + (x * factors).sum() + x[nested].sum()
    index[0] = factors[0] = nested[0][0] = 2
    (g,) = tl.grad(y, x, create_graph=True)
    np.testing.assert_array_equal(g.data, [2 + 1 + 1, 4 + 10 + 1, 100])


def test_nothing_is_kept_without_higher_order():
    x = leaf(np.ones(4))
    assert tl.exp(x).node.call is None
    with tl.higher_order():
        assert tl.exp(x).node.call is not None
    with tl.higher_order(), tl.no_grad():
        assert tl.exp(x).node is None


def test_gradients_with_a_graph_do_not_share_memory():
    w, b = leaf([1.0, 2.0]), leaf([3.0, 4.0])
    start = np.ones(2)
    with tl.higher_order():
        gw, gb = tl.grad(w + b, [w, b], gradient=start, create_graph=True)
    gw.data += 1
    np.testing.assert_array_equal(gb.data, [1, 1])
    np.testing.assert_array_equal(start, [1, 1])


def test_targets_are_protected_where_they_may_be_used_again():
    targets = np.array([0, 1, 2])
    with tl.higher_order():
        y = tl.cross_entropy(leaf(np.eye(3)), targets)
    with pytest.raises(ValueError, match="read-only"):
        targets[:] = 0
    del y
    targets[:] = 0


def test_a_function_that_does_not_depend_on_its_argument():
    constant = leaf(2.0)
    for f in (lambda x: constant * 3.0, lambda x: tl.tensor(1.0)):
        np.testing.assert_array_equal(tl.hvp(f, np.ones(3), np.ones(3)).data, np.zeros(3))
        np.testing.assert_array_equal(tl.hessian(f, np.ones(2)).data, np.zeros((2, 2)))
    with pytest.raises(ValueError, match=r"v has shape \(5,\), x has \(1,\)"):
        tl.hvp(lambda x: (x**3).sum(), np.ones(1), np.ones(5))
    with pytest.raises(TypeError, match="floating-point"):
        tl.hessian(lambda x: (x**3).sum(), np.arange(3))


# ---- recomputation ----


def block(x, w, rng):
    return x + tl.dropout(tl.gelu(tl.layer_norm(x) @ w), 0.5, rng)


def test_checkpoint_gives_the_same_gradients():
    rng = np.random.default_rng(0)
    x, w = leaf(rng.standard_normal((5, 8))), leaf(rng.standard_normal((8, 8)))
    results = []
    for run in (block, lambda *args: tl.checkpoint(block, *args)):
        numbers = np.random.default_rng(7)
        h = x * 2.0
        for _ in range(3):
            h = run(h, w, numbers)
        loss = (h * h).sum()
        first = tl.grad(loss, [x, w], retain_graph=True)
        results.append([h, *first, *tl.grad(loss, [x, w])])  # the second time the same
    for a, b in zip(*results):
        np.testing.assert_array_equal(a.data, b.data)


def test_checkpoint_reaches_what_the_function_uses_besides_its_arguments():
    x, w = leaf([1.0, 2.0]), leaf([3.0, 4.0])
    between = w * 2.0
    y = tl.checkpoint(lambda x: x * w + between * x, x)
    gx, gw, gb = tl.grad(y.sum(), [x, w, between])
    np.testing.assert_array_equal(gx.data, [9, 12])
    np.testing.assert_array_equal(gw.data, [3, 6])
    np.testing.assert_array_equal(gb.data, [1, 2])


def test_checkpoint_protects_what_it_will_compute_from():
    x, w = leaf([1.0, 2.0]), leaf([3.0, 4.0])
    y = tl.checkpoint(lambda x: x + w, x)
    for t in (x, w):
        with pytest.raises(ValueError, match="read-only"):
            t.data[0] = 5
    y.sum().backward()
    x.data[0] = w.data[0] = 5
    with tl.no_grad():
        assert tl.checkpoint(lambda x: x * w, x).node is None
    array = np.array([2.0, 3.0])  # an argument that is no tensor
    y = tl.checkpoint(lambda x, array: x * array, x, array)
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 5
    y.sum().backward()
    array[0] = 5
    assert not captures


def test_checkpoint_on_constants_and_under_higher_order():
    assert not tl.checkpoint(lambda x: x * 2.0, tl.tensor([1.0])).requires_grad
    x = leaf([1.0, 2.0])
    with tl.higher_order():
        (g,) = tl.grad(tl.checkpoint(lambda x: x**3, x).sum(), x, create_graph=True)
    np.testing.assert_array_equal(tl.grad(g.sum(), x)[0].data, [6, 12])


def test_checkpoint_of_what_is_handed_through():
    x, w = leaf([1.0, 1.0]), leaf([2.0, 2.0])
    z = tl.checkpoint(lambda a, skip: a if skip else a * w, x, True)
    np.testing.assert_array_equal(tl.grad((z * 2.0 + w).sum(), x)[0].data, [2, 2])


@pytest.mark.parametrize(
    "function", [lambda x: (x * 2, x * 3), lambda x: [x], lambda x: None, lambda x: x.data]
)
def test_checkpoint_takes_functions_of_one_tensor(function):
    words = f"one tensor, not a {type(function(leaf([1.0]))).__name__}"
    for x in (leaf([1.0]), tl.tensor([1.0])):
        for mode in (tl.no_grad, tl.higher_order, tl.detect_anomaly):
            with pytest.raises(TypeError, match=words), mode():
                tl.checkpoint(function, x)
        with pytest.raises(TypeError, match=words):
            tl.checkpoint(function, x)


def test_checkpoint_under_other_modes():
    x = leaf([1.0, 2.0])
    y = tl.checkpoint(lambda x: x**3, x).sum()
    with tl.no_grad():
        np.testing.assert_array_equal(tl.grad(y, x)[0].data, [3, 12])
    model = tl.nn.Sequential(tl.nn.Linear(2, 2), tl.nn.Dropout(0.5))
    with pytest.raises(ValueError, match="rng"):
        tl.checkpoint(model, tl.tensor([[1.0, 2.0]]))


# ---- anomaly mode ----


def test_anomaly_mode_names_the_operation_and_the_line():
    x = leaf([1.0, 0.0])
    with np.errstate(all="ignore"):
        with tl.detect_anomaly(), pytest.raises(FloatingPointError) as value:
            tl.log(x)  # the line
        with tl.detect_anomaly():
            y = tl.sqrt(x)  # the other line
            with pytest.raises(FloatingPointError) as gradient:
                y.sum().backward()
        tl.log(x)
    assert "the value of 'log'" in str(value.value) and "# the line" in str(value.value)
    message = str(gradient.value)
    assert "gradient for input 0 of 'sqrt'" in message and "# the other line" in message
    assert __file__ in message


def test_anomaly_mode_accepts_infinities_inside_composed_definitions():
    q = leaf(np.random.default_rng(0).standard_normal((3, 2)))
    with tl.detect_anomaly(), tl.higher_order():
        y = tl.scaled_dot_product_attention(q, q, q, is_causal=True).sum()
        tl.grad(y, q, create_graph=True)


# ---- memory ----


def peak(function):
    gc.collect()
    tracemalloc.start()
    try:
        result = function()
        return result, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def memory_of_captures(root, leaves):
    """Bytes of the arrays that the graph's vjps hold, each memory once, the leaves' left out."""
    owners, stack, seen = {}, [root], set()
    while stack:
        node = stack.pop()
        if not isinstance(node, Node) or node in seen:
            continue
        seen.add(node)
        stack.extend(node.parents)
        for array in captured(node.vjps):
            while isinstance(array.base, np.ndarray):
                array = array.base
            owners[id(array)] = array.nbytes
    for t in leaves:
        owners.pop(id(t.data), None)
    return sum(owners.values())


def layer(x, w1, w2):
    h = tl.layer_norm.composed(x)
    a = tl.attention.composed(h, h, h, is_causal=True)
    return x + tl.gelu.composed(a @ w1) @ w2


def weights():
    rng = np.random.default_rng(0)
    w1, w2 = (leaf(0.1 * rng.standard_normal(s), np.float32) for s in ((64, 256), (256, 64)))
    return leaf(rng.standard_normal((8, 64, 64)), np.float32), w1, w2


def test_a_forward_pass_needs_what_it_captures_and_little_more():
    x, w1, w2 = weights()

    def forward(h=x):
        for _ in range(6):
            h = layer(h, w1, w2)
        return h

    y, used = peak(forward)
    assert used <= 1.1 * memory_of_captures(y.node, (x, w1, w2))


def test_checkpoint_keeps_one_input_a_block():
    x, w1, w2 = weights()

    def forward(blocks):
        h = x
        for _ in range(blocks):
            h = tl.checkpoint(layer, h, w1, w2)
        return h

    def grown(blocks):
        gc.collect()
        tracemalloc.start()
        try:
            y = forward(blocks)
            return tracemalloc.get_traced_memory()[0], y
        finally:
            tracemalloc.stop()

    few, many = grown(2)[0], grown(10)[0]
    per_block = (many - few) / 8
    assert per_block <= 1.02 * x.data.nbytes + 4096  # Python's own objects beside the array
