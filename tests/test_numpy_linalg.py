"""np.linalg on tensors where it is awkward: singular matrices, ties, empty stacks, bad input."""

import math

import numpy as np
import pytest

import tensorlite as tl
from tensorlite.testing import check_grads

L = tl.linalg
LinAlgError = np.linalg.LinAlgError
RNG = np.random.default_rng(0)
A = RNG.standard_normal((2, 3, 3)) + 3 * np.eye(3)
S = A @ A.swapaxes(-1, -2)  # symmetric, positive definite
W = RNG.standard_normal((3, 3))


def gradient(function, x):
    x = tl.tensor(x, requires_grad=True)
    return tl.grad(function(x), x)[0].data


def value_of(result):
    if isinstance(result, tuple):
        return [value_of(part) for part in result]
    return result.numpy() if isinstance(result, tl.Tensor) else result


def assert_as_numpy(name, *args, rtol=1e-12, **static):
    """tl.linalg.name and np.linalg.name of tensors give what NumPy gives."""
    numpys = getattr(np.linalg, name)
    given = [tl.tensor(a) if isinstance(a, np.ndarray) else a for a in args]
    expected = numpys(*args, **static)
    for ours in (getattr(L, name), numpys):
        result = ours(*given, **static)
        parts = result if isinstance(expected, tuple) else [result]
        for part, want in zip(parts, expected if isinstance(expected, tuple) else [expected]):
            assert np.shape(value_of(part)) == np.shape(want)
            np.testing.assert_allclose(value_of(part), want, rtol=rtol, atol=rtol)


# ---- values ----


@pytest.mark.parametrize("shape", [(0, 0), (1, 1), (3, 3), (0, 2, 2), (2, 0, 0), (2, 2, 3, 3)])
@pytest.mark.parametrize("name", ["det", "slogdet", "inv", "pinv", "svdvals", "qr", "matrix_rank"])
def test_stacks_of_every_size_are_numpys(name, shape):
    assert_as_numpy(name, np.random.default_rng(1).standard_normal(shape))


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (2, 3), (3, 1), (0, 3, 2), (2, 3, 0)])
@pytest.mark.parametrize("name", ["pinv", "svdvals", "qr", "matrix_rank", "matrix_norm"])
def test_matrices_that_are_not_square(name, shape):
    assert_as_numpy(name, np.random.default_rng(1).standard_normal(shape))


def test_further_vectors_where_no_gradient_is_needed():
    for x in (A[:, :2], A[..., :2], A[0, :1]):
        assert_as_numpy("svd", x)
        for mode in ("complete", "raw", "r"):
            assert_as_numpy("qr", x, mode)
    with tl.no_grad():
        assert L.svd(LEAF).U.shape == (3, 3)
    half = L.svd(tl.tensor(np.ones((3, 2), np.float16)))
    assert half.U.dtype == half.S.dtype == np.float16
    assert L.svd([[1, 2]]).Vh.dtype == np.float32


@pytest.mark.parametrize("shape", [(0, 0), (1, 1), (3, 3), (0, 2, 2)])
def test_symmetric_matrices_are_numpys(shape):
    x = np.random.default_rng(1).standard_normal(shape)
    x = x @ x.swapaxes(-1, -2) + np.eye(shape[-1])
    for name in ("eigh", "eigvalsh", "cholesky"):
        assert_as_numpy(name, x)
    assert_as_numpy("cholesky", x, upper=True)
    for name in ("svd", "pinv"):
        assert_as_numpy(name, x - 1.5 * np.eye(shape[-1]), hermitian=True)


ORDERS = [None, "fro", "nuc", 1, -1, 2, -2, math.inf, -math.inf]


@pytest.mark.parametrize("keepdims", [False, True])
def test_norms_are_numpys(keepdims):
    for ord in ORDERS:
        assert_as_numpy("norm", A[0], ord, keepdims=keepdims)
        assert_as_numpy("norm", A, ord, (2, 0), keepdims)
        if ord is not None:
            assert_as_numpy("matrix_norm", A, ord=ord, keepdims=keepdims)
    for ord in (None, 0, 1, -1, 2, 3, 0.5, -2.5, math.inf, -math.inf):
        assert_as_numpy("norm", A[0, 0], ord, keepdims=keepdims)
        assert_as_numpy("norm", A, ord, 1, keepdims)
        if ord is not None:
            assert_as_numpy("vector_norm", A, ord=ord, axis=(0, 2), keepdims=keepdims)
            assert_as_numpy("vector_norm", A, ord=ord, keepdims=keepdims)
    assert_as_numpy("norm", np.array(-3.0), keepdims=keepdims)


