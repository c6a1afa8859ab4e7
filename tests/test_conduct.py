"""`complaints`: what functions and vjps do that they should not, each found and named.

Functions without fault get no complaint, in any precision and at any scale.
"""

import re

import numpy as np
import pytest

from tensorlite.testing import examine_vjp
from tensorlite.testing.conduct import complaints

RNG = np.random.default_rng(0)
X, W, G = (RNG.standard_normal(shape) for shape in ((3, 4), (4, 2), (3, 2)))


def square(x):
    return x * x


def product_vjp(g, x, w):
    return g @ w.T, x.T @ g


def only(found: list[str]) -> str:
    assert len(found) == 1, found
    return found[0]


def of_square(vjp, value=square, x=X):
    return only(complaints(value, vjp, [x], RNG.uniform(0.5, 1.5, x.shape)))


# ---- what is found ----


def test_writing_into_g():
    def vjp(g, x):
        g *= 2 * x
        return g

    assert of_square(vjp).startswith("The vjp writes into g: entry (0, 0) was ")


def test_writing_into_an_argument():
    def value(x):
        y = x * x
        x[0, 1] = 7
        return y

    def vjp(g, x):
        return 2 * g * x

    words = of_square(vjp, value)
    assert words.startswith("The value writes into argument 0: entry (0, 1) was ")
    assert "and 7 after it" in words


def test_writing_that_is_undone():
    def vjp(g, x):
        x += 1
        x -= 1
        return 2 * g * x

    words = of_square(vjp, x=np.round(8 * X) / 8)
    assert "although it restores it" in words and "read-only" in words


def test_a_random_value():
    noise = np.random.default_rng(0)
    words = of_square(lambda g, x: 2 * g * x, lambda x: x * x + 1e-6 * noise.random())
    assert words.startswith("Computed again with the same arguments, the value at (")
    assert "random" in words


def test_a_random_vjp():
    noise = np.random.default_rng(0)
    words = of_square(lambda g, x: 2 * g * x * (noise.random(x.shape) > 0.5))
    assert "the gradient of argument 0 at (" in words and "random" in words


def test_a_gradient_that_is_added_to_the_last_one():
    total = np.zeros(X.shape)

    def vjp(g, x):
        nonlocal total
        total = total + 2 * g * x
        return total

    assert "it grows by the same amount with each call" in of_square(vjp)


def test_a_buffer_that_is_returned_again():
    buffer = np.zeros(X.shape)
    words = of_square(lambda g, x: np.multiply(2 * g, x, out=buffer))
    assert words.startswith("After the vjp was called again with another g, the gradient")
    assert "overwritten" in words
    words = of_square(lambda g, x: 2 * g * x, lambda x: np.multiply(x, x, out=buffer))
    assert words.startswith("After the function was called with other arguments, the value at")
    assert "overwritten" in words


def test_what_the_last_call_of_the_function_left_behind():
    kept = {}

    def value(x):
        kept["x"] = x
        return x * x

    words = of_square(lambda g, x: 2 * g * kept["x"], value)
    assert "left behind, and not the arguments that it is given" in words


@pytest.mark.parametrize("of_g", [
    lambda g: np.abs(g), lambda g: g * g, lambda g: np.clip(g, -5, 5), lambda g: g + 1,
    lambda g: g * (np.abs(g) == np.abs(g).max()),  # the largest entry alone
], ids=["abs", "square", "clipped", "shifted", "largest"])  # fmt: skip
def test_a_vjp_that_is_not_linear(of_g):
    words = of_square(lambda g, x: 2 * of_g(g) * x)
    assert words.startswith("The vjp is not linear in g: ")


@pytest.mark.parametrize("order", ["Fortran order", "strided memory", "reversed memory"])
def test_memory_orders_of_arguments(order):
    def right(x):
        if order == "Fortran order":
            return x.flags.c_contiguous or not x.flags.f_contiguous
        if order == "reversed memory":
            return x.strides[0] > 0
        return x.flags.forc or x.strides[0] < 0

    def vjp(g, x, w):
        gx, gw = product_vjp(g, x, w)
        return gx, gw if right(w) else gw[::-1]

    words = only(complaints(np.matmul, vjp, [X, W], G))
    assert words.startswith(f"When argument 1 lies in {order}, the gradient of argument 1 at (")


