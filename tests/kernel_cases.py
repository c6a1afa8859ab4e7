"""Calls that launch the kernels, with fixed inputs, in the sizes and dtypes of real models.

tests/test_kernel_bits.py holds what they give and which kernels they launch;
tests/test_kernels_compile.py compiles these kernels. After a change, renew both with

    python -m tests.kernel_cases

which needs g++, and NVRTC for the registers; look at what it changes.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest

import tensorlite as tl
from tensorlite.arraylike import bfloat16
from tensorlite.graph import Deferred
from tensorlite.kernels import (
    activations,
    attention,
    decode,
    draw,
    elementwise,
    embedding,
    launch,
    loss,
    norm,
    random,
    rope,
    softmax,
    update,
)
from tests import emulator_blas, strict

BITS = Path(__file__).with_name("kernel_bits.json")
F32, F16, BF16 = np.dtype(np.float32), np.dtype(np.float16), np.dtype(bfloat16())
TYPES = [F32, BF16, F16]
PRECISIONS = {F32: None, BF16: "bfloat16", F16: "float16"}
CASES = {}  # name -> the function that gives arrays


def case(*choices):
    """Add the function below as a case for each of the choices of its arguments."""

    def add(function):
        for arguments in choices or [()]:
            words = [getattr(a, "name", str(a)) for a in arguments]
            CASES[" ".join([function.__name__, *words])] = lambda a=arguments: function(*a)
        return function

    return add


def some(shape, dtype=F32, seed=0, scale=1.0):
    """Multiples of 1/64 from -3 to 3 on the device, which every dtype of these holds exactly."""
    numbers = np.random.default_rng([seed, *np.atleast_1d(shape)]).integers(-192, 193, shape)
    return on_device((numbers * (scale / 64)).astype(np.float32).astype(dtype))


def on_device(array):
    import cupy

    return cupy.asarray(array)


def gradients(body, g) -> list:
    """The value of a body, and what its vjps give for g."""
    value, *vjps = body
    found = [value]
    for vjp in vjps:
        result = vjp(g)
        found += result if isinstance(result, tuple) else [result]
    return [x.array() if isinstance(x, Deferred) else x for x in found if x is not None]


# =================================================================================================
# Norms, activations, sums, positions and masks
# =================================================================================================

WIDTHS = [(n, F32, low) for n in (128, 384, 768) for low in TYPES]
WIDTHS += [(1024, F32, BF16), (2048, BF16, BF16), (33, F32, F32), (33, F32, F16)]
WIDTHS += [(20480, F32, BF16)]


@case(*WIDTHS)
def layer_norm(n, stored, low):
    x, weight, bias = some((6, n), stored), some(n, seed=1), some(n, seed=2)
    with tl.autocast(PRECISIONS[low]):
        body = norm.layer_norm(x, weight, bias, eps=1e-5, needs=(True, True, True))
        found = gradients(body, some((6, n), low, 3))
        y, vjp = norm.layer_norm(x, weight, eps=1e-5, needs=(True, True))
        (gx, _) = vjp(some((6, n), low, 3))
        return [*found, gx.plus(some((6, n), stored, 4))]


RMS = [(768, F32, BF16), (128, F32, F16), (2048, BF16, BF16), (64, F32, F32), (33, F32, F32)]


@case(*RMS, (20480, F32, F16))
def rms_norm(n, stored, low):
    with tl.autocast(PRECISIONS[low]):
        body = norm.rms_norm(some((6, n), stored), some(n), eps=1e-6, needs=(True, True))
        return gradients(body, some((6, n), low, 3))


@case(*[(name, dtype, n) for name in ("gelu", "silu") for dtype in TYPES for n in (1536, 331)])
def activation(name, dtype, n):
    body = getattr(activations, name)(some((3, n), dtype), needs=(True,))
    return gradients(body, some((3, n), dtype, 1))


@case(*[(dtype, n) for dtype in TYPES for n in (1024, 331)])
def swiglu(dtype, n):
    gate, up = some((3, n), dtype), some((3, n), dtype, 1)
    body = activations.swiglu(gate, up, needs=(True, True))
    return gradients(body, some((3, n), dtype, 2))


@case((F32, F32), (F32, BF16), (F32, F16), (BF16, BF16), (BF16, F32), (F16, F16), (F16, F32))
def add(one, other):
    x, y, row = some((5, 264), one), some((5, 264), other, 1), some(264, other, 2)
    found = [elementwise.plus(x, y), elementwise.plus(x, row), elementwise.plus(x[:, 1:], y[:, 1:])]
    return [*found, elementwise.plus(x[:, 1:], row[1:])]


@case(*[(one, other) for one in TYPES for other in TYPES if one != other])
def cast(one, other):
    return [elementwise.cast(some((5, n), one, scale=0.3), other) for n in (264, 33)]


@case(*[(dtype, n) for dtype in TYPES for n in (768, 33)])
def drop_and_column_sums(dtype, n):
    x, keep = some((40, n), dtype), on_device(np.arange(40 * n).reshape(40, n) % 3 > 0)
    return [elementwise.drop(x, keep=keep, p=0.3)[0], elementwise.column_sums(x)]


@case(*[(dtype, d) for dtype in TYPES for d in (64, 10)])
def rotary_positions(dtype, d):
    angles = np.arange(7 * (d // 2), dtype=np.float32).reshape(7, d // 2) / 8
    cos, sin = on_device(np.cos(angles)), on_device(np.sin(angles))
    x, g = some((2, 3, 7, d), dtype), some((2, 3, 7, d), dtype, 1)
    return gradients(rope.rope(x, cos=cos, sin=sin, needs=(True,)), g)


@case()
def masks():
    key = on_device(np.array([3, 2**60 + 5], np.uint64))
    rows = on_device(np.array([0, 7, 12], np.int64))
    return [random.keep_mask((3, 5, 7), 0.2, key, rows, 4)]


# =================================================================================================
# Losses, the embedding and the update
# =================================================================================================


@case(*[(dtype, n) for dtype in TYPES for n in (65, 50304)])
def cross_entropy(dtype, n):
    targets = on_device(np.array([0, n - 1, -100, 5], np.int64))
    body = loss.cross_entropy(some((4, n), dtype, scale=3), targets=targets)
    return gradients(body, some((), seed=1))


@case(*[(n, F32, low) for low in TYPES for n in (65, 128)], (65, BF16, BF16), (65, F16, F16))
def linear_cross_entropy(n, stored, low):
    targets = on_device(np.array([0, n - 1, -100, 5], np.int64))
    with tl.autocast(PRECISIONS[low]):
        args = some((4, 48), stored), some((n, 48), seed=1)
        value, vjp = loss.linear_cross_entropy(*args, targets=targets, needs=(True, True))
        vjp(some(()))  # not a result: the order of sums in NumPy's products is not fixed
        return [value]  # whose products are exact


@case(*[(dtype, n) for dtype in TYPES for n in (768, 33)])
def embedded(dtype, n):
    ids = on_device(np.array([[3, 0, 3, 9], [3, 9, 1, 3]], np.int64))
    value, vjp = embedding.embedding(some((11, n)), ids=ids)
    gradient = vjp(some((2, 4, n), dtype, 1))
    total = some((11, n), seed=2)
    return [value, embedding.embedding(some((11, n), dtype), ids=ids)[0], gradient.plus(total)]


@case(*[(low,) for low in (None, BF16, F16)])
def adamw(low):
    sizes = [(300, 33), (5,), (64, 64)]
    params, grads, m, v = ([some(size, seed=k) for size in sizes] for k in range(4))
    v = [x * x for x in v]
    copies = None if low is None else [launch.empty(size, low) for size in sizes]
    table = update.Table(params, grads, m, v, copies, groups=[0, 1, 0])
    rows = [update.adamw_settings(3, 1e-3, (0.9, 0.99), 1e-8, d, 1.0, 4.0) for d in (0.1, 0)]
    square = update.sum_of_squares(table)
    update.adamw(table, on_device(np.stack(rows)), square)
    found = [square, *params, *m, *v, *(copies or [])]
    if low is not None:
        update.cast_all(table)
    return found


@case((False,), (True,))
def causal_softmax(drops):
    scores, g = some((2, 9, 70)), some((2, 9, 70), seed=1)
    keep = on_device(np.arange(2 * 9 * 70).reshape(2, 9, 70) % 4 > 0) if drops else None
    weights = softmax.causal_softmax(scores, 0.5, keep, 0.25 if drops else 0.0)
    found = [weights, scores]
    return [*found, softmax.causal_softmax_backward(scores, g, 0.5, keep, 0.25 if drops else 0.0)]


# =================================================================================================
# Attention and generation
# =================================================================================================


@case(*[(t, d, drops) for t in (BF16, F16) for d in (32, 64, 128) for drops in (False, True)])
def flash_attention(dtype, head_size, drops):
    T = 70
    qkv, g = some((1, T, 6 * head_size), dtype, scale=0.4), some((1, T, 2 * head_size), dtype, 1)
    keep = on_device(np.arange(2 * T * T).reshape(1, 2, T, T) % 5 > 0) if drops else None
    how = dict(n_head=2, dropout_p=0.2 if drops else 0.0, keep=keep)
    return gradients(attention.packed_attention(qkv, **how, needs=(True,)), g)


@case(*[(t, hs) for t in TYPES for hs in (64, 128)])
def attend(dtype, head_size):
    C = 2 * head_size
    q, k, v = (some((3, C), dtype, seed) for seed in range(3))
    keys, values = (some((3, 2, 40, head_size), dtype, seed) for seed in (3, 4))
    slot, begin = on_device(np.array([0, 20, 39], np.int32)), on_device(np.zeros(3, np.int32))
    return [decode.attend(q, k, v, keys, values, slot, begin, 2), keys, values]


@case(*[(t, rows) for t in TYPES for rows in (1, 4)], (BF16, 8))
def few_rows(dtype, rows):
    stream, low = some((rows, 128)), some((rows, 128), dtype)
    weight, bias = some((128, 96), dtype, 1), some(96, seed=2)
    norm = some(128, seed=3), some(128, seed=4), 1e-5
    out = some((rows, 96), seed=5)
    logits = launch.empty((rows, 331), np.float32)
    decode.few_rows_head(stream, norm, some((331, 128), dtype), logits)
    return [
        decode.few_rows(stream, weight, bias, norm),
        decode.few_rows(stream, weight, bias, norm, then="gelu"),
        decode.few_rows(low, weight, bias, then="add", out=out),
        decode.few_rows(low, some((128, 4608), dtype)),
        logits,
    ]


@case()
def drawn_tokens():
    state = draw.State(launch.empty, 3, 4, 40)
    for array, value in [(state.begin, 0), (state.slot, 5), (state.token, 1), (state.step, 0)]:
        array[...] = np.int32(value)
    state.uniform[...] = np.uint64(2**63 + 12345)
    state.tokens[...] = np.int32(0)
    for filters in ({}, dict(temperature=0.8, top_k=9), dict(temperature=1.2, top_p=0.7)):
        draw.draw(some((3, 331), scale=2), state, **filters)
    tables = some((331, 64)), some((40, 64))
    stream = launch.empty((3, 64), np.float32)
    decode.embed(state.token, state.slot, state.begin, *tables, stream)
    return [state.tokens, state.token, state.slot, stream]


# =================================================================================================
# What a case gives
# =================================================================================================


def bits(name: str) -> dict:
    """{"sha256": of all arrays that the case gives, "kernels": those it launches}."""
    seen, function = [], launch._function

    def noted(file, kernel):
        seen.append(f"{file} {kernel}")
        return function(file, kernel)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launch, "_function", noted)
        arrays = CASES[name]()
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array.get()).tobytes())
    return {"sha256": digest.hexdigest(), "kernels": sorted(set(seen))}


def main() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tensorlite.device._cuda_fault", lambda: None)
        patch.setitem(sys.modules, "cupy", strict.stand_in())
        emulator_blas.install(patch)
        found = {name: bits(name) for name in CASES}
    BITS.write_text(json.dumps(found, indent=1) + "\n")
    print(f"{BITS}: {len(found)} cases")


if __name__ == "__main__":
    main()
