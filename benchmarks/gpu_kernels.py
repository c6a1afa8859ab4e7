"""Kernels of gpu.py: whether they are right, and how fast they are beside a copy and PyTorch.

`cases` lists the operations that have a kernel of their own and are bound by memory. A call must
read each of its arrays once and write its result once, so that its bytes divided by its time can be
compared with what a copy reaches. Calls of ours are captured, so that no Python is timed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

import tensorlite as tl
from benchmarks.gpu_card import (
    Table,
    attempt,
    captured_milliseconds,
    dtype_of,
    is_strict,
    queued_milliseconds,
    torch_and_device,
    used_memory,
)
from tensorlite.device import place, random

# The largest difference from float64, relative to the largest number.
TOLERANCE = {"float32": 1e-5, "tf32": 5e-3, "bfloat16": 1.5e-2, "float16": 2e-3}
SHAPES = (33, 768, 1000), (5, 129, 130)  # rows, width, ids: aligned and not
LARGE = 65_536, 768, 50_304  # arrays of 100 MB and more, which no cache holds
TINY = 8, 64, 96


class Case(NamedTuple):
    """An operation of tensors: `call(*tensors, **static)`.

    `theirs(F, *tensors, **static)` is the same with PyTorch's functions. `rereads` says whether the
    backward pass needs the arrays again.
    """

    name: str
    call: Callable
    arrays: list[np.ndarray]
    theirs: Callable | None = None
    static: dict[str, np.ndarray] = {}
    rereads: bool = True


def cases(rows: int, width: int, vocabulary: int, precision: str) -> Iterator[Case]:
    """Each operation with arrays of a model's shapes: float32 in the residual stream."""
    rng, dtype = random(0, "kernels"), dtype_of(precision)
    numbers = rng.standard_normal(1_000_003, dtype=np.float32)

    def full(*shape: int) -> np.ndarray:
        start = int(rng.integers(1000))
        return np.resize(numbers[start:], shape)

    def low(*shape: int) -> np.ndarray:
        return full(*shape).astype(dtype)

    n, params = width, [1 + 0.1 * full(width), full(width)]
    yield Case(
        "layer_norm",
        lambda x, w, b: tl.layer_norm(x, w, b),
        [full(rows, n), *params],
        lambda F, x, w, b: F.layer_norm(x, w.shape, w, b),
    )
    yield Case(
        "rms_norm",
        lambda x, w: tl.rms_norm(x, w),
        [full(rows, n), params[0]],
        lambda F, x, w: F.rms_norm(x, w.shape, w),
    )
    yield Case(
        "gelu",
        lambda x: tl.gelu(x),
        [low(rows, 2 * n)],
        lambda F, x: F.gelu(x, approximate="tanh"),
    )
    yield Case(
        "swiglu",
        lambda x, y: tl.swiglu(x, y),
        [low(rows, n), low(rows, n)],
        lambda F, x, y: F.silu(x) * y,
    )
    yield Case(
        "add",
        lambda x, y: x + y,
        [full(rows, n), low(rows, n)],
        lambda F, x, y: x + y,
        rereads=False,
    )
    keep = rng.integers(0, 5, (rows, n), dtype=np.int8) > 0
    yield Case(
        "drop", lambda x, keep: tl.drop(x, keep=keep, p=0.2), [low(rows, n)], None, {"keep": keep}
    )
    angles = full(rows, n // 2)
    turn = {"cos": np.cos(angles), "sin": np.sin(angles)}
    x = low(1, rows, n // 2 * 2)
    yield Case("rope", lambda x, cos, sin: tl.rope(x, cos=cos, sin=sin), [x], None, turn)
    ids = rng.integers(0, vocabulary, rows)
    yield Case(
        "embedding",
        lambda table, ids: tl.embedding(table, ids=ids),
        [full(vocabulary, n)],
        lambda F, table, ids: F.embedding(ids, table),
        {"ids": ids},
        rereads=False,
    )
    few = max(1, rows // 16)
    yield Case(
        "cross_entropy",
        lambda x, targets: tl.cross_entropy(x, targets=targets),
        [low(few, vocabulary)],
        lambda F, x, targets: F.cross_entropy(x, targets),
        {"targets": ids[:few]},
    )


# =================================================================================================
# Right
# =================================================================================================


def products_and_attention(rows: int, width: int, precision: str) -> Iterator[Case]:
    """The operations that are bound by arithmetic, whose float32 arrays `autocast` rounds."""
    rng = random(0, "products")

    def full(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape, dtype=np.float32)

    weights = [full(width, 3 * width) / math.sqrt(width), full(3 * width)]
    yield Case("linear", lambda x, w, b: tl.linear(x, w, b), [full(rows, width), *weights])
    classes, targets = 3 * width, {"targets": rng.integers(0, 3 * width, rows)}
    yield Case(
        "linear_cross_entropy",
        lambda x, w, targets: tl.linear_cross_entropy(x, w, targets=targets),
        [full(rows, width), full(classes, width) / math.sqrt(width)],
        None,
        targets,
    )
    for size in (32, 64, 128):
        qkv = full(2, rows, 3 * 2 * size).astype(dtype_of(precision))
        yield Case(f"attention, heads of {size}", lambda x: tl.causal_self_attention(x, 2), [qkv])


def check_all(precision: str) -> list[dict]:
    """The largest differences from NumPy in float64, a row for each operation and shape."""
    found = []
    for rows, width, vocabulary in [TINY] if is_strict() else SHAPES:
        both = [*products_and_attention(rows, width, precision)]
        if precision != "tf32":  # which is of products
            both = [*cases(rows, width, vocabulary, precision), *both]
        for case in both:
            difference = attempt(check, case, precision)
            right = difference is not None and difference <= TOLERANCE[precision]
            found.append(
                {
                    "operation": case.name,
                    "precision": precision,
                    "rows": rows,
                    "width": width,
                    "largest difference": difference,
                    "right": "yes" if right else "NO",
                }
            )
    return found


def check(case: Case, precision: str) -> float:
    """The largest relative difference of value and gradients from those in float64 on the CPU."""
    exact = [tl.tensor(a.astype(np.float64), requires_grad=True) for a in case.arrays]
    y = case.call(*exact, **case.static)
    g = random(0, "gradient").standard_normal(y.shape).astype(np.float32)
    with tl.autocast(precision):
        tensors, static = on_card(case)
        z = case.call(*tensors, **static)
    g = g.astype(z.data.dtype)  # both sides are given the same numbers
    expected = [y, *tl.grad(y, exact, gradient=g.astype(np.float64))]
    results = [z, *tl.grad(z, tensors, gradient=tl.tensor(g, device="cuda"))]
    return max(
        difference(r.numpy().astype(np.float64), e.numpy()) for r, e in zip(results, expected)
    )


def difference(result: np.ndarray, expected: np.ndarray) -> float:
    worst = np.max(np.abs(result - expected), initial=0)
    return float(worst / max(np.max(np.abs(expected), initial=0), 1e-30))


def on_card(case: Case) -> tuple[list[tl.Tensor], dict]:
    tensors = [tl.tensor(a, device="cuda", requires_grad=True) for a in case.arrays]
    return tensors, {name: place(a, "cuda") for name, a in case.static.items()}


# =================================================================================================
# Fast
# =================================================================================================


def run(options) -> Iterator[Table]:
    """The speed of the kernels that are bound by memory, of the update, and of products."""
    sizes = TINY if options.strict else LARGE
    copied = copy_speed(1 << 12 if options.strict else 1 << 28)
    rows = []
    for precision in options.precisions:
        for case in cases(*sizes, precision) if precision != "tf32" else ():
            row = {"kernel": case.name, "precision": precision}
            row |= attempt(ours, case, precision) or {"forward GB/s": "error"}
            row |= attempt(pytorch, case, ours=False) or {}
            for way in ("forward", "backward"):
                speed = row.get(f"{way} GB/s")
                row[f"{way} / copy"] = speed / copied if isinstance(speed, float) else None
            rows.append(row)
            used_memory(give_back=True)
    yield Table("Kernels bound by memory", rows, f"A copy reaches {copied:,.0f} GB/s.")
    yield Table("The update", update_speed(2 if options.strict else 16, copied))
    rows = []
    for precision in options.precisions:
        rows += product_speeds(precision)
    yield Table("Products", rows)


def copy_speed(size: int) -> float:
    """GB/s that a copy of `size` bytes on the card reads and writes."""
    import cupy

    source, target = cupy.zeros(size, np.uint8), cupy.empty(size, np.uint8)

    def copy():
        target[...] = source

    return 2 * size / captured_milliseconds(copy) / 1e6


def ours(case: Case, precision: str) -> dict[str, float]:
    tensors, static = on_card(case)
    with tl.autocast(precision):
        y = case.call(*tensors, **static)
        forward = captured_milliseconds(lambda: case.call(*tensors, **static))
        g = tl.tensor(np.resize(np.float32(1), y.shape).astype(y.data.dtype), device="cuda")

        def back():
            tl.grad(y, tensors, gradient=g, retain_graph=True)

        backward = captured_milliseconds(back)
    read = sum(a.nbytes for a in [*case.arrays, *case.static.values()])
    written = sum(a.nbytes for a in case.arrays)
    if case.name == "embedding":  # reads the rows that it needs, and not the table
        read = y.data.nbytes
    return speeds(read, y.data.nbytes, written, case, forward, backward)


def speeds(read, result, gradients, case, forward, backward) -> dict[str, float]:
    """GB/s: forward reads and writes, backward reads the gradient and what it needs again."""
    again = read if case.rereads else 0
    return {
        "forward GB/s": (read + result) / forward / 1e6,
        "backward GB/s": (result + again + gradients) / backward / 1e6,
    }


def pytorch(case: Case) -> dict[str, float] | None:
    """The speeds of PyTorch's function, with the dtypes that its autocast would give it."""
    torch, device = torch_and_device()
    if torch is None or case.theirs is None:
        return None
    F = torch.nn.functional
    low = case.arrays[-1].dtype if case.name in ("add", "gelu", "swiglu") else None
    dtype = getattr(torch, low.name) if low is not None else torch.float32
    xs = [
        torch.from_numpy(a.astype(np.float32)).to(device, dtype).requires_grad_()
        for a in case.arrays
    ]
    static = {name: torch.from_numpy(a).to(device) for name, a in case.static.items()}
    y = case.theirs(F, *xs, **static)
    g = torch.ones_like(y)
    forward = queued_milliseconds(lambda: case.theirs(F, *xs, **static))
    backward = queued_milliseconds(lambda: torch.autograd.grad(y, xs, g, retain_graph=True))
    read = sum(x.nbytes for x in xs) if case.name != "embedding" else y.nbytes
    found = speeds(read, y.nbytes, sum(x.nbytes for x in xs), case, forward, backward)
    return {f"PyTorch's {name}": value for name, value in found.items()}


def update_speed(count: int, copied: float) -> list[dict]:
    """AdamW over `count` matrices with copies of 16 bits, and the sum of squares of gradients."""
    from tensorlite.kernels import update

    side = 64 if is_strict() else 2048
    like = tl.tensor(np.zeros((side, side), np.float32), device="cuda").data
    params, grads, m, v = ([like.copy() for _ in range(count)] for _ in range(4))
    low = [np.empty_like(p, dtype=dtype_of("float16")) for p in params]
    table = update.Table(params, grads, m, v, low)
    settings = update.adamw_settings(1, 1e-3, (0.9, 0.99), 1e-8, 0.1, 1.0)
    settings = place(settings[None], "cuda")
    number, rows = count * side * side, []
    for name, bytes_each, call in (
        ("AdamW", 4 * 4 + 3 * 4 + 2, lambda: update.adamw(table, settings)),
        ("sum of squares", 4, lambda: update.sum_of_squares(table)),
    ):
        ms = attempt(captured_milliseconds, call)
        speed = bytes_each * number / ms / 1e6 if ms else None
        rows.append({"kernel": name, "GB/s": speed, "/ copy": speed and speed / copied})
    return rows


# (M, K, N) of the products of GPT-2 at 16 rows of 1,024 tokens, and how they are transposed
PRODUCTS = {
    "attention in": (16384, 768, 2304, {}),
    "MLP in": (16384, 768, 3072, {}),
    "MLP out": (16384, 3072, 768, {}),
    "MLP out, gradient of x": (16384, 768, 3072, {"tb": True}),
    "MLP out, gradient of the weight": (3072, 16384, 768, {"ta": True}),
    "logits": (4096, 768, 50304, {"tb": True}),
}


def product_speeds(precision: str) -> list[dict]:
    """TFLOP/s of products, of ours and PyTorch's."""
    from tensorlite.kernels import cublaslt
    from tensorlite.kernels.products import matmul

    cublaslt.choose(True)  # the fastest algorithm of each product, as a training run does
    torch, device = torch_and_device()
    rows = []
    for name, (M, K, N, how) in PRODUCTS.items():
        if is_strict():
            M, K, N = 16, 8, 24
        shapes = ((K, M) if how.get("ta") else (M, K)), ((N, K) if how.get("tb") else (K, N))
        values = [np.resize(np.linspace(-1, 1, 1009, dtype=np.float32), s) for s in shapes]
        a, b = (place(v.astype(dtype_of(precision)), "cuda") for v in values)
        with tl.autocast(precision):
            ms = attempt(captured_milliseconds, lambda a=a, b=b, how=how: matmul(a, b, **how))
        row = {"product": name, "precision": precision}
        row["TFLOP/s"] = 2 * M * K * N / ms / 1e9 if ms else None
        if torch is not None:
            torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
            dtype = getattr(torch, dtype_of(precision).name)
            x, y = (torch.from_numpy(v).to(device, dtype) for v in values)
            x, y = (x.T if how.get("ta") else x), (y.T if how.get("tb") else y)
            ms = attempt(queued_milliseconds, lambda x=x, y=y: x @ y, ours=False)
            row["PyTorch's"] = 2 * M * K * N / ms / 1e9 if ms else None
        rows.append(row)
    return rows