def test_memory_orders_of_the_value_and_of_g():
    def raveled(x):
        return x.ravel(order="K")[:3] * 1.0

    def vjp(g, x):
        gradient = np.zeros(x.shape)
        gradient.ravel()[:3] = g
        return gradient

    words = only(complaints(raveled, vjp, [X], np.ones(3)))
    assert words.startswith("When argument 0 lies in Fortran order, the value at (")
    words = of_square(lambda g, x: 2 * g.ravel(order="K").reshape(g.shape) * x)
    assert words.startswith("When g lies in Fortran order, the gradient of argument 0 at (")


def test_a_memory_order_that_raises():
    def vjp(g, x):
        if not x.flags.c_contiguous:
            raise TypeError("expected a contiguous array")
        return 2 * g * x

    assert "it raises TypeError: expected a contiguous array" in of_square(vjp)


def test_gradients_that_depend_on_which_are_needed():
    def vjp(g, x, w, *, needs=(True, True)):
        gx, gw = product_vjp(g, x, w)
        return gx if needs[0] else None, gw if all(needs) else gw * 0.5

    words = only(complaints(np.matmul, vjp, [X, W], G))
    assert words.startswith(
        "When gradients are needed for argument 1 alone, the gradient of argument 1 at ("
    )
    right = lambda g, x, w, needs=(True, True): product_vjp(g, x, w)  # noqa: E731
    assert complaints(np.matmul, right, [X, W], G) == []


def test_two_numbers_that_differ_are_shown_to_differ():
    def value(x):
        x += 1  # this is undone, except for rounding errors
        x -= 1
        return x * x

    words = complaints(value, lambda g, x: 2 * g * x, [np.array([0.1])], np.ones(1))[0]
    assert "was 0.1000" in words and "before the call and 0.1000" in words
    before, after = re.search(r"was (\S+) before the call and (\S+) after", words).groups()
    assert before != after


@pytest.mark.parametrize("vjp, words", [
    (lambda g, x, w: (g @ w.T,), "The vjp returns 1 gradient, but there are 2 arguments."),
    (lambda g, x, w: ("1.0", x.T @ g), "argument 0 is of type str, not an array"),
    (lambda g, x, w: (g @ w.T, (x.T @ g).astype(int)), "argument 1 is of dtype int64, not an arr"),
])  # fmt: skip
def test_results_of_a_wrong_number_or_type(vjp, words):
    assert words in only(complaints(np.matmul, vjp, [X, W], G))


def test_arguments_are_left_alone():
    x, g = X.copy(), X.copy()

    def vjp(g, x):
        x += 1
        g += 1
        return 2 * g * x

    found = complaints(square, vjp, [x], g)
    assert len([words for words in found if "writes into" in words]) == 2
    np.testing.assert_array_equal(x, X)
    np.testing.assert_array_equal(g, X)


# ---- functions without fault ----


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def softmax_vjp(g, x):
    p = softmax(x)
    return p * (g - (g * p).sum(axis=-1, keepdims=True))


def centred(x):
    return x - x.mean(axis=-1, keepdims=True)


def norm(x):
    y = centred(x)
    return y / np.sqrt((y * y).mean(axis=-1, keepdims=True) + 1e-5)


def norm_vjp(g, x):
    y = norm(x)
    s = np.sqrt((centred(x) ** 2).mean(axis=-1, keepdims=True) + 1e-5)
    return (centred(g) - y * (g * y).mean(axis=-1, keepdims=True)) / s