@pytest.mark.parametrize("x", [[[3, -4], [1, 0]], [[True, False], [True, True]]])
def test_numbers_that_are_not_floats(x):
    x = np.array(x)
    for ord in (1, 2, 3, 0, math.inf):
        y, expected = L.norm(x, ord, axis=1), np.linalg.norm(x.astype(float), ord, axis=1)
        assert y.dtype == np.float32
        np.testing.assert_allclose(y.data, expected, rtol=1e-6)
        if ord in (1, 2, math.inf):
            assert L.norm(x, ord).dtype == L.cond(x, ord).dtype == np.float32
    ones = np.ones((2, 2), x.dtype)
    assert L.matrix_rank(ones).item() == L.lstsq(ones, ones)[2] == 1


def test_norms_of_nothing_and_of_what_is_not_finite():
    empty = np.zeros((0, 3))
    for ord in (None, "fro", "nuc", 1, 2):
        assert_as_numpy("norm", empty, ord)
    for x in (np.array([math.nan, 1.0]), np.array([math.inf, 1.0]), np.array([0.0, 0.0])):
        for ord in (None, 1, 3, math.inf, -math.inf, 0):
            assert_as_numpy("norm", x, ord)
    with pytest.raises(ValueError):
        L.norm(empty, -2)


def test_condition_and_rank_are_numpys():
    singular = np.ones((3, 3))
    stack = np.stack([A[0], singular])
    for p in (None, 2, -2, "fro", "nuc", 1, -1, math.inf, -math.inf):
        assert_as_numpy("cond", A, p)
        if p in ("fro", 1, -1, math.inf, -math.inf):
            assert_as_numpy("cond", stack, p)
    assert L.cond(singular).item() > 1e15  # its singular values are 0 to rounding
    assert L.cond(singular, "nuc").item() == math.inf  # NumPy: SVD did not converge
    assert L.cond(np.zeros((2, 2))).item() == math.inf
    assert_as_numpy("matrix_rank", stack)
    assert_as_numpy("matrix_rank", S, 5.0)
    assert_as_numpy("matrix_rank", S, hermitian=True, rtol=0.1)
    for x in (np.zeros(2), np.ones(2)):
        assert_as_numpy("matrix_rank", x)


def test_equations_are_numpys():
    b = RNG.standard_normal((3, 2))
    assert_as_numpy("solve", A, b)
    assert_as_numpy("solve", A, b[:, 0])
    assert_as_numpy("solve", A[0], RNG.standard_normal((4, 3, 1)))
    with pytest.raises(ValueError):
        L.solve(A, b[:2])
    for a in (A[0, :2], A[0], A[0, :, :2], np.ones((3, 2))):
        assert_as_numpy("lstsq", a, np.arange(len(a) * 2.0).reshape(-1, 2))
        assert_as_numpy("lstsq", a, np.arange(float(len(a))))
    assert_as_numpy("tensorsolve", RNG.standard_normal((3, 2, 6)), b)
    assert_as_numpy("tensorinv", RNG.standard_normal((6, 3, 2)), 1)
    assert_as_numpy("tensorsolve", np.array([2.0]), np.array([4.0]))
    for n in (-2, -1, 0, 1, 2, 3, 10):
        assert_as_numpy("matrix_power", A, n, rtol=1e-10)
    assert_as_numpy("matrix_power", np.array([[1, 1], [1, 0]]), 30)


def test_products_are_numpys():
    x, y = A[0], A[1]
    for name in ("cross", "vecdot", "tensordot", "matmul"):
        assert_as_numpy(name, x, y)
    assert_as_numpy("cross", x, y, axis=0)
    assert_as_numpy("vecdot", x, y, axis=0)
    assert_as_numpy("tensordot", x, y, axes=1)
    assert_as_numpy("outer", x[0], y[0])
    for name in ("trace", "diagonal"):
        assert_as_numpy(name, A, offset=1)
    assert_as_numpy("matrix_transpose", A)
    chain = [RNG.standard_normal(s) for s in ((2,), (2, 30), (30, 3), (3, 20), (20,))]
    for arrays in (chain, chain[1:], chain[:-1], [chain[0], chain[0]], [A, A]):
        result = np.linalg.multi_dot([tl.tensor(a) for a in arrays])
        np.testing.assert_allclose(result.data, np.linalg.multi_dot(arrays), rtol=1e-12)


