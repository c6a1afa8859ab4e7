"""AdamW over all parameters in one launch, and what goes with it, on a GPU (update.cu)."""

from __future__ import annotations

import math
import warnings

import numpy as np

from .launch import CannotCompile, c_type, ceil_div, empty, launch
from .total import total

CHUNK = 8192  # elements that a block takes: few enough to fill a GPU, many enough to be worth it


class Table:
    """The arrays of all parameters, where the kernels find them.

    `params` are contiguous float32 arrays. The other lists have an array for each of them, or None
    where there is none: `grads`, `m` and `v` in float32, `copies` in float16 or bfloat16. `groups`
    says for each parameter which row of the settings is its own; by default it is the first.
    Making a table copies it to the GPU, and so does `fill`: do it outside a capture. Raises
    ValueError for arrays that do not fit.
    """

    def __init__(self, params, grads=None, m=None, v=None, copies=None, groups=None):
        self.params = list(params)
        none = [None] * len(self.params)
        self.columns = [self.params] + [list(a or none) for a in (grads, m, v, copies)]
        for name, column in zip(("param", "grad", "m", "v", "copy"), self.columns):
            self._check(name, column)
        sizes = [p.size for p in self.params]
        dtypes = {a.dtype for a in self.columns[4] if a is not None}
        if len(dtypes) > 1:
            raise ValueError(f"the copies are of several dtypes: {sorted(map(str, dtypes))}")
        self.low = dtypes.pop() if dtypes else None
        addresses = [[_address(a) for a in column] for column in self.columns]
        self.rows = np.array([*addresses, sizes, groups or [0] * len(sizes)], np.int64).T.copy()
        chunks = [(i, k) for i, size in enumerate(sizes) for k in range(ceil_div(size, CHUNK))]
        self.count = len(chunks)
        like = self.params[0]
        self.entries = np.asarray(self.rows, like=like)
        self.chunks = np.asarray(np.array(chunks, np.int32).reshape(-1, 2), like=like)

    def fill(self, grads) -> None:
        """Take these gradients, on the current stream; a captured update then reads them too."""
        grads = list(grads)
        self._check("grad", grads)
        self.columns[1] = grads
        self.rows[:, 1] = [_address(a) for a in grads]
        self.entries[...] = np.asarray(self.rows, like=self.entries)

    def _check(self, name: str, column: list) -> None:
        if len(column) != len(self.params):
            raise ValueError(f"{len(column)} arrays ({name}) for {len(self.params)} parameters")
        dtypes = ("bfloat16", "float16") if name == "copy" else ("float32",)
        for i, (a, p) in enumerate(zip(column, self.params)):
            if a is None:
                continue
            if a.size != p.size or a.dtype.name not in dtypes or not a.flags.c_contiguous:
                raise ValueError(
                    f"the {name} of parameter {i} is of dtype {a.dtype} and shape {a.shape}; it "
                    f"must be contiguous, of dtype {' or '.join(dtypes)}, and have {p.size} "
                    "elements"
                )


def _address(a) -> int:
    return 0 if a is None else a.data.ptr


def sum_of_squares(table: Table):
    """The sum of the squares of all gradients of a table: float32 (1,), always in one order."""
    part = empty((table.count,), np.float32)
    args = table.entries, table.chunks, CHUNK, part
    launch("update.cu", "sum_of_squares", (table.count,), (256,), args)
    return total(part).reshape(1)


def adamw_settings(
    t: int, lr, betas, eps, weight_decay, max_norm: float = math.inf, loss_scale: float = 1.0
) -> np.ndarray:
    """What `adamw` needs to know of a group of parameters at its update number `t`: float32 (9,).

    The other options are those of optim.AdamW, and so is the arithmetic, in float64; `t` counts
    from 1. The gradients are divided by `loss_scale`, and then, if `adamw` is given the sum of
    their squares, multiplied by min(1, max_norm / (their norm + 1e-6)). The array is on the CPU:
    it is copied to the GPU before each step.
    """
    beta1, beta2 = betas
    correction1, correction2 = 1 - beta1**t, 1 - beta2**t
    root = math.sqrt(correction2)
    moments = beta1, 1 - beta1, beta2, 1 - beta2
    rates = eps * root, lr * root / correction1, 1 - lr * weight_decay
    return np.array([*moments, *rates, max_norm, 1 / loss_scale], np.float32)


def adamw(table: Table, settings, square=None) -> None:
    """Update params, m and v of a table from its gradients, and the copies, if it has any.

    `settings` (groups, 9), float32 on the GPU, has a row of `adamw_settings` for each group.
    `square` is the `sum_of_squares` of the gradients; without it nothing is clipped. If it is not
    finite, nothing changes. A parameter without a gradient stays as it is.
    """
    kernel = f"adamw<{c_type(table.low or np.float32)}>"
    args = table.entries, table.chunks, CHUNK, settings, square
    launch("update.cu", kernel, (table.count,), (256,), args)


def cast_all(table: Table) -> None:
    """Round every parameter of a table that has a copy to this copy."""
    if table.low is not None:
        args = table.entries, table.chunks, CHUNK
        launch("update.cu", f"cast_all<{c_type(table.low)}>", (table.count,), (256,), args)


def step(ready: list, updates: list[int], scale=None) -> bool:
    """The update of `optim.AdamW` in one launch; False, and nothing is done, if a kernel cannot.

    `ready` has (number, group, [p, gradient, m, v]) of each parameter, `updates` the number of the
    update of each. The gradients are multiplied by `scale`, 0-d on the GPU, if it is given.
    """
    columns = list(zip(*(arrays for _, _, arrays in ready)))
    arrays = [a for column in columns for a in column]
    if not all(a.dtype == np.float32 and a.flags.c_contiguous for a in arrays):
        return False
    rows, groups = {}, []
    for i, group, _ in ready:
        key = id(group), updates[i]
        if key not in rows:
            options = (group[name] for name in ("lr", "betas", "eps", "weight_decay"))
            rows[key] = len(rows), adamw_settings(updates[i], *options)
        groups.append(rows[key][0])
    settings = np.asarray(np.stack([row for _, row in rows.values()]), like=columns[0][0])
    if scale is not None:
        settings[:, -1] *= scale  # the factor that a float16 loss would need
    try:
        adamw(Table(*columns, groups=groups), settings)
    except CannotCompile as error:
        warnings.warn(f"AdamW updates each parameter by itself: {error}", stacklevel=2)
        return False
    return True
