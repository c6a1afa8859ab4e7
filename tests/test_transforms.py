"""Transforms: against closed forms, differences, torch.func and JAX; nesting; what is refused."""

import numpy as np
import pytest

import tensorlite as tl
from tests import strict

RNG = np.random.default_rng(0)
A, X, V = RNG.standard_normal((3, 4)), RNG.standard_normal(4), RNG.standard_normal(4)
TALL = RNG.standard_normal((6, 4))
PARAMS = {
    "w": [RNG.standard_normal((2, 3)), RNG.standard_normal((3, 1))],
    "b": RNG.standard_normal(3),
    "scale": np.array(1.5),
}
DIRECTIONS = {
    "scale": np.array(0.5),  # in another order than the parameters
    "b": RNG.standard_normal(3),
    "w": [RNG.standard_normal((2, 3)), RNG.standard_normal((3, 1))],
}
INPUTS = RNG.standard_normal((5, 2))


def network(params, np=np):
    """A network of one hidden layer: a dict of tensors -> (5, 1)."""
    first, second = params["w"]
    return np.tanh(INPUTS @ first + params["b"]) @ second * params["scale"]


def leaves(tree):
    if isinstance(tree, dict):
        return [leaf for key in sorted(tree) for leaf in leaves(tree[key])]
    if isinstance(tree, (list, tuple)):
        return [leaf for part in tree for leaf in leaves(part)]
    return [tree.numpy() if isinstance(tree, tl.Tensor) else np.asarray(tree)]


def near(ours, theirs, **tolerance):
    ours, theirs = leaves(ours), leaves(theirs)
    assert [a.shape for a in ours] == [b.shape for b in theirs]
    for a, b in zip(ours, theirs):
        np.testing.assert_allclose(a, b, **{"rtol": 1e-9, "atol": 1e-12} | tolerance)


# ---- closed forms ----


def test_a_linear_function():
    value, g = tl.value_and_grad(lambda x: (A @ x).sum(), X)
    near([value, g], [(A @ X).sum(), A.sum(axis=0)])
    value, pull = tl.vjp(lambda x: A @ x, X)
    near(
        [value, pull(np.arange(3.0)), pull(tl.tensor(np.ones(3)))],
        [A @ X, A.T @ range(3), A.sum(0)],
    )
    near(tl.jvp(lambda x: A @ x, X, V), [A @ X, A @ V])
    for matrix in (A, TALL):  # fewer rows, fewer columns
        near(tl.jacobian(lambda x: matrix @ x, X), matrix)  # noqa: B023


def test_rows_and_columns_agree(monkeypatch):
    def function(x):
        return np.sin(TALL @ x) * x[0]

    columns = tl.jacobian(function, X)
    rows = np.stack([tl.grad(function(x)[i], x)[0].numpy() for i in range(6) for x in [leaf(X)]])
    near(columns, rows)
    passes = []
    monkeypatch.setattr(
        "tensorlite.transforms.grad", lambda *a, **k: passes.append(0) or grad(*a, **k)
    )
    grad = tl.grad
    for matrix, expected in ((A, 3), (TALL, 5)):  # 3 rows; 1 pass, and 4 columns of it
        passes.clear()
        tl.jacobian(lambda x: np.sin(matrix @ x), X)  # noqa: B023
        assert len(passes) == expected


def leaf(values):
    return tl.tensor(values, requires_grad=True)


def test_shapes_of_jacobians_and_hessians():
    x = RNG.standard_normal((2, 3))
    assert tl.jacobian(lambda x: x[:, :2] ** 2, x).shape == (2, 2, 2, 3)
    assert tl.jacobian(lambda x: np.stack([x, x * x]), x).shape == (2, 2, 3, 2, 3)
    assert tl.jacobian(lambda x: x.sum(), x).shape == (2, 3)
    assert tl.jacobian(lambda x: x * np.ones(4), 2.0).shape == (4,)
    assert tl.hessian(lambda x: (x**3).sum(), x).shape == (2, 3, 2, 3)
    assert tl.jacobian(lambda x: x[:0], x).shape == (0, 3, 2, 3)
    assert tl.jacobian(lambda x: x.sum() * np.ones(3), np.ones((0, 2))).shape == (3, 0, 2)
    assert tl.hessian(lambda x: (x**2).sum(), np.ones((0, 2))).shape == (0, 2, 0, 2)
    second = tl.hessian(lambda p: (network(p) ** 2).sum(), PARAMS)
    assert second["b"]["w"][0].shape == (3, 2, 3) and second["w"][1]["scale"].shape == (3, 1)
    near(second["b"]["w"][0], second["w"][0]["b"].transpose(2, 0, 1).numpy())


