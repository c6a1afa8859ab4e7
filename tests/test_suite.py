"""`gradient_tests` passes for right operations, and finds what is wrong with others."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st

import tensorlite as tl
from tensorlite.testing import CannotTell, arrays, broadcastable, gradient_tests, of_tensors
from tensorlite.testing.suite import bind
from tests import strict

PAIRS = broadcastable(2).flatmap(lambda shapes: st.tuples(*(arrays(shape) for shape in shapes)))


@pytest.fixture(autouse=True)
def quick():
    """A few examples, not made smaller; the operations that the tests define are forgotten."""
    operations = dict(tl.OPS)
    profile = settings.get_current_profile_name()
    few = settings(derandomize=True, deadline=None, max_examples=8, phases=[Phase.generate])
    settings.register_profile("quick", few)
    settings.load_profile("quick")
    yield
    settings.load_profile(profile)
    tl.OPS.clear()
    tl.OPS.update(operations)


# ---- in one line, as in a test module of a user ----


def cube_vjp(g, x):
    return 3 * g * x * x


test_plain_numpy = gradient_tests((lambda x: x**3, cube_vjp), arrays())
test_functions_of_tensors = gradient_tests(lambda x, y: x * y + tl.sin(x), PAIRS)
test_keyword_arguments = gradient_tests(
    lambda x, *, axis: tl.cumsum(x, axis),
    arrays(shape=(2, 3)).flatmap(lambda x: st.tuples(st.just([x]), st.just({"axis": -1}))),
)
test_sequences = gradient_tests(
    tl.concatenate, st.lists(arrays((2,)), min_size=1).map(lambda x: [x])
)
test_composed = gradient_tests(
    (lambda x: x**3, cube_vjp), arrays(), composed=of_tensors(lambda x: x * x * x)
)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_kernels_of_low_precision(dtype):
    """They exist in one dtype only, and are judged in that."""
    dtype = np.dtype(pytest.importorskip("ml_dtypes").bfloat16 if dtype == "bfloat16" else dtype)

    def kernel(x):
        assert x.dtype == dtype
        return np.tanh(x)

    def vjp(g, x):
        y = np.tanh(x)
        return (g * (1 - y * y)).astype(dtype)

    twin = of_tensors(tl.tanh)
    gradient_tests((kernel, vjp), arrays(dtype=dtype), composed=twin)()
    assert "argument 0 at" in found((kernel, lambda g, x: -vjp(g, x)), arrays(dtype=dtype))


def test_on_a_device(monkeypatch):
    if not tl.cuda.is_available():
        strict.install(monkeypatch)
    gradient_tests(lambda x, y: x * y, PAIRS, device="cuda")()


# ---- what is found ----


def found(op, arguments=None, **options) -> str:
    """The message with which the suite fails."""
    with pytest.raises(AssertionError) as caught:
        gradient_tests(op, arrays() if arguments is None else arguments, **options)()
    return str(caught.value)


def test_a_wrong_gradient():
    @tl.op
    def wrong(x):
        return x * x * x, lambda g: g * 2 * x * x

    assert "argument 0 at" in found(wrong)
    assert "argument 0 at" in found((lambda x: x**3, lambda g, x: 2 * g * x * x))


def test_the_likely_mistake_is_that_of_larger_arguments():
    """The smallest array that fails has one entry, which shows no kind of mistake."""
    shrunk = settings(phases=[Phase.generate, Phase.shrink], max_examples=30)
    settings.register_profile("shrunk", shrunk)  # the fixture `quick` undoes this
    settings.load_profile("shrunk")
    with pytest.raises(AssertionError, match=r"argument 0 at \(\)") as caught:
        gradient_tests((lambda x: x**3, lambda g, x: 2 * g * x * x), arrays())()
    assert any("The likely mistake, as other" in note for note in caught.value.__notes__)


def test_what_cannot_be_told_is_said_once():
    with np.errstate(all="ignore"), pytest.warns(CannotTell) as caught:
        gradient_tests((np.log, lambda g, x: g / x), arrays(shape=(2,)))()
    [warning] = [w for w in caught if w.category is CannotTell]
    assert "of the arguments drawn" in str(warning.message)


def test_a_wrong_second_derivative():
    @tl.op
    def detached(x):
        slope = 3 * np.square(x.data if isinstance(x, tl.Tensor) else x)
        return x * x * x, lambda g: g * slope

    gradient_tests(detached, arrays(), order=1)()
    assert "differentiated once more" in found(detached)


def test_float64_for_float32():
    factor = np.float64(2)
    value, vjp = lambda x: np.sin(factor * x), lambda g, x: factor * g * np.cos(factor * x)
    assert "with float32 arguments, the value is of dtype float64" in found((value, vjp))
    words = found((lambda x: np.sin(2 * x), vjp))
    assert "with float32 arguments, the gradient of argument 0 is of dtype float64" in words


def test_another_number_in_float32():
    def value(x):
        return x * (1.1 if x.dtype == np.float32 else 1.0)

    assert "the value at" in found((value, lambda g, x: value(x) / x * g))


def test_another_value_than_the_composed_definition():
    def nearly(x):
        return tl.exp(x) * (1 + 1e-9)

    words = found(nearly, composed=tl.exp)
    assert "in float64, the value at" in words and "that of the composed definition" in words


def test_gradients_that_depend_on_which_are_needed():
    @tl.op
    def product(x, y, *, needs):
        scale = 1.0 if all(needs) else 2.0
        return x * y, lambda g: (g * y * scale, g * x)

    assert "with gradients for argument 0 alone" in found(product, PAIRS)


def test_memory_orders():
    def vjp(g, x):
        return 2 * g * x.ravel(order="K").reshape(x.shape)

    assert "lies in Fortran order" in found(
        (lambda x: x * x, vjp), st.just(np.arange(1.0, 7.0).reshape(2, 3))
    )


def test_the_checks_need_numpy_alone():
    code = "import sys, tensorlite.testing; print([m for m in %r if m in sys.modules])"
    others = ["hypothesis", "torch", "jax", "cupy", "mpmath", "ml_dtypes", "scipy"]
    done = subprocess.run([sys.executable, "-c", code % others], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


# ---- what strategies may draw ----


def test_bind():
    x, y = np.ones(2), np.zeros(3)
    for drawn in (x, [x], (x,), ([x], {})):
        f, values = bind(lambda x: x, drawn)
        assert f(*values) is x
    f, values = bind(lambda x, y, scale=1: (x, y, scale), ([x, y], {"scale": 2}))
    assert f(*values) == (x, y, 2)
    f, values = bind(lambda g, parts, dtype: (g, parts, dtype), ([[x, y]], {"dtype": np.float64}),
                     np.float32, n_before=1)  # fmt: skip
    assert f(1, *values) == (1, [x, y], np.float32)