RIGHT = {
    "product": (lambda x, y: x @ y.T, lambda g, x, y: (g @ y, g.T @ x)),
    "the same gradient twice": (np.add, lambda g, x, y: (g, g)),
    "a view of an argument": (lambda x: x.T, lambda g, x: g.T),
    "kink": (lambda x: np.maximum(x, 0), lambda g, x: g * (x > 0)),
    "softmax": (softmax, softmax_vjp),
    "norm": (norm, norm_vjp),
    # The gradients are 0, so that what remains of them is rounding errors.
    "cancelling": (lambda x: centred(x).sum(axis=-1), lambda g, x: centred(g[:, None] + 0 * x)),
    "sum of softmax": (lambda x: softmax(x).sum(axis=-1),
                       lambda g, x: softmax_vjp(g[:, None] + 0 * x, x)),
}  # fmt: skip


@pytest.mark.parametrize("name", RIGHT)
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16", "float32 inside"])
@np.errstate(all="ignore")
def test_functions_without_fault(name, dtype):
    value, vjp = RIGHT[name]
    n = 2 if name in ("product", "the same gradient twice") else 1
    if dtype == "float32 inside":
        value, vjp = in_float32(value), in_float32(vjp)
        dtype = np.dtype(np.float64)
    elif dtype == "bfloat16":
        dtype = np.dtype(pytest.importorskip("ml_dtypes").bfloat16)
    rng = np.random.default_rng(0)
    for shape in ((3, 4), (1, 2), (5, 64), (2, 1), (0, 3), (20, 30)):
        for scale in (1e-12, 1e-3, 1.0, 1e3, 1e4):
            args = [(scale * rng.standard_normal(shape)).astype(dtype) for _ in range(n)]
            y = np.asarray(value(*args))
            g = rng.uniform(0.5, 1.5, y.shape).astype(y.dtype)
            assert complaints(value, vjp, args, g) == [], (shape, scale)


def in_float32(function):
    def call(*arrays):
        result = function(*(a.astype(np.float32) for a in arrays))
        if isinstance(result, tuple):
            return tuple(r.astype(np.float64) for r in result)
        return np.asarray(result).astype(np.float64)

    return call


def test_integer_arguments_have_no_gradient():
    def vjp(g, x, i):
        gradient = np.zeros(x.shape)
        np.add.at(gradient, i, g)
        return gradient, None

    i = np.array([0, 2, 2])
    assert complaints(lambda x, i: x[i], vjp, [X, i], RNG.standard_normal((3, 4))) == []


def test_arrays_without_dimensions_stay_arrays():
    """A vjp is given arrays, also where NumPy's arithmetic turns them into scalars."""

    def vjp(g, x, y):
        assert all(type(a) is np.ndarray for a in (g, x, y))
        return g * y, g * x

    x = np.array(2.0)
    assert complaints(lambda x, y: x * y, vjp, [x, x + np.zeros(())], np.array(1.0)) == []


def test_a_float_is_a_gradient_for_one_number():
    x, g = np.array(2.0), np.array(3.0)
    assert complaints(square, lambda g, x: float(2 * g * x), [x], g) == []
    found = only(complaints(square, lambda g, x: float(2 * g * g * x), [x], g))
    assert "not linear in g" in found


def test_what_is_returned_for_an_array_of_integers_does_not_matter():
    vjp = lambda g, x, i: (np.bincount(i, g, x.size), np.zeros_like(i))  # noqa: E731
    x, i, g = np.array([1.0, 2.0, 3.0]), np.array([0, 2, 2]), np.array([1.0, 2.0, 4.0])
    assert complaints(lambda x, i: x[i], vjp, [x, i], g) == []


def test_nan_is_not_taken_for_a_change():
    x = np.array([1.0, np.nan])
    assert complaints(square, lambda g, x: 2 * g * x, [x], np.ones(2)) == []


def test_a_wider_dtype_is_noted():
    x = np.array([1.0, 2.0], np.float32)
    report = examine_vjp(np.sin, lambda g, x: g * np.cos(x) * np.float64(1), [x])
    assert report.ok and report.notes == [
        "The gradient for argument 0 is of dtype float64, the argument of float32."
    ]
    report = examine_vjp(lambda x: np.float64(2) * x, lambda g, x: (2 * g).astype(np.float32), [x])
    assert report.notes == ["The value is of dtype float64, no argument is wider than float32."]
    assert examine_vjp(np.sin, lambda g, x: g * np.cos(x), [x]).notes == []