def repeated(n, dtype):
    """A function whose value has another dtype than x; for n > 1 its Jacobian is by columns."""
    return lambda x: x.astype(dtype) * np.ones((n, 1), dtype)


def test_numbers_and_dtypes():
    value, g = tl.value_and_grad(lambda x: x**3, 2.0)
    assert (value.item(), g.item()) == (8, 12) and value.dtype == g.dtype == np.float32
    assert tl.hessian(lambda x: x**3, 2).item() == 12  # Python's integers are real numbers here
    for dtype in (np.float16, np.float32, np.float64):
        x, v = np.ones(3, dtype), [1, 2, 3]
        results = [*tl.value_and_grad(lambda x: (x * x).sum(), x), tl.jacobian(lambda x: x * x, x)]
        results += [*tl.jvp(lambda x: np.exp(x), x, v), tl.hvp(lambda x: (x**3).sum(), x, v)]
        results += [
            tl.jacobian(repeated(n, t), x) for n in (1, 4) for t in (np.float16, np.float64)
        ]
        assert {r.dtype for r in results} == {np.dtype(dtype)}


# ---- several arguments, dicts and lists ----


def test_several_arguments():
    def f(w, x, power):
        return (w * x).sum() ** power

    w, x = np.array([1.0, 2.0]), np.array([3.0, 5.0])
    near(tl.value_and_grad(f, (w, x, 2), argnums=0)[1], 2 * 13 * x)
    near(tl.value_and_grad(f, (w, x, 2), argnums=(1, 0))[1], [2 * 13 * w, 2 * 13 * x])
    near(tl.value_and_grad(f, (w, x, 2), argnums=[-2])[1], [2 * 13 * w])
    both = tl.hessian(lambda w, x: (w * x).sum(), (w, x))
    near(both, [[np.zeros((2, 2)), np.eye(2)], [np.eye(2), np.zeros((2, 2))]])
    value, product = tl.jvp(lambda w, x: w * x, (w, x), ([1.0, 0.0], [0.0, 1.0]))
    near([value, product], [np.array([3, 10]), np.array([3, 2])])
    near(tl.hvp(lambda w, x: (w * x).sum(), (w, x), (x, w)), [w, x])
    near(tl.jvp(f, (w, x, 1), [1.0, 1.0], argnums=1)[1], 3.0)


def test_dicts_and_lists_keep_their_form():
    value, g = tl.value_and_grad(lambda p: network(p).sum(), PARAMS)
    assert list(g) == list(PARAMS) and isinstance(g["w"], list) and g["scale"].shape == ()
    near(value, network(PARAMS).sum())
    for i, j in np.ndindex(2, 3):
        moved = [PARAMS["w"][0].copy(), PARAMS["w"][1]]
        values = []
        for step in (1e-5, -1e-5):
            moved[0][i, j] = PARAMS["w"][0][i, j] + step
            values.append(network(PARAMS | {"w": moved}).sum())
        assert g["w"][0].numpy()[i, j] == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-7)
    rows = tl.jacobian(network, PARAMS)
    (value, product) = tl.jvp(network, PARAMS, DIRECTIONS)
    pairs = zip(leaves(rows), leaves(DIRECTIONS))
    near(product, sum(np.tensordot(r, d, d.ndim) for r, d in pairs))
    second = tl.hvp(lambda p: (network(p) ** 2).sum(), PARAMS, DIRECTIONS)
    step = 1e-5
    values = [
        leaves(tl.value_and_grad(lambda p: (network(p) ** 2).sum(), shifted(sign * step))[1])
        for sign in (1, -1)
    ]
    near(second, [(a - b) / (2 * step) for a, b in zip(*values)], rtol=1e-6, atol=1e-7)
    numbers = tl.value_and_grad(lambda x: (x * x).sum(), [[1.0, 2.0], [3.0, 4.0]])[1]
    assert numbers.shape == (2, 2)  # a list of numbers is an array