def test_the_order_of_a_long_product_is_the_cheapest(monkeypatch):
    shapes = []
    matmul = L.solving.matmul

    def noted(x, y):
        shapes.append((x.shape, y.shape))
        return matmul(x, y)

    monkeypatch.setattr(L.solving, "matmul", noted)
    L.multi_dot([np.ones((10, 100)), np.ones((100, 5)), np.ones((5, 50))])
    assert shapes == [((10, 100), (100, 5)), ((10, 5), (5, 50))]
    shapes.clear()
    L.multi_dot([np.ones((50, 5)), np.ones((5, 100)), np.ones((100, 10))])
    assert shapes == [((5, 100), (100, 10)), ((50, 5), (5, 10))]


def test_lists_and_dtypes():
    assert L.solve([[2.0, 0.0], [0.0, 4.0]], [1, 1]).dtype == np.float32
    np.testing.assert_allclose(L.solve(np.eye(2), [0.1, 0.2]).data, [0.1, 0.2], rtol=1e-15)
    assert L.inv(tl.tensor([[2, 1], [1, 1]])).dtype == np.float32
    for dtype in (np.float16, np.float32, np.float64):
        x = tl.tensor(S[0], dtype=dtype, requires_grad=True)
        for function in (L.det, L.inv, L.cholesky, L.pinv, L.norm, L.eigvalsh, L.cond):
            y = function(x)
            (g,) = tl.grad(y, x, gradient=np.ones(y.shape))
            assert y.dtype == g.dtype == dtype
            tolerance = 1e-2 if dtype == np.float16 else 1e-4
            np.testing.assert_allclose(y.data, function(S[0]).data, rtol=tolerance, atol=tolerance)


# ---- singular matrices ----

SINGULAR = {
    "rank n - 1": np.arange(9.0).reshape(3, 3),
    "rank 1": np.ones((3, 3)),
    "zero": np.zeros((3, 3)),
    "zero 2 x 2": np.zeros((2, 2)),
    "zero 1 x 1": np.zeros((1, 1)),
    "nearly": np.ones((3, 3)) + 1e-9 * np.diag([1.0, 2.0, 3.0]),
    "in a stack": np.stack([np.eye(2), np.ones((2, 2))]),
    "small": 1e-120 * np.eye(3),
}


@pytest.mark.parametrize("name", SINGULAR)
def test_determinants_of_singular_matrices_have_all_derivatives(name):
    order = 1 if name == "small" else 3  # no differences of a determinant of 1e-360
    check_grads(L.det, [SINGULAR[name]], order=order)


def test_cofactors():
    np.testing.assert_allclose(
        gradient(L.det, np.arange(9.0).reshape(3, 3)),
        [[-3, 6, -3], [6, -12, 6], [-3, 6, -3]],
        atol=1e-13,
    )
    np.testing.assert_allclose(gradient(L.det, 1e-120 * np.eye(3)), 1e-240 * np.eye(3), rtol=1e-12)
    x = RNG.standard_normal((30, 30))
    x[0] = x[1]  # beyond what minors could do
    g = gradient(L.det, x)
    minor = np.linalg.det(np.delete(np.delete(x, 0, 0), 4, 1))
    np.testing.assert_allclose(g[0, 4], minor, rtol=1e-10)
    with np.errstate(invalid="ignore"):
        assert np.isnan(gradient(L.det, np.full((2, 2), math.nan))).all()


def test_the_logarithm_of_a_zero_determinant():
    sign, size = L.slogdet(tl.tensor(np.ones((2, 2)), requires_grad=True))
    assert (sign.item(), size.item()) == (0, -math.inf) and not sign.requires_grad
    with pytest.raises(LinAlgError, match="Singular"):
        size.backward()


def test_singular_matrices_and_those_that_are_not_positive_definite_raise():
    for call in (
        lambda x: L.inv(x),
        lambda x: L.solve(x, np.ones(2)),
        lambda x: L.matrix_power(x, -1),
        lambda x: L.tensorinv(x, 1),
        lambda x: L.cholesky(x - 1.0),
    ):
        with pytest.raises(LinAlgError):
            call(tl.tensor(np.ones((2, 2))))


