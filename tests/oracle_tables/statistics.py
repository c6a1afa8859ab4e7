"""The functions of tensorlite/numpy_ops/statistics.py in PyTorch."""

import pytest

torch = pytest.importorskip("torch")
F = torch.nn.functional


def diff(x, n=1, axis=-1, prepend=None):
    if n and prepend is not None:
        shape = list(x.shape)
        shape[axis] = 1
        prepend = torch.full(shape, prepend, dtype=x.dtype)
    for i in range(n):  # one by one, because torch refuses more times than there are elements
        x = torch.diff(x, 1, axis, prepend if i == 0 else None)
    return x * 1


def ediff1d(x, to_end=None, to_begin=None):
    ends = [None if end is None else x.new_tensor([end]) for end in (to_begin, to_end)]
    parts = [ends[0], torch.diff(x.reshape(-1)), ends[1]]
    return torch.cat([part for part in parts if part is not None])


def trapezoid(y, x=None, axis=-1, dx=1.0):
    if y.shape[axis] < 2:
        return y.sum(axis) * 0  # torch's zeros are constants
    return torch.trapezoid(y, dx=dx, dim=axis) if x is None else torch.trapezoid(y, x, dim=axis)


def cov(m, y=None, rowvar=True, bias=False):
    x = m.reshape(1, -1) if m.ndim < 2 else m if rowvar else m.T
    x = x if y is None else torch.cat([x, y.reshape(1, -1)])
    return torch.cov(x, correction=0 if bias else 1)


def convolve(a, v, mode="full"):
    n = min(len(a), len(v))
    y = F.conv1d(a[None, None], v.flip(0)[None, None], padding=len(v) - 1)[0, 0]
    if mode == "full":
        return y
    before = (n - 1) // 2 if mode == "same" else n - 1
    length = max(len(a), len(v)) - (0 if mode == "same" else n - 1)
    return y[before : before + length]


def correlate(a, v, mode="valid"):
    if len(a) < len(v):
        return convolve(v, a.flip(0), mode).flip(0)
    return convolve(a, v.flip(0), mode)


def polyval(p, x):
    return sum(c * x ** (len(p) - 1 - i) for i, c in enumerate(p))


THEIRS = {
    "diff": diff,
    "ediff1d": ediff1d,
    "trapezoid": trapezoid,
    "cov": cov,
    "corrcoef": torch.corrcoef,
    "convolve": convolve,
    "correlate": correlate,
    "polyval": polyval,
}
EXCEPTIONS = {
    "gradient": "torch's has no gradient for the coordinates; test_numpy_statistics compares both",
    "unwrap": "torch has no such function",
}
DIFFERENCES = {}