def shifted(step):
    """The parameters, moved in the direction of DIRECTIONS."""
    w = [a + step * b for a, b in zip(PARAMS["w"], DIRECTIONS["w"])]
    return {"w": w} | {key: PARAMS[key] + step * DIRECTIONS[key] for key in ("b", "scale")}


# ---- against PyTorch and JAX ----


def test_as_torch_func():
    torch = pytest.importorskip("torch")
    inputs = torch.tensor(INPUTS)

    def tensors(tree):
        if isinstance(tree, dict):
            return {key: tensors(part) for key, part in tree.items()}
        return [tensors(p) for p in tree] if isinstance(tree, list) else torch.tensor(tree)

    def net(p):
        return torch.tanh(inputs @ p["w"][0] + p["b"]) @ p["w"][1] * p["scale"]

    params, v, u = tensors(PARAMS), tensors(DIRECTIONS), RNG.standard_normal((5, 1))
    v = {key: v[key] for key in params}  # there the order matters
    near(tl.jacobian(network, PARAMS), torch.func.jacrev(net)(params))
    near(tl.jvp(network, PARAMS, DIRECTIONS), torch.func.jvp(net, (params,), (v,)))
    near(tl.vjp(network, PARAMS)[1](u), torch.func.vjp(net, params)[1](torch.tensor(u))[0])
    loss = lambda p: (network(p) ** 2).sum()  # noqa: E731
    near(tl.hessian(loss, PARAMS), torch.func.hessian(lambda p: (net(p) ** 2).sum())(params))
    few = lambda x: torch.sin(torch.tensor(TALL) @ x) * x[0]  # noqa: E731
    x = torch.tensor(X)
    near(tl.jacobian(lambda x: np.sin(TALL @ x) * x[0], X), torch.func.jacfwd(few)(x))


def test_as_jax():
    jax = pytest.importorskip("jax")
    with jax.enable_x64(True):
        net = lambda p: network(p, jax.numpy)  # noqa: E731
        scalar = lambda p: (net(p) ** 2).sum()  # noqa: E731
        ours = lambda p: (network(p) ** 2).sum()  # noqa: E731
        params, v = (jax.tree.map(jax.numpy.asarray, tree) for tree in (PARAMS, DIRECTIONS))
        near(tl.value_and_grad(ours, PARAMS), jax.value_and_grad(scalar)(params))
        near(tl.jvp(network, PARAMS, DIRECTIONS), jax.jvp(net, (params,), (v,)))
        near(tl.hvp(ours, PARAMS, DIRECTIONS), jax.jvp(jax.grad(scalar), (params,), (v,))[1])


@pytest.mark.filterwarnings("ignore")
def test_as_hips_autograd():
    """The table of docs/engine.md, row by row."""
    autograd = pytest.importorskip("autograd")
    anp = pytest.importorskip("autograd.numpy")

    def f(x, np=anp):
        return np.sum(np.sin(x) * x[0] ** 2)

    def g(x, np=anp):
        return np.tanh(A @ x) * x[:3]

    def ours(x):
        return f(x, np)

    near(tl.value_and_grad(ours, X), autograd.value_and_grad(f)(X))
    near(tl.value_and_grad(ours, X)[1], autograd.grad(f)(X))
    both = autograd.value_and_grad(lambda x, y: f(x * y), argnum=1)(X, V)
    near(tl.value_and_grad(lambda x, y: ours(x * y), (X, V), argnums=1), both)
    near(
        tl.value_and_grad(lambda x: np.tanh(x).sum(), X)[1], autograd.elementwise_grad(anp.tanh)(X)
    )
    near(tl.jacobian(lambda x: g(x, np), X), autograd.jacobian(g)(X))
    near(tl.hessian(ours, X), autograd.hessian(f)(X))
    near(tl.hvp(ours, X, V), autograd.hessian_vector_product(f)(X, V))
    pull, value = autograd.make_vjp(g)(X)
    near(
        [tl.vjp(lambda x: g(x, np), X)[0], tl.vjp(lambda x: g(x, np), X)[1](V[:3])],
        [value, pull(V[:3])],
    )
    near(tl.jvp(lambda x: g(x, np), X, V), autograd.make_jvp(g)(X)(V))