def test_pseudo_inverses_among_matrices_of_one_rank():
    u, v = RNG.standard_normal((2, 4, 2))
    check_grads(lambda u, v: L.pinv(u @ v.T, rcond=1e-8), [u, v])
    check_grads(lambda u, v, b: L.lstsq(u @ v.T, b)[0], [u, v, np.arange(4.0)])
    x = np.diag([1.0, 1e-3])
    for static in ({"rcond": 0.1}, {"rtol": 0.1}):
        np.testing.assert_allclose(L.pinv(x, **static).data, np.diag([1, 0]), atol=1e-15)
    wide = np.float32(x * [1, 1e-5])  # NumPy's default cuts nothing here
    assert L.pinv(wide).data[1, 1] > 1e7 and L.pinv(wide, rtol=None).data[1, 1] == 0


# ---- equal eigenvalues and singular values, zero vectors ----


def test_functions_of_equal_values_alone_have_their_gradient():
    x = np.diag([2.0, 2.0, 3.0])
    for function in (
        lambda x: (L.eigvalsh(x) ** 2).sum(),
        lambda x: (L.svdvals(x) ** 2).sum(),
        lambda x: (L.svd(x, hermitian=True).S ** 2).sum(),
        lambda x: L.norm(x) ** 2,
    ):
        np.testing.assert_allclose(gradient(function, x), 2 * x, atol=1e-12)
    np.testing.assert_allclose(gradient(lambda x: L.norm(x, 2), np.eye(2)), np.eye(2) / 2)
    np.testing.assert_array_equal(gradient(lambda x: L.eigh(x)[1][0, 2], x)[2], [1, 0, 0])


def test_vectors_of_equal_values_have_no_derivative():
    x = 2 * np.eye(3)
    for function in (
        lambda x: L.eigh(x).eigenvectors[0, 0],
        lambda x: (L.eigh(x).eigenvectors * [1.0, 2.0, 3.0]).sum(),
        lambda x: (L.svd(x).U * W).sum(),
        lambda x: (L.svd(x).Vh * W).sum(),
    ):
        assert np.isnan(gradient(function, x)).any()

    def rebuilt(x):  # x itself, but what v adds to its gradient is not known
        w, v = L.eigh(x)
        return ((v * w) @ v.T * W).sum()

    assert np.isnan(gradient(rebuilt, x)).any()
    symmetric = gradient(rebuilt, S[0])
    np.testing.assert_allclose(symmetric, np.tril(W) + np.tril(W.T, -1), atol=1e-10)


def test_functions_that_do_not_depend_on_signs():
    def powers(x):
        w, v = L.eigh(x)
        return tl.concatenate([w[None], (v * tl.sqrt(w)) @ v.T, v * v])

    def polar(x):
        u, s, vt = L.svd(x, full_matrices=False)
        return tl.concatenate([s[None], u @ vt, (u * s**3) @ vt, u * u])

    check_grads(powers, [S[0]], order=2)
    for x in (A[0], A[0, :, :2]):
        check_grads(polar, [x], order=2)
    check_grads(lambda x: polar(x.T), [A[0, :2]], order=2)
    check_grads(lambda x: L.svd(x, hermitian=True).S, [A[0] - 3 * np.eye(3)])


def test_one_triangle_has_the_gradient():
    for function, triangle in (
        (L.cholesky, np.tril),
        (lambda x: L.cholesky(x, upper=True), np.triu),
        (L.eigvalsh, np.tril),
        (lambda x: L.eigvalsh(x, "U"), np.triu),
        (lambda x: L.pinv(x, hermitian=True), np.tril),
    ):
        g = gradient(lambda x, f=function: (f(x) ** 3).sum(), S[0])
        assert np.all(g[triangle(np.ones((3, 3))) == 1] != 0)
        np.testing.assert_array_equal(g, triangle(g))


def test_a_zero_vector_has_a_norm_with_gradient_zero():
    for ord in (None, 2, 3, 1.5, 1, math.inf):
        zero = tl.tensor(np.zeros((2, 3)), requires_grad=True)
        with tl.higher_order():
            y = L.norm(zero, ord, axis=1).sum()
            (g,) = tl.grad(y, zero, create_graph=True)
        np.testing.assert_array_equal(g.data, np.zeros((2, 3)))
        if g.requires_grad:
            np.testing.assert_array_equal(tl.grad((g * W[:2]).sum(), zero)[0].data, g.data)
    np.testing.assert_array_equal(gradient(L.norm, np.zeros(2)), [0, 0])
    np.testing.assert_allclose(gradient(lambda x: L.norm(x, 0.5), np.array([0, 4.0])), [0, 1])
    np.testing.assert_array_equal(gradient(lambda x: L.norm(x, math.inf), [3.0, -3]), [0.5, -0.5])
    check_grads(lambda x: L.norm(x), [np.array([0.0, 2.0])], order=2)  # a zero beside others


