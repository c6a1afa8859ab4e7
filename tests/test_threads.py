"""Work in several threads gives what one thread gives, and raises what it raises."""

import signal
import threading
import time
import warnings

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

import tensorlite as tl
from tensorlite import threads


@pytest.fixture
def two_threads():
    with threadpool_limits(2, user_api="blas"):
        if not any(library.get_num_threads() == 2 for library in threads.blas_libraries()):
            pytest.skip("this BLAS does not use two threads")
        yield


def run(work, pieces=range(50)):
    threads.in_threads(work, pieces, np.empty(threads.MANY))


def test_every_piece_is_done_once_and_in_several_threads(two_threads):
    done, names, both = [], set(), threading.Barrier(2, timeout=20)

    def work(i):
        if i < 2:
            both.wait()  # passes only if two threads are here at once
        done.append(i)
        names.add(threading.current_thread().name)
        assert all(library.get_num_threads() == 1 for library in threads.blas_libraries())

    run(work)
    assert sorted(done) == list(range(50)) and len(names) == 2
    assert any(library.get_num_threads() == 2 for library in threads.blas_libraries())


def test_errors_reach_the_caller_and_the_next_call_works(two_threads):
    both = threading.Barrier(2, timeout=20)
    main = threading.current_thread()
    for here in (True, False):

        def work(i, here=here):
            both.wait()
            if (threading.current_thread() is main) == here:
                raise ValueError("no")

        with pytest.raises(ValueError, match="no"):
            run(work, range(2))
    total = []
    run(total.append)
    assert len(total) == 50


def test_after_ctrl_c_the_next_call_waits_for_all_of_its_own_work(two_threads):
    """The interrupt comes while this thread waits for the other, whose work ends later."""
    both, end = threading.Barrier(2, timeout=20), threading.Event()
    main = threading.main_thread()

    def interrupted(i):
        both.wait()
        if threading.current_thread() is not main:
            time.sleep(0.05)
            signal.pthread_kill(main.ident, signal.SIGINT)
            end.wait(20)

    with pytest.raises(KeyboardInterrupt):
        run(interrupted, range(2))
    end.set()
    done = []

    def slow(i):
        both.wait()
        if threading.current_thread() is not main:
            time.sleep(0.05)
        done.append(i)

    run(slow, range(2))
    assert len(done) == 2


def test_work_within_work_and_beside_it_is_done_in_one_thread(two_threads):
    inner = []
    run(lambda i: run(inner.append, range(3)), range(4))
    assert sorted(inner) == sorted(list(range(3)) * 4)


def test_small_work_stays_in_its_thread(two_threads):
    names = set()
    threads.in_threads(lambda i: names.add(threading.current_thread()), range(9), np.empty(10))
    assert names == {threading.current_thread()}


def test_errstate_holds_in_the_threads(two_threads):
    both = threading.Barrier(2, timeout=20)

    def work(i):
        both.wait()
        np.float32(1) / np.float32(0)

    with warnings.catch_warnings(), np.errstate(divide="ignore"):
        warnings.simplefilter("error")
        run(work, range(2))
    with np.errstate(divide="raise"), pytest.raises(FloatingPointError):
        run(work, range(2))


def test_operations_give_the_same_in_one_thread_and_in_two(two_threads):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1500, 400)).astype(np.float32)
    q = rng.standard_normal((2, 3, 500, 16)).astype(np.float32)
    jobs = [
        lambda: tl.gelu(x),
        lambda: tl.gelu(x, approximate="none"),
        lambda: tl.layer_norm(x, x[0], x[1]),
        lambda: tl.scaled_dot_product_attention(q, q, q, is_causal=True),
    ]
    two = [job() for job in jobs]
    leaf = tl.tensor(q, requires_grad=True)
    y = tl.scaled_dot_product_attention(leaf, leaf, leaf, is_causal=True)
    gradient = tl.grad((y * y).sum(), leaf)[0]
    with threadpool_limits(1, user_api="blas"):
        for a, job in zip(two, jobs):
            np.testing.assert_array_equal(a.numpy(), job().numpy())
        y = tl.scaled_dot_product_attention(leaf, leaf, leaf, is_causal=True)
        again = tl.grad((y * y).sum(), leaf)[0]
    np.testing.assert_allclose(gradient.numpy(), again.numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("order", ["C", "F"])
def test_linear_of_any_number_of_rows(order, dtype, two_threads):
    """Without gradients: few rows one by one, many in threads; with gradients: BLAS alone."""
    rng = np.random.default_rng(0)
    w = np.asarray(rng.standard_normal((700, 900)), dtype, order=order)
    b, tolerance = w[0, :900].copy(), 1e-3 if dtype == np.float32 else 1e-10
    for rows in (0, 1, 2, 8, 9, 1000):
        x = rng.standard_normal((rows, 700)).astype(dtype)
        for bias in (None, b):
            expected = x @ w if bias is None else x @ w + bias
            y = tl.linear(x, w, bias)
            assert y.dtype == dtype
            np.testing.assert_allclose(y.numpy(), expected, rtol=tolerance, atol=tolerance)
            trained = tl.linear(tl.tensor(x, requires_grad=True), w, bias)
            np.testing.assert_allclose(trained.numpy(), expected, rtol=tolerance, atol=tolerance)