# ---- nesting ----


def test_transforms_in_the_functions_of_others():
    f = lambda x: (np.sin(x) * x[::-1]).sum()  # noqa: E731
    near(tl.jacobian(lambda x: tl.value_and_grad(f, x)[1], X), tl.hessian(f, X))
    near(tl.jvp(lambda x: tl.value_and_grad(f, x)[1], X, V)[1], tl.hvp(f, X, V))
    third = tl.jacobian(lambda x: tl.hessian(lambda x: (x**4).sum(), x), X)
    expected = np.zeros((4, 4, 4))
    expected[range(4), range(4), range(4)] = 24 * X
    near(third, expected)
    # The gradient flows into the direction too, and into what the inner function uses besides.
    g = tl.value_and_grad(lambda v: (tl.jvp(np.exp, X, v)[1] ** 2).sum(), V)[1]
    near(g, 2 * np.exp(2 * X) * V)
    g = tl.value_and_grad(lambda w: tl.jacobian(lambda x: w * x * x, X).sum(), 3.0)[1]
    near(g, 2 * X.sum(), rtol=1e-6)
    g = tl.value_and_grad(lambda w: tl.vjp(lambda x: w * x * x, X)[1](V).sum(), 3.0)[1]
    near(g, 2 * (X * V).sum(), rtol=1e-6)


def test_only_the_argument_is_differentiated():
    """The inner function uses its argument, and the same tensor from outside as a constant."""
    outer = tl.value_and_grad(lambda x: tl.value_and_grad(lambda y: x * y * y, x)[1], 3.0)
    near(outer, [18.0, 12.0])  # d/dy x y^2 at y = x is 2 x^2
    x = leaf([3.0])
    near(tl.value_and_grad(lambda y: (x * y * y).sum(), x)[1], np.array([18.0]))
    assert x.grad is None


def test_results_have_a_graph_under_higher_order_alone():
    x = leaf([1.0, 2.0])
    for _ in range(2):
        value, g = tl.value_and_grad(lambda x: (x**3).sum(), x)
        assert not value.requires_grad and not g.requires_grad
    with tl.higher_order(), tl.no_grad():
        assert not tl.value_and_grad(lambda x: (x**3).sum(), x)[1].requires_grad
    with tl.no_grad():
        near(tl.hvp(lambda x: (x**3).sum(), x, [1.0, 1.0]), np.array([6, 12]))
    with tl.higher_order():
        value, g = tl.value_and_grad(lambda x: (x**3).sum(), x)
        ((g * g).sum() + value).backward()
    near(x.grad, np.array([2 * 3 * 6 + 3, 2 * 12 * 12 + 12]))


def test_nothing_stays_protected():
    x = np.ones(3)
    for transform in (tl.value_and_grad, tl.jacobian, tl.hessian):
        transform(lambda x: (x**3).sum(), x)
        x += 1
    value, pull = tl.vjp(lambda x: x**3, x)
    with pytest.raises(ValueError, match="read-only"):
        x += 1
    near(pull(np.ones(3)), 3 * x**2)
    del pull
    x += 1


# ---- the strict device ----


def test_on_a_gpu(monkeypatch):
    if not tl.cuda.is_available():
        strict.install(monkeypatch)
    x = tl.tensor(X, device="cuda")
    tall = tl.tensor(TALL, device="cuda")
    for f in (lambda x: np.sin(x)[:2], lambda x: np.sin(tall @ x)):
        assert tl.jacobian(f, x).device == "cuda"
    near(tl.jacobian(lambda x: np.sin(tall @ x), x), np.cos(TALL @ X)[:, None] * TALL)
    near(tl.jvp(lambda x: x * x, x, V)[1], 2 * X * V)
    near(tl.hessian(lambda p: (p["x"] ** 3).sum(), {"x": x})["x"]["x"], np.diag(6 * X))
    near(tl.vjp(lambda x: x * x, x)[1](V), 2 * X * V)