# ---- bad input ----

LEAF = tl.tensor(np.ones((3, 2)), requires_grad=True)
REFUSED = [
    (lambda: L.svd(LEAF), ValueError, r"\(3, 2\).*full_matrices=False"),
    (lambda: np.linalg.svd(LEAF), ValueError, "full_matrices=False"),
    (lambda: L.qr(LEAF, "complete"), ValueError, "mode='complete'"),
    (lambda: L.qr(LEAF, "raw"), ValueError, "mode='raw'"),
    (lambda: L.qr(np.ones((3, 2)), "full"), ValueError, "'full'"),
    (lambda: L.eig(np.eye(2)), TypeError, "complex.*eigh"),
    (lambda: np.linalg.eigvals(tl.tensor(np.eye(2))), TypeError, "complex.*eigh"),
    (lambda: L.eigh(np.eye(2), "X"), ValueError, "UPLO is 'L' or 'U'"),
    (lambda: L.norm(np.eye(2), "max"), ValueError, "'max'"),
    (lambda: L.norm(np.ones(2), "fro"), ValueError, "'fro'"),
    (lambda: L.norm(np.ones((1, 1, 1)), 2), ValueError, "one axis or two, not 3"),
    (lambda: L.norm(np.eye(2), axis=(0, -2)), ValueError, "different axes"),
    (lambda: L.matrix_norm(np.ones(3)), ValueError, "matrices"),
    (lambda: L.cond(np.ones((0, 0))), LinAlgError, "empty"),
    (lambda: L.cond(np.ones((2, 3)), 1), LinAlgError, "square"),
    (lambda: L.det(np.ones((2, 3))), LinAlgError, "square"),
    (lambda: L.inv(np.ones(3)), LinAlgError, "two-dimensional"),
    (lambda: L.matrix_power(np.ones((2, 3)), 2), LinAlgError, "square"),
    (lambda: L.matrix_power(np.eye(2), 0.5), TypeError, "float"),
    (lambda: L.multi_dot([np.eye(2)]), ValueError, "at least two"),
    (lambda: L.multi_dot([np.eye(2), np.ones(2), np.eye(2)]), LinAlgError, "vectors at the ends"),
    (lambda: L.lstsq(np.ones((3, 2)), np.ones(2)), LinAlgError, r"\(3, 2\), \(2,\)"),
    (lambda: L.tensorinv(np.eye(2), 0), ValueError, "positive"),
    (lambda: L.tensorinv(np.ones((2, 3)), 1), LinAlgError, r"\(2, 3\)"),
    (lambda: L.tensorinv(np.ones((0, 0))), LinAlgError, r"\(0, 0\)"),
    (lambda: L.tensorsolve(np.ones((2, 3)), np.ones(2)), LinAlgError, r"\(2, 3\)"),
    (lambda: L.cross(np.ones(2), np.ones(2)), ValueError, "3 elements"),
    (lambda: L.outer(np.eye(2), np.ones(2)), ValueError, "two vectors"),
    (lambda: L.pinv(np.eye(2), 0.1, rtol=0.1), ValueError, "not both"),
    (lambda: L.matrix_rank(np.eye(2), 0.1, rtol=0.1), ValueError, "not both"),
]


@pytest.mark.parametrize("call, error, words", REFUSED)
def test_what_is_refused(call, error, words):
    with pytest.raises(error, match=words):
        call()


COMPLEX, OBJECTS = np.eye(2) * 1j, np.array([[1, 0], [0, None]])


@pytest.mark.parametrize("name", sorted(set(L.__all__) - {"multi_dot"}))
@pytest.mark.parametrize("x", [COMPLEX, OBJECTS, "text"], ids=["complex", "objects", "text"])
def test_what_is_not_made_of_real_numbers_is_refused(name, x):
    binary = {"cross", "outer", "matmul", "tensordot", "vecdot", "solve", "lstsq", "tensorsolve"}
    more = [np.eye(2)] if name in binary else [2] if name == "matrix_power" else []
    with pytest.raises(TypeError, match="complex128|object|str|text|<U4"):
        getattr(L, name)(x, *more)