# ---- what is refused ----


TRANSFORMS = {
    "value_and_grad": lambda f, x: tl.value_and_grad(f, x)[1],
    "vjp": lambda f, x: tl.vjp(f, x)[1](np.ones(f(tl.tensor(x)).shape)),
    "jvp": lambda f, x: tl.jvp(f, x, np.ones_like(x))[1],
    "jacobian": tl.jacobian,
    "hvp": lambda f, x: tl.hvp(f, x, np.ones_like(x)),
    "hessian": tl.hessian,
}


@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
def test_a_function_that_does_not_depend_on_x(transform):
    constant = leaf(2.0)
    for f in (
        lambda x: constant * 3.0,
        lambda x: tl.tensor(1.0),
        lambda x: tl.tensor(x.numpy().sum()),
    ):
        assert not transform(f, np.ones(2)).numpy().any()


@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
def test_functions_and_arguments_that_are_refused(transform):
    vector = transform in (TRANSFORMS["vjp"], TRANSFORMS["jvp"], tl.jacobian)
    for f, kind in (
        (lambda x: x.numpy().sum(), "a numpy.float64"),
        (lambda x: (x.sum(), x.sum()), "a tuple"),
        (lambda x: None, "a NoneType"),
        (lambda x: np.argmax(x), "a tensor of dtype int64"),
    ):
        if transform is TRANSFORMS["vjp"] and kind != "a tensor of dtype int64":
            continue
        with pytest.raises(TypeError, match=f"one tensor of floating point, not {kind}"):
            transform(f, np.ones(2))
    for x, dtype in ((np.arange(3), "int64"), (np.ones(2, complex), "complex128")):
        with pytest.raises(TypeError, match=rf"dtype {dtype}; .*floating-point|{dtype}"):
            transform(lambda x: x.sum(), x)
    if not vector:
        with pytest.raises(ValueError, match=r"shape \(2,\); it must be a single number"):
            transform(lambda x: x * x, np.ones(2))


def test_shapes_and_forms_that_do_not_fit():
    f = lambda x: (x**3).sum()  # noqa: E731
    for call, words in (
        (lambda: tl.jvp(f, X, V[:2]), r"v has shape \(2,\), x has \(4,\)"),
        (lambda: tl.hvp(f, X, V[None]), r"v has shape \(1, 4\), x has \(4,\)"),
        (lambda: tl.vjp(f, X)[1](np.ones(2)), r"u has shape \(2,\), the value has \(\)"),
        (lambda: tl.vjp(lambda x: 1.0 * tl.tensor(2.0), X)[1]([1.0]), r"u has shape \(1,\)"),
        (lambda: tl.jvp(network, PARAMS, {"w": 0}), r"a dict with the keys \['w', 'b', 'scale'\]"),
        (lambda: tl.jvp(network, PARAMS, DIRECTIONS | {"w": [1.0]}), "v must be a list of 2"),
        (lambda: tl.jvp(lambda x, y: x, (X, X), V), "v must be a tuple of 2"),
        (lambda: tl.hessian(lambda x, y: f(x), (X, X), argnums=2), "there are 2 arguments"),
        (lambda: tl.hessian(lambda x, y: f(x), (X, X), argnums=(0, -2)), "each once"),
        (lambda: tl.hessian(lambda x, y: f(x), (X, X), argnums=()), "each once"),
    ):
        with pytest.raises(ValueError, match=words):
            call()
    for call, words in (
        (lambda: tl.hessian(f, X, argnums=0), "x is a single argument"),
        (lambda: tl.jacobian(f, None), "numbers"),
        (lambda: tl.jacobian(f, {"a": X, "b": None}), "numbers"),
        (lambda: tl.jvp(f, X, None), "numbers"),
        (lambda: tl.jvp(f, X, V * 1j), "numbers"),
        (lambda: tl.jacobian(lambda x, n: x, (X, 3, np.arange(3))), "int64; .*argnums="),
    ):
        with pytest.raises(TypeError, match=words):
            call()
